/*
 * The cache of names. One entry a name, with the addresses of the last answer and those that are being avoided; the list is in order
 * of use. One fiber at a time asks for a name; a round number tells those that waited whether theirs was answered.
 */
#include "kernel/mesh/names.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/kernel.h"
#include "kernel/mesh/names_internal.h"
#include "plugin/v1/nameresolution.pb-c.h"
#include "sdk/base/loop.h"
#include "sdk/net/dns.h"

#define RESOLVE "/microdapr.plugin.v1.NameResolution/Resolve"
enum { CALL_MAX_S = 10, KEY_MAX = 512 };

typedef Microdapr__Plugin__V1__NameResolveResponse answer_t;

struct failed {
        char *addr;
        double until;
};
struct name_entry {
        struct list in_use;    /* names.by_use, oldest first */
        char **addr;
        size_t n, next;
        double expires;        /* loop time */
        struct failed failed[NAMES_FAILED_MAX];
        size_t n_failed;
        bool asking;           /* a fiber is at it */
        unsigned users;        /* fibers that hold it */
        unsigned round;        /* answers and refusals so far */
        int r;                 /* of the last round */
        char *err;
        size_t key_n;
        char key[];
};

/* ---- entries ---- */

static void drop_addresses(struct name_entry *e)
{
        for (size_t i = 0; i < e->n; i++)
                free(e->addr[i]);
        free(e->addr);
        e->addr = NULL;
        e->n = 0;
}

static void entry_free(struct names *n, struct name_entry *e)
{
        map_del(&n->cache, str_n(e->key, e->key_n));
        list_del(&e->in_use);
        drop_addresses(e);
        for (size_t i = 0; i < e->n_failed; i++)
                free(e->failed[i].addr);
        free(e->err);
        free(e);
}

void names_cache_fini(struct names *n)
{
        while (!list_is_empty(&n->by_use))
                entry_free(n, list_entry(n->by_use.next, struct name_entry, in_use));
        map_fini(&n->cache);
}

static bool make_room(struct names *n)
{
        if (n->cache.count < NAMES_MAX)
                return true;
        list_for_each(pos, &n->by_use) {
                struct name_entry *e = list_entry(pos, struct name_entry, in_use);
                if (e->users)
                        continue;
                entry_free(n, e);
                return true;
        }
        return false;
}

static struct name_entry *entry_get(struct names *n, struct str ns, struct str id)
{
        char key[KEY_MAX];
        struct name_entry *e;

        if (ns.n + 1 + id.n > sizeof key)
                return NULL;
        memcpy(key, ns.p, ns.n);
        key[ns.n] = '/';
        memcpy(key + ns.n + 1, id.p, id.n);
        struct str k = str_n(key, ns.n + 1 + id.n);
        e = map_get(&n->cache, k);
        if (!e) {
                if (!make_room(n) || !(e = calloc(1, sizeof *e + k.n)))
                        return NULL;
                memcpy(e->key, k.p, k.n);
                e->key_n = k.n;
                e->next = (size_t)(hash_bytes(&e, sizeof e) & 0xffff); /* sidecars do not all begin with the first address */
                if (map_set(&n->cache, k, e)) {
                        free(e);
                        return NULL;
                }
        }
        list_del(&e->in_use);
        list_add_tail(&n->by_use, &e->in_use);
        return e;
}

/* ---- addresses that failed ---- */

static void forget_old_failures(struct name_entry *e)
{
        size_t kept = 0;
        for (size_t i = 0; i < e->n_failed; i++) {
                if (e->failed[i].until > loop_now())
                        e->failed[kept++] = e->failed[i];
                else
                        free(e->failed[i].addr);
        }
        e->n_failed = kept;
}

static bool is_avoided(const struct name_entry *e, const char *addr)
{
        for (size_t i = 0; i < e->n_failed; i++)
                if (strcmp(e->failed[i].addr, addr) == 0)
                        return true;
        return false;
}

static void note_failed(struct name_entry *e, const char *addr)
{
        if (is_avoided(e, addr))
                return;
        if (e->n_failed == NAMES_FAILED_MAX) {
                free(e->failed[0].addr);
                memmove(e->failed, e->failed + 1, --e->n_failed * sizeof e->failed[0]);
        }
        char *copy = strdup(addr);
        if (copy)
                e->failed[e->n_failed++] = (struct failed){copy, loop_now() + NAMES_FAILED_S};
}

/* The next address in turn that is not avoided; with `any` else one that is. NULL: none. */
static const char *pick(struct name_entry *e, bool any)
{
        for (size_t i = 0; i < e->n; i++) {
                const char *addr = e->addr[(e->next + i) % e->n];
                if (is_avoided(e, addr))
                        continue;
                e->next = (e->next + i + 1) % e->n;
                return addr;
        }
        return any && e->n ? e->addr[e->next++ % e->n] : NULL;
}

/* ---- asking ---- */

static int take_answer(struct name_entry *e, const answer_t *in)
{
        char **v = calloc(NAMES_ADDRESSES_MAX, sizeof *v);
        size_t n = 0;

        if (!v)
                return -ENOMEM;
        for (size_t i = 0; i < in->n_addresses && n < NAMES_ADDRESSES_MAX; i++) {
                struct str host;
                uint16_t port;
                if (net_addr_split(str_of(in->addresses[i]), &host, &port) == 0 && (v[n] = strdup(in->addresses[i])))
                        n++;
        }
        drop_addresses(e);
        e->addr = v;
        e->n = n;
        e->expires = loop_now() + in->ttl_ms / 1e3;
        return 0;
}

static const char *keep_text(struct arena *a, struct str text)
{
        const char *z = arena_strdup(a, text);
        return z ? z : "out of memory";
}

/* One call to the resolver. 0, or < 0 with *ret_err. */
static int ask_once(struct names *n, struct name_entry *e, struct arena *a, const ProtobufCMessage *req, const char **ret_err)
{
        struct rpc_status st = {0};
        const answer_t *in;
        double old = fiber_set_deadline(loop_now() + CALL_MAX_S);
        int code = component_call(n->component, a, RESOLVE, req, &microdapr__plugin__v1__name_resolve_response__descriptor, &in, &st);

        fiber_restore_deadline(old);
        if (code == 0)
                return take_answer(e, in);
        *ret_err = keep_text(a, st.message);
        if (fiber_is_cancelled())
                return -ECANCELED;
        return code == RPC_DEADLINE_EXCEEDED ? -ETIMEDOUT : st.transport ? -EIO : -ENOENT;
}

static int ask(struct names *n, struct name_entry *e, struct arena *a, struct str id, struct str ns, const char **ret_err)
{
        Microdapr__Plugin__V1__NameResolveRequest req = MICRODAPR__PLUGIN__V1__NAME_RESOLVE_REQUEST__INIT;
        const char *failed[NAMES_FAILED_MAX];

        req.id = arena_strdup(a, id);
        req.namespace_ = arena_strdup(a, ns);
        req.port = (uint32_t)n->k->opts.dapr_internal_grpc_port;
        req.failed = failed;
        for (size_t i = 0; i < e->n_failed; i++)
                failed[req.n_failed++] = arena_strdup(a, str_of(e->failed[i].addr));
        if (!req.id || !req.namespace_ || (e->n_failed && !failed[e->n_failed - 1]))
                return -ENOMEM;
        for (int tries = 0;; tries++) {
                int r = ask_once(n, e, a, &req.base, ret_err);
                if (r || e->n)
                        return r;
                if (tries == NAMES_EMPTY_RETRIES) {
                        *ret_err = arena_printf(a, "resolver returned empty address for app id %.*s/%.*s", STR_FMT(ns), STR_FMT(id));
                        return -ENOENT;
                }
                if ((r = fiber_sleep(NAMES_EMPTY_PAUSE_MS / 1e3)))
                        return r;
        }
}

/* Asks, or waits for the fiber that does. 0 or < 0, of a round that began after this call. */
static int refresh(struct names *n, struct name_entry *e, struct arena *a, struct str id, struct str ns, const char **ret_err)
{
        while (e->asking) {
                unsigned round = e->round;
                int r = cond_wait(&n->changed);
                if (r)
                        return r;
                if (e->round == round)
                        continue;
                if (e->r)
                        *ret_err = keep_text(a, str_of(e->err ? e->err : "out of memory"));
                return e->r;
        }
        e->asking = true;
        int r = ask(n, e, a, id, ns, ret_err);
        e->asking = false;
        if (r != -ECANCELED && !(r == -ETIMEDOUT && fiber_deadline() <= loop_now())) { /* of this fiber only: another one asks */
                e->round++;
                e->r = r;
                free(e->err);
                e->err = r ? strdup(*ret_err) : NULL;
        }
        cond_broadcast(&n->changed);
        return r;
}

static int choose(struct names *n, struct name_entry *e, struct arena *a, struct str id, struct str ns, const char **ret_addr,
                  const char **ret_err)
{
        const char *addr = e->expires > loop_now() ? pick(e, false) : NULL;
        int r = 0;

        if (!addr) {
                r = refresh(n, e, a, id, ns, ret_err);
                if (r)
                        return r;
                addr = pick(e, true);
        }
        *ret_addr = addr ? arena_strdup(a, str_of(addr)) : NULL;
        if (!addr)
                *ret_err = "the name resolver gave no address"; /* another fiber has emptied the entry meanwhile */
        return *ret_addr ? 0 : addr ? -ENOMEM : -ENOENT;
}

static int wait_ready(struct names *n, struct arena *a, const char **ret_err)
{
        double deadline = loop_now() + NAMES_START_MAX_S;
        int r = 0;

        while (n && n->state == NAMES_STARTING && r == 0)
                r = cond_wait_until(&n->changed, deadline);
        if (n && n->state == NAMES_READY)
                return 0;
        *ret_err = "name resolver not initialized";
        if (n && n->state == NAMES_FAILED && n->why)
                *ret_err = arena_printf(a, "name resolver not initialized: %s", n->why);
        return r == -ECANCELED ? r : -ENOTCONN;
}

int names_resolve(struct kernel *k, struct arena *a, struct str id, struct str ns, const char *failed, const char **ret_addr,
                  const char **ret_err)
{
        struct names *n = k->names;
        struct name_entry *e;
        int r;

        *ret_err = "out of memory";
        r = wait_ready(n, a, ret_err);
        if (r)
                return r;
        e = entry_get(n, ns, id);
        if (!e) {
                *ret_err = id.n + ns.n >= KEY_MAX ? "the app id is too long" : *ret_err;
                return -ENOMEM;
        }
        forget_old_failures(e);
        if (failed)
                note_failed(e, failed);
        e->users++;
        r = choose(n, e, a, id, ns, ret_addr, ret_err);
        e->users--;
        if (r == -ECANCELED)
                *ret_err = "context canceled";
        else if (r == -ETIMEDOUT && fiber_deadline() <= loop_now())
                *ret_err = "context deadline exceeded";
        if (r && !e->users && !e->n)
                entry_free(n, e); /* names that nobody has leave nothing behind */
        return r;
}
