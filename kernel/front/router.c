/*
 * The tree is built once at start and only read afterwards. A node's children stand in one list, literals first; the depth is that
 * of the longest route, so the search may recurse.
 */
#include "kernel/front/router.h"

#include <errno.h>
#include <stdlib.h>

enum node_kind { NODE_LITERAL, NODE_PARAM, NODE_REST };

struct leaf {
        struct leaf *next;
        const struct http_route *route;
        struct str names[ROUTE_PARAMS_MAX];
        size_t n_names;
};
struct node {
        struct node *child, *next;
        enum node_kind kind;
        struct str text; /* of literals; in the route's path */
        struct leaf *leaves;
};
struct router {
        struct node root;
};

int router_new(struct router **ret)
{
        *ret = calloc(1, sizeof **ret);
        return *ret ? 0 : -ENOMEM;
}

static void node_free(struct node *n)
{
        for (struct node *c = n->child, *next; c; c = next) {
                next = c->next;
                node_free(c);
                free(c);
        }
        for (struct leaf *l = n->leaves, *next; l; l = next) {
                next = l->next;
                free(l);
        }
}

void router_free(struct router *r)
{
        if (!r)
                return;
        node_free(&r->root);
        free(r);
}

static struct node *child_get(struct node *n, enum node_kind kind, struct str text)
{
        struct node **at, *c;

        for (at = &n->child; *at && (*at)->kind <= kind; at = &(*at)->next)
                if ((*at)->kind == kind && (kind != NODE_LITERAL || str_eq((*at)->text, text)))
                        return *at;
        c = calloc(1, sizeof *c);
        if (!c)
                return NULL;
        c->kind = kind;
        c->text = text;
        c->next = *at;
        *at = c;
        return c;
}

static bool has_method(const char *methods, struct str method)
{
        if (methods[0] == '*')
                return true;
        for (struct str rest = str_of(methods), m; rest.p && (m = str_cut(&rest, ','), 1);)
                if (str_eq(m, method))
                        return true;
        return false;
}

static bool overlaps(const char *a, const char *b)
{
        if (a[0] == '*' || b[0] == '*')
                return a[0] == b[0];
        for (struct str rest = str_of(a), m; rest.p && (m = str_cut(&rest, ','), 1);)
                if (has_method(b, m))
                        return true;
        return false;
}

int router_add(struct router *r, const struct http_route *route)
{
        struct leaf made = {.route = route}, *l;
        struct node *n = &r->root;
        struct str rest = str_skip(str_of(route->path), 1);

        while (rest.p) {
                struct str s = str_cut(&rest, '/');
                enum node_kind kind = NODE_LITERAL;
                if (s.n > 2 && s.p[0] == '{') {
                        kind = str_has_suffix(s, STR("...}")) ? NODE_REST : NODE_PARAM;
                        if (made.n_names == ROUTE_PARAMS_MAX)
                                return -EINVAL;
                        made.names[made.n_names++] = str_n(s.p + 1, s.n - (kind == NODE_REST ? 5 : 2));
                }
                if (!(n = child_get(n, kind, s)))
                        return -ENOMEM;
        }
        for (l = n->leaves; l; l = l->next)
                if (overlaps(l->route->methods, route->methods))
                        return -EEXIST;
        if (!(l = malloc(sizeof *l)))
                return -ENOMEM;
        *l = made;
        l->next = n->leaves;
        n->leaves = l;
        return 0;
}

static void note_methods(struct route_match *m, const char *methods)
{
        size_t used = strlen(m->allow);

        m->path_exists = true;
        for (struct str rest = str_of(methods), one; rest.p && (one = str_cut(&rest, ','), 1);) {
                if (used + one.n + 3 > sizeof m->allow)
                        return;
                if (used) {
                        memcpy(m->allow + used, ", ", 2);
                        used += 2;
                }
                memcpy(m->allow + used, one.p, one.n);
                m->allow[used += one.n] = '\0';
        }
}

static const struct leaf *leaf_find(const struct node *n, struct str method, struct route_match *m)
{
        for (const struct leaf *l = n->leaves; l; l = l->next) {
                if (has_method(l->route->methods, method))
                        return l;
                note_methods(m, l->route->methods);
        }
        return NULL;
}

/* rest.p == NULL: the path has been used up. */
static const struct leaf *find(const struct node *n, struct str rest, struct str method, struct route_match *m, size_t n_values)
{
        const struct leaf *l;
        struct str after = rest, s;

        if (!rest.p)
                return leaf_find(n, method, m);
        s = str_cut(&after, '/');
        for (const struct node *c = n->child; c; c = c->next) {
                if (c->kind == NODE_LITERAL) {
                        if (!str_eq(c->text, s))
                                continue;
                        l = find(c, after, method, m, n_values);
                } else {
                        bool all = c->kind == NODE_REST;
                        if (!s.n || n_values == ROUTE_PARAMS_MAX)
                                continue;
                        m->param[n_values].value = all ? rest : s;
                        l = find(c, all ? STR_NULL : after, method, m, n_values + 1);
                }
                if (l)
                        return l;
        }
        return NULL;
}

bool router_find(const struct router *r, struct str method, struct str path, struct route_match *m)
{
        const struct leaf *l;

        m->route = NULL;
        m->n = 0;
        m->path_exists = false;
        m->allow[0] = '\0';
        if (!path.n || path.p[0] != '/')
                return false;
        l = find(&r->root, str_skip(path, 1), method, m, 0);
        if (!l)
                return false;
        m->route = l->route;
        m->n = l->n_names;
        for (size_t i = 0; i < m->n; i++)
                m->param[i].name = l->names[i];
        return true;
}
