/*
 * doc_daprd: pages about daprd and the plugins from the tables that they run on.
 *   doc_daprd page | man           flags
 *   doc_daprd errors               the error catalogue
 *   doc_daprd metrics              the metrics
 *   doc_daprd manifest | manifest-man  the keys of plugin.yaml
 *   doc_daprd components DIR...    the settings of components: each DIR holds one plugin.yaml
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "docs/gen/manifest.h"
#include "kernel/front/call.h"
#include "kernel/observe/observe.h"
#include "kernel/observe/trace.h"
#include "kernel/opts.h"
#include "kernel/blocks/pubsub/pubsub.h"
#include "kernel/mesh/mesh_metrics.h"
#include "kernel/plugin_metrics.h"
#include "kernel/super/manifest.h"
#include "sdk/base/log.h"

static void cell(const char *s)
{
        for (; s && *s; s++) {
                if (strchr("|<*_", *s))
                        putchar('\\');
                putchar(*s == '\n' ? ' ' : *s);
        }
}

static int page(void)
{
        flags_markdown(&daprd_program, stdout);
        return 0;
}

static int man(void)
{
        flags_man(&daprd_program, stdout);
        return 0;
}

/* ---- errors ---- */

/* printf conversions as an ellipsis: what stands there is of the moment. */
static void template(const char *s)
{
        for (; *s; s++) {
                if (*s != '%') {
                        cell((char[]){*s, '\0'});
                        continue;
                }
                if (*++s == '%') {
                        putchar('%');
                        continue;
                }
                s += strspn(s, "0123456789.*-+ lhzj");
                printf("…");
        }
}

static int errors(void)
{
        printf("# Errors\n\nWhat a failed API call answers. **Code** is `errorCode` of the JSON body and label `error_code` of the metric\n"
               "`dapr_error_code_total`; **reason** is that of `google.rpc.ErrorInfo` in the details (on both doors, or with (gRPC) on that one\n"
               "alone; errors without one have code and text only). … stands for what the call was about.\n");
        const char *category = NULL;
        for (size_t i = 0; i < ERROR_ROWS; i++) {
                const struct error_row *row = &error_rows[i];
                if (!category || strcmp(category, row->category) != 0) {
                        category = row->category;
                        printf("\n## %s\n\n| Code | Reason | HTTP | gRPC | Text |\n|---|---|---|---|---|\n", *category ? category : "any");
                }
                bool same = strcmp(row->reason, "=") == 0;
                const char *reason = same ? row->tag : row->reason, *tag = *row->tag ? row->tag : row->reason;
                printf("| `%s` | %s%s%s%s | %d | %s | ", tag, *reason ? "`" : "", reason, *reason ? "`" : "", same ? " (gRPC)" : "", row->http_status,
                       rpc_code_name(row->grpc_code));
                template(row->text);
                printf(" |\n");
        }
        return 0;
}

/* ---- metrics ---- */

static void metric_row(void *arg, const struct metric_def *def)
{
        static const char *const types[] = {[METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
        printf("| `%s` | %s | ", def->name, types[def->type]);
        struct str rest = str_of(def->labels);
        for (bool first = true; rest.p; first = false) {
                struct str label = str_cut(&rest, ',');
                printf("%s`%.*s`", first ? "" : ", ", STR_FMT(label));
        }
        printf(" | ");
        cell(def->help);
        printf(" |\n");
}

static int metrics(void)
{
        struct kernel *k = calloc(1, sizeof(*k));
        struct observe *o;
        struct plugin_metrics *p;
        struct pubsub_metrics *b;
        struct mesh_metrics *m;
        struct observe_conf conf = {.app_id = "", .namespace_ = "", .enabled = true, .record_error_codes = true, .increased_cardinality = true};
        struct tracer_conf traces = {.app_id = "", .sampling_rate = "0", .zipkin_endpoint = "", .otlp_endpoint = "", .otlp_protocol = ""};
        struct tracer *t;
        char err[80];
        log_set_level(LOG_ERROR);
        if (k)
                k->config.metrics_enabled = true;
        if (!k || metrics_new(&k->metrics) || observe_new(&o, k->metrics, &conf) || plugin_metrics_new(&p, k) ||
            pubsub_metrics_new(&b, k) || mesh_metrics_new(&m, k->metrics, ""))
                return 1;
        traces.metrics = k->metrics;
        if (tracer_new(&t, &traces, err, sizeof err))
                return 1;
        printf("# Metrics\n\nServed in the Prometheus text format on `--metrics-port` (9090). Names that begin with `dapr_` or `process_` are those of the\n"
               "reference runtime, names that begin with `microdapr_` are this runtime's own. A metric shows up when it has a first value.\n"
               "Latencies are in milliseconds.\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n");
        metrics_each(k->metrics, metric_row, NULL);
        plugin_metrics_free(p);
        pubsub_metrics_free(b);
        tracer_free(t);
        mesh_metrics_free(m);
        observe_free(o);
        metrics_free(k->metrics);
        free(k);
        return 0;
}

/* ---- components ---- */

static void list_cell(const char *before, const char **v, size_t n)
{
        for (size_t i = 0; i < n; i++)
                printf("%s`%s`", i ? ", " : before, v[i]);
}

static void field_row(const struct manifest_field *f)
{
        printf("| `%s` | ", f->name);
        if (f->kind == FIELD_ENUM)
                list_cell("", f->values, f->n_values);
        else
                printf("%s", manifest_kind_name(f->kind));
        printf(" | %s | ", f->required ? "yes" : "");
        if (f->def)
                printf("`%s`", f->def);
        printf(" | ");
        cell(f->description);
        if (f->sensitive)
                printf(" Never shown.");
        list_cell(" Also written ", f->aliases, f->n_aliases);
        printf(" |\n");
}

static int component(const char *dir)
{
        struct arena a;
        struct manifest *m;
        char path[512];
        const char *err = NULL;
        arena_init(&a, 0);
        snprintf(path, sizeof(path), "%s/plugin.yaml", dir);
        int r = manifest_read(path, &m, &a, &err);
        if (r) {
                fprintf(stderr, "%s: %s\n", path, err ? err : strerror(-r));
                arena_fini(&a);
                return 1;
        }
        printf("\n## %s\n\n", m->title ? m->title : m->name);
        cell(m->description);
        printf("\n\nPlugin `%s` %s; ", m->name, m->version);
        for (size_t i = 0; i < m->n_types; i++)
                printf("%s`%s`", i ? ", " : "type ", m->types[i].type);
        printf(".\n");
        if (m->n_fields)
                printf("\n| Setting | Type | Required | Default | Meaning |\n|---|---|---|---|---|\n");
        else
                printf("\nIt takes no settings.\n");
        for (size_t i = 0; i < m->n_fields; i++)
                field_row(&m->fields[i]);
        manifest_free(m);
        arena_fini(&a);
        return 0;
}

static int components(int n, char **dirs)
{
        printf("# Components\n\nThe component types that this repository has plugins for, and what `spec.metadata` of each takes. Checked before a plugin\n"
               "starts: a value of the wrong type, or a required one that is missing, is an error that names the file and the line. Fields that\n"
               "are not listed are passed to the plugin as they are. `dapr plugin info TYPE` shows the same for any plugin that is installed.\n");
        for (int i = 0; i < n; i++)
                if (component(dirs[i]))
                        return 1;
        return 0;
}

int main(int argc, char **argv)
{
        const struct { const char *name; int (*fn)(void); } pages[] = {{"page", page}, {"man", man}, {"errors", errors}, {"metrics", metrics},
                {"manifest", manifest_page}, {"manifest-man", manifest_man}};
        for (size_t i = 0; argc == 2 && i < sizeof(pages) / sizeof(*pages); i++)
                if (strcmp(argv[1], pages[i].name) == 0)
                        return pages[i].fn();
        if (argc > 2 && strcmp(argv[1], "components") == 0)
                return components(argc - 2, argv + 2);
        fprintf(stderr, "usage: doc_daprd page | man | errors | metrics | manifest | manifest-man | components DIR...\n");
        return 2;
}
