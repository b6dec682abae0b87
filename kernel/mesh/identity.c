/*
 * Order of an attempt: key and request on the worker pool -> SignCertificate at sentry over TLS (sentry proves its SPIFFE id, we have
 * none yet) -> contexts. The private key lives in this object and in the TLS library, nowhere else.
 */
#include "kernel/mesh/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "dapr/proto/sentry/v1/sentry.pb-c.h"
#include "kernel/kernel.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/base/work.h"
#include "sdk/net/pki.h"
#include "sdk/net/rpc.h"
#include "sdk/net/tls.h"

#define SCOPE "dapr.runtime.security"

enum { IDENTITY_TRIES = 5, IDENTITY_PAUSE_S = 3, RENEW_RETRY_S = 10, SIGN_TIMEOUT_S = 10, TOKEN_MAX = 64 * 1024 };

struct peer { /* whom a client context expects */
        char uri[300];
};
struct identity {
        struct kernel *k;
        struct str anchors;
        struct peer sentry;
        struct rpc_channel *channel;
        struct tls_context *sentry_tls, *server;
        struct pki_key key;
        char *chain;          /* PEM, leaf first */
        char chain_key[PKI_KEY_PEM_MAX]; /* of chain: `key` is renewed first */
        unsigned generation;
        struct map apps;      /* "<ns>/<app id>" -> struct peer, whom contexts point to: kept to the end */
        int64_t not_before, not_after;
        void (*on_new)(void *arg, struct tls_context *server);
        void *arg;
        struct scope scope;
};

static const char *const h2_only[] = {"h2", NULL}; /* grpc-go ends connections without ALPN */

int spiffe_of_leaf(struct str leaf, struct spiffe_id *ret)
{
        int r = pki_uri(leaf, ret->text, sizeof ret->text);
        struct str rest = str_of(ret->text);

        if (r)
                return r == -ENOENT ? r : -EINVAL;
        if (!str_has_prefix(rest, STR("spiffe://")))
                return -ENOENT;
        rest = str_skip(rest, sizeof "spiffe://" - 1);
        ret->trust_domain = str_cut(&rest, '/');
        if (!rest.p || !str_eqz(str_cut(&rest, '/'), "ns") || !rest.p)
                return -EINVAL;
        ret->ns = str_cut(&rest, '/');
        ret->app_id = rest.p ? str_cut(&rest, '/') : STR(""); /* more may follow one day */
        return ret->trust_domain.n && ret->ns.n && ret->app_id.n ? 0 : -EINVAL;
}

/* uri: "<ns>/<app id>" */
static int check_app(void *arg, struct str leaf)
{
        const struct peer *p = arg;
        struct spiffe_id id;
        struct str rest = str_of(p->uri), ns = str_cut(&rest, '/');

        return spiffe_of_leaf(leaf, &id) == 0 && str_eq(id.ns, ns) && str_eq(id.app_id, rest) ? 0 : -EACCES;
}

static int check_peer(void *arg, struct str leaf)
{
        const struct peer *p = arg;
        return pki_has_uri(leaf, str_of(p->uri)) ? 0 : -EACCES;
}

int identity_new(struct identity **ret, struct kernel *k, struct arena *a, const char **ret_err)
{
        const struct daprd_opts *o = &k->opts;
        char err[256];

        if (!o->sentry_address[0]) {
                *ret_err = "failed to get sentry address: --sentry-address is needed with --enable-mtls";
                return -EINVAL;
        }
        if (!o->trust_anchors || !o->trust_anchors[0]) {
                *ret_err = "trust anchors are required: set DAPR_TRUST_ANCHORS to the root certificates (PEM)";
                return -EINVAL;
        }
        struct identity *i = calloc(1, sizeof *i);
        if (!i)
                return -ENOMEM;
        i->k = k;
        scope_init(&i->scope);
        i->anchors = str_of(o->trust_anchors);
        snprintf(i->sentry.uri, sizeof i->sentry.uri, "spiffe://%s/ns/%s/dapr-sentry", o->control_plane_trust_domain, o->control_plane_namespace);
        struct tls_options to = {.roots_pem = i->anchors, .alpn = h2_only, .verify_peer = check_peer, .verify_arg = &i->sentry};
        struct rpc_channel_conf conf = {.target = str_of(o->sentry_address)};
        int r = tls_context_new(&i->sentry_tls, &to, err, sizeof err);
        if (r)
                *ret_err = arena_printf(a, "the trust anchors of DAPR_TRUST_ANCHORS cannot be used: %s", err);
        conf.tls = i->sentry_tls;
        if (!r && (r = rpc_channel_new(&i->channel, &conf)))
                *ret_err = arena_printf(a, "the sentry address %s cannot be used", o->sentry_address);
        if (r) {
                identity_free(i);
                return r;
        }
        *ret = i;
        return 0;
}

static int new_key(void *arg)
{
        return pki_key_new(arg);
}

/* Proof of identity from DAPR_SENTRY_TOKEN_FILE, read anew for each request: the file is rotated. */
static int read_token(struct identity *i, struct arena *a, const char **ret)
{
        const char *path = i->k->opts.sentry_token_file;
        *ret = "";
        if (!path || !path[0])
                return 0;
        char *text = arena_zalloc(a, TOKEN_MAX);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || !text) {
                int e = fd < 0 ? -errno : -ENOMEM;
                if (fd >= 0)
                        close(fd);
                return e;
        }
        ssize_t n = read(fd, text, TOKEN_MAX - 1);
        int e = n < 0 ? -errno : 0;
        close(fd);
        *ret = text;
        return e;
}

typedef Dapr__Proto__Sentry__V1__SignCertificateResponse sign_response;

/* One certificate request. 0 and *ret, or -errno with the reason. */
static int sign(struct identity *i, struct arena *a, sign_response **ret, const char **ret_err)
{
        const struct daprd_opts *o = &i->k->opts;
        Dapr__Proto__Sentry__V1__SignCertificateRequest in = DAPR__PROTO__SENTRY__V1__SIGN_CERTIFICATE_REQUEST__INIT;
        struct rpc_opts ro = {.timeout_s = SIGN_TIMEOUT_S};
        struct rpc_status st = {0};
        const char *token;
        int r = read_token(i, a, &token);

        if (r) {
                *ret_err = arena_printf(a, "the identity token %s cannot be read: %s", o->sentry_token_file, strerror(-r));
                return r;
        }
        if ((r = work_run(new_key, &i->key))) {
                *ret_err = "failed to create a private key";
                return r;
        }
        in.id = o->app_id;
        in.token = token;
        in.namespace_ = o->namespace_[0] ? o->namespace_ : "default";
        in.trust_domain = "public";
        struct str acl = configuration_section(&i->k->config, "accessControl");
        struct json_reader jr;
        struct str name, value;
        json_read_init(&jr, acl);
        if (acl.n && json_enter_object(&jr))
                while (json_next_member(&jr, a, &name)) {
                        if (str_eqz(name, "trustDomain") && json_read_string(&jr, a, &value) && value.n)
                                in.trust_domain = arena_strdup(a, value);
                        else
                                json_skip(&jr);
                }
        in.certificate_signing_request = pb_bytes(str_of(i->key.csr_pem));
        in.token_validator = token[0] ? DAPR__PROTO__SENTRY__V1__SIGN_CERTIFICATE_REQUEST__TOKEN_VALIDATOR__JWKS
                                      : DAPR__PROTO__SENTRY__V1__SIGN_CERTIFICATE_REQUEST__TOKEN_VALIDATOR__INSECURE;
        if (rpc_unary_pb(i->channel, a, "/dapr.proto.sentry.v1.CA/SignCertificate", &in.base,
                         &dapr__proto__sentry__v1__sign_certificate_response__descriptor, ret, &ro, &st)) {
                *ret_err = arena_printf(a, "error from sentry SignCertificate: rpc error: code = %s desc = %.*s", rpc_code_name(st.code),
                                        STR_FMT(st.message));
                return -EIO;
        }
        return 0;
}

/* Takes a signed chain into use. The new server context first: whatever fails leaves the old one. */
static int adopt(struct identity *i, struct arena *a, const sign_response *resp, const char **ret_err)
{
        struct str pem = pb_str(resp->workload_certificate);
        struct tls_options to = {.server = true, .cert_pem = pem, .key_pem = str_of(i->key.key_pem), .roots_pem = i->anchors, .require_peer_cert = true};
        struct tls_context *server = NULL;
        char err[256] = "its validity cannot be read";

        to.alpn = h2_only;
        if (pki_validity(pem, &i->not_before, &i->not_after) || tls_context_new(&server, &to, err, sizeof err)) {
                *ret_err = arena_printf(a, "the certificate that sentry sent cannot be used: %s", err);
                return -EINVAL;
        }
        char *chain = strndup(pem.p, pem.n);
        if (!chain) {
                tls_context_unref(server);
                return -ENOMEM;
        }
        free(i->chain);
        i->chain = chain;
        memcpy(i->chain_key, i->key.key_pem, sizeof i->chain_key);
        tls_context_unref(i->server);
        i->server = server;
        i->generation++;
        if (i->on_new)
                i->on_new(i->arg, server);
        return 0;
}

static int fetch(struct identity *i, struct arena *a, const char **ret_err)
{
        sign_response *resp;
        int r = sign(i, a, &resp, ret_err);
        return r ? r : adopt(i, a, resp, ret_err);
}

static void renew(void *arg)
{
        struct identity *i = arg;
        for (;;) {
                double left = (double)(i->not_after - i->not_before) / 2 - (double)(time(NULL) - i->not_before);
                if (fiber_sleep(left > 1 ? left : 1))
                        return;
                struct arena a;
                const char *err = "out of memory";
                arena_init(&a, 0);
                log_info(SCOPE, "Renewing workload cert; current cert expires on: %lld", (long long)i->not_after);
                while (fetch(i, &a, &err)) {
                        log_error(SCOPE, "Error renewing identity certificate, trying again in %d seconds: %s", RENEW_RETRY_S, err);
                        arena_reset(&a);
                        if (fiber_sleep(RENEW_RETRY_S)) {
                                arena_fini(&a);
                                return;
                        }
                }
                arena_fini(&a);
        }
}

int identity_start(struct identity *i, void (*on_new)(void *arg, struct tls_context *server), void *arg, struct arena *a,
                   const char **ret_err)
{
        int r = -EIO;
        i->on_new = on_new;
        i->arg = arg;
        log_info(SCOPE, "Fetching initial identity");
        for (int n = 0; n < IDENTITY_TRIES; n++) {
                if (n && (r = fiber_sleep(IDENTITY_PAUSE_S)))
                        return r;
                if ((r = fetch(i, a, ret_err)) == 0)
                        break;
                log_warn(SCOPE, "attempt %d of %d for an identity failed: %s", n + 1, IDENTITY_TRIES, *ret_err ? *ret_err : "out of memory");
        }
        if (r) {
                *ret_err = arena_printf(a, "failed to retrieve the initial identity: %s", *ret_err ? *ret_err : "out of memory");
                return r;
        }
        log_info(SCOPE, "Security is initialized successfully");
        return fiber_go(&i->scope, "identity-renewal", renew, i);
}

static struct peer *expected(struct identity *i, struct str key)
{
        struct peer *p = map_get(&i->apps, key);

        if (p || i->apps.count >= IDENTITY_PEERS_MAX || !(p = calloc(1, sizeof *p)))
                return p;
        memcpy(p->uri, key.p, key.n);
        if (map_set(&i->apps, key, p)) {
                free(p);
                p = NULL;
        }
        return p;
}

int identity_client_tls(struct identity *i, struct str ns, struct str app_id, struct tls_context **ret)
{
        char key[sizeof ((struct peer *)0)->uri], err[256];
        int n = snprintf(key, sizeof key, "%.*s/%.*s", STR_FMT(ns), STR_FMT(app_id));
        struct tls_options to = {.cert_pem = str_of(i->chain), .key_pem = str_of(i->chain_key), .roots_pem = i->anchors, .alpn = h2_only,
                                 .verify_peer = check_app};

        if (n < 0 || (size_t)n >= sizeof key)
                return -EINVAL;
        if (!(to.verify_arg = expected(i, str_n(key, (size_t)n))))
                return i->apps.count >= IDENTITY_PEERS_MAX ? -ENOSPC : -ENOMEM;
        return tls_context_new(ret, &to, err, sizeof err);
}

unsigned identity_generation(const struct identity *i)
{
        return i->generation;
}

struct tls_context *identity_server_tls(struct identity *i)
{
        return i->server;
}

void identity_free(struct identity *i)
{
        if (!i)
                return;
        scope_cancel(&i->scope);
        scope_join(&i->scope);
        if (i->channel)
                rpc_channel_close(i->channel);
        tls_context_unref(i->sentry_tls);
        tls_context_unref(i->server);
        explicit_bzero(&i->key, sizeof i->key);
        explicit_bzero(i->chain_key, sizeof i->chain_key);
        for (struct map_entry *e = NULL; (e = map_next(&i->apps, e));)
                free(e->value);
        map_fini(&i->apps);
        free(i->chain);
        free(i);
}
