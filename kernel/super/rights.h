/*
 * What a plugin's manifest says that its process needs (the key `sandbox` of plugin.yaml), and what that comes to for the components
 * that the process is started for.
 *
 *   sandbox:
 *     files:
 *       - path: ${connectionString}   a path, or the value of a metadata field; "file:" before and "?..." behind it do not count
 *         access: write               read, or write: to create, change and remove, too; of a folder: all that is below it
 *         beside: true                the folder in which the file stands, for journals and locks
 *         when: disableWAL=true       only when that field has that value; ${field} as the whole: only when it is given
 *         reason: The database.       for whoever must decide whether to trust the plugin
 *     network:
 *       - connect: ${redisHost}       hosts with ports in a field's value (host:port, several, a URL, host=.. port=..), "*" = any,
 *                                     "unix" = sockets of the file system, "udp" = datagrams only
 *         port: 6379                  for hosts without one
 *         reason: The Redis server.
 *       - listen: 8080                takes connections
 *     programs:
 *       - path: /usr/bin/git          starts this program; a folder: those below it; "self": processes of its own
 *     limits:
 *       memory: 512Mi                 of data; default 2Gi
 *       cpu: 0.5                      CPUs; default: as many as there are; only where the machine lets daprd have cgroups
 *       processes: 64                 threads and processes, when the process runs as a user or in a cgroup of its own; default 512
 *
 * A manifest without the key asks for everything: its process is not confined. `sandbox: {}` asks for nothing.
 */
#ifndef KERNEL_SUPER_RIGHTS_H
#define KERNEL_SUPER_RIGHTS_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

enum { RIGHTS_FILES_MAX = 64, RIGHTS_PORTS_MAX = 64 };
enum right_kind { RIGHT_READ, RIGHT_WRITE, RIGHT_CONNECT, RIGHT_LISTEN, RIGHT_PROGRAM };

struct yaml_node;
struct right {
        enum right_kind kind;
        const char *what;   /* path, hosts, "*", "unix", "udp" or a port, as in the manifest */
        const char *when;   /* NULL = always */
        const char *reason; /* "" if none */
        int port;           /* for hosts without one; 0 = none */
        bool beside;
};
struct rights {
        bool confined;      /* the manifest has the key */
        struct right *v;
        size_t n;
        uint64_t memory_bytes;
        unsigned processes;
        unsigned cpu_percent; /* of one CPU; 0 = no limit */
};

/* From the manifest's node (NULL = the key is absent). 0; -EINVAL with "file:line:column: sentence" in *ret_err; -ENOMEM. Strings
 * live in a. */
int rights_read(struct arena *a, const struct yaml_node *node, struct rights *ret, struct arena *errors, const char **ret_err);
/* Does a right take its text from metadata? Then a process can serve one component only. */
bool rights_need_metadata(const struct rights *r);

/* Rights with every field put in. Strings live in the arena of rights_grant(). */
struct granted_file {
        const char *path;
        enum right_kind kind;      /* RIGHT_READ, RIGHT_WRITE or RIGHT_PROGRAM */
};
struct grant {
        struct granted_file files[RIGHTS_FILES_MAX];
        size_t n_files;
        int connect_ports[RIGHTS_PORTS_MAX], listen_ports[RIGHTS_PORTS_MAX];
        size_t n_connect, n_listen;
        bool any_port, tcp, udp, unix_sockets, writes, forks;
};
/* Value of a metadata field, NULL or "" when it is not given and has no default. */
typedef const char *(*rights_value_fn)(void *arg, const char *field);
/* Adds to *g. 0; -ENOSPC when a component has more paths or ports than there is room for; -ENOMEM. May be called for several
 * components, one after the other. Looks at the file system (blocks for a moment). */
int rights_grant(const struct rights *r, rights_value_fn value, void *arg, struct arena *a, struct grant *g);
/* Ports in a value, for hosts without one `port`; how many, at most max; -1: more than that. */
int rights_ports(struct str value, int port, int *ret, int max);

#endif
