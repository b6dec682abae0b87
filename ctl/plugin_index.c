/* `plugin search`, `index`, `bundle`, `lock`: what there is, how to offer it, how to carry it, how to pin it. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/package/source.h"
#include "ctl/package/store.h"
#include "ctl/package/tar.h"
#include "sdk/base/semver.h"

static int refuse(const char *err)
{
        ui_say(UI_FAILURE, "%s", err ? err : "out of memory");
        return 1;
}

/* ---- search ---- */

#define O(f) offsetof(struct plugin_search_opts, f)
static const struct flag_row search_rows[] = {
        {"index", FLAG_STRING, O(index), "", "URL|DIR", "Index to search (default: DAPR_PLUGIN_INDEX)"},
        {"allow-old-index", FLAG_BOOL, O(allow_old_index), "false", NULL, "Take a signed index that has expired, or is older than one that was seen"},
        {"ca-file", FLAG_STRING, O(ca_file), "", "FILE", "Trust anchors of the index's server (default: the system's)"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_search_opts),
};
#undef O
const struct flag_program plugin_search_program = {
        .name = "dapr plugin search", .summary = "Show what an index has", .usage = "dapr plugin search [WORD] [flags]",
        .examples = "  dapr plugin search redis --index https://plugins.example.com/\n",
        .rows = search_rows, .n_rows = sizeof(search_rows) / sizeof(*search_rows)};

static bool is_hit(const struct index_entry *e, const char *word)
{
        const char *texts[] = {e->name, e->types, e->title, e->description};
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
                if (texts[i] && strcasestr(texts[i], word))
                        return true;
        return false;
}

static int by_entry(const void *x, const void *y)
{
        const struct index_entry *a = x, *b = y;
        int c = strcmp(a->name, b->name);
        if (c == 0)
                c = -semver_compare(str_of(a->version), str_of(b->version));
        return c ? c : strcmp(a->platform, b->platform);
}

int plugin_search_run(void *opts, int argc, char **argv)
{
        static const char *const header[] = {"NAME", "VERSION", "PLATFORM", "SIZE", "TITLE"};
        struct plugin_search_opts *o = opts;
        struct arena a;
        struct index x;
        struct table t;
        struct buf b = {0};
        const char *env = getenv("DAPR_PLUGIN_INDEX"), *where = *o->index ? o->index : env ? env : "", *err = NULL;
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc > 1 || !*where)
                return refuse(argc > 1 ? "One word at a time: dapr plugin search WORD" : "Say which index: --index URL, or set DAPR_PLUGIN_INDEX");
        arena_init(&a, 0);
        if (index_open(&a, &(struct index_ask){where, o->ca_file, o->allow_old_index, false}, &x, &err)) {
                refuse(err);
                arena_fini(&a);
                return 1;
        }
        if (x.n)
                qsort(x.v, x.n, sizeof *x.v, by_entry);
        table_init(&t, header, 5);
        size_t n = 0;
        for (size_t i = 0; i < x.n; i++) {
                if (argc && !is_hit(&x.v[i], argv[0]))
                        continue;
                const char *cells[] = {x.v[i].name, x.v[i].version, x.v[i].platform, ui_bytes(&a, (int64_t)x.v[i].size), x.v[i].title};
                table_add(&t, cells);
                x.v[n++] = x.v[i];
        }
        if (ui_is_json(o->output) && index_write(&b, x.v, n, x.seal.signed_by ? &x.seal : NULL) == 0)
                printf("%.*s", STR_FMT(buf_str(&b)));
        else if (n)
                table_print(&t, stdout);
        else
                ui_say(UI_INFO, "%s has nothing of that name", x.base);
        table_fini(&t);
        buf_fini(&b);
        index_close(&x);
        arena_fini(&a);
        return 0;
}

/* ---- index ---- */

static const struct flag_row index_rows[] = {CTL_GLOBAL_ROWS(plugin_index_opts)};
const struct flag_program plugin_index_program = {
        .name = "dapr plugin index", .summary = "Write the index of a folder of packages, for any web server", .usage = "dapr plugin index [DIR]",
        .examples = "  # Then serve the folder, or copy it to a bucket\n  dapr plugin index ./public\n",
        .rows = index_rows, .n_rows = sizeof(index_rows) / sizeof(*index_rows)};

struct offered { /* packages and their entries */
        struct arena *a;
        struct index_entry *v;
        struct package **p;
        size_t n, cap;
};

/* Takes the package. */
static int offer(struct offered *o, struct package *p, const char *file, uint64_t size)
{
        if (o->n == o->cap) {
                size_t cap = o->cap ? o->cap * 2 : 16;
                struct index_entry *v = arena_grow(o->a, o->v, o->cap * sizeof *v, cap * sizeof *v);
                struct package **q = arena_grow(o->a, o->p, o->cap * sizeof *q, cap * sizeof *q);
                if (!v || !q) {
                        package_free(p);
                        return refuse(NULL);
                }
                o->v = v;
                o->p = q;
                o->cap = cap;
        }
        index_entry_of(p, file, size, &o->v[o->n]);
        o->p[o->n++] = p;
        return 0;
}

static void offered_free(struct offered *o)
{
        for (size_t i = 0; i < o->n; i++)
                package_free(o->p[i]);
}

static int write_whole(const char *path, const struct buf *b, struct arena *a)
{
        const char *temp = arena_printf(a, "%s.%d", path, (int)getpid());
        int r = temp && !b->failed ? path_write(temp, buf_str(b), 0644, true) : -ENOMEM;
        if (r == 0 && rename(temp, path) != 0)
                r = -errno;
        return r ? refuse(arena_printf(a, "Could not write %s: %s", path, strerror(-r))) : 0;
}

int plugin_index_run(void *opts, int argc, char **argv)
{
        struct arena a;
        struct buf b = {0};
        const char *dir = argc ? argv[0] : ".", *err = NULL;
        arena_init(&a, 0);
        struct offered all = {.a = &a};
        DIR *d = argc > 1 ? NULL : opendir(dir);
        int r = d ? 0 : refuse(arena_printf(&a, "%s: %s", dir, argc > 1 ? "one folder at a time" : strerror(errno)));
        for (struct dirent *e; r == 0 && (e = readdir(d));) {
                struct package *p;
                if (!str_has_suffix(str_of(e->d_name), STR(".tar")) || e->d_name[0] == '.')
                        continue;
                if (package_open(path_join(&a, dir, e->d_name), &p, &a, &err))
                        ui_say(UI_WARNING, "left out: %s", err);
                else
                        r = offer(&all, p, arena_strdup(&a, str_of(e->d_name)), p->map_n);
        }
        if (d)
                closedir(d);
        if (all.n)
                qsort(all.v, all.n, sizeof *all.v, by_entry);
        if (r == 0)
                r = index_write(&b, all.v, all.n, NULL) ? refuse(NULL) : write_whole(path_join(&a, dir, INDEX_FILE), &b, &a);
        if (r == 0)
                ui_say(UI_SUCCESS, "Wrote %s/" INDEX_FILE " with %zu packages", dir, all.n);
        if (r == 0 && unlink(path_join(&a, dir, INDEX_FILE SEAL_SUFFIX)) == 0)
                ui_say(UI_WARNING, "The signature was one of the index before: sign this one with dapr plugin index sign %s", dir);
        buf_fini(&b);
        offered_free(&all);
        arena_fini(&a);
        return r;
}

/* ---- bundle ---- */

static const struct flag_row bundle_rows[] = {
        SOURCE_ROWS(plugin_bundle_opts),
        {"out", FLAG_STRING, offsetof(struct plugin_bundle_opts, out), "", "FILE", "Bundle to write (default: plugins-bundle.tar, with --oci the folder plugins-oci)"},
        {"oci", FLAG_BOOL, offsetof(struct plugin_bundle_opts, oci), "false", NULL, "Write an OCI image layout instead, for oras, skopeo and registries"},
        {"runtime-path", FLAG_STRING, offsetof(struct plugin_bundle_opts, from.globals.runtime_path), "", "DIR", "The path to the dapr runtime installation directory"},
        {"log-as-json", FLAG_BOOL, offsetof(struct plugin_bundle_opts, from.globals.log_as_json), "false", NULL, "Log output in JSON format"},
};
const struct flag_program plugin_bundle_program = {
        .name = "dapr plugin bundle", .summary = "Pack several packages into one file, for machines without a network",
        .usage = "dapr plugin bundle [SOURCE...] [flags]",
        .examples = "  # What plugins.lock pins\n  dapr plugin bundle --index https://plugins.example.com/\n\n  # Over there\n  dapr plugin install ./plugins-bundle.tar\n",
        .rows = bundle_rows, .n_rows = sizeof(bundle_rows) / sizeof(*bundle_rows)};

static int collect(void *arg, struct package *p, bool is_exact)
{
        struct offered *o = arg;
        return offer(o, p, package_file_name(p, o->a), 0);
}

/* The signed index that the packages came from, if it speaks of all of them. */
static const struct index_seal *seal_of(struct offered *all, const struct index_seal *s, struct arena *a)
{
        for (size_t i = 0; s->document.p && i < all->n; i++)
                if (!index_vouches(a, s, &all->v[i])) {
                        ui_say(UI_WARNING, "%s %s did not come from the signed index %s: its signature is not carried on", all->v[i].name, all->v[i].version, s->name);
                        return NULL;
                }
        return s->document.p ? s : NULL;
}

static int write_bundle(struct offered *all, const char *out, const struct index_seal *seal, struct arena *a)
{
        struct buf b = {0}, document = {0}, one = {0};
        int r = 0;
        for (size_t i = 0; r == 0 && i < all->n; i++) { /* sizes first: the document stands before the packages */
                buf_clear(&one);
                r = package_write(all->p[i], &one);
                all->v[i].size = buf_len(&one);
        }
        if (r == 0)
                r = index_write(&document, all->v, all->n, NULL);
        if (r == 0)
                r = tar_add(&b, BUNDLE_FILE, false, buf_str(&document));
        if (r == 0 && seal)
                r = tar_add(&b, INDEX_FILE, false, seal->document);
        if (r == 0 && seal)
                r = tar_add(&b, INDEX_FILE SEAL_SUFFIX, false, seal->signature);
        for (size_t i = 0; r == 0 && i < all->n; i++) {
                buf_clear(&one);
                r = package_write(all->p[i], &one);
                if (r == 0)
                        r = tar_add(&b, all->v[i].file, false, buf_str(&one));
        }
        if (r == 0)
                r = tar_end(&b);
        r = r ? refuse(arena_printf(a, "The bundle could not be made: %s", strerror(-r))) : write_whole(out, &b, a);
        if (r == 0)
                ui_say(UI_SUCCESS, "Wrote %zu packages to %s (%s)", all->n, out, ui_bytes(a, (int64_t)buf_len(&b)));
        buf_fini(&b);
        buf_fini(&one);
        buf_fini(&document);
        return r;
}

/* ---- as an image layout ---- */

#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_EMPTY "application/vnd.oci.empty.v1+json"
#define OCI_ARTIFACT "application/vnd.microdapr.plugin.v1"

static int write_blob(struct arena *a, const char *dir, struct str data, char hex[DIGEST_HEX + 1])
{
        digest_sha256(data, hex);
        return path_write(arena_printf(a, "%s/blobs/sha256/%s", dir, hex), data, 0644, true);
}

static void descriptor(struct json_writer *w, const char *type, const char *hex, size_t size)
{
        char digest[8 + DIGEST_HEX];
        snprintf(digest, sizeof digest, "sha256:%s", hex);
        json_object_begin(w);
        json_kv(w, "mediaType", str_of(type));
        json_kv(w, "digest", str_of(digest));
        json_key(w, STR("size"));
        json_uint(w, size);
}

/* One package: its blob, its manifest, and its row in the index. */
static int write_image(struct arena *a, const char *dir, const struct package *p, struct json_writer *index)
{
        struct buf blob = {0}, manifest = {0};
        struct json_writer w;
        char hex[DIGEST_HEX + 1], config[DIGEST_HEX + 1];
        int r = package_write(p, &blob);
        if (r == 0)
                r = write_blob(a, dir, STR("{}"), config);
        if (r == 0)
                r = write_blob(a, dir, buf_str(&blob), hex);
        json_write_init(&w, &manifest);
        json_object_begin(&w);
        json_key(&w, STR("schemaVersion"));
        json_int(&w, 2);
        json_kv(&w, "mediaType", STR(OCI_MANIFEST));
        json_kv(&w, "artifactType", STR(OCI_ARTIFACT));
        json_key(&w, STR("config"));
        descriptor(&w, OCI_EMPTY, config, 2);
        json_object_end(&w);
        json_key(&w, STR("layers"));
        json_array_begin(&w);
        descriptor(&w, OCI_ARTIFACT ".tar", hex, buf_len(&blob));
        json_object_end(&w);
        json_array_end(&w);
        json_object_end(&w);
        if (r == 0)
                r = manifest.failed ? -ENOMEM : write_blob(a, dir, buf_str(&manifest), hex);
        descriptor(index, OCI_MANIFEST, hex, buf_len(&manifest));
        json_kv(index, "artifactType", STR(OCI_ARTIFACT));
        json_key(index, STR("annotations"));
        json_object_begin(index);
        json_kv(index, "org.opencontainers.image.title", str_of(p->name));
        json_kv(index, "org.opencontainers.image.version", str_of(p->version));
        json_kv(index, "org.opencontainers.image.ref.name", str_of(arena_printf(a, "%s-%s", p->name, p->version)));
        json_object_end(index);
        json_object_end(index);
        buf_fini(&blob);
        buf_fini(&manifest);
        return r;
}

static int write_oci(struct offered *all, const char *dir, const struct index_seal *seal, struct arena *a)
{
        struct buf b = {0};
        struct json_writer w;
        int r = path_mkdirs(arena_printf(a, "%s/blobs/sha256", dir));
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_key(&w, STR("schemaVersion"));
        json_int(&w, 2);
        json_kv(&w, "mediaType", STR("application/vnd.oci.image.index.v1+json"));
        json_key(&w, STR("manifests"));
        json_array_begin(&w);
        for (size_t i = 0; r == 0 && i < all->n; i++)
                r = write_image(a, dir, all->p[i], &w);
        json_array_end(&w);
        json_object_end(&w);
        if (r == 0)
                r = path_write(path_join(a, dir, "oci-layout"), STR("{\"imageLayoutVersion\":\"1.0.0\"}"), 0644, true);
        if (r == 0 && seal)
                r = path_write(path_join(a, dir, OCI_DOCUMENT), seal->document, 0644, true);
        if (r == 0 && seal)
                r = path_write(path_join(a, dir, OCI_DOCUMENT SEAL_SUFFIX), seal->signature, 0644, true);
        r = r ? refuse(arena_printf(a, "%s could not be written: %s", dir, strerror(-r))) : write_whole(path_join(a, dir, INDEX_FILE), &b, a);
        if (r == 0)
                ui_say(UI_SUCCESS, "Wrote %zu packages to the image layout %s", all->n, dir);
        buf_fini(&b);
        return r;
}

int plugin_bundle_run(void *opts, int argc, char **argv)
{
        struct plugin_bundle_opts *o = opts;
        struct arena a;
        struct sources from;
        arena_init(&a, 0);
        struct offered all = {.a = &a};
        int r = sources_init(&from, &a, &o->from, ".");
        if (r == 0 && argc == 0 && from.lock.n == 0)
                r = refuse("Say what to pack: packages' files or plugins' names; without any, plugins.lock says it, and there is none here");
        if (r == 0 && argc == 0)
                r = source_locked(&from, collect, &all);
        for (int i = 0; r == 0 && i < argc; i++)
                r = source_each(&from, argv[i], collect, &all);
        const struct index_seal *seal = r == 0 ? seal_of(&all, &from.seal, &a) : NULL;
        if (r == 0 && o->oci)
                r = write_oci(&all, *o->out ? o->out : "plugins-oci", seal, &a);
        else if (r == 0)
                r = write_bundle(&all, *o->out ? o->out : "plugins-bundle.tar", seal, &a);
        sources_fini(&from);
        offered_free(&all);
        arena_fini(&a);
        return r ? 1 : 0;
}
