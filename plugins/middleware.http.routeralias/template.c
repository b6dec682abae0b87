/*
 * Path templates. Matching tries, from left to right, the longest value first for each variable, and remembers which part cannot match
 * from which place, so that its time is bounded by parts times the square of the path's length.
 */
#include "plugins/middleware.http.routeralias/template.h"

#include <errno.h>

#include "sdk/base/regex.h"

/* Where the brace at s[0] closes; patterns may hold braces. 0 = nowhere. */
static size_t brace_end(struct str s)
{
        int depth = 0;

        for (size_t i = 0; i < s.n; i++) {
                depth += s.p[i] == '{';
                depth -= s.p[i] == '}';
                if (depth == 0)
                        return i;
        }
        return 0;
}

static int parse_variable(struct template_part *p, struct str inside, struct arena *a, const char **ret_err)
{
        struct str pattern = inside;

        p->is_variable = true;
        p->text = str_cut(&pattern, ':');
        if (!p->text.n || (pattern.p && !pattern.n)) {
                *ret_err = arena_printf(a, "missing name or pattern in \"{%.*s}\"", STR_FMT(inside));
                return -EINVAL;
        }
        if (!pattern.p)
                return 0;
        pattern = str_of(arena_printf(a, "^(?:%.*s)$", STR_FMT(pattern)));
        return pattern.p ? regex_compile(&p->regex, pattern, a, ret_err) : -ENOMEM;
}

int template_parse(struct template *t, struct str text, struct arena *a, const char **ret_err)
{
        *t = (struct template){.parts = arena_zalloc(a, TEMPLATE_PARTS_MAX * sizeof *t->parts)};
        if (!t->parts)
                return -ENOMEM;
        while (text.n) {
                struct template_part *p = &t->parts[t->n];
                ptrdiff_t brace = str_chr(text, '{');
                size_t end;
                int r = 0;
                if (t->n == TEMPLATE_PARTS_MAX) {
                        *ret_err = "too many variables in a path";
                        return -EINVAL;
                }
                t->n++;
                if (brace != 0) {
                        p->text = str_n(text.p, brace < 0 ? text.n : (size_t)brace);
                        text = str_skip(text, p->text.n);
                        continue;
                }
                end = brace_end(text);
                if (!end) {
                        *ret_err = arena_printf(a, "unbalanced braces in \"%.*s\"", STR_FMT(text));
                        return -EINVAL;
                }
                r = parse_variable(p, str_n(text.p + 1, end - 1), a, ret_err);
                if (r)
                        return r;
                text = str_skip(text, end + 1);
        }
        return 0;
}

struct match {
        const struct template *t;
        struct str path;
        struct arena *arena;
        struct str *values;
        bool *hopeless; /* [part * (path.n + 1) + place] */
};

/* What the variable may take from this place at most. */
static size_t longest(const struct template_part *p, struct str rest)
{
        ptrdiff_t slash = p->regex ? -1 : str_chr(rest, '/');
        return slash < 0 ? rest.n : (size_t)slash;
}

/* The parts from i on against the path from `at` on. Its depth is the number of parts. */
static int match_from(struct match *m, size_t i, size_t at)
{
        struct str rest = str_skip(m->path, at);
        const struct template_part *p = &m->t->parts[i];
        bool *hopeless = &m->hopeless[i * (m->path.n + 1) + at];
        int r;

        if (i == m->t->n)
                return rest.n == 0;
        if (*hopeless)
                return 0;
        if (!p->is_variable) {
                r = str_has_prefix(rest, p->text) ? match_from(m, i + 1, at + p->text.n) : 0;
        } else {
                r = 0;
                for (size_t n = longest(p, rest); r == 0 && n > 0; n--) {
                        r = p->regex ? regex_match(p->regex, str_n(rest.p, n), m->arena, NULL) : 1;
                        if (r == 1)
                                r = match_from(m, i + 1, at + n);
                        if (r == 1)
                                m->values[i] = str_n(rest.p, n);
                }
        }
        *hopeless = r == 0;
        return r;
}

int template_match(const struct template *t, struct str path, struct arena *a, struct str values[TEMPLATE_PARTS_MAX])
{
        struct match m = {.t = t, .path = path, .arena = a, .values = values};

        if (t->n == 1 && !t->parts[0].is_variable) /* the usual case */
                return str_eq(path, t->parts[0].text);
        if (path.n > TEMPLATE_PATH_BYTES)
                return 0;
        m.hopeless = arena_zalloc(a, (t->n + 1) * (path.n + 1));
        return m.hopeless ? match_from(&m, 0, 0) : -ENOMEM;
}
