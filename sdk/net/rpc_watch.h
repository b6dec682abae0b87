/* Looking at the messages of a stream, for recordings. */
#ifndef SDK_NET_RPC_WATCH_H
#define SDK_NET_RPC_WATCH_H

#include "sdk/net/rpc.h"

/* fn sees each message from now on, before it is sent or after it was received; msg is borrowed. It must not park. arg must live as long as
 * the call. */
typedef void (*rpc_watch_fn)(void *arg, const struct rpc_call *c, bool sent, struct str msg);
void rpc_watch(struct rpc_call *c, rpc_watch_fn fn, void *arg);

#endif
