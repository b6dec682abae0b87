/* Between tls.c and tls_openssl.c. */
#ifndef SDK_NET_TLS_OPENSSL_H
#define SDK_NET_TLS_OPENSSL_H

#include "sdk/net/tls.h"

/* As tls_context_new, for clients with a renegotiation. -EINVAL also where OpenSSL is not installed. */
int tls_openssl_context_new(struct tls_context **ret, const struct tls_options *o, char *err, size_t err_n);
/* Names each file or folder of the system's roots, as SSL_CERT_FILE and SSL_CERT_DIR change them; the other one is NULL. */
void tls_system_roots(void (*each)(void *arg, const char *file, const char *folder), void *arg);

#endif
