/*
 * Heads are read by llhttp, which is known here only, after a look at the lines themselves: the version of llhttp at hand lets
 * line ends without LF, folded lines and blanks before the colon pass in places, and these are what request smuggling is made
 * of. A head is handed to llhttp whole, so that each name and value comes in one piece and is borrowed from the text.
 * Bodies are delimited here: by count, or chunk by chunk in the strict form (CRLF only, bounded size lines and trailers).
 */
#include "sdk/net/http1.h"

#include <errno.h>
#include <llhttp.h>
#include <stdio.h>
#include <time.h>

/* Optional white space is blank and tab only, unlike str_trim()'s. */
static struct str trim_ows(struct str s)
{
        while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
                s = str_skip(s, 1);
        while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
                s.n--;
        return s;
}

/* ---- heads ---- */

ssize_t http1_head_scan(struct str in, size_t *scanned, size_t max)
{
        size_t at = *scanned;
        size_t end = in.n < max ? in.n : max;
        while (at < end) {
                const char *line = in.p + at, *nl = memchr(line, '\n', end - at);
                if (!nl)
                        break;
                size_t n = (size_t)(nl - line);
                if (!n || memchr(line, '\r', n) != nl - 1)
                        return -EBADMSG;
                if (at && (line[0] == ' ' || line[0] == '\t'))
                        return -EBADMSG;
                at += n + 1;
                if (n == 1 && at > 2) /* one empty line before the first is forgiven */
                        return (ssize_t)at;
                *scanned = at;
        }
        return in.n >= max ? -EMSGSIZE : 0;
}

static const uint8_t token_chars[256] = {
        ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,
        ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};

bool http1_is_token(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (!token_chars[(unsigned char)s.p[i]])
                        return false;
        return s.n > 0;
}

enum http1_field http1_field_kind(struct str name)
{
        switch (name.n) {
        case 4:
                return str_ieq(name, STR("Date")) ? HTTP1_DATE : str_ieq(name, STR("Host")) ? HTTP1_HOST : HTTP1_PLAIN;
        case 10:
                return str_ieq(name, STR("Connection")) ? HTTP1_CONNECTION : HTTP1_PLAIN;
        case 14:
                return str_ieq(name, STR("Content-Length")) ? HTTP1_CONTENT_LENGTH : HTTP1_PLAIN;
        case 17:
                return str_ieq(name, STR("Transfer-Encoding")) ? HTTP1_TRANSFER_ENCODING : HTTP1_PLAIN;
        default:
                return HTTP1_PLAIN;
        }
}

struct reading {
        struct http1_head *head;
        struct arena *arena;
        struct str name, value;
        int hosts, encodings, lengths;
        bool close, keep_alive, nomem;
};

static struct reading *reading_of(llhttp_t *p)
{
        return p->data;
}

static int refuse(struct reading *r, int status, const char *why)
{
        if (!r->head->refuse) {
                r->head->refuse = status;
                r->head->why = why;
        }
        return -1;
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
        reading_of(p)->head->target = str_n(at, n);
        return 0;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
        struct reading *r = reading_of(p);
        r->name = str_n(at, n);
        r->value = str_n(at + n, 0);
        return http1_is_token(r->name) ? 0 : refuse(r, 400, "");
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
        reading_of(p)->value = trim_ows(str_n(at, n));
        return 0;
}

static int take_framing(struct reading *r)
{
        struct http1_head *h = r->head;
        switch (http1_field_kind(r->name)) {
        case HTTP1_HOST:
                if (r->hosts++ && !h->response)
                        return refuse(r, 400, "");
                h->host = r->value;
                return 0;
        case HTTP1_CONNECTION:
                r->close |= http_value_has_token(r->value, "close");
                r->keep_alive |= http_value_has_token(r->value, "keep-alive");
                h->upgrade |= http_value_has_token(r->value, "upgrade");
                return 0;
        case HTTP1_TRANSFER_ENCODING:
                if (r->encodings++ || !str_ieq(r->value, STR("chunked")))
                        return refuse(r, 501, NULL);
                h->chunked = true;
                return 0;
        case HTTP1_CONTENT_LENGTH:
                r->lengths++;
                return 0;
        case HTTP1_PLAIN:
                if (r->name.n == 6 && str_ieq(r->name, STR("Expect")))
                        h->expect_continue = str_ieq(r->value, STR("100-continue")) || refuse(r, 417, NULL) == 0;
                return h->refuse ? -1 : 0;
        case HTTP1_DATE:
                return 0;
        }
        return 0;
}

static int on_value_complete(llhttp_t *p)
{
        struct reading *r = reading_of(p);
        struct http1_head *h = r->head;
        if (h->headers.n >= HTTP1_MAX_HEADERS)
                return refuse(r, 431, NULL);
        if (http_headers_add(&h->headers, r->arena, r->name, r->value)) {
                r->nomem = true;
                return -1;
        }
        return take_framing(r) ? -1 : 0;
}

static int on_headers_complete(llhttp_t *p)
{
        return HPE_PAUSED; /* bodies are not llhttp's business */
}

static const llhttp_settings_t settings = {
        .on_url = on_url,
        .on_header_field = on_field,
        .on_header_value = on_value,
        .on_header_value_complete = on_value_complete,
        .on_headers_complete = on_headers_complete,
};

/* ---- what llhttp leaves to its user ---- */

static bool is_valid_host(struct str s)
{
        static const char allowed[] = "!$%&'()*+,-.:;=[]_~";
        for (size_t i = 0; i < s.n; i++) {
                char c = s.p[i];
                if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr(allowed, c))))
                        return false;
        }
        return true;
}

static int check_request(struct reading *r, const llhttp_t *p)
{
        struct http1_head *h = r->head;
        if (!p->http_major)
                return refuse(r, 400, "");
        if (p->http_major != 1 || p->http_minor > 1)
                return refuse(r, 505, "unsupported protocol version");
        /* llhttp skips blanks beyond the one, and knows protocols that are like HTTP */
        if (h->target.p[-2] == ' ' || memcmp(h->target.p + h->target.n + 1, "HTTP/", 5))
                return refuse(r, 400, "");
        if (h->chunked && (r->lengths || h->version == 10))
                return refuse(r, 400, "");
        if (h->version == 11 && !r->hosts && p->method != HTTP_CONNECT)
                return refuse(r, 400, "missing required Host header");
        if (!is_valid_host(h->host))
                return refuse(r, 400, "malformed Host header");
        return 0;
}

static int check_response(struct reading *r, const llhttp_t *p)
{
        struct http1_head *h = r->head;
        h->status = p->status_code;
        if (p->http_major != 1 || h->status < 100)
                return -1;
        return h->chunked && r->lengths ? -1 : 0;
}

/* A request line that llhttp refuses may only be of a version that we do not speak: Go answers that with 505. */
static bool is_other_version(struct str text)
{
        struct str rest = text, line = str_cut(&rest, '\n');
        const char *sp = memrchr(line.p, ' ', line.n);
        if (!sp)
                return false;
        struct str v = str_trim(str_skip(line, (size_t)(sp - line.p) + 1));
        return v.n == 8 && !memcmp(v.p, "HTTP/", 5) && v.p[5] >= '0' && v.p[5] <= '9' && v.p[6] == '.' && v.p[7] >= '0' &&
               v.p[7] <= '9' && memcmp(v.p + 5, "1.0", 3) && memcmp(v.p + 5, "1.1", 3);
}

bool http1_is_foreign(struct str head)
{
        struct str rest = head, line = str_cut(&rest, '\n'), method = str_cut(&line, ' '), target = str_cut(&line, ' ');
        if (!method.n || !target.n || line.n < 2 || line.p[0] == ' ' || (line.n >= 4 && str_ieq(str_n(line.p, 4), STR("HTTP"))))
                return false;
        for (size_t i = 0; i < target.n; i++)
                if (strchr("/:*", target.p[i]))
                        return false;
        return true;
}

int http1_head_parse(struct http1_head *h, struct arena *a, struct str text)
{
        llhttp_t p;
        struct reading r = {.head = h, .arena = a};
        struct http_headers storage = {h->headers.v, 0, h->headers.cap};
        *h = (struct http1_head){.response = h->response, .headers = storage, .content_length = -1};
        llhttp_init(&p, h->response ? HTTP_RESPONSE : HTTP_REQUEST, &settings);
        p.data = &r;
        enum llhttp_errno e = llhttp_execute(&p, text.p, text.n);
        if (r.nomem)
                return -ENOMEM;
        bool read_all = e == HPE_PAUSED && llhttp_get_error_pos(&p) == text.p + text.n;
        /* CONNECT and Upgrade do not pause at the end of the head, having no body to llhttp's mind. */
        if (e == HPE_PAUSED_UPGRADE)
                read_all = true;
        if (!read_all) {
                if (!h->response && !h->refuse && is_other_version(text))
                        refuse(&r, 505, "unsupported protocol version");
                refuse(&r, 400, "");
                return -EBADMSG;
        }
        h->version = p.http_minor == 0 ? 10 : 11;
        if (!h->response) {
                const char *m = llhttp_method_name(p.method);
                h->method = str_of(m);
        }
        if (r.lengths && !h->chunked)
                h->content_length = p.content_length > INT64_MAX ? INT64_MAX : (int64_t)p.content_length;
        h->keep_alive = !r.close && (h->version == 11 || r.keep_alive);
        if (h->response ? check_response(&r, &p) : check_request(&r, &p))
                return -EBADMSG;
        return 0;
}

/* ---- bodies ---- */

void http1_body_init(struct http1_body *b, enum http1_body_kind kind, uint64_t length, struct arena *a)
{
        *b = (struct http1_body){.kind = kind, .arena = a};
        if (kind == HTTP1_BODY_LENGTH)
                b->left = length;
        b->done = kind == HTTP1_BODY_NONE || (kind == HTTP1_BODY_LENGTH && !length);
}

enum http1_body_kind http1_body_of_response(const struct http1_head *h, struct str request_method)
{
        if (h->status < 200 || h->status == 204 || h->status == 304 || str_eq(request_method, STR("HEAD")))
                return HTTP1_BODY_NONE;
        if (h->chunked)
                return HTTP1_BODY_CHUNKED;
        return h->content_length >= 0 ? HTTP1_BODY_LENGTH : HTTP1_BODY_TO_END;
}

enum chunk_state { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER };

/* The next line of in without its CRLF, at most max bytes. 1, -EAGAIN, -EBADMSG. It is not consumed. */
static int peek_line(const struct buf *in, size_t max, struct str *ret)
{
        struct str s = buf_str(in);
        size_t n = s.n < max ? s.n : max;
        const char *nl = n ? memchr(s.p, '\n', n) : NULL;
        if (!nl)
                return s.n >= max ? -EBADMSG : -EAGAIN;
        n = (size_t)(nl - s.p);
        if (!n || s.p[n - 1] != '\r' || memchr(s.p, '\r', n - 1))
                return -EBADMSG;
        *ret = str_n(s.p, n - 1);
        return 1;
}

static int read_chunk_size(struct http1_body *b, struct buf *in)
{
        struct str line;
        int r = peek_line(in, HTTP1_MAX_CHUNK_LINE, &line);
        if (r < 0)
                return r;
        uint64_t v = 0;
        size_t i = 0;
        for (; i < line.n; i++) {
                char c = line.p[i];
                unsigned d;
                if (c >= '0' && c <= '9')
                        d = (unsigned)(c - '0');
                else if ((c | 32) >= 'a' && (c | 32) <= 'f')
                        d = (unsigned)((c | 32) - 'a' + 10);
                else
                        break;
                if (i == 15)
                        return -EBADMSG;
                v = v << 4 | d;
        }
        struct str ext = trim_ows(str_skip(line, i));
        if (!i || (ext.n && ext.p[0] != ';'))
                return -EBADMSG;
        for (size_t k = 0; k < ext.n; k++)
                if ((unsigned char)ext.p[k] < ' ' && ext.p[k] != '\t')
                        return -EBADMSG;
        buf_consume(in, line.n + 2);
        b->left = v;
        b->state = v ? CHUNK_DATA : CHUNK_TRAILER;
        return 1;
}

static int add_trailer(struct http1_body *b, struct str line)
{
        struct str value = line, name = str_cut(&value, ':');
        if (!value.p || !http1_is_token(name))
                return -EBADMSG;
        value = trim_ows(value);
        for (size_t i = 0; i < value.n; i++)
                if (((unsigned char)value.p[i] < ' ' && value.p[i] != '\t') || value.p[i] == 127)
                        return -EBADMSG;
        if (!b->arena || http1_field_kind(name) != HTTP1_PLAIN)
                return 1;
        if (b->trailers.n >= HTTP1_MAX_HEADERS)
                return -EBADMSG;
        name = arena_str(b->arena, name);
        value = arena_str(b->arena, value);
        if (!name.p || !value.p || http_headers_add(&b->trailers, b->arena, name, value))
                return -ENOMEM;
        return 1;
}

static int read_trailer(struct http1_body *b, struct buf *in)
{
        struct str line;
        int r = peek_line(in, HTTP1_MAX_TRAILER_BYTES - b->trailer_bytes, &line);
        if (r < 0)
                return r;
        if (line.n) {
                r = add_trailer(b, line);
                if (r < 0)
                        return r;
        } else {
                b->done = true;
        }
        b->trailer_bytes += line.n + 2;
        buf_consume(in, line.n + 2);
        return b->trailer_bytes >= HTTP1_MAX_TRAILER_BYTES ? -EBADMSG : 1;
}

static int read_chunk_end(struct http1_body *b, struct buf *in)
{
        struct str s = buf_str(in);
        if ((s.n > 0 && s.p[0] != '\r') || (s.n > 1 && s.p[1] != '\n'))
                return -EBADMSG;
        if (s.n < 2)
                return -EAGAIN;
        buf_consume(in, 2);
        b->state = CHUNK_SIZE;
        return 1;
}

static size_t take(struct http1_body *b, struct buf *in, void *p, size_t n, bool counted)
{
        size_t have = buf_len(in);
        n = n < have ? n : have;
        if (counted && n > b->left)
                n = (size_t)b->left;
        memcpy(p, in->p + in->off, n);
        buf_consume(in, n);
        if (counted)
                b->left -= n;
        return n;
}

static ssize_t read_chunked(struct http1_body *b, struct buf *in, char *p, size_t n)
{
        size_t got = 0;
        while (!b->done && got < n) {
                int r = 1;
                switch ((enum chunk_state)b->state) {
                case CHUNK_SIZE:
                        r = read_chunk_size(b, in);
                        break;
                case CHUNK_DATA:
                        if (!buf_len(in)) {
                                r = -EAGAIN;
                                break;
                        }
                        got += take(b, in, p + got, n - got, true);
                        if (!b->left)
                                b->state = CHUNK_DATA_END;
                        break;
                case CHUNK_DATA_END:
                        r = read_chunk_end(b, in);
                        break;
                case CHUNK_TRAILER:
                        r = read_trailer(b, in);
                        break;
                }
                if (r == -EAGAIN && got)
                        break;
                if (r < 0)
                        return r;
        }
        return (ssize_t)got;
}

ssize_t http1_body_read(struct http1_body *b, struct buf *in, void *p, size_t n)
{
        if (b->done || !n)
                return 0;
        if (b->kind == HTTP1_BODY_CHUNKED)
                return read_chunked(b, in, p, n);
        if (!buf_len(in))
                return -EAGAIN;
        size_t got = take(b, in, p, n, b->kind == HTTP1_BODY_LENGTH);
        if (b->kind == HTTP1_BODY_LENGTH && !b->left)
                b->done = true;
        return (ssize_t)got;
}

/* ---- writing ---- */

void http1_put_header(struct buf *b, struct str name, struct str value)
{
        if (!http1_is_token(name) || buf_reserve(b, name.n + value.n + 4))
                return;
        char *p = b->p + b->len;
        memcpy(p, name.p, name.n);
        p += name.n;
        *p++ = ':';
        *p++ = ' ';
        for (size_t i = 0; i < value.n; i++) {
                char c = value.p[i];
                p[i] = c == '\r' || c == '\n' || c == '\0' ? ' ' : c;
        }
        p += value.n;
        *p++ = '\r';
        *p++ = '\n';
        b->len = (size_t)(p - b->p);
}

void http1_put_uint(struct buf *b, uint64_t v)
{
        char digits[20];
        size_t at = sizeof(digits);
        do
                digits[--at] = (char)('0' + v % 10);
        while (v /= 10);
        buf_add(b, digits + at, sizeof(digits) - at);
}

void http1_put_chunk_size(struct buf *b, size_t n)
{
        char digits[18];
        size_t at = sizeof(digits);
        digits[--at] = '\n';
        digits[--at] = '\r';
        do
                digits[--at] = "0123456789abcdef"[n & 15];
        while (n >>= 4);
        buf_add(b, digits + at, sizeof(digits) - at);
}

struct str http1_date_line(void)
{
        static struct {
                time_t at;
                char text[40];
        } cache;
        static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
        static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
        time_t now = time(NULL);
        if (now != cache.at) {
                struct tm tm;
                char buf[80];
                gmtime_r(&now, &tm);
                /* 37 bytes until the year 10000 */
                int n = snprintf(buf, sizeof(buf), "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n", days[tm.tm_wday % 7],
                                 tm.tm_mday, months[tm.tm_mon % 12], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
                memcpy(cache.text, buf, n < (int)sizeof(cache.text) ? (size_t)n : sizeof(cache.text) - 1);
                cache.at = now;
        }
        return str_n(cache.text, 37);
}
