/* Calls to gRPC apps: slot, token, trace metadata, metrics around one unary call; streams for proxying with the token only. */
#include <errno.h>

#include "kernel/app/internal.h"
#include "kernel/observe/observe.h"
#include "sdk/base/loop.h"

enum { EXTRA_MD = 6 };

static bool has_key(const struct rpc_md *md, size_t n, const char *key)
{
        for (size_t i = 0; i < n; i++)
                if (str_eqz(md[i].key, key))
                        return true;
        return false;
}

static int fail(struct rpc_status *st, int code, const char *text)
{
        *st = (struct rpc_status){.code = code, .message = str_of(text), .transport = true, .unprocessed = true};
        return code;
}

/* The caller's metadata with ours behind. NULL = no memory. */
static struct rpc_md *all_md(struct app *p, struct arena *a, const struct rpc_md *md, size_t n_md, size_t *ret_n)
{
        struct rpc_md *all = arena_alloc(a, (n_md + EXTRA_MD) * sizeof *all);
        const struct trace *t = trace_current();
        uint8_t *binary = arena_alloc(a, TRACE_BINARY_BYTES);
        size_t n = 0;

        if (!all || !binary)
                return NULL;
        for (size_t i = 0; i < n_md; i++)
                if (!(p->token.n && str_eqz(md[i].key, TOKEN_HEADER)))
                        all[n++] = md[i];
        for (int i = 0; i < TRACE_HEADERS; i++) {
                const char *key = trace_header_name((enum trace_header)i);
                struct str value = trace_value(t, (enum trace_header)i);
                if (value.n && !has_key(md, n_md, key))
                        all[n++] = (struct rpc_md){str_of(key), value};
        }
        if (!has_key(md, n_md, "grpc-trace-bin") && trace_binary(t, binary))
                all[n++] = (struct rpc_md){STR("grpc-trace-bin"), str_n(binary, TRACE_BINARY_BYTES)};
        if (p->token.n)
                all[n++] = (struct rpc_md){STR(TOKEN_HEADER), p->token};
        *ret_n = n;
        return all;
}

/* One request, one reply, with metadata. 0 and *ret_bytes, or the code. */
static int exchange(struct app *p, struct arena *a, const char *method, struct str req, const struct rpc_opts *o, struct str *ret_bytes,
                    struct app_grpc_md *ret_md, struct rpc_status *st)
{
        struct rpc_call *call;
        int r = rpc_open(p->grpc, a, method, o, &call, st);

        if (r)
                return r;
        /* what goes wrong while sending is the status at the end */
        if (rpc_send(call, req) == 0)
                rpc_send_end(call);
        r = rpc_recv(call, ret_bytes);
        if (r > 0)
                *ret_bytes = arena_str(a, *ret_bytes);
        rpc_finish(call);
        *st = call->status;
        ret_md->headers = call->md_in;
        ret_md->trailers = call->md_trailers;
        if (st->code == RPC_OK && (r <= 0 || !ret_bytes->p))
                *st = (struct rpc_status){.code = RPC_INTERNAL, .message = STR("the app sent no response message")};
        return st->code;
}

int app_grpc_md(struct app *p, struct arena *a, const char *method, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *resp_d,
                void *resp, const struct rpc_md *md, size_t n_md, struct app_grpc_md *ret_md, struct rpc_status *st)
{
        struct rpc_opts o = {0};
        struct str packed = pb_pack(a, req), bytes = STR("");
        double began;
        int r;

        o.md = all_md(p, a, md, n_md, &o.n_md);
        if (!o.md || !packed.p)
                return fail(st, RPC_RESOURCE_EXHAUSTED, "the request needs more memory than one request may take");
        if ((r = app_slot_take(p)))
                return r == -ETIMEDOUT ? fail(st, RPC_DEADLINE_EXCEEDED, "context deadline exceeded")
                                       : fail(st, RPC_CANCELLED, "context canceled");
        began = loop_now_exact();
        r = ret_md ? exchange(p, a, method, packed, &o, &bytes, ret_md, st) : rpc_unary(p->grpc, a, method, packed, &bytes, &o, st);
        app_slot_give(p);
        if (trace_current())
                trace_current()->app_ms += (loop_now_exact() - began) * 1e3;
        observe_grpc_client(p->k->observe, method, r, packed.n, r ? 0 : bytes.n, (loop_now_exact() - began) * 1e3);
        if (r == 0 && !(*(void **)resp = pb_unpack(a, resp_d, bytes))) {
                *st = (struct rpc_status){.code = RPC_INTERNAL, .message = STR("grpc: failed to unmarshal the received message")};
                r = RPC_INTERNAL;
        }
        return r;
}

int app_grpc(struct app *p, struct arena *a, const char *method, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *resp_d,
             void *resp, const struct rpc_md *md, size_t n_md, struct rpc_status *st)
{
        return app_grpc_md(p, a, method, req, resp_d, resp, md, n_md, NULL, st);
}

int app_grpc_open(struct app *p, struct arena *a, const char *method, const struct rpc_md *md, size_t n_md, struct rpc_call **ret,
                  struct rpc_status *st)
{
        struct rpc_md *all = arena_alloc(a, (n_md + 1) * sizeof *all);
        size_t n = 0;

        if (!all)
                return fail(st, RPC_RESOURCE_EXHAUSTED, "out of memory");
        for (size_t i = 0; i < n_md; i++)
                if (!str_eqz(md[i].key, TOKEN_HEADER))
                        all[n++] = md[i];
        if (p->token.n)
                all[n++] = (struct rpc_md){STR(TOKEN_HEADER), p->token};
        return rpc_open(p->grpc, a, method, &(struct rpc_opts){.md = all, .n_md = n}, ret, st);
}
