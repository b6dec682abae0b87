/*
 * The state building block, inside: what its files share. Operations work on struct state_item, whichever door a request came
 * through; state_grpc.c and state_http.c turn requests into items and outcomes into replies. A value's bytes are never decoded:
 * they are borrowed from the request until they are written into the message to the store, and from the store's reply until they
 * are written to the caller.
 *
 * What clients see of that: a JSON value of an HTTP request is stored without white space, and else as it came. The reference
 * decodes and encodes it again: members sorted, 1.0 as 1, integers beyond 2^53 rounded, < > & as \u003c, \u00fc as ü. Those are
 * the same values to a JSON reader, but for the integers, which here stay whole.
 */
#ifndef KERNEL_STATE_H
#define KERNEL_STATE_H

#include "kernel/blocks/encryption.h"
#include "kernel/front/call.h"

enum { STATE_MAX_OPS_UNKNOWN = -2 };

/* A store as this block knows it, beside its component. */
struct state_store {
        const char *name;
        struct str prefix;         /* before each key, separator included */
        bool foreign;              /* a pluggable component that is not ours */
        struct encryption enc;     /* enc.primary set = values are encrypted */
        int64_t max_ops;           /* of one transaction; <= 0 none, STATE_MAX_OPS_UNKNOWN = not asked yet */
        struct component *component; /* at this call */
        struct state_store *retired; /* of the same name, replaced: calls in progress may still use it; freed at the end */
        struct arena arena;
};
struct state_block {
        struct map stores; /* by component name: struct state_store * */
};

enum { STATE_CONCURRENCY_FIRST_WRITE = 1, STATE_CONCURRENCY_LAST_WRITE = 2 }; /* values as on the wire, 0 = unset */
enum { STATE_CONSISTENCY_EVENTUAL = 1, STATE_CONSISTENCY_STRONG = 2 };

/* One key of a request. */
struct state_item {
        struct str key;            /* as the app named it */
        struct str stored_key;     /* with the prefix (state_item_key) */
        struct str value;
        bool is_json;              /* value is JSON text, else opaque bytes */
        bool is_null;              /* no value, or JSON null, came by JSON */
        bool is_delete;            /* of a transaction */
        bool has_etag;
        struct str etag;
        struct rpc_mdlist md;
        int concurrency, consistency;
        const char *bad_option;    /* NULL, or what the reference's stores say of an unknown concurrency or consistency */
        struct str content_type;
};
/* A stored value. */
struct state_value {
        struct str key;            /* of a bulk reply, as the store named it */
        struct str data;
        bool found;                /* the store had bytes for the key; decrypted, data may still be empty */
        bool has_etag;
        struct str etag;
        struct rpc_mdlist md;
        struct str error;          /* of a bulk reply */
};

/* ---- state.c ---- */
/* The store named by a request, or call_fail. universal: the failure carries no app id (gRPC, query). */
int state_store_find(struct call *c, struct str name, bool universal, struct state_store **ret);
/* Sets stored_key; fails with the illegal-key error. */
int state_item_key(struct call *c, struct state_store *s, struct state_item *i);
double state_now(void); /* ms */
void state_observe(struct call *c, const struct state_store *s, const char *operation, bool ok, double since);

/* ---- state_failure.c ---- */
/* What a store answered instead of a result, as the reference sees it. */
struct state_failure {
        enum { STATE_FAIL_OTHER, STATE_FAIL_ETAG_MISMATCH, STATE_FAIL_ETAG_INVALID, STATE_FAIL_RICH } kind;
        bool of_items;             /* put together from those of several items */
        const char *text;          /* the error's text */
        const char *http_text;     /* what HTTP shows instead when one of several items failed on its etag; else = text */
        int grpc_code;             /* as the component answered */
        struct str message, details;
        int http_status;           /* of a rich error: chosen by the component, with these: */
        const char *tag, *reason, *domain;
};
enum state_method { STATE_GET, STATE_SET, STATE_DELETE, STATE_BULK_GET, STATE_BULK_SET, STATE_BULK_DELETE, STATE_TRANSACT, STATE_QUERY };
void state_failure_read(struct call *c, const struct state_store *s, enum state_method method, const struct rpc_status *st,
                        struct state_failure *ret);
void state_failure_text(struct state_failure *f, const char *text); /* a plain one */
/* A bulk write failed: our stores answer for a single item that did as they do for a single write; the reference wraps it. */
void state_failure_of_bulk(struct call *c, const struct state_store *s, struct state_failure *f);
/* Outcomes of the operations. All return -1. */
int state_fail_get(struct call *c, const struct state_store *s, struct str key, const struct state_failure *f);
int state_fail_save(struct call *c, const struct state_store *s, const struct state_failure *f);
int state_fail_delete(struct call *c, struct str key, const struct state_failure *f);
int state_fail_bulk_get(struct call *c, const struct state_store *s, const struct state_failure *f);
int state_fail_bulk_delete(struct call *c, const struct state_store *s, const struct state_failure *f);
int state_fail_transaction(struct call *c, const struct state_failure *f);
int state_fail_query(struct call *c, const struct state_store *s, const struct state_failure *f);

/* ---- state_wire.c: messages of dapr.proto.components.v1 by hand. p == NULL without memory. ---- */
struct str state_pack_get_request(struct arena *a, const struct state_item *i);
struct str state_pack_set_request(struct arena *a, const struct state_item *i);
struct str state_pack_delete_request(struct arena *a, const struct state_item *i);
struct str state_pack_bulk(struct arena *a, enum state_method kind, const struct state_item *items, size_t n, int64_t parallelism);
struct str state_pack_transaction(struct arena *a, const struct state_item *items, size_t n, const struct rpc_mdlist *md);
/* 0, -EBADMSG, -ENOMEM. Everything is borrowed from the bytes; lists are in a. */
int state_read_get_response(struct arena *a, struct str msg, struct state_value *ret);
int state_read_bulk_response(struct arena *a, struct str msg, struct state_value **ret, size_t *ret_n);

/* ---- state_json.c ---- */
/* Without white space between tokens: the value itself when there is none, else a copy in a. p == NULL without memory. json must
 * be one valid value. */
struct str state_json_compact(struct arena *a, struct str json);

/* ---- calls to the store: 0 and *resp, or -1 and *f. They park. ---- */
/* Under the store's outbound policy. items: of a bulk write, else NULL. */
int state_ask(struct call *c, struct state_store *s, enum state_method m, struct str req, const struct state_item *items, size_t n,
              struct str *resp, struct state_failure *f);
int state_ask_once(struct call *c, struct state_store *s, enum state_method m, struct str req, struct str *resp, struct state_failure *f);

/* ---- state_ops.c: 0, or -1 after call_fail. They park. ---- */
int state_get(struct call *c, struct state_store *s, struct state_item *i, struct state_value *out);
int state_bulk_get(struct call *c, struct state_store *s, struct state_item *items, size_t n, int64_t parallelism,
                   struct state_value **ret, size_t *ret_n);
int state_save(struct call *c, struct state_store *s, struct state_item *items, size_t n);
int state_delete(struct call *c, struct state_store *s, struct state_item *i);
int state_bulk_delete(struct call *c, struct state_store *s, struct state_item *items, size_t n);
int state_can_transact(struct call *c, struct state_store *s);
/* Items whose stored_key is set. */
int state_transact(struct call *c, struct state_store *s, struct state_item *items, size_t n, const struct rpc_mdlist *md);

/* ---- state_query.c ---- */
typedef struct Dapr__Proto__Runtime__V1__QueryStateRequest state_query_request;
typedef struct Dapr__Proto__Runtime__V1__QueryStateResponse state_query_response;
/* The document into the store's message; q->pagination is the caller's. NULL, or what is wrong (in a, or static). */
struct Dapr__Proto__Components__V1__Query;
const char *state_query_read(struct arena *a, const char *text, struct Dapr__Proto__Components__V1__Query *q);
int state_query(struct call *c, const state_query_request *in, state_query_response *out);
int state_query_metadata(struct call *c, const struct rpc_mdlist *md, state_query_request *in); /* sets in->metadata; -1 = no memory */

/* ---- doors ---- */
enum { STATE_HTTP_ROUTES = 6, STATE_GRPC_ROUTES = 7 };
extern const struct http_route state_http_routes[STATE_HTTP_ROUTES];
extern const struct grpc_route state_grpc_routes[STATE_GRPC_ROUTES];

#endif
