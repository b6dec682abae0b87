/*
 * What the sidecar asks of a plugin before it starts one: doctor asks the same, by the same code (sdk/trust/verify.h), with the policy and
 * the lock file of that sidecar. A package that the policy does not ask about is looked at, too, and told as a warning at most.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/doctor.h"
#include "sdk/base/semver.h"

/* ---- the sidecar's policy ---- */

void doctor_flag_values(struct doctor *d, int pid, const char *name, struct flag_list *ret)
{
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
        FILE *f = fopen(path, "re");
        char *word = NULL;
        size_t cap = 0;
        bool next = false;
        while (f && getdelim(&word, &cap, '\0', f) > 0) {
                struct str w = str_of(word + strspn(word, "-"));
                ptrdiff_t eq = str_chr(w, '=');
                bool flag = word[0] == '-' && str_eqz(eq < 0 ? w : str_n(w.p, (size_t)eq), name);
                const char *value = next ? word : flag && eq >= 0 ? w.p + eq + 1 : NULL;
                next = flag && eq < 0;
                const char **v = value ? arena_grow(d->a, ret->v, ret->n * sizeof *v, (ret->n + 1) * sizeof *v) : NULL;
                if (!v)
                        continue;
                ret->v = v;
                v[ret->n++] = arena_strdup(d->a, str_of(value));
        }
        free(word);
        if (f)
                fclose(f);
}

static int complain(const char *err)
{
        ui_say(UI_FAILURE, "%s", err ? err : "out of memory");
        return 1;
}

/* folder: the sidecar's working folder. */
static int set_policy(struct doctor *d, const char *folder, const char *verify, const char *lock)
{
        const char *err = NULL;
        if (!verify_policy_read(verify, &d->policy))
                return complain(arena_printf(d->a, "--plugin-verify %s: use off, lock or signed", verify));
        d->lock_path = path_absolute(d->a, folder, *lock ? lock : LOCK_FILE);
        if (d->policy == VERIFY_OFF || (!*lock && !path_exists(d->lock_path)))
                d->lock_path = "";
        if (*d->lock_path && lock_read(d->a, d->lock_path, &d->lock, &err)) {
                doctor_found(d, STEP_LOCK, FOUND_WRONG, d->lock_path, err, "mend the lock file, or write it anew: dapr plugin lock");
                d->lock = (struct lockfile){.path = d->lock_path};
        }
        return 0;
}

static const char *last_value(struct doctor *d, int pid, const char *name, const char *otherwise)
{
        struct flag_list v = {0};
        doctor_flag_values(d, pid, name, &v);
        return v.n ? v.v[v.n - 1] : otherwise;
}

static const char *folder_of(struct doctor *d, const char *file)
{
        const char *slash = file ? strrchr(file, '/') : NULL;
        return slash ? arena_strdup(d->a, str_n(file, (size_t)(slash - file))) : "";
}

static const char *link_of(struct doctor *d, int pid, const char *name)
{
        char path[64], to[1024];
        snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
        ssize_t n = readlink(path, to, sizeof to - 1);
        return n > 0 ? arena_strdup(d->a, str_n(to, (size_t)n)) : "";
}

int doctor_policy_of(struct doctor *d, const struct sidecar *s)
{
        d->exe_dir = folder_of(d, link_of(d, s->pid, "exe"));
        return set_policy(d, link_of(d, s->pid, "cwd"), last_value(d, s->pid, "plugin-verify", "lock"), last_value(d, s->pid, "plugin-lock", ""));
}

int doctor_policy_here(struct doctor *d, const char *runtime_path, const char *verify, const char *lock)
{
        char cwd[1024];
        const char *daprd = path_program(d->a, runtime_path, "daprd");
        char *real = daprd ? realpath(daprd, NULL) : NULL;
        d->exe_dir = folder_of(d, real);
        free(real);
        return set_policy(d, getcwd(cwd, sizeof cwd) ? cwd : ".", verify, lock);
}

/* ---- one plugin ---- */

static bool is_left_out(const struct doctor *d, const struct doctor_component *c, const struct plugin_manifest *m)
{
        const struct lock_entry *row = lock_find(&d->lock, m->name);
        return (row && strcmp(row->version, m->version) != 0) || (*c->constraint && !semver_matches(str_of(m->version), str_of(c->constraint)));
}

const struct plugin_manifest *doctor_plugin_of(const struct doctor *d, const struct doctor_component *c)
{
        struct plugin_manifests left = {arena_alloc(d->a, (d->plugins.n + 1) * sizeof *left.v), 0};
        for (size_t i = 0; left.v && i < d->plugins.n; i++)
                if (!is_left_out(d, c, &d->plugins.v[i]))
                        left.v[left.n++] = d->plugins.v[i];
        return left.v ? plugins_get(&left, c->type) : NULL;
}

/* What the policy does not ask about. */
static void check_package(struct doctor *d, const struct plugin_manifest *m, const struct verified *v)
{
        struct package *p = NULL;
        const struct trust_key *key = NULL;
        const char *err = NULL, *fix = arena_printf(d->a, "dapr plugin install %s --force", m->name);
        if (!path_exists(path_join(d->a, m->folder, PACKAGE_LIST))) {
                doctor_found(d, STEP_PACKAGE, FOUND_GOOD, m->name, "came with the runtime or was built here, not as a package: nothing to verify", "");
                return;
        }
        int r = package_installed(m->folder, &p, d->a, &err);
        if (r)
                doctor_found(d, STEP_PACKAGE, FOUND_WRONG, m->name, err, fix);
        else
                doctor_found(d, STEP_PACKAGE, FOUND_GOOD, m->name, arena_printf(d->a, "%zu files unchanged", p->n_files), "");
        if (r == 0 && !v->signed_by) {
                r = package_trust(&d->trust, p, d->a, &key, &err);
                if (r)
                        doctor_found(d, STEP_SIGNATURE, r == -EKEYREJECTED ? FOUND_WRONG : FOUND_WARNING, m->name, err,
                                     r == -ENOKEY ? "dapr plugin trust add KEY.pub, if you trust who signed it" : fix);
                else
                        doctor_found(d, STEP_SIGNATURE, FOUND_GOOD, m->name, arena_printf(d->a, "signed by %s", key->name), "");
        }
        package_free(p);
}

static enum doctor_step step_of(enum verify_step s)
{
        switch (s) {
        case VERIFY_STEP_LOCK: return STEP_LOCK;
        case VERIFY_STEP_PACKAGE: return STEP_PACKAGE;
        case VERIFY_STEP_SIGNATURE: return STEP_SIGNATURE;
        }
        return STEP_PACKAGE;
}

void doctor_check_trust(struct doctor *d, const struct plugin_manifest *m)
{
        struct verified v;
        struct verify_fault f;
        const char *exe = *m->executable ? m->executable : m->name;
        struct verify_ask q = {.folder = m->folder, .executable = *exe == '/' ? exe : path_join(d->a, m->folder, exe), .name = m->name, .version = m->version,
                               .exe_dir = d->exe_dir, .policy = d->policy, .lock = d->lock_path};
        if (verify_plugin(&q, d->a, &v, &f)) {
                doctor_found(d, step_of(f.step), FOUND_WRONG, m->name, f.what, f.fix);
                return;
        }
        if (v.exec_fd >= 0)
                close(v.exec_fd);
        if (v.is_pinned)
                doctor_found(d, STEP_LOCK, FOUND_GOOD, m->name, arena_printf(d->a, "%s pins %s, digest " LOCK_DIGEST "%.12s...", d->lock_path, m->version, v.digest), "");
        if (v.signed_by)
                doctor_found(d, STEP_SIGNATURE, FOUND_GOOD, m->name, arena_printf(d->a, "signed by %s", v.signed_by), "");
        check_package(d, m, &v);
}
