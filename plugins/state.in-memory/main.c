/*
 * state.in-memory: a hash table in the process's own memory. Nothing survives the process.
 *
 * Every write gets a new ETag (a random UUID, as clients of the reference expect) and the next sequence number, by which
 * KeysLike orders and pages. Expired items are invisible at once and freed by a sweep each second. Operations run inline on
 * the one loop thread, so each is atomic, and a transaction checks all its ETags before it changes anything.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "dapr/plugin.h"
#include "sdk/base/map.h"

enum { ETAG_BYTES = 37, SWEEP_S = 1 };

struct item {
        int64_t expires_ns; /* wall clock; 0 = never */
        uint64_t sequence;
        size_t n;
        char etag[ETAG_BYTES];
        char value[];
};
struct store {
        struct map items;
        uint64_t sequence;
        size_t expiring;   /* items that have an end */
        bool closed;       /* the sweep frees the store when it sees this */
};

static int64_t now_ns(void)
{
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Random bytes are fetched in blocks: one system call for many ETags. */
static void make_etag(char out[ETAG_BYTES])
{
        static unsigned char pool[4096];
        static size_t at = sizeof pool;
        static const char hex[] = "0123456789abcdef";
        if (at + 16 > sizeof pool) {
                for (size_t got = 0; got < sizeof pool;) {
                        ssize_t n = getrandom(pool + got, sizeof pool - got, 0);
                        if (n > 0)
                                got += (size_t)n;
                }
                at = 0;
        }
        unsigned char *b = pool + at;
        at += 16;
        b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
        b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
        char *p = out;
        for (int i = 0; i < 16; i++) {
                if (i == 4 || i == 6 || i == 8 || i == 10)
                        *p++ = '-';
                *p++ = hex[b[i] >> 4];
                *p++ = hex[b[i] & 15];
        }
        *p = '\0';
}

/* ---- items ---- */

static struct item *find(struct store *s, const char *key)
{
        struct item *i = map_get(&s->items, str_of(key));
        return i && i->expires_ns && i->expires_ns < now_ns() ? NULL : i;
}

static void drop(struct store *s, struct item *i)
{
        if (i && i->expires_ns)
                s->expiring--;
        free(i);
}

static struct item *item_new(struct store *s, const struct dapr_set *in)
{
        struct item *i = malloc(sizeof *i + in->value.n);
        if (!i)
                return NULL;
        i->n = in->value.n;
        if (i->n)
                memcpy(i->value, in->value.p, i->n);
        make_etag(i->etag);
        i->expires_ns = in->ttl_s > 0 ? now_ns() + in->ttl_s * 1000000000 : 0;
        return i;
}

/* Takes i. */
static int put(struct store *s, const char *key, struct item *i)
{
        struct item *old = map_get(&s->items, str_of(key));
        if (map_set(&s->items, str_of(key), i)) {
                free(i);
                return -ENOMEM;
        }
        i->sequence = s->sequence++;
        s->expiring += i->expires_ns != 0;
        drop(s, old);
        return 0;
}

static int check_etag(struct dapr_call *c, struct store *s, const char *key, const char *etag, enum dapr_concurrency concurrency)
{
        bool given = etag && *etag;
        if (!given && concurrency != DAPR_FIRST_WRITE)
                return 0;
        struct item *i = find(s, key);
        if (!given)
                return i ? dapr_fail(c, DAPR_ETAG_MISMATCH, "item already exists and no etag was passed") : 0;
        if (!i)
                return dapr_fail(c, DAPR_ETAG_MISMATCH, "state not exist or expired for key=%s", key);
        if (strcmp(i->etag, etag) != 0)
                return dapr_fail(c, DAPR_ETAG_MISMATCH, "state etag not match for key=%s: current=%s, expect=%s", key, i->etag, etag);
        return 0;
}

/* ---- operations ---- */

static void sweep(struct store *s)
{
        int64_t now = now_ns();
        if (s->expiring == 0)
                return;
        for (struct map_entry *e = NULL; (e = map_next(&s->items, e));) {
                struct item *i = e->value;
                if (i->expires_ns && i->expires_ns < now) {
                        map_del(&s->items, str_n(e->key, e->key_n));
                        drop(s, i);
                }
        }
}

static void store_free(struct store *s)
{
        for (struct map_entry *e = NULL; (e = map_next(&s->items, e));)
                free(e->value);
        map_fini(&s->items);
        free(s);
}

static void sweeper(void *arg)
{
        struct store *s = arg;
        while (!s->closed && dapr_sleep(SWEEP_S) == 0)
                sweep(s);
        store_free(s);
}

static int mem_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct store *s = calloc(1, sizeof *s);
        int r = s ? dapr_spawn("sweep", sweeper, s) : -ENOMEM;
        if (r) {
                free(s);
                return r;
        }
        *instance = s;
        return 0;
}

static void mem_close(void *instance)
{
        struct store *s = instance;
        s->closed = true;
}

static int mem_get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        struct item *i = find(instance, in->key);
        if (!i)
                return 0;
        out->found = true;
        out->value = (struct dapr_bytes){i->value, i->n}; /* packed before anything else runs */
        out->etag = i->etag;
        if (i->expires_ns) {
                struct dapr_kv *kv = dapr_alloc(c, sizeof *kv);
                char *at = dapr_alloc(c, 32);
                time_t t = (time_t)(i->expires_ns / 1000000000);
                struct tm tm;
                if (!kv || !at)
                        return -ENOMEM;
                gmtime_r(&t, &tm);
                strftime(at, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
                *kv = (struct dapr_kv){"ttlExpireTime", at};
                out->metadata = (struct dapr_kvs){kv, 1};
        }
        return 0;
}

static int mem_set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        struct store *s = instance;
        int r = check_etag(c, s, in->key, in->etag, in->concurrency);
        if (r)
                return r;
        struct item *i = item_new(s, in);
        return i ? put(s, in->key, i) : -ENOMEM;
}

static int mem_del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        struct store *s = instance;
        int r = check_etag(c, s, in->key, in->etag, in->concurrency);
        if (r == 0)
                drop(s, map_del(&s->items, str_of(in->key)));
        return r;
}

static int mem_transact(struct dapr_call *c, void *instance, const struct dapr_op *ops, size_t n, struct dapr_kvs metadata)
{
        struct store *s = instance;
        struct item **made = dapr_alloc(c, n * sizeof *made);
        int r = made ? 0 : -ENOMEM;
        size_t k = 0;
        /* All that can fail comes first. */
        for (; r == 0 && k < n; k++) {
                const struct dapr_op *o = &ops[k];
                made[k] = NULL;
                if (o->kind == DAPR_OP_DELETE) {
                        r = check_etag(c, s, o->del.key, o->del.etag, o->del.concurrency);
                        continue;
                }
                r = check_etag(c, s, o->set.key, o->set.etag, o->set.concurrency);
                if (r == 0 && !(made[k] = item_new(s, &o->set)))
                        r = -ENOMEM;
        }
        if (r) {
                while (k-- > 0)
                        free(made[k]);
                return r;
        }
        for (k = 0; k < n; k++) {
                int failed = ops[k].kind == DAPR_OP_SET ? put(s, ops[k].set.key, made[k]) : 0;
                if (ops[k].kind == DAPR_OP_DELETE)
                        drop(s, map_del(&s->items, str_of(ops[k].del.key)));
                r = failed ? failed : r;
        }
        return r;
}

/* ---- keys ---- */

/* SQL LIKE on characters of UTF-8: % any run, _ one character, \ escapes. Iterative: one place to go back to is enough. */
static size_t char_len(struct str s)
{
        size_t n = 1;
        while (n < s.n && ((unsigned char)s.p[n] & 0xc0) == 0x80)
                n++;
        return n;
}

static bool like(struct str pattern, struct str s)
{
        struct str back_p = STR_NULL, back_s = STR_NULL;
        for (;;) {
                if (pattern.n && pattern.p[0] == '%') {
                        back_p = pattern = str_skip(pattern, 1);
                        back_s = s;
                        continue;
                }
                if (s.n == 0 && pattern.n == 0)
                        return true;
                size_t escape = pattern.n > 1 && pattern.p[0] == '\\';
                if (s.n && pattern.n && !escape && pattern.p[0] == '_') {
                        pattern = str_skip(pattern, 1);
                        s = str_skip(s, char_len(s));
                        continue;
                }
                if (s.n && pattern.n && pattern.p[escape] == s.p[0]) {
                        pattern = str_skip(pattern, escape + 1);
                        s = str_skip(s, 1);
                        continue;
                }
                if (!back_p.p || back_s.n == 0)
                        return false;
                back_s = str_skip(back_s, 1);
                pattern = back_p;
                s = back_s;
        }
}

struct hit {
        const char *key;
        uint64_t sequence;
};

static int by_sequence(const void *a, const void *b)
{
        const struct hit *x = a, *y = b;
        return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

static int mem_keys_like(struct dapr_call *c, void *instance, const struct dapr_keys_like *in, struct dapr_keys *out)
{
        struct store *s = instance;
        uint64_t from = 0;
        int64_t now = now_ns();
        char *end = NULL;
        if (in->token) {
                errno = 0;
                from = strtoull(in->token, &end, 10);
                if (errno || *end || end == in->token || in->token[0] == '-' || in->token[0] == '+')
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid continue token: strconv.ParseUint: parsing \"%s\": invalid syntax",
                                         in->token);
        }
        struct hit *hits = dapr_alloc(c, s->items.count * sizeof *hits);
        size_t n = 0;
        if (!hits)
                return -ENOMEM;
        for (struct map_entry *e = NULL; (e = map_next(&s->items, e));) {
                struct item *i = e->value;
                if (i->sequence >= from && !(i->expires_ns && i->expires_ns < now) &&
                    like(str_of(in->pattern), str_n(e->key, e->key_n)))
                        hits[n++] = (struct hit){e->key, i->sequence};
        }
        if (n)
                qsort(hits, n, sizeof *hits, by_sequence);
        if (in->page_size && n > in->page_size) {
                out->token = dapr_printf(c, "%llu", (unsigned long long)hits[in->page_size].sequence);
                n = in->page_size;
        }
        const char **keys = dapr_alloc(c, n * sizeof *keys);
        if (!keys || (in->page_size && n > in->page_size && !out->token))
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                keys[i] = hits[i].key;
        out->keys = keys;
        out->n = n;
        return 0;
}

/* Only keys directly below the prefix: none that hold a further "||". */
static int mem_delete_with_prefix(struct dapr_call *c, void *instance, const char *prefix, int64_t *deleted)
{
        struct store *s = instance;
        for (struct map_entry *e = NULL; (e = map_next(&s->items, e));) {
                struct str key = str_n(e->key, e->key_n);
                if (!str_has_prefix(key, str_of(prefix)) || str_find(str_skip(key, strlen(prefix)), STR("||")) >= 0)
                        continue;
                drop(s, map_del(&s->items, key));
                (*deleted)++;
        }
        return 0;
}

static const struct dapr_state_ops ops = {
        .mode = DAPR_INLINE,
        .features = DAPR_FEATURE_ETAG | DAPR_FEATURE_TRANSACTIONAL | DAPR_FEATURE_TTL | DAPR_FEATURE_DELETE_WITH_PREFIX |
                    DAPR_FEATURE_KEYS_LIKE,
        .init = mem_init,
        .close = mem_close,
        .get = mem_get,
        .set = mem_set,
        .del = mem_del,
        .transact = mem_transact,
        .keys_like = mem_keys_like,
        .delete_with_prefix = mem_delete_with_prefix,
        .ttl_parser = "strconv.Atoi",
};
static const struct dapr_component_type types[] = {{.type = "state.in-memory", .versions = "v1", .state = &ops}};
static const struct dapr_plugin plugin = {.name = "state.in-memory", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
