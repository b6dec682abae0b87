/* See source.h. */
#include "ctl/package/source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/package/fetch.h"
#include "ctl/package/store.h"
#include "ctl/package/tar.h"
#include "sdk/base/semver.h"

int sources_init(struct sources *s, struct arena *a, const struct plugin_source_opts *o, const char *temp_root)
{
        const char *err = "";
        *s = (struct sources){.a = a, .o = o, .temp_root = temp_root};
        if (lock_read(a, o->lock, &s->lock, &err) == 0)
                return 0;
        ui_say(UI_FAILURE, "%s", err);
        return 1;
}

void sources_fini(struct sources *s)
{
        if (s->index_opened)
                index_close(&s->index);
        s->index_opened = false;
        for (size_t i = 0; i < s->n_held; i++)
                index_close(&s->held[i]);
        s->n_held = 0;
}

/* Takes it. */
static int hold(struct sources *s, const struct index *x)
{
        struct index *v = arena_grow(s->a, s->held, s->n_held * sizeof *v, (s->n_held + 1) * sizeof *v);
        if (!v)
                return -ENOMEM;
        s->held = v;
        v[s->n_held++] = *x;
        return 0;
}

static int complain(const char *err)
{
        ui_say(UI_FAILURE, "%s", err ? err : "out of memory");
        return 1;
}

/* ---- by name ---- */

static int open_index(struct sources *s)
{
        const char *env = getenv("DAPR_PLUGIN_INDEX"), *where = *s->o->index ? s->o->index : env ? env : "", *err = NULL;
        if (s->index_opened)
                return 0;
        if (!*where)
                return complain("There is no index to look it up in: say --index URL (or a folder, a bundle, oci:DIR), or set DAPR_PLUGIN_INDEX");
        if (index_open(s->a, &(struct index_ask){where, s->o->ca_file, s->o->allow_old_index, false}, &s->index, &err))
                return complain(err);
        s->index_opened = true;
        s->seal = s->index.seal;
        return 0;
}

static int by_name(struct sources *s, const char *name, const char *constraint, bool exact, source_fn fn, void *arg)
{
        const char *err = NULL;
        struct package *p;
        int r = open_index(s);
        if (r)
                return r;
        const struct index_entry *e = index_pick(&s->index, name, constraint, s->a, &err);
        if (!e || index_get(&s->index, e, s->temp_root, s->a, &p, &err))
                return complain(err);
        return fn(arg, p, exact);
}

static int named(struct sources *s, const char *source, source_fn fn, void *arg)
{
        const char *at = strchr(source, '@'), *name = at ? arena_strdup(s->a, str_n(source, (size_t)(at - source))) : source;
        const char *constraint = at ? at + 1 : "";
        const struct lock_entry *pinned = at ? NULL : lock_find(&s->lock, source);
        struct str bare = str_of(constraint[0] == '=' ? constraint + 1 : constraint);
        if (!name || !package_name_ok(name))
                return complain(arena_printf(s->a, "%s: there is no such file, and it is no name of a plugin", source));
        if (!semver_is_range(str_of(constraint)))
                return complain(arena_printf(s->a, "%s: \"%s\" is no version constraint: write one such as 1.2.3, ^1.2 or '>=1.0 <2'", source, constraint));
        return by_name(s, name, pinned ? pinned->version : constraint, pinned || semver_is_valid(bare), fn, arg);
}

int source_locked(struct sources *s, source_fn fn, void *arg)
{
        int r = 0;
        for (size_t i = 0; r == 0 && i < s->lock.n; i++)
                if (package_fits(s->lock.v[i].platform))
                        r = by_name(s, s->lock.v[i].name, s->lock.v[i].version, true, fn, arg);
        return r;
}

/* ---- by place ---- */

static bool is_package(const char *path)
{
        char head[sizeof PACKAGE_LIST] = "";
        FILE *f = fopen(path, "re");
        size_t n = f ? fread(head, 1, sizeof head, f) : 0;
        if (f)
                fclose(f);
        return n == sizeof head && memcmp(head, PACKAGE_LIST, sizeof head) == 0;
}

static int all_of_index(struct sources *s, const char *where, source_fn fn, void *arg)
{
        struct index x;
        const char *err = NULL;
        if (index_open(s->a, &(struct index_ask){where, s->o->ca_file, s->o->allow_old_index, false}, &x, &err))
                return complain(err);
        s->seal = x.seal;
        int r = 0;
        size_t used = 0;
        for (size_t i = 0; r == 0 && i < x.n; i++) {
                struct package *p;
                if (!package_fits(x.v[i].platform))
                        continue;
                used++;
                r = index_get(&x, &x.v[i], s->temp_root, s->a, &p, &err) ? complain(err) : fn(arg, p, true);
        }
        if (r == 0 && used == 0)
                r = complain(arena_printf(s->a, "%s holds no package for %s", where, package_platform()));
        if (hold(s, &x) == 0)
                return r;
        index_close(&x);
        return complain(NULL);
}

static int from_url(struct sources *s, const char *url, source_fn fn, void *arg)
{
        const char *temp, *err = NULL;
        struct progress bar;
        struct package *p;
        int fd = store_temp_file(s->temp_root, s->a, &temp, &err);
        if (fd < 0)
                return complain(err);
        progress_begin(&bar, url, 0);
        int r = fetch_fd(s->a, url, s->o->ca_file, TAR_TOTAL_BYTES_MAX, fd, &bar, &err);
        progress_end(&bar);
        close(fd);
        if (r == 0 && !is_package(temp))
                r = all_of_index(s, temp, fn, arg);
        else
                r = r || package_open_as(temp, url, &p, s->a, &err) ? complain(err) : fn(arg, p, false);
        unlink(temp);
        return r;
}

int source_each(struct sources *s, const char *source, source_fn fn, void *arg)
{
        struct stat st;
        const char *err = NULL;
        struct package *p;
        if (fetch_is_url(source)) {
                if (str_has_suffix(str_of(source), STR(".tar")))
                        return from_url(s, source, fn, arg);
                return complain(arena_printf(s->a, "%s is no package (.tar): to install from an index, say dapr plugin install NAME --index %s", source, source));
        }
        if (strncmp(source, "oci:", 4) == 0)
                return all_of_index(s, source, fn, arg);
        if (stat(source, &st) != 0)
                return named(s, source, fn, arg);
        if (!S_ISDIR(st.st_mode) && !is_package(source))
                return all_of_index(s, source, fn, arg);
        if (S_ISDIR(st.st_mode) && index_is_source(source))
                return all_of_index(s, source, fn, arg);
        int r = S_ISDIR(st.st_mode) ? package_from_folder(source, &p, s->a, &err) : package_open(source, &p, s->a, &err);
        return r ? complain(err) : fn(arg, p, false);
}
