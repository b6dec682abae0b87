/* url (tcp, mqtt; ssl, tls, mqtts, tcps), consumerID as the client's id, qos, cleanSession, certificates. */
#include "plugins/shared/mqtt/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/mqtt/packet.h"
#include "sdk/base/flags.h"
#include "sdk/net/http.h"
#include "sdk/net/tls.h"

static char *keep(struct str s)
{
        return strndup(s.p, s.n);
}

static char *unescape(struct str s)
{
        struct arena a;
        arena_init(&a, 0);
        struct str t = url_unescape(&a, s, false);
        char *r = t.p ? keep(t) : NULL;
        arena_fini(&a);
        return r;
}

static int read_url(struct dapr_call *c, const char *url, struct mqtt_settings *s, bool *ret_tls)
{
        static const char *const plain[] = {"tcp", "mqtt"}, *const secure[] = {"ssl", "tls", "mqtts", "tcps"};
        struct str rest = str_of(url), scheme;
        ptrdiff_t at = str_find(rest, STR("://"));
        bool known = false;
        scheme = at > 0 ? str_n(rest.p, (size_t)at) : STR("");
        for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++)
                known |= str_ieq(scheme, str_of(plain[i]));
        for (size_t i = 0; i < sizeof(secure) / sizeof(*secure); i++)
                *ret_tls |= str_ieq(scheme, str_of(secure[i]));
        if (!known && !*ret_tls)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "mqtt: url must begin with tcp://, mqtt://, ssl://, tls:// or mqtts://");
        rest = str_skip(rest, (size_t)at + 3);
        rest = str_cut(&rest, '/');
        ptrdiff_t amp = -1;
        for (size_t i = 0; i < rest.n; i++)
                if (rest.p[i] == '@')
                        amp = (ptrdiff_t)i;
        if (amp >= 0) {
                struct str login = str_n(rest.p, (size_t)amp), user = str_cut(&login, ':');
                s->user = unescape(user);
                if (login.p && login.n)
                        s->password = unescape(login);
                rest = str_skip(rest, (size_t)amp + 1);
                if (!s->user || (login.n && login.p && !s->password))
                        return -ENOMEM;
        }
        ptrdiff_t colon = -1;
        for (size_t i = 0; i < rest.n; i++)
                colon = rest.p[i] == ':' ? (ptrdiff_t)i : rest.p[i] == ']' ? -1 : colon;
        struct str host = colon > 0 ? str_n(rest.p, (size_t)colon) : rest;
        if (!host.n)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "mqtt: url names no host");
        s->host = host.p[0] == '[' && host.n > 2 ? keep(str_n(host.p + 1, host.n - 2)) : keep(host);
        s->address = colon > 0 ? keep(rest) : malloc(rest.n + 6);
        if (!s->host || !s->address)
                return -ENOMEM;
        if (colon <= 0) {
                memcpy(s->address, rest.p, rest.n);
                memcpy(s->address + rest.n, *ret_tls ? ":8883" : ":1883", 6);
        }
        return 0;
}

static int read_tls(struct dapr_call *c, const struct dapr_metadata *md, struct mqtt_settings *s)
{
        char err[256];
        const char *cert = dapr_md_string(md, "clientCert"), *key = dapr_md_string(md, "clientKey"), *ca = dapr_md_string(md, "caCert");
        bool both = cert && *cert && key && *key;
        struct tls_options o = {.cert_pem = str_of(both ? cert : ""), .key_pem = str_of(both ? key : ""), .roots_pem = str_of(ca ? ca : "")};
        if (tls_context_new(&s->tls, &o, err, sizeof(err)) == 0)
                return 0;
        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid TLS configuration: %s", err);
}

int mqtt_settings_read(struct dapr_call *c, const struct dapr_metadata *md, struct mqtt_settings *s)
{
        const char *url = dapr_md_string(md, "url"), *id = dapr_md_string(md, "consumerID"), *qos = dapr_md_string(md, "qos");
        int64_t n = 1;
        bool tls = false;
        if (!url || !*url)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing url");
        if (!id || !*id)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing consumerID");
        if (strlen(id) > MQTT_STRING_MAX)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "mqtt: consumerID is longer than %d bytes", MQTT_STRING_MAX);
        if (qos && *qos && (parse_int64(str_of(qos), &n) || n < 0 || n > 2))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid qos %s: write 0, 1 or 2", qos);
        s->qos = (uint8_t)n;
        s->clean_session = dapr_md_bool(md, "cleanSession");
        int r = read_url(c, url, s, &tls);
        if (!r && tls)
                r = read_tls(c, md, s);
        s->client_id = r ? NULL : strdup(id);
        return r ? r : s->client_id ? 0 : -ENOMEM;
}

void mqtt_settings_fini(struct mqtt_settings *s)
{
        free(s->address);
        free(s->host);
        free(s->user);
        free(s->password);
        free(s->client_id);
        tls_context_unref(s->tls);
        *s = (struct mqtt_settings){0};
}

const char *mqtt_error(int r)
{
        static const char *const codes[] = {"", "unacceptable protocol version", "identifier rejected", "server unavailable",
                                            "bad user name or password", "not authorized"};
        if (r > 0)
                return r < (int)(sizeof(codes) / sizeof(*codes)) ? codes[r] : "refused";
        return r ? strerror(-r) : "the connection has ended";
}
