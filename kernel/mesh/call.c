/*
 * The caller's end of a call between sidecars. The head and a body that is there already go out as one message; a body that comes later
 * follows in numbered pieces. The answer's pieces have to have the numbers 0, 1, 2 ….
 */
#include <errno.h>

#include "kernel/mesh/mesh.h"
#include "kernel/observe/trace.h"
#include "sdk/base/log.h"

#define SERVICE "/dapr.proto.internals.v1.ServiceInvocation/"
#define SCOPE "dapr.runtime.direct_messaging"

/* ---- request ---- */

static int failed(struct mesh_call *c, int code, const char *text)
{
        c->status = (struct rpc_status){.code = code, .message = str_of(text)};
        return code;
}

/* Pieces of a body that is there, from the second on. */
static void send_rest(struct mesh_call *c, struct str rest)
{
        char *room = rest.n ? arena_alloc(c->arena, MESH_CHUNK_ROOM + MESH_CHUNK_BYTES) : NULL;

        while (room && rest.n) {
                size_t n = rest.n < MESH_CHUNK_BYTES ? rest.n : MESH_CHUNK_BYTES;
                memcpy(room + MESH_CHUNK_ROOM, rest.p, n);
                if (mesh_call_write(c, room, n))
                        return; /* the status at the end tells why */
                rest = str_skip(rest, n);
        }
        if (rest.n)
                rpc_cancel(c->rpc);
}

int mesh_trace(struct arena *a, struct rpc_mdlist *to)
{
        const struct trace *t = trace_current();
        uint8_t *binary = t ? arena_alloc(a, TRACE_BINARY_BYTES) : NULL;

        if (!t)
                return 0;
        if (!binary)
                return -ENOMEM;
        for (int i = 0; i < TRACE_HEADERS; i++) {
                struct str value = trace_value(t, (enum trace_header)i);
                if (value.n && rpc_md_add(to, a, str_of(trace_header_name((enum trace_header)i)), value))
                        return -ENOMEM;
        }
        return trace_binary(t, binary) ? rpc_md_add(to, a, STR("grpc-trace-bin"), str_n(binary, TRACE_BINARY_BYTES)) : 0;
}

static int begin(struct mesh_call *c, struct str body)
{
        struct str first = body.p && body.n > MESH_CHUNK_BYTES ? str_n(body.p, MESH_CHUNK_BYTES) : body;
        struct str msg = mesh_put_request(c->arena, c->request, first.n ? first : STR_NULL);

        struct rpc_mdlist md = {0};

        if (!msg.p || mesh_trace(c->arena, &md))
                return failed(c, RPC_RESOURCE_EXHAUSTED, "out of memory");
        if (rpc_open(peers_channel(c->link), c->arena, SERVICE "CallLocalStream", &(struct rpc_opts){.flags = RPC_KEEP, .md = md.v, .n_md = md.n}, &c->rpc, &c->status))
                return c->status.code;
        c->seq_out = first.n > 0;
        if (rpc_send(c->rpc, msg) == 0 && body.n > first.n)
                send_rest(c, str_skip(body, first.n));
        if (c->whole)
                rpc_send_end(c->rpc);
        return 0;
}

int mesh_call_open(struct mesh *m, struct arena *a, const struct mesh_target *t, const struct mesh_request *q, struct str body, bool whole,
                   struct mesh_call **ret, struct rpc_status *st)
{
        struct mesh_call *c = arena_new(a, struct mesh_call);
        int code;

        if (!c) {
                *st = (struct rpc_status){.code = RPC_RESOURCE_EXHAUSTED, .message = STR("out of memory")};
                return st->code;
        }
        c->arena = a;
        c->request = q;
        c->body = body;
        c->whole = whole;
        code = peers_get(mesh_peers(m), t->address, t->ns, t->id, &c->link, &c->status);
        if (!code)
                code = begin(c, body);
        if (code) {
                *st = c->status;
                mesh_call_close(c, code == RPC_UNAVAILABLE || code == RPC_UNAUTHENTICATED);
                return code;
        }
        *ret = c;
        return 0;
}

int mesh_call_write(struct mesh_call *c, char *room, size_t n)
{
        return rpc_send(c->rpc, mesh_put_chunk(room, n, c->seq_out++));
}

int mesh_call_end(struct mesh_call *c)
{
        return rpc_send_end(c->rpc);
}

void mesh_call_cancel(struct mesh_call *c)
{
        if (c->rpc)
                rpc_cancel(c->rpc);
}

/* ---- answer ---- */

/* The peer is older than streams between sidecars. */
static int ask_whole(struct mesh_call *c)
{
        struct str msg = mesh_put_whole_request(c->arena, c->request, c->body.p ? c->body : STR("")), resp;
        int code;

        log_warn(SCOPE, "a sidecar does not know CallLocalStream, it is called by CallLocal: update it");
        rpc_finish(c->rpc);
        c->rpc = NULL;
        if (!msg.p)
                return failed(c, RPC_RESOURCE_EXHAUSTED, "out of memory");
        code = rpc_unary(peers_channel(c->link), c->arena, SERVICE "CallLocal", msg, &resp, NULL, &c->status);
        if (code)
                return code;
        if (mesh_read_whole_response(c->arena, resp, &c->answer, &c->first))
                return failed(c, RPC_INTERNAL, "the other sidecar's answer cannot be read");
        c->has_first = c->first.n > 0;
        c->ended = true;
        return 0;
}

/* Takes a piece's number. */
static int take(struct mesh_call *c, const struct mesh_payload *p)
{
        if (!p->present)
                return 0;
        if (p->seq == c->seq_in) {
                c->seq_in++;
                return 0;
        }
        failed(c, RPC_UNKNOWN, arena_printf(c->arena, "invalid sequence number received: %llu (expected: %llu)", (unsigned long long)p->seq,
                                            (unsigned long long)c->seq_in));
        rpc_cancel(c->rpc);
        return -EBADMSG;
}

int mesh_call_answer(struct mesh_call *c)
{
        struct mesh_payload payload;
        struct str msg;
        bool has_head;
        int r = rpc_recv(c->rpc, &msg);

        if (r <= 0) {
                c->status = c->rpc->status;
                if (c->status.code == RPC_UNIMPLEMENTED && c->whole)
                        return ask_whole(c);
                if (c->status.code == RPC_UNIMPLEMENTED)
                        return failed(c, RPC_UNKNOWN, "the target app's sidecar is too old for streamed invocation, and the request cannot be sent again");
                return c->status.code ? c->status.code : failed(c, RPC_INTERNAL, "io: EOF");
        }
        c->rpc->flags ^= RPC_KEEP | RPC_REUSE; /* the head's message stays, those that follow do not */
        if (mesh_read_response(c->arena, msg, &c->answer, &has_head, &payload))
                return failed(c, RPC_INTERNAL, "the other sidecar's answer cannot be read");
        if (!has_head || !c->answer.has_status)
                return failed(c, RPC_UNKNOWN, "response does not contain the required fields in the leading chunk");
        if (take(c, &payload))
                return c->status.code;
        c->first = payload.data;
        c->has_first = payload.data.n > 0;
        return 0;
}

static bool is_blank(const struct mesh_response *r)
{
        return !r->has_status && !r->has_message && !r->headers.n;
}

/* One more message of the stream. 1 and a piece, which may be empty; 0, < 0. */
static int next(struct mesh_call *c, struct str *ret)
{
        struct mesh_response more = {0};
        struct mesh_payload payload;
        struct str msg;
        bool has_head;
        int r = rpc_recv(c->rpc, &msg);

        if (r <= 0) {
                c->ended = true;
                c->status = c->rpc->status;
                return r == 0 && c->status.code == RPC_OK ? 0 : r < 0 ? r : -EPIPE;
        }
        if (mesh_read_response(c->arena, msg, &more, &has_head, &payload) || (has_head && !is_blank(&more))) {
                failed(c, RPC_INTERNAL, "response metadata found in non-leading chunk");
                rpc_cancel(c->rpc);
                return -EBADMSG;
        }
        if (take(c, &payload))
                return -EBADMSG;
        *ret = payload.data;
        return 1;
}

int mesh_call_read(struct mesh_call *c, struct str *ret)
{
        int r = 1;

        if (c->has_first) {
                c->has_first = false;
                *ret = c->first;
                return 1;
        }
        if (c->ended)
                return c->status.code ? -EPIPE : 0;
        do
                r = next(c, ret);
        while (r == 1 && !ret->n);
        return r;
}

int mesh_call_trailers(struct mesh_call *c, struct http_headers *to)
{
        for (size_t i = 0; c->rpc && i < c->rpc->md_trailers.n; i++) {
                const struct rpc_md *md = &c->rpc->md_trailers.v[i];
                if (str_has_prefix(md->key, STR(MESH_TRAILER_PREFIX)) &&
                    http_headers_add(to, c->arena, str_skip(md->key, sizeof MESH_TRAILER_PREFIX - 1), md->value))
                        return -ENOMEM;
        }
        return 0;
}

void mesh_call_close(struct mesh_call *c, bool retire)
{
        if (!c)
                return;
        if (c->rpc) {
                if (!c->ended)
                        rpc_cancel(c->rpc);
                rpc_finish(c->rpc);
        }
        if (retire && c->link)
                peers_retire(c->link);
        else
                peers_put(c->link);
}
