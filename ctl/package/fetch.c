/* See fetch.h. One connection a request: a command asks for a handful of files. */
#include "ctl/package/fetch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/package/package_impl.h"
#include "sdk/base/loop.h"
#include "sdk/net/http.h"
#include "sdk/net/tls.h"

#define REQUEST_TIMEOUT_S 30.0 /* without a byte */
#define BAR_INTERVAL_S 0.1
enum { REDIRECTS_MAX = 5, CHUNK_BYTES = 64 * 1024, BAR_CELLS = 28 };

/* ---- progress ---- */

void progress_begin(struct progress *p, const char *what, uint64_t total)
{
        *p = (struct progress){.what = what, .total = total, .on = isatty(STDERR_FILENO) && !ui_is_json_log()};
}

static void draw(struct progress *p)
{
        struct arena a;
        arena_init(&a, 0);
        unsigned cells = p->total ? (unsigned)(p->done * BAR_CELLS / (p->total > p->done ? p->total : p->done)) : 0;
        fprintf(stderr, "\r\033[K%s ", p->what);
        if (p->total) {
                fputs("[", stderr);
                for (unsigned i = 0; i < BAR_CELLS; i++)
                        fputs(i < cells ? "█" : " ", stderr);
                fprintf(stderr, "] %3llu %%  ", (unsigned long long)(p->done * 100 / p->total));
        }
        fputs(ui_bytes(&a, (int64_t)p->done), stderr);
        fflush(stderr);
        arena_fini(&a);
        p->drawn = true;
        p->shown_at = loop_now_exact();
}

void progress_add(struct progress *p, uint64_t n)
{
        p->done += n;
        if (p->on && loop_now_exact() - p->shown_at >= BAR_INTERVAL_S)
                draw(p);
}

void progress_end(struct progress *p)
{
        if (p->drawn)
                fputs("\r\033[K", stderr);
        p->on = p->drawn = false;
}

/* ---- URLs ---- */

bool fetch_is_url(const char *s)
{
        return strncmp(s, "http://", 7) == 0 || strncmp(s, "https://", 8) == 0;
}

struct url {
        bool https;
        struct str authority, target;
        const char *dial, *host;
};

static bool read_url(struct arena *a, const char *text, struct url *u)
{
        struct str s = str_of(text);
        u->https = str_has_prefix(s, STR("https://"));
        s = str_skip(s, u->https ? 8 : 7);
        ptrdiff_t hash = str_chr(s, '#'), slash;
        if (hash >= 0)
                s.n = (size_t)hash;
        slash = str_chr(s, '/');
        u->authority = slash < 0 ? s : str_n(s.p, (size_t)slash);
        u->target = slash < 0 ? STR("/") : str_skip(s, (size_t)slash);
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] <= ' ' || s.p[i] == '@')
                        return false;
        struct str host = u->authority;
        ptrdiff_t end = host.n && host.p[0] == '[' ? str_chr(host, ']') : str_chr(host, ':');
        bool port = end >= 0 && (host.p[end] == ':' || ((size_t)end + 1 < host.n && host.p[end + 1] == ':'));
        u->dial = port ? arena_strdup(a, host) : arena_printf(a, "%.*s:%d", STR_FMT(host), u->https ? 443 : 80);
        u->host = host.p[0] == '[' && end > 0 ? arena_strdup(a, str_n(host.p + 1, (size_t)end - 1))
                                              : arena_strdup(a, end >= 0 ? str_n(host.p, (size_t)end) : host);
        return host.n && u->dial && u->host;
}

const char *fetch_beside(struct arena *a, const char *base, const char *name)
{
        if (fetch_is_url(name))
                return name;
        struct str b = str_of(base);
        ptrdiff_t query = str_chr(b, '?');
        if (query >= 0)
                b.n = (size_t)query;
        size_t head = strncmp(base, "https", 5) == 0 ? 8 : 7;
        if (name[0] == '/') {
                ptrdiff_t slash = str_chr(str_skip(b, head), '/');
                return arena_printf(a, "%.*s%s", slash < 0 ? (int)b.n : (int)head + (int)slash, base, name);
        }
        while (b.n > head && b.p[b.n - 1] != '/')
                b.n--;
        return arena_printf(a, b.n > head ? "%.*s%s" : "%.*s/%s", (int)(b.n > head ? b.n : strlen(base)), base, name);
}

/* ---- one request ---- */

struct sink { /* where the body goes */
        int fd;
        struct buf text;
        uint64_t max, have;
        struct progress *progress;
};

static int sink_write(struct sink *s, const char *p, size_t n)
{
        if (s->have + n > s->max)
                return -EMSGSIZE;
        s->have += n;
        if (s->fd < 0)
                return buf_add(&s->text, p, n);
        while (n) {
                ssize_t w = write(s->fd, p, n);
                if (w < 0 && errno != EINTR)
                        return -errno;
                p += w > 0 ? w : 0;
                n -= w > 0 ? (size_t)w : 0;
        }
        return 0;
}

static int read_body(struct http_exchange *x, struct sink *s)
{
        char *chunk = malloc(CHUNK_BYTES);
        ssize_t n = chunk ? 0 : -ENOMEM;
        int r = 0;
        if (s->progress && !s->progress->total && x->content_length > 0)
                s->progress->total = (uint64_t)x->content_length;
        while (r == 0 && chunk) {
                double old = fiber_set_deadline(loop_now() + REQUEST_TIMEOUT_S);
                n = http_exchange_read(x, chunk, CHUNK_BYTES);
                fiber_restore_deadline(old);
                if (n <= 0)
                        break;
                r = sink_write(s, chunk, (size_t)n);
                if (s->progress)
                        progress_add(s->progress, (uint64_t)n);
        }
        free(chunk);
        return r ? r : (int)n;
}

/* 0; 1 and *redirect; -errno with a sentence. */
static int ask(struct arena *a, const char *url, struct tls_context *tls, struct sink *s, const char **redirect, const char **ret_err)
{
        struct url u;
        struct http_client *c = NULL;
        struct http_exchange *x = NULL;
        struct http_header h = {STR("user-agent"), STR("daprctl/" CTL_VERSION)};
        *ret_err = arena_printf(a, "%s is no address that can be asked", url);
        if (!read_url(a, url, &u))
                return -EINVAL;
        struct http_client_conf conf = {.target = str_of(u.dial), .authority = u.authority, .tls = u.https ? tls : NULL,
                                        .server_name = str_of(u.host), .connect_timeout_s = 10};
        double old = fiber_set_deadline(loop_now() + REQUEST_TIMEOUT_S);
        int r = http_client_new(&c, &conf);
        if (r == 0)
                r = http_client_start(c, a, STR("GET"), u.target, &h, 1, 0, STR(""), &x);
        if (r == 0)
                r = http_exchange_response(x);
        fiber_restore_deadline(old);
        if (r)
                *ret_err = arena_printf(a, "%s: %s", url, r == -EKEYREJECTED ? "the server's certificate is not trusted (--ca-file)" : strerror(-r));
        if (r == 0 && x->status / 100 == 3) {
                *redirect = arena_strdup(a, http_headers_get(&x->headers, "location"));
                r = *redirect && **redirect ? 1 : -EPROTO;
                *ret_err = arena_printf(a, "%s: a redirect to nowhere", url);
        } else if (r == 0 && x->status != 200) {
                *ret_err = arena_printf(a, "%s: the server answers %d %s", url, x->status, http_status_text(x->status));
                r = x->status == 404 || x->status == 410 || x->status == 403 ? -ENOENT : -EIO; /* 403: buckets that tell nobody what they have not */
        } else if (r == 0) {
                r = read_body(x, s);
                *ret_err = arena_printf(a, "%s: %s", url, r == -EMSGSIZE ? "it is larger than it may be" : r == -ECONNRESET ? "the transfer was cut off" : strerror(-r));
        }
        if (x)
                http_exchange_close(x);
        if (c)
                http_client_free(c);
        return r;
}

static int get(struct arena *a, const char *url, const char *ca_file, struct sink *s, const char **ret_err)
{
        struct tls_context *tls = NULL;
        struct tls_options o = {0};
        char err[200];
        int r = 1;
        if (*ca_file && trust_read_file(a, ca_file, 1 << 20, &o.roots_pem)) {
                *ret_err = arena_printf(a, "--ca-file %s cannot be read", ca_file);
                return -EINVAL;
        }
        if (tls_context_new(&tls, &o, err, sizeof err)) {
                *ret_err = arena_printf(a, "no TLS: %s", err);
                return -EINVAL;
        }
        for (int i = 0; r == 1 && i <= REDIRECTS_MAX; i++) {
                const char *to = NULL;
                r = ask(a, url, tls, s, &to, ret_err);
                if (r == 1 && strncmp(url, "https", 5) == 0 && strncmp(to, "http:", 5) == 0) {
                        *ret_err = arena_printf(a, "%s redirects to %s, which is not encrypted", url, to);
                        r = -EPROTO;
                }
                if (r == 1)
                        url = fetch_beside(a, url, to);
        }
        tls_context_unref(tls);
        if (r == 1)
                *ret_err = arena_printf(a, "%s: too many redirects", url);
        return r == 1 ? -ELOOP : r;
}

int fetch_text(struct arena *a, const char *url, const char *ca_file, size_t max, struct str *ret, const char **ret_err)
{
        struct sink s = {.fd = -1, .max = max};
        int r = get(a, url, ca_file, &s, ret_err);
        if (r == 0) {
                *ret = arena_str(a, buf_str(&s.text));
                r = ret->p ? 0 : -ENOMEM;
        }
        buf_fini(&s.text);
        return r;
}

int fetch_fd(struct arena *a, const char *url, const char *ca_file, uint64_t max, int fd, struct progress *p, const char **ret_err)
{
        struct sink s = {.fd = fd, .max = max, .progress = p};
        return get(a, url, ca_file, &s, ret_err);
}
