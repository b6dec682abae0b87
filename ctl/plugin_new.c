/*
 * `plugin new`: writes a complete plugin that builds with one command. The texts below are the plugin in C; those of other languages
 * are the examples of their SDKs. @NAME@, @TYPE@ and @SDK@ are filled in. What is written is meant to be read: it is the shortest store
 * that keeps the contract.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "sdk/base/yaml.h"

static const struct flag_row new_rows[] = {
        {"lang", FLAG_STRING, offsetof(struct plugin_new_opts, lang), "c", "LANG", "Language: c, go, python or js", .short_name = 'l'},
        {"dir", FLAG_STRING, offsetof(struct plugin_new_opts, dir), "", "DIR", "Folder to write (default: the plugin's name)", .short_name = 'd'},
        {"force", FLAG_BOOL, offsetof(struct plugin_new_opts, force), "false", NULL, "Overwrite files that are there already"},
        CTL_GLOBAL_ROWS(plugin_new_opts),
};
const struct flag_program plugin_new_program = {
        .name = "dapr plugin new", .summary = "Write a complete plugin that builds with one command", .usage = "dapr plugin new KIND NAME [flags]",
        .examples = "  # A state store of type state.mystore\n  dapr plugin new state mystore\n  make -C mystore\n\n"
                    "  # A secret store of type secretstores.vaultlike, in Go\n  dapr plugin new secretstores vaultlike --lang go\n",
        .rows = new_rows, .n_rows = sizeof(new_rows) / sizeof(*new_rows)};

static const char state_c[] =
        "/* @TYPE@: a state store. This one keeps values in memory, in a list; put your backend in its place. */\n"
        "#include <dapr/plugin.h>\n#include <errno.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <time.h>\n\n"
        "struct item {\n        struct item *next;\n        char *key;\n        void *value;\n        size_t n;\n"
        "        unsigned long version; /* the ETag */\n        time_t expires;        /* 0 = never */\n};\n"
        "struct store {\n        struct item *items;\n        unsigned long last_version;\n};\n\n"
        "static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)\n{\n"
        "        (void)c, (void)md; /* read settings: dapr_md_string(md, \"url\") */\n"
        "        *instance = calloc(1, sizeof(struct store));\n        return *instance ? 0 : -ENOMEM;\n}\n\n"
        "static void drop(struct item **at)\n{\n        struct item *gone = *at;\n        *at = gone->next;\n"
        "        free(gone->key);\n        free(gone->value);\n        free(gone);\n}\n\n"
        "static void shut(void *instance)\n{\n        struct store *s = instance;\n        while (s->items)\n                drop(&s->items);\n        free(s);\n}\n\n"
        "/* Where the key stands, or the end of the list. Expired items go on the way. */\n"
        "static struct item **find(struct store *s, const char *key)\n{\n        struct item **at = &s->items;\n        while (*at) {\n"
        "                if ((*at)->expires && (*at)->expires <= time(NULL))\n                        drop(at);\n"
        "                else if (strcmp((*at)->key, key) == 0)\n                        break;\n"
        "                else\n                        at = &(*at)->next;\n        }\n        return at;\n}\n\n"
        "static int check_etag(struct dapr_call *c, const struct item *have, const char *want, enum dapr_concurrency how)\n{\n"
        "        if (!want || !*want)\n                return have && how == DAPR_FIRST_WRITE ? dapr_fail(c, DAPR_ETAG_MISMATCH, \"the key exists\") : 0;\n"
        "        char *end;\n        unsigned long v = strtoul(want, &end, 10);\n"
        "        if (*end)\n                return dapr_fail(c, DAPR_ETAG_INVALID, \"the ETag %s is not a number\", want);\n"
        "        return have && have->version == v ? 0 : dapr_fail(c, DAPR_ETAG_MISMATCH, \"the ETag %s is not the current one\", want);\n}\n\n"
        "static int get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)\n{\n"
        "        struct item *x = *find(instance, in->key);\n        if (!x)\n                return 0; /* not found is no error */\n"
        "        out->found = true;\n        out->value = dapr_copy(c, x->value, x->n);\n        out->etag = dapr_printf(c, \"%lu\", x->version);\n"
        "        return out->etag ? 0 : -ENOMEM;\n}\n\n"
        "static int set(struct dapr_call *c, void *instance, const struct dapr_set *in)\n{\n        struct store *s = instance;\n"
        "        struct item **at = find(s, in->key), *x = *at;\n        int r = check_etag(c, x, in->etag, in->concurrency);\n        if (r)\n                return r;\n"
        "        void *value = malloc(in->value.n + 1);\n        if (!value)\n                return -ENOMEM;\n"
        "        if (in->value.n)\n                memcpy(value, in->value.p, in->value.n);\n"
        "        if (!x) {\n                x = calloc(1, sizeof(*x));\n                if (!x || !(x->key = strdup(in->key))) {\n"
        "                        free(x);\n                        free(value);\n                        return -ENOMEM;\n                }\n"
        "                *at = x;\n        }\n        free(x->value);\n        x->value = value;\n        x->n = in->value.n;\n"
        "        x->version = ++s->last_version;\n        if (in->ttl_s)\n                x->expires = in->ttl_s > 0 ? time(NULL) + in->ttl_s : 0;\n"
        "        return 0;\n}\n\n"
        "static int del(struct dapr_call *c, void *instance, const struct dapr_delete *in)\n{\n        struct item **at = find(instance, in->key);\n"
        "        int r = in->etag && *in->etag ? check_etag(c, *at, in->etag, in->concurrency) : 0;\n"
        "        if (!r && *at)\n                drop(at);\n        return r;\n}\n\n"
        "static const struct dapr_state_ops ops = {\n        .mode = DAPR_INLINE, /* DAPR_WORKER when your client library blocks */\n"
        "        .features = DAPR_FEATURE_ETAG | DAPR_FEATURE_TTL,\n        .init = init,\n        .close = shut,\n        .get = get,\n        .set = set,\n        .del = del,\n};\n"
        "static const struct dapr_component_type types[] = {{.type = \"@TYPE@\", .versions = \"v1\", .state = &ops}};\n"
        "static const struct dapr_plugin plugin = {.name = \"@TYPE@\", .version = \"0.1.0\", .types = types, .n_types = 1};\n\n"
        "int main(int argc, char **argv)\n{\n        return dapr_plugin_main(argc, argv, &plugin);\n}\n";

static const char secrets_c[] =
        "/* @TYPE@: a secret store. This one holds one fixed secret; put your backend in its place. */\n"
        "#include <dapr/plugin.h>\n#include <errno.h>\n#include <string.h>\n\n"
        "static const struct dapr_kv hello = {\"hello\", \"world\"};\n\n"
        "static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)\n{\n"
        "        (void)c, (void)md; /* read settings: dapr_md_string(md, \"url\") */\n        *instance = (void *)&hello;\n        return 0;\n}\n\n"
        "static int get(struct dapr_call *c, void *instance, const char *name, struct dapr_kvs metadata, struct dapr_kvs *out)\n{\n"
        "        (void)instance, (void)metadata;\n        if (strcmp(name, hello.key) != 0)\n"
        "                return dapr_fail(c, DAPR_NOT_FOUND, \"there is no secret %s\", name);\n"
        "        *out = (struct dapr_kvs){&hello, 1};\n        return 0;\n}\n\n"
        "static int bulk_get(struct dapr_call *c, void *instance, struct dapr_kvs metadata, struct dapr_secrets *out)\n{\n"
        "        (void)instance, (void)metadata;\n        struct dapr_secret *one = dapr_alloc(c, sizeof(*one));\n        if (!one)\n                return -ENOMEM;\n"
        "        *one = (struct dapr_secret){hello.key, {&hello, 1}};\n        *out = (struct dapr_secrets){one, 1};\n        return 0;\n}\n\n"
        "static const struct dapr_secret_ops ops = {.mode = DAPR_INLINE, .init = init, .get = get, .bulk_get = bulk_get};\n"
        "static const struct dapr_component_type types[] = {{.type = \"@TYPE@\", .versions = \"v1\", .secrets = &ops}};\n"
        "static const struct dapr_plugin plugin = {.name = \"@TYPE@\", .version = \"0.1.0\", .types = types, .n_types = 1};\n\n"
        "int main(int argc, char **argv)\n{\n        return dapr_plugin_main(argc, argv, &plugin);\n}\n";

static const char manifest[] =
        "# What the runtime must know before it starts this plugin.\n"
        "name: @TYPE@\nversion: 0.1.0\nexecutable: @PROGRAM@\ncontract: [1]\ntypes:\n  - type: @TYPE@\n    versions: [v1]\n"
        "title: @NAME@\ndescription: Written by dapr plugin new.\n@ENVIRONMENT@"
        "# Settings of the component's YAML, checked before the plugin starts. An example:\n"
        "#   - name: url\n#     type: string\n#     required: true\n#     description: Where the server is.\n"
        "metadata: []\nshare: false\n"
        "# What its process needs beyond its socket: files, ports, environment. {}: nothing, and nothing is granted.\n@SANDBOX@";
/* `#!/usr/bin/env` needs to know where programs are: a plugin's environment is empty otherwise. */
static const char script_environment[] = "environment: [PATH, HOME]\n";
static const char closed[] = "sandbox: {}\n", open_[] = "# sandbox: {}\n"; /* an interpreter reads more than a grant would list */

#define MAKE_HEAD "# make: builds @TYPE@/@PROGRAM@ with its manifest beside it. Use it with DAPR_PLUGINS_PATH=$(CURDIR).\nSDK ?= @SDK@\n"
#define MAKE_TAIL "\tcp plugin.yaml @TYPE@/plugin.yaml\n\nclean:\n\trm -rf @TYPE@\n.PHONY: clean\n"
static const char makefile_c[] =
        MAKE_HEAD "CFLAGS ?= -O2 -g -Wall -Wextra\n\n@TYPE@/@PROGRAM@: main.c plugin.yaml\n\tmkdir -p @TYPE@\n"
        "\t$(CC) -std=gnu17 $(CFLAGS) -I$(SDK)/include -o $@ main.c $(SDK)/lib/libdapr-plugin.a -lm -lpthread\n" MAKE_TAIL;
static const char makefile_go[] =
        MAKE_HEAD "\n@TYPE@/@PROGRAM@: main.go go.mod plugin.yaml\n\tmkdir -p @TYPE@\n"
        "\tgo mod edit -replace microdapr.io/plugin=$(SDK)/share/dapr/sdk/go\n"
        "\tCGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o $@ .\n" MAKE_TAIL;
static const char makefile_python[] =
        MAKE_HEAD "\n@TYPE@/@PROGRAM@: main.py plugin.yaml\n\tmkdir -p @TYPE@/lib\n"
        "\tcp -r $(SDK)/share/dapr/sdk/python/dapr_plugin @TYPE@/lib/\n"
        "\tpython3 -m pip install -q --disable-pip-version-check --upgrade --target @TYPE@/lib h2\n"
        "\tinstall -m 755 main.py $@\n" MAKE_TAIL;
static const char makefile_js[] =
        MAKE_HEAD "\n@TYPE@/@PROGRAM@: main.js plugin.yaml\n\tmkdir -p @TYPE@/node_modules\n"
        "\tcp -rT $(SDK)/share/dapr/sdk/js @TYPE@/node_modules/microdapr-plugin\n"
        "\tinstall -m 755 main.js $@\n" MAKE_TAIL;

static const char go_mod[] = "module @TYPE@\n\ngo 1.24\n\nrequire microdapr.io/plugin v0.0.0\n\nreplace microdapr.io/plugin => @SDK@/share/dapr/sdk/go\n";
/* In front of a Python program: its packages stand in lib/ beside it. */
static const char python_path[] = "import os\nimport sys\n\nsys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), \"lib\"))\n";

static const char readme[] =
        "# @TYPE@\n\nA Dapr component as its own process.\n\n```sh\nmake                                  # builds @TYPE@/@PROGRAM@\n"
        "export DAPR_PLUGINS_PATH=$PWD         # where daprd looks first\ndapr run --app-id demo --resources-path ./resources\n```\n\n"
        "`@SOURCE@` is the store: put your backend into its operations. `plugin.yaml` declares the settings that a component of this type takes.\n"
        "`resources/@NAME@.yaml` is such a component. `dapr plugin dev .` builds and swaps it into a running sidecar at each change,\n"
        "`dapr plugin conformance .` checks it, `dapr plugin build .` packs it.\n";

static const char component[] =
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: @NAME@\nspec:\n  type: @TYPE@\n  version: v1\n  metadata: []\n";

/* A row a language. example: of the SDK, below share/dapr/sdk, with the kind for %s; type: what the example calls itself behind the kind. */
struct language {
        const char *name, *source, *program, *makefile, *environment, *example, *type, *sandbox;
};
static const struct language languages[] = {
        {"c", "main.c", NULL, makefile_c, "", NULL, NULL, closed},
        {"go", "main.go", NULL, makefile_go, "", "go/examples/%s/main.go", "gostore", closed},
        {"python", "main.py", "main.py", makefile_python, script_environment, "python/examples/%s.py", "pystore", open_},
        {"js", "main.js", "main.js", makefile_js, script_environment, "js/examples/%s.js", "jsstore", open_},
};

struct subst {
        const char *name, *type, *sdk, *program, *source, *environment, *example, *sandbox;
};

static int write_filled(struct arena *a, const char *dir, const char *file, const char *text, const struct subst *s, bool force)
{
        const struct { const char *mark, *value; } marks[] = {{"@NAME@", s->name}, {"@TYPE@", s->type}, {"@SDK@", s->sdk},
                {"@PROGRAM@", s->program}, {"@SOURCE@", s->source}, {"@ENVIRONMENT@", s->environment}, {"@SANDBOX@", s->sandbox}, {s->example, s->type}};
        struct buf b = {0};
        for (const char *p = text; *p;) {
                bool hit = false;
                for (size_t i = 0; i < sizeof marks / sizeof *marks && !hit; i++)
                        if (marks[i].mark && strncmp(p, marks[i].mark, strlen(marks[i].mark)) == 0) {
                                buf_addz(&b, marks[i].value);
                                p += strlen(marks[i].mark);
                                hit = true;
                        }
                if (!hit)
                        buf_addc(&b, *p++);
        }
        const char *path = path_join(a, dir, file);
        int r = path_write(path, buf_str(&b), 0644, force);
        buf_fini(&b);
        if (r == -EEXIST)
                ui_say(UI_FAILURE, "%s is there already: choose another --dir, or overwrite with --force", path);
        else if (r)
                ui_say(UI_FAILURE, "Could not write %s: %s", path, strerror(-r));
        return r;
}

/* The SDK: include/ and lib/ beside the folder of this program. */
static const char *sdk_dir(struct arena *a)
{
        char *self = realpath("/proc/self/exe", NULL), *slash = self ? strrchr(self, '/') : NULL;
        if (slash)
                *slash = '\0';
        slash = self ? strrchr(self, '/') : NULL;
        const char *dir = slash ? arena_str(a, str_n(self, (size_t)(slash - self))).p : "/usr/local";
        free(self);
        return dir;
}

static bool name_ok(const char *s)
{
        size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789.-");
        return n > 0 && !s[n] && n <= 64 && s[0] != '.' && s[0] != '-';
}

static const struct language *find_language(const char *name)
{
        for (size_t i = 0; i < sizeof languages / sizeof *languages; i++)
                if (strcmp(languages[i].name, name) == 0)
                        return &languages[i];
        return NULL;
}

/* The program's text; NULL after saying that the SDK is not there. */
static const char *source_of(struct arena *a, const struct language *l, const char *kind, const struct subst *s)
{
        struct str text;
        const char *err;
        if (!l->example)
                return strcmp(kind, "state") == 0 ? state_c : secrets_c;
        const char *name = strstr(l->example, "%s"), *path = arena_printf(a, "%s/share/dapr/sdk/%.*s%s%s", s->sdk, (int)(name - l->example),
                                                                          l->example, kind, name + 2);
        if (yaml_read_file(a, path, false, &text, &err)) {
                ui_say(UI_FAILURE, "The SDK for %s is not installed: %s", l->name, err);
                return NULL;
        }
        struct str first = str_of("import dapr_plugin");
        ptrdiff_t at = strcmp(l->name, "python") == 0 ? str_find(text, first) : -1;
        if (at < 0)
                return arena_strdup(a, text);
        ptrdiff_t imports = str_find(text, STR("import "));
        return arena_printf(a, "%.*s%s%.*s", (int)imports, text.p, python_path, (int)(text.n - (size_t)imports), text.p + imports);
}

struct new_file {
        const char *dir, *name, *text;
};

static int write_plugin(struct arena *a, const struct plugin_new_opts *o, const struct language *l, const char *dir, const char *source,
                        const struct subst *s)
{
        const char *resources = path_join(a, dir, "resources");
        const struct new_file files[] = {{dir, l->source, source}, {dir, "plugin.yaml", manifest}, {dir, "Makefile", l->makefile},
                {dir, "README.md", readme}, {resources, arena_printf(a, "%s.yaml", s->name), component},
                {dir, "go.mod", strcmp(l->name, "go") == 0 ? go_mod : NULL}};
        int r = path_mkdirs(resources);
        if (r)
                ui_say(UI_FAILURE, "Could not make the folder %s: %s", resources, strerror(-r));
        for (size_t i = 0; r == 0 && i < sizeof files / sizeof *files; i++)
                if (files[i].text)
                        r = write_filled(a, files[i].dir, files[i].name, files[i].text, s, o->force);
        return r;
}

static int refuse_new(const char *text)
{
        ui_say(UI_FAILURE, "%s", text);
        return 1;
}

int plugin_new_run(void *opts, int argc, char **argv)
{
        struct plugin_new_opts *o = opts;
        const struct language *l = find_language(o->lang);
        struct arena a;
        if (argc != 2 || (strcmp(argv[0], "state") != 0 && strcmp(argv[0], "secretstores") != 0))
                return refuse_new("Say the kind and the name: dapr plugin new state mystore. The kinds are state and secretstores.");
        if (!l)
                return refuse_new("--lang is c, go, python or js");
        if (!name_ok(argv[1])) {
                ui_say(UI_FAILURE, "The name \"%s\" is not usable: write small letters, digits, dots and dashes, 64 at most.", argv[1]);
                return 1;
        }
        arena_init(&a, 0);
        const char *type = arena_printf(&a, "%s.%s", argv[0], argv[1]), *dir = *o->dir ? o->dir : argv[1];
        struct subst s = {argv[1], type, sdk_dir(&a), l->program ? l->program : type, l->source, l->environment,
                          l->type ? arena_printf(&a, "%s.%s", argv[0], l->type) : NULL, l->sandbox};
        const char *source = source_of(&a, l, argv[0], &s);
        int r = source ? write_plugin(&a, o, l, dir, source, &s) : 1;
        if (!r) {
                ui_say(UI_SUCCESS, "Wrote the plugin %s to %s/", s.type, dir);
                if (!l->example && !path_exists(arena_printf(&a, "%s/include/dapr/plugin.h", s.sdk)))
                        ui_say(UI_WARNING, "The plugin SDK is not at %s: build with make SDK=/path/to/it (the folder with include/ and lib/)", s.sdk);
                ui_say(UI_INFO, "Build it: make -C %s", dir);
                ui_say(UI_INFO, "Try it: DAPR_PLUGINS_PATH=%s%s dapr run --app-id demo --resources-path %s/resources", dir[0] == '/' ? "" : "$PWD/", dir, dir);
        }
        arena_fini(&a);
        return r ? 1 : 0;
}
