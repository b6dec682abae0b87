/*
 * Metric registry. A metric owns its series; a series is found by its label values in one map whose key is the metric's number and
 * the values, each behind its length, and is never freed before the registry, so callers keep the pointer. The key is all that is kept
 * of the labels: their text is made when it is written. Counts are doubles: exact up to 2^53.
 * Written in the text format 0.0.4: families sorted by name, families without series left out, labels in the order of the
 * definition.
 */
#include "kernel/observe/metrics.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/arena.h"
#include "sdk/base/list.h"
#include "sdk/base/log.h"

const double metric_latency_buckets[] = {1,   2,   3,   4,   5,   6,   8,   10,   13,   16,   20,    25,    30,    40,     50,      65,      80,
                                         100, 130, 160, 200, 250, 300, 400, 500,  650,  800,  1000,  2000,  5000,  10000,  20000,   50000,
                                         100000, INFINITY};
const double metric_size_buckets[] = {1024,    2048,    4096,     16384,    65536,      262144,     1048576,
                                      4194304, 16777216, 67108864, 268435456, 1073741824, 4294967296, INFINITY};

enum { SCRAPERS_MAX = 8, SERIES_MORE_BYTES = 2 * sizeof(struct map_entry) + 32 /* the map's slots, what malloc adds to two blocks */ };

struct metric_series {
        struct list link; /* of the metric, in order of creation */
        struct metric *metric;
        struct str key;   /* the map's */
        size_t bytes;     /* what it takes, its place in the map included */
        double value;     /* counter, gauge; histogram: sum */
        uint64_t count;
        uint64_t buckets[]; /* histogram: one each upper bound, not cumulated; what is above all is only in count */
};
struct metric {
        struct metric *next; /* sorted by name */
        struct metrics *owner;
        struct metric_def def;
        uint32_t id;
        size_t n_labels, n_buckets;
        const char *label_names[METRIC_LABELS_MAX];
        size_t label_lens[METRIC_LABELS_MAX];
        struct list series;
        size_t n_series, bytes; /* of its series */
        bool full_said;
};
struct metrics {
        struct metric *first;
        struct map series;
        size_t bytes; /* of all series */
        uint32_t n_metrics;
        const double *latency_buckets; /* NULL = metric_latency_buckets */
        struct str (*rewrite)(void *arg, const char *metric, struct str label, struct str value, struct arena *a);
        void *rewrite_arg;
        struct {
                void (*fn)(void *arg);
                void *arg;
        } scrapers[SCRAPERS_MAX];
        size_t n_scrapers;
};

int metrics_new(struct metrics **ret)
{
        struct metrics *m = calloc(1, sizeof *m);
        if (!m)
                return -ENOMEM;
        *ret = m;
        return 0;
}

/* Its key goes with the map's entry. */
static void series_free(struct metric_series *s)
{
        struct metric *m = s->metric;

        list_del(&s->link);
        m->n_series--;
        m->bytes -= s->bytes;
        m->owner->bytes -= s->bytes;
        free(s);
}

void metrics_free(struct metrics *m)
{
        if (!m)
                return;
        for (struct metric *x = m->first, *next; x; x = next) {
                next = x->next;
                list_for_each_safe (l, tmp, &x->series)
                        series_free(list_entry(l, struct metric_series, link));
                free(x);
        }
        map_fini(&m->series);
        free(m);
}

void metrics_set_latency_buckets(struct metrics *m, const double *buckets)
{
        m->latency_buckets = buckets;
}

struct metric *metric_add(struct metrics *m, const struct metric_def *def)
{
        struct metric *x = calloc(1, sizeof *x), **at;

        if (!x)
                return NULL;
        x->def = *def;
        x->owner = m;
        x->id = m->n_metrics++;
        list_init(&x->series);
        for (struct str rest = str_of(def->labels ? def->labels : ""), t; rest.n && (t = str_cut(&rest, ','), 1);) {
                must(x->n_labels < METRIC_LABELS_MAX);
                x->label_names[x->n_labels] = t.p;
                x->label_lens[x->n_labels++] = t.n;
        }
        if (def->type == METRIC_HISTOGRAM) {
                if (!x->def.buckets)
                        x->def.buckets = m->latency_buckets ? m->latency_buckets : metric_latency_buckets;
                while (isfinite(x->def.buckets[x->n_buckets]))
                        x->n_buckets++;
        }
        for (at = &m->first; *at && strcmp((*at)->def.name, def->name) < 0; at = &(*at)->next)
                ;
        x->next = *at;
        *at = x;
        return x;
}

static void escape_label(struct buf *b, struct str v)
{
        for (size_t i = 0; i < v.n; i++) {
                if (v.p[i] == '\\' || v.p[i] == '"')
                        buf_addc(b, '\\');
                if (v.p[i] == '\n')
                        buf_add(b, "\\n", 2);
                else if (!v.p[i]) /* texts end there */
                        buf_addc(b, '?');
                else
                        buf_addc(b, v.p[i]);
        }
}

/* Label values come from clients: what they make grow has an end. */
static bool has_room(const struct metric *m, size_t bytes)
{
        const struct metrics *all = m->owner;

        return all->series.count < METRIC_SERIES_MAX && m->n_series < METRIC_SERIES_MAX / METRIC_SHARE && all->bytes + bytes <= METRIC_BYTES_MAX &&
               m->bytes + bytes <= METRIC_BYTES_MAX / METRIC_SHARE;
}

static void series_add(struct metric *m, struct metric_series *s)
{
        s->metric = m;
        list_add_tail(&m->series, &s->link);
        m->n_series++;
        m->bytes += s->bytes;
        m->owner->bytes += s->bytes;
}

/* `a="x",b="y"` */
static void write_labels(struct buf *b, const struct metric_series *s)
{
        const struct metric *m = s->metric;
        const char *at = s->key.p + sizeof m->id;
        uint32_t n;

        for (size_t i = 0; i < m->n_labels; i++, at += n) {
                memcpy(&n, at, sizeof n);
                at += sizeof n;
                buf_printf(b, "%s%.*s=\"", i ? "," : "", (int)m->label_lens[i], m->label_names[i]);
                escape_label(b, str_n(at, n));
                buf_addc(b, '"');
        }
        buf_addc(b, '\0');
}

static void say_full(struct metric *m)
{
        if (!m->full_said)
                log_warn("dapr.runtime.diagnostics",
                         "the metric %s has %zu series (%zu bytes), all metrics %zu (%zu bytes); most are %d (%d) of one, %d (%d) of all: "
                         "new label values of it are no longer counted", m->def.name, m->n_series, m->bytes, m->owner->series.count,
                         m->owner->bytes, METRIC_SERIES_MAX / METRIC_SHARE, METRIC_BYTES_MAX / METRIC_SHARE, METRIC_SERIES_MAX, METRIC_BYTES_MAX);
        m->full_said = true;
}

/* NULL without memory, and when there is no room. */
static struct metric_series *series_new(struct metric *m, struct str key)
{
        size_t bytes = sizeof(struct metric_series) + m->n_buckets * sizeof(uint64_t);
        struct metric_series *s;

        if (!has_room(m, bytes + key.n + SERIES_MORE_BYTES)) {
                say_full(m);
                return NULL;
        }
        if (!(s = calloc(1, bytes)) || map_set(&m->owner->series, key, s)) {
                free(s);
                return NULL;
        }
        s->key = map_key(&m->owner->series, key);
        s->bytes = bytes + key.n + SERIES_MORE_BYTES;
        series_add(m, s);
        return s;
}

void metrics_set_rewrite(struct metrics *m, struct str (*fn)(void *arg, const char *metric, struct str label, struct str value, struct arena *a),
                         void *arg)
{
        m->rewrite = fn;
        m->rewrite_arg = arg;
}

static struct metric_series *series_find(struct metric *m, const struct str *values)
{
        char local[256], *key = local;
        size_t n = sizeof m->id;
        struct metric_series *s;

        for (size_t i = 0; i < m->n_labels; i++)
                n += sizeof(uint32_t) + values[i].n;
        if (n > sizeof local && !(key = malloc(n)))
                return NULL;
        memcpy(key, &m->id, sizeof m->id);
        for (size_t i = 0, at = sizeof m->id; i < m->n_labels; i++) {
                uint32_t bytes = (uint32_t)values[i].n;
                memcpy(key + at, &bytes, sizeof bytes);
                at += sizeof bytes;
                if (bytes)
                        memcpy(key + at, values[i].p, bytes);
                at += bytes;
        }
        s = map_get(&m->owner->series, str_n(key, n));
        if (!s)
                s = series_new(m, str_n(key, n));
        if (key != local)
                free(key);
        return s;
}

struct metric_series *metric_series_get(struct metric *m, const struct str *values)
{
        struct str changed[METRIC_LABELS_MAX];
        struct metric_series *s;
        struct arena a;

        if (!m || !m->owner->rewrite)
                return m ? series_find(m, values) : NULL;
        arena_init(&a, 0);
        for (size_t i = 0; i < m->n_labels; i++)
                changed[i] = !values[i].n ? values[i] : m->owner->rewrite(m->owner->rewrite_arg, m->def.name,
                                                                          str_n(m->label_names[i], m->label_lens[i]), values[i], &a);
        s = series_find(m, changed);
        arena_fini(&a);
        return s;
}

void metric_inc(struct metric_series *s, double by)
{
        if (s)
                s->value += by;
}

void metric_set(struct metric_series *s, double v)
{
        if (s)
                s->value = v;
}

void metric_observe(struct metric_series *s, double v)
{
        if (!s)
                return;
        s->value += v;
        s->count++;
        for (size_t i = 0; i < s->metric->n_buckets; i++)
                if (v <= s->metric->def.buckets[i]) {
                        s->buckets[i]++;
                        return;
                }
}

void metric_series_drop_all(struct metric *m)
{
        struct map *map = &m->owner->series;

        for (struct map_entry *e = NULL; (e = map_next(map, e));) {
                struct metric_series *s = e->value;
                if (s->metric != m)
                        continue;
                map_del(map, str_n(e->key, e->key_n));
                series_free(s);
        }
}

void metrics_on_scrape(struct metrics *m, void (*fn)(void *arg), void *arg)
{
        must(m->n_scrapers < SCRAPERS_MAX);
        m->scrapers[m->n_scrapers].fn = fn;
        m->scrapers[m->n_scrapers++].arg = arg;
}

void metric_number(char to[32], double v)
{
        char digits[32];
        int p = 0, exp;

        if (isinf(v) || isnan(v)) {
                snprintf(to, 32, "%s", isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
                return;
        }
        if (v == (double)(int64_t)v && fabs(v) < 1e6) {
                snprintf(to, 32, "%lld", (long long)v);
                return;
        }
        do /* the shortest form that reads back the same */
                snprintf(digits, sizeof digits, "%.*e", p, v);
        while (++p < 18 && strtod(digits, NULL) != v);
        exp = atoi(strchr(digits, 'e') + 1);
        if (exp < -4 || exp >= 6)
                snprintf(to, 32, "%s", digits);
        else
                snprintf(to, 32, "%.*f", p - 1 - exp > 0 ? p - 1 - exp : 0, v);
}

static void write_sample(struct buf *b, const char *name, const char *suffix, const char *labels, const char *le, double v)
{
        char number[32];

        metric_number(number, v);
        buf_addz(b, name);
        buf_addz(b, suffix);
        if (labels[0] || le) {
                buf_addc(b, '{');
                buf_addz(b, labels);
                if (le)
                        buf_printf(b, "%sle=\"%s\"", labels[0] ? "," : "", le);
                buf_addc(b, '}');
        }
        buf_addc(b, ' ');
        buf_addz(b, number);
        buf_addc(b, '\n');
}

static void write_histogram(struct buf *b, const struct metric_series *s, const char *labels)
{
        const struct metric *m = s->metric;
        uint64_t sum = 0;
        char le[32];

        for (size_t i = 0; i < m->n_buckets; i++) {
                sum += s->buckets[i];
                metric_number(le, m->def.buckets[i]);
                write_sample(b, m->def.name, "_bucket", labels, le, (double)sum);
        }
        write_sample(b, m->def.name, "_bucket", labels, "+Inf", (double)s->count);
        write_sample(b, m->def.name, "_sum", labels, NULL, s->value);
        write_sample(b, m->def.name, "_count", labels, NULL, (double)s->count);
}

void metrics_each(const struct metrics *m, void (*fn)(void *arg, const struct metric_def *def), void *arg)
{
        for (const struct metric *x = m->first; x; x = x->next)
                fn(arg, &x->def);
}

static void write_family(struct buf *b, const struct metric *x)
{
        static const char *const types[] = {[METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};

        buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", x->def.name, x->def.help, x->def.name, types[x->def.type]);
}

/* Series of one family from the given number on, until the buffer has so many bytes. Are there more? labels: room for their text. */
static bool write_series(struct buf *b, const struct metric *x, size_t *from, size_t bytes, struct buf *labels)
{
        size_t i = 0;

        list_for_each (l, &x->series) {
                const struct metric_series *s = list_entry(l, struct metric_series, link);

                if (i++ < *from)
                        continue;
                if (buf_len(b) >= bytes)
                        return true;
                if (i == 1)
                        write_family(b, x);
                buf_clear(labels);
                write_labels(labels, s);
                if (labels->failed)
                        b->failed = true;
                else if (x->def.type == METRIC_HISTOGRAM)
                        write_histogram(b, s, labels->p);
                else
                        write_sample(b, x->def.name, "", labels->p, NULL, s->value);
                *from = i;
        }
        return false;
}

static int write_until(struct metrics *m, struct metrics_at *at, struct buf *out, size_t bytes)
{
        struct buf labels = {0};
        bool more = false;

        if (!at->begun) {
                *at = (struct metrics_at){.begun = true};
                for (size_t i = 0; i < m->n_scrapers; i++)
                        m->scrapers[i].fn(m->scrapers[i].arg);
                at->metric = m->first;
        }
        while (at->metric && !(more = write_series(out, at->metric, &at->series, bytes, &labels))) {
                at->metric = at->metric->next;
                at->series = 0;
        }
        buf_fini(&labels);
        return out->failed ? -ENOMEM : more;
}

int metrics_write_some(struct metrics *m, struct metrics_at *at, struct buf *out)
{
        return write_until(m, at, out, METRICS_PORTION_BYTES);
}

size_t metrics_bytes(const struct metrics *m)
{
        return m->bytes;
}

int metrics_write(struct metrics *m, struct buf *out)
{
        struct metrics_at at = {0};

        return write_until(m, &at, out, SIZE_MAX);
}
