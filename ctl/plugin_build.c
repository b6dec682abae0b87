/* `plugin build`, `sign`, `keygen`, `verify`: from a folder to a signed package, and back to what is known about one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/compile.h"
#include "ctl/package/keys.h"
#include "ctl/package/package_impl.h"
#include "ctl/package/store.h"

static const char key_help[] = "Secret key (default: ~/.dapr/keys/plugin.key)";
static const char password_help[] = "File with the key's password; without it the terminal is asked";

static int refuse(const char *err)
{
        ui_say(UI_FAILURE, "%s", err ? err : "out of memory");
        return 1;
}

/* ---- build ---- */

#define O(f) offsetof(struct plugin_build_opts, f)
static const struct flag_row build_rows[] = {
        {"out", FLAG_STRING, O(out), "", "FILE", "Package to write (default: NAME-VERSION-PLATFORM.tar here)"},
        {"key", FLAG_STRING, O(key), "", "FILE", "Sign it with this secret key"},
        {"password-file", FLAG_STRING, O(password_file), "", "FILE", password_help},
        {"no-make", FLAG_BOOL, O(no_make), "false", NULL, "Pack what is there, without building it first"},
        CTL_GLOBAL_ROWS(plugin_build_opts),
};
#undef O
const struct flag_program plugin_build_program = {
        .name = "dapr plugin build", .summary = "Build a plugin and pack it into one file", .usage = "dapr plugin build [DIR] [flags]",
        .examples = "  # The folder that dapr plugin new wrote\n  dapr plugin build mystore\n\n  # And sign it\n  dapr plugin build mystore --key ~/.dapr/keys/plugin.key\n",
        .rows = build_rows, .n_rows = sizeof(build_rows) / sizeof(*build_rows)};

static int write_package(const struct package *p, const char *out, struct arena *a)
{
        struct buf b = {0};
        const char *temp = arena_printf(a, "%s.%d", out, (int)getpid());
        int r = temp ? package_write(p, &b) : -ENOMEM;
        if (r == -ENAMETOOLONG)
                refuse("A file's name is too long for a package: 255 bytes, the last part 100");
        if (r == 0)
                r = path_write(temp, buf_str(&b), 0644, true);
        if (r == 0 && rename(temp, out) != 0) {
                r = -errno;
                unlink(temp);
        }
        if (r && r != -ENAMETOOLONG)
                ui_say(UI_FAILURE, "Could not write %s: %s", out, strerror(-r));
        buf_fini(&b);
        return r ? 1 : 0;
}

static int sign_with(struct package *p, const char *key, const char *password_file, struct arena *a)
{
        struct minisign_secret secret;
        if (key_load(a, key, password_file, &secret))
                return 1;
        int r = package_sign(p, &secret);
        minisign_wipe(&secret);
        return r ? refuse(NULL) : 0;
}

int plugin_build_run(void *opts, int argc, char **argv)
{
        struct plugin_build_opts *o = opts;
        struct package *p = NULL;
        struct arena a;
        arena_init(&a, 0);
        const char *built, *err = NULL;
        int r = argc > 1 ? refuse("One folder at a time: dapr plugin build DIR") : compile_plugin(&a, argc ? argv[0] : ".", !o->no_make, &built);
        if (r == 0 && package_from_folder(built, &p, &a, &err))
                r = refuse(err);
        if (r == 0 && *o->key)
                r = sign_with(p, o->key, o->password_file, &a);
        if (r == 0) {
                const char *out = *o->out ? o->out : package_file_name(p, &a);
                r = write_package(p, out, &a);
                if (r == 0)
                        ui_say(UI_SUCCESS, "Packed %s %s for %s into %s (%zu files, %s, digest %s)", p->name, p->version, p->platform, out, p->n_files,
                               p->signature.p ? "signed" : "not signed", p->digest);
        }
        package_free(p);
        arena_fini(&a);
        return r;
}

/* ---- keygen ---- */

#define O(f) offsetof(struct plugin_keygen_opts, f)
static const struct flag_row keygen_rows[] = {
        {"key", FLAG_STRING, O(key), "", "FILE", key_help},
        {"password-file", FLAG_STRING, O(password_file), "", "FILE", "File with the password to lock it with; without it the terminal is asked"},
        {"no-password", FLAG_BOOL, O(no_password), "false", NULL, "Do not lock it: for machines"},
        {"force", FLAG_BOOL, O(force), "false", NULL, "Overwrite a key that is there"},
        CTL_GLOBAL_ROWS(plugin_keygen_opts),
};
#undef O
const struct flag_program plugin_keygen_program = {
        .name = "dapr plugin keygen", .summary = "Make a key pair to sign packages with", .usage = "dapr plugin keygen [flags]",
        .examples = "  dapr plugin keygen\n\n  # What others need of you\n  cat ~/.dapr/keys/plugin.pub\n",
        .rows = keygen_rows, .n_rows = sizeof(keygen_rows) / sizeof(*keygen_rows)};

static const char *public_path(struct arena *a, const char *secret)
{
        struct str s = str_of(secret);
        if (str_has_suffix(s, STR(".key")))
                s.n -= 4;
        return arena_printf(a, "%.*s.pub", STR_FMT(s));
}

static int write_key(const char *path, struct str text, int mode, bool force)
{
        int r = path_write(path, text, mode, force);
        if (r == -EEXIST)
                ui_say(UI_FAILURE, "%s is there already: packages signed with it would be signed by nobody; say --force to overwrite it", path);
        else if (r)
                ui_say(UI_FAILURE, "Could not write %s: %s", path, strerror(-r));
        return r ? 1 : 0;
}

static int new_password(struct arena *a, const struct plugin_keygen_opts *o, struct str *ret)
{
        *ret = STR_NULL;
        if (o->no_password)
                return 0;
        *ret = key_password(a, o->password_file, "Password for the new secret key");
        if (!ret->p)
                return 1;
        if (*o->password_file)
                return 0;
        struct str again = key_password(a, "", "The same again");
        return again.p && str_eq(*ret, again) ? 0 : refuse("The passwords differ");
}

int plugin_keygen_run(void *opts, int argc, char **argv)
{
        struct plugin_keygen_opts *o = opts;
        struct arena a;
        struct str public, secret, password;
        arena_init(&a, 0);
        const char *path = key_path(&a, o->key), *slash = path ? strrchr(path, '/') : NULL;
        int r = argc ? refuse("dapr plugin keygen takes no arguments: say --key FILE") : path ? 0 : refuse("HOME is not set: say --key FILE");
        if (r == 0 && !o->force && path_exists(path))
                r = write_key(path, STR(""), 0600, false);
        if (r == 0)
                r = new_password(&a, o, &password);
        if (r == 0 && minisign_generate(&a, password, &public, &secret))
                r = refuse("There is not enough memory to lock the key (64 MiB): say --no-password, or use another machine");
        if (r == 0 && slash && slash != path)
                r = path_mkdirs(arena_strdup(&a, str_n(path, (size_t)(slash - path)))) ? refuse("The key's folder could not be made") : 0;
        if (r == 0)
                r = write_key(path, secret, 0600, o->force) || write_key(public_path(&a, path), public, 0644, true);
        if (r == 0) {
                ui_say(UI_SUCCESS, "Wrote the secret key %s and the public key %s", path, public_path(&a, path));
                ui_say(UI_INFO, "Those who install your plugins run: dapr plugin trust add %s", public_path(&a, path));
        }
        arena_fini(&a);
        return r ? 1 : 0;
}

/* ---- sign ---- */

static const struct flag_row sign_rows[] = {
        {"key", FLAG_STRING, offsetof(struct plugin_sign_opts, key), "", "FILE", key_help},
        {"password-file", FLAG_STRING, offsetof(struct plugin_sign_opts, password_file), "", "FILE", password_help},
        CTL_GLOBAL_ROWS(plugin_sign_opts),
};
const struct flag_program plugin_sign_program = {
        .name = "dapr plugin sign", .summary = "Sign packages", .usage = "dapr plugin sign PACKAGE... [flags]",
        .examples = "  dapr plugin sign mystore-1.0.0-linux-amd64.tar\n", .rows = sign_rows, .n_rows = sizeof(sign_rows) / sizeof(*sign_rows)};

int plugin_sign_run(void *opts, int argc, char **argv)
{
        struct plugin_sign_opts *o = opts;
        struct arena a;
        struct minisign_secret secret;
        arena_init(&a, 0);
        int r = argc ? key_load(&a, key_path(&a, o->key), o->password_file, &secret) : refuse("Say which package to sign");
        bool loaded = r == 0;
        for (int i = 0; r == 0 && i < argc; i++) {
                struct package *p = NULL;
                const char *err = NULL;
                if (package_open(argv[i], &p, &a, &err) || package_sign(p, &secret))
                        r = refuse(err);
                else if ((r = write_package(p, argv[i], &a)) == 0)
                        ui_say(UI_SUCCESS, "Signed %s (%s %s) with key %s", argv[i], p->name, p->version, minisign_id_text(&a, secret.id));
                package_free(p);
        }
        if (loaded)
                minisign_wipe(&secret);
        arena_fini(&a);
        return r;
}

/* ---- verify ---- */

#define O(f) offsetof(struct plugin_verify_opts, f)
static const struct flag_row verify_rows[] = {
        {"key", FLAG_STRING, O(key), "", "FILE", "Public key that must have signed it (default: any of the trust store)"},
        {"dir", FLAG_STRING, O(dir), "", "DIR", "Folder of installed plugins (default: ~/.dapr/plugins)", .short_name = 'd'},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or text (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_verify_opts),
};
#undef O
const struct flag_program plugin_verify_program = {
        .exits = "0 when each is unchanged and signed by a key that is trusted; else 1.",
        .name = "dapr plugin verify", .summary = "Check a package, or an installed plugin, against its digests and its signature",
        .usage = "dapr plugin verify PACKAGE|NAME[@VERSION]... [flags]",
        .examples = "  dapr plugin verify mystore-1.0.0-linux-amd64.tar\n\n  # What is installed, file by file\n  dapr plugin verify state.mystore\n\n"
                    "  # minisign can do it too, in an installed plugin's folder\n  minisign -Vm .dapr/files -x .dapr/signature.minisig -p plugin.pub\n",
        .rows = verify_rows, .n_rows = sizeof(verify_rows) / sizeof(*verify_rows)};

struct verdict {
        const char *what, *by, *error;
        struct package *p;
};

static const char *open_named(struct arena *a, const char *root, const char *spec, struct package **ret)
{
        const char *at = strchr(spec, '@'), *name = at ? arena_strdup(a, str_n(spec, (size_t)(at - spec))) : spec, *err = NULL;
        struct store_versions have = {0};
        if (root && name && package_name_ok(name))
                store_versions(a, root, name, &have);
        if (have.n == 0)
                return arena_printf(a, "%s is neither a package's file nor installed in %s", spec, root ? root : "~/.dapr/plugins");
        const char *version = at ? at + 1 : have.v[0];
        return package_installed(arena_printf(a, "%s/%s/%s", root, name, version), ret, a, &err) ? err : NULL;
}

static void verify_one(struct arena *a, const struct trust *t, const char *root, const char *spec, struct verdict *v)
{
        struct stat st;
        const struct trust_key *key = NULL;
        v->what = spec;
        if (stat(spec, &st) != 0)
                v->error = open_named(a, root, spec, &v->p);
        else if (S_ISDIR(st.st_mode) ? package_installed(spec, &v->p, a, &v->error) : package_open(spec, &v->p, a, &v->error))
                v->p = NULL;
        else
                v->error = NULL;
        if (!v->error && package_trust(t, v->p, a, &key, &v->error) == 0)
                v->error = NULL;
        v->by = key ? key->name : "";
}

static void print_verdict(struct arena *a, const struct verdict *v, struct json_writer *w)
{
        if (!w && v->error)
                ui_say(UI_FAILURE, "%s", v->error);
        else if (!w)
                ui_say(UI_SUCCESS, "%s: %s %s for %s, %zu files unchanged, signed by %s (digest %s)", v->what, v->p->name, v->p->version, v->p->platform,
                       v->p->n_files, v->by, v->p->digest);
        if (!w)
                return;
        json_object_begin(w);
        json_kv(w, "package", str_of(v->what));
        json_key(w, STR("ok"));
        json_bool(w, !v->error);
        json_kv_nonempty(w, "error", str_of(v->error));
        if (v->p) {
                json_kv(w, "name", str_of(v->p->name));
                json_kv(w, "version", str_of(v->p->version));
                json_kv(w, "platform", str_of(v->p->platform));
                json_kv(w, "digest", str_of(v->p->digest));
                json_kv_nonempty(w, "signedBy", str_of(v->by));
        }
        json_object_end(w);
}

static int one_key(struct arena *a, const char *file, struct trust *t)
{
        struct str text;
        const char *err = "it cannot be read";
        *t = (struct trust){arena_new(a, struct trust_key), 1};
        if (!t->v || trust_read_file(a, file, MINISIGN_FILE_MAX, &text) || minisign_read_public(text, &t->v->key, &err))
                return refuse(arena_printf(a, "%s: %s", file, err));
        t->v->file = t->v->name = file;
        return 0;
}

int plugin_verify_run(void *opts, int argc, char **argv)
{
        struct plugin_verify_opts *o = opts;
        struct arena a;
        struct trust t;
        struct buf b = {0};
        struct json_writer w, *json = ui_is_json(o->output) ? &w : NULL;
        arena_init(&a, 0);
        int r = !ui_output_ok(o->output, false) ? 1 : argc ? 0 : refuse("Say which package or plugin to verify");
        if (r == 0 && *o->key)
                r = one_key(&a, o->key, &t);
        else if (r == 0)
                package_trust_load(&a, &t);
        json_write_init(&w, &b);
        if (json)
                json_array_begin(json);
        int bad = 0;
        for (int i = 0; r == 0 && i < argc; i++) {
                struct verdict v = {0};
                verify_one(&a, &t, store_root(&a, o->dir), argv[i], &v);
                print_verdict(&a, &v, json);
                bad |= v.error != NULL;
                package_free(v.p);
        }
        if (json && r == 0) {
                json_array_end(json);
                ui_print_json(&b);
        }
        buf_fini(&b);
        arena_fini(&a);
        return r || bad;
}
