/* Path templates: "/hello/{name}/x", "/items/{id:[0-9]+}". A variable takes at least one character, without a pattern no slash. */
#ifndef PLUGINS_MIDDLEWARE_HTTP_ROUTERALIAS_TEMPLATE_H
#define PLUGINS_MIDDLEWARE_HTTP_ROUTERALIAS_TEMPLATE_H

#include "sdk/base/arena.h"

enum { TEMPLATE_PARTS_MAX = 64, TEMPLATE_PATH_BYTES = 8192 };

struct regex;
struct template_part {
        struct str text;      /* literal, or the variable's name */
        bool is_variable;
        struct regex *regex;  /* of a variable with a pattern, anchored */
};
struct template {
        struct template_part *parts;
        size_t n;
};

/* All of it in the arena. 0; -EINVAL with why in *ret_err (in the arena, or static); -ENOMEM. */
int template_parse(struct template *t, struct str text, struct arena *a, const char **ret_err);
/* Does the whole path match? Then values[i] is what parts[i] took. Scratch memory from the arena. 1, 0, -ENOMEM. */
int template_match(const struct template *t, struct str path, struct arena *a, struct str values[TEMPLATE_PARTS_MAX]);

#endif
