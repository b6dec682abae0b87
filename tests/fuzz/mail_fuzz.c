/*
 * Mails: whatever subject, address or body comes, the text is lines of at most 998 bytes ending in CRLF, its headers are ours and no
 * others, and a bare address has no blanks and no brackets.
 */
#include <stdlib.h>

#include "plugins/bindings.smtp/message.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_text(struct str s)
{
        static const char *const names[] = {"Mime-Version:", "Date:", "From:", "To:", "Cc:", "Subject:", "X-priority:", "Content-Type:",
                                            "Content-Transfer-Encoding:"};
        bool body = false;
        while (s.n) {
                ptrdiff_t end = str_find(s, STR("\r\n"));
                must_hold(end >= 0);
                struct str line = str_n(s.p, (size_t)end);
                must_hold(str_chr(line, '\n') < 0 && (body || str_chr(line, '\r') < 0));
                must_hold(!body || line.n <= 76);
                bool known = !line.n || line.p[0] == ' ';
                for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
                        known |= str_has_prefix(line, str_of(names[i]));
                must_hold(body || known);
                body |= !line.n;
                s = str_skip(s, (size_t)end + 2);
        }
        must_hold(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct str s = {(const char *)data, n}, one, address;
        struct buf out = {0};
        bool good = true;
        for (struct str rest = s; mail_next(&rest, &one);) {
                if (mail_address(one, &address)) {
                        good = false;
                        continue;
                }
                for (size_t i = 0; i < address.n; i++)
                        must_hold((unsigned char)address.p[i] > ' ' && !strchr("<>,;\"", address.p[i]));
        }
        /* lists reach a mail only when each address is good */
        struct mail m = {.from = STR("a@b"), .to = good ? s : STR("a@b"), .cc = STR(""), .subject = s, .body = s, .priority = 3};
        must_hold(mail_write(&out, &m) == 0);
        check_text(buf_str(&out));
        buf_fini(&out);
        return 0;
}
