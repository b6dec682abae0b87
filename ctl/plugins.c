/* See plugins.h. A manifest that cannot be read is a row with its error, so that a person sees why a plugin does not serve. */
#include "ctl/plugins.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "sdk/base/semver.h"

enum { FOLDERS_MAX = 64 };

struct search {
        struct arena *a;
        const char *folders[FOLDERS_MAX];
        size_t n_folders, cap;
        struct plugin_manifests found;
};

const char *plugin_text(struct arena *a, const struct yaml_node *map, const char *member)
{
        const struct yaml_node *n = yaml_get(map, member);
        struct str s = STR_NULL;
        if (!n || n->kind != YAML_SCALAR || yaml_string(a, n, YAML_V3, &s) != 0 || !s.p)
                return "";
        const char *z = arena_strdup(a, s);
        return z ? z : "";
}

static const struct yaml_node *list_of(const struct yaml_node *map, const char *member)
{
        const struct yaml_node *n = yaml_get(map, member);
        return n && n->kind == YAML_LIST && n->n ? n : NULL;
}

const char *plugin_type(struct arena *a, const struct plugin_manifest *m, size_t i)
{
        struct yaml_item *it = m->types ? m->types->items : NULL;
        while (it && i--)
                it = it->next;
        return it ? plugin_text(a, it->value, "type") : NULL;
}

/* ---- folders ---- */

static void add_folder(struct search *s, const char *folder)
{
        if (folder && *folder && s->n_folders < FOLDERS_MAX)
                s->folders[s->n_folders++] = folder;
}

static void add_beside_daprd(struct search *s, const char *runtime_path)
{
        const char *daprd = path_program(s->a, runtime_path, "daprd");
        char *real = daprd ? realpath(daprd, NULL) : NULL, *slash = real ? strrchr(real, '/') : NULL;
        if (slash) {
                add_folder(s, arena_printf(s->a, "%.*s/../plugins", (int)(slash - real), real));
                add_folder(s, arena_printf(s->a, "%.*s/../lib/dapr/plugins", (int)(slash - real), real));
        }
        free(real);
}

static void add_folders(struct search *s, const char *runtime_path, const char *plugins_path)
{
        const char *path = plugins_path && *plugins_path ? plugins_path : getenv("DAPR_PLUGINS_PATH"), *home = getenv("HOME");
        struct str rest = str_of(path);
        while (rest.p)
                add_folder(s, arena_strdup(s->a, str_cut(&rest, ':')));
        add_beside_daprd(s, runtime_path);
        if (home && *home)
                add_folder(s, arena_printf(s->a, "%s/.dapr/plugins", home));
        add_folder(s, "/usr/local/lib/dapr/plugins");
        add_folder(s, "/usr/lib/dapr/plugins");
}

/* ---- manifests ---- */

static bool is_known(const struct search *s, const struct plugin_manifest *m)
{
        for (size_t i = 0; i < s->found.n; i++)
                if (strcmp(s->found.v[i].name, m->name) == 0 && strcmp(s->found.v[i].version, m->version) == 0)
                        return true;
        return false;
}

static void read_manifest(struct search *s, const char *folder, const char *entry, size_t rank)
{
        const char *dir = path_join(s->a, folder, entry), *file = dir ? path_join(s->a, dir, "plugin.yaml") : NULL;
        if (!path_exists(file))
                return;
        char *real = realpath(dir, NULL);
        struct plugin_manifest m = {.file = file, .folder = real ? arena_strdup(s->a, str_of(real)) : dir,
                                    .name = arena_strdup(s->a, str_of(entry)), .rank = rank, .version = "", .title = "", .description = "", .executable = ""};
        free(real);
        struct str text;
        struct yaml_node *root = NULL;
        if (yaml_read_file(s->a, file, false, &text, &m.error) == 0 && yaml_read(s->a, text, file, 1, 0, &root, &m.error) == 0) {
                const char *name = plugin_text(s->a, root, "name");
                m.error = root && root->kind == YAML_MAP && *name ? NULL : arena_printf(s->a, "%s: this is no plugin manifest", file);
                if (!m.error) {
                        m.name = name;
                        m.version = plugin_text(s->a, root, "version");
                        m.executable = plugin_text(s->a, root, "executable");
                        m.title = plugin_text(s->a, root, "title");
                        m.description = plugin_text(s->a, root, "description");
                        m.types = list_of(root, "types");
                        m.fields = list_of(root, "metadata");
                        m.sandbox = yaml_is_null(yaml_get(root, "sandbox")) ? NULL : yaml_get(root, "sandbox");
                        m.share = strcmp(plugin_text(s->a, root, "share"), "true") == 0;
                        m.is_volatile = strcmp(plugin_text(s->a, root, "volatile"), "true") == 0;
                }
        }
        if (!m.name || !m.folder || is_known(s, &m))
                return;
        if (s->found.n == s->cap) {
                size_t cap = s->cap ? s->cap * 2 : 16;
                struct plugin_manifest *v = arena_grow(s->a, s->found.v, s->cap * sizeof(*v), cap * sizeof(*v));
                if (!v)
                        return;
                s->found.v = v;
                s->cap = cap;
        }
        s->found.v[s->found.n++] = m;
}

/* The plugin's own folder, and the versions that stand side by side in it. */
static void read_plugin(struct search *s, const char *folder, const char *entry, size_t rank)
{
        read_manifest(s, folder, entry, rank);
        const char *dir = path_join(s->a, folder, entry);
        DIR *d = dir ? opendir(dir) : NULL;
        for (struct dirent *e; d && (e = readdir(d));)
                if (semver_is_valid(str_of(e->d_name)))
                        read_manifest(s, dir, e->d_name, rank);
        if (d)
                closedir(d);
}

/* Of one name first what the runtime takes: the earlier folder, then the higher version. */
static int by_name(const void *x, const void *y)
{
        const struct plugin_manifest *a = x, *b = y;
        int c = strcmp(a->name, b->name);
        if (c == 0)
                c = (a->rank > b->rank) - (a->rank < b->rank);
        return c ? c : -semver_compare(str_of(a->version), str_of(b->version));
}

int plugins_find(struct arena *a, const char *runtime_path, const char *plugins_path, struct plugin_manifests *ret)
{
        struct search *s = arena_new(a, struct search);
        if (!s)
                return -ENOMEM;
        s->a = a;
        add_folders(s, runtime_path, plugins_path);
        for (size_t i = 0; i < s->n_folders; i++) {
                DIR *d = opendir(s->folders[i]);
                if (!d)
                        continue;
                for (struct dirent *e; (e = readdir(d));)
                        if (e->d_name[0] != '.')
                                read_plugin(s, s->folders[i], e->d_name, i);
                closedir(d);
        }
        if (s->found.n)
                qsort(s->found.v, s->found.n, sizeof(*s->found.v), by_name);
        *ret = s->found;
        return 0;
}

const struct plugin_manifest *plugins_get(const struct plugin_manifests *all, const char *name)
{
        struct arena a;
        const struct plugin_manifest *hit = NULL;
        arena_init(&a, 0);
        for (size_t i = 0; i < all->n && !hit; i++) {
                const char *type;
                if (strcasecmp(all->v[i].name, name) == 0)
                        hit = &all->v[i];
                for (size_t k = 0; !hit && (type = plugin_type(&a, &all->v[i], k)); k++)
                        if (strcasecmp(type, name) == 0)
                                hit = &all->v[i];
        }
        arena_fini(&a);
        return hit;
}

bool plugins_has_type(struct arena *a, const char *runtime_path, const char *type)
{
        struct plugin_manifests all;
        return plugins_find(a, runtime_path, NULL, &all) == 0 && plugins_get(&all, type);
}
