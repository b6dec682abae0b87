/*
 * YAML (and JSON, which is YAML) as a tree of nodes in an arena. The only user of libyaml.
 *
 * One call reads one document. Every node knows file, line and column, so that an error can name its place. Anchors and merge
 * keys are resolved here: an alias is a second pointer to the same node, hence what walks a tree must not assume that each node
 * is met once. What a walk may meet is bounded while reading: depth by YAML_MAX_DEPTH, nodes with all aliases written out by
 * YAML_MAX_NODES, their text by YAML_MAX_TEXT_BYTES; a document past a limit is refused.
 *
 * Scalars are kept as text and get their type when asked for, because the reference reads resources by YAML 1.1 rules (yes, no,
 * on, off are booleans) and --config files by the rules of yaml.v3 (they are strings, but a field that wants a boolean takes them).
 */
#ifndef SDK_BASE_YAML_H
#define SDK_BASE_YAML_H

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"

enum {
        YAML_MAX_FILE_BYTES = 4 * 1024 * 1024,
        YAML_MAX_DEPTH = 100,
        YAML_MAX_NODES = 400000,
        YAML_MAX_TEXT_BYTES = 16 * 1024 * 1024,
};

enum yaml_kind { YAML_SCALAR, YAML_MAP, YAML_LIST };
enum yaml_schema { YAML_1_1, YAML_V3 };
enum yaml_flags { YAML_UNIQUE_KEYS = 1 }; /* a key that stands twice is an error; else the last one wins */

struct yaml_node;
struct yaml_item { /* of a map or list, in order of the text */
        struct yaml_node *key; /* always a scalar; NULL in a list */
        struct yaml_node *value;
        struct yaml_item *next;
};
struct yaml_node {
        enum yaml_kind kind;
        bool plain;               /* scalar without quotes: its type follows from its text */
        const char *tag;          /* explicit tag, long form, or NULL */
        const char *file;
        int line, column;         /* from 1 */
        struct str text;          /* of a scalar; NUL-terminated */
        struct yaml_item *items, *last;
        size_t n;                 /* items */
        size_t total_nodes, total_text; /* with aliases written out */
        int depth;                /* of what stands below; 0 for scalars */
};

/* Reads the first document of a text. `file` and `first_line` (1 for a whole file) are for error texts; `file` must live as long
 * as the tree. *ret is NULL when the text holds no document (empty, only comments). 0; -EINVAL with a sentence in *ret_err (in
 * the arena) that starts with file:line:column; -ENOMEM when the arena's cap is reached (*ret_err is set too). On success
 * *ret_err is NULL or a warning of that form (a key that stands twice). */
int yaml_read(struct arena *a, struct str text, const char *file, int first_line, int flags, struct yaml_node **ret,
              const char **ret_err);

/* Splits a file as the reference does: at every line that starts with "---". Cuts the first document off *rest (NULL when used
 * up) and moves *line, which starts at 1, over what was cut. */
struct str yaml_next_document(struct str *rest, int *line);

/* Reads a whole file; `pipes`: also from what is no regular file (<(...) of a shell). *ret is in the arena. 0, or -errno (-EFBIG:
 * larger than YAML_MAX_FILE_BYTES; -EINVAL: not UTF-8 text, not a regular file) with a text as the reference words it, e.g.
 * "open x.yaml: permission denied", in *ret_err. Blocks. */
int yaml_read_file(struct arena *a, const char *path, bool pipes, struct str *ret, const char **ret_err);
/* "op path: error", e.g. "stat x: no such file or directory"; never NULL. */
const char *os_error(struct arena *a, const char *op, const char *path, int e);

/* Value of a key in a map; NULL if absent, or if n is NULL or no map. fold: a key that differs only in case counts when the exact
 * one is absent (as encoding/json). */
struct yaml_node *yaml_get(const struct yaml_node *n, const char *key);
struct yaml_node *yaml_get_fold(const struct yaml_node *n, const char *key);
/* Along a path "spec.tracing.otel", exact. */
struct yaml_node *yaml_path(const struct yaml_node *n, const char *path);

enum yaml_type { YAML_NULL, YAML_BOOL, YAML_INT, YAML_UINT, YAML_FLOAT, YAML_STRING };
struct yaml_value {
        enum yaml_type type;
        bool b;
        int64_t i;
        uint64_t u; /* YAML_UINT: above INT64_MAX */
        double d;
        struct str s;
};
/* The typed value of a scalar. 0, or -EINVAL when an explicit tag does not fit the text; -ENOMEM. The arena is used for !!binary
 * only. */
int yaml_resolve(struct arena *a, const struct yaml_node *n, enum yaml_schema schema, struct yaml_value *ret);
bool yaml_is_null(const struct yaml_node *n); /* also true for NULL */

/* The text that a string field gets from a scalar: YAML_1_1: numbers and booleans in canonical form (1.10 -> 1.1, yes -> true) as
 * sigs.k8s.io/yaml does; YAML_V3: as written. NULL p for null. 0, -EINVAL (no scalar, bad tag), -ENOMEM. */
int yaml_string(struct arena *a, const struct yaml_node *n, enum yaml_schema schema, struct str *ret);

/* Appends compact JSON; map keys in order of the text. 0, -EINVAL (.inf and .nan have no JSON form), -ENOMEM. */
int yaml_to_json(struct buf *out, const struct yaml_node *n, enum yaml_schema schema);

/* "file:line:column: text" in the arena; never NULL. */
const char *yaml_error(struct arena *a, const struct yaml_node *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Lays `over` on `base` as decoding twice into one struct does: maps merge key by key, anything else replaces. A null removes what
 * is below it. NULL when the arena is full. Neither input is changed. */
struct yaml_node *yaml_merge(struct arena *a, struct yaml_node *base, struct yaml_node *over);

/* Sets a key of a map in place; 0 or -ENOMEM. yaml_map_new: an empty map; NULL when the arena is full. */
int yaml_set(struct arena *a, struct yaml_node *map, const char *key, struct yaml_node *value);
struct yaml_node *yaml_map_new(struct arena *a, const char *file);

#endif
