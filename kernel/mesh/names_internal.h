/* Between names.c, the cache, and names_start.c, the resolver's start. */
#ifndef KERNEL_MESH_NAMES_INTERNAL_H
#define KERNEL_MESH_NAMES_INTERNAL_H

#include "kernel/kernel.h"

enum names_state { NAMES_STARTING, NAMES_READY, NAMES_FAILED, NAMES_STOPPED };

struct names {
        struct kernel *k;
        enum names_state state;
        struct scope scope;              /* the start */
        struct component_spec *spec;
        struct component *component;     /* in NAMES_READY; belongs to the supervisor */
        const char *name, *version, *why; /* in the spec's arena; why: of NAMES_FAILED, NULL = nothing serves it */
        struct cond changed;             /* state, or an entry's round */
        struct map cache;                /* "namespace/id" -> struct name_entry */
        struct list by_use;
};

void names_cache_fini(struct names *n);

#endif
