/*
 * A ring of windows. A window keeps its requests unsorted and knows its fastest one, which the next slower request replaces. Windows
 * in which nothing happened are skipped, so the ring reaches back at least SLOW_WINDOWS * SLOW_WINDOW_S seconds.
 */
#include "kernel/observe/slow.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/json.h"
#include "sdk/base/loop.h"
#include "sdk/base/rfc3339.h"

enum { NS = 1000000000 };

struct entry {
        int64_t at_ns; /* when it ended */
        double ms, component_ms, app_ms;
        const char *protocol;
        int status;
        bool has_id;
        uint8_t trace_id[TRACE_ID_BYTES];
        char name[SLOW_NAME_CHARS];
};
struct window {
        struct entry v[SLOW_KEPT];
        size_t n, fastest;
};
struct slow {
        struct window ring[SLOW_WINDOWS];
        size_t now;
        double until; /* of the present window */
};

int slow_new(struct slow **ret)
{
        return (*ret = calloc(1, sizeof **ret)) ? 0 : -ENOMEM;
}

void slow_free(struct slow *s)
{
        free(s);
}

static struct window *present(struct slow *s)
{
        double now = loop_now();

        if (now >= s->until) {
                s->now = (s->now + 1) % SLOW_WINDOWS;
                s->ring[s->now].n = 0;
                s->until = now + SLOW_WINDOW_S;
        }
        return &s->ring[s->now];
}

static void find_fastest(struct window *w)
{
        w->fastest = 0;
        for (size_t i = 1; i < w->n; i++)
                if (w->v[i].ms < w->v[w->fastest].ms)
                        w->fastest = i;
}

void slow_note(struct slow *s, const struct slow_request *r)
{
        struct window *w;
        struct entry *e;

        if (!s)
                return;
        w = present(s);
        if (w->n == SLOW_KEPT && r->elapsed_ms <= w->v[w->fastest].ms)
                return;
        e = &w->v[w->n < SLOW_KEPT ? w->n++ : w->fastest];
        *e = (struct entry){.at_ns = wall_ns(), .ms = r->elapsed_ms, .protocol = r->protocol, .status = r->status};
        if (r->trace) {
                e->component_ms = r->trace->component_ms;
                e->app_ms = r->trace->app_ms;
                e->has_id = r->trace->has_ctx && span_context_is_valid(&r->trace->ctx);
                memcpy(e->trace_id, r->trace->ctx.trace_id, TRACE_ID_BYTES);
        }
        snprintf(e->name, sizeof e->name, "%.*s%s%.*s", STR_FMT(r->verb), r->verb.n ? " " : "", STR_FMT(r->name));
        find_fastest(w);
}

/* ---- text ---- */

static void number(struct json_writer *w, const char *key, double v)
{
        json_key(w, str_of(key));
        json_double(w, (double)(int64_t)(v * 1000) / 1000);
}

static void write_entry(struct json_writer *w, const struct entry *e)
{
        char time[RFC3339_BYTES], id[2 * TRACE_ID_BYTES + 1] = "";

        time[rfc3339_format(time, e->at_ns / NS, (int32_t)(e->at_ns % NS) / 1000000 * 1000000)] = '\0';
        if (e->has_id)
                span_id_text(e->trace_id, TRACE_ID_BYTES, id);
        json_object_begin(w);
        json_kv(w, "time", str_of(time));
        number(w, "durationMs", e->ms);
        number(w, "componentMs", e->component_ms);
        number(w, "appMs", e->app_ms);
        json_kv(w, "protocol", str_of(e->protocol));
        json_kv(w, "operation", str_of(e->name));
        json_key(w, STR("status"));
        json_int(w, e->status);
        json_kv(w, "traceId", str_of(id));
        json_object_end(w);
}

static int slower_first(const void *a, const void *b)
{
        const struct entry *x = *(const struct entry *const *)a, *y = *(const struct entry *const *)b;

        return (x->ms < y->ms) - (x->ms > y->ms);
}

void slow_write(const struct slow *s, struct buf *out)
{
        struct json_writer w;

        json_write_init(&w, out);
        json_array_begin(&w);
        for (size_t i = 0; s && i < SLOW_WINDOWS; i++) {
                const struct window *x = &s->ring[(s->now + SLOW_WINDOWS - i) % SLOW_WINDOWS];
                const struct entry *sorted[SLOW_KEPT];
                for (size_t k = 0; k < x->n; k++)
                        sorted[k] = &x->v[k];
                qsort(sorted, x->n, sizeof *sorted, slower_first);
                for (size_t k = 0; k < x->n; k++)
                        write_entry(&w, sorted[k]);
        }
        json_array_end(&w);
}
