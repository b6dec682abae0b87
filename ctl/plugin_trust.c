/* `plugin trust`: whose signatures count here. A key is a file; its name in the store is what messages call its owner. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/package/package_impl.h"

static const struct flag_row rows[] = {
        {"output", FLAG_STRING, offsetof(struct plugin_trust_opts, output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_trust_opts),
};
static const struct flag_row plain_rows[] = {CTL_GLOBAL_ROWS(plugin_trust_opts)};
const struct flag_program plugin_trust_add_program = {
        .name = "dapr plugin trust add", .summary = "Trust a public key: what it has signed may be installed", .usage = "dapr plugin trust add KEY.pub [NAME]",
        .examples = "  dapr plugin trust add ./ada.pub\n\n  # By the line itself\n  dapr plugin trust add RWQ979G4OeYZVZhqJ78KRrD0aMXnCjmU40jfhUswuKHPXsGCpFtLOrH6 ada\n",
        .rows = plain_rows, .n_rows = sizeof(plain_rows) / sizeof(*plain_rows)};
const struct flag_program plugin_trust_list_program = {
        .name = "dapr plugin trust list", .summary = "List the keys that are trusted", .usage = "dapr plugin trust list [flags]",
        .examples = "  dapr plugin trust list\n\n  # For scripts\n  dapr plugin trust list -o json\n",
        .rows = rows, .n_rows = sizeof(rows) / sizeof(*rows)};
const struct flag_program plugin_trust_remove_program = {
        .name = "dapr plugin trust remove", .summary = "Trust a key no more", .usage = "dapr plugin trust remove NAME|KEYID",
        .examples = "  dapr plugin trust remove ada\n",
        .rows = plain_rows, .n_rows = sizeof(plain_rows) / sizeof(*plain_rows)};

static int refuse(const char *err)
{
        ui_say(UI_FAILURE, "%s", err ? err : "out of memory");
        return 1;
}

/* NAME of ".../NAME.pub". */
static const char *base_name(struct arena *a, const char *file)
{
        const char *slash = strrchr(file, '/');
        struct str s = str_of(slash ? slash + 1 : file);
        if (str_has_suffix(s, STR(".pub")))
                s.n -= 4;
        return arena_strdup(a, s);
}

int plugin_trust_add_run(void *opts, int argc, char **argv)
{
        struct arena a;
        struct trust have;
        struct minisign_public key;
        struct str text;
        const char *err = NULL, *name = NULL;
        arena_init(&a, 0);
        const char *dir = trust_dir(&a);
        int r = argc < 1 || argc > 2 ? refuse("Say the key: dapr plugin trust add KEY.pub [NAME]") : dir ? 0 : refuse("HOME is not set: there is no trust store");
        if (r == 0 && !path_exists(argv[0]) && strncmp(argv[0], "RW", 2) == 0)
                text = str_of(argv[0]);
        else if (r == 0 && trust_read_file(&a, argv[0], MINISIGN_FILE_MAX, &text))
                r = refuse(arena_printf(&a, "%s cannot be read", argv[0]));
        if (r == 0 && minisign_read_public(text, &key, &err))
                r = refuse(arena_printf(&a, "%s: %s", argv[0], err));
        if (r == 0) {
                name = argc == 2 ? argv[1] : text.p == argv[0] ? minisign_id_text(&a, key.id) : base_name(&a, argv[0]);
                if (!package_name_ok(name))
                        r = refuse(arena_printf(&a, "\"%s\" cannot be the key's name: letters, digits, dots, dashes", name));
        }
        package_trust_load(&a, &have);
        for (size_t i = 0; r == 0 && i < have.n; i++)
                if (memcmp(have.v[i].key.id, key.id, sizeof key.id) == 0) {
                        ui_say(UI_SUCCESS, "The key %s is trusted already, as %s", minisign_id_text(&a, key.id), have.v[i].name);
                        arena_fini(&a);
                        return 0;
                }
        if (r == 0 && (path_mkdirs(dir) || path_write(arena_printf(&a, "%s/%s.pub", dir, name), text, 0644, false)))
                r = refuse(arena_printf(&a, "%s/%s.pub could not be written, or is another key: choose another NAME", dir, name));
        if (r == 0)
                ui_say(UI_SUCCESS, "What the key %s (%s) has signed may be installed", minisign_id_text(&a, key.id), name);
        arena_fini(&a);
        return r;
}

int plugin_trust_list_run(void *opts, int argc, char **argv)
{
        static const char *const header[] = {"NAME", "KEY", "FILE"};
        struct plugin_trust_opts *o = opts;
        struct arena a;
        struct trust t;
        struct table table;
        struct buf b = {0};
        struct json_writer w;
        if (!ui_output_ok(o->output, false))
                return 1;
        arena_init(&a, 0);
        package_trust_load(&a, &t);
        table_init(&table, header, 3);
        json_write_init(&w, &b);
        json_array_begin(&w);
        for (size_t i = 0; i < t.n; i++) {
                const char *cells[] = {t.v[i].name, minisign_id_text(&a, t.v[i].key.id), t.v[i].file};
                table_add(&table, cells);
                json_object_begin(&w);
                json_kv(&w, "name", str_of(cells[0]));
                json_kv(&w, "key", str_of(cells[1]));
                json_kv(&w, "file", str_of(cells[2]));
                json_object_end(&w);
        }
        json_array_end(&w);
        if (ui_is_json(o->output))
                ui_print_json(&b);
        else if (t.n)
                table_print(&table, stdout);
        else
                ui_say(UI_INFO, "No key is trusted: only --allow-unsigned installs packages. dapr plugin trust add KEY.pub");
        table_fini(&table);
        buf_fini(&b);
        arena_fini(&a);
        return 0;
}

int plugin_trust_remove_run(void *opts, int argc, char **argv)
{
        struct arena a;
        struct trust t;
        arena_init(&a, 0);
        package_trust_load(&a, &t);
        int r = argc == 1 ? 0 : refuse("Say which key: dapr plugin trust remove NAME|KEYID");
        bool hit = false;
        for (size_t i = 0; r == 0 && i < t.n; i++) {
                if (strcmp(t.v[i].name, argv[0]) != 0 && strcasecmp(minisign_id_text(&a, t.v[i].key.id), argv[0]) != 0)
                        continue;
                hit = true;
                if (unlink(t.v[i].file) != 0)
                        r = refuse(arena_printf(&a, "%s: %s", t.v[i].file, strerror(errno)));
                else
                        ui_say(UI_SUCCESS, "The key %s is trusted no more; what it signed and is installed stays", t.v[i].name);
        }
        if (r == 0 && !hit)
                r = refuse(arena_printf(&a, "No key %s is trusted (dapr plugin trust list)", argv[0]));
        arena_fini(&a);
        return r;
}
