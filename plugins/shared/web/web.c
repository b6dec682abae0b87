/* URLs, as far as base URLs need them, and requests on top of sdk/net. Certificates are verified against the system's roots. */
#include "plugins/shared/web/web.h"

#include <errno.h>
#include <stdlib.h>

#include "sdk/net/tls.h"

struct web_site {
        struct arena arena;
        struct tls_context *tls;
        struct http_client *client;
        struct str path;           /* without a slash at its end */
};

enum { CONNECT_S = 15 };

bool web_is_url(const char *s)
{
        return strncasecmp(s, "http://", 7) == 0 || strncasecmp(s, "https://", 8) == 0;
}

/* Host and port of the authority; *target is what is dialled. */
static int read_authority(struct web_site *s, struct str authority, bool https, struct str *host, const char **target)
{
        struct str port = STR_NULL;
        ptrdiff_t colon;
        *host = authority;
        if (authority.n && authority.p[0] == '[') {
                ptrdiff_t close = str_chr(authority, ']');
                if (close < 2)
                        return -EINVAL;
                *host = str_n(authority.p + 1, (size_t)close - 1);
                port = str_skip(authority, (size_t)close + 1);
        } else if ((colon = str_chr(authority, ':')) >= 0) {
                *host = str_n(authority.p, (size_t)colon);
                port = str_skip(authority, (size_t)colon);
        }
        if (!host->n || str_chr(authority, '@') >= 0 || (port.n && (port.p[0] != ':' || port.n == 1)))
                return -EINVAL;
        for (size_t i = 1; i < port.n; i++)
                if (port.p[i] < '0' || port.p[i] > '9')
                        return -EINVAL;
        *target = port.n ? arena_strdup(&s->arena, authority) : arena_printf(&s->arena, "%.*s:%d", STR_FMT(authority), https ? 443 : 80);
        return *target ? 0 : -ENOMEM;
}

static int set_up(struct web_site *s, const char *url, struct tls_context *given, const char *server_name, const char **ret_err)
{
        bool https = strncasecmp(url, "https", 5) == 0;
        struct str rest = arena_str(&s->arena, str_of(url + (https ? 8 : 7))), host;
        struct tls_options tls = {0};
        const char *target;
        char err[200];
        ptrdiff_t slash;
        if (!rest.p)
                return -ENOMEM;
        for (size_t i = 0; i < rest.n; i++)
                if ((unsigned char)rest.p[i] <= ' ' || (unsigned char)rest.p[i] >= 0x7f)
                        return -EINVAL;
        slash = str_chr(rest, '/');
        s->path = slash < 0 ? STR("") : str_skip(rest, (size_t)slash);
        while (s->path.n && s->path.p[s->path.n - 1] == '/')
                s->path.n--;
        struct str authority = slash < 0 ? rest : str_n(rest.p, (size_t)slash);
        int r = read_authority(s, authority, https, &host, &target);
        if (r)
                return r;
        if (https && given)
                s->tls = tls_context_ref(given);
        else if (https && tls_context_new(&s->tls, &tls, err, sizeof err)) {
                *ret_err = "the system's certificate authorities cannot be read";
                return -EINVAL;
        }
        return http_client_new(&s->client, &(struct http_client_conf){.target = str_of(target),
                                                                      .authority = authority,
                                                                      .tls = s->tls,
                                                                      .server_name = *server_name ? str_of(server_name) : host,
                                                                      .connect_timeout_s = CONNECT_S});
}

int web_site_new(struct web_site **ret, const char *url, const char **ret_err)
{
        return web_site_new_tls(ret, url, NULL, "", ret_err);
}

int web_site_new_tls(struct web_site **ret, const char *url, struct tls_context *tls, const char *server_name, const char **ret_err)
{
        *ret_err = "not the URL of a web server";
        if (!web_is_url(url))
                return -EINVAL;
        struct web_site *s = calloc(1, sizeof *s);
        int r = s ? set_up(s, url, tls, server_name, ret_err) : -ENOMEM;
        if (r)
                web_site_free(s);
        else
                *ret = s;
        return r;
}

void web_site_free(struct web_site *s)
{
        if (!s)
                return;
        if (s->client)
                http_client_free(s->client);
        tls_context_unref(s->tls);
        arena_fini(&s->arena);
        free(s);
}

static const char *why(int r)
{
        switch (-r) {
        case ETIMEDOUT: return "request timeout: API call exceeded deadline";
        case ECANCELED: return "request cancelled";
        case EKEYREJECTED: return "network error: the server's certificate is not trusted";
        case EPROTO: return "network error: TLS handshake failed";
        case EMSGSIZE: return "the server's answer is too long";
        case EBADMSG: return "the server's answer is not valid HTTP";
        case ENOMEM: return "out of memory";
        default: return "network error: failed to reach API server";
        }
}

int web_request(struct web_site *s, struct arena *a, const char *method, const char *suffix, const struct http_header *h, size_t n_headers,
                struct str body, size_t max_answer, struct web_answer *ret, const char **ret_err)
{
        struct http_exchange *x = NULL;
        const char *path = arena_printf(a, "%.*s%s", STR_FMT(s->path), suffix);
        int r = path ? 0 : -ENOMEM;
        if (!r)
                r = http_client_start(s->client, a, str_of(method), str_of(*path ? path : "/"), h, n_headers, (int64_t)body.n,
                                      body.p ? body : STR(""), &x);
        if (!r)
                r = http_exchange_response(x);
        if (!r) {
                ret->status = x->status;
                ret->headers = (struct http_headers){0};
                for (size_t i = 0; r == 0 && i < x->headers.n; i++)
                        r = http_headers_add(&ret->headers, a, arena_str(a, x->headers.v[i].name), arena_str(a, x->headers.v[i].value));
        }
        if (!r) {
                ret->content_type = arena_str(a, http_headers_get(&x->headers, "Content-Type"));
                r = ret->content_type.p ? http_exchange_body(x, a, max_answer, &ret->body) : -ENOMEM;
        }
        if (x)
                http_exchange_close(x);
        *ret_err = r ? why(r) : NULL;
        return r;
}
