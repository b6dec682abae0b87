/*
 * Recorded spans and where they go; private to kernel/observe. A span is owned by its trace until it ends, then by the exporters'
 * queues together.
 */
#ifndef KERNEL_SPAN_H
#define KERNEL_SPAN_H

#include "kernel/observe/trace.h"
#include "sdk/base/buf.h"

enum { SPAN_ATTRS_MAX = 48, SPAN_BYTES_MAX = 32 * 1024, SPAN_VALUE_MAX = 4096, EXPORTERS_MAX = 3 };
enum span_status { SPAN_UNSET, SPAN_OK, SPAN_ERROR }; /* numbers as in OTLP */

#define SPAN_SCOPE_NAME "dapr-diagnostics"
#define SPAN_SCHEMA_URL "https://opentelemetry.io/schemas/1.25.0"

struct span_attr {
        struct str key, value;
};
struct span {
        int refs;
        struct arena arena;           /* its strings */
        struct span_context ctx;
        uint8_t parent_id[SPAN_ID_BYTES];
        bool has_parent, remote_parent;
        struct str state, name, status_text;
        enum span_kind kind;
        enum span_status status;
        int64_t start_ns, end_ns;     /* wall clock */
        double began;                 /* loop time */
        struct span_attr *attrs;      /* while it records, room for SPAN_ATTRS_MAX; behind the struct */
        size_t n_attrs, n_dropped;
};
void span_unref(struct span *s);
/* A copy of an ended span in one block of its own size, a third of what recording takes: queues hold thousands. NULL without memory. */
struct span *span_packed(const struct span *s);
size_t span_bytes(const struct span *s); /* of such a copy */

/* What describes the process to a collector: service.name first. */
struct span_resource {
        const struct span_attr *attrs;
        size_t n_attrs;
};

/* One way out. send parks; 0, -EAGAIN (worth another try) or another -errno, with a sentence in err. */
struct span_sink {
        const char *name; /* label of the metrics */
        int (*send)(struct span_sink *s, struct span *const *v, size_t n, char *err, size_t err_n);
        void (*free)(struct span_sink *s);
        double timeout_s; /* of one try */
};
int span_sink_log_new(struct span_sink **ret);
int span_sink_zipkin_new(struct span_sink **ret, const char *url, const struct span_resource *r, char *err, size_t err_n);
int span_sink_otlp_new(struct span_sink **ret, const struct tracer_conf *conf, const struct span_resource *r, char *err, size_t err_n);

/* Bodies of the exports. */
void span_write_otlp(struct buf *out, const struct span_resource *r, struct span *const *v, size_t n); /* ExportTraceServiceRequest */
void span_write_zipkin(struct buf *out, const struct span_resource *r, struct span *const *v, size_t n);

/* A queue and a fiber before a sink: bounded, in batches, with tries again. Takes the sink. */
struct span_exporter;
struct exporter_conf {
        size_t queue_max, batch_max;
        double delay_s; /* a batch waits that long to fill */
        const char *app_id;
        struct metric *exported, *dropped; /* NULL = not counted */
};
int span_exporter_new(struct span_exporter **ret, struct span_sink *sink, const struct exporter_conf *conf);
void span_exporter_add(struct span_exporter *e, struct span *s); /* takes a reference; a full queue drops the span and counts it */
void span_exporter_stop(struct span_exporter *e, double deadline); /* parks */
void span_exporter_free(struct span_exporter *e);

#endif
