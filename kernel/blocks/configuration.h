/*
 * The configuration building block, inside: configuration.c has reading and the doors, configuration_watch.c the subscriptions.
 */
#ifndef KERNEL_CONFIGURATION_H
#define KERNEL_CONFIGURATION_H

#include "kernel/blocks/pubsub/event.h"
#include "kernel/front/call.h"
#include "plugin/v1/configuration.pb-c.h"
#include "sdk/base/json.h"
#include "sdk/base/list.h"

#define CONFIGURATION_STORE "/microdapr.plugin.v1.ConfigurationStore/"
#define CONFIGURATION_SCOPE "dapr.runtime.configuration"
enum { SUBSCRIPTIONS_MAX = 10000 }; /* of one process */

typedef Microdapr__Plugin__V1__ConfigurationUpdate config_update;
typedef Microdapr__Plugin__V1__ConfigurationEntry config_entry;

struct configuration_block {
        struct kernel *k;
        struct list list;
        size_t count;
        bool closed;               /* stopping: no subscription is made any more */
        unsigned round;            /* of walks over the list that park */
};

/*
 * One subscription: a fiber keeps a Subscribe stream to the store and opens it again when it ends, under the same id. A gRPC app's is
 * owned by the handler of its call, which waits for `ended`; an HTTP app's lives until somebody asks for its end.
 */
struct config_watch {
        struct list node;
        struct configuration_block *b;
        char id[UUID_CHARS + 1];
        const char *store;
        struct str request;        /* packed ConfigurationSubscribeRequest */
        /* Hands an update on; parks. */
        void (*deliver)(struct config_watch *s, const config_update *u);
        struct rpc_call *client;   /* gRPC: the app's call; NULL = an HTTP app is pushed to */
        struct scope scope;        /* the fibers of the stream: one, two while the store moves */
        struct fiber *reader;      /* that of the present stream */
        unsigned round;            /* the last walk that has seen it */
        bool delivering;           /* it hands an update on */
        bool away;                 /* the store is out of sight: the stream is not opened until it is back */
        struct cond changed;
        enum { SUB_OPENING, SUB_OPEN, SUB_FAILED } state;
        const char *error;         /* SUB_FAILED: the store's words */
        int code;
        bool announced;            /* gRPC: the id has been sent */
        bool ended;                /* by an unsubscribe or the stop */
        struct arena arena;
};

/* Opens it under the store's outbound policy and puts it in the list. 0 and *ret; or a gRPC code > 0 with the text in *ret_err. Parks. */
int config_watch_start(struct call *c, struct configuration_block *b, struct component *store, const ProtobufCMessage *request,
                       void (*deliver)(struct config_watch *s, const config_update *u), struct config_watch **ret, const char **ret_err);
/* One that an HTTP app has made before another program took over, under its id; opened in the background, again and again if need be. */
int config_watch_resume(struct configuration_block *b, const char *id, const char *store, struct str request);
/* Takes it out of the list, stops its fiber and frees it; nothing is delivered any more. For the owner. Parks, shielded. */
void config_watch_end(struct config_watch *s);
/* Its store takes over at `to`: the stream is opened there, then the present one ends. Parks. */
void config_watch_move(struct config_watch *s, struct component *to);
void config_watch_leave(struct config_watch *s);  /* the store is gone: the stream ends, and is not opened again before */
void config_watch_arrive(struct config_watch *s); /* it is back */
/* Whoever owns it: it ends soon. */
void config_watch_ask_end(struct config_watch *s);
/* NULL = none of that id, or it is ending. */
struct config_watch *config_watch_find(struct configuration_block *b, const char *id);
/* HTTP apps: POST /configuration/{store}/{key} for each key. */
void config_watch_push(struct config_watch *s, const config_update *u);
/* {"value":…,"version":…,"metadata":{…}} without what is empty. */
void configuration_write_item(struct json_writer *w, const config_entry *e);

#endif
