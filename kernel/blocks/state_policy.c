/*
 * Calls to a store under its outbound policy. What an etag forbids is not tried again. When some items of a bulk write failed, only
 * those are sent again that may come out otherwise: a second write of one that was done would meet its own etag.
 */
#include "google/protobuf/any.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "kernel/blocks/state.h"
#include "kernel/policy/resiliency.h"

struct asking {
        struct call *c;
        struct state_store *s;
        enum state_method m;
        struct str req, *resp;
        const struct state_item *items; /* of a bulk write, those to be sent now */
        size_t n;
        struct state_failure *f;
        bool refused; /* the store has no such method */
};

static struct str failed_key(struct call *c, const Google__Protobuf__Any *any)
{
        static const char url[] = "type.googleapis.com/google.rpc.ErrorInfo";
        const Google__Rpc__ErrorInfo *info =
                strcmp(any->type_url, url) ? NULL : pb_unpack(c->arena, &google__rpc__error_info__descriptor, pb_str(any->value));
        struct str key = STR_NULL;
        for (size_t i = 0; info && i < info->n_metadata; i++) {
                if (!strcmp(info->metadata[i]->key, "etag"))
                        return STR_NULL;
                if (!strcmp(info->metadata[i]->key, "key"))
                        key = str_of(info->metadata[i]->value);
        }
        return key;
}

/* Leaves the items whose failure was no matter of etags. */
static void keep_failed(struct asking *x)
{
        struct call *c = x->c;
        const Google__Rpc__Status *st = pb_unpack(c->arena, &google__rpc__status__descriptor, x->f->details);
        struct state_item *left = arena_alloc(c->arena, x->n * sizeof *left);
        size_t n = 0;
        for (size_t i = 0; st && left && i < st->n_details; i++) {
                struct str key = failed_key(c, st->details[i]);
                for (size_t j = 0; key.p && j < x->n; j++) {
                        if (!str_eq(x->items[j].stored_key, key))
                                continue;
                        left[n++] = x->items[j];
                        break;
                }
        }
        if (!n)
                return;
        x->items = left;
        x->n = n;
        x->req = n > 1                     ? state_pack_bulk(c->arena, x->m, left, n, 0)
                 : x->m == STATE_BULK_SET  ? state_pack_set_request(c->arena, left)
                                           : state_pack_delete_request(c->arena, left);
        if (n == 1)
                x->m = x->m == STATE_BULK_SET ? STATE_SET : STATE_DELETE;
}

static int ask(void *arg, struct policy_try *t)
{
        struct asking *x = arg;
        struct state_failure *f = x->f;
        if (state_ask_once(x->c, x->s, x->m, x->req, x->resp, f) == 0)
                return 0;
        if (x->m == STATE_BULK_GET && f->grpc_code == RPC_UNIMPLEMENTED) {
                x->refused = true;
                return 0;
        }
        t->permanent = !x->req.p || f->kind == STATE_FAIL_ETAG_MISMATCH || f->kind == STATE_FAIL_ETAG_INVALID;
        if (f->of_items && x->items && !t->permanent)
                keep_failed(x);
        return -1;
}

int state_ask(struct call *c, struct state_store *s, enum state_method m, struct str req, const struct state_item *items, size_t n,
              struct str *resp, struct state_failure *f)
{
        struct asking x = {.c = c, .s = s, .m = m, .req = req, .resp = resp, .items = items, .n = n, .f = f};
        struct policy p;
        resiliency_component(c->k, str_of(s->name), KIND_STATE, POLICY_OUTBOUND, &p);
        if (policy_is_empty(&p))
                return state_ask_once(c, s, m, req, resp, f);
        enum policy_result r = policy_run(&p, ask, &x);
        if (r == POLICY_OK && !x.refused)
                return 0;
        if (r != POLICY_OK && r != POLICY_FAILED)
                state_failure_text(f, policy_result_text(r));
        return -1;
}
