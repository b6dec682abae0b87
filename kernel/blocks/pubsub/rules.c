/* Routing rules: compiled CEL over one variable, "event" (API.md 8.5). Tried in order; one without a match always fits. */
#include <errno.h>
#include <stdlib.h>

#include "kernel/blocks/pubsub/pubsub.h"
#include "kernel/policy/cel.h"

struct rule_set {
        size_t n;
        struct {
                struct cel *match; /* NULL = always */
                const char *path;  /* of the spec */
        } v[];
};

int rules_new(struct rule_set **ret, const struct subscription_spec *s, struct arena *a, const char **ret_err)
{
        struct rule_set *r = calloc(1, sizeof *r + s->n_rules * sizeof r->v[0]);

        *ret_err = "out of memory";
        if (!r)
                return -ENOMEM;
        for (size_t i = 0; i < s->n_rules; i++) {
                struct str match = str_trim(str_of(s->rules[i].match));
                struct cel_error err = {0};
                int x = match.n ? cel_compile(&r->v[i].match, match, &err) : 0;
                r->v[i].path = s->rules[i].path;
                r->n = i + 1;
                if (x) {
                        if (x == -EINVAL)
                                *ret_err = arena_strdup(a, str_of(err.text));
                        rules_free(r);
                        return x;
                }
        }
        *ret = r;
        return 0;
}

void rules_free(struct rule_set *r)
{
        for (size_t i = 0; r && i < r->n; i++)
                cel_free(r->v[i].match);
        free(r);
}

static int match(const struct rule_set *r, struct arena *a, struct cel_var *event, const char **ret_path, const char **ret_err)
{
        *ret_path = NULL;
        for (size_t i = 0; i < r->n; i++) {
                bool fits = true;
                if (r->v[i].match && cel_eval_bool(r->v[i].match, event, 1, a, &fits, ret_err))
                        return -EINVAL;
                if (fits) {
                        *ret_path = r->v[i].path;
                        return 0;
                }
        }
        return 0;
}

int rules_match(const struct rule_set *r, struct arena *a, const struct event *e, const char **ret_path, const char **ret_err)
{
        struct cel_var event = cel_var_json("event", e->json);

        return match(r, a, &event, ret_path, ret_err);
}

int rules_match_text(const struct rule_set *r, struct arena *a, struct str text, const char **ret_path, const char **ret_err)
{
        struct cel_var event = {.name = STR("event"), .kind = CEL_VAR_STRING, .s = text};

        return match(r, a, &event, ret_path, ret_err);
}
