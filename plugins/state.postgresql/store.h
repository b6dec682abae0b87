/* state.postgresql: what its files share. */
#ifndef PLUGINS_STATE_POSTGRESQL_STORE_H
#define PLUGINS_STATE_POSTGRESQL_STORE_H

#include "plugins/shared/postgres/postgres.h"
#include "sdk/base/fiber.h"

/* Parameters: $1 key, $2 value, $3 TTL in seconds or NULL, then isbinary (v1 only), then the ETag. */
enum statement {
        ST_GET,         /* value, isbinary, etag, expiry in seconds since 1970; all as text but v2's value */
        ST_BULK_GET,    /* the same and the place in the array $1 from 1 on */
        ST_SET,
        ST_SET_FIRST,
        ST_SET_ETAG,
        ST_DELETE,
        ST_DELETE_ETAG, /* $1 key, $2 ETag */
        ST_KEYS,        /* $1 pattern, $2 row_id to begin after or NULL, $3 limit or NULL -> key, row_id */
        ST_EXPIRE,      /* deletes what has expired */
        STATEMENTS
};

/* One of the two versions of the component. In the texts, %1$s is the table. */
struct layout {
        int version;
        const char *sql[STATEMENTS];
        const char *order;        /* column by which rows of old tables get their row_id */
        const struct pg_migration *migrations;
        size_t n_migrations;
};
extern const struct layout layout_v1, layout_v2;

struct store {
        const struct layout *layout;
        struct pg *pg;
        char *instance, *table, *meta_table;
        char *prefix;             /* tablePrefix of v2, "" for v1 */
        char *sql[STATEMENTS];
        int statement[STATEMENTS];
        double cleanup_s;         /* 0 = never */
        struct scope scope;       /* of the clean-up */
};

/* The query API (v1 only). */
int store_query(struct dapr_call *c, void *instance, const struct dapr_query *in, struct dapr_query_result *out);

#endif
