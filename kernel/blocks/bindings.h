/*
 * The bindings building block, inside: what its files share.
 *   bindings.c         components, output: the API and the calls that an app's reply asks for
 *   bindings_input.c   which components are read, when, and their streams of events
 *   bindings_app.c     one event to the app and what its answer sets off
 */
#ifndef KERNEL_BINDINGS_H
#define KERNEL_BINDINGS_H

#include "kernel/front/call.h"

#define BINDINGS_SCOPE "dapr.runtime.processor.binding"

struct reader;

/* A binding as this block knows it, beside its component. */
struct binding {
        const char *name;
        bool foreign;              /* a pluggable component that is not ours */
        bool input, output;
        bool wants_input;          /* direction names input: the app is not asked */
        const char *route;         /* of input events */
        const char **operations;   /* of output */
        size_t n_operations;
        struct reader *reader;     /* NULL = nothing is read */
        struct binding *retired;   /* of the same name, replaced: calls may still use it; freed at the end */
        struct arena arena;
};
struct bindings {
        struct kernel *k;
        struct map map;            /* by name: struct binding * */
        struct fmutex changing;    /* starts and stops of readers come one after the other */
        bool watching;             /* the app's health */
        bool reading, stopped;     /* stopped: for ever */
        bool listed;               /* what a gRPC app subscribes to has been asked */
        struct map subscribed;     /* its answer: names */
        struct scope work;         /* what apps' replies have set off in the background */
};

/* ---- bindings.c ---- */
struct component *binding_component(const struct kernel *k, const struct binding *x); /* present one; NULL = it is gone */
struct binding_result {
        struct str data;
        struct rpc_mdlist md;      /* with a failure too */
        bool empty;                /* the component returned nothing at all */
        const char *error;
};
/* Invokes an output binding; metrics are the caller's. 0, or -1 with out->error. Parks. */
int bindings_invoke(struct kernel *k, struct arena *a, struct str name, struct str operation, struct str data,
                    const struct rpc_mdlist *md, struct binding_result *out);

/* ---- bindings_input.c ---- */
int bindings_input_init(struct kernel *k);     /* watches the app's health */
void bindings_input_quiesce(struct kernel *k); /* stops reading, for ever; parks until the events in flight are answered */
/* The component came late, or came back / is moving / has moved / has gone (struct block). Park. */
void bindings_input_arrived(struct bindings *b, struct binding *x);
void bindings_input_moving(struct bindings *b, struct binding *x, struct component *to);
void bindings_input_moved(struct bindings *b, struct binding *x);
void bindings_input_left(struct bindings *b, struct binding *x);

/* ---- bindings_app.c ---- */
struct binding_event {
        struct binding *binding;
        struct arena *arena;
        struct str data;
        struct rpc_mdlist md;
};
/* 0 and *ret_reply (p == NULL: none), or -1 with *ret_err: the app did not take it. Parks. */
int bindings_to_app(struct bindings *b, struct binding_event *e, struct str *ret_reply, const char **ret_err);
/* Does the app want events of this binding? 1, 0; -1 with *ret_err when it cannot be asked. Parks. */
int bindings_app_wants(struct bindings *b, const struct binding *x, struct arena *a, const char **ret_err);

#endif
