/*
 * Resource files: any bytes, taken as a file of a resources folder, as a Configuration and as a text with variables. Whatever
 * comes in: errors have a text, limits hold, JSON that comes out is valid and has one form.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/opts.h"
#include "kernel/resources/expand_env.h"
#include "kernel/resources/resources.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/yaml.h"

enum { ARENA_CAP = 64 << 20, INPUT_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int get_secret(void *arg, const char *store, const char *secret, const char *key, struct arena *a, const char **value,
                      const char **err)
{
        (void)arg;
        (void)a;
        (void)err;
        *value = secret[0] == '"' ? secret : key;
        return *store ? SECRET_FOUND : SECRET_NO_STORE;
}

static void component(const struct yaml_node *doc)
{
        static const struct daprd_opts o = {.mode = "standalone", .app_id = "a", .own_namespace = "n", .pod_name = "p"};
        struct component_spec *c = NULL;
        struct arena errors = {0};
        const char *why = NULL;

        if (component_read(doc, &c, &errors, &why) == 0) {
                must(c->name && c->type && c->version && component_log_name(c) && component_spec_equal(c, c));
                int r = component_resolve(c, &o, get_secret, NULL, &why);
                must(r >= 0 || why);
                for (size_t i = 0; r == 0 && i < c->n_metadata; i++)
                        must(c->metadata[i].value);
                component_spec_free(c);
        } else {
                must(why && *why);
        }
        arena_fini(&errors);
}

/* The JSON of a text, read as YAML; false when it is refused (a \u escape of half a pair is). */
static bool json_again(struct arena *a, struct str text, enum yaml_schema schema, struct buf *json)
{
        struct yaml_node *copy = NULL;
        const char *why;
        return yaml_read(a, text, "json", 1, 0, &copy, &why) == 0 && copy && yaml_to_json(json, copy, schema) == 0;
}

/* One round may turn -0 into 0 and an escape into a character; then the form is final. */
static void json_form(struct arena *a, const struct yaml_node *doc, enum yaml_schema schema)
{
        struct buf first = {0}, second = {0}, third = {0};

        if (yaml_to_json(&first, doc, schema) == 0) {
                must(json_valid(buf_str(&first)));
                if (json_again(a, buf_str(&first), schema, &second) && json_again(a, buf_str(&second), schema, &third))
                        must(str_eq(buf_str(&second), buf_str(&third)));
        }
        buf_fini(&first);
        buf_fini(&second);
        buf_fini(&third);
}

static void document(struct str text, int line, int flags)
{
        struct yaml_node *doc = NULL, *merged;
        const char *why = NULL;
        struct arena a;

        arena_init(&a, ARENA_CAP);
        int r = yaml_read(&a, text, "f.yaml", line, flags, &doc, &why);
        must(r == 0 || ((r == -EINVAL || r == -ENOMEM) && why && *why));
        if (r == 0 && doc) {
                must(doc->depth <= YAML_MAX_DEPTH && doc->total_nodes <= YAML_MAX_NODES && doc->total_text <= YAML_MAX_TEXT_BYTES);
                json_form(&a, doc, YAML_1_1);
                json_form(&a, doc, YAML_V3);
                component(doc);
                merged = yaml_merge(&a, doc, doc);
                if (merged)
                        json_form(&a, merged, YAML_V3);
        }
        arena_fini(&a);
}

static void configuration(struct str text)
{
        struct configuration c;
        struct buf expanded = {0};
        const char *why = NULL;

        if (expand_env(&expanded, text) == 0) {
                int r = configuration_apply(&c, buf_str(&expanded), "c.yaml", &why);
                must(r == 0 ? json_valid(c.json) : why && *why);
                if (r == 0) {
                        configuration_section(&c, "accessControl");
                        configuration_secret_allowed(&c, "s", STR("k"));
                }
                configuration_fini(&c);
        }
        buf_fini(&expanded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct str text = str_n(data, n), rest = text;
        int line = 1;

        if (n > INPUT_MAX)
                return 0;
        log_set_level(LOG_FATAL);
        setenv("A", "a: [1, {b: 2}]", 1);
        while (rest.p) {
                int at = line;
                document(yaml_next_document(&rest, &line), at, at % 2 ? 0 : YAML_UNIQUE_KEYS);
        }
        configuration(text);
        return 0;
}
