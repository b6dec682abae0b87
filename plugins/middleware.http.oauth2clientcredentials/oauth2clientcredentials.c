/*
 * middleware.http.oauth2clientcredentials: puts a token that the client fetches for itself into a header of each request. One token an
 * instance, kept until it expires; requests that come while it is fetched wait for it.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/oauth2/token.h"
#include "sdk/base/loop.h"
#include "sdk/base/regex.h"
#include "sdk/net/http.h"

enum { PARAMS_MAX = 100, TEXT_BYTES_MAX = 16 * 1024 };

struct credentials {
        struct arena arena;
        struct oauth2_client client;
        const char *header_name;
        struct regex *filter;    /* NULL: every path */
        struct oauth2_param params[PARAMS_MAX];
        size_t n_params;
        struct fmutex fetching;
        char *token;             /* "Bearer abc"; NULL: none */
        double expires_at;
};

static void shut(void *instance)
{
        struct credentials *k = instance;

        oauth2_client_fini(&k->client);
        arena_fini(&k->arena);
        free(k->token);
        free(k);
}

/* ---- metadata ---- */

static const struct {
        const char *name;
} required[] = {{"headerName"}, {"clientID"}, {"clientSecret"}, {"scopes"}, {"tokenURL"}};

static int check(struct dapr_call *c, const struct dapr_metadata *md)
{
        const char *text = "";
        int64_t style = dapr_md_int(md, "authStyle");

        for (size_t i = 0; text && i < sizeof required / sizeof *required; i++) {
                const char *v = dapr_md_string(md, required[i].name);
                if (!v || !*v)
                        text = dapr_printf(c, "%sParameter '%s' needs to be set. ", text, required[i].name);
        }
        if (text && (style < 0 || style > 2))
                text = dapr_printf(c, "%sParameter 'authStyle' can only have the values 0,1,2. Received: '%lld'. ", text, (long long)style);
        if (!text)
                return -ENOMEM;
        return *text ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata errors: %s", text) : 0;
}

static bool add_param(struct credentials *k, const char *name, const char *value)
{
        if (k->n_params == PARAMS_MAX || !name || !value)
                return false;
        k->params[k->n_params++] = (struct oauth2_param){name, value};
        return true;
}

/* grant_type, scope and what endpointParamsQuery adds; that may replace grant_type, nothing else. */
static int set_params(struct dapr_call *c, struct credentials *k, const struct dapr_metadata *md)
{
        const char *more = dapr_md_string(md, "endpointParamsQuery");
        struct str rest = str_of(more ? more : ""), name, value;
        char *scope = arena_strdup(&k->arena, str_of(dapr_md_string(md, "scopes")));

        for (char *at = scope; at && *at; at++)
                if (*at == ',')
                        *at = ' ';
        if (!add_param(k, "grant_type", "client_credentials") || !add_param(k, "scope", scope))
                return -ENOMEM;
        while (query_next(&k->arena, &rest, &name, &value)) {
                const char *n = arena_strdup(&k->arena, name), *v = arena_strdup(&k->arena, value);
                if (n && strcmp(n, "grant_type") == 0)
                        k->params[0].value = v;
                else if (n && strcmp(n, "scope") == 0)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata errors: endpointParamsQuery cannot overwrite parameter \"scope\"");
                else if (!add_param(k, n, v))
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata errors: endpointParamsQuery has more than %d parameters", PARAMS_MAX);
        }
        return 0;
}

static int set_up(struct dapr_call *c, struct credentials *k, const struct dapr_metadata *md)
{
        const char *filter = dapr_md_string(md, "pathFilter"), *why = "";
        int r = set_params(c, k, md);

        k->header_name = arena_strdup(&k->arena, str_of(dapr_md_string(md, "headerName")));
        if (r == 0 && !k->header_name)
                r = -ENOMEM;
        if (r == 0 && filter && *filter) {
                r = regex_compile(&k->filter, str_of(filter), &k->arena, &why);
                if (r == -EINVAL)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata errors: Parameter 'pathFilter' is not a valid regex: error parsing regexp: %s. ", why);
        }
        if (r == 0)
                r = oauth2_client_init(&k->client, dapr_md_string(md, "tokenURL"), dapr_md_string(md, "clientID"), dapr_md_string(md, "clientSecret"),
                                       (enum oauth2_style)dapr_md_int(md, "authStyle"), &why);
        return r == -EINVAL ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata errors: Parameter 'tokenURL' is %s. ", why) : r;
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct credentials *k;
        int r = check(c, md);

        if (r)
                return r;
        k = calloc(1, sizeof *k);
        if (!k)
                return -ENOMEM;
        arena_init(&k->arena, 0);
        fmutex_init(&k->fetching);
        r = set_up(c, k, md);
        if (r)
                shut(k);
        else
                *instance = k;
        return r;
}

/* ---- requests ---- */

static bool is_fresh(const struct credentials *k)
{
        return k->token && loop_now_exact() < k->expires_at;
}

static int fetch(struct credentials *k)
{
        struct oauth2_token token;
        struct arena a;
        const char *why;
        int r;

        arena_init(&a, 0);
        r = oauth2_token_get(&k->client, &a, k->params, k->n_params, &token, &why);
        if (r == 0) {
                free(k->token);
                k->token = strdup(token.header);
                k->expires_at = token.expires_in_s > 0 ? loop_now_exact() + token.expires_in_s : INFINITY;
        } else {
                dapr_log(DAPR_LOG_ERROR, "Error acquiring token: %s", why);
        }
        arena_fini(&a);
        return r == 0 && !k->token ? -ENOMEM : r;
}

static int request(struct dapr_call *c, void *instance, struct dapr_http *x)
{
        struct credentials *k = instance;
        struct arena scratch;
        int r = 1;

        if (k->filter) {
                arena_init(&scratch, 0);
                r = regex_match(k->filter, str_of(x->path), &scratch, NULL);
                arena_fini(&scratch);
        }
        if (r <= 0)
                return r;
        r = 0;
        if (!is_fresh(k)) {
                r = fmutex_lock(&k->fetching);
                if (r)
                        return r;
                if (!is_fresh(k))
                        r = fetch(k);
                fmutex_unlock(&k->fetching);
        }
        return r ? dapr_http_answer_text(c, 500, NULL) : dapr_http_add_header(c, k->header_name, k->token);
}

static const struct dapr_middleware_ops ops = {.mode = DAPR_FIBER, .init = init, .close = shut, .request = request};
static const struct dapr_component_type types[] = {{.type = "middleware.http.oauth2clientcredentials", .versions = "v1", .middleware = &ops}};
static const struct dapr_plugin plugin = {.name = "middleware.http.oauth2clientcredentials", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
