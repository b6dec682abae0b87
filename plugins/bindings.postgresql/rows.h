/* Rows of a result as JSON, in the forms that the reference's driver gives them. */
#ifndef BINDINGS_POSTGRESQL_ROWS_H
#define BINDINGS_POSTGRESQL_ROWS_H

#include <stdint.h>

#include "sdk/base/buf.h"

struct sql_cell {
        uint32_t type;   /* OID */
        struct str text; /* as PostgreSQL writes it (ISO dates, hex bytea); p == NULL: NULL */
};
/* Appends one value. 0; -EDOM: JSON has no such number (NaN, Infinity); -ENOMEM. */
int sql_cell_json(struct buf *out, const struct sql_cell *cell);

#endif
