/*
 * A link is in the table under its address, namespace and app until it is retired, too long idle, or made with an SVID that has been
 * renewed since; it goes when its last call has ended. Over PEERS_MAX the link that was idle for longest makes room.
 */
#include "kernel/mesh/peers.h"

#include <errno.h>
#include <stdlib.h>

#include "kernel/kernel.h"
#include "kernel/mesh/identity.h"
#include "sdk/base/loop.h"
#include "sdk/net/tls.h"

enum { SWEEP_S = 30, KEY_BYTES = 600 };

struct peer_link {
        struct peers *owner;
        struct rpc_channel *channel;
        size_t calls;
        unsigned generation;
        double idle_since;
        bool listed;
        size_t key_n;
        char key[];
};
struct peers {
        struct kernel *k;
        struct map links; /* struct peer_link */
        struct timer sweep;
};

static void destroy(struct peer_link *l)
{
        rpc_channel_close(l->channel);
        free(l);
}

static void unlist(struct peer_link *l)
{
        if (!l->listed)
                return;
        l->listed = false;
        map_del(&l->owner->links, str_n(l->key, l->key_n));
}

static void on_sweep(struct timer *t)
{
        struct peers *p = container_of(t, struct peers, sweep);
        double old = loop_now() - PEERS_IDLE_S;

        for (struct map_entry *e = NULL; (e = map_next(&p->links, e));) {
                struct peer_link *l = e->value;
                if (l->calls || l->idle_since > old)
                        continue;
                unlist(l);
                destroy(l);
        }
        if (!p->links.count)
                timer_stop(&p->sweep);
}

int peers_new(struct peers **ret, struct kernel *k)
{
        struct peers *p = calloc(1, sizeof *p);

        if (!p)
                return -ENOMEM;
        p->k = k;
        timer_init(&p->sweep, on_sweep);
        *ret = p;
        return 0;
}

void peers_free(struct peers *p)
{
        if (!p)
                return;
        timer_stop(&p->sweep);
        for (struct map_entry *e = NULL; (e = map_next(&p->links, e));)
                destroy(e->value);
        map_fini(&p->links);
        free(p);
}

static bool make_room(struct peers *p)
{
        struct peer_link *oldest = NULL;

        if (p->links.count < PEERS_MAX)
                return true;
        for (struct map_entry *e = NULL; (e = map_next(&p->links, e));) {
                struct peer_link *l = e->value;
                if (!l->calls && (!oldest || l->idle_since < oldest->idle_since))
                        oldest = l;
        }
        if (!oldest)
                return false;
        unlist(oldest);
        destroy(oldest);
        return true;
}

static int connect_to(struct peers *p, struct str address, struct str ns, struct str app_id, struct rpc_channel **ret)
{
        int64_t max = p->k->opts.max_body_size;
        struct rpc_channel_conf conf = {.target = address, .max_recv_bytes = max > 0 ? max : -1};
        int r = p->k->identity ? identity_client_tls(p->k->identity, ns, app_id, &conf.tls) : 0;

        if (!r)
                r = rpc_channel_new(ret, &conf);
        tls_context_unref(conf.tls);
        return r;
}

static int link_new(struct peers *p, struct str key, struct str address, struct str ns, struct str app_id, struct peer_link **ret)
{
        struct peer_link *l = calloc(1, sizeof *l + key.n);
        int r = l ? connect_to(p, address, ns, app_id, &l->channel) : -ENOMEM;

        if (!r && (r = map_set(&p->links, key, l)))
                rpc_channel_close(l->channel);
        if (r) {
                free(l);
                return r;
        }
        l->owner = p;
        l->listed = true;
        l->generation = p->k->identity ? identity_generation(p->k->identity) : 0;
        l->key_n = key.n;
        memcpy(l->key, key.p, key.n);
        if (!timer_is_active(&p->sweep))
                timer_start(&p->sweep, SWEEP_S, SWEEP_S);
        *ret = l;
        return 0;
}

static int failed(int r, struct rpc_status *st)
{
        const char *why = r == -ENOSPC   ? "too many connections to other sidecars are in use"
                          : r == -EINVAL ? "the app's address or id cannot be used"
                                         : "out of memory";

        *st = (struct rpc_status){.code = r == -EINVAL ? RPC_INVALID_ARGUMENT : RPC_RESOURCE_EXHAUSTED, .message = str_of(why)};
        st->transport = st->unprocessed = true;
        return st->code;
}

int peers_get(struct peers *p, struct str address, struct str ns, struct str app_id, struct peer_link **ret, struct rpc_status *st)
{
        char key[KEY_BYTES];
        size_t n = address.n + ns.n + app_id.n + 2;
        struct peer_link *l;
        int r;

        if (n > sizeof key)
                return failed(-EINVAL, st);
        memcpy(key, address.p, address.n);
        key[address.n] = ' ';
        memcpy(key + address.n + 1, ns.p, ns.n);
        key[address.n + 1 + ns.n] = ' ';
        memcpy(key + address.n + ns.n + 2, app_id.p, app_id.n);
        l = map_get(&p->links, str_n(key, n));
        if (l && p->k->identity && l->generation != identity_generation(p->k->identity)) {
                unlist(l);
                if (!l->calls)
                        destroy(l);
                l = NULL;
        }
        if (!l) {
                r = make_room(p) ? link_new(p, str_n(key, n), address, ns, app_id, &l) : -ENOSPC;
                if (r)
                        return failed(r, st);
        }
        l->calls++;
        *ret = l;
        return 0;
}

void peers_put(struct peer_link *l)
{
        if (!l)
                return;
        l->idle_since = loop_now();
        if (!--l->calls && !l->listed)
                destroy(l);
}

void peers_retire(struct peer_link *l)
{
        unlist(l);
        peers_put(l);
}

struct rpc_channel *peers_channel(const struct peer_link *l)
{
        return l->channel;
}
