/*
 * The SDK's own reading of state messages against protobuf-c: what protobuf-c takes must be read to the same values. The first
 * byte chooses the message.
 */
#include <stdlib.h>

#include "dapr/proto/components/v1/state.pb-c.h"
#include "sdk/base/pb.h"
#include "sdk/plugin/state_codec.h"

#define must_hold(x) ((x) ? (void)0 : abort())
#define P(name) Dapr__Proto__Components__V1__##name
#define D(name) &dapr__proto__components__v1__##name##__descriptor

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool same(const char *a, const char *b)
{
        return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool same_etag(const char *ours, const P(Etag) *theirs)
{
        return (ours != NULL) == (theirs != NULL) && (!theirs || same(ours, theirs->value));
}

static bool same_options(int concurrency, int consistency, const P(StateOptions) *o)
{
        unsigned a = o ? (unsigned)o->concurrency : 0, b = o ? (unsigned)o->consistency : 0;
        /* values that no version of the contract knows count as unspecified */
        return concurrency == (a > DAPR_LAST_WRITE ? 0 : (int)a) && consistency == (b > DAPR_STRONG ? 0 : (int)b);
}

static void check_get(struct dapr_call *dc, struct str in)
{
        struct dapr_get g;
        const P(GetRequest) *m = pb_unpack(dc->arena, D(get_request), in);
        int r = state_read_get(dc, in, &g);
        if (!m)
                return;
        must_hold(r == 0 && same(g.key, m->key) && g.metadata.n == m->n_metadata);
        for (size_t i = 0; i < m->n_metadata; i++)
                must_hold(same(g.metadata.v[i].key, m->metadata[i]->key) && same(g.metadata.v[i].value, m->metadata[i]->value));
}

static void check_set(const struct dapr_set *s, const P(SetRequest) *m)
{
        must_hold(same(s->key, m->key) && str_eq(str_n(s->value.p, s->value.n), pb_str(m->value)));
        must_hold(same_etag(s->etag, m->etag) && same(s->content_type, m->content_type) && s->metadata.n == m->n_metadata);
        must_hold(same_options((int)s->concurrency, (int)s->consistency, m->options));
}

static void check_delete(const struct dapr_delete *d, const P(DeleteRequest) *m)
{
        must_hold(same(d->key, m->key) && same_etag(d->etag, m->etag) && d->metadata.n == m->n_metadata);
        must_hold(same_options((int)d->concurrency, (int)d->consistency, m->options));
}

static void check_bulk(struct dapr_call *dc, struct str in)
{
        struct str *parts;
        size_t k;
        const P(BulkSetRequest) *m = pb_unpack(dc->arena, D(bulk_set_request), in);
        int r = state_read_repeated(dc, in, 1, &parts, &k);
        must_hold(!m || (r == 0 && k == m->n_items));
        for (size_t i = 0; m && i < k; i++) {
                struct dapr_set s;
                must_hold(state_read_set(dc, parts[i], &s) == 0);
                check_set(&s, m->items[i]);
        }
}

static void check_op(struct dapr_call *dc, struct str in)
{
        struct dapr_op op;
        const P(TransactionalStateOperation) *m = pb_unpack(dc->arena, D(transactional_state_operation), in);
        struct str *parts;
        size_t sets = 0, deletes = 0;
        int r = state_read_op(dc, in, &op);
        if (!m || r || state_read_repeated(dc, in, 1, &parts, &deletes) || state_read_repeated(dc, in, 2, &parts, &sets))
                return;
        if (sets + deletes > 1) /* protobuf merges them, we take the last; nobody sends that */
                return;
        if (m->request_case == DAPR__PROTO__COMPONENTS__V1__TRANSACTIONAL_STATE_OPERATION__REQUEST_SET)
                must_hold(op.kind == DAPR_OP_SET && same(op.set.key, m->set->key));
        else
                must_hold(op.kind == DAPR_OP_DELETE && same(op.del.key, m->delete_->key));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct arena a;
        static const struct dapr_state_ops ops;
        static const struct dapr_component_type type = {.type = "state.x", .state = &ops};
        struct instance inst = {.name = (char *)"x", .type = &type};
        struct dapr_call dc = {.arena = &a, .inst = &inst};
        if (n < 1)
                return 0;
        struct str in = str_n(data + 1, n - 1);
        arena_init(&a, 16 * 1024 * 1024);
        if (data[0] % 5 == 0) {
                check_get(&dc, in);
        } else if (data[0] % 5 == 1) {
                struct dapr_set s;
                const P(SetRequest) *m = pb_unpack(&a, D(set_request), in);
                int r = state_read_set(&dc, in, &s);
                if (m) {
                        must_hold(r == 0);
                        check_set(&s, m);
                }
        } else if (data[0] % 5 == 2) {
                struct dapr_delete d;
                const P(DeleteRequest) *m = pb_unpack(&a, D(delete_request), in);
                int r = state_read_delete(&dc, in, &d);
                if (m) {
                        must_hold(r == 0);
                        check_delete(&d, m);
                }
        } else if (data[0] % 5 == 3) {
                check_bulk(&dc, in);
        } else {
                check_op(&dc, in);
        }
        arena_fini(&a);
        return 0;
}
