/*
 * middleware.http.bearer: lets pass only requests with a valid bearer token (JWT, OpenID Connect). Keys come from the issuer's JWKS: read
 * at the start, again every REFRESH_S, and at once when a token names a key that is not there, but not more often than ON_DEMAND_S. A
 * reading that fails changes nothing. The set in use is counted: it stays while a request looks at it.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "plugins/shared/crypto/jwt.h"
#include "plugins/shared/web/web.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"

enum { ANSWER_BYTES_MAX = 1 << 20, TOKEN_BYTES_MIN = 10 };
#define REFRESH_S 600.0
#define ON_DEMAND_S 10.0
#define FETCH_S 30.0
#define SKEW_S 300.0

struct bearer {
        char *issuer, *audience;
        struct web_site *site;  /* of the JWKS */
        struct keyset *set;
        double read_at, asked_at;
        bool reading;
};

static void shut(void *instance)
{
        struct bearer *b = instance;

        keyset_unref(b->set);
        web_site_free(b->site);
        free(b->issuer);
        free(b->audience);
        free(b);
}

/* ---- documents ---- */

static int get(struct web_site *site, struct arena *a, struct str *ret, const char **why)
{
        const struct http_header accept = {STR("Accept"), STR("application/json")};
        double old = fiber_set_deadline(loop_now_exact() + FETCH_S);
        struct web_answer answer;
        int r = web_request(site, a, "GET", "", &accept, 1, STR_NULL, ANSWER_BYTES_MAX, &answer, why);

        fiber_restore_deadline(old);
        if (r)
                return r;
        if (answer.status != 200) {
                *why = arena_printf(a, "invalid response status code: %d", answer.status);
                return -EINVAL;
        }
        *ret = answer.body;
        return 0;
}

/* Puts the new keys in the place of the old ones. */
static int read_keys(struct bearer *b, struct arena *a, const char **why)
{
        struct keyset *set;
        struct str body;
        int r;

        b->reading = true;
        r = get(b->site, a, &body, why);
        b->reading = false;
        b->read_at = loop_now_exact();
        if (r == 0)
                r = keyset_parse(&set, body, why);
        if (r == 0) {
                keyset_unref(b->set);
                b->set = set;
        }
        return r;
}

static void refresh(struct bearer *b)
{
        struct arena a;
        const char *why = "";

        arena_init(&a, 0);
        if (read_keys(b, &a, &why))
                dapr_log(DAPR_LOG_WARN, "Error while refreshing JWKS cache: %s", why);
        arena_fini(&a);
}

/* jwks_uri of the issuer's configuration, whose issuer has to be the same. */
static int read_configuration(struct arena *a, struct str json, const char *issuer, const char **ret, const char **why)
{
        struct str name, uri = STR(""), its = STR("");
        struct json_reader r;

        json_read_init(&r, json);
        if (json_enter_object(&r))
                while (json_next_member(&r, a, &name)) {
                        struct str *to = str_eqz(name, "jwks_uri") ? &uri : str_eqz(name, "issuer") ? &its : NULL;
                        if (!(to && json_read_string(&r, a, to)))
                                json_skip(&r);
                }
        *ret = arena_strdup(a, uri);
        if (!*ret)
                return -ENOMEM;
        if (r.error || !json_at_end(&r))
                *why = "failed to decode JSON response";
        else if (!uri.n)
                *why = "the OpenID Configuration document does not contain a 'jwks_uri'";
        else if (!str_eqz(its, issuer))
                *why = arena_printf(a, "the issuer found in the OpenID Configuration document ('%.*s') doesn't match the one provided in the component's metadata ('%s')",
                                    STR_FMT(its), issuer);
        else
                return 0;
        return -EINVAL;
}

static int discover(struct arena *a, const char *issuer, const char **ret, const char **why)
{
        size_t n = strlen(issuer);
        const char *url = arena_printf(a, "%.*s/.well-known/openid-configuration", (int)(n && issuer[n - 1] == '/' ? n - 1 : n), issuer);
        struct web_site *site = NULL;
        struct str body;
        int r = url ? web_site_new(&site, url, why) : -ENOMEM;

        if (r == 0)
                r = get(site, a, &body, why);
        if (r == 0)
                r = read_configuration(a, body, issuer, ret, why);
        web_site_free(site);
        return r;
}

/* ---- the component ---- */

static const char *one_of(const struct dapr_metadata *md, const char *name, const char *alias)
{
        const char *v = dapr_md_string(md, name);
        return v && *v ? v : dapr_md_string(md, alias);
}

static int set_up(struct dapr_call *c, struct bearer *b, struct arena *a, const char *url)
{
        const char *why = "out of memory";
        int r = url && *url ? 0 : discover(a, b->issuer, &url, &why);

        if (r)
                return r == -ENOMEM ? r : dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to retrieve OpenID Configuration document: %s", why);
        r = web_site_new(&b->site, url, &why);
        if (r == 0)
                r = read_keys(b, a, &why);
        return r && r != -ENOMEM ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to fetch JWKS: %s", why) : r;
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *issuer = one_of(md, "issuer", "issuerURL"), *audience = one_of(md, "audience", "clientID");
        struct bearer *b;
        struct arena a;
        int r;

        if (!issuer || !*issuer)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata property 'issuer' is required");
        if (!audience || !*audience)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata property 'audience' is required");
        b = calloc(1, sizeof *b);
        if (!b || !(b->issuer = strdup(issuer)) || !(b->audience = strdup(audience))) {
                if (b)
                        shut(b);
                return -ENOMEM;
        }
        b->asked_at = -ON_DEMAND_S;
        arena_init(&a, 0);
        r = set_up(c, b, &a, dapr_md_string(md, "jwksURL"));
        arena_fini(&a);
        if (r)
                shut(b);
        else
                *instance = b;
        return r;
}

/* ---- requests ---- */

static const char *token_of(const struct dapr_http *x)
{
        const char *header = dapr_kvs_get(x->headers, "Authorization");

        if (!header || strncasecmp(header, "Bearer ", 7) != 0)
                return NULL;
        return strlen(header + 7) < TOKEN_BYTES_MIN ? NULL : header + 7;
}

static int check(struct dapr_call *c, struct bearer *b, const char *token)
{
        const struct jwt_rules rules = {b->issuer, b->audience, SKEW_S};
        const char *why = "";
        int r = jwt_check(c, b->set, token, &rules, (double)time(NULL), &why);

        if (r > 0)
                dapr_log(DAPR_LOG_DEBUG, "a token is refused: %s", why);
        return r;
}

static int request(struct dapr_call *c, void *instance, struct dapr_http *x)
{
        struct bearer *b = instance;
        const char *token = token_of(x);
        int r;

        if (!token)
                return dapr_http_answer_text(c, 401, NULL);
        if (!b->reading && loop_now() - b->read_at >= REFRESH_S)
                refresh(b);
        r = check(c, b, token);
        if (r == JWT_UNKNOWN_KEY && !b->reading && loop_now() - b->asked_at >= ON_DEMAND_S) {
                b->asked_at = loop_now();
                refresh(b);
                r = check(c, b, token);
        }
        return r > 0 ? dapr_http_answer_text(c, 401, NULL) : r;
}

static const struct dapr_middleware_ops ops = {.mode = DAPR_FIBER, .init = init, .close = shut, .request = request};
static const struct dapr_component_type types[] = {{.type = "middleware.http.bearer", .versions = "v1", .middleware = &ops}};
static const struct dapr_plugin plugin = {.name = "middleware.http.bearer", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
