/*
 * A Redis client on fibers: one pipelined connection a node, shared by all callers; RESP by hiredis' reader, sockets and TLS by
 * sdk/net. Node, sentinel (redisType node with failover) and cluster topologies. Used by every plugin that speaks to Redis.
 *
 * Commands park the calling fiber. A command whose connection breaks fails with -ECONNRESET; reads are sent again by redis_do()
 * up to max_retries times, writes only when they certainly did not reach the server.
 */
#ifndef PLUGINS_SHARED_REDIS_H
#define PLUGINS_SHARED_REDIS_H

#include <hiredis/hiredis.h>

#include "dapr/plugin.h"

enum redis_type { REDIS_NODE, REDIS_CLUSTER };
enum redis_kind { REDIS_READ, REDIS_WRITE };

struct redis_settings { /* strings are owned; fields as in the reference's component documentation */
        char *host;              /* one or several host:port, comma-separated, ports filled in */
        char *username, *password, *sentinel_username, *sentinel_password, *sentinel_master;
        char *client_cert, *client_key, *ca_cert;
        int db, max_retries;
        enum redis_type type;
        bool failover, tls;
        double dial_timeout_s, read_timeout_s, retry_min_s, retry_max_s;
};
/* From the component's metadata. 0 or dapr_fail()'s code with the field named. */
int redis_settings_read(struct dapr_call *c, const struct dapr_metadata *md, struct redis_settings *s);
int redis_settings_copy(struct redis_settings *to, const struct redis_settings *from); /* 0 or -ENOMEM, then to is empty */
void redis_settings_fini(struct redis_settings *s);

struct redis;
/* Connects and pings; reports the backend's state under `instance` from now on, and reconnects by itself.
 * Takes the settings. 0 and *ret, or dapr_fail()'s code. Parks. */
int redis_open(struct dapr_call *c, struct redis_settings *s, struct redis **ret);
void redis_close(struct redis *r);
/* A client with the same settings and connections of its own, for commands that wait at the server (BLOCK): they would hold up the
 * shared connection. Reports no state; read_timeout_s counts instead of the setting. Connects on first use. 0 or -ENOMEM. */
int redis_clone(const struct redis *r, double read_timeout_s, struct redis **ret);
/* Of a clone, before its first command: fn gets what comes on the channels that its commands SUBSCRIBE to; m == NULL: a connection is
 * lost, and its subscriptions with it. Must not park. */
void redis_on_message(struct redis *r, void (*fn)(void *arg, const redisReply *m), void *arg);
/* Bytes of one command argument; redis_arg_z and redis_arg_i make them. */
struct redis_arg {
        const void *p;
        size_t n;
};
static inline struct redis_arg redis_arg_z(const char *z)
{
        return (struct redis_arg){z, __builtin_strlen(z)};
}
/* Decimal text in the call's memory. */
struct redis_arg redis_arg_i(struct dapr_call *c, int64_t v);
/* One command. key (index of the key argument, or -1) chooses the node of a cluster; MOVED and ASK are followed.
 * 0 and *ret (freeReplyObject; may be a Redis error reply), or a negative errno. Parks. */
int redis_do(struct redis *r, enum redis_kind kind, int key, const struct redis_arg *argv, int argc, redisReply **ret);
/* For a network error: fills the call's text "redis store: error connecting to redis at HOST: why"; returns DAPR_UNAVAILABLE. */
int redis_fail(struct dapr_call *c, struct redis *r, int err);
/* redis_do() whose failures are told: 0 and *ret, which is no error reply, or dapr_fail()'s code (DAPR_INTERNAL with the server's words). */
int redis_run(struct dapr_call *c, struct redis *r, enum redis_kind kind, int key, const struct redis_arg *argv, int argc, redisReply **ret);
/* Does the server answer? 0 or dapr_fail()'s code. Parks. */
int redis_ping(struct dapr_call *c, struct redis *r);
/* Replicas connected to the master when the connection was made. */
int redis_replicas(const struct redis *r);
bool redis_has_module(struct redis *r, const char *name); /* asked once at connect */
/* Calls fn for each master's connection (SCAN over a cluster): key routing by a slot of its own. */
int redis_each_master(struct redis *r, int (*fn)(void *arg, struct redis *r, const char *node), void *arg);
/* As redis_do on one node, by address. */
int redis_do_on(struct redis *r, const char *node, enum redis_kind kind, const struct redis_arg *argv, int argc, redisReply **ret);

#endif
