/* What the files of the kit for state stores share: single calls, and a key of the run's own. */
#ifndef CTL_CONFORM_STATE_H
#define CTL_CONFORM_STATE_H

#include "ctl/conform.h"
#include "dapr/proto/components/v1/state.pb-c.h"

#define STATE "/dapr.proto.components.v1.StateStore/"
typedef Dapr__Proto__Components__V1__SetRequest set_t;
typedef Dapr__Proto__Components__V1__DeleteRequest delete_t;
typedef Dapr__Proto__Components__V1__GetRequest get_t;
typedef Dapr__Proto__Components__V1__GetResponse got_t;

/* A write with all that it may carry, embedded so that requests can point into it. */
struct write {
        set_t set;
        delete_t del;
        Dapr__Proto__Components__V1__Etag etag;
        Dapr__Proto__Components__V1__StateOptions options;
        Dapr__Proto__Components__V1__SetRequest__MetadataEntry entry, *entries[1];
};
/* etag, ttl: NULL = none. first: of several writers the first wins. Strings are borrowed. */
void write_init(struct write *w, const char *key, struct str value, const char *etag, bool first, const char *ttl);

/* Each gives the gRPC code and parks. */
int state_set_all(struct conform *c, const char *key, struct str value, const char *etag, bool first, const char *ttl);
int state_get(struct conform *c, const char *key, got_t **ret);
int state_del(struct conform *c, const char *key, const char *etag);
/* NULL when Get gives that value (STR_NULL: nothing), else what is wrong. Parks. */
const char *state_expect(struct conform *c, const char *key, struct str value);
/* A key of this run and check, in the call's arena. */
const char *state_key(struct conform *c, const char *name);

extern const struct conform_check conform_search_checks[], conform_undeclared_checks[];
extern const size_t conform_search_n, conform_undeclared_n;

#endif
