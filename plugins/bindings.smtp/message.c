/* Quoted-printable bodies in lines of 76, encoded words of at most 75 bytes that never cut a character in two. */
#include "plugins/bindings.smtp/message.h"

#include <errno.h>
#include <time.h>

#include "sdk/base/json.h"

enum { LINE_MAX_BYTES = 76, WORD_BYTES = 39, DATE_BYTES = 64 };

bool mail_next(struct str *rest, struct str *ret)
{
        while (rest->p) {
                *ret = str_trim(str_cut(rest, ';'));
                if (ret->n)
                        return true;
        }
        return false;
}

static bool is_plain(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] < ' ' || (unsigned char)s.p[i] >= 0x7f)
                        return false;
        return true;
}

const char *mail_address(struct str one, struct str *ret)
{
        struct str a = str_trim(one);
        ptrdiff_t open = -1;
        for (size_t i = 0; i < a.n; i++)
                open = a.p[i] == '<' ? (ptrdiff_t)i : open;
        if (open >= 0) {
                if (a.p[a.n - 1] != '>')
                        return "has < without >";
                a = str_n(a.p + open + 1, a.n - (size_t)open - 2);
        }
        ptrdiff_t at = str_chr(a, '@');
        if (at < 1 || (size_t)at + 1 == a.n)
                return "is no address: write name@host";
        for (size_t i = 0; i < a.n; i++)
                if ((unsigned char)a.p[i] <= ' ' || a.p[i] == 0x7f || strchr("<>,;\"", a.p[i]))
                        return "has characters that no address has";
        for (size_t i = 0; i < one.n; i++)
                if (one.p[i] == '\r' || one.p[i] == '\n' || !one.p[i])
                        return "has line breaks";
        *ret = a;
        return NULL;
}

/* ---- headers ---- */

/* As it is when it is plain, else as encoded words. Line breaks become blanks: a value never begins another header. */
static void put_text(struct buf *out, struct str s)
{
        char word[BASE64_LEN(WORD_BYTES)];
        if (is_plain(s)) {
                buf_adds(out, s);
                return;
        }
        for (bool first = true; s.n; first = false) {
                size_t n = s.n < WORD_BYTES ? s.n : WORD_BYTES;
                while (n > 1 && n < s.n && (s.p[n] & 0xc0) == 0x80)
                        n--;
                buf_addz(out, first ? "=?UTF-8?B?" : "\r\n =?UTF-8?B?");
                buf_add(out, word, base64_put(word, str_n(s.p, n)));
                buf_addz(out, "?=");
                s = str_skip(s, n);
        }
}

static void put_list(struct buf *out, const char *name, struct str list)
{
        struct str one, address;
        bool first = true;
        for (struct str rest = list; mail_next(&rest, &one); first = false) {
                buf_printf(out, "%s%s", first ? name : ",\r\n ", first ? ": " : "");
                if (mail_address(one, &address) || address.p == one.p) {
                        put_text(out, one);
                        continue;
                }
                put_text(out, str_trim(str_n(one.p, (size_t)(address.p - one.p) - 1)));
                buf_printf(out, " <%.*s>", STR_FMT(address));
        }
        if (!first)
                buf_addz(out, "\r\n");
}

static void put_date(struct buf *out, int64_t date)
{
        static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
        static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
        time_t t = (time_t)date;
        struct tm tm;
        if (gmtime_r(&t, &tm))
                buf_printf(out, "Date: %s, %02d %s %d %02d:%02d:%02d +0000\r\n", days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon],
                           tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* ---- the body ---- */

static void put_body(struct buf *out, struct str s)
{
        size_t column = 0;
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];
                if (c == '\n' || (c == '\r' && i + 1 < s.n && s.p[i + 1] == '\n')) {
                        i += c == '\r';
                        buf_addz(out, "\r\n");
                        column = 0;
                        continue;
                }
                bool ends = i + 1 == s.n || s.p[i + 1] == '\n' || s.p[i + 1] == '\r';
                bool plain = (c >= ' ' && c < 0x7f && c != '=' && !(c == ' ' && ends)) || (c == '\t' && !ends);
                if (column + (plain ? 1 : 3) > LINE_MAX_BYTES - 1) {
                        buf_addz(out, "=\r\n");
                        column = 0;
                }
                if (plain)
                        buf_addc(out, (char)c);
                else
                        buf_printf(out, "=%02X", c);
                column += plain ? 1 : 3;
        }
        buf_addz(out, "\r\n");
}

int mail_write(struct buf *out, const struct mail *m)
{
        buf_addz(out, "Mime-Version: 1.0\r\n");
        put_date(out, m->date);
        put_list(out, "From", m->from);
        put_list(out, "To", m->to);
        put_list(out, "Cc", m->cc);
        buf_addz(out, "Subject: ");
        put_text(out, m->subject);
        buf_printf(out, "\r\nX-priority: %d\r\nContent-Type: text/html; charset=UTF-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
                   m->priority);
        put_body(out, m->body);
        return out->failed ? -ENOMEM : 0;
}
