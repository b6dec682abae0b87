/*
 * Label `path` of the HTTP metrics: the URL's path with its variable parts removed (high cardinality), a configured pattern
 * (spec.metric.http.pathMatching), or nothing (low cardinality).
 */
#ifndef KERNEL_HTTP_PATH_H
#define KERNEL_HTTP_PATH_H

#include "sdk/base/arena.h"

struct http_paths {
        struct arena arena;
        const char **patterns; /* as configured and, for each, behind /v1.0/invoke/{app_id}/method */
        size_t n;
        bool increased_cardinality;
};

/* 0 or -ENOMEM. Strings are copied. */
int http_paths_init(struct http_paths *p, const char *const *patterns, size_t n, bool increased_cardinality);
void http_paths_fini(struct http_paths *p);
/* The label for an unescaped path; may borrow from path, else in a. */
struct str http_path_label(const struct http_paths *p, struct arena *a, struct str path);
/* The same for a call to the app, where the low cardinality keeps what daprd itself asks the app for. */
struct str http_path_label_client(const struct http_paths *p, struct arena *a, struct str path);

#endif
