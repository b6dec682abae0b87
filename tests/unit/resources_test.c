/* Resources folders: what is loaded, left out, refused; the order of starting; metadata values at start. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "kernel/resources/resources.h"
#include "sdk/base/buf.h"
#include "sdk/base/log.h"
#include "sdk/base/yaml.h"
#include "tests/unit/fault.h"

static char dir[] = "/tmp/resources_test_XXXXXX", log_path[64];
static const char *paths[4];
static struct daprd_opts o;
static struct configuration cfg;
static struct resource_set set;
static struct arena a;
static const char *error;

/* ---- one temporary folder; the log goes to a file beside it ---- */

static void setup(void)
{
        strcpy(dir + strlen(dir) - 6, "XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(dir));
        snprintf(log_path, sizeof log_path, "%s.log", dir);
        log_setup("app", "1", false);
        log_set_level(LOG_DEBUG);
        ck_assert_int_eq(log_to_file(log_path), 0);
        paths[0] = dir;
        o = (struct daprd_opts){.mode = "standalone", .app_id = "app", .resources_path = {paths, 1}, .namespace_ = "",
                                .own_namespace = "default", .pod_name = ""};
        cfg = (struct configuration){0};
        set = (struct resource_set){0};
        error = NULL;
        arena_init(&a, 0);
}

static void remove_all(const char *folder)
{
        DIR *d = opendir(folder);
        for (struct dirent *e; d && (e = readdir(d));) {
                char path[600];
                snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
                if (unlink(path) && strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
                        rmdir(path);
        }
        closedir(d);
        rmdir(folder);
}

static void fini(void)
{
        resource_set_fini(&set);
        arena_fini(&a);
        remove_all(dir);
        unlink(log_path);
}

static void write_bytes(const char *name, const void *p, size_t n)
{
        char path[600];
        snprintf(path, sizeof path, "%s/%s", dir, name);
        FILE *f = fopen(path, "w");
        ck_assert_ptr_nonnull(f);
        ck_assert_uint_eq(fwrite(p, 1, n, f), n);
        fclose(f);
}

static void file(const char *name, const char *text)
{
        write_bytes(name, text, strlen(text));
}

static bool logged(const char *text)
{
        static char all[1 << 20];
        FILE *f = fopen(log_path, "r");
        size_t n = f ? fread(all, 1, sizeof all - 1, f) : 0;
        if (f)
                fclose(f);
        all[n] = '\0';
        return strstr(all, text) != NULL;
}

static int load(void)
{
        resource_set_fini(&set);
        return resources_load(&set, &o, &cfg, &a, &error);
}

static void load_ok(size_t components)
{
        int r = load();
        ck_assert_msg(r == 0, "%s", error);
        ck_assert_uint_eq(set.n_components, components);
}

#define COMPONENT(name, type, more) \
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: " name "\nspec:\n  type: " type "\n  version: v1\n" more
#define STATE(name) COMPONENT(name, "state.in-memory", "")

/* ---- documents ---- */

START_TEST(a_component_is_read)
{
        file("a.yaml", "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: s\n  namespace: ns\nspec:\n  type: state.x\n"
                       "  version: v2\n  ignoreErrors: true\n  initTimeout: 1m30s\n  metadata:\n  - name: text\n    value: \"true\"\n"
                       "  - name: bool\n    value: true\n  - name: number\n    value: 1.50\n  - {name: json, value: {b: [1, x], a: null}}\n"
                       "  - name: none\n  - name: null\n    value: null\n  - name: ref\n    secretKeyRef: {name: sec, key: k}\n"
                       "  - name: short\n    secretKeyRef: {name: sec}\n  - name: env\n    envRef: VAR\n"
                       "auth:\n  secretStore: vault\nscopes: [app, other]\n");
        load_ok(1);
        struct component_spec *c = set.components[0];
        ck_assert_str_eq(c->name, "s");
        ck_assert_str_eq(c->namespace_, "ns");
        ck_assert_str_eq(c->type, "state.x");
        ck_assert_str_eq(c->version, "v2");
        ck_assert(c->ignore_errors);
        ck_assert_int_eq(c->init_timeout_ns, INT64_C(90000000000));
        ck_assert_str_eq(c->secret_store, "vault");
        ck_assert_uint_eq(c->n_scopes, 2);
        ck_assert_uint_eq(c->n_metadata, 9);
        ck_assert_str_eq(component_metadata(c, "text"), "true");
        ck_assert_str_eq(component_metadata(c, "BOOL"), "true");
        ck_assert_str_eq(component_metadata(c, "number"), "1.5");
        ck_assert_str_eq(component_metadata(c, "json"), "{\"a\":null,\"b\":[1,\"x\"]}");
        ck_assert_ptr_null(component_metadata(c, "none"));
        ck_assert_ptr_null(component_metadata(c, "absent"));
        ck_assert_str_eq(c->metadata[5].name, "");
        ck_assert_str_eq(c->metadata[6].secret_name, "sec");
        ck_assert_str_eq(c->metadata[6].secret_key, "k");
        ck_assert_str_eq(c->metadata[7].secret_key, "sec");
        ck_assert_str_eq(c->metadata[8].env_ref, "VAR");
        ck_assert_int_eq(c->metadata[0].line, 12);
        ck_assert_str_eq(component_log_name(c), "s (state.x/v2)");
        ck_assert_ptr_nonnull(strstr(c->file, "/a.yaml"));
}
END_TEST

START_TEST(what_is_absent_has_its_default)
{
        file("a.yaml", "{\"apiVersion\": \"dapr.io/v1alpha1\", \"kind\": \"Component\", \"metadata\": {\"name\": 123}, "
                       "\"spec\": {\"type\": \"state.x\"}}");
        load_ok(1);
        struct component_spec *c = set.components[0];
        ck_assert_str_eq(c->name, "123");
        ck_assert_str_eq(c->version, "");
        ck_assert_str_eq(c->secret_store, "");
        ck_assert(!c->ignore_errors);
        ck_assert_int_eq(c->init_timeout_ns, INT64_C(5000000000));
        ck_assert_str_eq(component_log_name(c), "123 (state.x)");
}
END_TEST

START_TEST(field_names_match_without_case)
{
        file("a.yaml", "apiversion: dapr.io/v1alpha1\nKind: Component\nmetadata: {Name: a}\nspec:\n  Type: state.x\n  metadata:\n"
                       "  - {Name: n, SecretKeyRef: {name: s}}\n");
        load_ok(1);
        ck_assert_str_eq(set.components[0]->type, "state.x");
        ck_assert_str_eq(set.components[0]->metadata[0].secret_name, "s");
}
END_TEST

START_TEST(files_and_documents_come_in_order)
{
        file("b.yml", STATE("three"));
        file("a.YAML", STATE("one") "---\n" STATE("two"));
        file("0.txt", STATE("none"));
        char sub[600];
        snprintf(sub, sizeof sub, "%s/c.yaml", dir);
        mkdir(sub, 0700);
        load_ok(3);
        ck_assert_str_eq(set.components[0]->name, "one");
        ck_assert_str_eq(set.components[1]->name, "two");
        ck_assert_str_eq(set.components[2]->name, "three");
        ck_assert_int_eq(set.components[1]->line, 9);
        ck_assert(logged("A non-YAML Component file 0.txt was detected, it will not be loaded"));
        rmdir(sub);
}
END_TEST

START_TEST(several_folders_are_one_set)
{
        char other[600];
        snprintf(other, sizeof other, "%s/", dir);
        paths[1] = other;
        o.resources_path.n = 2;
        file("a.yaml", STATE("a"));
        ck_assert_int_eq(load(), -EINVAL);
        ck_assert_str_eq(error, "failed to load components: duplicate definition of Component name a (state.in-memory/v1) "
                                "with existing a (state.in-memory/v1)");
}
END_TEST

START_TEST(no_folder_is_no_component)
{
        o.resources_path.n = 0;
        load_ok(0);
}
END_TEST

START_TEST(a_missing_folder_is_fatal)
{
        paths[0] = "/nonexistent/resources";
        ck_assert_int_eq(load(), -EINVAL);
        ck_assert_str_eq(error, "failed to load components: open /nonexistent/resources: no such file or directory");
        paths[0] = "/etc/passwd";
        ck_assert_int_eq(load(), -EINVAL);
        ck_assert_str_eq(error, "failed to load components: open /etc/passwd: not a directory");
}
END_TEST

/* ---- what is wrong with one document leaves the others alone ---- */

static void wrong_document(const char *text, const char *want)
{
        file("a.yaml", text);
        file("b.yaml", STATE("good"));
        load_ok(1);
        ck_assert_str_eq(set.components[0]->name, "good");
        ck_assert_msg(logged(want), "not logged: %s", want);
}

START_TEST(wrong_types_name_file_line_and_field)
{
        wrong_document(COMPONENT("a", "state.x", "  ignoreErrors: 'yes'\n"),
                       "a.yaml:8:17: spec.ignoreErrors must be true or false (without quotes), not \\\"yes\\\"");
        wrong_document(COMPONENT("a", "state.x", "  metadata: {host: x}\n"), "a.yaml:8:13: spec.metadata must be a list, not a map");
        wrong_document(COMPONENT("a", "state.x", "  metadata: [host]\n"),
                       "a.yaml:8:14: an item of spec.metadata must be a map with name and value, not a single value");
        wrong_document(COMPONENT("a", "[x]", ""), "a.yaml:6:9: spec.type must be text, not a list");
        wrong_document(COMPONENT("a", "state.x", "scopes: app\n"), "a.yaml:8:9: scopes must be a list, not a single value");
        wrong_document(COMPONENT("a", "state.x", "  metadata: [{name: x, value: .inf}]\n"), "spec.metadata.value has no form in JSON");
        wrong_document(COMPONENT("a", "state.x", "  metadata: [{name: x, value: \"a\\0b\"}]\n"), "holds a NUL character");
        wrong_document(COMPONENT("a", "!!int x", ""), "the value does not fit its tag");
        wrong_document("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: x\n", "metadata must be a map, not a single value");
}
END_TEST

START_TEST(wrong_yaml_names_its_place)
{
        wrong_document("apiVersion: dapr.io/v1alpha1\nkind: Component\n\tmetadata: x\n",
                       "error when parsing manifests yaml resource in ");
        ck_assert(logged("a.yaml:3:1: found"));
        wrong_document("just text\n", "a.yaml:1:1: a resource must be a map with apiVersion, kind, metadata and spec");
}
END_TEST

START_TEST(a_wrong_document_does_not_hide_its_neighbours)
{
        file("a.yaml", STATE("one") "---\n{\n---\n" STATE("two") "---\n# nothing\n---\n" STATE("three"));
        load_ok(3);
}
END_TEST

START_TEST(wrong_names_are_refused)
{
        wrong_document(STATE("a/b"), "invalid name \\\"a/b\\\" for \\\"Component\\\": may not contain '/'");
        wrong_document(STATE("'%'"), "may not contain '%'");
        wrong_document(STATE("'/%'"), "may not contain '/'; may not contain '%'");
        wrong_document(STATE("'..'"), "may not be '..'");
        wrong_document(STATE("'.'"), "may not be '.'");
        wrong_document(STATE(""), "a Component has no metadata.name; it is not loaded");
}
END_TEST

START_TEST(unreadable_empty_binary_and_huge_files)
{
        char path[600];
        char *big = malloc(10 << 20);
        memset(big, 'a', 10 << 20);
        write_bytes("big.yaml", big, 10 << 20);
        free(big);
        file("empty.yaml", "");
        write_bytes("nul.yaml", "a\0b", 3);
        write_bytes("binary.yaml", "\x7f"
                                   "ELF\xff\xfe",
                    6);
        snprintf(path, sizeof path, "%s/loop.yaml", dir);
        ck_assert_int_eq(symlink("loop.yaml", path), 0);
        snprintf(path, sizeof path, "%s/fifo.yaml", dir);
        ck_assert_int_eq(mkfifo(path, 0600), 0);
        file("good.yaml", STATE("good"));
        load_ok(1);
        ck_assert(logged("the limit for one file; split it"));
        ck_assert(logged("byte 1 is NUL"));
        ck_assert(logged("byte 4 is not UTF-8"));
        ck_assert(logged("error when opening file"));
        ck_assert(logged("too many levels of symbolic links"));
        ck_assert(logged("not a regular file"));
}
END_TEST

START_TEST(what_is_not_for_daprd_is_skipped)
{
        file("a.yaml", "apiVersion: v1\nkind: Pod\n---\napiVersion: dapr.io/v1alpha1\nkind: Componnent\nmetadata: {name: x}\n---\n"
                       "apiVersion: dapr.io/v1\nkind: Component\nmetadata: {name: y}\n---\nkind: Component\n");
        load_ok(0);
        ck_assert(logged("a.yaml:4: kind \\\"Componnent\\\" is not known, the document is skipped"));
        ck_assert(logged("apiVersion \\\"dapr.io/v1\\\" of kind Component is not known, the document is skipped; write dapr.io/v1alpha1"));
        ck_assert(logged("level=debug msg=\"") && logged("a.yaml:1: apiVersion \\\"v1\\\" kind \\\"Pod\\\" is not for daprd"));
        ck_assert(logged("a.yaml:12: kind Component has no apiVersion, the document is skipped; write dapr.io/v1alpha1"));
}
END_TEST

START_TEST(a_key_that_stands_twice_is_told)
{
        file("a.yaml", COMPONENT("a", "state.x", "  type: state.y\n"));
        load_ok(1);
        ck_assert_str_eq(set.components[0]->type, "state.y");
        ck_assert(logged("a.yaml:8:3: the key \\\"type\\\" stands already in line 6; the last one counts"));
}
END_TEST

/* ---- which of them this app sees ---- */

#define NAMED(name, ns, type) \
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " name ns "}\nspec: {type: " type ", version: v1}\n---\n"

START_TEST(duplicates_with_a_namespace)
{
        o.namespace_ = o.own_namespace = "mynamespace";
        file("a.yaml", NAMED("abc", ", namespace: mynamespace", "state.in-memory") NAMED("abc", "", "pubsub.in-memory")
                               NAMED("abc", ", namespace: foobar", "state.in-memory") NAMED("123", "", "state.in-memory")
                                       NAMED("123", ", namespace: mynamespace", "state.in-memory")
                                               NAMED("123", "", "pubsub.in-memory"));
        ck_assert_int_eq(load(), -EINVAL);
        ck_assert_str_eq(error, "failed to load components: duplicate definition of Component name abc (pubsub.in-memory/v1) with "
                                "existing abc (state.in-memory/v1)\n"
                                "duplicate definition of Component name 123 (state.in-memory/v1) with existing 123 (state.in-memory/v1)\n"
                                "duplicate definition of Component name 123 (pubsub.in-memory/v1) with existing 123 (state.in-memory/v1)");
        ck_assert_int_eq(resources_read(&set, &o, &cfg, &a, &error), -EINVAL);
        ck_assert(str_has_prefix(str_of(error), STR("duplicate definition")));
}
END_TEST

START_TEST(namespaces_count_when_both_sides_have_one)
{
        file("a.yaml", NAMED("a", ", namespace: one", "state.x") NAMED("b", ", namespace: two", "state.x") NAMED("c", "", "state.x"));
        load_ok(3);
        o.namespace_ = o.own_namespace = "two";
        load_ok(2);
        ck_assert_str_eq(set.components[0]->name, "b");
}
END_TEST

START_TEST(scopes_leave_out_other_apps)
{
        file("a.yaml", COMPONENT("a", "state.x", "scopes: [other]\n") "---\n" COMPONENT("a", "state.x", "scopes: [app]\n") "---\n"
                       COMPONENT("b", "state.x", "scopes: []\n"));
        load_ok(2);
        /* a name that is taken is refused even when the second one is not for this app, as in the reference */
        file("b.yaml", COMPONENT("b", "state.x", "scopes: [other]\n"));
        ck_assert_int_eq(load(), -EINVAL);
}
END_TEST

START_TEST(denied_types_are_left_out)
{
        static const char *deny[] = {"", "state.a", "state.b/v1", "state.c/v9", "x/y/z", "state.d/"};
        cfg.components_deny = deny;
        cfg.n_components_deny = 6;
        file("a.yaml", COMPONENT("a", "state.a", "") "---\n" COMPONENT("b", "state.b", "") "---\n" COMPONENT("c", "state.c", "")
                       "---\n" COMPONENT("d", "state.d", "") "---\napiVersion: dapr.io/v1alpha1\nkind: Component\n"
                       "metadata: {name: e}\nspec: {type: state.e}\n");
        load_ok(1);
        ck_assert_str_eq(set.components[0]->name, "c");
        ck_assert(logged("component 'a' cannot be loaded because components of type 'a (state.a/v1)' are not allowed"));
}
END_TEST

START_TEST(other_kinds_keep_their_tree_and_json)
{
        file("a.yaml", "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: s}\nspec: {topic: 1, pubsubname: p}\n---\n"
                       "apiVersion: dapr.io/v1alpha1\nkind: Subscription\nmetadata: {name: s}\nspec: {topic: t}\nscopes: [app]\n---\n"
                       "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r, namespace: z}\nspec: {}\n---\n"
                       "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: h}\nspec: {baseUrl: http://x}\nscopes: [no]\n---\n"
                       "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: 5\n");
        o.namespace_ = "other";
        load_ok(0);
        ck_assert_uint_eq(set.n_others, 2);
        struct raw_resource *s = set.others[0];
        ck_assert_str_eq(s->kind, "Subscription");
        ck_assert_str_eq(s->api_version, "dapr.io/v1alpha1");
        ck_assert(str_eqz(s->json, "{\"apiVersion\":\"dapr.io/v1alpha1\",\"kind\":\"Subscription\",\"metadata\":{\"name\":\"s\"},"
                                   "\"scopes\":[\"app\"],\"spec\":{\"topic\":\"t\"}}"));
        ck_assert(str_eqz(yaml_path(s->doc, "spec.topic")->text, "t"));
        ck_assert_int_eq(s->line, 6);
        ck_assert_str_eq(set.others[1]->name, "r");
        ck_assert(logged("spec must be a map"));
}
END_TEST

START_TEST(endpoints_that_stand_twice_are_all_left_out)
{
        file("a.yaml", "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: h}\nspec: {baseUrl: http://x}\n---\n"
                       "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: h}\nspec: {baseUrl: http://y}\n");
        load_ok(0);
        ck_assert_uint_eq(set.n_others, 0);
        ck_assert(logged("failed to load HTTP endpoints: duplicate definition of HTTPEndpoint name h (http://y) with existing h (http://x)"));
}
END_TEST

START_TEST(specs_compare_by_content)
{
        file("a.yaml", COMPONENT("a", "state.x", "  metadata: [{name: k, value: v}]\n"));
        load_ok(1);
        struct resource_set second;
        ck_assert_int_eq(resources_read(&second, &o, &cfg, &a, &error), 0);
        ck_assert(component_spec_equal(set.components[0], second.components[0]));
        resource_set_fini(&second);
        file("a.yaml", COMPONENT("a", "state.x", "  metadata: [{name: k, value: w}]\n"));
        ck_assert_int_eq(resources_read(&second, &o, &cfg, &a, &error), 0);
        ck_assert(!component_spec_equal(set.components[0], second.components[0]));
        resource_set_fini(&second);
}
END_TEST

/* ---- order ---- */

#define NEEDS(name, type, store) \
        COMPONENT(name, type, "  metadata: [{name: k, secretKeyRef: {name: s}}]\nauth: {secretStore: " store "}\n") "---\n"

START_TEST(secret_stores_start_first_and_what_waits_for_them_next)
{
        struct component_spec *order[8];
        file("a.yaml", STATE("plain") "---\n" NEEDS("n1", "state.x", "vault") NEEDS("vault", "secretstores.x", "base")
                       COMPONENT("base", "secretstores.local.file", "") "---\n" NEEDS("lost", "state.x", "nowhere")
                       NEEDS("built", "state.x", "kubernetes") NEEDS("n2", "state.x", "plain"));
        load_ok(7);
        static const char *const loaded[] = {"kubernetes"};
        ck_assert_uint_eq(resources_order(&set, &o, loaded, 1, order), 5);
        static const char *const want[] = {"base", "vault", "plain", "n1", "built", "lost", "n2"};
        for (size_t i = 0; i < 7; i++)
                ck_assert_str_eq(order[i]->name, want[i]);
        ck_assert_uint_eq(resources_order(&set, &o, NULL, 0, order), 4);
}
END_TEST

START_TEST(the_store_of_kubernetes_mode_is_kubernetes)
{
        file("a.yaml", COMPONENT("a", "state.x", "  metadata: [{name: k, secretKeyRef: {name: s}}, {name: e, envRef: E}]\n") "---\n"
                       COMPONENT("b", "state.x", "  metadata: [{name: k, envRef: X}, {name: v, value: 1}]\n"));
        load_ok(2);
        ck_assert_ptr_null(component_needs_store(set.components[0], &o));
        ck_assert_ptr_null(component_needs_store(set.components[1], &o));
        o.mode = "kubernetes";
        ck_assert_str_eq(component_needs_store(set.components[0], &o), "kubernetes");
}
END_TEST

/* ---- values at start ---- */

static int get_secret(void *arg, const char *store, const char *secret, const char *key, struct arena *to, const char **value,
                      const char **err)
{
        (void)arg;
        if (strcmp(store, "vault") != 0)
                return SECRET_NO_STORE;
        if (strcmp(secret, "broken") == 0) {
                *err = "no route";
                return -EIO;
        }
        if (strcmp(secret, "none") == 0)
                return SECRET_NO_KEY;
        *value = strcmp(secret, "quoted") == 0 ? "\"a\\tb\"" : arena_printf(to, "%s/%s", secret, key);
        return SECRET_FOUND;
}

static struct component_spec *one(const char *metadata)
{
        static char text[2000];
        snprintf(text, sizeof text, COMPONENT("c", "state.x", "auth: {secretStore: vault}\n") "  metadata: [%s]\n", metadata);
        char *auth = strstr(text, "auth:"); /* move it behind spec */
        char moved[2000];
        snprintf(moved, sizeof moved, "%.*s%sauth: {secretStore: vault}\n", (int)(auth - text), text, strchr(auth, '\n') + 1);
        file("a.yaml", moved);
        load_ok(1);
        return set.components[0];
}

static const char *value(struct component_spec *c, const char *name)
{
        int r = component_resolve(c, &o, get_secret, NULL, &error);
        ck_assert_msg(r == 0, "%d %s", r, error);
        return component_metadata(c, name);
}

START_TEST(secrets_are_filled_in)
{
        struct component_spec *c = one("{name: a, secretKeyRef: {name: s, key: k}}, {name: b, secretKeyRef: {name: s}}, "
                                       "{name: c, secretKeyRef: {name: none}}, {name: d, secretKeyRef: {name: broken}}, "
                                       "{name: e, value: kept, secretKeyRef: {name: none}}, {name: f, secretKeyRef: {name: quoted}}");
        ck_assert_str_eq(value(c, "a"), "s/k");
        ck_assert_str_eq(component_metadata(c, "b"), "s/s");
        ck_assert_str_eq(component_metadata(c, "c"), "");
        ck_assert_str_eq(component_metadata(c, "d"), "");
        ck_assert_str_eq(component_metadata(c, "e"), "kept");
        ck_assert_str_eq(component_metadata(c, "f"), "a\tb");
        ck_assert(logged("Error getting secret: no route"));
        ck_assert(!logged("s/k"));
}
END_TEST

START_TEST(a_store_that_is_not_loaded_can_come_later)
{
        struct component_spec *c = one("{name: e, envRef: RESOURCES_TEST}, {name: a, secretKeyRef: {name: s, key: k}}");
        setenv("RESOURCES_TEST", "v", 1);
        c->secret_store = "later";
        ck_assert_int_eq(component_resolve(c, &o, get_secret, NULL, &error), 1);
        ck_assert_str_eq(error, "later");
        ck_assert(logged("Component c references a secret store that isn't loaded: later"));
        ck_assert_int_eq(component_resolve(c, &o, NULL, NULL, &error), 1);
        c->secret_store = "vault";
        ck_assert_str_eq(value(c, "a"), "s/k");
        ck_assert_str_eq(component_metadata(c, "e"), "v");
}
END_TEST

START_TEST(without_a_secret_store_it_starts_without_the_secret)
{
        struct component_spec *c = one("{name: a, value: '{appID}'}, {name: b, secretKeyRef: {name: s}}, {name: c, envRef: HOME}");
        c->secret_store = "";
        ck_assert_str_eq(value(c, "a"), "app");
        ck_assert_str_eq(component_metadata(c, "b"), "");
        ck_assert_str_eq(component_metadata(c, "c"), ""); /* as the reference: what stands behind it is not looked at */
        ck_assert(logged("Component c references a secret store that isn't loaded: \" "));
}
END_TEST

START_TEST(env_references_have_rules)
{
        setenv("RESOURCES_TEST", "v", 1);
        setenv("resources_lower", "low", 1);
        setenv("RESOURCES_QUOTED", "'x'", 1);
        setenv("DAPR_API_TOKEN", "secret", 1);
        setenv("APP_API_TOKEN", "secret", 1);
        struct component_spec *c = one("{name: a, envRef: RESOURCES_TEST}, {name: b, envRef: DAPR_API_TOKEN}, "
                                       "{name: c, envRef: app_api_token}, {name: d, envRef: 'A B'}, {name: e, envRef: RESOURCES_UNSET}, "
                                       "{name: f, value: x, envRef: RESOURCES_TEST}, {name: g, envRef: resources_lower}, "
                                       "{name: h, envRef: RESOURCES_QUOTED}");
        ck_assert_str_eq(value(c, "a"), "v");
        ck_assert_str_eq(component_metadata(c, "b"), "");
        ck_assert_str_eq(component_metadata(c, "c"), "");
        ck_assert_str_eq(component_metadata(c, "d"), "");
        ck_assert_str_eq(component_metadata(c, "e"), "");
        ck_assert_str_eq(component_metadata(c, "f"), "x");
        ck_assert_str_eq(component_metadata(c, "g"), "low");
        ck_assert_str_eq(component_metadata(c, "h"), "x");
        ck_assert(logged("Component c references an env variable that isn't allowed: DAPR_API_TOKEN"));
}
END_TEST

START_TEST(env_keys_are_a_list_of_whole_names)
{
        static const struct {
                const char *keys;
                bool allowed;
        } rows[] = {{"RESOURCES_TEST", true}, {"A RESOURCES_TEST B", true}, {"", true}, {"RESOURCES_TEST2", false},
                    {"XRESOURCES_TEST", false}, {"A B", false}, {"resources_test", false}};
        setenv("RESOURCES_TEST", "v", 1);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                o.env_keys = rows[i].keys;
                ck_assert_str_eq(value(one("{name: a, envRef: RESOURCES_TEST}"), "a"), rows[i].allowed ? "v" : "");
        }
}
END_TEST

START_TEST(templates_are_replaced)
{
        o.pod_name = "pod-1";
        struct component_spec *c = one("{name: a, value: '{namespace}/{appID}/{podName}/{appID}'}, {name: b, value: '{uuid} {uuid}'}, "
                                       "{name: c, value: '{other}{'}");
        ck_assert_str_eq(value(c, "a"), "default.app/app/pod-1/app");
        ck_assert(c->namespace_scoped);
        const char *b = component_metadata(c, "b");
        ck_assert_uint_eq(strlen(b), 73);
        ck_assert_int_ne(strncmp(b, b + 37, 36), 0);
        ck_assert_int_eq(b[14], '4');
        ck_assert_str_eq(component_metadata(c, "c"), "{other}{");
        c = one("{name: a, value: x}");
        value(c, "a");
        ck_assert(!c->namespace_scoped);
}
END_TEST

START_TEST(a_pod_name_must_be_known)
{
        struct component_spec *c = one("{name: k, value: '{podName}'}");
        ck_assert_int_eq(component_resolve(c, &o, get_secret, NULL, &error), -EINVAL);
        ck_assert_str_eq(error, "failed to parse metadata: property k refers to {podName} but podName is not set");
}
END_TEST

START_TEST(values_that_look_like_go_literals_are_unquoted)
{
        static const struct {
                const char *in, *out;
        } rows[] = {
                {"\"a\\n\\u00e9\\x41\\101\"", "a\n\u00e9AA"}, {"`raw\\n`", "raw\\n"}, {"'ab'", "'ab'"}, {"'\u00e9'", "\u00e9"},
                {"\"a\"b\"", "\"a\"b\""}, {"\"\\q\"", "\"\\q\""}, {"\"\\\"", "\"\\\""}, {"\"", "\""}, {"\"\\ud800\"", "\"\\ud800\""},
                {"\"line\nbreak\"", "\"line\nbreak\""}, {"plain", "plain"}, {"\"\\777\"", "\"\\777\""}, {"\"\\'\"", "\"\\'\""},
                {"'\\''", "'"}, {"\"\\U0001F600\"", "\U0001F600"}, {"``", ""},
        };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                setenv("RESOURCES_TEST", rows[i].in, 1);
                ck_assert_str_eq(value(one("{name: a, envRef: RESOURCES_TEST}"), "a"), rows[i].out);
        }
}
END_TEST

/* ---- no memory ---- */

static bool load_and_resolve(void *arg)
{
        struct resource_set s;
        struct arena errors;
        const char *why = NULL;
        (void)arg;
        arena_init(&errors, 0);
        int r = resources_load(&s, &o, &cfg, &errors, &why);
        bool ok = r == 0 || why;
        for (size_t i = 0; r == 0 && i < s.n_components && ok; i++) {
                why = NULL;
                int e = component_resolve(s.components[i], &o, get_secret, NULL, &why);
                ok = e >= 0 || why;
        }
        if (r == 0)
                resource_set_fini(&s);
        arena_fini(&errors);
        return ok;
}

START_TEST(survives_each_failing_allocation)
{
        log_set_level(LOG_FATAL);
        file("a.yaml", STATE("a") "---\n" COMPONENT("b", "state.x", "  metadata: [{name: k, value: '{appID}{uuid}'}, "
                                  "{name: s, secretKeyRef: {name: s}}, {name: j, value: [1, 2]}]\nauth: {secretStore: vault}\n")
                       "---\napiVersion: dapr.io/v1alpha1\nkind: Subscription\nmetadata: {name: s}\nscopes: [app]\n");
        ck_assert_int_gt(fault_each(load_and_resolve, NULL), 30);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("resources");
        TCase *c = tcase_create("resources");
        tcase_add_checked_fixture(c, setup, fini);
        tcase_add_test(c, a_component_is_read);
        tcase_add_test(c, what_is_absent_has_its_default);
        tcase_add_test(c, field_names_match_without_case);
        tcase_add_test(c, files_and_documents_come_in_order);
        tcase_add_test(c, several_folders_are_one_set);
        tcase_add_test(c, no_folder_is_no_component);
        tcase_add_test(c, a_missing_folder_is_fatal);
        tcase_add_test(c, wrong_types_name_file_line_and_field);
        tcase_add_test(c, wrong_yaml_names_its_place);
        tcase_add_test(c, a_wrong_document_does_not_hide_its_neighbours);
        tcase_add_test(c, wrong_names_are_refused);
        tcase_add_test(c, unreadable_empty_binary_and_huge_files);
        tcase_add_test(c, what_is_not_for_daprd_is_skipped);
        tcase_add_test(c, a_key_that_stands_twice_is_told);
        tcase_add_test(c, duplicates_with_a_namespace);
        tcase_add_test(c, namespaces_count_when_both_sides_have_one);
        tcase_add_test(c, scopes_leave_out_other_apps);
        tcase_add_test(c, denied_types_are_left_out);
        tcase_add_test(c, other_kinds_keep_their_tree_and_json);
        tcase_add_test(c, endpoints_that_stand_twice_are_all_left_out);
        tcase_add_test(c, specs_compare_by_content);
        tcase_add_test(c, secret_stores_start_first_and_what_waits_for_them_next);
        tcase_add_test(c, the_store_of_kubernetes_mode_is_kubernetes);
        tcase_add_test(c, secrets_are_filled_in);
        tcase_add_test(c, a_store_that_is_not_loaded_can_come_later);
        tcase_add_test(c, without_a_secret_store_it_starts_without_the_secret);
        tcase_add_test(c, env_references_have_rules);
        tcase_add_test(c, env_keys_are_a_list_of_whole_names);
        tcase_add_test(c, templates_are_replaced);
        tcase_add_test(c, a_pod_name_must_be_known);
        tcase_add_test(c, values_that_look_like_go_literals_are_unquoted);
        tcase_add_test(c, survives_each_failing_allocation);
        suite_add_tcase(s, c);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
