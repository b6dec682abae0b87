/* `plugin index sign`: gives an index name, time and end, and signs it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/package/index.h"
#include "ctl/package/keys.h"

#define O(f) offsetof(struct plugin_index_sign_opts, f)
static const struct flag_row rows[] = {
        {"key", FLAG_STRING, O(key), "", "FILE", "Secret key to sign with (default: ~/.dapr/keys/plugin.key)", .short_name = 'k'},
        {"password-file", FLAG_STRING, O(password_file), "", "FILE", "File with the key's password (default: it is asked for)"},
        {"name", FLAG_STRING, O(name), "", "NAME", "Name of the index, the same wherever it is mirrored (default: as before, else that of the folder)"},
        {"expires", FLAG_DURATION, O(expires_ns), "2160h", "DURATION", "How long it may be used; 0s = without end"},
        CTL_GLOBAL_ROWS(plugin_index_sign_opts),
};
#undef O
const struct flag_program plugin_index_sign_program = {
        .name = "dapr plugin index sign", .summary = "Sign the index of a folder of packages, or of an image layout",
        .usage = "dapr plugin index sign [DIR] [flags]",
        .examples = "  # After each change of the folder; then copy index.json and index.json.minisig, too\n  dapr plugin index ./public\n"
                    "  dapr plugin index sign ./public --name plugins.example.com\n",
        .rows = rows, .n_rows = sizeof(rows) / sizeof(*rows)};

static int refuse(const char *err)
{
        ui_say(UI_FAILURE, "%s", err ? err : "out of memory");
        return 1;
}

/* What stands there now, for its name and time; NULL = nothing that can be read. */
static const struct yaml_node *last_document(struct arena *a, const char *path)
{
        struct str text;
        struct yaml_node *root = NULL;
        const char *err;
        return trust_read_file(a, path, INDEX_MAX_BYTES, &text) == 0 && yaml_read(a, text, path, 1, 0, &root, &err) == 0 && root && root->kind == YAML_MAP ? root : NULL;
}

static const char *name_of(struct arena *a, const char *given, const struct yaml_node *last, const char *dir)
{
        const struct yaml_node *n = yaml_get(last, "name");
        if (*given)
                return given;
        if (n && n->kind == YAML_SCALAR && n->text.n)
                return arena_strdup(a, n->text);
        char *real = realpath(dir, NULL), *slash = real ? strrchr(real, '/') : NULL;
        const char *name = slash ? arena_strdup(a, str_of(slash + 1)) : "";
        free(real);
        return name;
}

/* The signature first: a reader between both finds a pair that does not fit, and says so, but never a new document without one. */
static int write_both(struct arena *a, const char *path, struct str document, struct str signature)
{
        const char *sig = arena_printf(a, "%s" SEAL_SUFFIX, path), *temp[] = {arena_printf(a, "%s.new", sig), arena_printf(a, "%s.new", path)};
        int r = path_write(temp[0], signature, 0644, true);
        if (r == 0)
                r = path_write(temp[1], document, 0644, true);
        if (r == 0 && (rename(temp[0], sig) != 0 || rename(temp[1], path) != 0))
                r = -errno;
        for (int i = 0; r && i < 2; i++)
                unlink(temp[i]);
        return r ? refuse(arena_printf(a, "%s: %s", path, strerror(-r))) : 0;
}

static int sign(struct arena *a, const struct plugin_index_sign_opts *o, const char *dir, struct index *x)
{
        const char *path = path_join(a, dir, x->kind == INDEX_OCI ? OCI_DOCUMENT : INDEX_FILE);
        const struct yaml_node *last = last_document(a, path);
        const char *name = name_of(a, o->name, last, dir);
        struct index_seal seal;
        struct minisign_secret key;
        struct buf b = {0};
        if (!package_name_ok(name))
                return refuse(arena_printf(a, "\"%s\" cannot be the name of an index: letters, digits, dots, dashes (--name)", name));
        if (o->expires_ns < 0)
                return refuse("--expires is negative: it would have expired already");
        for (size_t i = 0; x->kind == INDEX_OCI && i < x->n; i++) /* blobs are found by the layout */
                x->v[i].file = x->v[i].digest;
        int r = seal_next(last, name, o->expires_ns / 1000000000, a, &seal) || index_write(&b, x->v, x->n, &seal) ? refuse(NULL) : 0;
        r = r || key_load(a, key_path(a, o->key), o->password_file, &key);
        if (r == 0) {
                struct str signature = minisign_sign(a, &key, buf_str(&b), arena_printf(a, "index:%s\tissued:%s", seal.name, seal.issued));
                minisign_wipe(&key);
                r = signature.p ? write_both(a, path, buf_str(&b), signature) : refuse(NULL);
        }
        if (r == 0)
                ui_say(UI_SUCCESS, "Signed %s: index %s of %zu packages, issued %s, %s%s", path, seal.name, x->n, seal.issued,
                       *seal.expires ? "expires " : "without end", seal.expires);
        buf_fini(&b);
        return r;
}

int plugin_index_sign_run(void *opts, int argc, char **argv)
{
        const struct plugin_index_sign_opts *o = opts;
        const char *dir = argc ? argv[0] : ".", *err = NULL;
        struct arena a;
        struct index x;
        arena_init(&a, 0);
        int r = argc > 1 ? refuse("One folder at a time") : index_is_source(dir) ? 0 : refuse(arena_printf(&a, "%s holds no index: dapr plugin index %s makes one", dir, dir));
        if (r == 0 && index_open(&a, &(struct index_ask){.where = dir, .ca_file = "", .unchecked = true}, &x, &err))
                r = refuse(err);
        else if (r == 0) {
                r = sign(&a, o, dir, &x);
                index_close(&x);
        }
        arena_fini(&a);
        return r;
}
