/*
 * Between conn.c and the TLS library: a table of functions that a context carries. A program without a context (most plugins)
 * does not link the library, because only tls_context_new() names it.
 */
#ifndef SDK_NET_TLS_OPS_H
#define SDK_NET_TLS_OPS_H

#include "sdk/net/tls.h"

struct tls_ops { /* as the functions of the same names in tls.h */
        void (*context_free)(struct tls_context *t);
        int (*session_new)(struct tls_session **ret, struct tls_context *t, struct str server_name, bool is_server);
        void (*session_free)(struct tls_session *s);
        int (*session_handshake)(struct tls_session *s);
        ssize_t (*session_read)(struct tls_session *s, void *p, size_t n);
        int (*session_write)(struct tls_session *s, const void *p, size_t n);
        void (*session_shutdown)(struct tls_session *s);
        struct str (*session_alpn)(const struct tls_session *s);
        struct str (*session_peer_leaf)(struct tls_session *s);
        const char *(*session_version)(const struct tls_session *s);
        const char *(*session_error)(const struct tls_session *s);
};
struct tls_context_base { /* what every context begins with */
        const struct tls_ops *ops;
        int refs;
};

#endif
