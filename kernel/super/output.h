/*
 * What a plugin process prints: lines of its stdout and stderr become log lines of scope plugin.<name>, and the last ones are
 * kept for whoever asks why it died. Level: <3> <4> <6> <7> in front of a line (error, warning, info, debug; the SDK's
 * dapr_log writes them), else info for stdout and warning for stderr.
 */
#ifndef KERNEL_SUPER_OUTPUT_H
#define KERNEL_SUPER_OUTPUT_H

#include "sdk/base/log.h"
#include "sdk/base/loop.h"

enum {
        OUTPUT_LINE_BYTES = 4096,     /* longer lines are cut into several */
        OUTPUT_LINES_PER_S = 1000,    /* a plugin that prints more loses lines, and a line says how many */
        LOG_RING_LINES = 100,
        LOG_RING_LINE_BYTES = 400,    /* kept of each */
};

struct log_ring_line {
        int64_t at_ns;         /* wall clock */
        enum log_level level;
        char *text;
};
struct log_ring { /* zero value = empty */
        struct log_ring_line lines[LOG_RING_LINES];
        size_t next, count;
};
void log_ring_add(struct log_ring *r, enum log_level level, struct str text);
/* i-th from the oldest; NULL past the end. */
const struct log_ring_line *log_ring_at(const struct log_ring *r, size_t i);
void log_ring_fini(struct log_ring *r);

struct output {
        int fd;                /* -1 = closed */
        struct io_watch watch;
        enum log_level level;  /* of lines without a mark */
        char *scope, *component; /* component may be NULL */
        struct log_ring *ring; /* borrowed */
        char *line;
        size_t n;
        double second;         /* loop time at which the present allowance began */
        unsigned lines, dropped;
};
/* Takes fd (non-blocking read end). 0 or -ENOMEM (fd closed). */
int output_start(struct output *o, int fd, enum log_level level, const char *plugin, const char *component, struct log_ring *ring);
/* Reads what is there and closes. Zero value and a second call are fine. */
void output_stop(struct output *o);

#endif
