/* --config files: defaults, merging, variables, every section, what is wrong. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "kernel/resources/expand_env.h"
#include "kernel/resources/resources.h"
#include "sdk/base/log.h"
#include "sdk/base/yaml.h"
#include "tests/unit/fault.h"

static struct configuration c;
static struct daprd_opts o;
static const char *error, *files[4];
static char path[4][64];

static void setup(void)
{
        log_set_level(LOG_FATAL);
        o = (struct daprd_opts){.mode = "standalone", .app_id = "app", .config = {files, 0}};
        c = (struct configuration){0};
        error = NULL;
        clearenv();
}

static void fini(void)
{
        configuration_fini(&c);
        for (size_t i = 0; i < o.config.n; i++)
                unlink(path[i]);
}

static void add_file(const char *text)
{
        size_t i = o.config.n++;
        strcpy(path[i], "/tmp/configuration_test_XXXXXX");
        int fd = mkstemp(path[i]);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
        close(fd);
        files[i] = path[i];
}

static void load(void)
{
        int r = configuration_load(&c, &o, &error);
        ck_assert_msg(r == 0, "%s", error);
}

static void apply(const char *text)
{
        configuration_fini(&c);
        int r = configuration_apply(&c, str_of(text), "c.yaml", &error);
        ck_assert_msg(r == 0, "%s: %s", text, error);
}

static void refused(const char *text, const char *want)
{
        configuration_fini(&c);
        ck_assert_int_eq(configuration_apply(&c, str_of(text), "c.yaml", &error), -EINVAL);
        ck_assert_msg(strstr(error, want), "%s: %s", text, error);
        ck_assert(str_has_prefix(str_of(error), STR("error loading configuration: ")));
}

#define section_is(path_, want) \
        do { \
                struct str s_ = configuration_section(&c, path_); \
                ck_assert_msg(str_eqz(s_, want), "%.*s", STR_FMT(s_)); \
        } while (0)

START_TEST(defaults_are_the_references)
{
        load();
        ck_assert(c.tracing_otel_is_secure && c.metrics_enabled && !c.tracing_stdout && !c.metrics_record_error_codes);
        ck_assert_int_eq(c.metrics_increased_cardinality, -1);
        ck_assert_int_eq(c.api_logging, -1);
        ck_assert_str_eq(c.tracing_sampling_rate, "");
        ck_assert_str_eq(c.tracing_otel_endpoint, "");
        ck_assert_uint_eq(c.n_secret_scopes + c.n_api_allowed + c.n_api_denied + c.n_http_pipeline + c.n_features, 0);
        section_is("accessControl", "{\"defaultAction\":\"allow\",\"trustDomain\":\"public\"}");
        ck_assert_ptr_null(configuration_section(&c, "mtls").p);
        ck_assert(configuration_secret_allowed(&c, "any", STR("s")));
}
END_TEST

START_TEST(every_section_is_read)
{
        add_file("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: x}\nspec:\n"
                 "  httpPipeline: {handlers: [{name: h, type: middleware.http.x, version: 1.10, selector: {fields: [{field: a, value: b}]}}]}\n"
                 "  appHttpPipeline: {handlers: [{name: a, type: t}, {name: b}]}\n"
                 "  tracing: {samplingRate: 0.5, stdout: yes, zipkin: {endpointAddress: z}, otel: {protocol: grpc, endpointAddress: e:1, "
                 "isSecure: false, headers: [a=b, {name: c, value: d}], timeout: 10s}}\n"
                 "  metric: {enabled: false, recordErrorCodes: true, http: {increasedCardinality: false, pathMatching: [/a, /b], "
                 "excludeVerbs: true}, latencyDistributionBuckets: [1, 5, 10], rules: [{name: m, labels: [{name: l, regex: {a: b}}]}]}\n"
                 "  mtls: {enabled: true, workloadCertTTL: 1h, tokenValidators: [{name: jwks, options: {a: 1}}]}\n"
                 "  secrets: {scopes: [{storeName: s, defaultAccess: Deny, allowedSecrets: [b, a], deniedSecrets: [z, y]}]}\n"
                 "  accessControl: {defaultAction: deny, policies: [{appId: p, operations: [{name: /x, httpVerb: [GET], action: allow}]}]}\n"
                 "  nameResolution: {component: consul, version: v1, configuration: {port: 8500}}\n"
                 "  features: [{name: HotReload, enabled: true}, {name: Off, enabled: false}, {name: Gone, enabled: true}, {name: Gone}]\n"
                 "  api: {allowed: [{name: state, version: v1.0, protocol: http}], denied: [{name: jobs}]}\n"
                 "  components: {deny: [a/v1, b]}\n"
                 "  logging: {apiLogging: {enabled: true, obfuscateURLs: true, omitHealthChecks: true}}\n"
                 "  wasm: {strictSandbox: true}\n"
                 "  workflow: {maxConcurrentWorkflowInvocations: 5, maxConcurrentActivityInvocations: 6, "
                 "stateRetentionPolicy: {anyTerminal: 72h, failed: 0s}}\n");
        load();
        ck_assert_uint_eq(c.n_http_pipeline, 1);
        ck_assert_str_eq(c.http_pipeline[0].version, "1.10");
        ck_assert_uint_eq(c.n_app_http_pipeline, 2);
        ck_assert_str_eq(c.app_http_pipeline[1].type, "");
        ck_assert_str_eq(c.tracing_sampling_rate, "0.5");
        ck_assert(c.tracing_stdout && !c.tracing_otel_is_secure);
        ck_assert_str_eq(c.tracing_zipkin, "z");
        ck_assert_str_eq(c.tracing_otel_endpoint, "e:1");
        ck_assert_uint_eq(c.n_tracing_otel_headers, 2);
        ck_assert_str_eq(c.tracing_otel_headers[1], "c=d");
        ck_assert_int_eq(c.tracing_otel_timeout_ns, INT64_C(10000000000));
        ck_assert(!c.metrics_enabled && c.metrics_record_error_codes && c.metrics_exclude_verbs);
        ck_assert_int_eq(c.metrics_increased_cardinality, 0);
        ck_assert_uint_eq(c.n_metrics_path_matching, 2);
        ck_assert_uint_eq(c.n_metrics_latency_buckets, 3);
        ck_assert(c.metrics_latency_buckets[2] == 10.0);
        ck_assert_str_eq(c.secret_scopes[0].allowed[0], "a");
        ck_assert_str_eq(c.secret_scopes[0].denied[0], "y");
        ck_assert_str_eq(c.name_resolution_component, "consul");
        section_is("nameResolution.configuration", "{\"port\":8500}");
        section_is("mtls", "{\"enabled\":true,\"tokenValidators\":[{\"name\":\"jwks\",\"options\":{\"a\":1}}],\"workloadCertTTL\":\"1h\"}");
        section_is("accessControl.trustDomain", "\"public\"");
        ck_assert_uint_eq(c.n_features, 1);
        ck_assert(configuration_feature(&c, "HotReload") && !configuration_feature(&c, "Gone"));
        ck_assert_str_eq(c.api_allowed[0].version, "v1.0");
        ck_assert_str_eq(c.api_denied[0].protocol, "");
        ck_assert_uint_eq(c.n_components_deny, 2);
        ck_assert_int_eq(c.api_logging, 1);
        ck_assert(c.api_logging_obfuscate_urls && c.api_logging_omit_health && c.wasm_strict_sandbox);
        ck_assert_int_eq(c.max_concurrent_workflows, 5);
        ck_assert_int_eq(c.max_concurrent_activities, 6);
}
END_TEST

START_TEST(later_files_lie_over_earlier_ones)
{
        add_file("spec:\n  tracing: {samplingRate: '1', zipkin: {endpointAddress: z}}\n  components: {deny: [a, b]}\n"
                 "  wasm: {strictSandbox: true}\n");
        add_file("spec:\n  tracing: {samplingRate: '0'}\n  components: {deny: [c]}\n  wasm: null\n");
        add_file("# nothing\n");
        load();
        ck_assert_str_eq(c.tracing_sampling_rate, "0");
        ck_assert_str_eq(c.tracing_zipkin, "z");
        ck_assert_uint_eq(c.n_components_deny, 1);
        ck_assert_str_eq(c.components_deny[0], "c");
        ck_assert(!c.wasm_strict_sandbox);
        ck_assert(c.metrics_enabled);
}
END_TEST

START_TEST(metrics_override_metric)
{
        apply("spec:\n  metric: {enabled: true, recordErrorCodes: true, http: {increasedCardinality: true, excludeVerbs: true}, "
              "latencyDistributionBuckets: [1]}\n  metrics: {enabled: false, http: {increasedCardinality: false}, rules: []}\n");
        ck_assert(!c.metrics_enabled && c.metrics_record_error_codes && !c.metrics_exclude_verbs);
        ck_assert_int_eq(c.metrics_increased_cardinality, 0);
        ck_assert_uint_eq(c.n_metrics_latency_buckets, 1);
        apply("spec:\n  metric: null\n  metrics: {latencyDistributionBuckets: [2, 3]}\n");
        ck_assert_uint_eq(c.n_metrics_latency_buckets, 2);
        ck_assert(c.metrics_enabled);
        refused("spec: {metrics: 5}", "c.yaml:1:17: spec.metrics must be a map, not \"5\"");
        refused("spec: {metrics: {enabled: maybe}}", "must be true or false");
}
END_TEST

START_TEST(kubernetes_mode_reads_no_file)
{
        o.mode = "kubernetes";
        files[0] = "name-of-an-object";
        o.config.n = 1;
        strcpy(path[0], "/nonexistent");
        load();
        apply("{\"spec\": {\"wasm\": {\"strictSandbox\": true}}}");
        ck_assert(c.wasm_strict_sandbox);
}
END_TEST

START_TEST(files_that_cannot_be_read)
{
        files[0] = "/nonexistent/config.yaml";
        o.config.n = 1;
        ck_assert_int_eq(configuration_load(&c, &o, &error), -EINVAL);
        ck_assert_str_eq(error, "error loading configuration: stat /nonexistent/config.yaml: no such file or directory");
        configuration_fini(&c);
        files[0] = "/tmp";
        ck_assert_int_eq(configuration_load(&c, &o, &error), -EINVAL);
        ck_assert_str_eq(error, "error loading configuration: read /tmp: is a directory");
        o.config.n = 0;
}
END_TEST

START_TEST(wrong_documents_name_their_place)
{
        refused("spec:\n  tracing: on\n", "c.yaml:2:12: spec.tracing must be a map, not \"on\"");
        refused("spec:\n  tracing: {otel: [1]}\n", "spec.tracing.otel must be a map, not a list");
        refused("spec: []\n", "c.yaml:1:7: spec must be a map, not a list");
        refused("spec: {tracing: {stdout: 1}}\n", "spec.tracing.stdout must be true or false, not \"1\"");
        refused("spec: {tracing: {stdout: 'true'}}\n", "spec.tracing.stdout must be true or false");
        refused("spec: {tracing: {samplingRate: {}}}\n", "spec.tracing.samplingRate must be text, not a map");
        refused("spec: {tracing: {otel: {timeout: 5}}}\n", "must be a duration like 30s or 1h30m, not \"5\"");
        refused("spec: {metric: {latencyDistributionBuckets: [1, x]}}\n", "spec.metric.latencyDistributionBuckets[1] must be an integer, not \"x\"");
        refused("spec: {workflow: {maxConcurrentWorkflowInvocations: 3000000000}}\n", "must be an integer");
        refused("spec: {components: {deny: a}}\n", "spec.components.deny must be a list, not \"a\"");
        refused("spec: {features: [HotReload]}\n", "c.yaml:1:19: spec.features[0] must be a map, not \"HotReload\"");
        refused("spec: {features: {}}\n", "spec.features must be a list, not a map");
        refused("spec: {accessControl: {policies: [{operations: [{httpVerb: GET}]}]}}\n", "spec.accessControl.policies[0].operations[0].httpVerb must be a list");
        refused("spec: {metric: {rules: [{labels: [{regex: []}]}]}}\n", "regex must be a map");
        refused("spec: {tracing: {otel: {headers: [{name: a}]}}}\n", "\"name=value\", or a map with name and value");
        refused("- a\n", "c.yaml:1:1: a Configuration must be a map");
        refused("just text\n", "a Configuration must be a map");
        refused("spec:\n\tx: 1\n", "c.yaml:2:1: found");
        refused("spec: {}\nspec: {}\n", "c.yaml:2:1: the key \"spec\" stands already in line 1; remove one");
        refused("spec: {nameResolution: {configuration: {a: .nan}}}\n", "has no form in JSON");
        refused("spec: {secrets: {scopes: [{storeName: a}, {storeName: a}]}}\n", "a storeName is repeated in secrets configuration");
        refused("spec: {secrets: {scopes: [{storeName: a, defaultAccess: never}]}}\n", "defaultAccess never can be either allow or deny");
}
END_TEST

START_TEST(kind_and_unknown_fields_do_not_matter)
{
        apply("apiVersion: foo/v9\nkind: Whatever\nspec: {unknown: {a: 1}, wasm: {strictSandbox: true, more: 1}}\n");
        ck_assert(c.wasm_strict_sandbox);
        apply("");
        apply("spec:\n");
        apply("spec: {features: null, secrets: {scopes: null}, tracing: null, api: {allowed: [null]}}\n");
        ck_assert(c.tracing_otel_is_secure);
        ck_assert_str_eq(c.api_allowed[0].name, "");
}
END_TEST

START_TEST(secret_scopes_decide)
{
        apply("spec: {secrets: {scopes: [{storeName: allow, deniedSecrets: [d]}, {storeName: deny, defaultAccess: deny}, "
              "{storeName: list, defaultAccess: deny, allowedSecrets: [a], deniedSecrets: [a]}]}}\n");
        ck_assert(configuration_secret_allowed(&c, "allow", STR("x")));
        ck_assert(!configuration_secret_allowed(&c, "allow", STR("d")));
        ck_assert(!configuration_secret_allowed(&c, "deny", STR("x")));
        ck_assert(configuration_secret_allowed(&c, "list", STR("a")));
        ck_assert(!configuration_secret_allowed(&c, "list", STR("b")));
        ck_assert(configuration_secret_allowed(&c, "other", STR("x")));
}
END_TEST

START_TEST(variables_are_replaced_before_parsing)
{
        setenv("RATE", "0.25", 1);
        setenv("BLOCK", "strictSandbox: true", 1);
        add_file("spec:\n  tracing: {samplingRate: \"${RATE}\", zipkin: {endpointAddress: \"a$UNSET${UNSET}b\"}}\n  wasm: {$BLOCK}\n");
        load();
        ck_assert_str_eq(c.tracing_sampling_rate, "0.25");
        ck_assert_str_eq(c.tracing_zipkin, "ab");
        ck_assert(c.wasm_strict_sandbox);
}
END_TEST

START_TEST(expansion_follows_os_expandenv)
{
        static const struct {
                const char *in, *out;
        } rows[] = {
                {"", ""}, {"plain", "plain"}, {"$A", "va"}, {"${A}", "va"}, {"$A_", ""}, {"$A-b", "va-b"}, {"$AB", ""}, {"${A}B", "vaB"},
                {"$", "$"}, {"a$", "a$"}, {"$$", ""}, {"$$A", "A"}, {"a$ b", "a$ b"}, {"$.x", "$.x"}, {"${}", ""}, {"${}x", "x"},
                {"${A", "A"}, {"${", ""}, {"$1x", "x"}, {"${1}x", "x"}, {"${*}", ""}, {"$*x", "x"}, {"${A B}", ""}, {"${NOT-A}x", "x"},
                {"$A$A", "vava"}, {"\\$A", "\\va"}, {"${$}", ""}, {"$(A)", "$(A)"}, {"{$A}", "{va}"}, {"${A}}", "va}"}, {"$E", ""},
        };
        setenv("A", "va", 1);
        setenv("E", "", 1);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct buf b = {0};
                ck_assert_int_eq(expand_env(&b, str_of(rows[i].in)), 0);
                ck_assert_msg(str_eqz(buf_str(&b), rows[i].out), "%s: %.*s", rows[i].in, STR_FMT(buf_str(&b)));
                buf_fini(&b);
        }
}
END_TEST

START_TEST(expansion_is_bounded)
{
        struct buf text = {0}, out = {0};
        char *big = calloc(1, 100001);
        memset(big, 'x', 100000);
        setenv("BIG", big, 1);
        for (int i = 0; i < 1000; i++)
                buf_addz(&text, "$BIG ");
        ck_assert_int_eq(expand_env(&out, buf_str(&text)), -EFBIG);
        buf_fini(&text);
        buf_fini(&out);
        free(big);
}
END_TEST

/* ---- OpenTelemetry's variables ---- */

START_TEST(otel_variables_count_without_an_endpoint)
{
        setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317", 1);
        setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", 1);
        setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=se%20cret , b = c=d", 1);
        setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1500", 1);
        setenv("OTEL_EXPORTER_OTLP_INSECURE", "true", 1);
        apply("spec: {tracing: {otel: {headers: [x=y]}}}");
        ck_assert_str_eq(c.tracing_otel_endpoint, "collector:4317");
        ck_assert_str_eq(c.tracing_otel_protocol, "http");
        ck_assert_str_eq(c.tracing_sampling_rate, "1");
        ck_assert(!c.tracing_otel_is_secure);
        ck_assert_uint_eq(c.n_tracing_otel_headers, 3);
        ck_assert_str_eq(c.tracing_otel_headers[1], "api-key=se cret");
        ck_assert_str_eq(c.tracing_otel_headers[2], "b=c=d");
        ck_assert_int_eq(c.tracing_otel_timeout_ns, INT64_C(1500000000));
        setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1", 1);
        setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", 1);
        apply("");
        ck_assert_str_eq(c.tracing_otel_endpoint, "t:1");
        ck_assert_str_eq(c.tracing_otel_protocol, "grpc");
        apply("spec: {tracing: {otel: {endpointAddress: mine}}}");
        ck_assert_str_eq(c.tracing_otel_endpoint, "mine");
        ck_assert_uint_eq(c.n_tracing_otel_headers, 2); /* as otel's exporters: what the endpoint leaves open */
        apply("spec: {tracing: {otel: {endpointAddress: mine, headers: [x=y]}}}");
        ck_assert_uint_eq(c.n_tracing_otel_headers, 1);
        ck_assert_str_eq(c.tracing_sampling_rate, "");
}
END_TEST

static void otel_refused(const char *name, const char *text, const char *want)
{
        setenv(name, text, 1);
        configuration_fini(&c);
        ck_assert_int_eq(configuration_apply(&c, STR(""), "c.yaml", &error), -EINVAL);
        ck_assert_msg(strstr(error, want), "%s", error);
        ck_assert_ptr_null(strstr(error, "s3cret"));
        unsetenv(name);
}

START_TEST(wrong_otel_variables_are_refused_without_their_value)
{
        otel_refused("OTEL_EXPORTER_OTLP_HEADERS", "s3cret", "error setting tracing spec from env: missing '='");
        otel_refused("OTEL_EXPORTER_OTLP_HEADERS", "a b=s3cret", "invalid header key");
        otel_refused("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret%2", "escape header value");
        otel_refused("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cret%zz", "escape header value");
        otel_refused("OTEL_EXPORTER_OTLP_HEADERS", "a=b,", "missing '='");
        otel_refused("OTEL_EXPORTER_OTLP_TIMEOUT", "5s", "strconv.Atoi: parsing \"5s\": invalid syntax");
        otel_refused("OTEL_EXPORTER_OTLP_TIMEOUT", "99999999999999999999", "value out of range");
}
END_TEST

/* ---- no memory ---- */

static bool load_all(void *arg)
{
        struct configuration own;
        const char *why = NULL;
        (void)arg;
        int r = configuration_load(&own, &o, &why);
        if (r == 0)
                configuration_section(&own, "metric");
        configuration_fini(&own);
        return r == 0 || why;
}

START_TEST(survives_each_failing_allocation)
{
        setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "x", 1);
        setenv("OTEL_EXPORTER_OTLP_HEADERS", "a=b", 1);
        add_file("spec:\n  tracing: {samplingRate: '1', otel: {headers: [{name: a, value: b}]}}\n  metrics: {rules: [{name: x}]}\n"
                 "  secrets: {scopes: [{storeName: x}]}\n  features: [{name: f, enabled: true}]\n");
        ck_assert_int_gt(fault_each(load_all, NULL), 10);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("configuration");
        TCase *t = tcase_create("configuration");
        tcase_add_checked_fixture(t, setup, fini);
        tcase_add_test(t, defaults_are_the_references);
        tcase_add_test(t, every_section_is_read);
        tcase_add_test(t, later_files_lie_over_earlier_ones);
        tcase_add_test(t, metrics_override_metric);
        tcase_add_test(t, kubernetes_mode_reads_no_file);
        tcase_add_test(t, files_that_cannot_be_read);
        tcase_add_test(t, wrong_documents_name_their_place);
        tcase_add_test(t, kind_and_unknown_fields_do_not_matter);
        tcase_add_test(t, secret_scopes_decide);
        tcase_add_test(t, variables_are_replaced_before_parsing);
        tcase_add_test(t, expansion_follows_os_expandenv);
        tcase_add_test(t, expansion_is_bounded);
        tcase_add_test(t, otel_variables_count_without_an_endpoint);
        tcase_add_test(t, wrong_otel_variables_are_refused_without_their_value);
        tcase_add_test(t, survives_each_failing_allocation);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
