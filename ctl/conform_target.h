/* `plugin conformance`: what is checked and where it stands, with which settings, and what is done with the result. */
#ifndef CTL_CONFORM_TARGET_H
#define CTL_CONFORM_TARGET_H

#include "ctl/commands.h"
#include "ctl/conform.h"
#include "sdk/base/yaml.h"

struct target {
        struct arena *a;
        const char *given;    /* the folder as it was given: that of the sources, or the built one; NULL = no folder */
        const char *folder;   /* with plugin.yaml and the program; NULL = a socket */
        const char *package;  /* the archive, or NULL */
        const char *unpacked; /* temporary, or NULL */
        const struct yaml_node *manifest, *component; /* component: NULL = none */
        const char *resource; /* its file */
        bool resource_found;  /* nobody named it: it stood in resources/ */
        struct str launch;    /* the folder and the settings, each text ended by NUL */
        struct subject subject;
};
/* All that return int: 0, or 1 after saying what is wrong. */
int target_refuse(const char *err); /* NULL = out of memory */
const struct yaml_node *target_read_yaml(struct target *t, const char *file); /* NULL after saying what is wrong */
const struct yaml_node *target_list(const struct yaml_node *map, const char *path); /* NULL: no list there */

/* ---- conform_settings.c ---- */
/* --resource, else, where no --metadata says the settings, a component in resources/ of the folder that has one of the plugin's types;
 * there may be none. */
int settings_component(struct target *t, const struct plugin_conformance_opts *o);
/* The manifest's defaults, then the component, then --metadata, as the runtime would send them, packed. Required ones must be there. */
int settings_read(struct target *t, const struct plugin_conformance_opts *o, const char *kind, struct str *ret);
/* The kit writes: is that meant, where a component file says what it writes to? Asks on a terminal. */
int settings_confirm(const struct target *t, const struct plugin_conformance_opts *o, const char *kind);

/* ---- conform_report.c ---- */
size_t report_count(const struct conform *c, enum conform_status s);
void report_json(const struct conform *c, struct buf *b);
void report_print(const struct conform *c);
/* Into the folder, or into the package. A result with failures is not kept. */
int report_save(struct target *t, const struct conform *c, const struct buf *result);

#endif
