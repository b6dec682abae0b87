/*
 * Lines are built and written under one mutex, in one buffer that is kept: no allocation in the usual case, lines never mix, and
 * small fiber stacks are enough. The date and the zone are rendered once a second.
 * The forms are logrus 1.9's TextFormatter and JSONFormatter as dapr/kit sets them up, `%q` and encoding/json included; a
 * terminal gets the coloured form that logrus prints there.
 */
#include "sdk/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "sdk/base/buf.h"
#include "sdk/base/loop.h"
#include "sdk/base/utf8.h"

enum { FIELDS_MAX = 32, LINE_KEEP_BYTES = 16 * 1024, TERMINAL_MSG_WIDTH = 44 };

static _Atomic int log_level_now = LOG_INFO;
static struct {
        pthread_mutex_t lock;
        const char *app_id, *version;
        bool json, terminal, ready;
        int fd;                  /* stdout, or the file */
        char host[256];
        struct buf line, text;
        char date[40], zone[8];  /* of the second `at` */
        time_t at, began;
} G = {.lock = PTHREAD_MUTEX_INITIALIZER, .version = "unknown", .fd = STDOUT_FILENO, .at = -1};

static const struct level {
        const char *name, *terminal;
        int colour;
} levels[] = {
        [LOG_FATAL] = {"fatal", "FATA", 31},
        [LOG_ERROR] = {"error", "ERRO", 31},
        [LOG_WARN] = {"warning", "WARN", 33},
        [LOG_INFO] = {"info", "INFO", 36},
        [LOG_DEBUG] = {"debug", "DEBU", 37},
};

/* With the lock held. */
static void ready(void)
{
        if (G.ready)
                return;
        G.ready = true;
        if (gethostname(G.host, sizeof(G.host) - 1))
                G.host[0] = '\0';
        G.terminal = isatty(G.fd);
        G.began = time(NULL);
}

void log_setup(const char *app_id, const char *version, bool as_json)
{
        pthread_mutex_lock(&G.lock);
        ready();
        G.app_id = app_id && *app_id ? app_id : NULL;
        G.version = version && *version ? version : "unknown";
        G.json = as_json;
        pthread_mutex_unlock(&G.lock);
}

int log_to_file(const char *path)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (fd < 0)
                return -errno;
        pthread_mutex_lock(&G.lock);
        ready();
        if (G.fd != STDOUT_FILENO)
                close(G.fd);
        G.fd = fd;
        G.terminal = false;
        pthread_mutex_unlock(&G.lock);
        return 0;
}

void log_set_level(enum log_level level)
{
        log_level_now = level;
}

enum log_level log_get_level(void)
{
        return (enum log_level)log_level_now;
}

bool log_enabled(enum log_level level)
{
        return (int)level <= log_level_now;
}

const char *log_level_name(enum log_level level)
{
        return levels[level].name;
}

int log_level_parse(struct str s, enum log_level *ret)
{
        if (str_ieq(s, STR("warn"))) {
                *ret = LOG_WARN;
                return 0;
        }
        for (int i = LOG_FATAL; i <= LOG_DEBUG; i++) {
                if (str_ieq(s, str_of(levels[i].name))) {
                        *ret = (enum log_level)i;
                        return 0;
                }
        }
        return -EINVAL;
}

/* ---- values ---- */

/* Bytes of the character at p, its code point in *ret; 1 and -1 when it is not valid UTF-8. */
static size_t utf8_next(const char *p, size_t n, int32_t *ret)
{
        int len = utf8_char_len(p, n);
        *ret = len == 1 ? p[0] : len ? p[0] & (0xff >> (len + 1)) : -1;
        for (int i = 1; i < len; i++)
                *ret = *ret << 6 | (p[i] & 0x3f);
        return len ? (size_t)len : 1;
}

static bool is_bare(struct str v)
{
        for (size_t i = 0; i < v.n; i++) {
                char c = v.p[i];
                bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
                if (!alnum && (!c || !strchr("-._/@^+", c)))
                        return false;
        }
        return true;
}

/* The escape letter that Go's %q and encoding/json share, or 0. */
static char short_escape(int32_t c)
{
        switch (c) {
        case '"': return '"';
        case '\\': return '\\';
        case '\b': return 'b';
        case '\f': return 'f';
        case '\n': return 'n';
        case '\r': return 'r';
        case '\t': return 't';
        default: return 0;
        }
}

/* What %q escapes above ASCII: controls, separators and spaces, format characters, surrogates, private use, non-characters.
 * Unassigned code points are left as they are: the tables of Unicode are not worth their size here. */
static bool is_printable(int32_t c)
{
        static const int32_t hidden[][2] = {
                {0x7f, 0xa0}, {0xad, 0xad}, {0x600, 0x605}, {0x61c, 0x61c}, {0x6dd, 0x6dd}, {0x70f, 0x70f}, {0x890, 0x891},
                {0x8e2, 0x8e2}, {0x1680, 0x1680}, {0x180e, 0x180e}, {0x2000, 0x200f}, {0x2028, 0x202f}, {0x205f, 0x206f},
                {0x3000, 0x3000}, {0xd800, 0xf8ff}, {0xfeff, 0xfeff}, {0xfff0, 0xfffb}, {0xfffe, 0xffff}, {0xe0000, 0xe007f}, {0xf0000, 0x10ffff},
        };
        if (c < 0x20)
                return false;
        for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++)
                if (c >= hidden[i][0] && c <= hidden[i][1])
                        return false;
        return true;
}

static void add_quoted(struct buf *b, struct str v)
{
        buf_addc(b, '"');
        for (size_t i = 0, len; i < v.n; i += len) {
                const char *p = v.p + i;
                int32_t c;
                len = utf8_next(p, v.n - i, &c);
                char e = short_escape(c);
                if (e)
                        buf_printf(b, "\\%c", e);
                else if (c == '\a' || c == '\v')
                        buf_addz(b, c == '\a' ? "\\a" : "\\v");
                else if (c < 0 || (c < 0x80 && !is_printable(c)))
                        buf_printf(b, "\\x%02x", (unsigned char)*p);
                else if (is_printable(c))
                        buf_add(b, p, len);
                else
                        buf_printf(b, c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        }
        buf_addc(b, '"');
}

static void add_json(struct buf *b, struct str v)
{
        buf_addc(b, '"');
        for (size_t i = 0, len; i < v.n; i += len) {
                const char *p = v.p + i;
                int32_t c;
                len = utf8_next(p, v.n - i, &c);
                char e = short_escape(c);
                if (e)
                        buf_printf(b, "\\%c", e);
                else if (c < 0)
                        buf_addz(b, "\\ufffd");
                else if (c < 0x20 || c == '<' || c == '>' || c == '&' || c == 0x2028 || c == 0x2029)
                        buf_printf(b, "\\u%04x", (unsigned)c);
                else
                        buf_add(b, p, len);
        }
        buf_addc(b, '"');
}

/* RFC 3339 with nanoseconds, trailing zeros cut off, in local time. */
static void add_time(struct buf *b)
{
        int64_t ns = wall_ns();
        time_t s = (time_t)(ns / 1000000000);
        if (s != G.at) {
                struct tm tm;
                localtime_r(&s, &tm);
                strftime(G.date, sizeof(G.date), "%Y-%m-%dT%H:%M:%S", &tm);
                long off = tm.tm_gmtoff / 60, abs = labs(off);
                if (off)
                        snprintf(G.zone, sizeof(G.zone), "%c%02u:%02u", off < 0 ? '-' : '+', (unsigned)(abs / 60 % 100),
                                 (unsigned)(abs % 60));
                else
                        memcpy(G.zone, "Z", 2);
                G.at = s;
        }
        buf_addz(b, G.date);
        unsigned frac = (unsigned)(ns % 1000000000);
        if (frac) {
                buf_printf(b, ".%09u", frac);
                while (b->p && b->p[b->len - 1] == '0')
                        b->len--;
        }
        buf_addz(b, G.zone);
}

/* ---- lines ---- */

static int by_key(const void *a, const void *b)
{
        return strcmp(((const struct log_field *)a)->key, ((const struct log_field *)b)->key);
}

static size_t put_field(struct log_field *all, size_t n, struct log_field f)
{
        for (size_t i = 0; i < n; i++) {
                if (strcmp(all[i].key, f.key) == 0) {
                        all[i] = f;
                        return n;
                }
        }
        if (n < FIELDS_MAX)
                all[n++] = f;
        return n;
}

static size_t set_field(struct log_field *all, size_t n, const char *key, struct str value)
{
        return put_field(all, n, (struct log_field){key, value, false});
}

static void text_line(struct buf *b, enum log_level level, struct str msg, const struct log_field *f, size_t n)
{
        buf_addz(b, "time=\"");
        add_time(b);
        buf_printf(b, "\" level=%s", levels[level].name);
        for (size_t i = 0; i < n + 1; i++) {
                struct str v = i ? f[i - 1].value : msg;
                if (!i && !msg.n)
                        continue;
                buf_printf(b, " %s=", i ? f[i - 1].key : "msg");
                if (is_bare(v))
                        buf_adds(b, v);
                else
                        add_quoted(b, v);
        }
}

static void terminal_line(struct buf *b, enum log_level level, struct str msg, const struct log_field *f, size_t n)
{
        const struct level *l = &levels[level];
        if (str_has_suffix(msg, STR("\n")))
                msg.n--;
        buf_printf(b, "\x1b[%dm%s\x1b[0m[%04ld] ", l->colour, l->terminal, (long)(time(NULL) - G.began));
        buf_adds(b, msg);
        size_t width = 0;
        for (size_t i = 0; i < msg.n; i++)
                width += (msg.p[i] & 0xc0) != 0x80;
        for (; width < TERMINAL_MSG_WIDTH; width++)
                buf_addc(b, ' ');
        buf_addc(b, ' ');
        for (size_t i = 0; i < n; i++) {
                buf_printf(b, " \x1b[%dm%s\x1b[0m=", l->colour, f[i].key);
                if (is_bare(f[i].value))
                        buf_adds(b, f[i].value);
                else
                        add_quoted(b, f[i].value);
        }
}

static void json_line(struct buf *b, enum log_level level, struct str msg, struct log_field *f, size_t n)
{
        n = set_field(f, n, "level", str_of(levels[level].name));
        n = set_field(f, n, "msg", msg);
        n = set_field(f, n, "time", STR(""));
        qsort(f, n, sizeof(*f), by_key);
        for (size_t i = 0; i < n; i++) {
                buf_addc(b, i ? ',' : '{');
                add_json(b, str_of(f[i].key));
                buf_addc(b, ':');
                if (strcmp(f[i].key, "time")) {
                        if (f[i].is_number)
                                buf_adds(b, f[i].value);
                        else
                                add_json(b, f[i].value);
                        continue;
                }
                buf_addc(b, '"');
                add_time(b);
                buf_addc(b, '"');
        }
        buf_addc(b, '}');
}

static void write_all(int fd, struct str s)
{
        while (s.n) {
                ssize_t r = write(fd, s.p, s.n);
                if (r >= 0) {
                        s = str_skip(s, (size_t)r);
                } else if (errno == EAGAIN) {
                        struct pollfd p = {.fd = fd, .events = POLLOUT};
                        poll(&p, 1, -1);
                } else if (errno != EINTR) {
                        return;
                }
        }
}

/* With the lock held. */
static void write_locked(enum log_level level, const char *scope, struct str msg, const struct log_field *fields, size_t n)
{
        struct log_field all[FIELDS_MAX + 3];
        size_t k = 0;
        ready();
        k = set_field(all, k, "instance", str_of(G.host));
        k = set_field(all, k, "scope", str_of(scope));
        k = set_field(all, k, "type", STR("log"));
        k = set_field(all, k, "ver", str_of(G.version));
        if (G.app_id)
                k = set_field(all, k, "app_id", str_of(G.app_id));
        for (size_t i = 0; i < n && k < FIELDS_MAX - 3; i++)
                k = put_field(all, k, fields[i]);
        buf_clear(&G.line);
        if (G.json) {
                json_line(&G.line, level, msg, all, k);
        } else {
                qsort(all, k, sizeof(*all), by_key);
                (G.terminal ? terminal_line : text_line)(&G.line, level, msg, all, k);
        }
        buf_addc(&G.line, '\n');
        write_all(G.fd, buf_str(&G.line));
        if (G.line.cap > LINE_KEEP_BYTES)
                buf_fini(&G.line);
}

void log_write(enum log_level level, const char *scope, struct str msg, const struct log_field *fields, size_t n)
{
        if (log_enabled(level))
                log_write_always(level, scope, msg, fields, n);
}

void log_write_always(enum log_level level, const char *scope, struct str msg, const struct log_field *fields, size_t n)
{
        int saved = errno;
        pthread_mutex_lock(&G.lock);
        write_locked(level, scope, msg, fields, n);
        pthread_mutex_unlock(&G.lock);
        errno = saved;
}

void log_printf(enum log_level level, const char *scope, const char *fmt, ...)
{
        if (!log_enabled(level))
                return;
        int saved = errno;
        va_list ap;
        va_start(ap, fmt);
        pthread_mutex_lock(&G.lock);
        buf_clear(&G.text);
        errno = saved; /* for %m */
        buf_vprintf(&G.text, fmt, ap);
        write_locked(level, scope, buf_str(&G.text), NULL, 0);
        if (G.text.cap > LINE_KEEP_BYTES)
                buf_fini(&G.text);
        pthread_mutex_unlock(&G.lock);
        va_end(ap);
        errno = saved;
}

void must_failed(const char *expr, const char *file, int line)
{
        dprintf(STDERR_FILENO, "%s:%d: bug: %s\n", file, line, expr);
        abort();
}
