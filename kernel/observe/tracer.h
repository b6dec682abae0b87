/* Inside tracing: what trace.c asks of the tracer. */
#ifndef KERNEL_TRACER_H
#define KERNEL_TRACER_H

#include "kernel/observe/trace.h"

void tracer_random(struct tracer *tr, uint8_t *to, size_t n);       /* not all zero; n a multiple of 8 */
bool tracer_samples(const struct tracer *tr, const uint8_t *trace_id);
bool tracer_records(const struct tracer *tr);                       /* somebody takes the spans */
void tracer_export(struct tracer *tr, struct span *s);              /* the exporters take references of their own */

#endif
