/* A mail as text (RFC 5322, MIME): one HTML body, headers in UTF-8 encoded as RFC 2047 wants it. No I/O. */
#ifndef BINDINGS_SMTP_MESSAGE_H
#define BINDINGS_SMTP_MESSAGE_H

#include "sdk/base/buf.h"

struct mail {
        struct str from, to, cc, bcc; /* lists with semicolons: "a@b; Name <c@d>" */
        struct str subject, body;
        int priority;
        int64_t date;                 /* Unix seconds */
};

/* Appends the whole mail; bcc is not in it. 0 or -ENOMEM. */
int mail_write(struct buf *out, const struct mail *m);
/* What is wrong with one address ("a@b", "Name <a@b>"), as a text; NULL = nothing, and *ret is the bare address. */
const char *mail_address(struct str one, struct str *ret);
/* Cuts the next one off *rest; false at the end. Empty ones are left out. */
bool mail_next(struct str *rest, struct str *ret);

#endif
