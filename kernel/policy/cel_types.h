/*
 * Static types of CEL, by number: the simple ones have fixed numbers, lists, maps, types of types and type variables get one when
 * they are made. Unification as cel-go's checker does it (isAssignable): what is dynamic or wrong already fits everything, a
 * variable takes the most general type that it was matched with.
 */
#ifndef KERNEL_POLICY_CEL_TYPES_H
#define KERNEL_POLICY_CEL_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cel_static {
        T_NONE, T_ERROR, T_ANY, T_DYN, T_NULL, T_BOOL, T_INT, T_UINT, T_DOUBLE, T_STRING, T_BYTES, T_TIMESTAMP, T_DURATION, T_SIMPLE,
        T_LIST = T_SIMPLE, T_MAP, T_TYPE, T_VAR
};
typedef uint32_t cel_type_id; /* below T_SIMPLE: the simple type itself */

struct cel_type_node {
        uint8_t kind;
        cel_type_id a, b; /* T_LIST: element; T_MAP: key, value; T_TYPE: of what; T_VAR: bound to, T_NONE = free */
};
struct cel_types {
        struct cel_type_node *v;
        size_t n, cap;
        struct cel_type_undo {
                cel_type_id var, old;
        } *trail;             /* bindings that a failed match takes back */
        size_t n_trail, cap_trail;
        bool full, no_memory; /* past CEL_MAX_TYPES; or no memory, which sets full as well */
};
void cel_types_fini(struct cel_types *ts);
/* T_ERROR when it cannot be made (then ts->full). */
cel_type_id cel_type_make(struct cel_types *ts, enum cel_static kind, cel_type_id a, cel_type_id b);
enum cel_static cel_type_kind(const struct cel_types *ts, cel_type_id t);
cel_type_id cel_type_resolve(const struct cel_types *ts, cel_type_id t); /* through bound variables, at the top only */
cel_type_id cel_type_param(const struct cel_types *ts, cel_type_id t, int i);
/* Do n types fit? Bindings are kept when they do. */
bool cel_types_assign(struct cel_types *ts, const cel_type_id *t1, const cel_type_id *t2, size_t n);
bool cel_types_equal(const struct cel_types *ts, cel_type_id t1, cel_type_id t2);
cel_type_id cel_types_most_general(const struct cel_types *ts, cel_type_id t1, cel_type_id t2);
/* "list(int)"; variables that are free show as dyn. NUL-terminated, cut off at size. Returns the length. */
size_t cel_type_format(const struct cel_types *ts, cel_type_id t, char *to, size_t size);

#endif
