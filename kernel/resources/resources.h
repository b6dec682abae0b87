/*
 * Resources: what YAML and JSON files in the resources folders and the --config files say, as plain structs. Parsing and
 * checking only: nothing here starts a component. Every error names file, line, field and the fix.
 * Strings live in the arena of the struct they belong to.
 */
#ifndef KERNEL_RESOURCES_H
#define KERNEL_RESOURCES_H

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

struct daprd_opts;

/* ---- Component ---- */
struct metadata_item {
        const char *name;
        const char *value;        /* after secretKeyRef, envRef and templates were resolved; scalars as text, JSON as text */
        const char *secret_name, *secret_key; /* secretKeyRef, NULL if none; key defaults to name */
        const char *env_ref;
        int line;
};
struct component_spec {
        struct arena arena;
        const char *name, *namespace_, *type, *version; /* version as written, "" if absent */
        bool ignore_errors;
        int64_t init_timeout_ns;  /* default 5 s */
        const char *secret_store; /* auth.secretStore, "" if none */
        struct metadata_item *metadata;
        size_t n_metadata;
        const char **scopes;
        size_t n_scopes;
        const char *file;         /* where it was read */
        int line;
        bool namespace_scoped;    /* a value held {namespace} */
};
/* "name (type/version)" as the reference logs it, e.g. "mystore (state.in-memory/v1)". In the spec's arena. */
const char *component_log_name(struct component_spec *c);
/* Value of a metadata item by name without case; NULL if absent. */
const char *component_metadata(const struct component_spec *c, const char *name);
void component_spec_free(struct component_spec *c);

/* ---- the other kinds: parsed and checked now, used by later blocks ---- */
struct raw_resource { /* Subscription, HTTPEndpoint, Resiliency, … with the whole document as JSON */
        struct arena arena;
        const char *api_version, *kind, *name, *namespace_;
        const char **scopes;
        size_t n_scopes;
        struct str json;          /* the document */
        const char *file;
        int line;
};

struct resource_set {
        struct component_spec **components; /* in load order of files, duplicates refused */
        size_t n_components;
        struct raw_resource **others;
        size_t n_others;
};
/* Reads every *.yaml / *.yml of the folders (non-recursive, sorted by name), multi-document; filters by scopes, namespace and
 * Configuration components.deny. 0, or -EINVAL with the reference's text in *ret_err (arena of the caller):
 * e.g. "failed to load components: duplicate definition of Component name ...". Blocks (files); call it before the loop or on work_run. */
struct configuration;
int resources_load(struct resource_set *set, const struct daprd_opts *o, const struct configuration *cfg, struct arena *err_arena,
                   const char **ret_err);
void resource_set_fini(struct resource_set *set);

/* secretKeyRef: asks `get` for each reference of the spec and fills value. envRef and {uuid} {podName} {namespace} {appID}
 * templates are resolved too. get returns 0 and *value (borrowed), 1 = not found, <0 error (text in *err). Parks as get does. */
typedef int (*secret_get_fn)(void *arg, const char *store, const char *secret, const char *key, struct arena *a, const char **value,
                             const char **err);
int component_resolve(struct component_spec *c, const struct daprd_opts *o, secret_get_fn get, void *arg, const char **ret_err);

/* ---- Configuration ---- */
struct secret_scope {
        const char *store, *default_access; /* "allow", "deny", "" */
        const char **allowed, **denied;
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
        const char *tracing_sampling_rate, *tracing_zipkin, *tracing_otel_endpoint, *tracing_otel_protocol;
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
        struct str json;         /* all files merged, for the sections that later blocks read */
};
/* Files in order over the defaults; $VAR expansion first. 0 or -EINVAL with *ret_err. */
int configuration_load(struct configuration *c, const struct daprd_opts *o, const char **ret_err);
void configuration_fini(struct configuration *c);

/* ---- YAML as JSON: the one reader below all kinds ---- */
/* Converts one YAML (or JSON) text into JSON documents, as a map with line numbers on the side. See yaml.h. */

#endif
