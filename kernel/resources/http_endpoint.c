/* HTTPEndpoint documents: what is needed is checked here, whether it can be used when a call is made. */
#include "kernel/resources/http_endpoint.h"

#include <errno.h>

#include "sdk/base/yaml.h"

/* A scalar's text; "" when it is absent. NULL: no scalar. */
static const char *text(struct arena *a, const struct yaml_node *n)
{
        struct str s;

        if (yaml_is_null(n))
                return "";
        if (yaml_string(a, n, YAML_1_1, &s))
                return NULL;
        return s.p ? arena_strdup(a, s) : "";
}

static int wrong(struct arena *a, const struct yaml_node *at, const char *what, const char **ret_err)
{
        *ret_err = yaml_error(a, at, "HTTPEndpoint: %s must be text", what);
        return -EINVAL;
}

/* "value" or "secretKeyRef{name, key}" below n. */
static int read_value(struct arena *a, const struct yaml_node *n, const char *what, struct endpoint_value *to, const char **ret_err)
{
        const struct yaml_node *ref = yaml_get_fold(n, "secretKeyRef"), *value = yaml_get_fold(n, "value");

        to->line = n ? n->line : 0;
        to->name = text(a, yaml_get_fold(n, "name"));
        if (!to->name)
                return wrong(a, n, "the name of a header", ret_err);
        if (!yaml_is_null(value) && !(to->value = text(a, value)))
                return wrong(a, value, what, ret_err);
        if (yaml_is_null(ref))
                return 0;
        to->secret_name = text(a, yaml_get_fold(ref, "name"));
        to->secret_key = text(a, yaml_get_fold(ref, "key"));
        if (!to->secret_name || !to->secret_key)
                return wrong(a, ref, "name and key of secretKeyRef", ret_err);
        if (!*to->secret_key)
                to->secret_key = *to->name ? to->name : to->secret_name;
        if (!*to->secret_name)
                to->secret_name = NULL;
        return 0;
}

static int read_headers(struct arena *a, const struct yaml_node *list, struct http_endpoint_spec *e, const char **ret_err)
{
        int r = 0;

        if (yaml_is_null(list))
                return 0;
        if (list->kind != YAML_LIST || list->n > HTTP_ENDPOINT_HEADERS_MAX) {
                *ret_err = yaml_error(a, list, "HTTPEndpoint: spec.headers must be a list of at most %d headers", HTTP_ENDPOINT_HEADERS_MAX);
                return -EINVAL;
        }
        e->headers = arena_zalloc(a, list->n * sizeof *e->headers);
        if (!e->headers)
                return -ENOMEM;
        for (const struct yaml_item *i = list->items; i && !r; i = i->next)
                r = read_value(a, i->value, "the value of a header", &e->headers[e->n_headers++], ret_err);
        return r;
}

/* The reference takes the short names; its documentation has the long ones. */
static int read_renegotiation(struct arena *a, const struct yaml_node *n, struct http_endpoint_spec *e, const char **ret_err)
{
        static const struct {
                const char *name;
                enum tls_renegotiation value;
        } known[] = {
                {"", TLS_RENEGOTIATE_NEVER},
                {"Never", TLS_RENEGOTIATE_NEVER},
                {"OnceAsClient", TLS_RENEGOTIATE_ONCE},
                {"FreelyAsClient", TLS_RENEGOTIATE_FREELY},
                {"RenegotiateNever", TLS_RENEGOTIATE_NEVER},
                {"RenegotiateOnceAsClient", TLS_RENEGOTIATE_ONCE},
                {"RenegotiateFreelyAsClient", TLS_RENEGOTIATE_FREELY},
        };
        const char *value = text(a, n);

        for (size_t i = 0; value && i < sizeof known / sizeof *known; i++)
                if (!strcmp(value, known[i].name)) {
                        e->renegotiation = known[i].value;
                        return 0;
                }
        *ret_err = yaml_error(a, n, "invalid renegotiation value %s for http endpoint %s: it is one of Never, OnceAsClient, FreelyAsClient",
                              value ? value : "", e->name);
        return -EINVAL;
}

static int read_tls(struct arena *a, const struct yaml_node *tls, struct http_endpoint_spec *e, const char **ret_err)
{
        int r;

        if (yaml_is_null(tls))
                return 0;
        e->has_tls = true;
        if ((r = read_value(a, yaml_get_fold(tls, "rootCA"), "spec.clientTLS.rootCA", &e->root_ca, ret_err)) ||
            (r = read_value(a, yaml_get_fold(tls, "certificate"), "spec.clientTLS.certificate", &e->certificate, ret_err)) ||
            (r = read_value(a, yaml_get_fold(tls, "privateKey"), "spec.clientTLS.privateKey", &e->private_key, ret_err)))
                return r;
        return read_renegotiation(a, yaml_get_fold(tls, "renegotiation"), e, ret_err);
}

int http_endpoint_read(struct arena *a, const struct raw_resource *r, struct http_endpoint_spec **ret, const char **ret_err)
{
        struct http_endpoint_spec *e = arena_new(a, struct http_endpoint_spec);
        const struct yaml_node *spec = yaml_get_fold(r->doc, "spec");
        int err;

        if (!e)
                return -ENOMEM;
        e->name = r->name;
        e->file = r->file;
        e->line = r->line;
        e->base_url = text(a, yaml_get_fold(spec, "baseUrl"));
        e->secret_store = text(a, yaml_get_fold(yaml_get_fold(r->doc, "auth"), "secretStore"));
        if (!e->base_url || !e->secret_store)
                return wrong(a, r->doc, e->base_url ? "auth.secretStore" : "spec.baseUrl", ret_err);
        if ((err = read_headers(a, yaml_get_fold(spec, "headers"), e, ret_err)) || (err = read_tls(a, yaml_get_fold(spec, "clientTLS"), e, ret_err)))
                return err;
        if (a->exhausted)
                return -ENOMEM;
        *ret = e;
        return 0;
}
