/* kernel/front: router.h, target.h, api_rules.h, stable_port.h */
#include <errno.h>
#include <stdio.h>

#include "kernel/front/api_rules.h"
#include "kernel/front/router.h"
#include "kernel/front/stable_port.h"
#include "kernel/front/target.h"
#include "kernel/front/unconfigured.h"
#include "tests/unit/fault.h"
#include "tests/unit/on_loop.h"

static const struct http_route rows[] = {
        {"GET", "/v1.0/state/{store}/{key}", "state", "v1", "get"},
        {"DELETE", "/v1.0/state/{store}/{key}", "state", "v1", "delete"},
        {"POST,PUT", "/v1.0/state/{store}", "state", "v1", "save"},
        {"POST,PUT", "/v1.0/state/{store}/bulk", "state", "v1", "bulk"},
        {"GET", "/v1.0/secrets/{store}/bulk", "secrets", "v1", "bulk-secrets"},
        {"GET", "/v1.0/secrets/{store}/{key}", "secrets", "v1", "secret"},
        {"POST", "/v1.0/publish/{pubsub}/{topic...}", "publish", "v1", "publish"},
        {"POST", "/v1.0/publish/bulk/{pubsub}/{topic...}", "publish", "v1", "bulk-publish"},
        {"*", "/v1.0/invoke/{rest...}", "invoke", "v1", "invoke"},
};

static struct router *made(void)
{
        struct router *r;

        ck_assert_int_eq(router_new(&r), 0);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
                ck_assert_int_eq(router_add(r, &rows[i]), 0);
        return r;
}

/* Name of the route, "404" or "405 <allow>". */
static const char *find(struct router *r, const char *method, const char *path, struct route_match *m)
{
        static char text[80];

        if (router_find(r, str_of(method), str_of(path), m))
                return m->route->name;
        if (!m->path_exists)
                return "404";
        snprintf(text, sizeof text, "405 %s", m->allow);
        return text;
}

static struct str param(const struct route_match *m, const char *name)
{
        for (size_t i = 0; i < m->n; i++)
                if (str_eqz(m->param[i].name, name))
                        return m->param[i].value;
        return STR("(none)");
}

START_TEST(a_literal_segment_wins_over_a_parameter)
{
        struct router *r = made();
        struct route_match m;

        ck_assert_str_eq(find(r, "POST", "/v1.0/state/s/bulk", &m), "bulk");
        ck_assert_str_eq(find(r, "GET", "/v1.0/secrets/s/bulk", &m), "bulk-secrets");
        ck_assert_str_eq(find(r, "GET", "/v1.0/secrets/bulk/x", &m), "secret");
        ck_assert(str_eqz(param(&m, "store"), "bulk") && str_eqz(param(&m, "key"), "x"));
        router_free(r);
}
END_TEST

START_TEST(a_method_that_does_not_fit_falls_back_to_the_parameter)
{
        struct router *r = made();
        struct route_match m;

        ck_assert_str_eq(find(r, "DELETE", "/v1.0/state/s/bulk", &m), "delete");
        ck_assert(str_eqz(param(&m, "key"), "bulk"));
        router_free(r);
}
END_TEST

START_TEST(rest_takes_slashes_but_never_nothing)
{
        struct router *r = made();
        struct route_match m;

        ck_assert_str_eq(find(r, "POST", "/v1.0/publish/p/a/b/c", &m), "publish");
        ck_assert(str_eqz(param(&m, "pubsub"), "p") && str_eqz(param(&m, "topic"), "a/b/c"));
        ck_assert_str_eq(find(r, "POST", "/v1.0/publish/bulk/p/t", &m), "bulk-publish");
        ck_assert_str_eq(find(r, "POST", "/v1.0/publish/bulk/p", &m), "publish");
        ck_assert(str_eqz(param(&m, "pubsub"), "bulk") && str_eqz(param(&m, "topic"), "p"));
        ck_assert_str_eq(find(r, "POST", "/v1.0/publish/p", &m), "404");
        ck_assert_str_eq(find(r, "BREW", "/v1.0/invoke/x", &m), "invoke");
        router_free(r);
}
END_TEST

START_TEST(unknown_path_and_unknown_method_differ)
{
        struct router *r = made();
        struct route_match m;

        ck_assert_str_eq(find(r, "GET", "/", &m), "404");
        ck_assert_str_eq(find(r, "GET", "", &m), "404");
        ck_assert_str_eq(find(r, "GET", "v1.0/state/a/b", &m), "404");
        ck_assert_str_eq(find(r, "GET", "/v1.0/state", &m), "404");
        ck_assert_str_eq(find(r, "GET", "/v1.0/state/a/b/c", &m), "404");
        ck_assert_str_eq(find(r, "PATCH", "/v1.0/state/a", &m), "405 POST, PUT");
        ck_assert_str_eq(find(r, "GET", "/v1.0//x", &m), "404");
        router_free(r);
}
END_TEST

START_TEST(a_taken_route_is_not_replaced)
{
        static const struct http_route again[] = {{"PUT", "/v1.0/state/{other}", "", "", "again"},
                                                  {"GET", "/v1.0/state/{other}", "", "", "new"},
                                                  {"GET", "/v1.0/invoke/{rest...}", "", "", "beside"}};
        struct router *r = made();
        struct route_match m;

        ck_assert_int_eq(router_add(r, &again[0]), -EEXIST);
        ck_assert_int_eq(router_add(r, &again[1]), 0);
        ck_assert_int_eq(router_add(r, &again[2]), 0);
        ck_assert_int_eq(router_add(r, &again[2]), -EEXIST);
        ck_assert_str_eq(find(r, "PUT", "/v1.0/state/x", &m), "save");
        ck_assert_str_eq(find(r, "GET", "/v1.0/state/x", &m), "new");
        ck_assert(str_eqz(param(&m, "other"), "x"));
        router_free(r);
}
END_TEST

START_TEST(every_unconfigured_route_can_be_reached)
{
        const struct http_route *row;
        struct router *r;
        struct route_match m;
        size_t n = 0;

        ck_assert_int_eq(router_new(&r), 0);
        for (; (row = unconfigured_http(n)); n++)
                ck_assert_int_eq(router_add(r, row), 0);
        ck_assert_uint_gt(n, 0);
        for (size_t i = 0; i < n; i++) {
                struct str method;
                struct str methods = str_of((row = unconfigured_http(i))->methods);
                char path[200];
                size_t at = 0;
                for (const char *p = row->path; *p; p++) { /* {name} -> x */
                        path[at++] = *p == '{' ? 'x' : *p;
                        while (*p == '{' || (p[0] != '/' && p > row->path && path[at - 1] == 'x' && p[0] != '}' && *p))
                                p++;
                }
                path[at] = '\0';
                method = str_eqz(methods, "*") ? STR("GET") : str_cut(&methods, ',');
                ck_assert_msg(router_find(r, method, str_of(path), &m), "%s", path);
        }
        router_free(r);
}
END_TEST

static bool add_all(void *arg)
{
        struct router *r;
        bool ok = true;

        if (router_new(&r))
                return true;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                int e = router_add(r, &rows[i]);
                ok &= e == 0 || e == -ENOMEM;
        }
        router_free(r);
        return ok;
}

START_TEST(a_failed_allocation_refuses_the_route_only)
{
        ck_assert_int_gt(fault_each(add_all, NULL), 10);
}
END_TEST

/* ---- target ---- */

static struct invoke_target target(struct arena *a, const char *path, const char *name, const char *value)
{
        struct http_headers h = {0};

        if (name)
                http_headers_add(&h, a, str_of(name), str_of(value));
        return invoke_target_find(a, str_of(path), &h);
}

#define ck_target(path, name, value, want_id, want_method)                                                  \
        do {                                                                                                \
                struct arena a_ = {0};                                                                      \
                struct invoke_target t_ = target(&a_, path, name, value);                                   \
                ck_assert_msg(str_eqz(t_.id, want_id), "%s: id %.*s", path, STR_FMT(t_.id));                \
                ck_assert_msg(str_eqz(t_.method, want_method), "%s: method %.*s", path, STR_FMT(t_.method)); \
                arena_fini(&a_);                                                                            \
        } while (0)

START_TEST(target_comes_from_header_then_credentials_then_path)
{
        ck_target("/v1.0/invoke/app/method/a/b", NULL, NULL, "app", "a/b");
        ck_target("/v1.0/invoke/app/method/a/../b", NULL, NULL, "app", "b");
        ck_target("/v1.0/invoke/app/method/", NULL, NULL, "app", "");
        ck_target("//v1.0//invoke//app/method/x", NULL, NULL, "app", "x");
        ck_target("/v1.0/invoke/http://h:80/method/x", NULL, NULL, "http://h:80", "x");
        ck_target("/v1.0/invoke/http%3A%2F%2Fh/method/x", NULL, NULL, "http://h", "x");
        ck_target("/v1.0/invoke/app", NULL, NULL, "", "");
        ck_target("/v1.0/invoke//method/x", NULL, NULL, "", "");
        ck_target("/v1.0/invokes/app/method/x", NULL, NULL, "", "");
        ck_target("/any/where", "Dapr-App-Id", "app2", "app2", "any/where");
        ck_target("/v1.0/invoke/app/method/x", "dapr-app-id", "app2", "app2", "v1.0/invoke/app/method/x");
        ck_target("/p", "Authorization", "Basic ZGFwci1hcHAtaWQ6bXlhcHA=", "myapp", "p");     /* dapr-app-id:myapp */
        ck_target("/p", "Authorization", "Basic RGFwci1BcHAtSWQ6bXlhcHA=", "myapp", "p");     /* Dapr-App-Id:myapp */
        ck_target("/p", "Authorization", "Basic dXNlcjpteWFwcA==", "", "");                   /* user:myapp */
        ck_target("/p", "Authorization", "Basic ZGFwci1hcHAtaWQ6bXk6YXBw", "", "");           /* two colons */
        ck_target("/p", "Authorization", "Basic !!!", "", "");
}
END_TEST

START_TEST(the_app_id_header_is_removed)
{
        struct arena a = {0};
        struct http_headers h = {0};

        http_headers_add(&h, &a, STR("dapr-app-id"), STR("x"));
        http_headers_add(&h, &a, STR("other"), STR("y"));
        invoke_target_find(&a, STR("/m"), &h);
        ck_assert_uint_eq(h.n, 1);
        arena_fini(&a);
}
END_TEST

/* ---- API lists ---- */

START_TEST(api_lists_name_groups_and_prefixes)
{
        static struct api_rule allow[] = {{"state", "v1", "http"}, {"secrets", "v1", "grpc"}}, deny[] = {{"state/{store}/bulk", "v1.0", "HTTP"}};
        struct configuration c = {.api_allowed = allow, .n_api_allowed = 2, .api_denied = deny, .n_api_denied = 1};
        const struct http_route always = {"GET", "/v1.0/healthz", "healthz", "v1", "h", .always_allowed = true};

        ck_assert(api_rules_allow_http(&c, &rows[0]));
        ck_assert(!api_rules_allow_http(&c, &rows[3])); /* denied by prefix, the older way */
        ck_assert(!api_rules_allow_http(&c, &rows[5])); /* not allowed */
        ck_assert(api_rules_allow_http(&c, &always));
        ck_assert(api_rules_allow_grpc(&c, "secrets.v1"));
        ck_assert(!api_rules_allow_grpc(&c, "state.v1"));
        ck_assert(!api_rules_allow_grpc(&c, ""));
        ck_assert(api_rules_any(&c, "grpc"));
        c.n_api_allowed = 1; /* no rule for gRPC is left: all is allowed there */
        ck_assert(api_rules_allow_grpc(&c, "state.v1"));
        ck_assert(!api_rules_any(&c, "grpc"));
        c.n_api_allowed = c.n_api_denied = 0;
        ck_assert(api_rules_allow_http(&c, &rows[3]));
}
END_TEST

/* ---- port ---- */

START_TEST(stable_port_is_the_references)
{
        uint8_t h[32];
        static const uint8_t abc[] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea};
        static const char two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        static const uint8_t two[] = {0x24, 0x8d, 0x6a, 0x61, 0xd2, 0x06, 0x38, 0xb8};

        sha256(STR("abc"), h);
        ck_assert_mem_eq(h, abc, sizeof abc);
        sha256(str_of(two_blocks), h);
        ck_assert_mem_eq(h, two, sizeof two);
        /* sha256("myapp|/work|1000|vm") begins 0x.. : h[0] + (h[1] >> 5 << 8) above 47300 */
        sha256(STR("myapp|/work|1000|vm"), h);
        ck_assert_int_eq(stable_port("myapp", "/work", 1000, "vm"), 47300 + h[0] + ((h[1] >> 5) << 8));
}
END_TEST

int main(void)
{
        Suite *s = suite_create("router");
        TCase *t = tcase_create("router");

        tcase_add_test(t, a_literal_segment_wins_over_a_parameter);
        tcase_add_test(t, a_method_that_does_not_fit_falls_back_to_the_parameter);
        tcase_add_test(t, rest_takes_slashes_but_never_nothing);
        tcase_add_test(t, unknown_path_and_unknown_method_differ);
        tcase_add_test(t, a_taken_route_is_not_replaced);
        tcase_add_test(t, every_unconfigured_route_can_be_reached);
        tcase_add_test(t, a_failed_allocation_refuses_the_route_only);
        tcase_add_test(t, target_comes_from_header_then_credentials_then_path);
        tcase_add_test(t, the_app_id_header_is_removed);
        tcase_add_test(t, api_lists_name_groups_and_prefixes);
        tcase_add_test(t, stable_port_is_the_references);
        suite_add_tcase(s, t);
        return run_suite(s);
}
