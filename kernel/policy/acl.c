/*
 * Policies by "app id||namespace", operations of each in a tree of path segments. A search looks at the children of a node in the order
 * of the Configuration and takes the first that fits, as the reference does: the order counts, and there is no way back.
 *   equal        · the segment itself
 *   "*"          · any last segment; a whole path that ends one segment before it, too
 *   "**"         · anything from here on
 *   "a*b"        · * stands for any characters
 */
#include "kernel/policy/acl.h"

#include <errno.h>
#include <stdlib.h>

#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/map.h"

#define SCOPE "dapr.acl"
#define SECTION_ERROR "invalid access control spec"

enum { VERBS_MAX = 32, POLICIES_MAX = 10000, OPERATIONS_MAX = 10000 };

struct verb {
        struct str name;
        struct verb *next;
};
struct operation {
        bool allow;
        struct verb *verbs;
        struct str action;
};
struct node {
        struct str segment;
        const struct operation *operation;
        struct node *children, *last, *next; /* in order of the Configuration */
};
struct policy_of_app {
        struct str app_id, trust_domain, ns, default_action;
        struct node root;
};
struct acl {
        struct arena arena;
        bool is_http;
        struct str default_action, trust_domain;
        struct map policies; /* struct policy_of_app */
        size_t n_policies;
};

static bool is_allow(struct str action)
{
        return str_ieq(action, STR("allow"));
}

/* ---- reading ---- */

static struct node *child_of(struct acl *l, struct node *n, struct str segment)
{
        struct node *c;

        for (c = n->children; c; c = c->next)
                if (str_eq(c->segment, segment))
                        return c;
        if (!(c = arena_new(&l->arena, struct node)))
                return NULL;
        c->segment = segment;
        if (n->last)
                n->last->next = c;
        else
                n->children = c;
        n->last = c;
        return c;
}

static int add_operation(struct acl *l, struct node *root, struct str name, const struct operation *op)
{
        char *path = arena_printf(&l->arena, "%s%.*s", name.n && name.p[0] == '/' ? "" : "/", STR_FMT(name));
        struct node *n = root;

        if (!path)
                return -ENOMEM;
        for (char *c = path; l->is_http && *c; c++)
                if (*c >= 'A' && *c <= 'Z')
                        *c = (char)(*c - 'A' + 'a');
        for (struct str rest = str_of(path + 1), s; rest.p && (s = str_cut(&rest, '/'), 1);)
                if (!(n = child_of(l, n, s)))
                        return -ENOMEM;
        if (!n->operation)
                n->operation = op;
        return 0;
}

static bool text(struct acl *l, struct json_reader *r, struct str *to)
{
        struct str s;

        if (json_read_null(r))
                return true;
        if (json_peek(r) == JSON_NUMBER || json_peek(r) == JSON_TRUE || json_peek(r) == JSON_FALSE)
                json_read_raw(r, &s); /* a scalar of YAML, as it was written */
        else if (!json_read_string(r, &l->arena, &s))
                return false;
        *to = arena_str(&l->arena, s);
        return to->p;
}

static int read_verbs(struct acl *l, struct json_reader *r, struct operation *op)
{
        size_t n = 0;

        if (json_read_null(r))
                return 0;
        if (!json_enter_array(r))
                return -EINVAL;
        while (json_next_element(r)) {
                struct verb *v = arena_new(&l->arena, struct verb);
                if (!v)
                        return -ENOMEM;
                if (n++ >= VERBS_MAX || !text(l, r, &v->name))
                        return -EINVAL;
                v->next = op->verbs;
                op->verbs = v;
        }
        return 0;
}

static int read_operation(struct acl *l, struct json_reader *r, struct policy_of_app *p)
{
        struct operation *op = arena_new(&l->arena, struct operation);
        struct str name, path = STR("");
        int e = 0;

        if (!op)
                return -ENOMEM;
        if (!json_enter_object(r))
                return -EINVAL;
        while (!e && json_next_member(r, &l->arena, &name)) {
                if (str_eqz(name, "name"))
                        e = text(l, r, &path) ? 0 : -EINVAL;
                else if (str_eqz(name, "action"))
                        e = text(l, r, &op->action) ? 0 : -EINVAL;
                else if (str_eqz(name, "httpVerb"))
                        e = read_verbs(l, r, op);
                else
                        json_skip(r);
        }
        op->allow = is_allow(op->action);
        return e ? e : add_operation(l, &p->root, path, op);
}

static int read_operations(struct acl *l, struct json_reader *r, struct policy_of_app *p)
{
        size_t n = 0;
        int e = 0;

        if (json_read_null(r))
                return 0;
        if (!json_enter_array(r))
                return -EINVAL;
        while (!e && json_next_element(r))
                e = n++ < OPERATIONS_MAX ? read_operation(l, r, p) : -EINVAL;
        return e;
}

/* What policies lack, as the reference lists it. */
struct lacks {
        struct buf trust_domain, ns;
        bool app_id;
};

static void lacks_add(struct buf *b, struct str app_id)
{
        buf_printf(b, "%s%.*s", buf_len(b) ? " " : "", STR_FMT(app_id));
}

static int keep_policy(struct acl *l, struct policy_of_app *p, struct lacks *lacks)
{
        char *key;

        lacks->app_id |= !p->app_id.n;
        if (!p->trust_domain.n)
                lacks_add(&lacks->trust_domain, p->app_id);
        if (!p->ns.n)
                lacks_add(&lacks->ns, p->app_id);
        key = arena_printf(&l->arena, "%.*s||%.*s", STR_FMT(p->app_id), STR_FMT(p->ns));
        return key ? map_set(&l->policies, str_of(key), p) : -ENOMEM;
}

static int read_policy(struct acl *l, struct json_reader *r, struct lacks *lacks)
{
        struct policy_of_app *p = arena_new(&l->arena, struct policy_of_app);
        const struct {
                const char *name;
                struct str *to;
        } fields[] = {{"appId", &p->app_id}, {"defaultAction", &p->default_action}, {"trustDomain", &p->trust_domain}, {"namespace", &p->ns}};
        struct str name;
        int e = 0;

        if (!p)
                return -ENOMEM;
        if (!json_enter_object(r))
                return -EINVAL;
        while (!e && json_next_member(r, &l->arena, &name)) {
                size_t i = 0;
                while (i < sizeof fields / sizeof *fields && !str_eqz(name, fields[i].name))
                        i++;
                if (i < sizeof fields / sizeof *fields)
                        e = text(l, r, fields[i].to) ? 0 : -EINVAL;
                else if (str_eqz(name, "operations"))
                        e = read_operations(l, r, p);
                else
                        json_skip(r);
        }
        return e ? e : keep_policy(l, p, lacks);
}

static int read_policies(struct acl *l, struct json_reader *r, struct lacks *lacks)
{
        int e = 0;

        if (json_read_null(r))
                return 0;
        if (!json_enter_array(r))
                return -EINVAL;
        while (!e && json_next_element(r))
                e = l->n_policies++ < POLICIES_MAX ? read_policy(l, r, lacks) : -EINVAL;
        return e;
}

static int read_all(struct acl *l, struct json_reader *r, struct lacks *lacks)
{
        struct str name;
        int e = 0;

        if (!json_enter_object(r))
                return -EINVAL;
        while (!e && json_next_member(r, &l->arena, &name)) {
                if (str_eqz(name, "defaultAction"))
                        e = text(l, r, &l->default_action) ? 0 : -EINVAL;
                else if (str_eqz(name, "trustDomain"))
                        e = text(l, r, &l->trust_domain) ? 0 : -EINVAL;
                else if (str_eqz(name, "policies"))
                        e = read_policies(l, r, lacks);
                else
                        json_skip(r);
        }
        return e;
}

static const char *lacks_error(struct arena *a, const struct lacks *k)
{
        return arena_printf(a, SECTION_ERROR ". missing trustdomain for apps: [%.*s], missing namespace for apps: [%.*s], missing app name on at "
                                             "least one of the app policies: %s",
                            STR_FMT(buf_str(&k->trust_domain)), STR_FMT(buf_str(&k->ns)), k->app_id ? "true" : "false");
}

int acl_new(struct acl **ret, struct str json, bool is_http, struct arena *a, const char **ret_err)
{
        struct acl *l = json.n ? calloc(1, sizeof *l) : NULL;
        struct lacks lacks = {0};
        struct json_reader r;
        int e;

        *ret = NULL;
        if (!l)
                return json.n ? -ENOMEM : 0;
        l->is_http = is_http;
        json_read_init(&r, json);
        e = json_read_null(&r) ? 0 : read_all(l, &r, &lacks);
        /* Half a list would let in whom the other half keeps out. */
        if (l->arena.exhausted || lacks.trust_domain.failed || lacks.ns.failed)
                e = -ENOMEM;
        else if (!e && r.error)
                e = -EINVAL;
        if (e == -EINVAL)
                *ret_err = arena_printf(a, SECTION_ERROR ": accessControl of the Configuration has a field of the wrong type, or more than "
                                                         "%d policies, %d operations or %d verbs",
                                        POLICIES_MAX, OPERATIONS_MAX, VERBS_MAX);
        if (!e && (lacks.app_id || buf_len(&lacks.trust_domain) || buf_len(&lacks.ns))) {
                *ret_err = lacks_error(a, &lacks);
                e = -EINVAL;
        }
        buf_fini(&lacks.trust_domain);
        buf_fini(&lacks.ns);
        if (!e && !l->default_action.n && l->n_policies) {
                log_warn(SCOPE, "No global default action has been specified. Setting default global action as Deny");
                l->default_action = STR("deny");
        } else if (!e && !l->default_action.n) {
                l->default_action = STR("allow");
        }
        if (e || (!l->n_policies && !l->trust_domain.n && is_allow(l->default_action))) {
                acl_free(l);
                return e;
        }
        *ret = l;
        return 0;
}

void acl_free(struct acl *l)
{
        if (!l)
                return;
        map_fini(&l->policies);
        arena_fini(&l->arena);
        free(l);
}

/* ---- deciding ---- */

/* Whole match with * for any characters. */
static bool matches(struct str s, struct str pattern)
{
        size_t i = 0, j = 0, star = SIZE_MAX, mark = 0;

        while (i < s.n) {
                if (j < pattern.n && pattern.p[j] == '*') {
                        star = j++;
                        mark = i;
                } else if (j < pattern.n && pattern.p[j] == s.p[i]) {
                        i++, j++;
                } else if (star != SIZE_MAX) {
                        j = star + 1;
                        i = ++mark;
                } else {
                        return false;
                }
        }
        while (j < pattern.n && pattern.p[j] == '*')
                j++;
        return j == pattern.n;
}

static const struct node *find_child(const struct node *n, struct str segment, bool is_last)
{
        for (const struct node *c = n->children; c; c = c->next) {
                bool any = str_eqz(c->segment, "*");
                if (str_eq(c->segment, segment) || str_eqz(c->segment, "**") || (any && is_last) || (!any && matches(segment, c->segment)))
                        return c;
        }
        return NULL;
}

static bool ends_in_one_star(struct str s)
{
        return str_eqz(s, "*");
}

/* path: behind its first slash. */
static const struct operation *search(const struct node *root, struct str path)
{
        const struct node *n = root;

        for (struct str rest = path, s; rest.p;) {
                s = str_cut(&rest, '/');
                bool is_last = !rest.p;
                if (!(n = find_child(n, s, is_last)))
                        return NULL;
                if (n->operation && (is_last || !ends_in_one_star(n->segment)))
                        return n->operation;
                if (!n->operation && is_last) {
                        n = find_child(n, STR("*"), true);
                        return n ? n->operation : NULL;
                }
        }
        return NULL;
}

/* Of an HTTP call whose operation fits: the action of its verb, of "*", else what holds so far. */
static struct str action_of(const struct acl *l, const struct policy_of_app *p, const struct operation *op, struct str verb, struct str so_far)
{
        struct str action = so_far;

        if (!l->is_http)
                return op->action;
        if (!verb.n)
                return p->default_action;
        for (const struct verb *v = op->verbs; v; v = v->next) {
                if (str_eq(v->name, verb))
                        return op->action;
                if (str_eqz(v->name, "*"))
                        action = op->action;
        }
        return action;
}

bool acl_allows(const struct acl *l, const struct acl_caller *caller, struct str operation, struct str verb, enum acl_decider *ret_decider)
{
        char key[400], small[512];
        const struct policy_of_app *p = NULL;
        const struct operation *op;
        struct str action = l->default_action;
        size_t n = caller->app_id.n + 2 + caller->ns.n;

        *ret_decider = ACL_GLOBAL;
        if (caller->app_id.n && n <= sizeof key) {
                memcpy(key, caller->app_id.p, caller->app_id.n);
                memcpy(key + caller->app_id.n, "||", 2);
                memcpy(key + caller->app_id.n + 2, caller->ns.p, caller->ns.n);
                p = map_get(&l->policies, str_n(key, n));
        }
        if (!p || !str_eq(p->trust_domain, caller->trust_domain))
                return is_allow(action);
        if (p->default_action.n) {
                action = p->default_action;
                *ret_decider = ACL_APP;
        }
        if (operation.n && operation.p[0] == '/')
                operation = str_skip(operation, 1);
        char *lower = operation.n <= sizeof small ? small : malloc(operation.n);
        if (!lower)
                return false;
        for (size_t i = 0; i < operation.n; i++)
                lower[i] = l->is_http && operation.p[i] >= 'A' && operation.p[i] <= 'Z' ? (char)(operation.p[i] - 'A' + 'a') : operation.p[i];
        op = search(&p->root, str_n(lower, operation.n));
        if (op)
                action = action_of(l, p, op, verb, action);
        if (lower != small)
                free(lower);
        return is_allow(action);
}
