/* TLS by wolfSSL, clients that allow renegotiation by OpenSSL: TLS 1.2 and later, strict by default. Only tls.c knows wolfSSL, only
 * tls_openssl.c OpenSSL. */
#ifndef SDK_NET_TLS_H
#define SDK_NET_TLS_H

#include <stdbool.h>
#include <sys/types.h>

#include "sdk/base/buf.h"
#include "sdk/base/str.h"

struct tls_context;
enum tls_renegotiation { TLS_RENEGOTIATE_NEVER, TLS_RENEGOTIATE_ONCE, TLS_RENEGOTIATE_FREELY };
struct tls_options {
        bool server;
        struct str cert_pem, key_pem;  /* own chain and key; required for servers */
        struct str roots_pem;          /* trust anchors; empty = the system's, or SSL_CERT_FILE's and SSL_CERT_DIR's */
        bool require_peer_cert;        /* servers: mutual TLS */
        bool insecure_skip_verify;     /* clients: only where the reference's option of that name asks for it */
        enum tls_renegotiation renegotiation; /* clients, TLS 1.2: how often a connection's server may ask for another handshake */
        const char *const *alpn;       /* NULL-terminated, in order of preference; NULL = none */
        /* Called once the chain is verified with the peer's leaf (DER), before the handshake goes on; non-zero refuses. It takes
         * the place of the check of the server's name (SPIFFE identities). Loop's stack: must not park. May be NULL. */
        int (*verify_peer)(void *arg, struct str leaf_der);
        void *verify_arg;
};
/* 0 and *ret, or -EINVAL with a sentence in err. Strings are copied. */
int tls_context_new(struct tls_context **ret, const struct tls_options *o, char *err, size_t err_n);
struct tls_context *tls_context_ref(struct tls_context *t);
void tls_context_unref(struct tls_context *t);

/*
 * A session between two buffers of ciphertext; it does no I/O of its own (conn.c moves the bytes). Never run it on a fiber of
 * ordinary size: a handshake needs up to 50 KiB of stack.
 */
struct tls_session {
        struct buf in;  /* ciphertext from the peer, not yet understood */
        struct buf out; /* ciphertext to send */
        bool ended;     /* the peer sent close_notify */
        const struct tls_ops *ops;
};
/* server_name: SNI and the name (or IP address) that the peer's certificate must carry; ignored on the server side. */
int tls_session_new(struct tls_session **ret, struct tls_context *t, struct str server_name, bool is_server);
void tls_session_free(struct tls_session *s); /* NULL is fine */
/* 1 = done, 0 = needs more of the peer's bytes, -EPROTO, -EKEYREJECTED (certificate refused), -ENOMEM. Send `out` in any case. */
int tls_session_handshake(struct tls_session *s);
/* Plain bytes: > 0, 0 at the peer's close_notify, -EAGAIN, -EPROTO, -EOPNOTSUPP (the server wanted a renegotiation that is not allowed). */
ssize_t tls_session_read(struct tls_session *s, void *p, size_t n);
/* Encrypts all of it into out. 0, -EPROTO, -ENOMEM; -EAGAIN, of at most a record: nothing yet, another handshake is under way. */
int tls_session_write(struct tls_session *s, const void *p, size_t n);
void tls_session_shutdown(struct tls_session *s); /* close_notify into out */
/* After the handshake; borrowed until the session is freed, empty when there is none. */
struct str tls_session_alpn(const struct tls_session *s);
struct str tls_session_peer_leaf(struct tls_session *s);  /* DER */
/* "TLSv1.3" */
const char *tls_session_version(const struct tls_session *s);
/* Why the last call failed, as text. */
const char *tls_session_error(const struct tls_session *s);

#endif
