/*
 * The client above its links: which node a command goes to, dialling and re-dialling, retries, and what the backend's state is.
 *
 * nodes: one per address seen (a single one without a cluster). A node's link is made on first use; while one fiber dials, the
 * others wait for it. Cluster: slots[] remembers the node of a hash slot, learnt from MOVED (https://redis.io/docs/reference/cluster-spec/).
 * A monitor fiber pings every few seconds while commands are not proving the backend alive.
 */
#include "plugins/shared/redis/redis.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "plugins/shared/redis/link.h"
#include "sdk/base/flags.h"
#include "sdk/net/tls.h"

enum { CLUSTER_SLOTS = 16384, REDIRECTS_MAX = 5, NODES_MAX = 1024, MONITOR_PERIOD_S = 2 };

struct node {
        struct node *next;
        struct link *link;
        struct fmutex dialing;
        bool is_seed;
        char addr[];
};
struct redis {
        struct redis_settings s;
        struct tls_context *tls;
        struct node *nodes;
        size_t n_nodes;
        struct node **slots; /* cluster only */
        char *instance;
        int replicas;
        bool closing, up;
        int users; /* fibers inside; close waits for them */
        struct scope scope;
        char modules[256];
        void (*on_message)(void *arg, const redisReply *m);
        void *on_message_arg;
};

static struct node *node_get(struct redis *r, struct str addr)
{
        for (struct node *n = r->nodes; n; n = n->next)
                if (str_eqz(addr, n->addr))
                        return n;
        if (r->n_nodes >= NODES_MAX)
                return NULL;
        struct node *n = calloc(1, sizeof(*n) + addr.n + 1);
        if (!n)
                return NULL;
        memcpy(n->addr, addr.p, addr.n);
        fmutex_init(&n->dialing);
        n->next = r->nodes;
        r->nodes = n;
        r->n_nodes++;
        return n;
}

/* CRC-16/XMODEM, as the cluster specification prescribes. */
static unsigned key_slot(struct redis_arg key)
{
        const unsigned char *p = key.p;
        size_t n = key.n;
        const unsigned char *open = n ? memchr(p, '{', n) : NULL;
        if (open) {
                const unsigned char *shut = memchr(open + 1, '}', n - (size_t)(open + 1 - p));
                if (shut && shut > open + 1) {
                        p = open + 1;
                        n = (size_t)(shut - p);
                }
        }
        uint16_t crc = 0;
        for (size_t i = 0; i < n; i++) {
                crc = (uint16_t)(crc ^ (p[i] << 8));
                for (int b = 0; b < 8; b++)
                        crc = (uint16_t)(crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1);
        }
        return crc % CLUSTER_SLOTS;
}

static void set_up(struct redis *r, bool up, const char *why)
{
        if (up == r->up || r->closing || !r->instance)
                return;
        r->up = up;
        if (up)
                dapr_backend_up(r->instance);
        else
                dapr_backend_down(r->instance, why);
}

/* Asks the sentinels in turn for the master's address. */
static int sentinel_master(struct redis *r, char *addr, size_t addr_n)
{
        int last = -EHOSTUNREACH;
        struct link_options o = {.username = r->s.sentinel_username, .password = r->s.sentinel_password,
                                 .tls = r->tls, .dial_timeout_s = r->s.dial_timeout_s, .read_timeout_s = r->s.read_timeout_s};
        for (struct str rest = str_of(r->s.host); rest.p;) {
                struct str one = str_cut(&rest, ',');
                char sentinel[256];
                snprintf(sentinel, sizeof(sentinel), "%.*s", STR_FMT(one));
                struct link *l;
                last = link_open(&l, sentinel, &o);
                if (last)
                        continue;
                struct redis_arg a[] = {redis_arg_z("SENTINEL"), redis_arg_z("get-master-addr-by-name"), redis_arg_z(r->s.sentinel_master)};
                redisReply *reply = NULL;
                last = link_do(l, a, 3, &reply);
                link_free(l);
                if (last)
                        continue;
                bool ok = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && reply->element[0]->str && reply->element[1]->str;
                if (ok) {
                        const char *host = reply->element[0]->str;
                        snprintf(addr, addr_n, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, reply->element[1]->str);
                }
                freeReplyObject(reply);
                if (ok)
                        return 0;
                last = -ENXIO;
        }
        return last;
}

static void message_came(struct link *l, const redisReply *m)
{
        struct redis *r = l->owner;
        r->on_message(r->on_message_arg, m);
}

static void subscriptions_lost(struct link *l)
{
        message_came(l, NULL);
}

void redis_on_message(struct redis *r, void (*fn)(void *arg, const redisReply *m), void *arg)
{
        r->on_message = fn;
        r->on_message_arg = arg;
}

static int node_dial(struct redis *r, struct node *n)
{
        char master[256];
        const char *addr = n->addr;
        if (r->s.failover) {
                int e = sentinel_master(r, master, sizeof(master));
                if (e)
                        return e;
                addr = master;
        }
        struct link_options o = {.username = r->s.username, .password = r->s.password, .db = r->s.db, .tls = r->tls,
                                 .dial_timeout_s = r->s.dial_timeout_s, .read_timeout_s = r->s.read_timeout_s};
        int e = link_open(&n->link, addr, &o);
        if (e || !r->on_message)
                return e;
        n->link->on_message = message_came;
        n->link->on_broken = subscriptions_lost;
        n->link->owner = r;
        return 0;
}

/* The node's live link, dialled when needed. */
static int node_link(struct redis *r, struct node *n, struct link **ret)
{
        if (n->link && !n->link->broken) {
                *ret = n->link;
                return 0;
        }
        int e = fmutex_lock(&n->dialing);
        if (e)
                return e;
        if (n->link && n->link->broken) {
                link_free(n->link);
                n->link = NULL;
        }
        if (r->closing)
                e = -ECANCELED;
        else if (!n->link)
                e = node_dial(r, n);
        *ret = n->link;
        fmutex_unlock(&n->dialing);
        return e;
}

/* "MOVED 3999 127.0.0.1:6381" or "ASK …". */
static bool parse_redirect(const redisReply *reply, unsigned *slot, struct str *addr)
{
        struct str rest = str_n(reply->str, reply->len);
        str_cut(&rest, ' ');
        struct str s = str_cut(&rest, ' ');
        int64_t n;
        if (!rest.p || !rest.n || parse_int64(s, &n) != 0 || n < 0 || n >= CLUSTER_SLOTS)
                return false;
        *slot = (unsigned)n;
        *addr = rest;
        return true;
}

static int send_following(struct redis *r, struct node *n, const struct redis_arg *argv, int argc, redisReply **ret)
{
        bool asking = false;
        for (int hops = 0;; hops++) {
                struct link *l;
                int e = node_link(r, n, &l);
                if (e)
                        return e == -ECONNRESET ? -ECONNREFUSED : e;
                if (asking) {
                        struct redis_arg a = redis_arg_z("ASKING");
                        redisReply *ok = NULL;
                        e = link_do(l, &a, 1, &ok);
                        if (e)
                                return e;
                        freeReplyObject(ok);
                }
                e = link_do(l, argv, argc, ret);
                if (e)
                        return e;
                redisReply *reply = *ret;
                if (reply->type != REDIS_REPLY_ERROR || !r->slots || hops >= REDIRECTS_MAX)
                        return 0;
                bool moved = strncmp(reply->str, "MOVED ", 6) == 0;
                asking = strncmp(reply->str, "ASK ", 4) == 0;
                unsigned slot;
                struct str addr;
                if ((!moved && !asking) || !parse_redirect(reply, &slot, &addr))
                        return 0;
                struct node *next = node_get(r, addr);
                freeReplyObject(reply);
                *ret = NULL;
                if (!next)
                        return -ENOMEM;
                if (moved)
                        r->slots[slot] = next;
                n = next;
        }
}

static struct node *node_for(struct redis *r, int key, const struct redis_arg *argv, int attempt)
{
        if (r->slots && key >= 0) {
                struct node *n = r->slots[key_slot(argv[key])];
                if (n && attempt == 0)
                        return n;
        }
        /* A seed, another one at each attempt. */
        size_t skip = r->n_nodes ? (size_t)attempt % r->n_nodes : 0;
        struct node *n = r->nodes;
        while (n && skip--)
                n = n->next;
        return n;
}

static int with_retries(struct redis *r, struct node *fixed, enum redis_kind kind, int key, const struct redis_arg *argv, int argc,
                        redisReply **ret)
{
        double pause = r->s.retry_min_s;
        r->users++;
        int e;
        for (int attempt = 0;; attempt++) {
                struct node *n = fixed ? fixed : node_for(r, key, argv, attempt);
                e = n ? send_following(r, n, argv, argc, ret) : -EHOSTUNREACH;
                if (e == 0) {
                        set_up(r, true, NULL);
                        break;
                }
                bool may = kind == REDIS_READ || e == -ECONNREFUSED || e == -EHOSTUNREACH || e == -ENOENT;
                if (!may || attempt >= r->s.max_retries || e == -ECANCELED || e == -ETIMEDOUT || e == -EACCES || r->closing)
                        break;
                if (pause > 0 && fiber_sleep(pause))
                        break;
                pause = fmin(pause * 2, r->s.retry_max_s > 0 ? r->s.retry_max_s : pause * 2);
        }
        if (e && e != -ECANCELED && e != -ENOMEM)
                set_up(r, false, strerror(-e));
        r->users--;
        return e;
}

int redis_do(struct redis *r, enum redis_kind kind, int key, const struct redis_arg *argv, int argc, redisReply **ret)
{
        return with_retries(r, NULL, kind, key, argv, argc, ret);
}

int redis_do_on(struct redis *r, const char *node, enum redis_kind kind, const struct redis_arg *argv, int argc, redisReply **ret)
{
        struct node *n = node_get(r, str_of(node));
        return n ? with_retries(r, n, kind, -1, argv, argc, ret) : -ENOMEM;
}

int redis_each_master(struct redis *r, int (*fn)(void *arg, struct redis *r, const char *node), void *arg)
{
        if (!r->slots)
                return fn(arg, r, r->nodes->addr);
        struct redis_arg a[] = {redis_arg_z("CLUSTER"), redis_arg_z("SLOTS")};
        redisReply *reply = NULL;
        int e = redis_do(r, REDIS_READ, -1, a, 2, &reply);
        if (e)
                return e;
        struct node *seen[64];
        size_t n_seen = 0;
        for (size_t i = 0; !e && reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
                redisReply *range = reply->element[i];
                if (range->type != REDIS_REPLY_ARRAY || range->elements < 3 || range->element[2]->elements < 2)
                        continue;
                redisReply *m = range->element[2];
                char addr[256];
                snprintf(addr, sizeof(addr), strchr(m->element[0]->str, ':') ? "[%s]:%lld" : "%s:%lld", m->element[0]->str,
                         m->element[1]->integer);
                struct node *n = node_get(r, str_of(addr));
                bool again = !n;
                for (size_t k = 0; k < n_seen; k++)
                        again |= seen[k] == n;
                if (again || n_seen == sizeof(seen) / sizeof(*seen))
                        continue;
                seen[n_seen++] = n;
                e = fn(arg, r, n->addr);
        }
        freeReplyObject(reply);
        return e;
}

static void monitor(void *arg)
{
        struct redis *r = arg;
        while (fiber_sleep(MONITOR_PERIOD_S) == 0 && !r->closing) {
                struct redis_arg ping = redis_arg_z("PING");
                redisReply *reply = NULL;
                if (with_retries(r, NULL, REDIS_READ, -1, &ping, 1, &reply) == 0)
                        freeReplyObject(reply);
        }
}

/* "# Replication\r\nrole:master\r\nconnected_slaves:1\r\n…" */
static int learn_replicas(struct redis *r)
{
        struct redis_arg a[] = {redis_arg_z("INFO"), redis_arg_z("replication")};
        redisReply *reply = NULL;
        int e = redis_do(r, REDIS_READ, -1, a, 2, &reply);
        if (e)
                return e;
        if (reply->type == REDIS_REPLY_STRING) {
                struct str info = str_n(reply->str, reply->len);
                ptrdiff_t at = str_find(info, STR("connected_slaves:"));
                if (at >= 0)
                        r->replicas = atoi(info.p + at + sizeof("connected_slaves:") - 1);
        }
        freeReplyObject(reply);
        return 0;
}

static int learn_modules(struct redis *r)
{
        struct redis_arg a[] = {redis_arg_z("MODULE"), redis_arg_z("LIST")};
        redisReply *reply = NULL;
        int e = redis_do(r, REDIS_READ, -1, a, 2, &reply);
        if (e)
                return e;
        for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
                redisReply *m = reply->element[i];
                for (size_t k = 0; m->type == REDIS_REPLY_ARRAY && k + 1 < m->elements; k += 2)
                        if (m->element[k]->str && strcmp(m->element[k]->str, "name") == 0 && m->element[k + 1]->str) {
                                size_t n = strlen(r->modules);
                                snprintf(r->modules + n, sizeof(r->modules) - n, " %s ", m->element[k + 1]->str);
                        }
        }
        freeReplyObject(reply);
        return 0;
}

static int make_tls(struct dapr_call *c, struct redis *r)
{
        char err[256];
        /* The reference turns verification off whenever TLS is on; ours verifies as soon as caCert says against what. */
        struct tls_options o = {.cert_pem = str_of(r->s.client_cert), .key_pem = str_of(r->s.client_key), .roots_pem = str_of(r->s.ca_cert),
                                .insecure_skip_verify = !r->s.ca_cert};
        if (tls_context_new(&r->tls, &o, err, sizeof(err)) == 0)
                return 0;
        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis client configuration error: %s", err);
}

static int add_seeds(struct redis *r)
{
        for (struct str rest = str_of(r->s.host); rest.p;) {
                struct node *n = node_get(r, str_cut(&rest, ','));
                if (!n)
                        return -ENOMEM;
                n->is_seed = true;
                if (r->s.failover)
                        break; /* the addresses are the sentinels' */
        }
        return 0;
}

int redis_clone(const struct redis *r, double read_timeout_s, struct redis **ret)
{
        struct redis *n = calloc(1, sizeof(*n));
        if (!n || redis_settings_copy(&n->s, &r->s)) {
                free(n);
                return -ENOMEM;
        }
        scope_init(&n->scope);
        n->s.read_timeout_s = read_timeout_s;
        n->tls = r->tls ? tls_context_ref(r->tls) : NULL;
        if (r->slots)
                n->slots = calloc(CLUSTER_SLOTS, sizeof(*n->slots));
        if ((r->slots && !n->slots) || add_seeds(n)) {
                redis_close(n);
                return -ENOMEM;
        }
        *ret = n;
        return 0;
}

int redis_open(struct dapr_call *c, struct redis_settings *s, struct redis **ret)
{
        struct redis *r = calloc(1, sizeof(*r));
        if (!r) {
                redis_settings_fini(s);
                return -ENOMEM;
        }
        r->s = *s;
        *s = (struct redis_settings){0};
        scope_init(&r->scope);
        r->instance = strdup(dapr_instance(c));
        if (r->s.type == REDIS_CLUSTER)
                r->slots = calloc(CLUSTER_SLOTS, sizeof(*r->slots));
        int e = !r->instance || (r->s.type == REDIS_CLUSTER && !r->slots) ? -ENOMEM : 0;
        if (!e)
                e = add_seeds(r);
        if (!e && r->s.tls)
                e = make_tls(c, r);
        if (!e)
                e = redis_ping(c, r);
        if (!e && ((e = learn_replicas(r)) || (e = learn_modules(r))))
                e = redis_fail(c, r, e);
        if (!e)
                e = fiber_go(&r->scope, "redis-monitor", monitor, r);
        if (e) {
                redis_close(r);
                return e;
        }
        *ret = r;
        return 0;
}

void redis_close(struct redis *r)
{
        if (!r)
                return;
        r->closing = true;
        for (struct node *n = r->nodes; n; n = n->next)
                if (n->link && !n->link->broken) {
                        conn_free(n->link->conn);
                        n->link->conn = NULL;
                        link_fail(n->link, -ECANCELED);
                }
        scope_cancel(&r->scope);
        scope_join(&r->scope);
        fiber_shield_begin();
        while (r->users)
                fiber_yield();
        fiber_shield_end();
        while (r->nodes) {
                struct node *next = r->nodes->next;
                link_free(r->nodes->link);
                free(r->nodes);
                r->nodes = next;
        }
        tls_context_unref(r->tls);
        redis_settings_fini(&r->s);
        free(r->slots);
        free(r->instance);
        free(r);
}

int redis_fail(struct dapr_call *c, struct redis *r, int err)
{
        if (err > 0)
                return err;
        const char *why = err == -EACCES ? "WRONGPASS invalid username-password pair or user is disabled"
                          : err == -ERANGE ? "ERR DB index is out of range"
                          : err == -ENXIO ? "no sentinel knows the master"
                                          : strerror(-err);
        return dapr_fail(c, DAPR_UNAVAILABLE, "redis store: error connecting to redis at %s: %s", r->s.host, why);
}

int redis_run(struct dapr_call *c, struct redis *r, enum redis_kind kind, int key, const struct redis_arg *argv, int argc, redisReply **ret)
{
        int e = redis_do(r, kind, key, argv, argc, ret);
        if (e)
                return redis_fail(c, r, e);
        if ((*ret)->type != REDIS_REPLY_ERROR)
                return 0;
        e = dapr_fail(c, DAPR_INTERNAL, "%s", (*ret)->str);
        freeReplyObject(*ret);
        return e;
}

int redis_ping(struct dapr_call *c, struct redis *r)
{
        struct redis_arg ping = redis_arg_z("PING");
        redisReply *reply = NULL;
        int e = redis_do(r, REDIS_READ, -1, &ping, 1, &reply);
        if (e)
                return redis_fail(c, r, e);
        int code = 0;
        if (reply->type == REDIS_REPLY_ERROR)
                code = dapr_fail(c, DAPR_UNAVAILABLE, "redis store: error connecting to redis at %s: %s", r->s.host, reply->str);
        freeReplyObject(reply);
        return code;
}

int redis_replicas(const struct redis *r)
{
        return r->replicas;
}

bool redis_has_module(struct redis *r, const char *name)
{
        char want[64];
        snprintf(want, sizeof(want), " %s ", name);
        return strstr(r->modules, want) != NULL;
}

struct redis_arg redis_arg_i(struct dapr_call *c, int64_t v)
{
        const char *text = dapr_printf(c, "%lld", (long long)v);
        return text ? redis_arg_z(text) : redis_arg_z("0");
}
