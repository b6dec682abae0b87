/*
 * MessagePack by msgpack-c, whose one home this is. A struct is an array of its fields in their order; what follows the fields that
 * this version knows is passed over. Every length and type is checked: the text comes from another program.
 */
#include "kernel/super/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <msgpack.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdk/base/msgpack_size.h"

#define MAGIC "microdapr-ledger"
enum { PROBE_TIMEOUT_MS = 5000 };

void ledger_init(struct ledger *l)
{
        *l = (struct ledger){.dir_lock = -1};
        arena_init(&l->arena, LEDGER_BYTES_MAX);
}

void ledger_fini(struct ledger *l)
{
        struct arena a = l->arena;
        arena_fini(&a);
        *l = (struct ledger){.dir_lock = -1};
}

/* Room for one more in a list of the arena. */
static void *grow(struct arena *a, void *v, size_t n, size_t each)
{
        if (n >= LEDGER_ENTRIES_MAX)
                return NULL;
        if (n & (n - 1))
                return v;
        return arena_grow(a, v, n * each, (n ? n * 2 : 1) * each);
}

#define ADD(l, list, n, value)                                            \
        ({                                                                \
                void *grown_ = grow(&(l)->arena, (l)->list, (l)->n, sizeof *(l)->list); \
                if (grown_) {                                             \
                        (l)->list = grown_;                               \
                        (l)->list[(l)->n++] = value;                      \
                }                                                         \
                grown_ ? &(l)->list[(l)->n - 1] : NULL;                   \
        })

static const char *copy(struct ledger *l, const char *s)
{
        return arena_strdup(&l->arena, str_of(s ? s : ""));
}

struct ledger_fd *ledger_add_fd(struct ledger *l, const char *name, int fd, bool listening)
{
        struct ledger_fd e = {copy(l, name), listening, fd};
        return e.name ? ADD(l, fds, n_fds, e) : NULL;
}

struct ledger_plugin *ledger_add_plugin(struct ledger *l)
{
        struct ledger_plugin e = {.listen_fd = -1, .pidfd = -1, .control_fd = -1, .out_fd = -1, .err_fd = -1, .watch_fd = -1};
        return ADD(l, plugins, n_plugins, e);
}

int ledger_add_event(struct ledger *l, int64_t at_ns, const char *name, const char *what, const char *text)
{
        struct ledger_event e = {at_ns, copy(l, name), copy(l, what), copy(l, text)};
        return e.name && e.what && e.text && ADD(l, events, n_events, e) ? 0 : -ENOMEM;
}

int ledger_add_extended(struct ledger *l, const char *key, const char *value)
{
        __typeof__(*l->extended) e = {copy(l, key), copy(l, value)};
        return e.key && e.value && ADD(l, extended, n_extended, e) ? 0 : -ENOMEM;
}

int ledger_add_note(struct ledger *l, const char *what, const char *name, const char *text)
{
        struct ledger_note e = {copy(l, what), copy(l, name), copy(l, text)};
        return e.what && e.name && e.text && ADD(l, notes, n_notes, e) ? 0 : -ENOMEM;
}

const char *ledger_note(const struct ledger *l, const char *what, const char *name)
{
        for (size_t i = 0; l && i < l->n_notes; i++)
                if (strcmp(l->notes[i].what, what) == 0 && strcmp(l->notes[i].name, name) == 0)
                        return l->notes[i].text;
        return NULL;
}

int ledger_take(struct ledger *l, const char *name, bool listening)
{
        for (size_t i = 0; l && i < l->n_fds; i++) {
                struct ledger_fd *e = &l->fds[i];
                if (e->fd >= 0 && e->listening == listening && strcmp(e->name, name) == 0) {
                        int fd = e->fd;
                        e->fd = -1;
                        return fd;
                }
        }
        return -1;
}

/* ---- writing ---- */

static void put_text(msgpack_packer *p, const char *s)
{
        size_t n = strlen(s ? s : "");
        msgpack_pack_str(p, n);
        msgpack_pack_str_body(p, s ? s : "", n);
}

static void put_fd(msgpack_packer *p, const struct ledger_fd *e)
{
        msgpack_pack_array(p, 3);
        put_text(p, e->name);
        msgpack_pack_int(p, e->listening);
        msgpack_pack_int(p, e->fd);
}

static void put_instance(msgpack_packer *p, const struct ledger_instance *i)
{
        msgpack_pack_array(p, 6);
        put_text(p, i->name);
        put_text(p, i->type);
        put_text(p, i->version);
        msgpack_pack_uint64(p, i->kind);
        msgpack_pack_uint64(p, i->features);
        msgpack_pack_uint64(p, i->request);
}

static void put_plugin(msgpack_packer *p, const struct ledger_plugin *e)
{
        const char *texts[] = {e->name, e->manifest, e->version, e->path, e->reported_name, e->reported_version};
        const int64_t numbers[] = {e->pid, e->restarts, e->listen_fd, e->pidfd, e->control_fd, e->out_fd, e->err_fd, e->backend_known, e->backend_up};
        msgpack_pack_array(p, 27);
        for (size_t i = 0; i < 6; i++)
                put_text(p, texts[i]);
        for (size_t i = 0; i < 9; i++)
                msgpack_pack_int64(p, numbers[i]);
        msgpack_pack_array(p, e->n_idempotent);
        for (size_t i = 0; i < e->n_idempotent; i++)
                put_text(p, e->idempotent[i]);
        msgpack_pack_array(p, e->n_features);
        for (size_t i = 0; i < e->n_features; i++) {
                msgpack_pack_array(p, 2);
                put_text(p, e->features[i].name);
                msgpack_pack_uint64(p, e->features[i].number);
        }
        msgpack_pack_array(p, e->n_instances);
        for (size_t i = 0; i < e->n_instances; i++)
                put_instance(p, &e->instances[i]);
        msgpack_pack_int(p, e->watch_fd);
        msgpack_pack_uint64(p, e->walls);
        put_text(p, e->executable);
        put_text(p, e->token);
        msgpack_pack_uint64(p, e->start_ticks);
        msgpack_pack_uint64(p, e->uid);
        msgpack_pack_uint64(p, e->executable_id);
        msgpack_pack_uint64(p, e->generation);
        put_text(p, e->cgroup);
}

static void put_all(msgpack_packer *p, const struct ledger *l)
{
        msgpack_pack_array(p, 16);
        put_text(p, MAGIC);
        msgpack_pack_int(p, LEDGER_VERSION);
        msgpack_pack_int64(p, l->pid);
        msgpack_pack_int64(p, l->upgrades);
        put_text(p, l->dir_user);
        put_text(p, l->dir_own);
        msgpack_pack_int(p, l->dir_lock);
        msgpack_pack_array(p, l->n_fds);
        for (size_t i = 0; i < l->n_fds; i++)
                put_fd(p, &l->fds[i]);
        msgpack_pack_array(p, l->n_plugins);
        for (size_t i = 0; i < l->n_plugins; i++)
                put_plugin(p, &l->plugins[i]);
        msgpack_pack_array(p, l->n_events);
        for (size_t i = 0; i < l->n_events; i++) {
                msgpack_pack_array(p, 4);
                msgpack_pack_int64(p, l->events[i].at_ns);
                put_text(p, l->events[i].name);
                put_text(p, l->events[i].what);
                put_text(p, l->events[i].text);
        }
        msgpack_pack_array(p, l->n_extended);
        for (size_t i = 0; i < l->n_extended; i++) {
                msgpack_pack_array(p, 2);
                put_text(p, l->extended[i].key);
                put_text(p, l->extended[i].value);
        }
        put_text(p, l->app_id);
        put_text(p, l->boot_id);
        msgpack_pack_int64(p, l->linger_ms);
        msgpack_pack_int64(p, l->at_ns);
        msgpack_pack_array(p, l->n_notes);
        for (size_t i = 0; i < l->n_notes; i++) {
                msgpack_pack_array(p, 3);
                put_text(p, l->notes[i].what);
                put_text(p, l->notes[i].name);
                put_text(p, l->notes[i].text);
        }
}

static int to_buf(void *to, const char *p, size_t n)
{
        return buf_add(to, p, n) ? -1 : 0;
}

int ledger_pack(const struct ledger *l, struct buf *to)
{
        msgpack_packer p;
        size_t n = to->len;
        msgpack_packer_init(&p, to, to_buf);
        put_all(&p, l);
        return to->failed || to->len == n ? -ENOMEM : 0;
}

int ledger_write(const struct ledger *l)
{
        msgpack_sbuffer b;
        msgpack_packer p;
        int r = 0, fd = memfd_create("microdapr-ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        msgpack_sbuffer_init(&b);
        msgpack_packer_init(&p, &b, msgpack_sbuffer_write);
        put_all(&p, l);
        for (size_t at = 0; r == 0 && at < b.size;) {
                ssize_t n = write(fd, b.data + at, b.size - at);
                if (n < 0 && errno != EINTR)
                        r = -errno;
                at += n > 0 ? (size_t)n : 0;
        }
        msgpack_sbuffer_destroy(&b);
        if (r == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
                r = -errno;
        if (r)
                close(fd);
        return r ? r : fd;
}

/* ---- reading ---- */

struct reading {
        struct ledger *l;
        bool bad;
};

/* The i-th field of an array, or NULL. */
static const msgpack_object *at(struct reading *r, const msgpack_object *o, size_t i)
{
        if (!o || o->type != MSGPACK_OBJECT_ARRAY || i >= o->via.array.size) {
                r->bad = true;
                return NULL;
        }
        return &o->via.array.ptr[i];
}

static bool has(const msgpack_object *o, size_t i)
{
        return o && o->type == MSGPACK_OBJECT_ARRAY && i < o->via.array.size;
}

static const char *text(struct reading *r, const msgpack_object *o)
{
        if (!o || o->type != MSGPACK_OBJECT_STR || (o->via.str.size && memchr(o->via.str.ptr, 0, o->via.str.size))) {
                r->bad = true;
                return "";
        }
        const char *s = arena_strdup(&r->l->arena, str_n(o->via.str.ptr, o->via.str.size));
        r->bad |= !s;
        return s ? s : "";
}

static int64_t number(struct reading *r, const msgpack_object *o)
{
        if (o && o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
                return o->via.i64;
        if (o && o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
                return (int64_t)o->via.u64;
        r->bad = true;
        return 0;
}

static int descriptor(struct reading *r, const msgpack_object *o)
{
        int64_t n = number(r, o);
        r->bad |= n < -1 || n > 1 << 20;
        return r->bad ? -1 : (int)n;
}

/* Elements of an array, as a list of the arena; *ret_n of them. */
static void *list(struct reading *r, const msgpack_object *o, size_t each, size_t *ret_n)
{
        *ret_n = 0;
        if (!o || o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size > LEDGER_ENTRIES_MAX) {
                r->bad = true;
                return NULL;
        }
        void *v = arena_zalloc(&r->l->arena, (o->via.array.size + 1) * each);
        r->bad |= !v;
        *ret_n = v ? o->via.array.size : 0;
        return v;
}

static void read_instance(struct reading *r, const msgpack_object *o, struct ledger_instance *i)
{
        i->name = text(r, at(r, o, 0));
        i->type = text(r, at(r, o, 1));
        i->version = text(r, at(r, o, 2));
        i->kind = (uint64_t)number(r, at(r, o, 3));
        i->features = (uint64_t)number(r, at(r, o, 4));
        i->request = (uint64_t)number(r, at(r, o, 5));
}

static void read_plugin(struct reading *r, const msgpack_object *o, struct ledger_plugin *e)
{
        const char **texts[] = {&e->name, &e->manifest, &e->version, &e->path, &e->reported_name, &e->reported_version};
        int *fds[] = {&e->listen_fd, &e->pidfd, &e->control_fd, &e->out_fd, &e->err_fd};
        for (size_t i = 0; i < 6; i++)
                *texts[i] = text(r, at(r, o, i));
        e->pid = number(r, at(r, o, 6));
        e->restarts = number(r, at(r, o, 7));
        for (size_t i = 0; i < 5; i++)
                *fds[i] = descriptor(r, at(r, o, 8 + i));
        e->backend_known = number(r, at(r, o, 13));
        e->backend_up = number(r, at(r, o, 14));
        const msgpack_object *v = at(r, o, 15);
        e->idempotent = list(r, v, sizeof *e->idempotent, &e->n_idempotent);
        for (size_t i = 0; i < e->n_idempotent; i++)
                e->idempotent[i] = text(r, at(r, v, i));
        v = at(r, o, 16);
        e->features = list(r, v, sizeof *e->features, &e->n_features);
        for (size_t i = 0; i < e->n_features; i++)
                e->features[i] = (struct ledger_named){text(r, at(r, at(r, v, i), 0)), (uint64_t)number(r, at(r, at(r, v, i), 1))};
        v = at(r, o, 17);
        e->instances = list(r, v, sizeof *e->instances, &e->n_instances);
        for (size_t i = 0; i < e->n_instances; i++)
                read_instance(r, at(r, v, i), &e->instances[i]);
        e->watch_fd = descriptor(r, at(r, o, 18));
        e->walls = (uint64_t)number(r, at(r, o, 19));
        e->executable = text(r, at(r, o, 20));
        e->token = text(r, at(r, o, 21));
        e->start_ticks = (uint64_t)number(r, at(r, o, 22));
        e->uid = (uint64_t)number(r, at(r, o, 23));
        e->executable_id = (uint64_t)number(r, at(r, o, 24));
        e->generation = (uint64_t)number(r, at(r, o, 25));
        e->cgroup = o && o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size > 26 ? text(r, at(r, o, 26)) : ""; /* came later */
}

static void read_rest(struct reading *r, const msgpack_object *o)
{
        struct ledger *l = r->l;
        const msgpack_object *v = at(r, o, 7);
        l->pid = number(r, at(r, o, 2));
        l->upgrades = number(r, at(r, o, 3));
        l->dir_user = text(r, at(r, o, 4));
        l->dir_own = text(r, at(r, o, 5));
        l->dir_lock = descriptor(r, at(r, o, 6));
        l->fds = list(r, v, sizeof *l->fds, &l->n_fds);
        for (size_t i = 0; i < l->n_fds; i++)
                l->fds[i] = (struct ledger_fd){text(r, at(r, at(r, v, i), 0)), number(r, at(r, at(r, v, i), 1)) != 0, descriptor(r, at(r, at(r, v, i), 2))};
        v = at(r, o, 8);
        l->plugins = list(r, v, sizeof *l->plugins, &l->n_plugins);
        for (size_t i = 0; i < l->n_plugins; i++)
                read_plugin(r, at(r, v, i), &l->plugins[i]);
        v = at(r, o, 9);
        l->events = list(r, v, sizeof *l->events, &l->n_events);
        for (size_t i = 0; i < l->n_events; i++)
                l->events[i] = (struct ledger_event){number(r, at(r, at(r, v, i), 0)), text(r, at(r, at(r, v, i), 1)), text(r, at(r, at(r, v, i), 2)),
                                                     text(r, at(r, at(r, v, i), 3))};
        v = at(r, o, 10);
        l->extended = list(r, v, sizeof *l->extended, &l->n_extended);
        for (size_t i = 0; i < l->n_extended; i++) {
                l->extended[i].key = text(r, at(r, at(r, v, i), 0));
                l->extended[i].value = text(r, at(r, at(r, v, i), 1));
        }
        l->app_id = text(r, at(r, o, 11));
        l->boot_id = text(r, at(r, o, 12));
        l->linger_ms = number(r, at(r, o, 13));
        l->at_ns = number(r, at(r, o, 14));
        if (!has(o, 15)) /* of a program that made none */
                return;
        v = at(r, o, 15);
        l->notes = list(r, v, sizeof *l->notes, &l->n_notes);
        for (size_t i = 0; i < l->n_notes; i++)
                l->notes[i] = (struct ledger_note){text(r, at(r, at(r, v, i), 0)), text(r, at(r, at(r, v, i), 1)), text(r, at(r, at(r, v, i), 2))};
}

int ledger_parse(struct ledger *l, struct str in, const char **ret_err)
{
        msgpack_unpacked u;
        struct reading r = {.l = l};
        size_t off = 0;
        int e = 0;
        *ret_err = "it is no MessagePack text of a ledger";
        msgpack_unpacked_init(&u);
        if (!msgpack_value_bytes(in) || msgpack_unpack_next(&u, in.p, in.n, &off) != MSGPACK_UNPACK_SUCCESS ||
            strcmp(text(&r, at(&r, &u.data, 0)), MAGIC) != 0 || r.bad) {
                e = -EBADMSG;
        } else if (number(&r, at(&r, &u.data, 1)) != LEDGER_VERSION || r.bad) {
                *ret_err = arena_printf(&l->arena, "it is of version %lld, this daprd knows version %d", (long long)number(&r, at(&r, &u.data, 1)),
                                        LEDGER_VERSION);
                e = -EPROTO;
        } else {
                read_rest(&r, &u.data);
                *ret_err = "a field of it is not as it must be";
                e = r.bad ? -EBADMSG : 0;
        }
        msgpack_unpacked_destroy(&u);
        return e;
}

int ledger_read(struct ledger *l, int fd, const char **ret_err)
{
        off_t n = lseek(fd, 0, SEEK_END);
        int r;
        *ret_err = "it cannot be read";
        void *p = n > 0 && n <= LEDGER_BYTES_MAX ? mmap(NULL, (size_t)n, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
        if (p == MAP_FAILED) {
                close(fd);
                return -EBADMSG;
        }
        r = ledger_parse(l, str_n(p, (size_t)n), ret_err);
        munmap(p, (size_t)n);
        close(fd);
        return r;
}

/* ---- the other program ---- */

/* What it prints, up to n - 1 bytes; its end is awaited. */
static int ask(const char *path, char *to, size_t n)
{
        char *argv[] = {(char *)path, LEDGER_PROBE_ARG, NULL}, *envp[] = {NULL};
        posix_spawn_file_actions_t acts;
        int out[2], status = 0;
        pid_t pid;
        size_t have = 0;
        if (pipe2(out, O_CLOEXEC))
                return -errno;
        posix_spawn_file_actions_init(&acts);
        posix_spawn_file_actions_adddup2(&acts, out[1], 1);
        int r = -posix_spawn(&pid, path, &acts, NULL, argv, envp);
        posix_spawn_file_actions_destroy(&acts);
        close(out[1]);
        if (r == 0) {
                struct pollfd p = {.fd = out[0], .events = POLLIN};
                ssize_t k = 1;
                while (k > 0 && have < n - 1 && (r = poll(&p, 1, PROBE_TIMEOUT_MS)) > 0)
                        if ((k = read(out[0], to + have, n - 1 - have)) > 0)
                                have += (size_t)k;
                if (r == 0 || have == n - 1)
                        kill(pid, SIGKILL);
                waitpid(pid, &status, 0);
                r = r == 0 ? -ETIMEDOUT : 0;
        }
        to[have] = '\0';
        close(out[0]);
        return r;
}

int ledger_probe(const char *path, char *err, size_t err_n)
{
        char said[64];
        int version = -1, r = ask(path, said, sizeof said);
        if (r)
                snprintf(err, err_n, "%s cannot be run: %s", path, strerrordesc_np(-r));
        else if (sscanf(said, MAGIC " %d", &version) != 1)
                snprintf(err, err_n, "%s is no daprd that can take over a running one", path);
        else if (version != LEDGER_VERSION)
                snprintf(err, err_n, "%s knows version %d of the ledger, this daprd writes version %d; stop this one and start the other", path, version,
                         LEDGER_VERSION);
        else
                return 0;
        return r ? r : -EPROTO;
}
