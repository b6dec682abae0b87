/*
 * A state store with a file of its own: a log of records, read again as far as the other process has written. An ETag is where the record
 * stands. Setting `how` makes it one of those that lose writes when an old and a new process run at the same time:
 *   ""       every operation takes the file's lock and reads on before it looks or writes
 *   cache    reads the file at init only and appends without looking
 *   close    the same, and writes the whole file anew at close
 *   alone    keeps the file's lock for as long as it lives
 *   number   as it should be, but its ETags count in its own memory
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

struct record { uint32_t key_n, value_n, gone; }; /* then the key and the value */
struct item {
        struct item *next;
        char *key;
        void *value;
        size_t n;
        unsigned long etag;
};
struct store {
        struct item *items;
        int fd;
        off_t read_to; /* what the items hold of the file */
        unsigned long count;
        const char *how;
};

static bool is(const struct store *s, const char *how)
{
        return strcmp(s->how, how) == 0;
}

static struct item **find(struct store *s, const char *key)
{
        struct item **at = &s->items;
        while (*at && strcmp((*at)->key, key) != 0)
                at = &(*at)->next;
        return at;
}

static void drop(struct item **at)
{
        struct item *gone = *at;
        *at = gone->next;
        free(gone->key);
        free(gone->value);
        free(gone);
}

static int apply(struct store *s, char *key, void *value, const struct record *r)
{
        struct item **at = find(s, key), *x = *at;
        if (x)
                drop(at);
        if (!r->gone && (x = calloc(1, sizeof *x))) {
                *x = (struct item){s->items, key, value, r->value_n, is(s, "number") ? ++s->count : (unsigned long)s->read_to + 1};
                s->items = x;
                return 0;
        }
        free(key);
        free(value);
        return 0;
}

/* Reads what stands behind what is known. */
static int catch_up(struct store *s)
{
        struct record r;
        while (pread(s->fd, &r, sizeof r, s->read_to) == sizeof r) {
                char *key = calloc(1, r.key_n + 1), *value = calloc(1, r.value_n + 1);
                if (!key || !value || pread(s->fd, key, r.key_n, s->read_to + (off_t)sizeof r) != r.key_n
                    || pread(s->fd, value, r.value_n, s->read_to + (off_t)(sizeof r + r.key_n)) != r.value_n) {
                        free(key);
                        free(value);
                        return -EIO;
                }
                apply(s, key, value, &r);
                s->read_to += (off_t)(sizeof r + r.key_n + r.value_n);
        }
        return 0;
}

static int begin(struct store *s)
{
        if (is(s, "cache") || is(s, "close") || is(s, "alone"))
                return 0;
        return flock(s->fd, LOCK_EX) ? -errno : catch_up(s);
}

static int end(struct store *s, int r)
{
        flock(s->fd, LOCK_UN);
        return r;
}

static int append(struct store *s, const char *key, struct dapr_bytes value, bool gone)
{
        struct record r = {(uint32_t)strlen(key), (uint32_t)value.n, gone};
        size_t n = sizeof r + r.key_n + r.value_n;
        char *b = malloc(n);
        if (!b)
                return -ENOMEM;
        memcpy(b, &r, sizeof r);
        memcpy(b + sizeof r, key, r.key_n);
        if (value.n)
                memcpy(b + sizeof r + r.key_n, value.p, value.n);
        bool ok = write(s->fd, b, n) == (ssize_t)n && fdatasync(s->fd) == 0;
        free(b);
        if (!ok)
                return -EIO;
        if (!is(s, "cache") && !is(s, "close"))
                return catch_up(s);
        char *k = strdup(key), *v = calloc(1, value.n + 1);
        if (value.n)
                memcpy(v, value.p, value.n);
        s->read_to += (off_t)n;
        return apply(s, k, v, &r);
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *path = dapr_md_string(md, "path"), *how = dapr_md_string(md, "how");
        struct store *s = calloc(1, sizeof *s);
        if (!s || !(s->how = strdup(how ? how : "")))
                return -ENOMEM;
        s->fd = path ? open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
        if (s->fd < 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s cannot be opened", path ? path : "no path");
        static int held = -1; /* for as long as the process lives */
        if (is(s, "alone") && held < 0 && flock(held = open(path, O_RDWR | O_CLOEXEC), LOCK_EX | LOCK_NB))
                return dapr_fail(c, DAPR_UNAVAILABLE, "%s is in use", path);
        s->count = (unsigned long)getpid();
        *instance = s;
        return catch_up(s);
}

static void shut(void *instance)
{
        struct store *s = instance;
        if (is(s, "close") && ftruncate(s->fd, 0) == 0)
                for (struct item *i = s->items, *next; i; i = next) {
                        next = i->next;
                        struct record r = {(uint32_t)strlen(i->key), (uint32_t)i->n, false};
                        if (write(s->fd, &r, sizeof r) < 0 || write(s->fd, i->key, r.key_n) < 0 || write(s->fd, i->value, r.value_n) < 0)
                                break;
                }
        while (s->items)
                drop(&s->items);
        close(s->fd);
        free((char *)s->how);
        free(s);
}

static int check(struct dapr_call *c, const struct item *have, const char *etag, enum dapr_concurrency how)
{
        if (!etag || !*etag)
                return have && how == DAPR_FIRST_WRITE ? dapr_fail(c, DAPR_ETAG_MISMATCH, "the key exists") : 0;
        return have && have->etag == strtoul(etag, NULL, 10) ? 0 : dapr_fail(c, DAPR_ETAG_MISMATCH, "the ETag %s is old", etag);
}

static int get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        struct store *s = instance;
        int r = begin(s);
        const struct item *x = r ? NULL : *find(s, in->key);
        if (x)
                *out = (struct dapr_item){.found = true, .value = dapr_copy(c, x->value, x->n), .etag = dapr_printf(c, "%lu", x->etag)};
        return end(s, r);
}

static int set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        struct store *s = instance;
        int r = begin(s);
        if (!r)
                r = check(c, *find(s, in->key), in->etag, in->concurrency);
        return end(s, r ? r : append(s, in->key, in->value, false));
}

static int del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        struct store *s = instance;
        int r = begin(s);
        if (!r && in->etag && *in->etag)
                r = check(c, *find(s, in->key), in->etag, in->concurrency);
        return end(s, r ? r : append(s, in->key, (struct dapr_bytes){NULL, 0}, true));
}

static const struct dapr_state_ops ops = {.mode = DAPR_INLINE, .features = DAPR_FEATURE_ETAG, .init = init, .close = shut, .get = get, .set = set, .del = del};
static const struct dapr_component_type types[] = {{.type = "state.file", .versions = "v1", .state = &ops}};
static const struct dapr_plugin plugin = {.name = "state.file", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
