/*
 * TLS clients that let a server negotiate again (TLS 1.2), by OpenSSL: Debian's wolfSSL refuses it. OpenSSL is loaded when the first such
 * context is made, so that nobody else pays for it, and is known here only. The peer's name is held against its alternative names
 * only, as in tls.c. A negotiation that the peer asks for runs inside session_read(); until it is done session_write() gives -EAGAIN.
 */
#include "sdk/net/tls_openssl.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/net/tls_ops.h"

enum { WIRE_BYTES = 128, NAME_BYTES = 256 };

static const char ciphers[] = "ECDHE+CHACHA20:ECDHE+AESGCM";

#define OF(f) __typeof__(&f) f
static struct {
        OF(TLS_client_method);
        OF(SSL_CTX_new);
        OF(SSL_CTX_free);
        OF(SSL_CTX_ctrl);
        OF(SSL_CTX_set_cipher_list);
        OF(SSL_CTX_set_verify);
        OF(SSL_CTX_get_cert_store);
        OF(SSL_CTX_use_certificate);
        OF(SSL_CTX_use_PrivateKey);
        OF(SSL_CTX_check_private_key);
        OF(SSL_CTX_load_verify_locations);
        OF(SSL_CTX_set_alpn_protos);
        OF(SSL_CTX_set_info_callback);
        OF(SSL_new);
        OF(SSL_free);
        OF(SSL_ctrl);
        OF(SSL_set_bio);
        OF(SSL_set_connect_state);
        OF(SSL_do_handshake);
        OF(SSL_read);
        OF(SSL_write);
        OF(SSL_shutdown);
        OF(SSL_get_error);
        OF(SSL_get0_alpn_selected);
        OF(SSL_get0_param);
        OF(SSL_set1_host);
        OF(SSL_set_hostflags);
        OF(SSL_set_options);
        OF(SSL_set_ex_data);
        OF(SSL_get_ex_data);
        OF(SSL_get_verify_result);
        OF(SSL_get_version);
        OF(SSL_get1_peer_certificate);
        OF(X509_VERIFY_PARAM_set1_ip_asc);
        OF(X509_STORE_add_cert);
        OF(X509_free);
        OF(i2d_X509);
        OF(EVP_PKEY_free);
        OF(BIO_new);
        OF(BIO_new_mem_buf);
        OF(BIO_s_mem);
        OF(BIO_free);
        OF(BIO_read);
        OF(BIO_write);
        OF(BIO_ctrl);
        OF(PEM_read_bio_X509);
        OF(PEM_read_bio_PrivateKey);
        OF(ERR_peek_last_error);
        OF(ERR_error_string_n);
        OF(ERR_clear_error);
} lib;

#define ROW(f) {#f, (void **)&lib.f}
static const struct {
        const char *name;
        void **to;
} functions[] = {
        ROW(TLS_client_method),
        ROW(SSL_CTX_new),
        ROW(SSL_CTX_free),
        ROW(SSL_CTX_ctrl),
        ROW(SSL_CTX_set_cipher_list),
        ROW(SSL_CTX_set_verify),
        ROW(SSL_CTX_get_cert_store),
        ROW(SSL_CTX_use_certificate),
        ROW(SSL_CTX_use_PrivateKey),
        ROW(SSL_CTX_check_private_key),
        ROW(SSL_CTX_load_verify_locations),
        ROW(SSL_CTX_set_alpn_protos),
        ROW(SSL_CTX_set_info_callback),
        ROW(SSL_new),
        ROW(SSL_free),
        ROW(SSL_ctrl),
        ROW(SSL_set_bio),
        ROW(SSL_set_connect_state),
        ROW(SSL_do_handshake),
        ROW(SSL_read),
        ROW(SSL_write),
        ROW(SSL_shutdown),
        ROW(SSL_get_error),
        ROW(SSL_get0_alpn_selected),
        ROW(SSL_get0_param),
        ROW(SSL_set1_host),
        ROW(SSL_set_hostflags),
        ROW(SSL_set_options),
        ROW(SSL_set_ex_data),
        ROW(SSL_get_ex_data),
        ROW(SSL_get_verify_result),
        ROW(SSL_get_version),
        ROW(SSL_get1_peer_certificate),
        ROW(X509_VERIFY_PARAM_set1_ip_asc),
        ROW(X509_STORE_add_cert),
        ROW(X509_free),
        ROW(i2d_X509),
        ROW(EVP_PKEY_free),
        ROW(BIO_new),
        ROW(BIO_new_mem_buf),
        ROW(BIO_s_mem),
        ROW(BIO_free),
        ROW(BIO_read),
        ROW(BIO_write),
        ROW(BIO_ctrl),
        ROW(PEM_read_bio_X509),
        ROW(PEM_read_bio_PrivateKey),
        ROW(ERR_peek_last_error),
        ROW(ERR_error_string_n),
        ROW(ERR_clear_error),
};

struct tls_context {
        struct tls_context_base base;
        SSL_CTX *ctx;
        bool only_once, verifies;
};

struct session {
        struct tls_session s;
        struct tls_context *context;
        SSL *ssl;
        BIO *in, *out;          /* the SSL's own */
        unsigned char *leaf;    /* DER */
        bool done;              /* the first handshake */
        bool refused;           /* another one */
        unsigned renegotiations;
        char text[256];
};

static const struct tls_ops openssl_ops;

/* ---- contexts ---- */

static int fail(char *err, size_t err_n, const char *what)
{
        if (err_n)
                snprintf(err, err_n, "%s", what);
        if (lib.ERR_clear_error)
                lib.ERR_clear_error();
        return -EINVAL;
}

static int load(char *err, size_t err_n)
{
        static void *handle;

        if (handle)
                return 0;
        handle = dlopen("libssl.so.3", RTLD_NOW | RTLD_LOCAL);
        for (size_t i = 0; handle && i < sizeof functions / sizeof *functions; i++)
                if (!(*functions[i].to = dlsym(handle, functions[i].name))) {
                        dlclose(handle);
                        handle = NULL;
                }
        if (!handle)
                return fail(err, err_n, "renegotiation needs OpenSSL's libssl.so.3, which is not installed (Debian: libssl3)");
        return 0;
}

/* Counts; the last one that is allowed shuts the door. */
static void on_info(const SSL *ssl, int where, int ret)
{
        struct session *s = lib.SSL_get_ex_data(ssl, 0);

        if (s && (where & SSL_CB_WRITE_ALERT) == SSL_CB_WRITE_ALERT && (ret & 0xff) == SSL_AD_NO_RENEGOTIATION)
                s->refused = true;
        if (!(where & SSL_CB_HANDSHAKE_DONE) || !s)
                return;
        if (s->done)
                s->renegotiations++;
        s->done = true;
        if (s->context->only_once && s->renegotiations)
                lib.SSL_set_options(s->ssl, SSL_OP_NO_RENEGOTIATION);
}

static BIO *memory_of(struct str pem)
{
        return lib.BIO_new_mem_buf(pem.p, (int)pem.n);
}

static int set_identity(struct tls_context *t, const struct tls_options *o, char *err, size_t err_n)
{
        BIO *b = memory_of(o->cert_pem);
        X509 *leaf = b ? lib.PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL, *next;
        EVP_PKEY *key;
        bool ok = leaf && lib.SSL_CTX_use_certificate(t->ctx, leaf) == 1;

        lib.X509_free(leaf);
        while (ok && (next = lib.PEM_read_bio_X509(b, NULL, NULL, NULL)))
                if (!lib.SSL_CTX_ctrl(t->ctx, SSL_CTRL_EXTRA_CHAIN_CERT, 0, next)) { /* else it takes it */
                        lib.X509_free(next);
                        ok = false;
                }
        lib.BIO_free(b);
        if (!ok)
                return fail(err, err_n, "certificate cannot be read");
        b = memory_of(o->key_pem);
        key = b ? lib.PEM_read_bio_PrivateKey(b, NULL, NULL, (void *)(uintptr_t) "") : NULL;
        ok = key && lib.SSL_CTX_use_PrivateKey(t->ctx, key) == 1;
        lib.EVP_PKEY_free(key);
        lib.BIO_free(b);
        if (!ok)
                return fail(err, err_n, "private key cannot be read, or does not fit the certificate");
        lib.ERR_clear_error();
        return lib.SSL_CTX_check_private_key(t->ctx) == 1 ? 0 : fail(err, err_n, "private key does not fit the certificate");
}

static void load_from(void *ctx, const char *file, const char *folder)
{
        lib.SSL_CTX_load_verify_locations(ctx, file, folder);
}

static int set_roots(struct tls_context *t, struct str pem, char *err, size_t err_n)
{
        BIO *b;
        X509 *x;
        size_t n = 0;

        if (!pem.n) {
                tls_system_roots(load_from, t->ctx);
                lib.ERR_clear_error();
                return 0;
        }
        b = memory_of(pem);
        while (b && (x = lib.PEM_read_bio_X509(b, NULL, NULL, NULL))) {
                n += lib.X509_STORE_add_cert(lib.SSL_CTX_get_cert_store(t->ctx), x) == 1;
                lib.X509_free(x);
        }
        lib.BIO_free(b);
        lib.ERR_clear_error();
        return n ? 0 : fail(err, err_n, "trust anchors cannot be read");
}

static int set_alpn(struct tls_context *t, const char *const *names, char *err, size_t err_n)
{
        unsigned char wire[WIRE_BYTES];
        size_t n = 0;

        for (; names && *names; names++) {
                size_t k = strlen(*names);
                if (!k || k > 255 || n + 1 + k > sizeof wire)
                        return fail(err, err_n, "list of ALPN protocols is too long");
                wire[n++] = (unsigned char)k;
                memcpy(wire + n, *names, k);
                n += k;
        }
        return !n || !lib.SSL_CTX_set_alpn_protos(t->ctx, wire, (unsigned)n) ? 0 : fail(err, err_n, "list of ALPN protocols cannot be set");
}

int tls_openssl_context_new(struct tls_context **ret, const struct tls_options *o, char *err, size_t err_n)
{
        struct tls_context *t;
        int r = load(err, err_n);

        if (r)
                return r;
        if (o->server || o->verify_peer)
                return fail(err, err_n, "renegotiation is for clients that check names");
        t = calloc(1, sizeof *t);
        if (!t)
                return -ENOMEM;
        t->base = (struct tls_context_base){&openssl_ops, 1};
        t->only_once = o->renegotiation == TLS_RENEGOTIATE_ONCE;
        t->verifies = !o->insecure_skip_verify;
        t->ctx = lib.SSL_CTX_new(lib.TLS_client_method());
        r = t->ctx ? 0 : -ENOMEM;
        if (!r && (!lib.SSL_CTX_ctrl(t->ctx, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, NULL) || !lib.SSL_CTX_set_cipher_list(t->ctx, ciphers)))
                r = fail(err, err_n, "TLS 1.2 or its ciphers are missing from this OpenSSL");
        if (!r && (o->cert_pem.n || o->key_pem.n))
                r = set_identity(t, o, err, err_n);
        if (!r)
                r = set_alpn(t, o->alpn, err, err_n);
        if (!r && t->verifies)
                r = set_roots(t, o->roots_pem, err, err_n);
        if (r) {
                tls_context_unref(t);
                return r;
        }
        lib.SSL_CTX_ctrl(t->ctx, SSL_CTRL_MODE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_ENABLE_PARTIAL_WRITE, NULL);
        lib.SSL_CTX_ctrl(t->ctx, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, NULL);
        lib.SSL_CTX_set_verify(t->ctx, t->verifies ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
        lib.SSL_CTX_set_info_callback(t->ctx, on_info);
        *ret = t;
        return 0;
}

static void context_free(struct tls_context *t)
{
        lib.SSL_CTX_free(t->ctx);
        free(t);
}

/* ---- sessions ---- */

static struct session *priv(const struct tls_session *s)
{
        return (struct session *)(uintptr_t)s;
}

static int set_name(struct session *s, struct str server_name)
{
        char name[NAME_BYTES], raw[16];

        if (server_name.n > 1 && server_name.p[server_name.n - 1] == '.')
                server_name.n--;
        if (server_name.n >= sizeof name || (server_name.n && memchr(server_name.p, 0, server_name.n)) || (!server_name.n && s->context->verifies))
                return -EINVAL;
        if (!server_name.n)
                return 0;
        snprintf(name, sizeof name, "%.*s", STR_FMT(server_name));
        if (inet_pton(AF_INET, name, raw) == 1 || inet_pton(AF_INET6, name, raw) == 1)
                return lib.X509_VERIFY_PARAM_set1_ip_asc(lib.SSL_get0_param(s->ssl), name) ? 0 : -ENOMEM;
        lib.SSL_set_hostflags(s->ssl, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        return lib.SSL_ctrl(s->ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name) && lib.SSL_set1_host(s->ssl, name) ? 0 : -ENOMEM;
}

static void session_free(struct tls_session *ts)
{
        struct session *s = priv(ts);

        lib.SSL_free(s->ssl);
        tls_context_unref(s->context);
        buf_fini(&ts->in);
        buf_fini(&ts->out);
        free(s->leaf);
        free(s);
}

static int session_new(struct tls_session **ret, struct tls_context *t, struct str server_name, bool is_server)
{
        struct session *s = is_server ? NULL : calloc(1, sizeof *s);
        int r;

        if (!s)
                return is_server ? -EINVAL : -ENOMEM;
        s->s.ops = &openssl_ops;
        s->context = tls_context_ref(t);
        s->ssl = lib.SSL_new(t->ctx);
        s->in = lib.BIO_new(lib.BIO_s_mem());
        s->out = lib.BIO_new(lib.BIO_s_mem());
        if (s->ssl && s->in && s->out) {
                lib.BIO_ctrl(s->in, BIO_C_SET_BUF_MEM_EOF_RETURN, -1, NULL);
                lib.SSL_set_bio(s->ssl, s->in, s->out);
                r = lib.SSL_set_ex_data(s->ssl, 0, s) ? set_name(s, server_name) : -ENOMEM;
        } else {
                lib.BIO_free(s->in);
                lib.BIO_free(s->out);
                r = -ENOMEM;
        }
        if (r) {
                session_free(&s->s);
                return r;
        }
        lib.SSL_set_connect_state(s->ssl);
        *ret = &s->s;
        return 0;
}

/* What came from the peer goes in, what is for it comes out. */
static int take_in(struct session *s)
{
        struct buf *in = &s->s.in;

        while (buf_len(in)) {
                int n = lib.BIO_write(s->in, in->p + in->off, (int)(buf_len(in) < INT32_MAX ? buf_len(in) : INT32_MAX));
                if (n <= 0)
                        return -ENOMEM;
                buf_consume(in, (size_t)n);
        }
        return 0;
}

static int give_out(struct session *s)
{
        size_t n = (size_t)lib.BIO_ctrl(s->out, BIO_CTRL_PENDING, 0, NULL);
        int got;

        if (!n)
                return 0;
        if (buf_reserve(&s->s.out, n))
                return -ENOMEM;
        got = lib.BIO_read(s->out, s->s.out.p + s->s.out.len, (int)n);
        if (got > 0)
                s->s.out.len += (size_t)got;
        return 0;
}

/* 0 = more of the peer's bytes are needed, else -errno. */
static int outcome(struct session *s, int r)
{
        int code = lib.SSL_get_error(s->ssl, r), out = give_out(s);

        if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE)
                return out;
        lib.ERR_error_string_n(lib.ERR_peek_last_error(), s->text, sizeof s->text);
        lib.ERR_clear_error();
        if (s->refused)
                return -EOPNOTSUPP;
        return s->context->verifies && lib.SSL_get_verify_result(s->ssl) != X509_V_OK ? -EKEYREJECTED : -EPROTO;
}

static int session_handshake(struct tls_session *ts)
{
        struct session *s = priv(ts);
        int r = take_in(s), done;

        if (r)
                return r;
        lib.ERR_clear_error();
        done = lib.SSL_do_handshake(s->ssl);
        if (done != 1)
                return outcome(s, done);
        r = give_out(s);
        return r ? r : 1;
}

static ssize_t session_read(struct tls_session *ts, void *p, size_t n)
{
        struct session *s = priv(ts);
        int r = take_in(s), got;

        if (r || ts->ended)
                return r;
        lib.ERR_clear_error();
        got = lib.SSL_read(s->ssl, p, n > 1 << 30 ? 1 << 30 : (int)n);
        if (got <= 0 && lib.SSL_get_error(s->ssl, got) == SSL_ERROR_ZERO_RETURN) {
                ts->ended = true;
                return 0;
        }
        if (got <= 0)
                r = outcome(s, got);
        else
                r = give_out(s);
        return r ? r : got > 0 ? got : -EAGAIN;
}

static int session_write(struct tls_session *ts, const void *p, size_t n)
{
        struct session *s = priv(ts);
        int r = take_in(s), put;

        if (r)
                return r;
        lib.ERR_clear_error();
        put = lib.SSL_write(s->ssl, p, (int)n); /* a record at most: all of it or nothing */
        if (put > 0)
                return give_out(s);
        r = outcome(s, put);
        return r ? r : -EAGAIN;
}

static void session_shutdown(struct tls_session *ts)
{
        struct session *s = priv(ts);

        if (s->done)
                lib.SSL_shutdown(s->ssl);
        lib.ERR_clear_error();
        give_out(s);
}

static struct str session_alpn(const struct tls_session *ts)
{
        const unsigned char *name = NULL;
        unsigned n = 0;

        lib.SSL_get0_alpn_selected(priv(ts)->ssl, &name, &n);
        return name ? str_n(name, n) : STR("");
}

static struct str session_peer_leaf(struct tls_session *ts)
{
        struct session *s = priv(ts);
        X509 *x = lib.SSL_get1_peer_certificate(s->ssl);
        int n = x ? lib.i2d_X509(x, NULL) : 0;
        unsigned char *to;

        free(s->leaf);
        to = s->leaf = n > 0 ? malloc((size_t)n) : NULL;
        if (to)
                lib.i2d_X509(x, &to);
        lib.X509_free(x);
        return s->leaf ? str_n(s->leaf, (size_t)n) : STR("");
}

static const char *session_version(const struct tls_session *ts)
{
        return lib.SSL_get_version(priv(ts)->ssl);
}

static const char *session_error(const struct tls_session *ts)
{
        return priv(ts)->text;
}

static const struct tls_ops openssl_ops = {
        .context_free = context_free,
        .session_new = session_new,
        .session_free = session_free,
        .session_handshake = session_handshake,
        .session_read = session_read,
        .session_write = session_write,
        .session_shutdown = session_shutdown,
        .session_alpn = session_alpn,
        .session_peer_leaf = session_peer_leaf,
        .session_version = session_version,
        .session_error = session_error,
};
