/*
 * Rules are few and looked at only for new label values: a metric that no rule names pays one comparison. A rule's patterns are
 * applied one after the other, each to all of its matches, in the order of the file. A rule names its metric with or without the
 * prefix "dapr_", with "_" or "/" between the words.
 */
#include "kernel/metric_rules.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#include "sdk/base/regex_find.h"
#include "sdk/base/yaml.h"

struct pattern {
        struct str metric, label, replacement;
        struct regex_finder finder;
};
struct metric_rules {
        struct arena arena;
        struct pattern *v;
        size_t n, cap;
};

static struct str plain_name(struct str s)
{
        return str_has_prefix(s, STR("dapr_")) ? str_skip(s, 5) : s;
}

static bool same_name(struct str a, struct str b)
{
        if (a.n != b.n)
                return false;
        for (size_t i = 0; i < a.n; i++)
                if (a.p[i] != b.p[i] && !(strchr("_/", a.p[i]) && strchr("_/", b.p[i])))
                        return false;
        return true;
}

static struct str replace_all(struct pattern *p, struct str value, struct arena *a)
{
        struct buf b = {0};
        struct str out;
        size_t at = 0, start, end;

        if (!regex_find(&p->finder, value, 0, &start, &end))
                return value;
        do {
                buf_add(&b, value.p + at, start - at);
                buf_adds(&b, p->replacement);
                at = end;
                if (start == end && at < value.n) /* an empty match: one character goes on as it is */
                        buf_addc(&b, value.p[at++]);
        } while (at < value.n && regex_find(&p->finder, value, at, &start, &end));
        if (at < value.n)
                buf_add(&b, value.p + at, value.n - at);
        out = arena_str(a, buf_str(&b));
        buf_fini(&b);
        return out.p ? out : value;
}

static struct str rewrite(void *arg, const char *metric, struct str label, struct str value, struct arena *a)
{
        struct metric_rules *r = arg;

        for (size_t i = 0; i < r->n; i++)
                if (str_eq(r->v[i].label, label) && same_name(r->v[i].metric, plain_name(str_of(metric))))
                        value = replace_all(&r->v[i], value, a);
        return value;
}

/* ---- reading ---- */

static struct str text_of(const struct yaml_node *n)
{
        return n && n->kind == YAML_SCALAR ? n->text : STR("");
}

static int add(struct metric_rules *r, struct pattern p, const struct yaml_node *expression, struct arena *a, const char **ret_err)
{
        struct regex *re;
        const char *why = NULL;
        int e = regex_compile(&re, text_of(expression), &r->arena, &why);

        if (e == -EINVAL) {
                *ret_err = arena_printf(a, "failed to compile regex for rule %.*s%.*s/%.*s: error parsing regexp: %s", STR_FMT(p.metric),
                                        STR_FMT(p.label), STR_FMT(p.replacement), why ? why : "");
                return -EBADMSG;
        }
        for (size_t i = 0; i + 1 < p.replacement.n; i++)
                if (p.replacement.p[i] == '$' && (isalnum((unsigned char)p.replacement.p[i + 1]) || p.replacement.p[i + 1] == '{')) {
                        *ret_err = yaml_error(a, expression, "the replacement \"%.*s\" names a group of its regular expression, which this "
                                                             "version does not support: write the text itself", STR_FMT(p.replacement));
                        return -EINVAL;
                }
        struct pattern *v = arena_grow(&r->arena, r->v, r->n * sizeof *v, (r->n + 1) * sizeof *v);
        if (e || !v)
                return -ENOMEM;
        r->v = v;
        v[r->n] = p;
        return regex_finder_init(&v[r->n++].finder, re, &r->arena);
}

static int read_label(struct metric_rules *r, struct str metric, const struct yaml_node *label, struct arena *a, const char **ret_err)
{
        const struct yaml_node *patterns = yaml_get(label, "regex");
        struct pattern p = {.metric = metric, .label = text_of(yaml_get(label, "name"))};
        int e = 0;

        for (const struct yaml_item *i = patterns && patterns->kind == YAML_MAP ? patterns->items : NULL; i && !e; i = i->next) {
                p.replacement = text_of(i->key);
                e = add(r, p, i->value, a, ret_err);
        }
        return e;
}

static int read_rules(struct metric_rules *r, const struct yaml_node *rules, struct arena *a, const char **ret_err)
{
        int e = 0;

        for (const struct yaml_item *i = rules->items; i && !e; i = i->next) {
                const struct yaml_node *labels = yaml_get(i->value, "labels");
                struct str metric = plain_name(text_of(yaml_get(i->value, "name")));
                for (const struct yaml_item *l = labels ? labels->items : NULL; l && !e; l = l->next)
                        e = read_label(r, metric, l->value, a, ret_err);
        }
        return e;
}

int metric_rules_new(struct metric_rules **ret, struct kernel *k, struct arena *a, const char **ret_err)
{
        const struct yaml_node *rules = yaml_path(k->config.doc, "spec.metric.rules");
        struct metric_rules *r;
        int e;

        *ret = NULL;
        if (!rules || rules->kind != YAML_LIST)
                return 0;
        if (!(r = calloc(1, sizeof *r)))
                return -ENOMEM;
        arena_init(&r->arena, 0);
        e = read_rules(r, rules, a, ret_err);
        if (e || !r->n) {
                metric_rules_free(r);
                return e;
        }
        metrics_set_rewrite(k->metrics, rewrite, r);
        *ret = r;
        return 0;
}

void metric_rules_free(struct metric_rules *r)
{
        if (!r)
                return;
        arena_fini(&r->arena);
        free(r);
}
