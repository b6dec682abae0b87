/* Metadata of AMQP components: a connection string amqp[s]://user:password@host:port/vhost, or its parts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/amqp/amqp.h"
#include "sdk/net/http.h"
#include "sdk/net/tls.h"

enum { HEARTBEAT_S = 10 };

static int keep_unescaped(struct str s, char **to)
{
        struct arena a;
        arena_init(&a, 0);
        struct str t = url_unescape(&a, s, false);
        free(*to);
        *to = t.p ? strndup(t.p, t.n) : NULL;
        arena_fini(&a);
        return *to ? 0 : -ENOMEM;
}

static int keep(struct str s, char **to)
{
        free(*to);
        *to = strndup(s.p ? s.p : "", s.n);
        return *to ? 0 : -ENOMEM;
}

static int read_address(struct str host, bool tls, struct amqp_settings *s)
{
        char address[300];
        ptrdiff_t colon = -1;
        for (size_t i = 0; i < host.n; i++)
                colon = host.p[i] == ':' ? (ptrdiff_t)i : host.p[i] == ']' ? -1 : colon;
        struct str name = colon >= 0 ? str_n(host.p, (size_t)colon) : host;
        struct str port = colon >= 0 ? str_skip(host, (size_t)colon + 1) : STR("");
        if (!name.n)
                name = STR("localhost");
        snprintf(address, sizeof(address), "%.*s:%.*s", STR_FMT(name), STR_FMT(port.n ? port : tls ? STR("5671") : STR("5672")));
        if (name.n > 2 && name.p[0] == '[')
                name = str_n(name.p + 1, name.n - 2);
        int r = keep(name, &s->host);
        return r ? r : keep(str_of(address), &s->address);
}

/* What stands behind "amqp://". */
static int read_url(struct str rest, bool tls, struct amqp_settings *s)
{
        struct str authority = str_cut(&rest, '/');
        struct str vhost = rest.p ? str_cut(&rest, '?') : STR("");
        ptrdiff_t at = -1;
        int r = 0;
        for (size_t i = 0; i < authority.n; i++)
                at = authority.p[i] == '@' ? (ptrdiff_t)i : at;
        if (at >= 0) {
                struct str login = str_n(authority.p, (size_t)at), user = str_cut(&login, ':');
                r = keep_unescaped(user, &s->user);
                if (!r && login.p)
                        r = keep_unescaped(login, &s->password);
                authority = str_skip(authority, (size_t)at + 1);
        }
        if (!r && vhost.n)
                r = keep_unescaped(vhost, &s->vhost);
        return r ? r : read_address(authority, tls, s);
}

static int read_where(struct dapr_call *c, const struct dapr_metadata *md, const char *prefix, struct amqp_settings *s, bool *ret_tls)
{
        const char *url = dapr_md_string(md, "connectionString"), *protocol = dapr_md_string(md, "protocol");
        const char *host = dapr_md_string(md, "hostname"), *user = dapr_md_string(md, "username"), *password = dapr_md_string(md, "password");
        if (!url || !*url)
                url = dapr_md_string(md, "host");
        if (url && *url) {
                struct str u = str_of(url);
                bool plain = str_has_prefix(u, STR("amqp://"));
                *ret_tls = str_has_prefix(u, STR("amqps://"));
                if (!plain && !*ret_tls)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%sinvalid connection string: AMQP scheme must be either "
                                                                   "'amqp://' or 'amqps://'", prefix);
                if (protocol && *protocol && strcmp(protocol, plain ? "amqp" : "amqps") != 0)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%sprotocol does not match connection string, protocol: %s", prefix,
                                         protocol);
                return read_url(str_skip(u, plain ? 7 : 8), *ret_tls, s);
        }
        *ret_tls = protocol && strcmp(protocol, "amqps") == 0;
        if (protocol && *protocol && !*ret_tls && strcmp(protocol, "amqp") != 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%sprotocol is %s: write amqp or amqps", prefix, protocol);
        int r = read_address(str_of(host && *host ? host : "localhost"), *ret_tls, s);
        if (!r && user && *user)
                r = keep(str_of(user), &s->user);
        if (!r && user && *user)
                r = keep(str_of(password ? password : ""), &s->password);
        return r;
}

int amqp_settings_read(struct dapr_call *c, const struct dapr_metadata *md, const char *prefix, struct amqp_settings *s)
{
        char err[256];
        bool tls = false;
        *s = (struct amqp_settings){.user = strdup("guest"), .password = strdup("guest"), .vhost = strdup("/"), .heartbeat_s = HEARTBEAT_S};
        int r = s->user && s->password && s->vhost ? read_where(c, md, prefix, s, &tls) : -ENOMEM;
        if (r)
                return r;
        const char *cert = dapr_md_string(md, "clientCert"), *key = dapr_md_string(md, "clientKey"), *ca = dapr_md_string(md, "caCert");
        const char *name = dapr_md_string(md, "clientName");
        bool both = cert && *cert && key && *key;
        s->external = dapr_md_bool(md, "saslExternal") || dapr_md_bool(md, "externalSasl");
        if (s->external && !(both && ca && *ca))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "saslExternal can only be set to true, when all these properties are set: caCert, "
                                                           "clientCert, clientKey");
        if (name && *name && keep(str_of(name), &s->client_name))
                return -ENOMEM;
        if (dapr_md_has(md, "heartBeat"))
                s->heartbeat_s = (double)dapr_md_duration_ns(md, "heartBeat") / 1e9;
        if (s->heartbeat_s > 0 && s->heartbeat_s < 1)
                s->heartbeat_s = 1;
        if (!tls)
                return 0;
        struct tls_options o = {.cert_pem = str_of(both ? cert : ""), .key_pem = str_of(both ? key : ""), .roots_pem = str_of(ca ? ca : "")};
        return tls_context_new(&s->tls, &o, err, sizeof(err)) == 0
                       ? 0
                       : dapr_fail(c, DAPR_INVALID_ARGUMENT, "%sinvalid TLS configuration: %s", prefix, err);
}

void amqp_settings_fini(struct amqp_settings *s)
{
        free(s->address);
        free(s->host);
        free(s->user);
        free(s->password);
        free(s->vhost);
        free(s->client_name);
        tls_context_unref(s->tls);
        *s = (struct amqp_settings){0};
}
