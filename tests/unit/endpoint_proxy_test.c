/* Which servers the environment's proxies are for. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "kernel/mesh/endpoint_proxy.h"

static struct arena arena;
static struct endpoint_proxy found;

static int find(const char *no_proxy, const char *host, const char *port)
{
        struct proxy_settings s = {.http = "proxy:3128", .no_proxy = no_proxy};
        const char *why = NULL;

        return endpoint_proxy_find(&arena, &s, false, str_of(host), str_of(port), &found, &why);
}

START_TEST(no_proxy_names_hosts_domains_and_networks)
{
        static const struct {
                const char *list, *host, *port;
                int want;
        } rows[] = {
                {NULL, "a.test", "80", 1}, {"", "a.test", "80", 1}, {"*", "a.test", "80", 0}, {"a.test", "a.test", "80", 0}, {"A.TEST", "a.test", "80", 0},
                {"a.test", "b.a.test", "80", 0}, {"a.test", "ba.test", "80", 1}, {".a.test", "a.test", "80", 1}, {".a.test", "b.a.test", "80", 0},
                {"*.a.test", "b.a.test", "80", 0}, {"*.a.test", "a.test", "80", 1}, {"x , a.test ,y", "a.test", "80", 0}, {"a.test:81", "a.test", "80", 1},
                {"a.test:80", "a.test", "80", 0}, {"10.0.0.0/8", "10.1.2.3", "80", 0}, {"10.0.0.0/8", "11.1.2.3", "80", 1}, {"10.128.0.0/9", "10.127.0.1", "80", 1},
                {"10.0.0.0/8", "10.test", "80", 1}, {"10.1.2.3", "10.1.2.3", "80", 0}, {"10.1.2.3:81", "10.1.2.3", "80", 1}, {"fd00::/8", "fd12::1", "80", 0},
                {"fd00::/8", "fe12::1", "80", 1}, {"[fd12::1]:80", "fd12::1", "80", 0}, {"fd12::1", "fd12:0::1", "80", 0}, {"10.0.0.0/99", "10.1.2.3", "80", 1},
                {"0.0.0.0/0", "8.8.8.8", "80", 0}, {",,", "a.test", "80", 1}, {".", "a.test", "80", 1}, {"[", "a.test", "80", 1}, {":80", "a.test", "80", 1},
                {NULL, "localhost", "80", 0}, {NULL, "127.8.0.1", "80", 0}, {NULL, "::1", "80", 0}, {NULL, "128.0.0.1", "80", 1},
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                ck_assert_msg(find(rows[i].list, rows[i].host, rows[i].port) == rows[i].want, "row %zu: %s, %s", i, rows[i].list, rows[i].host);
}
END_TEST

START_TEST(addresses_of_proxies)
{
        static const struct {
                const char *text, *target, *authorization; /* target NULL: refused */
        } rows[] = {
                {"proxy:3128", "proxy:3128", ""}, {"http://proxy", "proxy:80", ""}, {"http://u:p%40w@proxy:1/", "proxy:1", "Basic dTpwQHc="},
                {"http://[::1]:3128", "[::1]:3128", ""}, {"https://proxy", NULL, NULL}, {"socks5://proxy", NULL, NULL}, {"http://", NULL, NULL},
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct proxy_settings s = {.https = rows[i].text};
                const char *why = NULL;
                int r = endpoint_proxy_find(&arena, &s, true, STR("a.test"), STR("443"), &found, &why);

                ck_assert_msg(r == (rows[i].target ? 1 : -EINVAL), "%s: %d", rows[i].text, r);
                ck_assert(rows[i].target ? str_eqz(found.target, rows[i].target) && str_eqz(found.authorization, rows[i].authorization) : why != NULL);
                ck_assert_int_eq(endpoint_proxy_find(&arena, &s, false, STR("a.test"), STR("80"), &found, &why), 0);
        }
}
END_TEST

int main(void)
{
        Suite *s = suite_create("endpoint_proxy");
        TCase *t = tcase_create("endpoint_proxy");
        SRunner *r;
        int failed;

        arena_init(&arena, 0);
        tcase_add_test(t, no_proxy_names_hosts_domains_and_networks);
        tcase_add_test(t, addresses_of_proxies);
        suite_add_tcase(s, t);
        r = srunner_create(s);
        srunner_run_all(r, CK_NORMAL);
        failed = srunner_ntests_failed(r);
        srunner_free(r);
        arena_fini(&arena);
        return failed != 0;
}
