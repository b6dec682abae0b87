/* Control groups on a made-up tree: limits are written where the controllers are, what is missing is named, folders of the dead go, and
 * the count of the group itself tells whether memory ran out. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/super/cgroup.h"

static char own[64];

static void put(const char *text, const char *fmt, ...)
{
        char path[256], name[128];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(name, sizeof name, fmt, ap);
        va_end(ap);
        snprintf(path, sizeof path, "%s/%s", own, name);
        FILE *f = fopen(path, "w");
        ck_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static const char *get(const char *folder, const char *file)
{
        static char text[256];
        char path[256];
        snprintf(path, sizeof path, "%s/%s%s%s", own, folder, *folder ? "/" : "", file);
        FILE *f = fopen(path, "r");
        size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
        if (f)
                fclose(f);
        text[n] = '\0';
        return f ? text : NULL;
}

static void make_tree(void)
{
        strcpy(own, "/tmp/cgroup-test-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(own));
        put("cpu io memory pids\n", "cgroup.controllers");
        put("memory pids cpu\n", "cgroup.subtree_control");
        put("", "cgroup.procs");
}

static void remove_tree(void)
{
        char command[128];
        snprintf(command, sizeof command, "rm -rf %s", own);
        ck_assert_int_eq(system(command), 0);
}

START_TEST(all_limits_are_written)
{
        struct cgroups g;
        char name[CGROUP_NAME_BYTES], first[CGROUP_NAME_BYTES];
        cgroups_find(&g, own, false);
        ck_assert_str_eq(g.why, "");
        ck_assert(g.memory && g.pids && g.cpu && cgroups_can_limit(&g));
        /* a made-up folder has no files by itself: the first group is made without, the next finds them there */
        snprintf(first, sizeof first, "microdapr-%d-1", (int)getpid());
        ck_assert_int_eq(cgroup_make(&g, &(struct cgroup_limits){1, 1, 1}, name), -ENOENT);
        ck_assert_str_eq(name, "");
        g.memory = g.pids = g.cpu = false;
        int fd = cgroup_make(&g, &(struct cgroup_limits){1, 1, 1}, name);
        ck_assert_int_ge(fd, 0);
        close(fd);
        ck_assert(strcmp(name, first) != 0);
}
END_TEST

START_TEST(limits_stand_in_their_files)
{
        static const char *const files[] = {"memory.max", "memory.oom.group", "pids.max", "cpu.max", "cgroup.kill", "memory.events"};
        static const char name[] = "microdapr-1999999902-1";
        struct cgroups g;
        char path[128];
        uint64_t kills;
        cgroups_find(&g, own, false);
        snprintf(path, sizeof path, "%s/%s", own, name);
        ck_assert_int_eq(mkdir(path, 0755), 0);
        for (size_t i = 0; i < sizeof files / sizeof *files; i++)
                put("", "%s/%s", name, files[i]);
        ck_assert_int_eq(cgroup_limit(&g, name, &(struct cgroup_limits){64 << 20, 32, 150}), 0);
        ck_assert_str_eq(get(name, "memory.max"), "67108864");
        ck_assert_str_eq(get(name, "memory.oom.group"), "1");
        ck_assert_str_eq(get(name, "pids.max"), "32");
        ck_assert_str_eq(get(name, "cpu.max"), "150000 100000");
        put("low 0\nhigh 3\nmax 9\noom 1\noom_kill 0\n", "%s/memory.events", name);
        ck_assert(!cgroup_had_oom(&g, name, &kills));
        put("low 0\nhigh 3\nmax 9\noom 1\noom_kill 2\noom_group_kill 1\n", "%s/memory.events", name);
        ck_assert(cgroup_had_oom(&g, name, &kills) && kills == 2);
        ck_assert(!cgroup_had_oom(&g, "../x", &kills) && !cgroup_had_oom(&g, "", &kills) && !cgroup_had_oom(&g, "microdapr-1/../..", &kills));
        ck_assert(cgroup_is_there(&g, name) && !cgroup_is_there(&g, "microdapr-1-1") && !cgroup_is_there(&g, "") && !cgroup_is_there(&g, ".."));
        cgroup_remove(&g, name);
        ck_assert_str_eq(get(name, "cgroup.kill"), "1");
}
END_TEST

START_TEST(missing_controllers_are_named)
{
        struct cgroups g;
        put("cpu io\n", "cgroup.controllers");
        put("", "cgroup.subtree_control");
        cgroups_find(&g, own, false);
        ck_assert(g.cpu && !g.memory && !g.pids);
        ck_assert_str_eq(get("", "cgroup.subtree_control"), "+cpu");
        ck_assert_ptr_nonnull(strstr(g.why, "these controllers cannot be had: memory, pids (not handed to it)"));
        put("", "cgroup.controllers");
        cgroups_find(&g, own, false);
        ck_assert(!cgroups_can_limit(&g));
        ck_assert_ptr_nonnull(strstr(g.why, "memory, pids, cpu (not handed to it)"));
}
END_TEST

START_TEST(reasons_are_told_once)
{
        struct cgroups g;
        put("cpu io\n", "cgroup.controllers");
        put("cpu\n", "cgroup.subtree_control");
        cgroups_find(&g, own, true);
        ck_assert(g.cpu && !g.memory && !g.pids && cgroups_can_limit(&g));
        put("pids\n", "cgroup.controllers");
        put("", "cgroup.subtree_control");
        cgroups_find(&g, own, true);
        ck_assert(g.pids && !g.memory && !g.cpu);
        ck_assert_ptr_nonnull(strstr(g.why, "cannot be had: memory, cpu (not handed to it)"));
        ck_assert_ptr_null(strstr(g.why, "pids"));
}
END_TEST

START_TEST(a_group_with_processes_hands_nothing_on)
{
        struct cgroups g;
        put("domain\n", "cgroup.type");
        put("1\n", "cgroup.procs");
        put("", "cgroup.subtree_control");
        cgroups_find(&g, own, false);
        ck_assert(!cgroups_can_limit(&g));
        ck_assert_str_eq(get("", "cgroup.subtree_control"), "");
        ck_assert_ptr_nonnull(strstr(g.why, "memory, pids, cpu (other processes are in it, too)"));
        char text[16];
        snprintf(text, sizeof text, "%d\n", (int)getpid());
        put(text, "cgroup.procs");
        cgroups_find(&g, own, true);
        ck_assert(!cgroups_can_limit(&g) && !g.self[0]);
        ck_assert_ptr_nonnull(strstr(g.why, "memory, pids, cpu (with --plugin-linger daprd must be started in a child of it)"));
        put("", "cgroup.procs");
        cgroups_find(&g, own, true);
        ck_assert(g.memory && g.pids && g.cpu && !g.self[0] && !g.why[0]);
}
END_TEST

START_TEST(groups_of_the_dead_go)
{
        struct cgroups g;
        char path[128];
        static const char *const dead[] = {"microdapr-1999999901-1", "microdapr-1999999901-self"}, *const kept[] = {"microdapr-x", "other"};
        for (int i = 0; i < 2; i++) {
                snprintf(path, sizeof path, "%s/%s", own, dead[i]);
                ck_assert_int_eq(mkdir(path, 0755), 0);
                snprintf(path, sizeof path, "%s/%s", own, kept[i]);
                ck_assert_int_eq(mkdir(path, 0755), 0);
        }
        cgroups_find(&g, own, false);
        for (int i = 0; i < 2; i++) {
                snprintf(path, sizeof path, "%s/%s", own, dead[i]);
                ck_assert_int_eq(access(path, F_OK), -1);
                snprintf(path, sizeof path, "%s/%s", own, kept[i]);
                ck_assert_int_eq(access(path, F_OK), 0);
        }
        cgroups_leave(&g);
}
END_TEST

START_TEST(what_this_machine_says_is_understood)
{
        struct cgroups g;
        char file[CGROUP_FILE_BYTES], group[CGROUP_NAME_BYTES];
        bool of_living;
        uint64_t n;
        cgroups_find(&g, NULL, false);
        ck_assert(g.own[0] || g.why[0]);
        if (cgroup_oom_file(&g, getpid(), file, &of_living))
                ck_assert_msg(cgroup_oom_count(file, &n), "%s", file);
        if (g.own[0]) { /* a real group: made, entered by nobody, gone */
                int fd = cgroup_make(&g, &(struct cgroup_limits){1 << 30, 100, 0}, group);
                ck_assert_int_ge(fd, 0);
                close(fd);
                cgroup_remove(&g, group);
                snprintf(file, sizeof file, "%s/%s", g.own, group);
                ck_assert_int_eq(access(file, F_OK), -1);
        }
        cgroups_leave(&g);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("cgroup");
        TCase *t = tcase_create("cgroup");
        tcase_add_checked_fixture(t, make_tree, remove_tree);
        tcase_add_test(t, all_limits_are_written);
        tcase_add_test(t, limits_stand_in_their_files);
        tcase_add_test(t, missing_controllers_are_named);
        tcase_add_test(t, reasons_are_told_once);
        tcase_add_test(t, a_group_with_processes_hands_nothing_on);
        tcase_add_test(t, groups_of_the_dead_go);
        tcase_add_test(t, what_this_machine_says_is_understood);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
