/* TLS by wolfSSL: TLS 1.2 and later, strict by default. Only tls.c knows wolfSSL. */
#ifndef SDK_NET_TLS_H
#define SDK_NET_TLS_H

#include <stdbool.h>

#include "sdk/base/str.h"

struct tls_context;
struct tls_options {
        bool server;
        struct str cert_pem, key_pem;  /* own chain and key; required for servers */
        struct str roots_pem;          /* trust anchors; empty = the system's */
        bool require_peer_cert;        /* servers: mutual TLS */
        bool insecure_skip_verify;     /* clients: only where the reference's option of that name asks for it */
        const char *const *alpn;       /* NULL-terminated, in order of preference; NULL = none */
        /* Called after the chain was verified with the peer's leaf (DER); non-zero refuses. May be NULL. */
        int (*verify_peer)(void *arg, struct str leaf_der);
        void *verify_arg;
};
/* 0 and *ret, or -EINVAL with a sentence in err. Strings are copied. */
int tls_context_new(struct tls_context **ret, const struct tls_options *o, char *err, size_t err_n);
struct tls_context *tls_context_ref(struct tls_context *t);
void tls_context_unref(struct tls_context *t);

#endif
