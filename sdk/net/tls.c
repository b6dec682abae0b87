/* See tls.h. */
#include "sdk/net/tls.h"

#include <errno.h>

int tls_session_new(struct tls_session **ret, struct tls_context *t, struct str server_name, bool is_server)
{
        return -ENOTSUP;
}
void tls_session_free(struct tls_session *s)
{
}
int tls_session_handshake(struct tls_session *s)
{
        return -ENOTSUP;
}
ssize_t tls_session_read(struct tls_session *s, void *p, size_t n)
{
        return -ENOTSUP;
}
int tls_session_write(struct tls_session *s, const void *p, size_t n)
{
        return -ENOTSUP;
}
void tls_session_shutdown(struct tls_session *s)
{
}
int tls_context_new(struct tls_context **ret, const struct tls_options *o, char *err, size_t err_n)
{
        return -ENOTSUP;
}
struct tls_context *tls_context_ref(struct tls_context *t)
{
        return t;
}
void tls_context_unref(struct tls_context *t)
{
}
struct str tls_session_alpn(const struct tls_session *s)
{
        return STR("");
}
