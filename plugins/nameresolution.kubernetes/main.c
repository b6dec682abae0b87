/*
 * nameresolution.kubernetes: <app id>-dapr.<namespace>.svc.<cluster domain>, or what a template makes of app id and namespace, looked
 * up by the host's resolver: each pod behind the name is an address. Nothing is registered; the control plane makes the services.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/nameresolution.kubernetes/template.h"

enum { ADDRESSES_MAX = 64, ANSWER_S = 20 };

struct resolver {
        char *domain, *template; /* template NULL = the default form */
};

static const char *lookup_error(int r)
{
        switch (r) {
        case EAI_NONAME:
        case EAI_NODATA: return "no such host";
        case EAI_AGAIN: return "the name servers do not answer";
        case EAI_SYSTEM: return strerrordesc_np(errno);
        default: return gai_strerror(r);
        }
}

/* host:port of each address of the host, without doubles. */
static int lookup(struct dapr_call *c, const char *host, const char *port, struct dapr_addresses *out)
{
        struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *all = NULL;
        const char **v = dapr_alloc(c, ADDRESSES_MAX * sizeof *v);
        int r = getaddrinfo(host, NULL, &hints, &all);

        if (r)
                return dapr_fail(c, DAPR_NOT_FOUND, "failed to resolve address for '%s': lookup %s: %s", host, host, lookup_error(r));
        for (struct addrinfo *i = all; v && i && out->n < ADDRESSES_MAX; i = i->ai_next) {
                char ip[NI_MAXHOST];
                if (getnameinfo(i->ai_addr, i->ai_addrlen, ip, sizeof ip, NULL, 0, NI_NUMERICHOST))
                        continue;
                const char *text = dapr_printf(c, i->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", ip, port);
                bool known = text == NULL;
                for (size_t k = 0; !known && k < out->n; k++)
                        known = strcmp(v[k], text) == 0;
                if (!known)
                        v[out->n++] = text;
        }
        freeaddrinfo(all);
        out->v = v;
        out->ttl_s = ANSWER_S;
        return v ? 0 : -ENOMEM;
}

/* The name and port to look up: "name:port". */
static int address(struct dapr_call *c, const struct resolver *r, const struct address_values *v, char **ret)
{
        struct buf b = {0};
        struct str bad;
        int code = 0;

        if (r->template)
                code = address_template(&b, str_of(r->template), v, &bad);
        else
                buf_printf(&b, "%.*s-dapr.%.*s.svc.%s:%d", STR_FMT(v->id), STR_FMT(v->namespace_), r->domain, v->port);
        if (code == -EINVAL)
                code = dapr_fail(c, DAPR_INVALID_ARGUMENT,
                                 "field 'template': '%.*s' is not supported; use {{.ID}}, {{.Namespace}}, {{.Port}} or {{.Data.name}}",
                                 STR_FMT(bad));
        if (code == 0 && !(*ret = dapr_printf(c, "%.*s", STR_FMT(buf_str(&b)))))
                code = -ENOMEM;
        buf_fini(&b);
        return code;
}

static int resolve(struct dapr_call *c, void *instance, const struct dapr_resolve *in, struct dapr_addresses *out)
{
        struct address_values v = {str_of(in->id), str_of(in->namespace_), in->port};
        char *host, *colon;
        const char *port = NULL;
        int r = address(c, instance, &v, &host);

        if (r)
                return r;
        colon = strrchr(host, ':');
        if (colon && colon[1] && !strchr(colon, ']')) { /* not within [v6] */
                *colon = '\0';
                port = colon + 1;
        } else if (!(port = dapr_printf(c, "%d", in->port))) {
                return -ENOMEM;
        }
        size_t n = strlen(host);
        if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
                host[n - 1] = '\0';
                host++;
        }
        return lookup(c, host, port, out);
}

/* ---- life ---- */

static void close_resolver(void *instance)
{
        struct resolver *r = instance;
        free(r->domain);
        free(r->template);
        free(r);
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *domain = dapr_md_string(md, "clusterDomain"), *template = dapr_md_string(md, "template");
        struct resolver *r = calloc(1, sizeof *r);
        char *example;

        if (!r)
                return -ENOMEM;
        r->domain = strdup(domain && *domain ? domain : "cluster.local");
        r->template = template && *template ? strdup(template) : NULL;
        int code = r->domain && (r->template || !template || !*template) ? 0 : -ENOMEM;
        if (code == 0) /* a template that cannot be used is told now */
                code = address(c, r, &(struct address_values){STR("app"), STR("default"), 50002}, &example);
        if (code)
                close_resolver(r);
        else
                *instance = r;
        return code;
}

static const struct dapr_name_ops ops = {.mode = DAPR_WORKER, .init = init, .close = close_resolver, .resolve = resolve};
static const struct dapr_component_type types[] = {{.type = "nameresolution.kubernetes", .versions = "v1", .names = &ops}};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &(struct dapr_plugin){"nameresolution.kubernetes", "1.0.0", types, 1, .worker_threads = 16});
}
