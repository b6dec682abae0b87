/* Metrics of calls between sidecars and of access control, with the reference's names. NULL is fine everywhere. */
#ifndef KERNEL_MESH_METRICS_H
#define KERNEL_MESH_METRICS_H

#include "kernel/observe/metrics.h"

struct mesh_metrics;

/* app_id is kept. 0 or -ENOMEM. */
int mesh_metrics_new(struct mesh_metrics **ret, struct metrics *m, const char *app_id);
void mesh_metrics_free(struct mesh_metrics *m);

/* The caller's side. */
void mesh_count_sent(struct mesh_metrics *m, struct str callee, bool is_stream);
void mesh_count_answered(struct mesh_metrics *m, struct str callee, int status, bool is_stream, double elapsed_ms);
/* The callee's side; caller.n == 0: unknown. */
void mesh_count_received(struct mesh_metrics *m, struct str caller);
void mesh_count_answer_sent(struct mesh_metrics *m, struct str caller, int status);
/* A decision of access control, by the caller's policy or by the global default. */
void mesh_count_acl(struct mesh_metrics *m, bool by_app, bool allowed, struct str app_id, struct str trust_domain, struct str ns);

#endif
