/*
 * What a kernel leaves to the one that takes its place: plugin processes and what is known of them, and what happened to components.
 * To a program in the same process also descriptors: of listening sockets, idle connections and plugins; then it is a sealed memory
 * file, which the new program gets by number. To whoever comes after a crash it is a file (ledger_file.h). A MessagePack text with a
 * version; a program that does not know it must not be started over this one (ledger_probe).
 */
#ifndef KERNEL_SUPER_LEDGER_H
#define KERNEL_SUPER_LEDGER_H

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"

enum { LEDGER_VERSION = 2, LEDGER_ENTRIES_MAX = 20000, LEDGER_BYTES_MAX = 64 << 20 };
#define LEDGER_ENV "MICRODAPR_LEDGER" /* the descriptor's number */
#define LEDGER_PROBE_ARG "--ledger-version" /* as the only argument: the program says its version and ends */

struct ledger_fd {
        const char *name; /* of the server */
        bool listening;   /* else an idle connection */
        int fd;           /* -1 = taken */
};
struct ledger_named {
        const char *name;
        uint64_t number;
};
struct ledger_instance {
        const char *name, *type, *version;
        uint64_t kind, features, request; /* request: hash of its InitRequest */
};
struct ledger_plugin {
        const char *name, *manifest, *version, *path; /* manifest: plugin.yaml; version: in it; path: of its socket; in a file without folder */
        const char *reported_name, *reported_version;
        const char *executable, *token; /* token: of Attach; "" = it does not linger */
        const char *cgroup;             /* of its own; "" = none */
        int64_t pid, restarts;
        uint64_t start_ticks, uid;      /* of the process: with the pid they tell it from every other one */
        uint64_t executable_id;         /* of the file that it runs (proof.h) */
        uint64_t generation;            /* how often it was taken over */
        int listen_fd, pidfd, control_fd, out_fd, err_fd, watch_fd; /* watch_fd: of what a confined process asks for */
        uint64_t walls; /* of its sandbox */
        bool backend_known, backend_up;
        const char **idempotent;
        struct ledger_named *features; /* by type */
        struct ledger_instance *instances;
        size_t n_idempotent, n_features, n_instances;
};
struct ledger_event {
        int64_t at_ns;
        const char *name, *what, *text;
};
/* What somebody wants to know again: what = whose and about what ("disabled"), name = of the thing, text as it likes. */
struct ledger_note {
        const char *what, *name, *text;
};
struct ledger {
        struct arena arena;
        int64_t pid, upgrades;
        const char *app_id, *boot_id;   /* boot_id: of the machine's kernel */
        int64_t linger_ms, at_ns;       /* at_ns: when it was written, wall clock */
        const char *dir_user, *dir_own; /* of the supervisor's sockets */
        int dir_lock;
        struct ledger_fd *fds;
        struct ledger_plugin *plugins;
        struct ledger_event *events;
        struct { const char *key, *value; } *extended; /* metadata that were set */
        struct ledger_note *notes;
        size_t n_fds, n_plugins, n_events, n_extended, n_notes;
};
void ledger_init(struct ledger *l);
void ledger_fini(struct ledger *l); /* descriptors are not closed */
/* One more, zeroed; NULL without memory or beyond LEDGER_ENTRIES_MAX. */
struct ledger_fd *ledger_add_fd(struct ledger *l, const char *name, int fd, bool listening);
struct ledger_plugin *ledger_add_plugin(struct ledger *l);
int ledger_add_event(struct ledger *l, int64_t at_ns, const char *name, const char *what, const char *text);
int ledger_add_extended(struct ledger *l, const char *key, const char *value);
int ledger_add_note(struct ledger *l, const char *what, const char *name, const char *text);
/* The text of a note; NULL: there is none, or no ledger. */
const char *ledger_note(const struct ledger *l, const char *what, const char *name);
/* Takes the next descriptor of that name, or -1. */
int ledger_take(struct ledger *l, const char *name, bool listening);

/* Its text, at the end of to. 0 or -ENOMEM. */
int ledger_pack(const struct ledger *l, struct buf *to);
/* Into a memory file; >= 0 its descriptor, or -errno. */
int ledger_write(const struct ledger *l);
/* From text. 0; -EBADMSG with what is wrong in *ret_err (static or in the arena); -EPROTO another version; -ENOMEM. */
int ledger_parse(struct ledger *l, struct str text, const char **ret_err);
/* From a memory file, which is closed. As ledger_parse. */
int ledger_read(struct ledger *l, int fd, const char **ret_err);
/* Asks the program at path for its version of the ledger: 0 when it is ours; -errno with a sentence in err. Blocks up to 5 s. */
int ledger_probe(const char *path, char *err, size_t err_n);

#endif
