/* Tokens of an OAuth 2.0 token endpoint (RFC 6749): one form posted, JSON or a form back. */
#ifndef PLUGINS_SHARED_OAUTH2_TOKEN_H
#define PLUGINS_SHARED_OAUTH2_TOKEN_H

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"

/* Where the client's name and secret go. UNKNOWN: into the header; when the server refuses, as parameters; what it took is kept. */
enum oauth2_style { OAUTH2_UNKNOWN, OAUTH2_IN_PARAMS, OAUTH2_IN_HEADER };

struct web_site;
struct oauth2_client { /* zero value = empty */
        struct web_site *site;
        char *id, *secret;
        bool slash;                    /* the URL ends with one */
        enum oauth2_style style;
};
struct oauth2_token {
        const char *header;            /* "Bearer abc" */
        double expires_in_s;           /* 0 = not said */
};
struct oauth2_param {
        const char *name, *value;
};

/* Strings are copied. 0, -ENOMEM, -EINVAL with a static text. */
int oauth2_client_init(struct oauth2_client *c, const char *url, const char *id, const char *secret, enum oauth2_style style,
                       const char **ret_err);
void oauth2_client_fini(struct oauth2_client *c);
/* Asks. *ret lives in the arena. 0, or a negative errno with a text for the log in *ret_why (in the arena, or static; no secrets).
 * Parks, 30 s at most. */
int oauth2_token_get(struct oauth2_client *c, struct arena *a, const struct oauth2_param *params, size_t n, struct oauth2_token *ret,
                     const char **ret_why);
/* name=value as a form or a query has them, with an & in front unless b is empty. -ENOMEM. */
int oauth2_put_param(struct buf *b, struct arena *a, const char *name, const char *value);

#endif
