/*
 * CloudEvents in JSON. Members are written in the order of their names, as the reference does; the reader indexes the members that
 * mean something here and leaves the rest to its caller. Of equal names the last counts.
 */
#include "kernel/blocks/pubsub/event.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "kernel/front/json_fault.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"
#include "sdk/base/rfc3339.h"
#include "sdk/base/utf8.h"
#include "sdk/base/wire.h"

#define DEFAULT_SOURCE "Dapr"
#define DEFAULT_TYPE "com.dapr.event.sent"
#define SPEC_VERSION "1.0"
#define NOT_A_MAP "json: cannot unmarshal %s into Go value of type map[string]interface {}"

static const int64_t NS = 1000000000;

int uuid_random(char out[UUID_CHARS + 1])
{
        static const char hex[] = "0123456789abcdef";
        unsigned char b[16];

        if (getrandom(b, sizeof b, 0) != sizeof b)
                return -EIO;
        b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
        b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
        for (int i = 0; i < 16; i++) {
                if (i == 4 || i == 6 || i == 8 || i == 10)
                        *out++ = '-';
                *out++ = hex[b[i] >> 4];
                *out++ = hex[b[i] & 15];
        }
        *out = '\0';
        return 0;
}

/* ---- content types ---- */

bool content_is(struct str content_type, const char *type)
{
        ptrdiff_t semicolon = str_chr(content_type, ';');

        return str_ieq(semicolon < 0 ? content_type : str_n(content_type.p, (size_t)semicolon), str_of(type));
}

bool content_is_json(struct str content_type)
{
        return content_is(content_type, "application/json");
}

bool content_is_event(struct str content_type)
{
        return content_is(content_type, "application/cloudevents+json");
}

bool content_is_binary(struct str content_type)
{
        return content_is(content_type, "application/octet-stream");
}

bool content_is_text(struct str content_type)
{
        return (content_type.n >= 5 && strncasecmp(content_type.p, "text/", 5) == 0) || content_is(content_type, "application/xml");
}

/* Could the bytes be an io.cloudevents.v1.CloudEvent? Well formed, with the fields 1 to 4 as text and a version that exists. */
static bool is_event_message(struct str data)
{
        struct wire w = wire_of(data);
        struct wire_field f;
        bool version = false;

        while (wire_next(&w, &f)) {
                if (f.number < 1 || f.number > 8)
                        continue;
                if (!f.bytes.p || (f.number <= 4 && !utf8_is_valid(f.bytes)))
                        return false;
                if (f.number == 3)
                        version = str_eq(f.bytes, STR("1.0")) || str_eq(f.bytes, STR("0.3"));
        }
        return !w.bad && version;
}

static bool goes_as_base64(struct str content_type, struct str data)
{
        return content_is_binary(content_type) || content_is(content_type, "application/cloudevents+protobuf") ||
               (content_is(content_type, "application/x-protobuf") && is_event_message(data));
}

/* ---- metadata ---- */

int event_is_raw(const struct rpc_mdlist *md, struct arena *a, bool *ret, const char **ret_err)
{
        static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"}, *const no[] = {"0", "f", "F", "FALSE", "false", "False"};
        struct str v = rpc_md_get(md, "rawPayload");

        *ret = false;
        if (!v.n)
                return 0;
        for (size_t i = 0; i < 6; i++) {
                if (str_eqz(v, no[i]))
                        return 0;
                if (str_eqz(v, yes[i])) {
                        *ret = true;
                        return 0;
                }
        }
        *ret_err = arena_printf(a, "rawPayload value must be a valid boolean: actual is '%.*s'", STR_FMT(v));
        if (!*ret_err)
                *ret_err = "out of memory";
        return -EINVAL;
}

static struct str md_iget(const struct rpc_mdlist *md, const char *key)
{
        for (size_t i = 0; i < md->n; i++)
                if (str_ieq(md->v[i].key, str_of(key)))
                        return md->v[i].value;
        return STR_NULL;
}

/* "1h2m3.5s" as Go reads it. */
static bool parse_duration(const char *s, double *ret_s)
{
        static const struct { const char *name; double s; } units[] = {{"ns", 1e-9}, {"us", 1e-6}, {"µs", 1e-6}, {"ms", 1e-3},
                                                                        {"s", 1}, {"m", 60}, {"h", 3600}};
        double total = 0, sign = 1;

        if (*s == '+' || *s == '-')
                sign = *s++ == '-' ? -1 : 1;
        if (strcmp(s, "0") == 0) {
                *ret_s = 0;
                return true;
        }
        do {
                char *end;
                size_t best = 0;
                double v, unit = 0;
                if ((*s < '0' || *s > '9') && *s != '.')
                        return false;
                v = strtod(s, &end);
                for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
                        size_t n = strlen(units[i].name);
                        if (n > best && strncmp(end, units[i].name, n) == 0) {
                                best = n;
                                unit = units[i].s;
                        }
                }
                if (end == s || !best)
                        return false;
                total += v * unit;
                s = end + best;
        } while (*s);
        *ret_s = sign * total;
        return true;
}

bool event_ttl(const struct rpc_mdlist *md, int64_t *ret_ns)
{
        struct str v = md_iget(md, "ttl");
        char text[64], *end;
        double s;
        long long n;

        if (!v.n)
                v = md_iget(md, "ttlInSeconds");
        if (!v.n || v.n >= sizeof text)
                return false;
        memcpy(text, v.p, v.n);
        text[v.n] = '\0';
        if (strlen(text) != v.n)
                return false;
        if (parse_duration(text, &s)) {
                *ret_ns = s <= 0 ? 0 : s >= 9e9 ? INT64_MAX : (int64_t)(s * 1e9);
                return true;
        }
        errno = 0;
        n = strtoll(text, &end, 10);
        if (end == text || *end || errno || n <= 0)
                return false;
        *ret_ns = n > INT64_MAX / NS ? INT64_MAX : n * NS;
        return true;
}

/* ---- writing ---- */

void event_override(struct event_new *n, const struct rpc_mdlist *md)
{
        const struct { const char *name; struct str *to; } rows[] = {
                {"cloudevent.id", &n->id}, {"cloudevent.source", &n->source}, {"cloudevent.type", &n->type},
                {"cloudevent.subject", &n->subject}, {"cloudevent.traceid", &n->traceid}, {"cloudevent.traceparent", &n->traceparent},
                {"cloudevent.tracestate", &n->tracestate}};

        for (size_t i = 0; i < md->n; i++)
                for (size_t j = 0; j < sizeof rows / sizeof *rows; j++)
                        if (str_ieq(md->v[i].key, str_of(rows[j].name)))
                                *rows[j].to = md->v[i].value;
}

static void write_base64(struct json_writer *w, struct str data)
{
        struct buf *b = w->out;

        json_raw(w, STR("\""));
        if (buf_reserve(b, BASE64_LEN(data.n) + 1) == 0)
                b->len += base64_put(b->p + b->len, data);
        buf_addc(b, '"');
}

/* The first JSON value of the data; false: it is none. */
static bool first_value(struct str data, struct str *ret)
{
        struct json_reader r;

        json_read_init(&r, data);
        return json_read_raw(&r, ret);
}

static void write_now(struct json_writer *w)
{
        char t[RFC3339_BYTES];
        size_t n = rfc3339_format(t, wall_ns() / NS, 0);

        json_kv(w, "time", str_n(t, n));
}

static void write_expiration(struct json_writer *w, const struct event_new *n)
{
        int64_t now = wall_ns(), at = n->ttl_ns > INT64_MAX - now ? INT64_MAX : now + n->ttl_ns;
        char t[RFC3339_BYTES];

        if (n->has_ttl)
                json_kv(w, "expiration", str_n(t, rfc3339_format(t, at / NS, 0)));
}

static struct str or_default(struct str s, struct str fallback)
{
        return s.n ? s : fallback;
}

static struct str trace_of(const struct event_new *n)
{
        return or_default(n->traceparent, n->traceid.p ? n->traceid : STR(""));
}

int event_wrap(struct buf *out, const struct event_new *n)
{
        struct str type = or_default(n->content_type, STR("text/plain")), value;
        char id[UUID_CHARS + 1] = "";
        struct json_writer w;

        if (!n->id.n && uuid_random(id))
                return -EIO;
        json_write_init(&w, out);
        json_object_begin(&w);
        if (content_is_json(type) && first_value(n->data, &value)) {
                json_key(&w, STR("data"));
                json_raw(&w, value);
        } else if (!content_is_json(type) && goes_as_base64(type, n->data)) {
                json_key(&w, STR("data_base64"));
                write_base64(&w, n->data);
        } else {
                json_kv(&w, "data", n->data.p ? n->data : STR(""));
        }
        json_kv(&w, "datacontenttype", type);
        write_expiration(&w, n);
        json_kv(&w, "id", or_default(n->id, str_of(id)));
        json_kv(&w, "pubsubname", n->pubsub);
        json_kv(&w, "source", or_default(n->source, STR(DEFAULT_SOURCE)));
        json_kv(&w, "specversion", STR(SPEC_VERSION));
        json_kv_nonempty(&w, "subject", n->subject);
        write_now(&w);
        json_kv(&w, "topic", n->topic);
        json_kv(&w, "traceid", trace_of(n));
        json_kv(&w, "traceparent", trace_of(n));
        json_kv(&w, "tracestate", n->tracestate.p ? n->tracestate : STR(""));
        json_kv(&w, "type", or_default(n->type, STR(DEFAULT_TYPE)));
        json_object_end(&w);
        return out->failed ? -ENOMEM : 0;
}

static const char *type_name(enum json_type t)
{
        return t == JSON_ARRAY ? "array" : t == JSON_STRING ? "string" : t == JSON_NUMBER ? "number" : t == JSON_NULL ? "null" : "bool";
}

/* Why the text is not one JSON object, in Go's words. */
static const char *object_fault(struct arena *a, struct str text, bool whole)
{
        const char *fault = json_fault(a, text, whole);
        struct json_reader r;

        if (!fault) {
                json_read_init(&r, text);
                fault = arena_printf(a, NOT_A_MAP, type_name(json_peek(&r)));
        }
        return fault ? fault : "out of memory";
}

static bool is_null(struct str raw)
{
        return !raw.p || str_eq(raw, STR("null"));
}

/* Members of the passed event that are written anew. */
static bool is_replaced(const struct event *e, struct str name, const struct event_new *n)
{
        return str_eqz(name, "topic") || str_eqz(name, "pubsubname") || (n->has_ttl && str_eqz(name, "expiration")) ||
               (is_null(e->raw[EVENT_SOURCE]) && str_eqz(name, "source")) || (is_null(e->raw[EVENT_TYPE]) && str_eqz(name, "type")) ||
               (is_null(e->raw[EVENT_SPECVERSION]) && str_eqz(name, "specversion")) ||
               (!e->raw[EVENT_TRACEID].p && str_eqz(name, "traceparent"));
}

static int pass_through(struct buf *out, struct arena *a, const struct event_new *n, const char **ret_err)
{
        struct json_reader r;
        struct json_writer w;
        struct str text, name, raw;
        struct event e;

        if (!first_value(n->data, &text) || event_read(a, text, &e, ret_err)) {
                *ret_err = object_fault(a, n->data, false);
                return -EINVAL;
        }
        json_read_init(&r, text);
        json_write_init(&w, out);
        json_object_begin(&w);
        if (json_enter_object(&r))
                while (json_next_member(&r, a, &name) && json_read_raw(&r, &raw)) {
                        if (is_replaced(&e, name, n))
                                continue;
                        json_key(&w, name);
                        json_raw(&w, raw);
                }
        write_expiration(&w, n);
        json_kv(&w, "pubsubname", n->pubsub);
        if (is_null(e.raw[EVENT_SOURCE]))
                json_kv(&w, "source", STR(DEFAULT_SOURCE));
        if (is_null(e.raw[EVENT_SPECVERSION]))
                json_kv(&w, "specversion", STR(SPEC_VERSION));
        if (!e.raw[EVENT_TIME].p)
                write_now(&w);
        json_kv(&w, "topic", n->topic);
        if (!e.raw[EVENT_TRACEID].p) {
                json_kv(&w, "traceid", trace_of(n));
                json_kv(&w, "traceparent", trace_of(n));
        }
        if (!e.raw[EVENT_TRACESTATE].p)
                json_kv(&w, "tracestate", n->tracestate.p ? n->tracestate : STR(""));
        if (is_null(e.raw[EVENT_TYPE]))
                json_kv(&w, "type", STR(DEFAULT_TYPE));
        json_object_end(&w);
        return out->failed || a->exhausted ? -ENOMEM : 0;
}

int event_write(struct buf *out, struct arena *a, const struct event_new *n, const char **ret_err)
{
        return content_is_event(n->content_type) ? pass_through(out, a, n, ret_err) : event_wrap(out, n);
}

int event_write_raw(struct buf *out, struct arena *a, struct str data, struct str topic, struct str pubsub, const struct rpc_mdlist *md)
{
        struct str traceid = rpc_md_get(md, "traceid"), parent = rpc_md_get(md, "traceparent"), state = rpc_md_get(md, "tracestate");
        char id[UUID_CHARS + 1];
        struct json_writer w;

        if (uuid_random(id))
                return -EIO;
        json_write_init(&w, out);
        json_object_begin(&w);
        json_key(&w, STR("data_base64"));
        write_base64(&w, data);
        json_kv(&w, "datacontenttype", STR("application/octet-stream"));
        json_kv(&w, "id", str_of(id));
        json_kv(&w, "pubsubname", pubsub);
        json_kv(&w, "source", STR(DEFAULT_SOURCE));
        json_kv(&w, "specversion", STR(SPEC_VERSION));
        json_kv(&w, "topic", topic);
        if (parent.p || traceid.p)
                json_kv(&w, "traceid", parent.p ? parent : traceid);
        if (parent.p)
                json_kv(&w, "traceparent", parent);
        if (state.p)
                json_kv(&w, "tracestate", state);
        json_kv(&w, "type", STR(DEFAULT_TYPE));
        json_object_end(&w);
        return out->failed ? -ENOMEM : 0;
}

/* ---- reading ---- */

static const char *const field_names[EVENT_FIELDS] = {
        [EVENT_ID] = "id", [EVENT_SOURCE] = "source", [EVENT_TYPE] = "type", [EVENT_SPECVERSION] = "specversion",
        [EVENT_DATACONTENTTYPE] = "datacontenttype", [EVENT_DATA] = "data", [EVENT_DATA_BASE64] = "data_base64", [EVENT_TOPIC] = "topic",
        [EVENT_PUBSUBNAME] = "pubsubname", [EVENT_TRACEID] = "traceid", [EVENT_TRACEPARENT] = "traceparent",
        [EVENT_TRACESTATE] = "tracestate", [EVENT_EXPIRATION] = "expiration", [EVENT_TIME] = "time", [EVENT_SUBJECT] = "subject"};

/* Bytes that are no UTF-8 replaced, as the reference's reader does. p == NULL without memory. */
static struct str with_valid_text(struct arena *a, struct str s)
{
        char *out = arena_alloc(a, 3 * s.n), *at = out;

        for (size_t i = 0; out && i < s.n;) {
                int n = utf8_char_len(s.p + i, s.n - i);
                if (n)
                        memcpy(at, s.p + i, (size_t)n);
                at += n ? n : utf8_put(at, 0xfffd);
                i += n ? (size_t)n : 1;
        }
        return str_n(out, out ? (size_t)(at - out) : 0);
}

int event_read(struct arena *a, struct str json, struct event *ret, const char **ret_err)
{
        struct json_reader r;
        struct str name, raw;

        *ret = (struct event){.json = json};
        json_read_init(&r, json);
        if (json_enter_object(&r))
                while (json_next_member(&r, a, &name) && json_read_raw(&r, &raw))
                        for (int i = 0; i < EVENT_FIELDS; i++)
                                if (str_eqz(name, field_names[i])) {
                                        ret->raw[i] = raw;
                                        break;
                                }
        if (!r.error && r.pos && json_at_end(&r))
                return 0;
        if (!utf8_is_valid(json) && !json_fault(a, json, true)) {
                struct str valid = with_valid_text(a, json);
                if (valid.p)
                        return event_read(a, valid, ret, ret_err);
        }
        *ret_err = object_fault(a, json, true);
        return -EINVAL;
}

static struct str decode(struct arena *a, struct str raw)
{
        struct json_reader r;
        struct str s;

        if (raw.n < 2 || raw.p[0] != '"')
                return STR("");
        json_read_init(&r, raw);
        return json_read_string(&r, a, &s) ? s : STR("");
}

struct str event_text(struct arena *a, const struct event *e, enum event_field f)
{
        return decode(a, e->raw[f]);
}

const char *event_show(struct arena *a, const struct event *e, enum event_field f)
{
        struct str raw = e->raw[f];
        const char *text = is_null(raw) ? "<nil>" : arena_strdup(a, raw.p[0] == '"' ? decode(a, raw) : raw);

        return text ? text : "";
}

bool event_has_expired(struct arena *a, const struct event *e)
{
        struct str t = event_text(a, e, EVENT_EXPIRATION);
        int64_t s;
        int32_t ns;

        return t.n && rfc3339_parse(t, &s, &ns) && (s < wall_ns() / NS || (s == wall_ns() / NS && ns < wall_ns() % NS));
}

struct str event_trace(struct arena *a, const struct event *e)
{
        struct str raw = is_null(e->raw[EVENT_TRACEPARENT]) ? e->raw[EVENT_TRACEID] : e->raw[EVENT_TRACEPARENT];

        return raw.p && raw.p[0] == '"' ? decode(a, raw) : STR_NULL;
}

struct str event_extensions(struct arena *a, const struct event *e)
{
        static const enum event_field own[] = {EVENT_ID, EVENT_SOURCE, EVENT_DATACONTENTTYPE, EVENT_TYPE, EVENT_SPECVERSION, EVENT_DATA,
                                               EVENT_DATA_BASE64};
        struct json_reader r;
        struct json_writer w;
        struct buf b = {0};
        struct str name, raw, out;

        json_read_init(&r, e->json);
        json_write_init(&w, &b);
        json_object_begin(&w);
        if (json_enter_object(&r))
                while (json_next_member(&r, a, &name) && json_read_raw(&r, &raw)) {
                        bool skip = false;
                        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
                                skip |= str_eqz(name, field_names[own[i]]);
                        if (skip)
                                continue;
                        json_key(&w, name);
                        json_raw(&w, raw);
                }
        json_object_end(&w);
        out = b.failed ? STR_NULL : arena_str(a, buf_str(&b));
        buf_fini(&b);
        return out;
}

static const struct event_add *find_add(const struct event_add *add, size_t n, struct str name)
{
        for (size_t i = 0; i < n; i++)
                if (str_eqz(name, add[i].name))
                        return &add[i];
        return NULL;
}

int event_extend(struct arena *a, struct event *e, const struct event_add *add, size_t n)
{
        uint64_t there = 0;
        const char *err;
        struct json_reader r;
        struct json_writer w;
        struct buf b = {0};
        struct str name, raw, out;

        n = n < EVENT_ADD_MAX ? n : EVENT_ADD_MAX;
        json_read_init(&r, e->json);
        json_write_init(&w, &b);
        json_object_begin(&w);
        if (json_enter_object(&r))
                while (json_next_member(&r, a, &name) && json_read_raw(&r, &raw)) {
                        const struct event_add *x = find_add(add, n, name);
                        if (x && x->force && x->value.p)
                                continue;
                        if (x)
                                there |= UINT64_C(1) << (x - add);
                        json_key(&w, name);
                        json_raw(&w, raw);
                }
        for (size_t i = 0; i < n; i++)
                if (add[i].value.p && !(there & UINT64_C(1) << i))
                        json_kv(&w, add[i].name, add[i].value);
        json_object_end(&w);
        out = b.failed ? STR_NULL : arena_str(a, buf_str(&b));
        buf_fini(&b);
        return out.p && event_read(a, out, e, &err) == 0 ? 0 : -ENOMEM;
}

struct str event_path(struct arena *a, const struct event *e, struct str path)
{
        struct str at = e->json;

        for (struct str rest = path, step; rest.p && (step = str_cut(&rest, '.'), 1);) {
                struct json_reader r;
                struct str name, raw, found = STR_NULL;
                json_read_init(&r, at);
                if (!json_enter_object(&r))
                        return STR_NULL;
                while (json_next_member(&r, a, &name) && json_read_raw(&r, &raw))
                        if (str_eq(name, step))
                                found = raw;
                if (!found.p)
                        return STR_NULL;
                at = found;
        }
        return at;
}
