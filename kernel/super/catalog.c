/*
 * Looks first where the folder has the type's name, then into every manifest: one plugin may serve several types. In one folder the
 * highest version that the component's constraint allows is taken; a folder that stands earlier in the order goes before. Two plugins
 * of different names in one folder that would both do are an error: nothing says which is meant.
 */
#include "kernel/super/catalog.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "kernel/super/super.h"
#include "sdk/base/buf.h"
#include "sdk/base/near.h"
#include "sdk/base/semver.h"
#include "sdk/trust/lockfile.h"

enum { FOLDERS_MAX = 64, NEAR_MAX = 5 };

static void add(const char **v, size_t *n, const char *folder)
{
        if (folder && *folder && *n < FOLDERS_MAX)
                v[(*n)++] = folder;
}

const char **catalog_folders(const struct super_conf *conf, struct arena *a, size_t *ret_n)
{
        const char **v = arena_alloc(a, FOLDERS_MAX * sizeof *v);
        const char *path = conf->opts && conf->opts->plugins_path ? conf->opts->plugins_path : "", *home = getenv("HOME");
        *ret_n = 0;
        if (!v)
                return NULL;
        for (struct str rest = str_of(path), f; rest.p && (f = str_cut(&rest, ':'), 1);)
                add(v, ret_n, arena_strdup(a, f));
        if (conf->exe_dir) {
                add(v, ret_n, arena_printf(a, "%s/../plugins", conf->exe_dir));
                add(v, ret_n, arena_printf(a, "%s/../lib/dapr/plugins", conf->exe_dir));
        }
        if (home && *home)
                add(v, ret_n, arena_printf(a, "%s/.dapr/plugins", home));
        add(v, ret_n, "/usr/local/lib/dapr/plugins");
        add(v, ret_n, "/usr/lib/dapr/plugins");
        return v;
}

/* ---- every manifest ---- */

typedef void (*each_fn)(void *arg, const char *folder, const struct manifest *m, const char *err);

static bool give(const char *folder, const char *path, struct arena *a, each_fn fn, void *arg)
{
        struct manifest *m = NULL;
        const char *err = NULL;
        if (!path || access(path, F_OK))
                return false;
        manifest_read(path, &m, a, &err);
        fn(arg, folder, m, err);
        manifest_free(m);
        return true;
}

/* The plugin of one folder: its own plugin.yaml, and those of versions that stand side by side in it. */
static void each_of(const char *folder, const char *name, struct arena *a, each_fn fn, void *arg)
{
        give(folder, arena_printf(a, "%s/%s/plugin.yaml", folder, name), a, fn, arg);
        const char *path = arena_printf(a, "%s/%s", folder, name);
        DIR *dir = path ? opendir(path) : NULL;
        if (!dir)
                return;
        for (struct dirent *e; (e = readdir(dir));)
                if (semver_is_valid(str_of(e->d_name)))
                        give(folder, arena_printf(a, "%s/%s/plugin.yaml", path, e->d_name), a, fn, arg);
        closedir(dir);
}

static void each_in(const char *folder, struct arena *a, each_fn fn, void *arg)
{
        DIR *dir = opendir(folder);
        if (!dir)
                return;
        for (struct dirent *e; (e = readdir(dir));)
                if (e->d_name[0] != '.')
                        each_of(folder, e->d_name, a, fn, arg);
        closedir(dir);
}

void catalog_each(const struct super_conf *conf, struct arena *a, void (*fn)(void *, const char *, const struct manifest *, const char *),
                  void *arg)
{
        size_t n;
        const char **folders = catalog_folders(conf, a, &n);
        for (size_t i = 0; folders && i < n; i++)
                each_in(folders[i], a, fn, arg);
}

/* ---- one type ---- */

struct search {
        const char *type, *version, *constraint;
        struct arena *a;
        struct lockfile lock;   /* n = 0: there is none */
        const char *pinned;     /* "plugins.lock pins state.x to 1.0.0": what kept the excluded ones out, when that was it */
        const char *wanted;     /* what to install then: "state.x@1.0.0" */
        const char *folder;     /* where the best manifest so far was found */
        const char *name, *rival; /* of the best, and another plugin of its folder that would do as well; NULL = none */
        const char *file, *best; /* that serves type and version within the constraint, and the version of its plugin */
        struct buf excluded;    /* versions of plugins that serve it, outside the constraint */
        const char *broken;     /* text of the first manifest that cannot be read */
        struct buf versions;    /* others of this type that there are */
        const char *near[NEAR_MAX];
        size_t n_near;
        bool same_kind;         /* those are of the wanted kind; others are left out then */
};

static void note_near(struct search *s, const char *type)
{
        struct str wanted = str_of(s->type), have = str_of(type);
        struct str name = str_skip(wanted, (size_t)(str_chr(wanted, '.') + 1)), their = str_skip(have, (size_t)(str_chr(have, '.') + 1));
        bool close_ = edit_distance(wanted, have, 2) <= 2 || edit_distance(name, their, 1) <= 1 ||
                      (their.n > 3 && name.n > 3 && (str_find(name, their) >= 0 || str_find(their, name) >= 0));
        bool same_kind = wanted.n - name.n == have.n - their.n && strncasecmp(s->type, type, wanted.n - name.n) == 0;
        for (size_t i = 0; i < s->n_near; i++)
                if (strcmp(s->near[i], type) == 0)
                        return;
        if (!close_ || (s->same_kind && !same_kind))
                return;
        if (same_kind && !s->same_kind) {
                s->same_kind = true;
                s->n_near = 0;
        }
        if (s->n_near < NEAR_MAX)
                s->near[s->n_near++] = arena_strdup(s->a, have);
}

static void consider_version(struct search *s, const char *folder, const struct manifest *m)
{
        const struct lock_entry *row = lock_find(&s->lock, m->name);
        bool is_other = row && strcmp(row->version, m->version) != 0;
        if (is_other && !s->pinned) {
                s->pinned = arena_printf(s->a, "%s pins %s to %s", s->lock.path, row->name, row->version);
                s->wanted = arena_printf(s->a, "%s@%s", row->name, row->version);
        }
        if (is_other || (s->constraint && !semver_matches(str_of(m->version), str_of(s->constraint)))) {
                buf_printf(&s->excluded, "%s%s", s->excluded.len ? ", " : "", m->version);
                return;
        }
        bool here = s->file && strcmp(folder, s->folder) == 0, is_rival = here && strcmp(m->name, s->name) != 0;
        if (s->file && (!here || semver_compare(str_of(m->version), str_of(s->best)) <= 0)) {
                if (is_rival)
                        s->rival = arena_printf(s->a, "%s %s (%s)", m->name, m->version, m->file);
                return;
        }
        if (is_rival)
                s->rival = arena_printf(s->a, "%s %s (%s)", s->name, s->best, s->file);
        s->name = arena_strdup(s->a, str_of(m->name));
        s->folder = folder;
        s->file = arena_strdup(s->a, str_of(m->file));
        s->best = arena_strdup(s->a, str_of(m->version));
}

static void consider(void *arg, const char *folder, const struct manifest *m, const char *err)
{
        struct search *s = arg;
        if (!m) {
                if (!s->broken)
                        s->broken = err;
                return;
        }
        if (manifest_serves(m, s->type, s->version))
                consider_version(s, folder, m);
        for (size_t i = 0; i < m->n_types; i++) {
                if (strcasecmp(m->types[i].type, s->type) != 0)
                        note_near(s, m->types[i].type);
                else
                        for (size_t k = 0; k < m->types[i].n_versions; k++)
                                buf_printf(&s->versions, "%s%s", s->versions.len ? ", " : "", m->types[i].versions[k]);
        }
}

static const char *not_found(const struct search *s, const struct super_conf *conf, const char *noun, struct arena *a)
{
        struct buf b = {0};
        size_t n;
        const char **folders = catalog_folders(conf, a, &n);
        if (str_has_prefix(str_of(s->type), STR("middleware.")))
                buf_printf(&b, "%s %s/%s has not been registered", noun, s->type, s->version);
        else
                buf_printf(&b, "couldn't find %s %s/%s", noun, s->type, s->version);
        if (s->excluded.len && s->pinned) {
                buf_printf(&b, ": installed are %.*s, but %s; to install that: dapr plugin install '%s'", STR_FMT(buf_str(&s->excluded)), s->pinned, s->wanted);
        } else if (s->excluded.len) {
                buf_printf(&b, ": installed are %.*s, but its annotation microdapr.io/version asks for %s; to install that: "
                               "dapr plugin install '%s@%s'", STR_FMT(buf_str(&s->excluded)), s->constraint, s->type, s->constraint);
        } else if (s->versions.len) {
                buf_printf(&b, ": its plugin is installed but serves only version %.*s; correct spec.version or install a newer plugin",
                           STR_FMT(buf_str(&s->versions)));
        } else {
                buf_addz(&b, ": no plugin and no socket of a pluggable component serves this type");
                for (size_t i = 0; i < s->n_near; i++)
                        buf_printf(&b, "%s%s%s", i ? ", " : "; did you mean ", s->near[i], i + 1 == s->n_near ? "?" : "");
                if (s->constraint)
                        buf_printf(&b, "; to install it: dapr plugin install '%s@%s'", s->type, s->constraint);
                else
                        buf_printf(&b, "; to install it: dapr plugin install %s", s->type);
                buf_addz(&b, "; looked into");
                for (size_t i = 0; folders && i < n; i++)
                        buf_printf(&b, "%s %s", i ? "," : "", folders[i]);
        }
        if (s->broken)
                buf_printf(&b, "; a plugin that cannot be read: %s", s->broken);
        const char *text = arena_strdup(a, buf_str(&b));
        buf_fini(&b);
        return text ? text : "";
}

/* Where the folder has the type's name. */
static int find_by_name(struct search *s, const struct super_conf *conf, struct manifest **ret, const char **ret_err)
{
        size_t n;
        const char **folders = catalog_folders(conf, s->a, &n);
        for (size_t i = 0; folders && i < n && !s->file && !s->broken && !strchr(s->type, '/'); i++)
                each_of(folders[i], s->type, s->a, consider, s);
        if (s->file)
                return manifest_read(s->file, ret, s->a, ret_err);
        if (!s->broken)
                return -ENOENT;
        *ret_err = s->broken;
        return -EINVAL;
}

/* What plugins.lock pins is the one version of its plugin that there is. */
static int read_lock(struct search *s, const struct super_conf *conf, const char **ret_err)
{
        const struct daprd_opts *o = conf->opts;
        if (!o || o->plugin_verify_policy == VERIFY_OFF || !o->plugin_lock || !*o->plugin_lock)
                return 0;
        int r = lock_read(s->a, o->plugin_lock, &s->lock, ret_err);
        return r == -ENOENT ? -EINVAL : r;
}

int catalog_find(const struct super_conf *conf, const char *noun, const char *type, const char *version, const char *constraint,
                 struct manifest **ret, struct arena *a, const char **ret_err)
{
        struct search s = {.type = type, .version = version, .constraint = constraint && *constraint ? constraint : NULL, .a = a};
        if (s.constraint && !semver_is_range(str_of(s.constraint))) {
                *ret_err = arena_printf(a, "the annotation microdapr.io/version \"%s\" is no version constraint: write one such as 1.2.3, "
                                           "^1.2 or '>=1.0 <2'", s.constraint);
                return -EINVAL;
        }
        int r = read_lock(&s, conf, ret_err);
        if (r == 0)
                r = find_by_name(&s, conf, ret, ret_err);
        if (r == -ENOENT) {
                buf_clear(&s.versions);
                buf_clear(&s.excluded);
                catalog_each(conf, a, consider, &s);
                if (s.file && s.rival) {
                        *ret_err = arena_printf(a, "%s is served by two plugins, %s %s (%s) and %s: which one is meant cannot be told; to mend it: "
                                                   "dapr plugin remove the other one, or give the folder of yours the name %s", type, s.name, s.best, s.file, s.rival, type);
                        r = -EINVAL;
                } else if (s.file)
                        r = manifest_read(s.file, ret, a, ret_err);
                else
                        *ret_err = not_found(&s, conf, noun, a);
        }
        buf_fini(&s.versions);
        buf_fini(&s.excluded);
        return r;
}
