/* See prom.h. One pass over the lines; a line that belongs to the series before it is added to that. */
#include "ctl/prom.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

struct line {
        struct str name;
        struct prom_label labels[PROM_LABELS_MAX];
        size_t n_labels;
        struct str le;
        double value;
};

static struct str unescape(struct arena *a, struct str s)
{
        char *to = arena_strdup(a, s);
        size_t n = 0;

        for (size_t i = 0; to && i < s.n; i++) {
                char c = s.p[i];
                if (c == '\\' && i + 1 < s.n)
                        c = s.p[++i] == 'n' ? '\n' : s.p[i];
                to[n++] = c;
        }
        return str_n(to, to ? n : 0);
}

/* key="value", at the start of *rest. */
static bool read_label(struct arena *a, struct str *rest, struct line *l)
{
        struct str key = str_cut(rest, '=');
        size_t end = 1;

        if (!rest->p || rest->n < 2 || rest->p[0] != '"')
                return false;
        while (end < rest->n && rest->p[end] != '"')
                end += rest->p[end] == '\\' ? 2 : 1;
        if (end >= rest->n)
                return false;
        struct str value = str_n(rest->p + 1, end - 1);
        *rest = str_skip(*rest, end + 1);
        if (rest->n && rest->p[0] == ',')
                *rest = str_skip(*rest, 1);
        if (str_chr(value, '\\') >= 0)
                value = unescape(a, value);
        if (str_eqz(key, "le"))
                l->le = value;
        else if (l->n_labels < PROM_LABELS_MAX)
                l->labels[l->n_labels++] = (struct prom_label){key, value};
        return true;
}

static bool read_number(struct str s, double *ret)
{
        char text[64], *end;

        if (!s.n || s.n >= sizeof text)
                return false;
        memcpy(text, s.p, s.n);
        text[s.n] = '\0';
        *ret = strtod(text, &end);
        return end != text && (*end == '\0' || *end == ' ');
}

static bool read_line(struct arena *a, struct str s, struct line *l)
{
        size_t n = 0;

        *l = (struct line){.n_labels = 0};
        while (n < s.n && s.p[n] != '{' && s.p[n] != ' ')
                n++;
        l->name = str_n(s.p, n);
        s = str_skip(s, n);
        if (s.n && s.p[0] == '{') {
                s = str_skip(s, 1);
                while (s.n && s.p[0] != '}')
                        if (!read_label(a, &s, l))
                                return false;
                s = str_skip(s, 1);
        }
        return l->name.n && read_number(str_trim(s), &l->value);
}

/* ---- series ---- */

static struct prom_series *add(struct arena *a, struct prom *p, size_t *cap, const struct line *l, struct str name)
{
        if (p->n == *cap) {
                size_t more = *cap ? *cap * 2 : 64;
                struct prom_series *v = arena_grow(a, p->v, *cap * sizeof *v, more * sizeof *v);
                if (!v)
                        return NULL;
                p->v = v;
                *cap = more;
        }
        struct prom_series *s = &p->v[p->n++];
        *s = (struct prom_series){.name = name, .n_labels = l->n_labels};
        memcpy(s->labels, l->labels, sizeof s->labels);
        return s;
}

static bool belongs(const struct prom_series *s, const struct line *l, struct str name)
{
        if (!s || !str_eq(s->name, name) || s->n_labels != l->n_labels)
                return false;
        for (size_t i = 0; i < l->n_labels; i++)
                if (!str_eq(s->labels[i].key, l->labels[i].key) || !str_eq(s->labels[i].value, l->labels[i].value))
                        return false;
        return true;
}

static int add_histogram(struct arena *a, struct prom *p, size_t *cap, const struct line *l, struct str family)
{
        struct str part = str_skip(l->name, family.n);
        struct prom_series *s = p->n ? &p->v[p->n - 1] : NULL;

        if (!belongs(s, l, family) && !(s = add(a, p, cap, l, family)))
                return -ENOMEM;
        s->is_histogram = true;
        if (str_eqz(part, "_sum"))
                s->value = l->value;
        else if (str_eqz(part, "_count"))
                s->count = l->value;
        else if (str_eqz(part, "_bucket") && s->n_buckets < PROM_BUCKETS_MAX) {
                if (!s->le) {
                        s->le = arena_alloc(a, PROM_BUCKETS_MAX * sizeof *s->le);
                        s->below = arena_alloc(a, PROM_BUCKETS_MAX * sizeof *s->below);
                }
                if (!s->le || !s->below)
                        return -ENOMEM;
                double le = INFINITY;
                if (!str_eqz(l->le, "+Inf") && !read_number(l->le, &le))
                        return -EBADMSG;
                ((double *)s->le)[s->n_buckets] = le;
                s->below[s->n_buckets++] = l->value;
        }
        return 0;
}

int prom_read(struct arena *a, struct str text, struct prom *ret)
{
        struct str family = STR("");
        bool histogram = false;
        size_t cap = 0;
        struct line l;
        int r = 0;

        *ret = (struct prom){0};
        while (text.p && r == 0) {
                struct str s = str_cut(&text, '\n');
                if (str_has_prefix(s, STR("# TYPE "))) {
                        struct str rest = str_skip(s, 7);
                        family = str_cut(&rest, ' ');
                        histogram = str_eqz(rest, "histogram");
                } else if (s.n && s.p[0] != '#') {
                        if (!read_line(a, s, &l))
                                return -EBADMSG;
                        if (histogram && str_has_prefix(l.name, family)) {
                                r = add_histogram(a, ret, &cap, &l, family);
                        } else {
                                struct prom_series *x = add(a, ret, &cap, &l, l.name);
                                if (!x)
                                        return -ENOMEM;
                                x->value = l.value;
                        }
                }
        }
        return r;
}

struct str prom_label(const struct prom_series *s, const char *key)
{
        for (size_t i = 0; i < s->n_labels; i++)
                if (str_eqz(s->labels[i].key, key))
                        return s->labels[i].value;
        return STR("");
}

double prom_quantile(const double *le, const double *below, size_t n, double count, double q)
{
        double rank = q * count, from = 0, under = 0;

        if (!n || count <= 0)
                return NAN;
        for (size_t i = 0; i < n; i++) {
                if (below[i] >= rank) {
                        if (isinf(le[i]))
                                return from;
                        return below[i] > under ? from + (le[i] - from) * (rank - under) / (below[i] - under) : le[i];
                }
                from = le[i];
                under = below[i];
        }
        return from;
}
