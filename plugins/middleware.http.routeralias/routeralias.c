/*
 * middleware.http.routeralias: gives requests another path. Routes are tried in the order in which they stand; the first whose template
 * matches counts. Values of its variables are added to the query.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/middleware.http.routeralias/template.h"
#include "sdk/base/yaml.h"
#include "sdk/net/http.h"

enum { ROUTES_MAX = 10000, PAIRS_MAX = 1024 };

struct route {
        struct template from;
        const char *to;
};
struct aliases {
        struct arena arena;
        struct route *v;
        size_t n;
};

static void shut(void *instance)
{
        struct aliases *l = instance;

        arena_fini(&l->arena);
        free(l);
}

static int add(struct dapr_call *c, struct aliases *l, struct str from, struct str to)
{
        struct route *r = &l->v[l->n++];
        const char *why = NULL;
        int e;

        from = arena_str(&l->arena, from);
        r->to = arena_strdup(&l->arena, to);
        if (!from.p || !r->to)
                return -ENOMEM;
        if (!from.n || from.p[0] != '/')
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "route \"%s\" does not begin with a slash", from.p);
        e = template_parse(&r->from, from, &l->arena, &why);
        return e == -EINVAL ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "route \"%s\": %s", from.p, why) : e;
}

static int alloc(struct dapr_call *c, struct aliases *l, size_t n)
{
        if (n > ROUTES_MAX)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "more than %d routes", ROUTES_MAX);
        l->v = arena_zalloc(&l->arena, n * sizeof *l->v);
        return l->v ? 0 : -ENOMEM;
}

static int read_routes(struct dapr_call *c, struct aliases *l, const char *text)
{
        struct yaml_node *doc;
        const char *why;
        int r = yaml_read(&l->arena, str_of(text), "routes", 1, 0, &doc, &why);

        if (r == 0 && doc && doc->kind != YAML_MAP) {
                why = "it is no map of paths to paths";
                r = -EINVAL;
        }
        if (r)
                return r == -EINVAL ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to decode 'routes' property as JSON or YAML: %s", why) : r;
        r = alloc(c, l, doc ? doc->n : 0);
        for (struct yaml_item *i = doc ? doc->items : NULL; r == 0 && i; i = i->next) {
                if (i->value->kind != YAML_SCALAR)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to decode 'routes' property as JSON or YAML: the value of %.*s is no path",
                                         STR_FMT(i->key->text));
                r = add(c, l, i->key->text, i->value->text);
        }
        return r;
}

/* The older form: each metadata field is a route. */
static int read_fields(struct dapr_call *c, struct aliases *l, struct dapr_kvs all)
{
        int r = alloc(c, l, all.n);

        if (all.n)
                dapr_log(DAPR_LOG_WARN, "routes as single metadata fields are deprecated: write them into the field 'routes'");
        for (size_t i = 0; r == 0 && i < all.n; i++) {
                if (!*all.v[i].key || !*all.v[i].value)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid key/value pair in metadata: must not be empty");
                r = add(c, l, str_of(all.v[i].key), str_of(all.v[i].value));
        }
        return r;
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct aliases *l = calloc(1, sizeof *l);
        const char *routes = dapr_md_string(md, "routes");
        struct dapr_kvs all = dapr_md_all(md);
        int r;

        if (!l)
                return -ENOMEM;
        arena_init(&l->arena, 0);
        r = all.n == 1 && routes && *routes ? read_routes(c, l, routes) : read_fields(c, l, all);
        if (r)
                shut(l);
        else
                *instance = l;
        return r;
}

/* ---- requests ---- */

struct pair {
        struct str key, value;
        size_t place;
};

static int by_key(const void *a, const void *b)
{
        const struct pair *x = a, *y = b;
        size_t n = x->key.n < y->key.n ? x->key.n : y->key.n;
        int r = memcmp(x->key.p, y->key.p, n);

        if (r == 0 && x->key.n != y->key.n)
                r = x->key.n < y->key.n ? -1 : 1;
        return r ? r : x->place < y->place ? -1 : 1;
}

/* As url.Values is written: a space is a plus. */
static struct str form(struct arena *a, struct str s)
{
        struct str e = url_escape(a, s);
        size_t n = 0;

        for (size_t i = 0; e.p && i < e.n; i++, n++) {
                bool space = str_has_prefix(str_skip(e, i), STR("%20"));
                ((char *)e.p)[n] = space ? '+' : e.p[i];
                i += space ? 2 : 0;
        }
        return str_n(e.p, n);
}

/* The query with the variables' values, sorted by key: keys that stand twice keep their order. */
static int set_query(struct dapr_call *c, struct arena *a, const struct route *to, const struct str *values, const char *query)
{
        struct pair *v = arena_alloc(a, PAIRS_MAX * sizeof *v);
        struct str rest = str_of(query);
        struct buf out = {0};
        size_t n = 0;
        int r = v ? 0 : -ENOMEM;

        while (!r && n < PAIRS_MAX - TEMPLATE_PARTS_MAX && query_next(a, &rest, &v[n].key, &v[n].value))
                n++;
        for (size_t i = 0; !r && i < to->from.n; i++)
                if (to->from.parts[i].is_variable)
                        v[n++] = (struct pair){to->from.parts[i].text, values[i], 0};
        for (size_t i = 0; i < n; i++)
                v[i].place = i;
        if (!r)
                qsort(v, n, sizeof *v, by_key);
        for (size_t i = 0; !r && i < n; i++) {
                struct str key = form(a, v[i].key), value = form(a, v[i].value);
                r = key.p && value.p ? buf_printf(&out, "%s%.*s=%.*s", i ? "&" : "", STR_FMT(key), STR_FMT(value)) : -ENOMEM;
        }
        if (!r)
                r = buf_addc(&out, 0);
        if (!r)
                r = dapr_http_set_query(c, out.p);
        buf_fini(&out);
        return r;
}

static int apply(struct dapr_call *c, struct arena *a, const struct route *to, const struct str *values, const struct dapr_http *x)
{
        int r = dapr_http_set_path(c, to->to);

        for (size_t i = 0; i < to->from.n; i++)
                if (to->from.parts[i].is_variable)
                        return r ? r : set_query(c, a, to, values, x->query);
        return r;
}

static int request(struct dapr_call *c, void *instance, struct dapr_http *x)
{
        const struct aliases *l = instance;
        struct str values[TEMPLATE_PARTS_MAX];
        struct arena scratch;
        int r = 0;

        arena_init(&scratch, 0);
        for (size_t i = 0; r == 0 && i < l->n; i++) {
                r = template_match(&l->v[i].from, str_of(x->path), &scratch, values);
                if (r == 1)
                        r = apply(c, &scratch, &l->v[i], values, x);
                else if (r == 0)
                        continue;
                break;
        }
        arena_fini(&scratch);
        return r;
}

static const struct dapr_middleware_ops ops = {.mode = DAPR_INLINE, .init = init, .close = shut, .request = request};
static const struct dapr_component_type types[] = {{.type = "middleware.http.routeralias", .versions = "v1", .middleware = &ops}};
static const struct dapr_plugin plugin = {.name = "middleware.http.routeralias", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
