/*
 * An HTTP rule "version/name" names a group (v1/state) or, the older way, a prefix of the route (v1.0/state). A gRPC rule names a
 * group as "name.version". Deny is asked first; an empty allow list allows all.
 */
#include "kernel/front/api_rules.h"

static bool is_protocol(const struct api_rule *r, const char *protocol)
{
        return strcasecmp(r->protocol, protocol) == 0;
}

/* Is a = x + sep + y? */
static bool joined(struct str a, const char *x, char sep, const char *y)
{
        size_t n = strlen(x);
        return a.n == n + 1 + strlen(y) && memcmp(a.p, x, n) == 0 && a.p[n] == sep && memcmp(a.p + n + 1, y, a.n - n - 1) == 0;
}

static bool http_rule_hits(const struct api_rule *rule, const struct http_route *r)
{
        struct str path = str_skip(str_of(r->path), 1), version = str_of(rule->version), name = str_of(rule->name);

        if (strcmp(rule->version, r->group_version) == 0 && strcmp(rule->name, r->group) == 0)
                return true;
        return str_has_prefix(path, version) && path.n > version.n && path.p[version.n] == '/' &&
               str_has_prefix(str_skip(path, version.n + 1), name);
}

static bool http_hits(const struct api_rule *rules, size_t n, const struct http_route *r, bool *any)
{
        for (size_t i = 0; i < n; i++) {
                if (!is_protocol(&rules[i], "http"))
                        continue;
                *any = true;
                if (http_rule_hits(&rules[i], r))
                        return true;
        }
        return false;
}

static bool grpc_hits(const struct api_rule *rules, size_t n, const char *group, bool *any)
{
        for (size_t i = 0; i < n; i++) {
                if (!is_protocol(&rules[i], "grpc"))
                        continue;
                *any = true;
                if (joined(str_of(group), rules[i].name, '.', rules[i].version))
                        return true;
        }
        return false;
}

bool api_rules_any(const struct configuration *cfg, const char *protocol)
{
        for (size_t i = 0; i < cfg->n_api_allowed; i++)
                if (is_protocol(&cfg->api_allowed[i], protocol))
                        return true;
        for (size_t i = 0; i < cfg->n_api_denied; i++)
                if (is_protocol(&cfg->api_denied[i], protocol))
                        return true;
        return false;
}

bool api_rules_allow_http(const struct configuration *cfg, const struct http_route *r)
{
        bool denies = false, allows = false;

        if (r->always_allowed)
                return true;
        if (http_hits(cfg->api_denied, cfg->n_api_denied, r, &denies))
                return false;
        return http_hits(cfg->api_allowed, cfg->n_api_allowed, r, &allows) || !allows;
}

bool api_rules_allow_grpc(const struct configuration *cfg, const char *group)
{
        bool denies = false, allows = false;

        if (grpc_hits(cfg->api_denied, cfg->n_api_denied, group, &denies))
                return false;
        return grpc_hits(cfg->api_allowed, cfg->n_api_allowed, group, &allows) || !allows;
}
