/*
 * The crypto building block: documents through the doors. gRPC streams both ways at once, so any size takes a few segments of memory.
 * Over HTTP/1.1 many clients read nothing before they have sent all; so the reply is held back until the request has ended, within
 * what --max-body-size allows, and a failure still gets its status. HTTP/2 replies are held back up to HOLD_BYTES and stream then.
 */
#include "kernel/blocks/crypto.h"

#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/runtime/v1/crypto.pb-c.h"
#include "kernel/front/errors.h"
#include "kernel/front/http.h"
#include "kernel/observe/observe.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/loop.h"

typedef Dapr__Proto__Runtime__V1__EncryptRequest encrypt_request;
typedef Dapr__Proto__Runtime__V1__DecryptRequest decrypt_request;
typedef Dapr__Proto__Common__V1__StreamPayload payload_t;

enum { HOLD_BYTES = 4 * 1024 * 1024 + 128 * 1024, CHUNK_BYTES = 66 * 1024, FIRST_MESSAGE_S = 5 };

struct component *crypto_find(struct call *c, const char *name)
{
        struct component *comp = kernel_component(c->k, KIND_CRYPTO, str_of(name));
        if (!kernel_component_count(c->k, KIND_CRYPTO))
                call_fail(c, ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED);
        else if (!*name)
                call_fail(c, ERR_BAD_REQUEST, "missing component name");
        else if (!comp)
                call_fail(c, ERR_CRYPTO_PROVIDER_NOT_FOUND, name);
        return comp;
}

int crypto_call(struct call *c, struct component *comp, const char *operation, const char *method, const ProtobufCMessage *req,
                const ProtobufCMessageDescriptor *answer_d, void *answer, const char **ret_err)
{
        struct rpc_status st = {0};
        double since = loop_now_exact();
        int code = resiliency_component_call(c->k, comp, c->arena, method, req, answer_d, answer, &st, ret_err);
        observe_component(c->k->observe, OBSERVE_CRYPTO, str_of(component_name(comp)), operation, !code, (loop_now_exact() - since) * 1000);
        if (code && !*ret_err)
                *ret_err = call_component_error(c, comp, &st);
        return code;
}

/* Names of algorithms and ciphers are compared without case. */
static const char *upper(struct call *c, struct str s)
{
        char *z = s.p ? arena_strdup(c->arena, s) : NULL;
        for (char *p = z; p && *p; p++)
                if (*p >= 'a' && *p <= 'z')
                        *p = (char)(*p - 'a' + 'A');
        return z ? z : "";
}

/* ---- HTTP ---- */

struct chunk {
        struct chunk *next;
        size_t n;
        char data[CHUNK_BYTES];
};
struct http_doc {
        struct crypto_source from;
        struct crypto_sink to;
        struct call *c;
        struct chunk *first, *last; /* held back */
        size_t held;
        bool begun;
};

static int hold(struct http_doc *d, struct str data)
{
        while (data.n) {
                if (!d->last || d->last->n == CHUNK_BYTES) {
                        struct chunk *more = malloc(sizeof *more);
                        if (!more)
                                return -ENOMEM;
                        more->next = NULL;
                        more->n = 0;
                        *(d->last ? &d->last->next : &d->first) = more;
                        d->last = more;
                }
                size_t n = CHUNK_BYTES - d->last->n < data.n ? CHUNK_BYTES - d->last->n : data.n;
                memcpy(d->last->data + d->last->n, data.p, n);
                d->last->n += n;
                d->held += n;
                data = str_skip(data, n);
        }
        return 0;
}

/* Sends what is held back (send = false: only frees it), a chunk at a time. */
static int let_go(struct http_doc *d, bool send)
{
        int r = 0;
        while (d->first) {
                struct chunk *c = d->first;
                d->first = c->next;
                if (send && !r)
                        r = http_resp_write(d->c->http, str_n(c->data, c->n));
                sodium_memzero(c->data, c->n);
                free(c);
        }
        d->last = NULL;
        d->held = 0;
        return r;
}

static ssize_t http_read(struct crypto_source *s, void *to, size_t n)
{
        struct http_doc *d = container_of(s, struct http_doc, from);
        ssize_t got = http_req_read(d->c->http, to, n);
        if (got < 0)
                s->error = body_error((int)got);
        return got;
}

static int http_write(struct crypto_sink *s, struct str data)
{
        struct http_doc *d = container_of(s, struct http_doc, to);
        if (d->begun)
                return http_resp_write(d->c->http, data);
        if (d->c->http->version < 20 || d->held + data.n <= HOLD_BYTES)
                return hold(d, data);
        int r = reply_begin(d->c, 200, "application/octet-stream", -1);
        d->begun = true;
        if (!r)
                r = let_go(d, true);
        return r ? r : http_resp_write(d->c->http, data);
}

static struct http_doc http_doc_of(struct call *c)
{
        return (struct http_doc){.from.read = http_read, .to.write = http_write, .c = c};
}

static void http_end(struct http_doc *d, int r, const char *const *error)
{
        struct call *c = d->c;
        if (!r && d->begun) {
                http_resp_end(c->http, NULL, 0);
        } else if (!r && (!d->first || d->first == d->last)) {
                reply_bytes(c, 200, "application/octet-stream", d->first ? str_n(d->first->data, d->first->n) : STR(""), NULL, 0);
        } else if (!r) {
                if (!reply_begin(c, 200, "application/octet-stream", (int64_t)d->held) && !let_go(d, true))
                        http_resp_end(c->http, NULL, 0);
        } else if (d->begun) {
                http_resp_abort(c->http);
        } else if (r == CRYPTO_START_FAILED) {
                call_fail(c, ERR_CRYPTO, *error);
        } else {
                call_fail(c, ERR_UNTYPED, r == -EIO ? *error : body_error(r));
        }
        if (c->failed)
                reply_error(c);
        let_go(d, false);
}

static const char *header(struct call *c, const char *name)
{
        struct str v = http_headers_get(&c->http->headers, name);
        const char *z = v.p ? arena_strdup(c->arena, v) : "";
        return z ? z : "";
}

static void http_encrypt(struct call *c)
{
        const char *name = arena_strdup(c->arena, route_param(c, "name"));
        struct crypto_encrypt o = {.key_name = header(c, "dapr-key-name"),
                                   .algorithm = upper(c, http_headers_get(&c->http->headers, "dapr-key-wrap-algorithm")),
                                   .cipher = upper(c, http_headers_get(&c->http->headers, "dapr-data-encryption-cipher")),
                                   .decryption_key_name = header(c, "dapr-decryption-key-name"),
                                   .omit_key_name = parse_truthy(header(c, "dapr-omit-decryption-key-name"))};
        struct http_doc d = http_doc_of(c);
        const char *error = "";
        o.comp = crypto_find(c, name ? name : "");
        if (o.comp && !*o.key_name)
                call_fail(c, ERR_BAD_REQUEST, "missing header 'dapr-key-name'");
        else if (o.comp && !*o.algorithm)
                call_fail(c, ERR_BAD_REQUEST, "missing header 'dapr-key-wrap-algorithm'");
        if (c->failed)
                reply_error(c);
        else
                http_end(&d, crypto_encrypt(c, &o, &d.from, &d.to, &error), &error);
}

static void http_decrypt(struct call *c)
{
        const char *name = arena_strdup(c->arena, route_param(c, "name"));
        struct crypto_decrypt o = {.key_name = header(c, "dapr-key-name")};
        struct http_doc d = http_doc_of(c);
        const char *error = "";
        o.comp = crypto_find(c, name ? name : "");
        if (c->failed)
                reply_error(c);
        else
                http_end(&d, crypto_decrypt(c, &o, &d.from, &d.to, &error), &error);
}

/* ---- gRPC ---- */

struct grpc_doc {
        struct crypto_source from;
        struct crypto_sink to;
        struct call *c;
        struct str rest;       /* of the message that was received last */
        uint64_t expect, sent;
};

/* EncryptRequest and DecryptRequest: both have `options` = 1 and `payload` = 2. */
_Static_assert(offsetof(encrypt_request, options) == offsetof(decrypt_request, options), "layout of requests");
_Static_assert(offsetof(encrypt_request, payload) == offsetof(decrypt_request, payload), "layout of requests");

static int take_payload(struct grpc_doc *d, const payload_t *p)
{
        d->rest = STR("");
        if (!p)
                return 0;
        if (p->seq != d->expect) {
                d->from.error = arena_printf(d->c->arena, "invalid sequence number received: %llu (expected: %llu)", (unsigned long long)p->seq,
                                             (unsigned long long)d->expect);
                return -EBADMSG;
        }
        d->expect++;
        d->rest = pb_str(p->data);
        return 0;
}

static int next_message(struct grpc_doc *d)
{
        encrypt_request *m = NULL;
        int r = rpc_recv_pb(d->c->rpc, &dapr__proto__runtime__v1__encrypt_request__descriptor, &m);
        if (r <= 0) {
                if (r < 0)
                        d->from.error = arena_printf(d->c->arena, "error receiving message: %s", body_error(r));
                return r;
        }
        if (m->options) {
                d->from.error = "options found in non-leading message";
                return -EBADMSG;
        }
        r = take_payload(d, m->payload);
        return r ? r : 1;
}

static ssize_t grpc_read(struct crypto_source *s, void *to, size_t n)
{
        struct grpc_doc *d = container_of(s, struct grpc_doc, from);
        if (s->error)
                return -EBADMSG;
        while (!d->rest.n) {
                int r = next_message(d);
                if (r <= 0)
                        return r;
        }
        if (n > d->rest.n)
                n = d->rest.n;
        memcpy(to, d->rest.p, n);
        d->rest = str_skip(d->rest, n);
        return (ssize_t)n;
}

static uint8_t *varint_before(uint8_t *p, uint64_t v)
{
        uint8_t bytes[10];
        int n = 0;
        do
                bytes[n++] = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
        while (v >>= 7);
        p -= n;
        memcpy(p, bytes, (size_t)n);
        return p;
}

/* The data's message is written around it, in the room in front: EncryptResponse { payload = 1 { data = 1, seq = 2 } }. */
static int grpc_write(struct crypto_sink *s, struct str data)
{
        struct grpc_doc *d = container_of(s, struct grpc_doc, to);
        uint8_t *end = (uint8_t *)data.p + data.n, *p = (uint8_t *)data.p;
        if (!data.n)
                return 0;
        p = varint_before(p, data.n);
        *--p = 1 << 3 | 2;
        if (d->sent) {
                p = varint_before(p, d->sent);
                *--p = 2 << 3;
        }
        p = varint_before(p, (uint64_t)(end - p));
        *--p = 1 << 3 | 2;
        d->sent++;
        return rpc_send(d->c->rpc, str_n(p, (size_t)(end - p)));
}

static int grpc_end(struct grpc_doc *d, int r, const char *const *error)
{
        if (r == 0)
                return 0;
        if (r == CRYPTO_START_FAILED || r == -EIO)
                return call_fail(d->c, ERR_CRYPTO, *error);
        return call_fail(d->c, ERR_CRYPTO, arena_printf(d->c->arena, "error sending message: %s", body_error(r)));
}

/* The first message, with options; NULL: answered. */
static void *first_message(struct call *c, const ProtobufCMessageDescriptor *type)
{
        encrypt_request *m = NULL;
        c->rpc->flags |= RPC_REUSE;
        double old = fiber_set_deadline(loop_now_exact() + FIRST_MESSAGE_S);
        int r = rpc_recv_pb(c->rpc, type, &m);
        fiber_restore_deadline(old);
        if (r == -ETIMEDOUT)
                call_fail(c, ERR_BAD_REQUEST, "error waiting for first message: context deadline exceeded");
        else if (r <= 0)
                call_fail(c, ERR_CRYPTO, arena_printf(c->arena, "error receiving the first message: %s", r == 0 ? "EOF" : body_error(r)));
        else if (!m->options)
                call_fail(c, ERR_BAD_REQUEST, "first message does not contain the required options");
        return c->failed ? NULL : m;
}

static const char *keep(struct call *c, const char *s)
{
        const char *z = *s ? arena_strdup(c->arena, str_of(s)) : "";
        return z ? z : "";
}

static int grpc_encrypt(struct call *c)
{
        struct grpc_doc d = {.from.read = grpc_read, .to.write = grpc_write, .c = c};
        const encrypt_request *m = first_message(c, &dapr__proto__runtime__v1__encrypt_request__descriptor);
        const char *error = "";
        if (!m)
                return -1;
        const Dapr__Proto__Runtime__V1__EncryptRequestOptions *in = m->options;
        if (!*in->key_name)
                return call_fail(c, ERR_BAD_REQUEST, "missing property 'keyName' in the options message");
        if (!*in->key_wrap_algorithm)
                return call_fail(c, ERR_BAD_REQUEST, "missing property 'keyWrapAlgorithm' in the options message");
        struct crypto_encrypt o = {.comp = crypto_find(c, in->component_name),
                                   .key_name = keep(c, in->key_name),
                                   .algorithm = upper(c, str_of(in->key_wrap_algorithm)),
                                   .cipher = upper(c, str_of(in->data_encryption_cipher)),
                                   .decryption_key_name = keep(c, in->decryption_key_name),
                                   .omit_key_name = in->omit_decryption_key_name};
        if (!o.comp)
                return -1;
        take_payload(&d, m->payload); /* what is wrong with it is seen when it is read */
        return grpc_end(&d, crypto_encrypt(c, &o, &d.from, &d.to, &error), &error);
}

static int grpc_decrypt(struct call *c)
{
        struct grpc_doc d = {.from.read = grpc_read, .to.write = grpc_write, .c = c};
        const decrypt_request *m = first_message(c, &dapr__proto__runtime__v1__decrypt_request__descriptor);
        const char *error = "";
        if (!m)
                return -1;
        struct crypto_decrypt o = {.comp = crypto_find(c, m->options->component_name),
                                   .key_name = keep(c, m->options->key_name)};
        if (!o.comp)
                return -1;
        take_payload(&d, m->payload);
        return grpc_end(&d, crypto_decrypt(c, &o, &d.from, &d.to, &error), &error);
}

static const struct http_route http_routes[] = {
        {"PUT", "/v1.0-alpha1/crypto/{name}/encrypt", "crypto", "v1alpha1", "Encrypt", http_encrypt},
        {"PUT", "/v1.0-alpha1/crypto/{name}/decrypt", "crypto", "v1alpha1", "Decrypt", http_decrypt},
};
static const struct grpc_route grpc_routes[] = {
        {.method = "EncryptAlpha1", .group = "crypto.v1alpha1", .stream = grpc_encrypt},
        {.method = "DecryptAlpha1", .group = "crypto.v1alpha1", .stream = grpc_decrypt},
};
const struct block crypto_block_def = {
        .name = "crypto",
        .http = http_routes,
        .n_http = sizeof http_routes / sizeof *http_routes,
        .grpc = grpc_routes,
        .n_grpc = sizeof grpc_routes / sizeof *grpc_routes,
};
const struct block subtle_crypto_block_def = {
        .name = "subtle crypto",
        .http = crypto_subtle_http,
        .n_http = CRYPTO_SUBTLE_ROWS,
        .grpc = crypto_subtle_grpc,
        .n_grpc = CRYPTO_SUBTLE_ROWS,
};
