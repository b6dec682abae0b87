/*
 * NATS operations: a control line of words, and behind MSG and HMSG a payload whose length the line gives. Lines are bounded, lengths
 * are checked before anything waits for that many bytes. Header blocks are read where they stand.
 */
#include "plugins/shared/nats/protocol.h"

#include <errno.h>

enum { WORDS_MAX = 8, ACK_WORDS_MAX = 16 };

static bool read_number(struct str s, uint64_t max, uint64_t *ret)
{
        uint64_t n = 0;
        if (!s.n || s.n > 20)
                return false;
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] < '0' || s.p[i] > '9' || n > (max - (uint64_t)(s.p[i] - '0')) / 10)
                        return false;
                n = n * 10 + (uint64_t)(s.p[i] - '0');
        }
        *ret = n;
        return true;
}

/* Words between blanks; returns their number, WORDS_MAX + 1 when there are more. */
static size_t split(struct str line, struct str v[WORDS_MAX])
{
        size_t n = 0;
        while (line.n) {
                size_t i = 0;
                while (i < line.n && (line.p[i] == ' ' || line.p[i] == '\t'))
                        i++;
                line = str_skip(line, i);
                for (i = 0; i < line.n && line.p[i] != ' ' && line.p[i] != '\t';)
                        i++;
                if (!i)
                        break;
                if (n == WORDS_MAX)
                        return WORDS_MAX + 1;
                v[n++] = str_n(line.p, i);
                line = str_skip(line, i);
        }
        return n;
}

/* MSG subject sid [reply] bytes, HMSG subject sid [reply] header-bytes all-bytes; `line_n` bytes of the input are the line. */
static int message_get(struct str in, size_t line_n, struct str words, bool with_headers, struct nats_op *ret, size_t *ret_used)
{
        struct str v[WORDS_MAX];
        uint64_t all = 0, head = 0;
        size_t n = split(words, v), least = with_headers ? 4 : 3;
        if (n < least || n > least + 1 || v[0].n > NATS_SUBJECT_MAX || !read_number(v[1], UINT64_MAX, &ret->sid))
                return -EBADMSG;
        if (!read_number(v[n - 1], UINT64_MAX, &all) || (with_headers && !read_number(v[n - 2], UINT64_MAX, &head)) || head > all)
                return -EBADMSG;
        if (all > NATS_PAYLOAD_MAX)
                return -EMSGSIZE;
        if (in.n - line_n < all + 2)
                return 0;
        const char *p = in.p + line_n;
        if (p[all] != '\r' || p[all + 1] != '\n')
                return -EBADMSG;
        ret->kind = NATS_MSG;
        ret->subject = v[0];
        ret->reply = n > least ? v[2] : STR("");
        ret->headers = str_n(p, head);
        ret->payload = str_n(p + head, all - head);
        *ret_used = line_n + all + 2;
        return 1;
}

static struct str unquote(struct str s)
{
        s = str_trim(s);
        return s.n >= 2 && s.p[0] == '\'' && s.p[s.n - 1] == '\'' ? str_n(s.p + 1, s.n - 2) : s;
}

int nats_op_get(struct str in, struct nats_op *ret, size_t *ret_used)
{
        static const struct {
                struct str verb;
                enum nats_kind kind;
        } plain[] = {{STR("INFO"), NATS_INFO}, {STR("PING"), NATS_PING}, {STR("PONG"), NATS_PONG}, {STR("+OK"), NATS_OK}, {STR("-ERR"), NATS_ERR}};
        struct str seen = in.n > NATS_LINE_MAX ? str_n(in.p, NATS_LINE_MAX) : in;
        ptrdiff_t end = str_chr(seen, '\n');
        if (end < 0)
                return seen.n == NATS_LINE_MAX ? -EMSGSIZE : 0;
        struct str line = str_n(in.p, (size_t)end);
        if (line.n && line.p[line.n - 1] == '\r')
                line.n--;
        size_t n = 0;
        while (n < line.n && line.p[n] != ' ' && line.p[n] != '\t')
                n++;
        struct str verb = str_n(line.p, n), rest = str_skip(line, n);
        *ret = (struct nats_op){0};
        if (str_ieq(verb, STR("MSG")) || str_ieq(verb, STR("HMSG")))
                return message_get(in, (size_t)end + 1, rest, verb.n == 4, ret, ret_used);
        for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++) {
                if (!str_ieq(verb, plain[i].verb))
                        continue;
                ret->kind = plain[i].kind;
                ret->text = ret->kind == NATS_ERR ? unquote(rest) : str_trim(rest);
                *ret_used = (size_t)end + 1;
                return 1;
        }
        return -EBADMSG;
}

/* ---- headers ---- */

static bool next_line(struct str *rest, struct str *line)
{
        if (!rest->p || !rest->n)
                return false;
        *line = str_cut(rest, '\n');
        if (line->n && line->p[line->n - 1] == '\r')
                line->n--;
        return true;
}

int nats_status(struct str headers, struct str *ret_words)
{
        struct str line = STR(""), first = STR("NATS/1.0");
        uint64_t n;
        if (!next_line(&headers, &line) || !str_has_prefix(line, first))
                return 0;
        struct str rest = str_trim(str_skip(line, first.n)), code = str_cut(&rest, ' ');
        if (!read_number(code, 999, &n))
                return 0;
        *ret_words = str_trim(rest.p ? rest : STR(""));
        return (int)n;
}

struct str nats_header(struct str headers, struct str name)
{
        struct str line = STR("");
        for (next_line(&headers, &line); next_line(&headers, &line);) {
                struct str value = line, key = str_cut(&value, ':');
                if (value.p && str_ieq(key, name))
                        return str_trim(value);
        }
        return STR_NULL;
}

/* ---- what a client sends ---- */

int nats_put_pub(struct buf *b, struct str subject, struct str reply, struct str headers, struct str payload)
{
        size_t before = buf_len(b);
        buf_printf(b, "%s %.*s %.*s%s", headers.n ? "HPUB" : "PUB", STR_FMT(subject), STR_FMT(reply), reply.n ? " " : "");
        if (headers.n)
                buf_printf(b, "%zu ", headers.n);
        buf_printf(b, "%zu\r\n", headers.n + payload.n);
        buf_adds(b, headers);
        buf_adds(b, payload);
        buf_add(b, "\r\n", 2);
        if (!b->failed)
                return 0;
        b->failed = false;
        b->len = b->off + before; /* half an operation must not go out */
        return -ENOMEM;
}

int nats_put_sub(struct buf *b, struct str subject, struct str queue, uint64_t sid)
{
        return buf_printf(b, "SUB %.*s %.*s%s%llu\r\n", STR_FMT(subject), STR_FMT(queue), queue.n ? " " : "", (unsigned long long)sid);
}

int nats_put_unsub(struct buf *b, uint64_t sid)
{
        return buf_printf(b, "UNSUB %llu\r\n", (unsigned long long)sid);
}

/* ---- subjects ---- */

const char *nats_subject_fault(struct str subject, bool wildcards)
{
        size_t token = 0;
        if (!subject.n)
                return "is empty";
        if (subject.n > NATS_SUBJECT_MAX)
                return "is longer than 4096 bytes";
        for (size_t i = 0; i <= subject.n; i++) {
                unsigned char c = i < subject.n ? (unsigned char)subject.p[i] : '.';
                if (c <= ' ' || c == 0x7f)
                        return "has blanks or control characters";
                if (c != '.') {
                        token++;
                        continue;
                }
                if (!token)
                        return "has an empty part between its dots";
                char last = subject.p[i - 1];
                if (token == 1 && (last == '*' || last == '>')) {
                        if (!wildcards)
                                return "has wildcards, which only subscriptions may have";
                        if (last == '>' && i < subject.n)
                                return "has > before its end";
                }
                token = 0;
        }
        return NULL;
}

bool nats_is_name(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f || strchr(".*>/\\", s.p[i]))
                        return false;
        return s.n > 0 && s.n <= NATS_SUBJECT_MAX;
}

/* $JS.ACK.stream.consumer.deliveries.sequence.…, nine words; later servers put a domain and an account before the stream. */
int nats_delivery_get(struct str reply, struct nats_delivery *ret)
{
        struct str v[ACK_WORDS_MAX];
        size_t n = 0;
        for (struct str rest = reply; rest.p;) {
                if (n == ACK_WORDS_MAX)
                        return -EBADMSG;
                v[n++] = str_cut(&rest, '.');
        }
        if ((n != 9 && n < 11) || !str_eqz(v[0], "$JS") || !str_eqz(v[1], "ACK"))
                return -EBADMSG;
        struct str *f = v + (n == 9 ? 2 : 4);
        ret->stream = f[0];
        ret->consumer = f[1];
        return read_number(f[2], UINT64_MAX, &ret->deliveries) && read_number(f[3], UINT64_MAX, &ret->sequence) ? 0 : -EBADMSG;
}
