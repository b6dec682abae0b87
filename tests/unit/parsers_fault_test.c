/* Readers of what others wrote, with each allocation failing in turn: they refuse, with a reason where their contract gives one, and leave
 * nothing behind (LeakSanitizer counts). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/policy/acl.h"
#include "kernel/resources/subscription.h"
#include "kernel/super/ledger.h"
#include "kernel/super/manifest.h"
#include "sdk/base/log.h"
#include "sdk/trust/lockfile.h"
#include "tests/unit/fault.h"

static bool manifest(void *arg)
{
        static const char text[] = "name: state.x\nversion: 1.0.0\ncontract: [1]\ntypes:\n  - {type: state.x, versions: [v1]}\nenvironment: [TZ]\n"
                                   "metadata:\n  - {name: a, type: enum, values: [b, c], aliases: [d], default: b}\nsandbox:\n  memory: 64Mi\n";
        struct manifest *m = NULL;
        const char *err = NULL;
        struct arena a;
        arena_init(&a, 0);
        int r = manifest_parse(str_of(text), "/p/plugin.yaml", &m, &a, &err);
        bool ok = r ? !m : m && manifest_serves(m, "state.x", "v1") && manifest_field(m, "a");
        manifest_free(m);
        arena_fini(&a);
        return ok;
}

static bool acl(void *arg)
{
        static const char text[] = "{\"defaultAction\":\"allow\",\"trustDomain\":\"public\",\"policies\":[{\"appId\":\"a\",\"defaultAction\":\"deny\",\"trustDomain\":\"public\","
                                   "\"namespace\":\"n\",\"operations\":[{\"name\":\"/x/**\",\"httpVerb\":[\"GET\",\"PUT\"],\"action\":\"allow\"},"
                                   "{\"name\":\"/y/z\",\"httpVerb\":[\"*\"],\"action\":\"allow\"}]}]}";
        const struct acl_caller caller = {STR("public"), STR("n"), STR("a")};
        enum acl_decider by;
        const char *err = NULL;
        struct acl *l = NULL;
        struct arena a;
        arena_init(&a, 0);
        int r = acl_new(&l, str_of(text), true, &a, &err);
        /* what was half read must not let anybody in or keep anybody out by accident */
        bool ok = r ? !l : l && acl_allows(l, &caller, STR("x/1"), STR("GET"), &by) && acl_allows(l, &caller, STR("y/z"), STR("POST"), &by) &&
                                   !acl_allows(l, &caller, STR("x/1"), STR("POST"), &by) && !acl_allows(l, &caller, STR("w"), STR("GET"), &by);
        acl_free(l);
        arena_fini(&a);
        return ok;
}

static bool subscriptions(void *arg)
{
        static const char text[] = "[{\"pubsubname\":\"p\",\"topic\":\"t\",\"routes\":{\"rules\":[{\"match\":\"event.type == 'a'\",\"path\":\"/a\"}],\"default\":\"/d\"},"
                                   "\"metadata\":{\"rawPayload\":\"true\"},\"deadLetterTopic\":\"dead\",\"bulkSubscribe\":{\"enabled\":true}}]";
        struct subscription_spec **v = NULL;
        const char *err = NULL;
        struct arena a;
        size_t n = 0;
        arena_init(&a, 0);
        int r = subscription_read_list(&a, str_of(text), &v, &n, &err);
        bool ok = r || (n == 1 && v[0]->n_rules == 2 && v[0]->n_metadata == 1 && v[0]->bulk && !strcmp(v[0]->dead_letter, "dead"));
        arena_fini(&a);
        return ok;
}

static char lock_path[64];

static bool lockfile(void *arg)
{
        struct lockfile l = {0};
        const char *err = NULL;
        struct arena a;
        arena_init(&a, 0);
        int r = lock_read(&a, lock_path, &l, &err);
        bool ok = r || (l.n == 1 && !strcmp(l.v[0].name, "state.x"));
        arena_fini(&a);
        return ok;
}

static struct str ledger_bytes;

static bool ledger(void *arg)
{
        struct ledger l;
        const char *err = NULL;
        ledger_init(&l);
        int r = ledger_parse(&l, ledger_bytes, &err);
        bool ok = r || (l.n_plugins == 2 && !strcmp(l.plugins[1].name, "state.x"));
        ledger_fini(&l);
        return ok;
}

START_TEST(manifests)
{
        ck_assert_int_gt(fault_each(manifest, NULL), 5);
}
END_TEST
START_TEST(access_control)
{
        ck_assert_int_gt(fault_each(acl, NULL), 2);
}
END_TEST
START_TEST(lists_of_subscriptions)
{
        ck_assert_int_gt(fault_each(subscriptions, NULL), 0);
}
END_TEST
START_TEST(lock_files)
{
        snprintf(lock_path, sizeof lock_path, "/tmp/plugins.lock.%d", (int)getpid());
        FILE *f = fopen(lock_path, "w");
        ck_assert_ptr_nonnull(f);
        fprintf(f, "version: 1\nplugins:\n  - {name: state.x, version: 1.0.0, platform: linux/amd64, digest: \"blake2b:%064d\"}\n", 0);
        fclose(f);
        long n = fault_each(lockfile, NULL);
        unlink(lock_path);
        ck_assert_int_gt(n, 5);
}
END_TEST
START_TEST(ledgers)
{
        static char bytes[65536];
        struct ledger l;
        ledger_init(&l);
        l.dir_user = "/tmp/a";
        l.dir_own = "/tmp/a/b";
        for (int i = 0; i < 2; i++) {
                struct ledger_plugin *p = ledger_add_plugin(&l);
                p->name = "state.x";
                p->manifest = "/p/plugin.yaml";
                p->version = "1.0.0";
                p->path = "/tmp/1.sock";
                p->reported_name = p->reported_version = "";
                p->listen_fd = 10 + i;
        }
        int fd = ledger_write(&l);
        ck_assert_int_ge(fd, 0);
        ssize_t n = pread(fd, bytes, sizeof bytes, 0);
        ck_assert_int_gt(n, 0);
        close(fd);
        ledger_fini(&l);
        ledger_bytes = str_n(bytes, (size_t)n);
        ck_assert_int_gt(fault_each(ledger, NULL), 2);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("parsers_fault");
        TCase *t = tcase_create("parsers_fault");
        log_set_level(LOG_FATAL);
        tcase_set_timeout(t, 60);
        tcase_add_test(t, manifests);
        tcase_add_test(t, access_control);
        tcase_add_test(t, lists_of_subscriptions);
        tcase_add_test(t, lock_files);
        tcase_add_test(t, ledgers);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
