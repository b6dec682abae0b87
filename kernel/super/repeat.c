/*
 * Calls that may be done twice although no plugin has declared them so. Used only where a new version of a plugin dies under calls
 * while the one before stands by (swap.c): a candidate that is broken then costs no request.
 *   state Set and Delete, single and bulk, without ETag and not first-write: the key ends with the value that was asked for
 *   publishing: brokers deliver at least once anyway
 * Everything else (transactions, bindings, locks, ETags) may have been done and is not done again.
 */
#include "dapr/proto/components/v1/state.pb-c.h"
#include "kernel/super/plugin.h"

typedef Dapr__Proto__Components__V1__SetRequest set_request;
typedef Dapr__Proto__Components__V1__DeleteRequest delete_request;
typedef Dapr__Proto__Components__V1__StateOptions state_options;
typedef Dapr__Proto__Components__V1__Etag state_etag;

#define FIRST_WRITE DAPR__PROTO__COMPONENTS__V1__STATE_OPTIONS__STATE_CONCURRENCY__CONCURRENCY_FIRST_WRITE

static bool is_plain(const state_etag *etag, const state_options *o)
{
        return (!etag || !*etag->value) && (!o || o->concurrency != FIRST_WRITE);
}

static bool set_is_plain(const void *message)
{
        const set_request *in = message;

        return is_plain(in->etag, in->options);
}

static bool delete_is_plain(const void *message)
{
        const delete_request *in = message;

        return is_plain(in->etag, in->options);
}

static bool sets_are_plain(const void *message)
{
        const Dapr__Proto__Components__V1__BulkSetRequest *in = message;

        for (size_t i = 0; i < in->n_items; i++)
                if (!set_is_plain(in->items[i]))
                        return false;
        return true;
}

static bool deletes_are_plain(const void *message)
{
        const Dapr__Proto__Components__V1__BulkDeleteRequest *in = message;

        for (size_t i = 0; i < in->n_items; i++)
                if (!delete_is_plain(in->items[i]))
                        return false;
        return true;
}

#define STATE "/dapr.proto.components.v1.StateStore/"
#define PUBSUB "/dapr.proto.components.v1.PubSub/"

static const struct {
        const char *method;
        const ProtobufCMessageDescriptor *d; /* NULL: whatever is asked */
        bool (*is_plain)(const void *message);
} rows[] = {
        {STATE "Set", &dapr__proto__components__v1__set_request__descriptor, set_is_plain},
        {STATE "Delete", &dapr__proto__components__v1__delete_request__descriptor, delete_is_plain},
        {STATE "BulkSet", &dapr__proto__components__v1__bulk_set_request__descriptor, sets_are_plain},
        {STATE "BulkDelete", &dapr__proto__components__v1__bulk_delete_request__descriptor, deletes_are_plain},
        {PUBSUB "Publish", NULL, NULL},
        {PUBSUB "BulkPublish", NULL, NULL},
};

bool call_may_be_repeated(struct arena *a, const char *method, struct str req)
{
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                if (strcmp(rows[i].method, method) != 0)
                        continue;
                const void *message = rows[i].d ? pb_unpack(a, rows[i].d, req) : NULL;
                return !rows[i].d || (message && rows[i].is_plain(message));
        }
        return false;
}
