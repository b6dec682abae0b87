/*
 * Path labels. A pattern is matched segment by segment as Go's http.ServeMux does: `{name}` takes one segment, `{name...}` and a
 * trailing slash take the rest, `{$}` only the end; of several that match, the more specific one wins.
 */
#include "kernel/observe/http_path.h"

#include <errno.h>
#include <stdio.h>

#define INVOKE_PREFIX "/v1.0/invoke/"
#define INVOKE_PATTERN "/v1.0/invoke/{app_id}/method"

static bool is_normal(struct str path)
{
        return path.n && path.p[0] == '/' && str_find(path, STR("//")) < 0;
}

/* Merges slashes, adds a leading one. */
static struct str normalize(struct arena *a, struct str path)
{
        char *to;
        size_t n = 0;

        if (is_normal(path) || !(to = arena_alloc(a, path.n + 1)))
                return path;
        to[n++] = '/';
        for (size_t i = 0; i < path.n; i++)
                if (path.p[i] != '/' || to[n - 1] != '/')
                        to[n++] = path.p[i];
        return str_n(to, n);
}

int http_paths_init(struct http_paths *p, const char *const *patterns, size_t n, bool increased_cardinality)
{
        *p = (struct http_paths){.increased_cardinality = increased_cardinality};
        arena_init(&p->arena, 0);
        if (n == 0)
                return 0;
        p->patterns = arena_zalloc(&p->arena, (2 * n + 1) * sizeof p->patterns[0]);
        if (!p->patterns)
                return -ENOMEM;
        bool root = false;
        for (size_t i = 0; i < n; i++) {
                struct str s = normalize(&p->arena, str_of(patterns[i]));
                const char *z = arena_strdup(&p->arena, s);
                if (!z)
                        return -ENOMEM;
                root |= str_eq(s, STR("/"));
                p->patterns[p->n++] = z;
                if (!str_has_prefix(s, STR(INVOKE_PREFIX)) && !(p->patterns[p->n++] = arena_printf(&p->arena, INVOKE_PATTERN "%s", z)))
                        return -ENOMEM;
        }
        if (!root && increased_cardinality)
                p->patterns[p->n++] = ""; /* what nothing else matches keeps its path */
        return 0;
}

void http_paths_fini(struct http_paths *p)
{
        arena_fini(&p->arena);
}

enum segment { SEG_END, SEG_LITERAL, SEG_ONE, SEG_REST };

/* Next segment of a pattern; *rest.p is NULL after the last one. */
static enum segment pattern_next(struct str *rest, struct str *literal)
{
        struct str s;

        if (!rest->p)
                return SEG_END;
        s = str_cut(rest, '/');
        if (s.n == 0 && !rest->p)
                return SEG_REST; /* trailing slash: the subtree */
        if (str_eq(s, STR("{$}")))
                return SEG_END;
        if (s.n > 1 && s.p[0] == '{' && s.p[s.n - 1] == '}')
                return str_has_suffix(s, STR("...}")) ? SEG_REST : SEG_ONE;
        *literal = s;
        return SEG_LITERAL;
}

static bool pattern_matches(const char *pattern, struct str path)
{
        struct str pat = str_skip(str_of(pattern), 1), in = str_skip(path, 1), literal;

        for (;;) {
                enum segment seg = pattern_next(&pat, &literal);
                struct str s;
                if (seg == SEG_REST)
                        return true;
                if (seg == SEG_END || !in.p)
                        return seg == SEG_END && (!in.p || in.n == 0);
                s = str_cut(&in, '/');
                if (seg == SEG_LITERAL ? !str_eq(s, literal) : s.n == 0)
                        return false;
        }
}

static bool more_specific(const char *x, const char *y)
{
        struct str a = str_skip(str_of(x), 1), b = str_skip(str_of(y), 1), la, lb;

        for (;;) {
                enum segment sa = pattern_next(&a, &la), sb = pattern_next(&b, &lb);
                if (sa != sb)
                        return sb == SEG_REST || (sb == SEG_ONE && sa == SEG_LITERAL) || sa == SEG_END;
                if (sa == SEG_END || sa == SEG_REST)
                        return false;
        }
}

/* The best pattern, the path itself for the catch-all of increased cardinality, "" if none. */
static struct str match(const struct http_paths *p, struct arena *a, struct str path)
{
        const char *best = NULL;
        bool keep = false;

        path = normalize(a, path);
        for (size_t i = 0; i < p->n; i++) {
                if (!p->patterns[i][0])
                        keep = true;
                else if (pattern_matches(p->patterns[i], path) && (!best || more_specific(p->patterns[i], best)))
                        best = p->patterns[i];
        }
        return best ? str_of(best) : keep ? path : STR("");
}

static struct str join(struct arena *a, const struct str *part, size_t n, bool leading_slash)
{
        size_t len = n, at = 0;
        char *to;

        for (size_t i = 0; i < n; i++)
                len += part[i].n;
        if (!(to = arena_alloc(a, len + 1)))
                return STR("");
        for (size_t i = 0; i < n; i++) {
                if (i || leading_slash)
                        to[at++] = '/';
                memcpy(to + at, part[i].p, part[i].n);
                at += part[i].n;
        }
        return str_n(to, at);
}

static struct str workflow_label(struct arena *a, struct str path, struct str part[6], size_t n)
{
        if (n < 4)
                return path;
        if (n == 4) {
                part[3] = STR("{instanceId}");
                return join(a, part, 4, true);
        }
        if (n == 5 && str_has_prefix(part[4], STR("start"))) {
                part[4] = STR("start");
                return join(a, part, 5, true);
        }
        part[3] = STR("{instanceId}");
        if (n == 6 && str_eqz(part[4], "raiseEvent") && part[5].n) {
                part[5] = STR("{eventName}");
                return join(a, part, 6, true);
        }
        return join(a, part, 5, true);
}

/* Removes what varies: state and secret keys, actor and workflow ids. */
static struct str generalize(struct arena *a, struct str path)
{
        struct str part[6], rest;
        size_t n = 0;

        if (path.n == 0)
                return path;
        path = normalize(a, path);
        rest = str_skip(path, 1);
        while (n < 5 && rest.p)
                part[n++] = str_cut(&rest, '/');
        if (rest.p)
                part[n++] = rest;
        if (n < 3)
                return path;
        if (str_eqz(part[0], "actors")) {
                part[2] = STR("{id}");
                return join(a, part, n, false);
        }
        if (str_eqz(part[1], "state") || str_eqz(part[1], "secrets"))
                return str_n(path.p, (size_t)(part[2].p + part[2].n - path.p));
        if (str_eqz(part[1], "actors")) {
                if (n < 5)
                        return path;
                part[3] = STR("{id}");
                return join(a, part, 5, true);
        }
        if (str_eqz(part[1], "workflows"))
                return workflow_label(a, path, part, n);
        return path;
}

static bool is_static(struct str path)
{
        return str_eqz(path, "/healthz") || str_eqz(path, "/dapr/config") || str_eqz(path, "/dapr/subscribe") ||
               str_eqz(path, "/dapr/metrics");
}

struct str http_path_label(const struct http_paths *p, struct arena *a, struct str path)
{
        struct str found, general;

        if (p->n == 0)
                return p->increased_cardinality ? generalize(a, path) : STR("");
        path = normalize(a, path);
        if (is_static(path))
                return path;
        found = match(p, a, path);
        if (found.n && (!p->increased_cardinality || !str_eq(found, path)))
                return found;
        general = generalize(a, path);
        if (!str_eq(general, path)) {
                found = match(p, a, general);
                if (found.n && !str_eqz(found, "/"))
                        return found;
        }
        return p->increased_cardinality ? general : STR("");
}

struct str http_path_label_client(const struct http_paths *p, struct arena *a, struct str path)
{
        /* the reference names this one without its slash, so that it is none of the known ones there */
        if (!p->increased_cardinality && str_eqz(path, "/dapr/subscribe"))
                return STR("");
        return !p->increased_cardinality && is_static(path) ? path : http_path_label(p, a, path);
}
