/*
 * plugin.yaml: what a plugin says about itself before it runs. One file a plugin, beside its program.
 *
 *   name: state.sqlite              of the plugin; log scope plugin.<name>
 *   version: 1.0.0
 *   executable: state.sqlite        relative to the file; default: name
 *   contract: [1]                   versions of the plugin contract that it speaks
 *   types:                          component types that it serves
 *     - type: state.sqlite
 *       versions: [v1]              v1 stands for "", v0 and v1
 *   title: SQLite                   for documentation
 *   description: One sentence.
 *   share: false                    true: one process for all components of the plugin; else one each
 *   volatile: false                 true: what it holds ends with its process, so an upgrade or restart begins with nothing
 *   hangAfter: 60s                  all its threads busy for so long, none back, calls waiting: it hangs; a ping: half of it; 0: never
 *   environment: [TZ]               variables of daprd's environment that the process gets; all others are kept from it;
 *                                   ["*"]: all but daprd's own (DAPR_…, APP_API_TOKEN)
 *   metadata:                       fields of spec.metadata; others are passed on unchecked
 *     - name: busyTimeout
 *       type: duration              string (default), bool, int, float, duration, bytes, enum
 *       values: [a, b]              of an enum
 *       required: false             true: refused when missing; missing: "text" replaces our wording of that
 *       default: 2s                 sent to the plugin when the field is not given
 *       sensitive: false            true: never shown
 *       aliases: [timeout]          other names that components use; passed on as they are
 *       description: One sentence.
 *   sandbox: {}                     what the process needs: see rights.h; without the key it is not confined
 *
 * Unknown keys are errors, so that a misspelt one is not silently without effect.
 */
#ifndef KERNEL_SUPER_MANIFEST_H
#define KERNEL_SUPER_MANIFEST_H

#include "kernel/resources/resources.h"
#include "kernel/super/rights.h"
#include "sdk/base/arena.h"

enum { MANIFEST_CONTRACTS_MAX = 8 };

enum manifest_kind { FIELD_STRING, FIELD_BOOL, FIELD_INT, FIELD_FLOAT, FIELD_DURATION, FIELD_BYTES, FIELD_ENUM, FIELD_KINDS };
const char *manifest_kind_name(enum manifest_kind k);

struct manifest_field {
        const char *name, *def, *missing, *description; /* NULL = not given */
        enum manifest_kind kind;
        bool required, sensitive;
        const char **values, **aliases;
        size_t n_values, n_aliases;
};
struct manifest_type {
        const char *type;
        const char **versions, **features; /* features: for readers and the kit; Hello's count */
        size_t n_versions, n_features;
};
struct manifest {
        struct arena arena;
        const char *file;       /* path of plugin.yaml */
        struct str text;        /* as it was read from there; p NULL = it was not */
        const char *name, *version, *executable; /* executable: full path */
        const char *title, *description;
        unsigned contract[MANIFEST_CONTRACTS_MAX];
        size_t n_contract;
        struct manifest_type *types;
        size_t n_types;
        struct manifest_field *fields;
        size_t n_fields;
        const char **environment;
        size_t n_environment;
        bool share, is_volatile;
        double hang_after_s;    /* 0 = never; < 0 = not given */
        struct rights rights;   /* what its process needs: key sandbox */
};

/* Reads a file (blocks). 0 and *ret; -ENOENT: there is no such file; else -errno with "file:line:column: sentence" in *ret_err
 * (arena a). */
int manifest_read(const char *path, struct manifest **ret, struct arena *a, const char **ret_err);
/* The same on a text; file is for error texts and for the place of the executable. */
int manifest_parse(struct str text, const char *file, struct manifest **ret, struct arena *a, const char **ret_err);
void manifest_free(struct manifest *m); /* NULL is fine */

/* Serves it type and version? Case does not count; "", v0 and v1 are one version. */
bool manifest_serves(const struct manifest *m, const char *type, const char *version);
bool manifest_has_type(const struct manifest *m, const char *type);
const struct manifest_field *manifest_field(const struct manifest *m, const char *name); /* also by alias; NULL = unknown */

/* Is the component's metadata as the manifest wants it? 0, or -EINVAL with every fault, one a line, each with
 * file:line of the component, field, value and what is expected. Sensitive values are not shown. */
int manifest_check(const struct manifest *m, const struct component_spec *spec, struct arena *a, const char **ret_err);
/* The fields of the component that the manifest does not know, one a line with its place and the name that may have been meant; NULL =
 * all are known (or no memory). near_only: those of which a name may have been meant; others are often meant for somebody else. */
const char *manifest_unknown(const struct manifest *m, const struct component_spec *spec, bool near_only, struct arena *a);
/* Does the text fit the kind? NULL = yes, else what is expected ("a duration such as 30s or 2m"). */
const char *manifest_value_fault(const struct manifest_field *f, struct str value);
/* Calls fn for each field with a default that the component leaves out. */
void manifest_defaults(const struct manifest *m, const struct component_spec *spec,
                       void (*fn)(void *arg, const char *name, const char *value), void *arg);

#endif
