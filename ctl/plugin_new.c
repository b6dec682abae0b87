/*
 * `plugin new`: writes a complete plugin that builds with one command. The programs are the examples of the SDKs, a file a kind and
 * language; @NAME@, @TYPE@ and @SDK@ are filled in. What is written is meant to be read: the shortest one that keeps its kind's promises.
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
                    "  # A secret store of type secretstores.vaultlike, in Go\n  dapr plugin new secretstores vaultlike --lang go\n\n"
                    "  # Other kinds: pubsub, bindings, configuration, lock, crypto, conversation, nameresolution, middleware\n"
                    "  dapr plugin new pubsub mybroker --lang python\n",
        .rows = new_rows, .n_rows = sizeof(new_rows) / sizeof(*new_rows)};

static const char manifest[] =
        "# What the runtime must know before it starts this plugin.\n"
        "name: @TYPE@\nversion: 0.1.0\nexecutable: @PROGRAM@\ncontract: [1]\ntypes:\n  - type: @TYPE@\n    versions: [v1]\n"
        "title: @NAME@\ndescription: Written by dapr plugin new.\n@ENVIRONMENT@"
        "# Settings of the component's YAML, checked before the plugin starts. An example:\n"
        "#   - name: url\n#     type: string\n#     required: true\n#     description: Where the server is.\n"
        "@METADATA@share: false\n@VOLATILE@"
        "# What its process needs beyond its socket: files, ports, environment. {}: nothing, and nothing is granted.\n@SANDBOX@";
/* `#!/usr/bin/env` needs to know where programs are: a plugin's environment is empty otherwise. */
static const char script_environment[] = "environment: [PATH, HOME]\n";
/* Which interpreter runs a script is known on the author's machine only. */
static const char open_[] =
        "# Without the key `sandbox`, as here, the process is not confined. `sandbox: {}` confines it: the interpreter that its first line finds is\n"
        "# granted. One that is a script itself (a shim of pyenv or asdf) starts others, which must be granted. Try: dapr plugin conformance . --confined\n"
        "# sandbox:\n#   programs:\n#     - path: /usr/bin\n#       reason: What the shim starts.\n";

static const char volatile_[] = /* of examples that keep what they hold in memory */
        "# What this one holds lives in its process and ends with it: each upgrade, restart or save begins with nothing. Take the line away once it is\n"
        "# kept elsewhere; `dapr plugin conformance` then checks that an old and a new process, which run at the same time, see the same.\nvolatile: true\n";

/* A row a kind: the settings of its example, what that needs of the machine, and whether it keeps what it holds in memory. */
static const struct kind {
        const char *name, *metadata, *sandbox, *in_memory;
} kinds[] = {
        {"state", "metadata: []\n", "sandbox: {}\n", volatile_},
        {"secretstores", "metadata: []\n", "sandbox: {}\n"},
        {"pubsub", "metadata: []\n", "sandbox: {}\n"},
        {"bindings", "metadata: []\n", "sandbox: {}\n"},
        {"configuration", "metadata:\n  - name: file\n    type: string\n    description: Its items, lines KEY=VALUE.\n",
         "sandbox:\n  files:\n    - path: ${file}\n      reason: Its items.\n"},
        {"lock", "metadata: []\n", "sandbox: {}\n", volatile_},
        {"crypto", "metadata: []\n", "sandbox: {}\n"},
        {"conversation", "metadata: []\n", "sandbox: {}\n"},
        {"nameresolution", "metadata: []\n", "sandbox: {}\n"},
        {"middleware", "metadata:\n  - name: key\n    type: string\n    sensitive: true\n    description: What callers must say in the header x-key. Empty means nothing.\n",
         "sandbox: {}\n"},
};

#define MAKE_HEAD "# make: builds @TYPE@/@PROGRAM@ with its manifest beside it. Use it with DAPR_PLUGINS_PATH=$(CURDIR).\nSDK ?= @SDK@\n"
/* One place for the version: plugin.yaml. */
#define MAKE_VERSION "VERSION := $(shell sed -n 's/^version:[ \"]*\\([^ \"]*\\).*/\\1/p' plugin.yaml)\n"
#define MAKE_TAIL "\tcp plugin.yaml @TYPE@/plugin.yaml\n\nclean:\n\trm -rf @TYPE@\n.PHONY: clean\n"
static const char makefile_c[] =
        MAKE_HEAD MAKE_VERSION "CFLAGS ?= -O2 -g -Wall -Wextra\n\n@TYPE@/@PROGRAM@: main.c plugin.yaml\n\tmkdir -p @TYPE@\n"
        "\t$(CC) -std=gnu17 $(CFLAGS) -DPLUGIN_VERSION='\"$(VERSION)\"' -I$(SDK)/include -o $@ main.c $(SDK)/lib/libdapr-plugin.a -lm -lpthread\n" MAKE_TAIL;
static const char makefile_go[] =
        MAKE_HEAD MAKE_VERSION "\n@TYPE@/@PROGRAM@: main.go go.mod plugin.yaml\n\tmkdir -p @TYPE@\n"
        "\tgo mod edit -replace microdapr.io/plugin=$(SDK)/share/dapr/sdk/go\n"
        "\tCGO_ENABLED=0 go build -trimpath -ldflags='-s -w -X main.version=$(VERSION)' -o $@ .\n" MAKE_TAIL;
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
        "`@SOURCE@` is the component: put your backend into its operations. `plugin.yaml` declares the settings that a component of this type takes.\n"
        "`resources/@NAME@.yaml` is such a component. `dapr plugin dev .` builds and swaps it into a running sidecar at each change,\n"
        "`dapr plugin conformance .` checks it, `dapr plugin build .` packs it.\n";

static const char component[] =
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: @NAME@\nspec:\n  type: @TYPE@\n  version: v1\n  metadata: []\n";

/* A row a language. example: of the SDK, below share/dapr/sdk, with the kind for %s; type: what the example calls itself behind the kind;
 * sandbox: instead of the kind's. */
struct language {
        const char *name, *source, *program, *makefile, *environment, *example, *type, *sandbox;
};
static const struct language languages[] = {
        {"c", "main.c", NULL, makefile_c, "", "c/examples/%s.c", "cstore", NULL},
        {"go", "main.go", NULL, makefile_go, "", "go/examples/%s/main.go", "gostore", NULL},
        {"python", "main.py", "main.py", makefile_python, script_environment, "python/examples/%s.py", "pystore", open_},
        {"js", "main.js", "main.js", makefile_js, script_environment, "js/examples/%s.js", "jsstore", open_},
};

struct subst {
        const char *name, *type, *sdk, *program, *source, *environment, *example, *sandbox, *metadata, *in_memory;
};

static int write_filled(struct arena *a, const char *dir, const char *file, const char *text, const struct subst *s, bool force)
{
        const struct { const char *mark, *value; } marks[] = {{"@NAME@", s->name}, {"@TYPE@", s->type}, {"@SDK@", s->sdk},
                {"@PROGRAM@", s->program}, {"@SOURCE@", s->source}, {"@ENVIRONMENT@", s->environment}, {"@SANDBOX@", s->sandbox}, {"@METADATA@", s->metadata},
                {"@VOLATILE@", s->in_memory}, {s->example, s->type}};
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

static const struct kind *find_kind(const char *name)
{
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
                if (strcmp(kinds[i].name, name) == 0)
                        return &kinds[i];
        return NULL;
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
        const struct kind *k = argc == 2 ? find_kind(argv[0]) : NULL;
        if (!k)
                return refuse_new("Say the kind and the name: dapr plugin new state mystore. The kinds are state, secretstores, pubsub, bindings, "
                                  "configuration, lock, crypto, conversation, nameresolution and middleware.");
        if (!l)
                return refuse_new("--lang is c, go, python or js");
        if (!name_ok(argv[1])) {
                ui_say(UI_FAILURE, "The name \"%s\" is not usable: write small letters, digits, dots and dashes, 64 at most.", argv[1]);
                return 1;
        }
        arena_init(&a, 0);
        const char *type = arena_printf(&a, "%s.%s", argv[0], argv[1]), *dir = *o->dir ? o->dir : argv[1];
        struct subst s = {argv[1], type, sdk_dir(&a), l->program ? l->program : type, l->source, l->environment,
                          arena_printf(&a, "%s.%s", argv[0], l->type), l->sandbox ? l->sandbox : k->sandbox, k->metadata,
                          k->in_memory ? k->in_memory : ""};
        const char *source = source_of(&a, l, argv[0], &s);
        int r = source ? write_plugin(&a, o, l, dir, source, &s) : 1;
        if (!r) {
                ui_say(UI_SUCCESS, "Wrote the plugin %s to %s/", s.type, dir);
                if (strcmp(l->name, "c") == 0 && !path_exists(arena_printf(&a, "%s/include/dapr/plugin.h", s.sdk)))
                        ui_say(UI_WARNING, "The plugin SDK is not at %s: build with make SDK=/path/to/it (the folder with include/ and lib/)", s.sdk);
                ui_say(UI_INFO, "Build it: make -C %s", dir);
                ui_say(UI_INFO, "Try it: DAPR_PLUGINS_PATH=%s%s dapr run --app-id demo --resources-path %s/resources", dir[0] == '/' ? "" : "$PWD/", dir, dir);
        }
        arena_fini(&a);
        return r ? 1 : 0;
}
