/*
 * Resources: what YAML and JSON files in the resources folders and the --config files say, as plain structs. Parsing and
 * checking only: nothing here starts a component. Every error names file, line, field and the fix.
 * Strings live in the arena of the struct they belong to.
 */
#ifndef KERNEL_RESOURCES_H
#define KERNEL_RESOURCES_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

struct configuration;
struct daprd_opts;
struct yaml_node;

/* ---- Component ---- */
struct metadata_item {
        const char *name;         /* "" if absent */
        const char *value;        /* scalars and JSON as text; NULL = none. After component_resolve(): final, never NULL */
        const char *secret_name, *secret_key; /* secretKeyRef, NULL if none; key defaults to name */
        const char *env_ref;      /* NULL if none */
        int line;
};
struct component_spec {
        struct arena arena;
        const char *name, *namespace_, *type, *version; /* version as written, "" if absent */
        bool ignore_errors;
        int64_t init_timeout_ns;  /* default 5 s */
        const char *secret_store; /* auth.secretStore, "" if none */
        const char *plugin_version; /* annotation microdapr.io/version: a constraint on the plugin, "" if absent */
        struct metadata_item *metadata;
        size_t n_metadata;
        const char **scopes;
        size_t n_scopes;
        const char *file;         /* where it was read */
        int line;
        bool namespace_scoped;    /* a value held {namespace} */
        struct str init_more;     /* packed fields that follow the metadata in Init; of name resolvers, kernel/mesh/names.c */
        unsigned refs;            /* holders beside the first */
        struct str origin;        /* what of the document counts, before it was resolved: component_spec_same() */
};
/* "name (type/version)" as the reference logs it, e.g. "mystore (state.in-memory/v1)". In the spec's arena. */
const char *component_log_name(struct component_spec *c);
/* Value of a metadata item by name without case; NULL if absent. Of several with one name the last counts. */
const char *component_metadata(const struct component_spec *c, const char *name);
/* One Component document to a new spec. 0; -EINVAL or -ENOMEM with a text in the arena `errors`. */
int component_read(const struct yaml_node *doc, struct component_spec **ret, struct arena *errors, const char **ret_err);
/* One more holder; each ends with component_spec_free(). */
struct component_spec *component_spec_ref(struct component_spec *c);
void component_spec_free(struct component_spec *c);
/* The same document, as far as it counts? Resolved or not. */
bool component_spec_same(const struct component_spec *a, const struct component_spec *b);
/* Two specs that are the same and resolved: have all secrets the same values? */
bool component_secrets_same(const struct component_spec *a, const struct component_spec *b);
/* Same type, version, metadata and so on: nothing to reload. Only for specs that are not resolved yet. */
bool component_spec_equal(const struct component_spec *a, const struct component_spec *b);

/* ---- the other kinds: parsed and checked now, used by later blocks ---- */
struct raw_resource { /* Subscription, HTTPEndpoint, Resiliency, … with the whole document as a tree and as JSON */
        struct arena arena;
        const char *api_version, *kind, *name, *namespace_;
        const char **scopes;
        size_t n_scopes;
        const struct yaml_node *doc; /* typed reading: a scalar for a string field through yaml_string() */
        struct str json;
        const char *file;
        int line;
};
void raw_resource_free(struct raw_resource *r);

struct resource_set {
        struct component_spec **components; /* in load order of files, duplicates refused */
        size_t n_components;
        struct raw_resource **others;
        size_t n_others;
        char **broken;            /* files of which something could not be read */
        size_t n_broken;
};
/* Reads every *.yaml / *.yml of the folders (non-recursive, sorted by name), multi-document; filters by scopes, namespace and
 * Configuration components.deny. What cannot be read or is wrong is logged with its place and left out, as the reference does.
 * 0; or -EINVAL / -ENOMEM when a folder cannot be read or a Component is defined twice, with the reference's text in *ret_err
 * (arena of the caller), prefix included: "failed to load components: duplicate definition of Component name ...".
 * Blocks (files); call it before the loop or on work_run. */
int resources_load(struct resource_set *set, const struct daprd_opts *o, const struct configuration *cfg, struct arena *err_arena,
                   const char **ret_err);
/* The same for a reload: no text before the error. */
int resources_read(struct resource_set *set, const struct daprd_opts *o, const struct configuration *cfg, struct arena *err_arena,
                   const char **ret_err);
void resource_set_fini(struct resource_set *set);
/* For a reload: what `old` has from files that are broken in `set`, and `set` has not, stays: it moves over, with a line in the log.
 * 0 or -ENOMEM. */
int resources_keep_broken(struct resource_set *set, struct resource_set *old);

/* The order in which to start components: secret stores first, then the others, each in load order; one with a secretKeyRef
 * comes right after its secret store. `loaded` names secret stores that exist already (n may be 0). Fills `order` (room for all
 * components of the set) and returns how many can start; those whose store never comes stand behind them: as in the reference
 * they are not started and that is no error. */
size_t resources_order(const struct resource_set *set, const struct daprd_opts *o, const char *const *loaded, size_t n_loaded,
                       struct component_spec **order);
/* Name of the secret store that the component needs before it can be resolved; NULL = none, also when it names no store: then
 * component_resolve() says so in the log and leaves the secrets out. */
const char *component_needs_store(const struct component_spec *c, const struct daprd_opts *o);

/* secretKeyRef: asks `get` for each reference of the spec and fills value. envRef and {uuid} {podName} {namespace} {appID}
 * templates are resolved too. get returns 0 and *value (borrowed), 1 = no such key, 2 = no such store, <0 error (text in *err).
 * A secret that cannot be had is logged and its item stays without value, as in the reference. 0; 1 = the secret store is not
 * loaded (name in *ret_err; resolve again when it is); -EINVAL: a template that has no value, text in *ret_err; -ENOMEM.
 * Parks as get does. */
enum { SECRET_FOUND = 0, SECRET_NO_KEY = 1, SECRET_NO_STORE = 2 };
typedef int (*secret_get_fn)(void *arg, const char *store, const char *secret, const char *key, struct arena *a, const char **value,
                             const char **err);
int component_resolve(struct component_spec *c, const struct daprd_opts *o, secret_get_fn get, void *arg, const char **ret_err);

/* ---- Configuration ---- */
struct secret_scope {
        const char *store, *default_access; /* "allow", "deny", "" */
        const char **allowed, **denied;     /* sorted */
        size_t n_allowed, n_denied;
};
struct api_rule {
        const char *name, *version, *protocol; /* protocol "http", "grpc" or "" */
};
struct pipeline_handler {
        const char *name, *type, *version;
};
struct configuration {
        struct arena arena;
        bool tracing_otel_is_secure; /* default true */
        const char *tracing_sampling_rate, *tracing_zipkin, *tracing_otel_endpoint, *tracing_otel_protocol; /* "" if unset */
        const char **tracing_otel_headers; /* "name=value" */
        size_t n_tracing_otel_headers;
        int64_t tracing_otel_timeout_ns;   /* 0 = unset */
        bool tracing_stdout;
        bool metrics_enabled, metrics_record_error_codes;
        int metrics_increased_cardinality; /* -1 unset */
        bool metrics_exclude_verbs;
        const char **metrics_path_matching;
        size_t n_metrics_path_matching;
        double *metrics_latency_buckets;
        size_t n_metrics_latency_buckets;
        struct secret_scope *secret_scopes;
        size_t n_secret_scopes;
        struct api_rule *api_allowed, *api_denied;
        size_t n_api_allowed, n_api_denied;
        struct pipeline_handler *http_pipeline, *app_http_pipeline;
        size_t n_http_pipeline, n_app_http_pipeline;
        const char **components_deny;
        size_t n_components_deny;
        const char **features;   /* enabled ones */
        size_t n_features;
        int api_logging;         /* -1 unset */
        bool api_logging_obfuscate_urls, api_logging_omit_health;
        const char *name_resolution_component, *name_resolution_version;
        bool wasm_strict_sandbox;
        int max_concurrent_workflows, max_concurrent_activities; /* 0 = no limit */
        const struct yaml_node *doc; /* all files merged over the defaults */
        struct str json;             /* the same as JSON */
};
/* Files in order over the defaults; $VAR expansion first. 0, or -EINVAL / -ENOMEM with *ret_err (in the arena of c, prefix
 * included: "error loading configuration: stat x.yaml: no such file or directory"). In kubernetes mode the defaults only: the
 * operator's document comes through configuration_apply(). Blocks. */
int configuration_load(struct configuration *c, const struct daprd_opts *o, const char **ret_err);
/* Defaults with one document on top (may be empty); `name` is for error texts. The environment (OTEL_*) is read here as well. */
int configuration_apply(struct configuration *c, struct str text, const char *name, const char **ret_err);
void configuration_fini(struct configuration *c);
/* The JSON of a part: "mtls", "nameResolution.configuration", "accessControl" … (below spec). NULL p if absent. */
struct str configuration_section(struct configuration *c, const char *path);
bool configuration_feature(const struct configuration *c, const char *name);
/* May the app read this secret of this store? */
bool configuration_secret_allowed(const struct configuration *c, const char *store, struct str secret);

#endif
