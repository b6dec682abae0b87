/* What the files of `doctor` share: a list of findings, each with the step that it belongs to, its evidence and its fix. */
#ifndef CTL_DOCTOR_H
#define CTL_DOCTOR_H

#include "ctl/live.h"
#include "ctl/package/package.h"
#include "ctl/plugins.h"

enum doctor_step {
        STEP_YAML, STEP_SCHEMA, STEP_SCOPE, STEP_PLUGIN, STEP_PACKAGE, STEP_HELLO, STEP_INIT, STEP_PERMISSION, STEP_BACKEND, STEP_APP, DOCTOR_STEPS
};
enum doctor_result { FOUND_GOOD, FOUND_WARNING, FOUND_WRONG };
enum { DOCTOR_FINDINGS_MAX = 2000 };

struct finding {
        enum doctor_step step;
        enum doctor_result result;
        const char *subject, *evidence, *fix; /* fix "": none is needed */
};
/* A Component document. */
struct doctor_component {
        const char *name, *type, *version, *file;
        int line;
        const struct yaml_node *doc;
        const struct plugin_manifest *plugin; /* NULL = none is installed */
        bool in_scope, wrong_file;            /* wrong_file: what stands in it is refused */
        bool seen;                            /* by the sidecar */
};
struct doctor {
        struct arena *a;
        const char *app_id;
        bool is_scratch;          /* the sidecar's resolver is its own, not one of the user's components */
        struct plugin_manifests plugins;
        struct trust trust;
        struct doctor_component *components;
        size_t n_components;
        struct finding *v;
        size_t n;
};
void doctor_found(struct doctor *d, enum doctor_step step, enum doctor_result result, const char *subject, const char *evidence, const char *fix);

/* doctor_files.c: what can be seen without running anything. Blocks. */
void doctor_read_folder(struct doctor *d, const char *dir);
void doctor_check_plugins(struct doctor *d); /* of the components in scope, with their packages and rights */

/* doctor_live.c: what a sidecar tells. 0, or 1 after saying that it cannot be asked. Parks. */
int doctor_ask(struct doctor *d, const struct sidecar *s);
void doctor_check_app(struct doctor *d, const char *host, int port);

#endif
