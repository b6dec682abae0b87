/* Spans as lines of the log: spec.tracing.stdout. */
#include <errno.h>
#include <stdlib.h>

#include "kernel/observe/span.h"
#include "sdk/base/log.h"
#include "sdk/base/rfc3339.h"

#define SCOPE "dapr.runtime.trace"

enum { NS = 1000000000 };

static int log_spans(struct span_sink *sink, struct span *const *v, size_t n, char *err, size_t err_n)
{
        for (size_t i = 0; i < n; i++) {
                const struct span *s = v[i];
                char trace[2 * TRACE_ID_BYTES + 1], parent[2 * SPAN_ID_BYTES + 1], span[2 * SPAN_ID_BYTES + 1];
                char from[RFC3339_BYTES], to[RFC3339_BYTES];
                rfc3339_format(from, s->start_ns / NS, (int32_t)(s->start_ns % NS));
                rfc3339_format(to, s->end_ns / NS, (int32_t)(s->end_ns % NS));
                span_id_text(s->ctx.trace_id, TRACE_ID_BYTES, trace);
                span_id_text(s->parent_id, SPAN_ID_BYTES, parent);
                span_id_text(s->ctx.span_id, SPAN_ID_BYTES, span);
                log_info(SCOPE, "[%.*s] Trace: %s Span: %s/%s Time: [%s ->  %s] Annotations: []", STR_FMT(s->name), trace, parent, span, from, to);
        }
        return 0;
}

static void free_sink(struct span_sink *s)
{
        free(s);
}

int span_sink_log_new(struct span_sink **ret)
{
        struct span_sink *s = calloc(1, sizeof *s);

        if (!s)
                return -ENOMEM;
        *s = (struct span_sink){"stdout", log_spans, free_sink, 1};
        *ret = s;
        return 0;
}
