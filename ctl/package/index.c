/* See index.h. The documents are JSON; the YAML reader gives them as a tree. */
#include "ctl/package/index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/package/fetch.h"
#include "ctl/package/package_impl.h"
#include "ctl/package/store.h"
#include "ctl/package/tar.h"
#include "ctl/plugins.h"
#include "sdk/base/semver.h"

enum { OCI_BLOB_TEXT_MAX = 4 * 1024 * 1024 };

struct opening {
        struct arena *a;
        struct index *x;
        const struct index_ask *q;
        size_t cap;
        const char **ret_err;
};

static int fail(struct opening *o, int r, const char *what)
{
        *o->ret_err = arena_printf(o->a, "%s: %s", o->x->base, what);
        return r;
}

static struct index_entry *add(struct opening *o)
{
        struct index *x = o->x;
        if (x->n == INDEX_ENTRIES_MAX)
                return NULL;
        if (x->n == o->cap) {
                size_t cap = o->cap ? o->cap * 2 : 32;
                struct index_entry *v = arena_grow(o->a, x->v, o->cap * sizeof *v, cap * sizeof *v);
                if (!v)
                        return NULL;
                x->v = v;
                o->cap = cap;
        }
        x->v[x->n] = (struct index_entry){.name = ""};
        return &x->v[x->n++];
}

static int read_tree(struct opening *o, struct str text, const char *name, struct yaml_node **ret)
{
        const char *err = NULL;
        if (!json_valid(text) || yaml_read(o->a, text, name, 1, 0, ret, &err) != 0 || !*ret || (*ret)->kind != YAML_MAP)
                return fail(o, -EINVAL, arena_printf(o->a, "%s is no JSON object", name));
        return 0;
}

static const struct yaml_node *list_of(const struct yaml_node *map, const char *member)
{
        const struct yaml_node *n = yaml_get(map, member);
        return n && n->kind == YAML_LIST ? n : NULL;
}

/* ---- the document ---- */

static int read_entry(struct opening *o, const struct yaml_node *n)
{
        struct index_entry *e = add(o);
        if (!e)
                return fail(o, -E2BIG, "the index holds too many packages (20,000 at most)");
        const struct { const char *key, **to; } texts[] = {{"name", &e->name}, {"version", &e->version}, {"platform", &e->platform},
                {"types", &e->types}, {"title", &e->title}, {"description", &e->description}, {"file", &e->file}, {"digest", &e->digest}};
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
                *texts[i].to = plugin_text(o->a, n, texts[i].key);
        e->size = strtoull(plugin_text(o->a, n, "size"), NULL, 10);
        if (!package_name_ok(e->name) || !semver_is_valid(str_of(e->version)) || !*e->platform || !*e->file)
                return fail(o, -EINVAL, arena_printf(o->a, "entry %zu of the index lacks name, version, platform or file", o->x->n));
        return 0;
}

static int read_document(struct opening *o, struct str text, const char *name, struct yaml_node **ret_root)
{
        struct yaml_node *root = NULL;
        int r = read_tree(o, text, name, &root);
        if (ret_root)
                *ret_root = root;
        const struct yaml_node *list = r ? NULL : list_of(root, "plugins");
        if (r == 0 && !list)
                return fail(o, -EINVAL, "this is no index of plugins: it has no list 'plugins'");
        for (const struct yaml_item *i = list ? list->items : NULL; r == 0 && i; i = i->next)
                r = read_entry(o, i->value);
        return r;
}

void index_entry_of(const struct package *p, const char *file, uint64_t size, struct index_entry *ret)
{
        *ret = (struct index_entry){.name = p->name, .version = p->version, .platform = p->platform, .types = p->types, .title = p->title,
                                    .description = p->description, .file = file, .digest = p->digest, .size = size};
}

/* ---- its signature ---- */

static bool same_package(const struct index_entry *a, const struct index_entry *b)
{
        return strcmp(a->name, b->name) == 0 && strcmp(a->version, b->version) == 0 && strcmp(a->platform, b->platform) == 0 && *a->digest &&
               strcmp(a->digest, b->digest) == 0;
}

/* Every package that is offered must be in the document that was signed, when one was. */
static int all_vouched(struct opening *o, const struct index *signed_)
{
        for (size_t i = 0; i < o->x->n; i++) {
                size_t k = 0;
                while (k < signed_->n && !same_package(&o->x->v[i], &signed_->v[k]))
                        k++;
                if (k == signed_->n)
                        return fail(o, -EBADMSG, arena_printf(o->a, "%s %s for %s is not in the index that %s has signed", o->x->v[i].name, o->x->v[i].version,
                                                              o->x->v[i].platform, o->x->seal.signed_by));
        }
        return 0;
}

bool index_vouches(struct arena *a, const struct index_seal *seal, const struct index_entry *e)
{
        struct index one = {.base = "", .v = (struct index_entry *)e, .n = 1, .seal = *seal}, signed_ = {.base = ""};
        const char *err;
        struct opening o = {.a = a, .x = &signed_, .ret_err = &err};
        if (!seal->document.p || read_document(&o, seal->document, INDEX_FILE, NULL))
                return false;
        o.x = &one;
        return all_vouched(&o, &signed_) == 0;
}

/* document: the signed one; p NULL = there is none. is_index: it is what was read, not one that stands beside. */
static int check_seal(struct opening *o, struct str document, struct str signature, const struct yaml_node *root, bool is_index)
{
        struct index *x = o->x, signed_ = {.base = x->base};
        struct opening s = {.a = o->a, .x = &signed_, .ret_err = o->ret_err};
        int r = 0;
        if (o->q->unchecked)
                return 0;
        struct yaml_node *tree = NULL;
        if (!is_index && document.p && (r = read_document(&s, document, OCI_DOCUMENT, &tree)))
                return r;
        char *real = x->kind == INDEX_URL || x->kind == INDEX_BUNDLE ? NULL : realpath(x->base, NULL);
        struct seal_ask q = {.where = x->base, .place = x->kind == INDEX_URL ? x->base : real, .document = document, .signature = signature,
                             .root = is_index ? root : tree, .allow_old = o->q->allow_old};
        r = seal_check(&q, o->a, &x->seal, o->ret_err);
        free(real);
        return r || is_index || !x->seal.signed_by ? r : all_vouched(o, &signed_);
}

/* A file that may be missing: STR_NULL then. */
static int read_beside(struct opening *o, const char *path, uint64_t max, struct str *ret)
{
        *ret = STR_NULL;
        int r = trust_read_file(o->a, path, max, ret);
        if (r == 0 || r == -ENOENT)
                return 0;
        return fail(o, r, arena_printf(o->a, "%s: %s", path, strerror(-r)));
}

int index_write(struct buf *to, const struct index_entry *v, size_t n, const struct index_seal *seal)
{
        struct json_writer w;
        json_write_init(&w, to);
        json_object_begin(&w);
        if (seal) {
                json_kv(&w, "name", str_of(seal->name));
                json_kv(&w, "issued", str_of(seal->issued));
                json_kv_nonempty(&w, "expires", str_of(seal->expires));
        }
        json_key(&w, STR("plugins"));
        json_array_begin(&w);
        for (size_t i = 0; i < n; i++) {
                const struct { const char *key, *value; } rows[] = {{"name", v[i].name}, {"version", v[i].version}, {"platform", v[i].platform},
                        {"types", v[i].types}, {"title", v[i].title}, {"description", v[i].description}, {"file", v[i].file},
                        {"digest", v[i].digest}};
                buf_addz(to, i ? "" : "\n");
                json_object_begin(&w);
                for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
                        json_kv(&w, rows[k].key, str_of(rows[k].value ? rows[k].value : ""));
                json_key(&w, STR("size"));
                json_uint(&w, v[i].size);
                json_object_end(&w);
                buf_addc(to, '\n');
        }
        json_array_end(&w);
        json_object_end(&w);
        buf_addc(to, '\n');
        return to->failed ? -ENOMEM : 0;
}

/* ---- bundles ---- */

static int read_bundle(struct opening *o)
{
        struct tar_reader t;
        struct tar_entry e;
        struct map files = {0};
        struct str document = STR_NULL;
        int r;
        tar_read_init(&t, str_n(o->x->map, o->x->map_n), o->a);
        while ((r = tar_read_next(&t, &e)) == 1) {
                struct str *data = arena_new(o->a, struct str);
                if (!data)
                        break;
                *data = e.data;
                if (strcmp(e.name, BUNDLE_FILE) == 0)
                        document = e.data;
                map_set(&files, str_of(e.name), data);
        }
        r = r ? fail(o, -EINVAL, t.error ? t.error : "out of memory") : 0;
        if (r == 0 && !document.p)
                r = fail(o, -EINVAL, "this is neither a package nor a bundle of packages");
        if (r == 0)
                r = read_document(o, document, BUNDLE_FILE, NULL);
        for (size_t i = 0; r == 0 && i < o->x->n; i++) {
                struct str *data = map_get(&files, str_of(o->x->v[i].file));
                if (data)
                        o->x->v[i].data = *data;
                else
                        r = fail(o, -EINVAL, arena_printf(o->a, "the bundle lacks %s", o->x->v[i].file));
        }
        struct str *sealed = map_get(&files, STR(INDEX_FILE)), *signature = map_get(&files, STR(INDEX_FILE SEAL_SUFFIX));
        if (r == 0)
                r = check_seal(o, sealed ? *sealed : STR_NULL, signature ? *signature : STR_NULL, NULL, false);
        tar_read_fini(&t);
        map_fini(&files);
        return r;
}

static int open_bundle(struct opening *o)
{
        struct stat st;
        int fd = open(o->x->base, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return fail(o, -errno, strerror(errno));
        void *map = fstat(fd, &st) == 0 && st.st_size > 0 ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
        close(fd);
        if (map == MAP_FAILED)
                return fail(o, -EINVAL, "it cannot be read");
        o->x->map = map;
        o->x->map_n = (size_t)st.st_size;
        return read_bundle(o);
}

/* ---- OCI image layouts ---- */

static const char *blob_path(struct opening *o, const char *digest)
{
        struct str d = str_of(digest);
        if (!str_has_prefix(d, STR("sha256:")) || d.n != 7 + DIGEST_HEX || strspn(digest + 7, "0123456789abcdef") != DIGEST_HEX)
                return NULL;
        return arena_printf(o->a, "%s/blobs/sha256/%s", o->x->base, digest + 7);
}

/* A blob whose bytes are what its name says. */
static int read_blob(struct opening *o, const struct yaml_node *descriptor, uint64_t max, struct str *ret, const char **ret_path)
{
        char hex[DIGEST_HEX + 1];
        const char *digest = plugin_text(o->a, descriptor, "digest"), *path = blob_path(o, digest);
        int r = path ? trust_read_file(o->a, path, max, ret) : -EINVAL;
        if (r)
                return fail(o, r, arena_printf(o->a, "the blob '%s' %s", digest, path ? strerror(-r) : "has no sha256 digest"));
        digest_sha256(*ret, hex);
        *ret_path = path;
        return strcmp(hex, digest + 7) == 0 ? 0 : fail(o, -EBADMSG, arena_printf(o->a, "the blob %s is damaged: its digest differs", digest));
}

static int read_manifest(struct opening *o, const struct yaml_node *descriptor);

/* One level of an image index: its manifests are read like those of the layout. */
static int read_manifests(struct opening *o, const struct yaml_node *list, bool nested)
{
        int r = 0;
        for (const struct yaml_item *i = list ? list->items : NULL; r == 0 && i; i = i->next) {
                struct str text;
                const char *path;
                struct yaml_node *root;
                bool is_index = strstr(plugin_text(o->a, i->value, "mediaType"), ".index") != NULL;
                if (!is_index)
                        r = read_manifest(o, i->value);
                else if (nested)
                        r = fail(o, -EINVAL, "image indexes stand in each other");
                else if ((r = read_blob(o, i->value, OCI_BLOB_TEXT_MAX, &text, &path)) == 0 && (r = read_tree(o, text, "an image index", &root)) == 0)
                        r = read_manifests(o, list_of(root, "manifests"), true);
        }
        return r;
}

static int read_manifest(struct opening *o, const struct yaml_node *descriptor)
{
        struct str text;
        const char *path;
        struct yaml_node *root = NULL;
        int r = read_blob(o, descriptor, OCI_BLOB_TEXT_MAX, &text, &path);
        if (r == 0)
                r = read_tree(o, text, "an image manifest", &root);
        const struct yaml_node *layers = r == 0 ? list_of(root, "layers") : NULL;
        if (r || !layers || layers->n != 1)
                return r; /* an image of another kind */
        struct package *p;
        struct index_entry *e;
        const char *digest = plugin_text(o->a, layers->items->value, "digest"), *ignored;
        path = blob_path(o, digest);
        if (!path || package_open(path, &p, o->a, &ignored))
                return 0;
        if ((e = add(o))) {
                index_entry_of(p, path, p->map_n, e);
                const char **texts[] = {&e->name, &e->version, &e->platform, &e->types, &e->title, &e->description, &e->digest};
                for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
                        *texts[i] = arena_strdup(o->a, str_of(*texts[i]));
        }
        package_free(p);
        return e ? 0 : -ENOMEM;
}

static int open_oci(struct opening *o)
{
        struct str text;
        struct yaml_node *root;
        int r = trust_read_file(o->a, path_join(o->a, o->x->base, INDEX_FILE), INDEX_MAX_BYTES, &text);
        if (r)
                return fail(o, r, "the image layout has no index.json");
        r = read_tree(o, text, INDEX_FILE, &root);
        if (r == 0)
                r = read_manifests(o, list_of(root, "manifests"), false);
        if (r == 0 && o->x->n == 0)
                r = fail(o, -ENOENT, "the image layout holds no package of a plugin");
        struct str document, signature;
        if (r == 0)
                r = read_beside(o, path_join(o->a, o->x->base, OCI_DOCUMENT), INDEX_MAX_BYTES, &document);
        if (r == 0)
                r = read_beside(o, path_join(o->a, o->x->base, OCI_DOCUMENT SEAL_SUFFIX), MINISIGN_FILE_MAX, &signature);
        return r ? r : check_seal(o, document, signature, NULL, false);
}

/* ---- opening ---- */

static bool is_folder(const char *path)
{
        struct stat st;
        return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool index_is_source(const char *where)
{
        struct arena a;
        arena_init(&a, 0);
        bool is = strncmp(where, "oci:", 4) == 0 || (is_folder(where) && path_exists(path_join(&a, where, INDEX_FILE)));
        arena_fini(&a);
        return is;
}

static int open_url(struct opening *o, const char *where)
{
        struct str text;
        bool is_document = str_has_suffix(str_of(where), STR(".json"));
        o->x->base = is_document ? where : arena_printf(o->a, "%s%s" INDEX_FILE, where, where[strlen(where) - 1] == '/' ? "" : "/");
        int r = fetch_text(o->a, o->x->base, o->x->ca_file, INDEX_MAX_BYTES, &text, o->ret_err);
        struct str signature = STR_NULL;
        struct yaml_node *root;
        if (r)
                return r;
        r = fetch_text(o->a, arena_printf(o->a, "%s" SEAL_SUFFIX, o->x->base), o->x->ca_file, MINISIGN_FILE_MAX, &signature, o->ret_err);
        if (r == 0 || r == -ENOENT)
                r = read_document(o, text, INDEX_FILE, &root);
        return r ? r : check_seal(o, text, signature, root, true);
}

static int open_folder(struct opening *o, const char *file)
{
        struct str text;
        int r = trust_read_file(o->a, file, INDEX_MAX_BYTES, &text);
        if (r)
                return fail(o, r, arena_printf(o->a, "%s: %s", INDEX_FILE, strerror(-r)));
        struct str signature;
        struct yaml_node *root;
        r = read_beside(o, arena_printf(o->a, "%s" SEAL_SUFFIX, file), MINISIGN_FILE_MAX, &signature);
        if (r == 0)
                r = read_document(o, text, INDEX_FILE, &root);
        return r ? r : check_seal(o, text, signature, root, true);
}

int index_open(struct arena *a, const struct index_ask *q, struct index *ret, const char **ret_err)
{
        const char *where = q->where;
        bool oci = strncmp(where, "oci:", 4) == 0;
        *ret = (struct index){.base = oci ? where + 4 : where, .ca_file = q->ca_file};
        struct opening o = {.a = a, .x = ret, .q = q, .ret_err = ret_err};
        const char *slash = strrchr(where, '/');
        int r;
        if (fetch_is_url(where)) {
                ret->kind = INDEX_URL;
                r = open_url(&o, where);
        } else if (oci || (is_folder(where) && path_exists(path_join(a, where, "oci-layout")))) {
                ret->kind = INDEX_OCI;
                r = open_oci(&o);
        } else if (is_folder(where)) {
                ret->kind = INDEX_FOLDER;
                r = open_folder(&o, path_join(a, where, INDEX_FILE));
        } else if (str_has_suffix(str_of(where), STR(".json"))) {
                ret->kind = INDEX_FOLDER;
                ret->base = slash ? arena_strdup(a, str_n(where, (size_t)(slash - where))) : ".";
                r = open_folder(&o, where);
        } else {
                ret->kind = INDEX_BUNDLE;
                r = open_bundle(&o);
        }
        if (r)
                index_close(ret);
        return r;
}

void index_close(struct index *x)
{
        if (x->map)
                munmap(x->map, x->map_n);
        x->map = NULL;
}

/* ---- choosing ---- */

static bool has_type(const char *types, const char *type)
{
        for (struct str rest = str_of(types), t; rest.p && (t = str_trim(str_cut(&rest, ',')), 1);)
                if (str_ieq(t, str_of(type)))
                        return true;
        return false;
}

const struct index_entry *index_pick(const struct index *x, const char *name, const char *constraint, struct arena *a, const char **ret_err)
{
        const struct index_entry *best = NULL;
        struct buf others = {0};
        bool platform = false;
        for (size_t i = 0; i < x->n; i++) {
                const struct index_entry *e = &x->v[i];
                if (strcasecmp(e->name, name) != 0 && !has_type(e->types, name))
                        continue;
                bool fits = package_fits(e->platform), in = semver_matches(str_of(e->version), str_of(constraint));
                if (!fits || !in) {
                        buf_printf(&others, "%s%s (%s)", others.len ? ", " : "", e->version, e->platform);
                        platform |= in;
                } else if (!best || semver_compare(str_of(e->version), str_of(best->version)) > 0) {
                        best = e;
                }
        }
        if (!best && others.len)
                *ret_err = arena_printf(a, "%s: of %s there is %.*s, but none %s", x->base, name, STR_FMT(buf_str(&others)),
                                        platform ? arena_printf(a, "for %s", package_platform()) : arena_printf(a, "that %s allows", constraint));
        else if (!best)
                *ret_err = arena_printf(a, "%s has no plugin %s: dapr plugin search shows what it has", x->base, name);
        buf_fini(&others);
        return best;
}

/* ---- getting ---- */

static int get_url(const struct index *x, const struct index_entry *e, const char *temp_root, struct arena *a, struct package **ret,
                   const char **ret_err)
{
        const char *temp, *url = fetch_beside(a, x->base, e->file);
        struct progress bar;
        int fd = store_temp_file(temp_root, a, &temp, ret_err);
        if (fd < 0)
                return fd;
        progress_begin(&bar, arena_printf(a, "%s %s", e->name, e->version), e->size);
        int r = fetch_fd(a, url, x->ca_file, e->size ? e->size : TAR_TOTAL_BYTES_MAX, fd, &bar, ret_err);
        progress_end(&bar);
        close(fd);
        if (r == 0)
                r = package_open_as(temp, url, ret, a, ret_err);
        unlink(temp); /* a mapping stays */
        return r;
}

int index_get(const struct index *x, const struct index_entry *e, const char *temp_root, struct arena *a, struct package **ret,
              const char **ret_err)
{
        int r = -EINVAL;
        switch (x->kind) {
        case INDEX_URL: r = get_url(x, e, temp_root, a, ret, ret_err); break;
        case INDEX_FOLDER:
                *ret_err = arena_printf(a, "%s: '%s' climbs out of the index", x->base, e->file);
                if (!filelist_name_fault(str_of(e->file)))
                        r = package_open(path_join(a, x->base, e->file), ret, a, ret_err);
                break;
        case INDEX_BUNDLE: r = package_parse(e->data, arena_printf(a, "%s in %s", e->file, x->base), ret, a, ret_err); break;
        case INDEX_OCI: r = package_open(e->file, ret, a, ret_err); break;
        }
        if (r)
                return r;
        const struct package *p = *ret;
        if (strcmp(p->name, e->name) == 0 && strcmp(p->version, e->version) == 0 && strcmp(p->platform, e->platform) == 0 &&
            (!*e->digest || strcmp(p->digest, e->digest) == 0))
                return 0;
        *ret_err = arena_printf(a, "%s is not what the index says: it is %s %s for %s, digest %s", p->source, p->name, p->version, p->platform, p->digest);
        package_free(*ret);
        return -EBADMSG;
}
