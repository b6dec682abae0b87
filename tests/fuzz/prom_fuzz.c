/* Metrics that claim to be a sidecar's. */
#include "ctl/prom.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct prom p = {0};
        struct arena a;

        arena_init(&a, 16 << 20);
        if (prom_read(&a, str_n(data, size), &p) == 0)
                for (size_t i = 0; i < p.n; i++) {
                        const struct prom_series *s = &p.v[i];
                        if (s->n_labels > PROM_LABELS_MAX || s->n_buckets > PROM_BUCKETS_MAX)
                                abort();
                        prom_label(s, "le");
                        if (s->is_histogram)
                                prom_quantile(s->le, s->below, s->n_buckets, s->count, 0.99);
                }
        arena_fini(&a);
        return 0;
}
