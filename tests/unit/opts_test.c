/* daprd's flags and environment: defaults, every wrong value, what the checks make of them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "tests/unit/fault.h"

static struct daprd_opts o;
static char err[512];

static const char *const variables[] = {
        "NAMESPACE", "DAPR_API_TOKEN", "APP_API_TOKEN", "POD_NAME", "DAPR_ENV_KEYS", "DAPR_COMPONENTS_SOCKETS_FOLDER",
        "DAPR_PLUGINS_PATH", "DAPR_TRUST_ANCHORS", "DAPR_SENTRY_TOKEN_FILE", "DAPR_HOST_IP", "DAPR_HTTP_DISABLE_H2C",
        "DAPR_CONTROLPLANE_NAMESPACE", "DAPR_CONTROLPLANE_TRUST_DOMAIN", "DAPR_SCHEDULER_HOST_ADDRESS_DNS_A",
};

static void clean_environment(void)
{
        for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
                unsetenv(variables[i]);
}

static void fini(void)
{
        opts_fini(&o);
}

/* Splits at spaces; "~" stands for an empty argument. */
static int parse_only(const char *line)
{
        static char copy[1024];
        static char *argv[64];
        int argc = 0;

        snprintf(copy, sizeof copy, "daprd %s", line);
        for (char *save = NULL, *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save))
                argv[argc++] = strcmp(t, "~") ? t : "";
        argv[argc] = NULL;
        *err = '\0';
        return opts_parse(&o, argc, argv, err, sizeof err);
}

static int parse(const char *line)
{
        int r = parse_only(line);
        return r ? r : opts_check(&o, err, sizeof err);
}

#define ok(line) ck_assert_msg(parse(line) == 0, "%s: %s", line, err)
/* Not a wrong command line (exit code 2) but refused by the runtime (exit code 1). */
#define runtime_error(line, text) \
        do { \
                ck_assert_msg(parse_only(line) == 0, "%s: %s", line, err); \
                ck_assert_int_eq(opts_check(&o, err, sizeof err), -EINVAL); \
                ck_assert_msg(strcmp(err, text) == 0, "%s: \"%s\"", line, err); \
                opts_fini(&o); \
        } while (0)

START_TEST(defaults_are_the_references)
{
        ok("--app-id a");
        ck_assert_str_eq(o.mode, "standalone");
        ck_assert_str_eq(o.app_protocol, "http");
        ck_assert_str_eq(o.app_channel_address, "127.0.0.1");
        ck_assert_int_eq(o.app_port, 0);
        ck_assert_int_eq(o.app_max_concurrency, 0);
        ck_assert_int_eq(o.dapr_http_port, 3500);
        ck_assert_int_eq(o.dapr_grpc_port, 50001);
        ck_assert_int_eq(o.profile_port, 7777);
        ck_assert_int_eq(o.metrics_port, 9090);
        ck_assert_int_eq(o.dapr_internal_grpc_port, -1);
        ck_assert_int_eq(o.dapr_public_port, -1);
        ck_assert_uint_eq(o.dapr_listen_addresses.n, 0);
        ck_assert_uint_eq(o.resources_path.n, 0);
        ck_assert_uint_eq(o.config.n, 0);
        ck_assert_str_eq(o.control_plane_trust_domain, "localhost");
        ck_assert_str_eq(o.control_plane_namespace, "default");
        ck_assert_int_eq(o.scheduler_job_streams, 3);
        ck_assert(!o.enable_mtls && !o.enable_profiling && o.enable_metrics && !o.enable_app_health_check);
        ck_assert_str_eq(o.allowed_origins, "");
        ck_assert_str_eq(o.metrics_listen_address, "0.0.0.0");
        ck_assert_int_eq(o.enable_api_logging, -1);
        ck_assert_int_eq(o.max_body_size, 4 << 20);
        ck_assert_int_eq(o.read_buffer_size, 4 << 10);
        ck_assert_int_eq(o.dapr_graceful_shutdown_seconds, 5);
        ck_assert_int_eq(o.dapr_block_shutdown_duration_ns, -1);
        ck_assert_str_eq(o.app_health_check_path, "/healthz");
        ck_assert_int_eq(o.app_health_probe_interval, 5);
        ck_assert_int_eq(o.app_health_probe_timeout, 500);
        ck_assert_int_eq(o.app_health_threshold, 3);
        ck_assert_str_eq(o.log_level, "info");
        ck_assert_str_eq(o.namespace_, "");
        ck_assert_str_eq(o.own_namespace, "default");
        ck_assert_str_eq(o.sockets_folder, "/tmp/dapr-components-sockets");
        ck_assert_ptr_null(o.env_keys);
}
END_TEST

START_TEST(all_flags_of_the_black_box_suite_are_taken)
{
        ok("--log-level=debug --app-id=x --app-protocol=grpc --dapr-grpc-port=1 --dapr-http-port=2 --dapr-internal-grpc-port=3 "
           "--dapr-internal-grpc-listen-address=127.0.0.1 --dapr-listen-addresses=127.0.0.1,::1 --dapr-public-port=4 "
           "--dapr-public-listen-address=127.0.0.1 --metrics-port=5 --metrics-listen-address=127.0.0.1 --profile-port=6 "
           "--enable-app-health-check=false --app-health-probe-interval=0 --app-health-threshold=0 --mode=standalone "
           "--enable-mtls=false --enable-api-logging=true --enable-profiling --app-port=7 --resources-path=a --resources-path=b,c "
           "--config=d --config=e --placement-host-address=h:1,i:2 --sentry-address=s --control-plane-address=c "
           "--disable-builtin-k8s-secret-store=true --dapr-graceful-shutdown-seconds=9 --dapr-block-shutdown-duration=2s");
        ck_assert_int_eq(o.dapr_internal_grpc_port, 3);
        ck_assert_int_eq(o.dapr_public_port, 4);
        ck_assert_uint_eq(o.dapr_listen_addresses.n, 2);
        ck_assert_uint_eq(o.resources_path.n, 3);
        ck_assert_uint_eq(o.config.n, 2);
        ck_assert_int_eq(o.enable_api_logging, 1);
        ck_assert_int_eq(o.app_health_probe_interval, 5);
        ck_assert_int_eq(o.app_health_threshold, 3);
        ck_assert_int_eq(o.dapr_block_shutdown_duration_ns, INT64_C(2000000000));
        ck_assert_str_eq(o.placement_host_address, "h:1,i:2");
        ck_assert(o.enable_profiling && o.disable_builtin_k8s_secret_store);
}
END_TEST

/* What `dapr run` of Dapr's CLI gives. */
START_TEST(minus_one_is_no_port)
{
        ok("--app-id x --app-port -1 --profile-port -1 --app-max-concurrency -1 --app-protocol http --max-body-size 4Mi --read-buffer-size 4Ki");
        ck_assert_int_eq(o.app_port, 0);
        ck_assert_int_eq(o.profile_port, -1);
}
END_TEST

START_TEST(single_dash_and_the_other_flags)
{
        ok("-app-id x -scheduler-host-address=a:1,b:2 -control-plane-trust-domain td -max-body-size 1Mi -allowed-origins * "
           "-disable-init-endpoints config, -app-max-concurrency 4 -log-as-json -unix-domain-socket /tmp/u");
        ck_assert_uint_eq(o.scheduler_host_address.n, 2);
        ck_assert_str_eq(o.control_plane_trust_domain, "td");
        ck_assert_int_eq(o.max_body_size, 1 << 20);
        ck_assert(o.disable_config_endpoint && !o.disable_subscribe_endpoint && o.log_as_json);
        ck_assert_int_eq(o.app_max_concurrency, 4);
}
END_TEST

START_TEST(app_id_is_required_and_holds_no_dots)
{
        runtime_error("", "parameter app-id cannot be empty");
        runtime_error("--app-id=", "parameter app-id cannot be empty");
        runtime_error("--app-id=a.b", "parameter app-id cannot contain dots");
        ok("--mode kubernetes --app-id a.b");
}
END_TEST

START_TEST(mode_is_one_of_two)
{
        runtime_error("--app-id a --mode host", "invalid mode: host; use standalone or kubernetes");
}
END_TEST

START_TEST(wrong_ports_are_refused_by_name)
{
        runtime_error("--app-id a --dapr-http-port x",
                      "error parsing dapr-http-port flag: strconv.Atoi: parsing \"x\": invalid syntax");
        runtime_error("--app-id a --dapr-http-port=", "error parsing dapr-http-port flag: strconv.Atoi: parsing \"\": invalid syntax");
        runtime_error("--app-id a --dapr-grpc-port 1.5",
                      "error parsing dapr-grpc-port flag: strconv.Atoi: parsing \"1.5\": invalid syntax");
        runtime_error("--app-id a --profile-port 99999999999999999999",
                      "error parsing profile-port flag: strconv.Atoi: parsing \"99999999999999999999\": value out of range");
        runtime_error("--app-id a --dapr-internal-grpc-port -",
                      "error parsing dapr-internal-grpc-port: strconv.Atoi: parsing \"-\": invalid syntax");
        runtime_error("--app-id a --dapr-public-port 0x10",
                      "error parsing dapr-public-port: strconv.Atoi: parsing \"0x10\": invalid syntax");
        runtime_error("--app-id a --app-port 80a", "error parsing app-port: strconv.Atoi: parsing \"80a\": invalid syntax");
        runtime_error("--app-id a --app-port 65536", "error parsing app-port: 65536 is not a port; give a number from 0 to 65535");
        runtime_error("--app-id a --dapr-grpc-port -1", "error parsing dapr-grpc-port flag: -1 is not a port; give a number from 0 to 65535");
        runtime_error("--app-id a --enable-profiling --profile-port -1",
                      "error parsing profile-port flag: -1 is not a port; give a number from 0 to 65535");
        runtime_error("--app-id a --metrics-port y", "failed to parse metrics port: strconv.Atoi: parsing \"y\": invalid syntax");
        ok("--app-id a --metrics-port y --enable-metrics=false");
}
END_TEST

START_TEST(app_port_must_not_be_a_dapr_port)
{
        runtime_error("--app-id a --app-port 3500", "the 'dapr-http-port' argument value 3500 conflicts with 'app-port'");
        runtime_error("--app-id a --app-port 50001", "the 'dapr-grpc-port' argument value 50001 conflicts with 'app-port'");
        runtime_error("--app-id a --dapr-http-port 0", "the 'dapr-http-port' argument value 0 conflicts with 'app-port'");
}
END_TEST

START_TEST(internal_port_zero_means_the_stable_one)
{
        ok("--app-id a --dapr-internal-grpc-port 0");
        ck_assert_int_eq(o.dapr_internal_grpc_port, -1);
}
END_TEST

START_TEST(app_protocol_has_five_values)
{
        static const char *const names[] = {"http", "https", "h2c", "grpc", "grpcs"};
        char line[64];
        for (size_t i = 0; i < 5; i++) {
                snprintf(line, sizeof line, "--app-id a --app-protocol %s", names[i]);
                ok(line);
                ck_assert_str_eq(o.app_protocol, names[i]);
                opts_fini(&o);
        }
        ok("--app-id a --app-protocol GRPC");
        ck_assert_str_eq(o.app_protocol, "grpc");
        opts_fini(&o);
        ok("--app-id a --app-protocol=");
        ck_assert_str_eq(o.app_protocol, "http");
        opts_fini(&o);
        runtime_error("--app-id a --app-protocol tcp", "invalid value for 'app-protocol': tcp");
}
END_TEST

START_TEST(app_ssl_turns_the_protocol_to_tls)
{
        ok("--app-id a --app-ssl");
        ck_assert_str_eq(o.app_protocol, "https");
        opts_fini(&o);
        ok("--app-id a --app-ssl --app-protocol grpc");
        ck_assert_str_eq(o.app_protocol, "grpcs");
        opts_fini(&o);
        ok("--app-id a --app-ssl --app-protocol h2c");
        ck_assert_str_eq(o.app_protocol, "h2c");
}
END_TEST

START_TEST(init_endpoints_are_two)
{
        ok("--app-id a --disable-init-endpoints SUBSCRIBE --disable-init-endpoints config");
        ck_assert(o.disable_config_endpoint && o.disable_subscribe_endpoint);
        opts_fini(&o);
        runtime_error("--app-id a --disable-init-endpoints jobs", "invalid value for 'disable-init-endpoints': jobs");
}
END_TEST

START_TEST(probe_timeout_fits_into_the_interval)
{
        runtime_error("--app-id a --app-health-probe-interval 1 --app-health-probe-timeout 1001",
                      "value for 'health-probe-timeout' must be smaller than 'health-probe-interval'");
        ok("--app-id a --app-health-probe-interval 1 --app-health-probe-timeout 1000");
        opts_fini(&o);
        ok("--app-id a --app-health-probe-interval=-3 --app-health-probe-timeout=-1 --app-health-threshold 2147483647");
        ck_assert_int_eq(o.app_health_probe_interval, 5);
        ck_assert_int_eq(o.app_health_probe_timeout, 500);
        ck_assert_int_eq(o.app_health_threshold, 3);
}
END_TEST

START_TEST(sizes_are_quantities_and_win_over_the_old_flags)
{
        ok("--app-id a --max-body-size 10k --dapr-http-max-request-size 1 --read-buffer-size 64Ki --dapr-http-read-buffer-size 1");
        ck_assert_int_eq(o.max_body_size, 10000);
        ck_assert_int_eq(o.read_buffer_size, 65536);
        opts_fini(&o);
        ok("--app-id a --dapr-http-max-request-size 2 --dapr-http-read-buffer-size 8");
        ck_assert_int_eq(o.max_body_size, 2 << 20);
        ck_assert_int_eq(o.read_buffer_size, 8 << 10);
        opts_fini(&o);
        ok("--app-id a --dapr-http-max-request-size=-1 --max-body-size 0 --dapr-http-read-buffer-size=-1");
        ck_assert_int_eq(o.max_body_size, 0);
        ck_assert_int_eq(o.read_buffer_size, 4096);
        opts_fini(&o);
        runtime_error("--app-id a --max-body-size 4Q", "invalid value for 'max-body-size' option: \"4Q\" is not a quantity; write a "
                                                       "number of bytes, or one with a unit like 4Mi or 64Ki");
        runtime_error("--app-id a --read-buffer-size ~", "invalid value for 'read-buffer-size' option: \"\" is not a quantity; write "
                                                         "a number of bytes, or one with a unit like 4Mi or 64Ki");
}
END_TEST

START_TEST(values_of_the_wrong_type_are_usage_errors)
{
        static const char *const lines[] = {
                "--app-max-concurrency many", "--app-ssl=2", "--enable-mtls=maybe", "--enable-profiling=5",
                "--dapr-http-max-request-size 1MB", "--dapr-http-read-buffer-size x", "--dapr-graceful-shutdown-seconds 5s",
                "--dapr-block-shutdown-duration 5", "--enable-api-logging=unset", "--app-health-probe-interval 1s",
                "--app-health-probe-timeout 1s", "--app-health-threshold three", "--scheduler-job-streams x",
                "--scheduler-job-streams=-1", "--log-as-json=json", "--enable-metrics=on", "--disable-builtin-k8s-secret-store=x",
                "--enable-app-health-check=x", "--version=x", "--build-info=x", "--wait=x", "--no-such-flag", "--app-id",
                "--app-max-concurrency 99999999999",
        };
        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
                int r = parse_only(lines[i]);
                ck_assert_msg(r == -EINVAL && *err, "%s: %d", lines[i], r);
        }
}
END_TEST

START_TEST(negative_grace_means_the_default)
{
        ok("--app-id a --dapr-graceful-shutdown-seconds=-1");
        ck_assert_int_eq(o.dapr_graceful_shutdown_seconds, 5);
}
END_TEST

START_TEST(components_path_counts_when_it_stands_alone)
{
        ok("--app-id a --components-path /c");
        ck_assert_uint_eq(o.resources_path.n, 1);
        ck_assert_str_eq(o.resources_path.v[0], "/c");
        opts_fini(&o);
        ok("--app-id a --components-path /c --resources-path /r");
        ck_assert_uint_eq(o.resources_path.n, 1);
        ck_assert_str_eq(o.resources_path.v[0], "/r");
}
END_TEST

START_TEST(environment_is_read)
{
        setenv("NAMESPACE", "ns", 1);
        setenv("DAPR_API_TOKEN", "t1", 1);
        setenv("APP_API_TOKEN", "t2", 1);
        setenv("POD_NAME", "pod", 1);
        setenv("DAPR_ENV_KEYS", "A B", 1);
        setenv("DAPR_COMPONENTS_SOCKETS_FOLDER", "/s", 1);
        setenv("DAPR_HTTP_DISABLE_H2C", "True", 1);
        setenv("DAPR_CONTROLPLANE_NAMESPACE", "cns", 1);
        setenv("DAPR_CONTROLPLANE_TRUST_DOMAIN", "ctd", 1);
        setenv("DAPR_SCHEDULER_HOST_ADDRESS_DNS_A", "s:1,t:2", 1);
        ok("--app-id a");
        ck_assert_str_eq(o.namespace_, "ns");
        ck_assert_str_eq(o.own_namespace, "ns");
        ck_assert_str_eq(o.api_token, "t1");
        ck_assert_str_eq(o.app_api_token, "t2");
        ck_assert_str_eq(o.pod_name, "pod");
        ck_assert_str_eq(o.env_keys, "A B");
        ck_assert_str_eq(o.sockets_folder, "/s");
        ck_assert(o.http_disable_h2c);
        ck_assert_str_eq(o.control_plane_namespace, "cns");
        ck_assert_str_eq(o.control_plane_trust_domain, "ctd");
        ck_assert_uint_eq(o.scheduler_host_address.n, 2);
        ck_assert_str_eq(o.scheduler_host_address.v[1], "t:2");
        opts_fini(&o);
        ok("--app-id a --control-plane-namespace default --control-plane-trust-domain localhost --scheduler-host-address x:1");
        ck_assert_str_eq(o.control_plane_namespace, "default");
        ck_assert_str_eq(o.control_plane_trust_domain, "localhost");
        ck_assert_uint_eq(o.scheduler_host_address.n, 1);
}
END_TEST

START_TEST(version_and_build_info_are_answered)
{
        ck_assert_int_eq(parse_only("--version"), -ECANCELED);
        ck_assert_int_eq(parse_only("--build-info --app-id ~"), -ECANCELED);
        ck_assert_int_eq(parse_only("--help"), -ECANCELED);
}
END_TEST

START_TEST(wait_gives_up_after_its_time)
{
        ck_assert(!wait_outbound_ready(1, 1));
}
END_TEST

static bool parse_and_free(void *arg)
{
        char *argv[] = {"daprd", "--app-id=a", "--resources-path=a,b", "--config=c", NULL};
        int r = opts_parse(&o, 4, argv, err, sizeof err);
        (void)arg;
        if (r == 0)
                opts_fini(&o);
        return r == 0 || r == -ENOMEM || r == -EINVAL;
}

START_TEST(survives_each_failing_allocation)
{
        setenv("DAPR_SCHEDULER_HOST_ADDRESS_DNS_A", "s:1,t:2", 1);
        ck_assert_int_gt(fault_each(parse_and_free, NULL), 3);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("opts");
        TCase *c = tcase_create("opts");
        tcase_add_checked_fixture(c, clean_environment, fini);
        tcase_add_test(c, defaults_are_the_references);
        tcase_add_test(c, all_flags_of_the_black_box_suite_are_taken);
        tcase_add_test(c, minus_one_is_no_port);
        tcase_add_test(c, single_dash_and_the_other_flags);
        tcase_add_test(c, app_id_is_required_and_holds_no_dots);
        tcase_add_test(c, mode_is_one_of_two);
        tcase_add_test(c, wrong_ports_are_refused_by_name);
        tcase_add_test(c, app_port_must_not_be_a_dapr_port);
        tcase_add_test(c, internal_port_zero_means_the_stable_one);
        tcase_add_test(c, app_protocol_has_five_values);
        tcase_add_test(c, app_ssl_turns_the_protocol_to_tls);
        tcase_add_test(c, init_endpoints_are_two);
        tcase_add_test(c, probe_timeout_fits_into_the_interval);
        tcase_add_test(c, sizes_are_quantities_and_win_over_the_old_flags);
        tcase_add_test(c, values_of_the_wrong_type_are_usage_errors);
        tcase_add_test(c, negative_grace_means_the_default);
        tcase_add_test(c, components_path_counts_when_it_stands_alone);
        tcase_add_test(c, environment_is_read);
        tcase_add_test(c, version_and_build_info_are_answered);
        tcase_add_test(c, wait_gives_up_after_its_time);
        tcase_add_test(c, survives_each_failing_allocation);
        suite_add_tcase(s, c);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
