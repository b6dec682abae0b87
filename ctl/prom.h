/* The Prometheus text format as a sidecar writes it: samples of one family stand together, a histogram's buckets in their order. */
#ifndef CTL_PROM_H
#define CTL_PROM_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

enum { PROM_LABELS_MAX = 12, PROM_BUCKETS_MAX = 64 };

struct prom_label {
        struct str key, value;
};
struct prom_series {
        struct str name;
        bool is_histogram;
        struct prom_label labels[PROM_LABELS_MAX]; /* without le */
        size_t n_labels;
        double value;          /* of a histogram: the sum */
        double count;          /* of a histogram */
        const double *le;      /* upper bounds and, beside them, how many observations are not above */
        double *below;
        size_t n_buckets;
};
struct prom {
        struct prom_series *v;
        size_t n;
};

/* 0, -EBADMSG (no such text) or -ENOMEM. Strings borrow from text or live in a. */
int prom_read(struct arena *a, struct str text, struct prom *ret);
struct str prom_label(const struct prom_series *s, const char *key); /* "" if absent */
/* By linear interpolation within the bucket, as Prometheus' histogram_quantile; NAN when there is nothing. */
double prom_quantile(const double *le, const double *below, size_t n, double count, double q);

#endif
