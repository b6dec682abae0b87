/* What the files of `doctor` share: a list of findings, each with the step that it belongs to, its evidence and its fix. */
#ifndef CTL_DOCTOR_H
#define CTL_DOCTOR_H

#include "ctl/live.h"
#include "ctl/package/package.h"
#include "ctl/plugins.h"
#include "sdk/trust/verify.h"

enum doctor_step {
        STEP_YAML, STEP_SCHEMA, STEP_PLUGIN, STEP_LOCK, STEP_PACKAGE, STEP_SIGNATURE, STEP_HELLO, STEP_INIT, STEP_PING, STEP_PERMISSION,
        STEP_BACKEND, STEP_SCOPE, STEP_APP, DOCTOR_STEPS
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
        const char *constraint;               /* on the plugin's version; "" = none */
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
        enum verify_policy policy;  /* of the sidecar, as the next three */
        const char *lock_path;      /* "" = it keeps to none */
        struct lockfile lock;
        const char *exe_dir;
        struct doctor_component *components;
        size_t n_components;
        struct finding *v;
        size_t n;
};
void doctor_found(struct doctor *d, enum doctor_step step, enum doctor_result result, const char *subject, const char *evidence, const char *fix);

/* doctor_files.c: what can be seen without running anything. Blocks. */
void doctor_read_folder(struct doctor *d, const char *dir);
void doctor_check_plugins(struct doctor *d); /* of the components in scope, with their packages and rights */

/* doctor_trust.c: what the sidecar asks of a plugin before it starts one. */
/* From a running sidecar's command line, or for one that would be started here. 0, or 1 after saying what is wrong. Blocks. */
int doctor_policy_of(struct doctor *d, const struct sidecar *s);
int doctor_policy_here(struct doctor *d, const char *runtime_path, const char *verify, const char *lock);
/* The plugin that the sidecar takes for a component: pinned, or the highest that its constraint allows; NULL = none. */
const struct plugin_manifest *doctor_plugin_of(const struct doctor *d, const struct doctor_component *c);
void doctor_check_trust(struct doctor *d, const struct plugin_manifest *m);
/* Values of a flag on a process's command line, last one last; "--name v" and "--name=v". */
void doctor_flag_values(struct doctor *d, int pid, const char *name, struct flag_list *ret);

/* doctor_live.c: what a sidecar tells. 0, or 1 after saying that it cannot be asked. Parks. */
int doctor_ask(struct doctor *d, const struct sidecar *s);
void doctor_check_app(struct doctor *d, const char *host, int port);

#endif
