/* The shape of the configuration block: names and types, as Consul's API has them. */
#ifndef PLUGINS_CONSUL_SCHEMA_H
#define PLUGINS_CONSUL_SCHEMA_H

#include "sdk/base/json.h"

enum consul_kind {
        CONSUL_TEXT, CONSUL_BOOL, CONSUL_INT,
        CONSUL_NS,         /* nanoseconds; a duration such as "10s" is taken as well */
        CONSUL_TEXTS,      /* list of texts */
        CONSUL_TEXT_MAP, CONSUL_TEXTS_MAP,
        CONSUL_ANY,        /* goes on as it is */
        CONSUL_OBJECT, CONSUL_LIST, CONSUL_OBJECT_MAP, /* of `sub` */
};
struct consul_field {
        const char *name;
        enum consul_kind kind;
        const struct consul_field *sub;
};
extern const struct consul_field consul_configuration[];

/* Writes the configuration with its names as they stand in the table: case does not count in what users write; null is left out.
 * Names that are not in the table are left out and listed in `unknown`, comma-separated. 0; -EINVAL with what is wrong and where in
 * err; -ENOMEM. */
int consul_canonical(struct str json, struct buf *out, struct buf *unknown, char *err, size_t err_n);
/* A member of an object, raw; p == NULL: absent. */
struct str consul_at(struct str object, const char *name);
/* The same as text ("" if absent), in a; NULL = no memory. */
const char *consul_text(struct arena *a, struct str object, const char *name);
bool consul_bool(struct str object, const char *name);
int64_t consul_int(struct str object, const char *name);

#endif
