/* configuration.postgresql, inside: main.c is the component and reads items, watch.c follows what the table's triggers notify. */
#ifndef CONFIGURATION_POSTGRESQL_STORE_H
#define CONFIGURATION_POSTGRESQL_STORE_H

#include "plugins/shared/postgres/postgres.h"
#include "sdk/base/arena.h"

enum { TABLE_MAX = 64, CHANNEL_MAX = 63, METADATA_MAX = 256 };

struct store {
        struct pg *pg;
        char table[TABLE_MAX + 1], select[TABLE_MAX + 120];
};

/* Items of the keys (none: of all), each key once, with its highest version. Strings are in a. 0, or a dapr_code or errno with the call's
 * text set. Parks. */
int items_read(struct dapr_call *c, struct store *s, struct arena *a, const char *const *keys, size_t n, struct dapr_config_items *ret);
/* Metadata of an item: a JSON object, its values as text. Not readable: none. */
struct dapr_kvs metadata_read(struct arena *a, struct str json);
int store_subscribe(struct dapr_call *c, void *instance, struct dapr_config_watch *w, const struct dapr_config_query *in);

#endif
