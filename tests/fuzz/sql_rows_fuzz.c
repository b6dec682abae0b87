/* Values of PostgreSQL: whatever text a server gives for whatever type (JSON types give JSON), it becomes one valid JSON value or none. */
#include <errno.h>
#include <stdlib.h>

#include "plugins/bindings.postgresql/rows.h"
#include "sdk/base/json.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        static const uint32_t types[] = {16, 20, 701, 1700, 17, 1082, 1184, 2950, 869, 25, 0, 1000, 1007, 1022, 1231, 1001, 1182, 1185, 2951, 1041, 1009};
        struct str s = str_n(data, n);
        for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
                struct sql_cell cell = {types[i], s};
                struct buf out = {0};
                int r = sql_cell_json(&out, &cell);
                must_hold(r == 0 || r == -EDOM);
                must_hold(r || json_valid(buf_str(&out)));
                buf_fini(&out);
        }
        return 0;
}
