/* natsURL (one or several, nats:// or tls://, with a login or a token), and how the client shows who it is. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>

#include "plugins/shared/nats/nats.h"
#include "plugins/shared/nats/nkey.h"
#include "sdk/net/http.h"
#include "sdk/net/tls.h"

enum { PEM_FILE_MAX = 256 << 10 };

static int keep(struct str s, char **to)
{
        *to = strndup(s.p ? s.p : "", s.n);
        return *to ? 0 : -ENOMEM;
}

static int keep_unescaped(struct str s, char **to)
{
        struct arena a;
        arena_init(&a, 0);
        struct str t = url_unescape(&a, s, false);
        int r = t.p ? keep(t, to) : -ENOMEM;
        arena_fini(&a);
        return r;
}

/* ---- servers ---- */

static int read_login(struct str login, struct nats_server *v)
{
        struct str user = str_cut(&login, ':');
        int r;
        if (!login.p) /* one word is a token */
                return keep_unescaped(user, &v->token);
        r = keep_unescaped(user, &v->user);
        return r ? r : keep_unescaped(login, &v->password);
}

static int read_server(struct dapr_call *c, struct str url, struct nats_server *v)
{
        ptrdiff_t at = str_find(url, STR("://")), amp = -1, colon = -1;
        int r = 0;
        if (at >= 0) {
                struct str scheme = str_n(url.p, (size_t)at);
                v->tls = str_ieq(scheme, STR("tls"));
                if (!v->tls && !str_ieq(scheme, STR("nats")))
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "natsURL is %.*s://…: write nats://host:port or tls://host:port", STR_FMT(scheme));
                url = str_skip(url, (size_t)at + 3);
        }
        url = str_cut(&url, '/');
        for (size_t i = 0; i < url.n; i++)
                amp = url.p[i] == '@' ? (ptrdiff_t)i : amp;
        if (amp >= 0) {
                r = read_login(str_n(url.p, (size_t)amp), v);
                url = str_skip(url, (size_t)amp + 1);
        }
        for (size_t i = 0; i < url.n; i++)
                colon = url.p[i] == ':' ? (ptrdiff_t)i : url.p[i] == ']' ? -1 : colon;
        struct str host = colon >= 0 ? str_n(url.p, (size_t)colon) : url;
        if (!host.n)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "natsURL names no host: write nats://host:port");
        if (!r && colon >= 0)
                r = keep(url, &v->address);
        else if (!r && asprintf(&v->address, "%.*s:4222", STR_FMT(url)) < 0)
                r = -ENOMEM, v->address = NULL;
        if (host.n > 2 && host.p[0] == '[')
                host = str_n(host.p + 1, host.n - 2);
        return r ? r : keep(host, &v->host);
}

static int read_servers(struct dapr_call *c, const char *urls, struct nats_settings *s)
{
        int r = 0;
        if (!urls || !*urls)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing nats URL");
        for (struct str rest = str_of(urls); !r && rest.p;) {
                struct str one = str_trim(str_cut(&rest, ','));
                if (!one.n)
                        continue;
                if (s->n_servers == NATS_SERVERS_MAX)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "natsURL names more than %d servers", NATS_SERVERS_MAX);
                r = read_server(c, one, &s->servers[s->n_servers++]);
        }
        return r;
}

/* ---- certificates: as text, or as the path of a file ---- */

struct pem {
        const char *given;
        char *text;
};

static int read_file(void *arg)
{
        struct pem *p = arg;
        size_t n = 0;
        ssize_t got = 1;
        int fd = open(p->given, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        p->text = malloc(PEM_FILE_MAX + 1);
        while (p->text && n < PEM_FILE_MAX && (got = read(fd, p->text + n, PEM_FILE_MAX - n)) > 0)
                n += (size_t)got;
        int r = !p->text ? -ENOMEM : got < 0 ? -errno : n == PEM_FILE_MAX ? -EFBIG : 0;
        close(fd);
        if (p->text)
                p->text[n] = 0;
        return r;
}

static int read_pem(struct dapr_call *c, const struct dapr_metadata *md, const char *field, struct pem *p)
{
        p->given = dapr_md_string(md, field);
        if (!p->given || !*p->given)
                return 0;
        if (strstr(p->given, "-----BEGIN"))
                return keep(str_of(p->given), &p->text);
        int r = dapr_work(read_file, p);
        return !r || r == -ENOMEM || r == -ECANCELED ? r : dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s: neither a PEM text nor a file that can be read: %s",
                                                                     field, strerror(-r));
}

static int read_tls(struct dapr_call *c, const struct dapr_metadata *md, struct nats_settings *s)
{
        struct pem cert = {0}, key = {0}, roots = {0};
        char err[256];
        int r = read_pem(c, md, "tls_client_cert", &cert);
        if (!r)
                r = read_pem(c, md, "tls_client_key", &key);
        if (!r)
                r = read_pem(c, md, "caCert", &roots);
        if (!r && !cert.text != !key.text)
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, cert.text ? "missing tls client key" : "missing tls client cert");
        if (!r) {
                struct tls_options o = {.cert_pem = str_of(cert.text), .key_pem = str_of(key.text), .roots_pem = str_of(roots.text)};
                s->force_tls = cert.text != NULL;
                if (tls_context_new(&s->tls, &o, err, sizeof(err)))
                        r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid TLS configuration: %s", err);
        }
        free(cert.text);
        if (key.text)
                explicit_bzero(key.text, strlen(key.text));
        free(key.text);
        free(roots.text);
        return r;
}

/* ---- all of it ---- */

int nats_settings_read(struct dapr_call *c, const struct dapr_metadata *md, struct nats_settings *s)
{
        const char *name = dapr_md_string(md, "name"), *token = dapr_md_string(md, "token");
        const char *jwt = dapr_md_string(md, "jwt"), *seed = dapr_md_string(md, "seedKey");
        int r = read_servers(c, dapr_md_string(md, "natsURL"), s);
        if (r)
                return r;
        if (jwt && *jwt && !(seed && *seed))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing seed key");
        if (seed && *seed && !(jwt && *jwt))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing jwt");
        if (seed && *seed && !nkey_is_user_seed(str_of(seed)))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "seedKey is no seed of a NATS user: it begins with SU and has 58 letters");
        if (jwt && *jwt)
                r = keep(str_of(jwt), &s->jwt);
        if (!r && s->jwt)
                r = keep(str_of(seed), &s->seed);
        if (!r && token && *token)
                r = keep(str_of(token), &s->token);
        if (!r)
                r = keep(str_of(name && *name ? name : "dapr.io - pubsub.jetstream"), &s->name);
        return r ? r : read_tls(c, md, s);
}

void nats_settings_fini(struct nats_settings *s)
{
        for (size_t i = 0; i < s->n_servers; i++) {
                free(s->servers[i].address);
                free(s->servers[i].host);
                free(s->servers[i].user);
                free(s->servers[i].password);
                free(s->servers[i].token);
        }
        free(s->name);
        free(s->token);
        free(s->jwt);
        free(s->seed);
        tls_context_unref(s->tls);
        *s = (struct nats_settings){0};
}
