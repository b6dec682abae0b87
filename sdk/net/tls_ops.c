/* tls.h for everybody: each call goes to the library behind the context or session. */
#include "sdk/net/tls_ops.h"

static struct tls_context_base *base(struct tls_context *t)
{
        return (struct tls_context_base *)t;
}

struct tls_context *tls_context_ref(struct tls_context *t)
{
        base(t)->refs++;
        return t;
}

void tls_context_unref(struct tls_context *t)
{
        if (t && --base(t)->refs == 0)
                base(t)->ops->context_free(t);
}

int tls_session_new(struct tls_session **ret, struct tls_context *t, struct str server_name, bool is_server)
{
        return base(t)->ops->session_new(ret, t, server_name, is_server);
}

void tls_session_free(struct tls_session *s)
{
        if (s)
                s->ops->session_free(s);
}

int tls_session_handshake(struct tls_session *s)
{
        return s->ops->session_handshake(s);
}

ssize_t tls_session_read(struct tls_session *s, void *p, size_t n)
{
        return s->ops->session_read(s, p, n);
}

int tls_session_write(struct tls_session *s, const void *p, size_t n)
{
        return s->ops->session_write(s, p, n);
}

void tls_session_shutdown(struct tls_session *s)
{
        s->ops->session_shutdown(s);
}

struct str tls_session_alpn(const struct tls_session *s)
{
        return s->ops->session_alpn(s);
}

struct str tls_session_peer_leaf(struct tls_session *s)
{
        return s->ops->session_peer_leaf(s);
}

const char *tls_session_version(const struct tls_session *s)
{
        return s->ops->session_version(s);
}

const char *tls_session_error(const struct tls_session *s)
{
        return s->ops->session_error(s);
}
