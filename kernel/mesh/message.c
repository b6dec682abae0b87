/*
 * Field numbers are those of proto/dapr/proto/internals/v1/service_invocation.proto and common/v1/common.proto. A message is measured
 * first and then written in one go; both passes walk the same list. Unknown fields are skipped.
 */
#include "kernel/mesh/message.h"

#include <errno.h>

#include "sdk/base/wire.h"

enum { STREAM_HEAD = 1, STREAM_PAYLOAD = 2, PAYLOAD_DATA = 1, PAYLOAD_SEQ = 2 };
enum { REQ_VERSION = 1, REQ_METADATA = 2, REQ_MESSAGE = 3 };
enum { RESP_STATUS = 1, RESP_HEADERS = 2, RESP_TRAILERS = 3, RESP_MESSAGE = 4 };
enum { INVOKE_METHOD = 1, INVOKE_DATA = 2, INVOKE_TYPE = 3, INVOKE_HTTP = 4 };
enum { ANSWER_DATA = 1, ANSWER_TYPE = 2, ANY_URL = 1, ANY_VALUE = 2, HTTP_VERB = 1, HTTP_QUERY = 2 };
enum { STATUS_CODE = 1, STATUS_MESSAGE = 2, ENTRY_KEY = 1, ENTRY_VALUE = 2, LIST_VALUES = 1, API_VERSION_1 = 1 };

/* ---- writing ---- */

/* A string field that is left out when empty. */
static size_t text_size(struct str s)
{
        return s.n ? wire_bytes_size(s.n) : 0;
}

static uint8_t *put_text(uint8_t *p, uint32_t number, struct str s)
{
        return s.n ? wire_put_bytes(p, number, s.p, s.n) : p;
}

static uint8_t *put_number(uint8_t *p, uint32_t number, uint64_t v)
{
        *p++ = (uint8_t)(number << 3);
        return wire_put_varint(p, v);
}

static bool is_first(const struct http_headers *h, size_t i)
{
        for (size_t j = 0; j < i; j++)
                if (str_eq(h->v[j].name, h->v[i].name))
                        return false;
        return true;
}

/* The values of the entry that begins at i. */
static size_t values_size(const struct http_headers *h, size_t i)
{
        size_t n = 0;

        for (size_t j = i; j < h->n; j++)
                if (j == i || str_eq(h->v[j].name, h->v[i].name))
                        n += wire_bytes_size(h->v[j].value.n);
        return n;
}

static size_t metadata_size(const struct http_headers *h)
{
        size_t n = 0;

        for (size_t i = 0; i < h->n; i++)
                if (is_first(h, i))
                        n += wire_bytes_size(wire_bytes_size(h->v[i].name.n) + wire_bytes_size(values_size(h, i)));
        return n;
}

static uint8_t *put_metadata(uint8_t *p, uint32_t number, const struct http_headers *h)
{
        for (size_t i = 0; i < h->n; i++) {
                if (!is_first(h, i))
                        continue;
                struct str name = h->v[i].name;
                size_t values = values_size(h, i);
                p = wire_put_head(p, number, wire_bytes_size(name.n) + wire_bytes_size(values));
                p = wire_put_bytes(p, ENTRY_KEY, name.p, name.n);
                p = wire_put_head(p, ENTRY_VALUE, values);
                for (size_t j = i; j < h->n; j++)
                        if (j == i || str_eq(h->v[j].name, name))
                                p = wire_put_bytes(p, LIST_VALUES, h->v[j].value.p, h->v[j].value.n);
        }
        return p;
}

/* google.protobuf.Any; absent when both are empty. */
static size_t any_size(struct str url, struct str value)
{
        return text_size(url) + text_size(value);
}

static uint8_t *put_any(uint8_t *p, uint32_t number, struct str url, struct str value)
{
        size_t n = any_size(url, value);

        if (!n)
                return p;
        p = wire_put_head(p, number, n);
        p = put_text(p, ANY_URL, url);
        return put_text(p, ANY_VALUE, value);
}

static size_t http_size(const struct mesh_request *q)
{
        return (q->verb ? 1 + wire_varint_size((uint64_t)q->verb) : 0) + text_size(q->query);
}

static size_t any_field_size(struct str url, struct str value)
{
        size_t n = any_size(url, value);

        return n ? wire_bytes_size(n) : 0;
}

static size_t invoke_size(const struct mesh_request *q, struct str data)
{
        return text_size(q->method) + any_field_size(q->type_url, data) + text_size(q->content_type) +
               (q->has_http ? wire_bytes_size(http_size(q)) : 0);
}

static size_t request_size(const struct mesh_request *q, struct str data)
{
        return 2 + metadata_size(&q->md) + wire_bytes_size(invoke_size(q, data));
}

static uint8_t *put_request(uint8_t *p, const struct mesh_request *q, struct str data)
{
        p = put_number(p, REQ_VERSION, API_VERSION_1);
        p = put_metadata(p, REQ_METADATA, &q->md);
        p = wire_put_head(p, REQ_MESSAGE, invoke_size(q, data));
        p = put_text(p, INVOKE_METHOD, q->method);
        p = put_any(p, INVOKE_DATA, q->type_url, data);
        p = put_text(p, INVOKE_TYPE, q->content_type);
        if (!q->has_http)
                return p;
        p = wire_put_head(p, INVOKE_HTTP, http_size(q));
        if (q->verb)
                p = put_number(p, HTTP_VERB, (uint64_t)q->verb);
        return put_text(p, HTTP_QUERY, q->query);
}

static size_t status_size(const struct mesh_response *r)
{
        if (r->status.n)
                return r->status.n;
        return (r->code ? 1 + wire_varint_size((uint64_t)r->code) : 0) + text_size(r->message);
}

static size_t answer_size(const struct mesh_response *r, struct str data)
{
        return any_field_size(r->type_url, data) + text_size(r->content_type);
}

static size_t response_size(const struct mesh_response *r, struct str data)
{
        return wire_bytes_size(status_size(r)) + metadata_size(&r->headers) + metadata_size(&r->trailers) +
               wire_bytes_size(answer_size(r, data));
}

static uint8_t *put_response(uint8_t *p, const struct mesh_response *r, struct str data)
{
        if (r->status.n) {
                p = wire_put_bytes(p, RESP_STATUS, r->status.p, r->status.n);
        } else {
                p = wire_put_head(p, RESP_STATUS, status_size(r));
                if (r->code)
                        p = put_number(p, STATUS_CODE, (uint64_t)r->code);
                p = put_text(p, STATUS_MESSAGE, r->message);
        }
        p = put_metadata(p, RESP_HEADERS, &r->headers);
        p = put_metadata(p, RESP_TRAILERS, &r->trailers);
        p = wire_put_head(p, RESP_MESSAGE, answer_size(r, data));
        p = put_any(p, ANSWER_DATA, r->type_url, data);
        return put_text(p, ANSWER_TYPE, r->content_type);
}

static size_t payload_size(struct str data, uint64_t seq)
{
        return wire_bytes_size(data.n) + (seq ? 1 + wire_varint_size(seq) : 0);
}

/* All of a payload's field but its data. */
static uint8_t *put_payload_head(uint8_t *p, struct str data, uint64_t seq)
{
        p = wire_put_head(p, STREAM_PAYLOAD, payload_size(data, seq));
        if (seq)
                p = put_number(p, PAYLOAD_SEQ, seq);
        return wire_put_head(p, PAYLOAD_DATA, data.n);
}

/* Fields 1 and 2 of a stream's first message around a head of n bytes; *ret_head is where that goes. */
static struct str frame_first(struct arena *a, size_t n, struct str payload, uint8_t **ret_head)
{
        size_t size = wire_bytes_size(n) + (payload.p ? wire_bytes_size(payload_size(payload, 0)) : 0);
        uint8_t *start = arena_alloc(a, size), *p = start;

        if (!start)
                return STR_NULL;
        p = wire_put_head(p, STREAM_HEAD, n);
        *ret_head = p;
        if (payload.p) {
                p = put_payload_head(p + n, payload, 0);
                if (payload.n)
                        memcpy(p, payload.p, payload.n);
        }
        return str_n(start, size);
}

struct str mesh_put_request(struct arena *a, const struct mesh_request *q, struct str payload)
{
        uint8_t *head;
        struct str msg = frame_first(a, request_size(q, STR("")), payload, &head);

        if (msg.p)
                put_request(head, q, STR(""));
        return msg;
}

struct str mesh_put_response(struct arena *a, const struct mesh_response *r, struct str payload)
{
        uint8_t *head;
        struct str msg = frame_first(a, response_size(r, STR("")), payload, &head);

        if (msg.p)
                put_response(head, r, STR(""));
        return msg;
}

struct str mesh_put_whole_request(struct arena *a, const struct mesh_request *q, struct str body)
{
        size_t n = request_size(q, body);
        uint8_t *p = arena_alloc(a, n);

        if (!p)
                return STR_NULL;
        put_request(p, q, body);
        return str_n(p, n);
}

struct str mesh_put_whole_response(struct arena *a, const struct mesh_response *r, struct str body)
{
        size_t n = response_size(r, body);
        uint8_t *p = arena_alloc(a, n);

        if (!p)
                return STR_NULL;
        put_response(p, r, body);
        return str_n(p, n);
}

struct str mesh_put_chunk(char *room, size_t n, uint64_t seq)
{
        struct str data = str_n(room + MESH_CHUNK_ROOM, n);
        uint8_t head[MESH_CHUNK_ROOM];
        size_t head_n = (size_t)(put_payload_head(head, data, seq) - head);

        memcpy(room + MESH_CHUNK_ROOM - head_n, head, head_n);
        return str_n(room + MESH_CHUNK_ROOM - head_n, head_n + n);
}

/* ---- reading ---- */

static int read_entry(struct arena *a, struct str entry, struct http_headers *to)
{
        struct wire w = wire_of(entry), values = {0};
        struct wire_field f;
        struct str name = STR("");

        while (wire_next(&w, &f)) {
                if (f.number == ENTRY_KEY && f.type == WIRE_BYTES)
                        name = f.bytes;
                else if (f.number == ENTRY_VALUE && f.type == WIRE_BYTES)
                        values = wire_of(f.bytes);
        }
        while (!w.bad && name.n && wire_next(&values, &f)) {
                if (f.number != LIST_VALUES || f.type != WIRE_BYTES)
                        continue;
                if (to->n >= MESH_METADATA_MAX)
                        return -E2BIG;
                if (http_headers_add(to, a, name, f.bytes))
                        return -ENOMEM;
        }
        return w.bad || values.bad ? -EBADMSG : 0;
}

static int read_any(struct str msg, struct str *url, struct str *value)
{
        struct wire w = wire_of(msg);
        struct wire_field f;

        while (wire_next(&w, &f)) {
                if (f.type != WIRE_BYTES)
                        continue;
                if (f.number == ANY_URL)
                        *url = f.bytes;
                else if (f.number == ANY_VALUE)
                        *value = f.bytes;
        }
        return w.bad ? -EBADMSG : 0;
}

static int read_http(struct str msg, struct mesh_request *q)
{
        struct wire w = wire_of(msg);
        struct wire_field f;

        q->has_http = true;
        while (wire_next(&w, &f)) {
                if (f.number == HTTP_VERB && f.type == WIRE_VARINT)
                        q->verb = f.u > 99 ? -1 : (int)f.u;
                else if (f.number == HTTP_QUERY && f.type == WIRE_BYTES)
                        q->query = f.bytes;
        }
        return w.bad ? -EBADMSG : 0;
}

static int read_invoke(struct str msg, struct mesh_request *q, struct str *data)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        int r = 0;

        q->has_message = true;
        while (!r && wire_next(&w, &f)) {
                if (f.type != WIRE_BYTES)
                        continue;
                if (f.number == INVOKE_METHOD)
                        q->method = f.bytes;
                else if (f.number == INVOKE_DATA)
                        r = read_any(f.bytes, &q->type_url, data);
                else if (f.number == INVOKE_TYPE)
                        q->content_type = f.bytes;
                else if (f.number == INVOKE_HTTP)
                        r = read_http(f.bytes, q);
        }
        return r ? r : w.bad ? -EBADMSG : 0;
}

int mesh_read_whole_request(struct arena *a, struct str msg, struct mesh_request *q, struct str *body)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        int r = 0;

        *q = (struct mesh_request){.method = STR(""), .content_type = STR(""), .type_url = STR(""), .query = STR("")};
        *body = STR("");
        while (!r && wire_next(&w, &f)) {
                if (f.type != WIRE_BYTES)
                        continue;
                if (f.number == REQ_METADATA)
                        r = read_entry(a, f.bytes, &q->md);
                else if (f.number == REQ_MESSAGE)
                        r = read_invoke(f.bytes, q, body);
        }
        return r ? r : w.bad ? -EBADMSG : 0;
}

static int read_status(struct str msg, struct mesh_response *r)
{
        struct wire w = wire_of(msg);
        struct wire_field f;

        r->has_status = true;
        r->status = msg;
        r->code = 0;
        r->message = STR("");
        while (wire_next(&w, &f)) {
                if (f.number == STATUS_CODE && f.type == WIRE_VARINT)
                        r->code = f.u > 999 ? 2 : (int)f.u;
                else if (f.number == STATUS_MESSAGE && f.type == WIRE_BYTES)
                        r->message = f.bytes;
        }
        return w.bad ? -EBADMSG : 0;
}

static int read_answer(struct str msg, struct mesh_response *r, struct str *data)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        int e = 0;

        r->has_message = true;
        while (!e && wire_next(&w, &f)) {
                if (f.number == ANSWER_DATA && f.type == WIRE_BYTES)
                        e = read_any(f.bytes, &r->type_url, data);
                else if (f.number == ANSWER_TYPE && f.type == WIRE_BYTES)
                        r->content_type = f.bytes;
        }
        return e ? e : w.bad ? -EBADMSG : 0;
}

int mesh_read_whole_response(struct arena *a, struct str msg, struct mesh_response *r, struct str *body)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        int e = 0;

        *r = (struct mesh_response){.message = STR(""), .content_type = STR(""), .type_url = STR("")};
        *body = STR("");
        while (!e && wire_next(&w, &f)) {
                if (f.type != WIRE_BYTES)
                        continue;
                if (f.number == RESP_STATUS)
                        e = read_status(f.bytes, r);
                else if (f.number == RESP_HEADERS || f.number == RESP_TRAILERS)
                        e = read_entry(a, f.bytes, f.number == RESP_HEADERS ? &r->headers : &r->trailers);
                else if (f.number == RESP_MESSAGE)
                        e = read_answer(f.bytes, r, body);
        }
        return e ? e : w.bad ? -EBADMSG : 0;
}

static int read_payload(struct str msg, struct mesh_payload *to)
{
        struct wire w = wire_of(msg);
        struct wire_field f;

        to->present = true;
        while (wire_next(&w, &f)) {
                if (f.number == PAYLOAD_DATA && f.type == WIRE_BYTES)
                        to->data = f.bytes;
                else if (f.number == PAYLOAD_SEQ && f.type == WIRE_VARINT)
                        to->seq = f.u;
        }
        return w.bad ? -EBADMSG : 0;
}

/* The two fields of a stream's message; head.p == NULL: it has none. */
static int read_stream(struct str msg, struct str *head, struct mesh_payload *payload)
{
        struct wire w = wire_of(msg);
        struct wire_field f;
        int r = 0;

        *head = STR_NULL;
        *payload = (struct mesh_payload){.data = STR("")};
        while (!r && wire_next(&w, &f)) {
                if (f.number == STREAM_HEAD && f.type == WIRE_BYTES)
                        *head = f.bytes;
                else if (f.number == STREAM_PAYLOAD && f.type == WIRE_BYTES)
                        r = read_payload(f.bytes, payload);
        }
        return r ? r : w.bad ? -EBADMSG : 0;
}

int mesh_read_request(struct arena *a, struct str msg, struct mesh_request *q, bool *has_head, struct mesh_payload *payload)
{
        struct str head, data;
        int r = read_stream(msg, &head, payload);

        *has_head = !r && head.p;
        return *has_head ? mesh_read_whole_request(a, head, q, &data) : r;
}

int mesh_read_response(struct arena *a, struct str msg, struct mesh_response *r, bool *has_head, struct mesh_payload *payload)
{
        struct str head, data;
        int e = read_stream(msg, &head, payload);

        /* a reference sidecar that relays events sends an empty head with each piece */
        *has_head = !e && head.n;
        return *has_head ? mesh_read_whole_response(a, head, r, &data) : e;
}
