/* One pipelined connection to one Redis node. Internal to the client; see redis.h. */
#ifndef PLUGINS_SHARED_REDIS_LINK_H
#define PLUGINS_SHARED_REDIS_LINK_H

#include "plugins/shared/redis/redis.h"
#include "sdk/base/list.h"
#include "sdk/net/conn.h"

struct link {
        struct conn *conn;
        redisReader *reader;
        struct list waiting;
        int broken;                        /* 0, or the errno that ended it */
        double read_timeout_s;
        void (*on_broken)(struct link *l); /* loop's stack or a fiber; must not free l */
        /* Takes messages of subscribed channels (arrays "message" and "pmessage"), which answer no command. NULL = none expected. */
        void (*on_message)(struct link *l, const redisReply *m);
        void *owner;
};
struct link_options {
        const char *username, *password;
        int db;
        struct tls_context *tls; /* NULL = plain */
        double dial_timeout_s, read_timeout_s;
};
/* Dials, TLS, AUTH, SELECT. 0 and *ret, -EACCES (AUTH refused), -ERANGE (SELECT refused) or another errno. Parks. */
int link_open(struct link **ret, const char *addr, const struct link_options *o);
void link_free(struct link *l); /* fails whoever waits; NULL is fine */
/* Ends the link now with err; whoever waits gets it. */
void link_fail(struct link *l, int err);
/* Writes one command and parks for its reply. 0 and *ret, or -errno. */
int link_do(struct link *l, const struct redis_arg *argv, int argc, redisReply **ret);

#endif
