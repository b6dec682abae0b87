/*
 * wolfSSL, known here only. A session reads from and writes to two buffers; whoever owns it moves the ciphertext.
 *
 * Kept from wolfSSL's choices: nothing old. TLS 1.2 with ECDHE and AEAD, TLS 1.3. ChaCha20-Poly1305 stands first because
 * Debian's build has no AES instructions: in software it is several times faster, and free of table look-ups.
 * No tickets and no session cache: connections here are few and long, and resumed sessions would skip verify_peer.
 * The peer's name is compared here, not by wolfSSL, whose Debian build accepts any certificate for an IP address. Only subject
 * alternative names count, as in Go.
 */
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

#include "sdk/net/tls_openssl.h"
#include "sdk/net/tls_ops.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { ALPN_BYTES = 128, NAME_BYTES = 256, FOLDER_BYTES = 1024 };

static const char system_roots[] = "/etc/ssl/certs/ca-certificates.crt";
static const char ciphers[] = "TLS13-CHACHA20-POLY1305-SHA256:TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384:"
                              "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
                              "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                              "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";

struct tls_context {
        struct tls_context_base base;
        bool server, verifies;
        WOLFSSL_CTX *ctx;
        char alpn[ALPN_BYTES];
        int (*verify_peer)(void *, struct str);
        void *verify_arg;
};

struct session {
        struct tls_session s;
        struct tls_context *context;
        WOLFSSL *ssl;
        char name[NAME_BYTES]; /* to be verified; empty = none */
        bool refused, verified;
        int error;             /* wolfSSL's code of the last failure */
        char text[WOLFSSL_MAX_ERROR_SZ];
};

static const struct tls_ops wolf_ops;

/* ---- contexts ---- */

static int fail(char *err, size_t err_n, const char *what, int code)
{
        char text[WOLFSSL_MAX_ERROR_SZ] = "";
        if (code < 0)
                wolfSSL_ERR_error_string_n((unsigned long)code, text, sizeof(text));
        if (err_n)
                snprintf(err, err_n, "%s%s%s", what, *text ? ": " : "", text);
        wolfSSL_ERR_clear_error();
        return -EINVAL;
}

static int session_recv(WOLFSSL *ssl, char *p, int n, void *arg)
{
        struct buf *in = &((struct session *)arg)->s.in;
        size_t have = buf_len(in);
        if (!have)
                return WOLFSSL_CBIO_ERR_WANT_READ;
        size_t take = have < (size_t)n ? have : (size_t)n;
        memcpy(p, in->p + in->off, take);
        buf_consume(in, take);
        return (int)take;
}

static int session_send(WOLFSSL *ssl, char *p, int n, void *arg)
{
        return buf_add(&((struct session *)arg)->s.out, p, (size_t)n) ? WOLFSSL_CBIO_ERR_GENERAL : n;
}

/* The next DER element of *in: its tag and content. False at the end and on anything odd. */
static bool der_next(struct str *in, unsigned *tag, struct str *body)
{
        const unsigned char *p = (const unsigned char *)in->p;
        if (in->n < 2)
                return false;
        size_t n = p[1], head = 2;
        if (n & 0x80) {
                size_t bytes = n & 0x7f;
                if (!bytes || bytes > 3 || in->n < 2 + bytes)
                        return false;
                n = 0;
                for (size_t i = 0; i < bytes; i++)
                        n = n << 8 | p[2 + i];
                head += bytes;
        }
        if (n > in->n - head)
                return false;
        *tag = p[0];
        *body = str_n(p + head, n);
        *in = str_skip(*in, head + n);
        return true;
}

static bool der_enter(struct str *in, unsigned tag)
{
        unsigned got;
        struct str body;
        if (!der_next(in, &got, &body) || got != tag)
                return false;
        *in = body;
        return true;
}

enum { DER_SEQUENCE = 0x30, DER_OID = 6, DER_OCTETS = 4, DER_EXTENSIONS = 0xa3, SAN_DNS = 0x82, SAN_IP = 0x87 };

/* The content of the certificate's subjectAltName: a row of GeneralNames. */
static bool find_names(struct str der, struct str *ret)
{
        unsigned tag;
        struct str body, extension;
        if (!der_enter(&der, DER_SEQUENCE) || !der_enter(&der, DER_SEQUENCE))
                return false;
        do
                if (!der_next(&der, &tag, &body))
                        return false;
        while (tag != DER_EXTENSIONS);
        if (!der_enter(&body, DER_SEQUENCE))
                return false;
        while (der_next(&body, &tag, &extension)) {
                struct str oid, value;
                if (tag != DER_SEQUENCE || !der_next(&extension, &tag, &oid))
                        return false;
                if (tag != DER_OID || !str_eq(oid, STR("\x55\x1d\x11")))
                        continue;
                while (der_next(&extension, &tag, &value))
                        if (tag == DER_OCTETS && der_enter(&value, DER_SEQUENCE)) {
                                *ret = value;
                                return true;
                        }
        }
        return false;
}

/* A wildcard stands for one whole label, the first. */
static bool name_fits(struct str pattern, struct str host)
{
        if (pattern.n > 2 && str_has_prefix(pattern, STR("*."))) {
                ptrdiff_t dot = str_chr(host, '.');
                if (dot <= 0)
                        return false;
                pattern = str_skip(pattern, 1);
                host = str_skip(host, (size_t)dot);
        }
        return pattern.n > 0 && str_ieq(pattern, host);
}

static size_t address_of(const char *z, unsigned char raw[16])
{
        if (inet_pton(AF_INET, z, raw) == 1)
                return 4;
        return inet_pton(AF_INET6, z, raw) == 1 ? 16 : 0;
}

static bool certificate_names(struct str der, const char *name)
{
        unsigned tag;
        struct str names, one, host = str_of(name);
        unsigned char raw[16];
        size_t raw_n = address_of(name, raw);
        if (!find_names(der, &names))
                return false;
        if (host.n && host.p[host.n - 1] == '.')
                host.n--;
        while (der_next(&names, &tag, &one)) {
                if (raw_n ? tag == SAN_IP && str_eq(one, str_n(raw, raw_n)) : tag == SAN_DNS && name_fits(one, host))
                        return true;
        }
        return false;
}

/* For each certificate, the leaf last. wolfSSL has checked signatures and times. */
static int on_verify(int ok, WOLFSSL_X509_STORE_CTX *store)
{
        struct session *s = store->userCtx;
        if (!ok || store->error_depth > 0)
                return ok;
        if (!s || !store->certs || store->totalCerts < 1)
                return 0;
        struct tls_context *t = s->context;
        struct str leaf = str_n(store->certs[0].buffer, store->certs[0].length);
        s->verified = t->verify_peer ? t->verify_peer(t->verify_arg, leaf) == 0 : t->server || certificate_names(leaf, s->name);
        s->refused = !s->verified;
        return s->verified;
}

/* What cannot be read is nothing that is trusted: a peer is refused then, not the start. */
static void load_from(void *ctx, const char *file, const char *folder)
{
        wolfSSL_CTX_load_verify_locations_ex(ctx, file, folder, WOLFSSL_LOAD_FLAG_IGNORE_ERR);
        wolfSSL_ERR_clear_error();
}

/* SSL_CERT_FILE takes the place of the system's file, SSL_CERT_DIR ("a:b") that of the system's folder, which holds the same. */
void tls_system_roots(void (*each)(void *arg, const char *file, const char *folder), void *arg)
{
        const char *file = getenv("SSL_CERT_FILE"), *folders = getenv("SSL_CERT_DIR");
        struct str rest = str_of(folders), folder;
        char path[FOLDER_BYTES];
        bool has_file = file && *file;
        each(arg, has_file ? file : system_roots, NULL);
        if (has_file && !rest.n)
                each(arg, system_roots, NULL);
        while (rest.n) {
                folder = str_cut(&rest, ':');
                if (folder.n && folder.n < sizeof(path)) {
                        snprintf(path, sizeof(path), "%.*s", STR_FMT(folder));
                        each(arg, NULL, path);
                }
        }
}

static int load_roots(WOLFSSL_CTX *ctx, struct str pem)
{
        if (pem.n)
                return wolfSSL_CTX_load_verify_buffer(ctx, (const unsigned char *)pem.p, (long)pem.n, WOLFSSL_FILETYPE_PEM);
        tls_system_roots(load_from, ctx);
        return WOLFSSL_SUCCESS;
}

static int set_identity(struct tls_context *t, const struct tls_options *o, char *err, size_t err_n)
{
        int r = wolfSSL_CTX_use_certificate_chain_buffer(t->ctx, (const unsigned char *)o->cert_pem.p, (long)o->cert_pem.n);
        if (r != WOLFSSL_SUCCESS)
                return fail(err, err_n, "certificate cannot be read", r);
        r = wolfSSL_CTX_use_PrivateKey_buffer(t->ctx, (const unsigned char *)o->key_pem.p, (long)o->key_pem.n, WOLFSSL_FILETYPE_PEM);
        if (r != WOLFSSL_SUCCESS)
                return fail(err, err_n, "private key cannot be read", r);
        if (wolfSSL_CTX_check_private_key(t->ctx) != WOLFSSL_SUCCESS)
                return fail(err, err_n, "private key does not fit the certificate", 0);
        return 0;
}

static int set_alpn(struct tls_context *t, const char *const *names, char *err, size_t err_n)
{
        size_t n = 0;
        for (; names && *names; names++) {
                int k = snprintf(t->alpn + n, sizeof(t->alpn) - n, "%s%s", n ? "," : "", *names);
                if (k < 0 || n + (size_t)k >= sizeof(t->alpn))
                        return fail(err, err_n, "list of ALPN protocols is too long", 0);
                n += (size_t)k;
        }
        return 0;
}

static int configure(struct tls_context *t, const struct tls_options *o, char *err, size_t err_n)
{
        int r = 0, mode = WOLFSSL_VERIFY_NONE;
        if (wolfSSL_CTX_SetMinVersion(t->ctx, WOLFSSL_TLSV1_2) != WOLFSSL_SUCCESS ||
            wolfSSL_CTX_set_cipher_list(t->ctx, ciphers) != WOLFSSL_SUCCESS)
                return fail(err, err_n, "TLS 1.2 or its ciphers are missing from this wolfSSL", 0);
        wolfSSL_CTX_set_session_cache_mode(t->ctx, WOLFSSL_SESS_CACHE_OFF);
        wolfSSL_CTX_no_ticket_TLSv13(t->ctx);
        wolfSSL_CTX_SetIORecv(t->ctx, session_recv);
        wolfSSL_CTX_SetIOSend(t->ctx, session_send);
        if (o->server && (!o->cert_pem.n || !o->key_pem.n))
                return fail(err, err_n, "a TLS server needs a certificate and its private key", 0);
        if (o->cert_pem.n || o->key_pem.n)
                r = set_identity(t, o, err, err_n);
        if (!r)
                r = set_alpn(t, o->alpn, err, err_n);
        if (r)
                return r;
        if (t->verifies) {
                mode = WOLFSSL_VERIFY_PEER | (o->server ? WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
                r = load_roots(t->ctx, o->roots_pem);
                if (r != WOLFSSL_SUCCESS)
                        return fail(err, err_n, "trust anchors cannot be read", r);
        }
        wolfSSL_CTX_set_verify(t->ctx, mode, mode ? on_verify : NULL);
        return 0;
}

int tls_context_new(struct tls_context **ret, const struct tls_options *o, char *err, size_t err_n)
{
        static bool started;
        if (o->renegotiation)
                return tls_openssl_context_new(ret, o, err, err_n);
        if (!started && wolfSSL_Init() != WOLFSSL_SUCCESS)
                return fail(err, err_n, "wolfSSL does not start", 0);
        started = true;
        struct tls_context *t = calloc(1, sizeof(*t));
        if (!t)
                return -ENOMEM;
        t->base = (struct tls_context_base){&wolf_ops, 1};
        t->server = o->server;
        t->verifies = o->server ? o->require_peer_cert : !o->insecure_skip_verify;
        t->verify_peer = o->verify_peer;
        t->verify_arg = o->verify_arg;
        t->ctx = wolfSSL_CTX_new(o->server ? wolfTLS_server_method() : wolfTLS_client_method());
        int r = t->ctx ? configure(t, o, err, err_n) : -ENOMEM;
        if (r) {
                tls_context_unref(t);
                return r;
        }
        *ret = t;
        return 0;
}

static void context_free(struct tls_context *t)
{
        wolfSSL_CTX_free(t->ctx);
        free(t);
}

/* ---- sessions ---- */

static struct session *priv(const struct tls_session *s)
{
        return (struct session *)(uintptr_t)s;
}

static int set_name(struct session *s, struct str name)
{
        unsigned char raw[16];
        if (name.n >= sizeof(s->name) || (name.n && memchr(name.p, 0, name.n)))
                return -EINVAL;
        if (name.n)
                memcpy(s->name, name.p, name.n);
        else if (s->context->verifies && !s->context->verify_peer)
                return -EINVAL; /* nothing to verify against: whoever wants that must say so */
        if (name.n && !address_of(s->name, raw) &&
            wolfSSL_UseSNI(s->ssl, WOLFSSL_SNI_HOST_NAME, s->name, (unsigned short)name.n) != WOLFSSL_SUCCESS)
                return -ENOMEM;
        return 0;
}

static void session_free(struct tls_session *ts)
{
        struct session *s = priv(ts);
        if (s->ssl)
                wolfSSL_free(s->ssl);
        tls_context_unref(s->context);
        buf_fini(&ts->in);
        buf_fini(&ts->out);
        free(s);
}

static int session_new(struct tls_session **ret, struct tls_context *t, struct str server_name, bool is_server)
{
        if (is_server != t->server)
                return -EINVAL;
        struct session *s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->s.ops = &wolf_ops;
        s->context = tls_context_ref(t);
        s->ssl = wolfSSL_new(t->ctx);
        int r = s->ssl ? 0 : -ENOMEM;
        if (!r && !is_server)
                r = set_name(s, server_name);
        if (!r && *t->alpn &&
            wolfSSL_UseALPN(s->ssl, t->alpn, (unsigned)strlen(t->alpn), WOLFSSL_ALPN_CONTINUE_ON_MISMATCH) != WOLFSSL_SUCCESS)
                r = -ENOMEM;
        if (r) {
                session_free(&s->s);
                return r;
        }
        wolfSSL_SetIOReadCtx(s->ssl, s);
        wolfSSL_SetIOWriteCtx(s->ssl, s);
        wolfSSL_SetCertCbCtx(s->ssl, s);
        *ret = &s->s;
        return 0;
}

static bool is_about_certificate(int code)
{
        switch (code) {
        case VERIFY_CERT_ERROR:
        case VERIFY_SIGN_ERROR:
        case NO_PEER_CERT:
        case PEER_KEY_ERROR:
        case ASN_NO_SIGNER_E:
        case ASN_SIG_CONFIRM_E:
        case ASN_AFTER_DATE_E:
        case ASN_BEFORE_DATE_E:
        case ASN_SELF_SIGNED_E:
        case ASN_PATHLEN_INV_E:
        case ASN_PATHLEN_SIZE_E:
        case ASN_NAME_INVALID_E:
        case MAX_CHAIN_ERROR:
                return true;
        default:
                return false;
        }
}

/* The server wanted another handshake and was told that there is none. */
static bool has_refused_another(struct session *s)
{
        WOLFSSL_ALERT_HISTORY h;
        return wolfSSL_get_alert_history(s->ssl, &h) == WOLFSSL_SUCCESS && h.last_tx.code == no_renegotiation;
}

/* 0 = more ciphertext is needed, else -errno. */
static int outcome(struct session *s, int r)
{
        int code = wolfSSL_get_error(s->ssl, r);
        if (code == WOLFSSL_ERROR_WANT_READ || code == WOLFSSL_ERROR_WANT_WRITE)
                return 0;
        s->error = code;
        wolfSSL_ERR_clear_error();
        if (code == MEMORY_E)
                return -ENOMEM;
        if (has_refused_another(s))
                return -EOPNOTSUPP;
        return s->refused || is_about_certificate(code) ? -EKEYREJECTED : -EPROTO;
}

static int session_handshake(struct tls_session *ts)
{
        struct session *s = priv(ts);
        int r = wolfSSL_negotiate(s->ssl);
        if (r != WOLFSSL_SUCCESS)
                return outcome(s, r);
        return s->verified || !s->context->verifies ? 1 : -EKEYREJECTED;
}

static ssize_t session_read(struct tls_session *ts, void *p, size_t n)
{
        struct session *s = priv(ts);
        if (ts->ended)
                return 0;
        int r = wolfSSL_read(s->ssl, p, n > 1 << 30 ? 1 << 30 : (int)n);
        if (r > 0)
                return r;
        if (wolfSSL_get_error(s->ssl, r) == WOLFSSL_ERROR_ZERO_RETURN) {
                ts->ended = true;
                return 0;
        }
        int e = outcome(s, r);
        return e ? e : -EAGAIN;
}

static int session_write(struct tls_session *ts, const void *p, size_t n)
{
        struct session *s = priv(ts);
        const char *from = p;
        while (n) {
                int r = wolfSSL_write(s->ssl, from, n > 1 << 30 ? 1 << 30 : (int)n);
                if (r <= 0) {
                        int e = outcome(s, r);
                        return e ? e : -EPROTO;
                }
                from += r;
                n -= (size_t)r;
        }
        return 0;
}

static void session_shutdown(struct tls_session *ts)
{
        struct session *s = priv(ts);
        wolfSSL_shutdown(s->ssl);
        wolfSSL_ERR_clear_error();
}

static struct str session_alpn(const struct tls_session *ts)
{
        char *name = NULL;
        unsigned short n = 0;
        if (wolfSSL_ALPN_GetProtocol(priv(ts)->ssl, &name, &n) != WOLFSSL_SUCCESS)
                return STR("");
        return str_n(name, n);
}

static struct str session_peer_leaf(struct tls_session *ts)
{
        WOLFSSL_X509_CHAIN *chain = wolfSSL_get_peer_chain(priv(ts)->ssl);
        if (!chain || wolfSSL_get_chain_count(chain) < 1)
                return STR("");
        return str_n(wolfSSL_get_chain_cert(chain, 0), (size_t)wolfSSL_get_chain_length(chain, 0));
}

static const char *session_version(const struct tls_session *ts)
{
        return wolfSSL_get_version(priv(ts)->ssl);
}

static const char *session_error(const struct tls_session *ts)
{
        struct session *s = priv(ts);
        if (!s->error)
                return "";
        wolfSSL_ERR_error_string_n((unsigned long)s->error, s->text, sizeof(s->text));
        return s->text;
}

static const struct tls_ops wolf_ops = {
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
