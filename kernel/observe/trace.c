/*
 * Traces of fibers: context in, context out, sampling, recording. The sampler is parent-based: a caller's decision is kept, a new
 * trace is sampled by the low half of its id against the rate, so that every process decides alike.
 */
#include "kernel/observe/trace.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/observe/span.h"
#include "kernel/observe/tracer.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/base/utf8.h"

#define GRPC_TRACE_KEY "grpc-trace-bin"

const char *trace_header_name(enum trace_header h)
{
        static const char *const names[TRACE_HEADERS] = {"traceparent", "tracestate", "baggage"};

        return names[h];
}

void trace_install(struct trace *t)
{
        fiber_set_local(t);
}

struct trace *trace_current(void)
{
        return fiber_self() ? fiber_local() : NULL;
}

bool trace_binary(const struct trace *t, uint8_t to[TRACE_BINARY_BYTES])
{
        if (t && t->has_ctx)
                span_context_to_binary(&t->ctx, to);
        else if (t && t->raw_binary.n == TRACE_BINARY_BYTES)
                memcpy(to, t->raw_binary.p, TRACE_BINARY_BYTES);
        else
                return false;
        return true;
}

/* A copy in valid UTF-8: collectors refuse a whole batch for one wrong byte. */
static struct str keep(struct span *s, struct str v)
{
        char *to;

        if (v.n > SPAN_VALUE_MAX)
                v.n = SPAN_VALUE_MAX;
        to = arena_strdup(&s->arena, v);
        for (size_t ok = 0; to && (ok += utf8_valid_len(str_n(to + ok, v.n - ok))) < v.n; ok++)
                to[ok] = '?';
        return str_n(to, to ? v.n : 0);
}

/* ---- begin ---- */

static struct span *span_new(struct trace *t, const struct span_context *parent, bool remote, enum span_kind kind, struct str name)
{
        struct span *s = calloc(1, sizeof *s + SPAN_ATTRS_MAX * sizeof *s->attrs);

        if (!s)
                return NULL;
        s->refs = 1;
        s->attrs = (struct span_attr *)(s + 1);
        arena_init(&s->arena, SPAN_BYTES_MAX);
        s->ctx = t->ctx;
        s->kind = kind;
        s->name = keep(s, name);
        s->state = arena_str(&s->arena, t->value[TRACE_STATE]);
        s->has_parent = span_context_is_valid(parent);
        s->remote_parent = remote;
        memcpy(s->parent_id, parent->span_id, SPAN_ID_BYTES);
        s->start_ns = wall_ns();
        s->began = loop_now_exact();
        return s;
}

/* Sets context and text; the tracestate is in t already. */
static void begin(struct trace *t, struct tracer *tr, const struct span_context *parent, bool remote, enum span_kind kind, struct str name)
{
        t->tracer = tr;
        t->has_ctx = true;
        t->ctx = *parent;
        if (tracer_is_active(tr)) {
                bool sampled;
                if (!span_context_is_valid(parent)) {
                        bool has_id = false;
                        for (int i = 0; i < TRACE_ID_BYTES; i++)
                                has_id |= parent->trace_id[i] != 0;
                        if (!has_id)
                                tracer_random(tr, t->ctx.trace_id, TRACE_ID_BYTES);
                        sampled = tracer_samples(tr, t->ctx.trace_id);
                } else {
                        sampled = parent->flags & TRACE_FLAG_SAMPLED;
                }
                tracer_random(tr, t->ctx.span_id, SPAN_ID_BYTES);
                t->ctx.flags = (uint8_t)((parent->flags & ~TRACE_FLAG_SAMPLED) | (sampled ? TRACE_FLAG_SAMPLED : 0));
                if (sampled && tracer_records(tr))
                        t->span = span_new(t, parent, remote, kind, name);
        }
        span_context_to_w3c(&t->ctx, t->text);
        t->value[TRACE_PARENT] = str_n(t->text, TRACEPARENT_CHARS);
}

/* The baggage of a request: all its headers of that name as one. NULL, or the fault. */
static const char *take_baggage(struct trace *t, struct arena *a, struct str v)
{
        struct str part;
        const char *why;

        if (!v.p)
                return NULL;
        if ((why = baggage_fault(v, &part))) {
                const char *text = arena_printf(a, "invalid baggage header: %s: \"%.*s\"", why, STR_FMT(part));
                return text ? text : "invalid baggage header";
        }
        t->value[TRACE_BAGGAGE] = v;
        return NULL;
}

static struct str join(struct arena *a, struct str x, struct str y)
{
        const char *both;

        if (!x.p)
                return y;
        both = arena_printf(a, "%.*s,%.*s", STR_FMT(x), STR_FMT(y));
        return both ? str_of(both) : x;
}

static void read_context(struct trace *t, struct str parent, struct str state, struct span_context *ret)
{
        if (span_context_from_w3c(parent, ret) && state.n && tracestate_is_valid(state))
                t->value[TRACE_STATE] = state;
}

const char *trace_begin_http(struct trace *t, struct tracer *tr, struct arena *a, const struct http_headers *h, struct str name)
{
        struct str in[TRACE_HEADERS] = {{0}};
        struct span_context parent;
        const char *why;

        *t = (struct trace){.tracer = tr};
        for (size_t i = 0; i < h->n; i++) {
                struct str n = h->v[i].name;
                if ((n.n == 11 || n.n == 10) && str_ieq(n, n.n == 11 ? STR("traceparent") : STR("tracestate"))) {
                        int which = n.n == 11 ? TRACE_PARENT : TRACE_STATE;
                        in[which] = in[which].p ? in[which] : h->v[i].value;
                } else if (n.n == 7 && str_ieq(n, STR("baggage"))) {
                        in[TRACE_BAGGAGE] = join(a, in[TRACE_BAGGAGE], h->v[i].value);
                }
        }
        if (tracer_is_off(tr)) {
                memcpy(t->value, in, sizeof in);
                return NULL;
        }
        if ((why = take_baggage(t, a, in[TRACE_BAGGAGE])))
                return why;
        read_context(t, in[TRACE_PARENT], in[TRACE_STATE], &parent);
        begin(t, tr, &parent, true, SPAN_CLIENT, name);
        return NULL;
}

const char *trace_begin_grpc(struct trace *t, struct tracer *tr, struct arena *a, const struct rpc_mdlist *md, enum span_kind kind,
                             struct str name)
{
        struct str in[TRACE_HEADERS] = {{0}}, binary = rpc_md_get(md, GRPC_TRACE_KEY);
        struct span_context parent = {.flags = 0};
        const char *why;

        *t = (struct trace){.tracer = tr};
        in[TRACE_PARENT] = rpc_md_get(md, "traceparent");
        in[TRACE_STATE] = rpc_md_get(md, "tracestate");
        for (size_t i = 0; i < md->n; i++)
                if (str_eqz(md->v[i].key, "baggage"))
                        in[TRACE_BAGGAGE] = join(a, in[TRACE_BAGGAGE], md->v[i].value);
        if (tracer_is_off(tr)) {
                memcpy(t->value, in, sizeof in);
                t->raw_binary = binary;
                return NULL;
        }
        if ((why = take_baggage(t, a, in[TRACE_BAGGAGE])))
                return why;
        if (!binary.p)
                read_context(t, in[TRACE_PARENT], in[TRACE_STATE], &parent);
        else if (span_context_from_binary(binary, &parent) && in[TRACE_STATE].n && tracestate_is_valid(in[TRACE_STATE]))
                t->value[TRACE_STATE] = in[TRACE_STATE];
        begin(t, tr, &parent, true, kind, name);
        return NULL;
}

void trace_begin_event(struct trace *t, struct tracer *tr, struct str parent, struct str state, struct str name)
{
        struct span_context c;

        *t = (struct trace){.tracer = tr};
        if (tracer_is_off(tr))
                return;
        read_context(t, parent, state, &c);
        begin(t, tr, &c, true, SPAN_CLIENT, name);
}

void trace_begin_metadata(struct trace *t, struct tracer *tr, const struct rpc_mdlist *md, struct str name)
{
        struct str binary = rpc_md_get(md, GRPC_TRACE_KEY);
        struct span_context c = {.flags = 0};

        *t = (struct trace){.tracer = tr};
        t->value[TRACE_BAGGAGE] = rpc_md_get(md, "baggage");
        if (tracer_is_off(tr)) {
                t->value[TRACE_PARENT] = rpc_md_get(md, "traceparent");
                t->value[TRACE_STATE] = rpc_md_get(md, "tracestate");
                return;
        }
        if (binary.p)
                span_context_from_binary(binary, &c);
        else
                read_context(t, rpc_md_get(md, "traceparent"), rpc_md_get(md, "tracestate"), &c);
        begin(t, tr, &c, true, SPAN_CLIENT, name);
}

void trace_begin_child(struct trace *t, struct tracer *tr, const struct trace *of, enum span_kind kind, struct str name)
{
        const struct span_context none = {.flags = 0};

        *t = (struct trace){.tracer = tr};
        if (of) {
                t->value[TRACE_BAGGAGE] = of->value[TRACE_BAGGAGE];
                t->value[TRACE_STATE] = of->value[TRACE_STATE];
                if (!of->has_ctx)
                        t->value[TRACE_PARENT] = of->value[TRACE_PARENT];
        }
        if (!tracer_is_off(tr))
                begin(t, tr, of && of->has_ctx ? &of->ctx : &none, false, kind, name);
}

/* ---- end ---- */

size_t span_bytes(const struct span *s)
{
        size_t n = sizeof *s + s->n_attrs * sizeof *s->attrs + s->state.n + s->name.n + s->status_text.n + 3;

        for (size_t i = 0; i < s->n_attrs; i++)
                n += s->attrs[i].key.n + s->attrs[i].value.n + 2;
        return n;
}

/* To *at, with a NUL behind it. */
static struct str put(char **at, struct str v)
{
        char *to = *at;

        if (v.n)
                memcpy(to, v.p, v.n);
        to[v.n] = '\0';
        *at += v.n + 1;
        return str_n(to, v.n);
}

struct span *span_packed(const struct span *s)
{
        struct span *to = malloc(span_bytes(s));
        char *at;

        if (!to)
                return NULL;
        *to = *s;
        to->refs = 1;
        to->arena = (struct arena){0};
        to->attrs = (struct span_attr *)(to + 1);
        at = (char *)(to->attrs + s->n_attrs);
        to->state = put(&at, s->state);
        to->name = put(&at, s->name);
        to->status_text = put(&at, s->status_text);
        for (size_t i = 0; i < s->n_attrs; i++)
                to->attrs[i] = (struct span_attr){put(&at, s->attrs[i].key), put(&at, s->attrs[i].value)};
        return to;
}

void trace_end(struct trace *t)
{
        struct span *s = t->span, *packed;

        if (!s)
                return;
        t->span = NULL;
        s->end_ns = s->start_ns + (int64_t)((loop_now_exact() - s->began) * 1e9);
        packed = span_packed(s);
        tracer_export(t->tracer, packed ? packed : s);
        span_unref(packed);
        span_unref(s);
}

void trace_discard(struct trace *t)
{
        span_unref(t->span);
        t->span = NULL;
}

void span_unref(struct span *s)
{
        if (!s || --s->refs > 0)
                return;
        arena_fini(&s->arena);
        free(s);
}

/* ---- the span ---- */

void trace_rename(struct trace *t, struct str name)
{
        struct str kept;

        if (t && t->span && (kept = keep(t->span, name)).p)
                t->span->name = kept;
}

static void attr(struct span *s, struct str key, struct str value)
{
        struct span_attr *to = NULL;
        struct span_attr a;

        if (!value.n)
                return;
        for (size_t i = 0; i < s->n_attrs && !to; i++)
                if (str_eq(s->attrs[i].key, key))
                        to = &s->attrs[i];
        if (!to && s->n_attrs < SPAN_ATTRS_MAX)
                to = &s->attrs[s->n_attrs];
        a.key = to ? keep(s, key) : STR_NULL;
        a.value = to ? keep(s, value) : STR_NULL;
        if (!a.key.p || !a.value.p) {
                s->n_dropped++;
                return;
        }
        s->n_attrs += to == &s->attrs[s->n_attrs];
        *to = a;
}

void trace_attr(struct trace *t, const char *key, struct str value)
{
        if (t && t->span)
                attr(t->span, str_of(key), value);
}

void trace_attr_user(struct trace *t, struct str key, struct str value)
{
        char lower[256];

        if (!t || !t->span || key.n > sizeof lower)
                return;
        for (size_t i = 0; i < key.n; i++)
                lower[i] = (char)tolower((unsigned char)key.p[i]);
        attr(t->span, str_n(lower, key.n), value);
}

static void set_status(struct span *s, struct str text)
{
        s->status = SPAN_ERROR;
        s->status_text = keep(s, text);
}

void trace_status_http(struct trace *t, int status)
{
        const char *name = http_status_text(status);
        char text[80];

        if (!t || !t->span || status < 400)
                return;
        snprintf(text, sizeof text, "Code(%d): %s", status, *name ? name : "Unknown");
        set_status(t->span, str_of(text));
}

void trace_status_grpc(struct trace *t, int code, struct str message)
{
        if (t && t->span && code != RPC_OK)
                set_status(t->span, message);
}
