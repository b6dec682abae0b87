/*
 * Plugins that were taken over from the program before, and a supervisor that stops, removes or finds no use for them while that goes
 * on: each process ends, each plugin is freed once, no start waits for ever. The program before is another supervisor of this process.
 */
#include "kernel/super/ledger.h"
#include "kernel/super/plugin.h"
#include "tests/fault/fault_plugin.h"

struct world {
        struct fault f;
        struct super *before;
        struct ledger ledger;
        struct component_spec *a, *b;
};

/* Stores a and b run, each in a process of its own, and are handed over; f.super has started nothing yet. */
static void hand_over(struct world *w)
{
        fault_init(&w->f);
        fault_install(&w->f, "state.faulty", NULL, NULL);
        fault_open(&w->f);
        w->a = fault_spec(&w->f, "a", "state.faulty", NULL, 0);
        w->b = fault_spec(&w->f, "b", "state.faulty", NULL, 0);
        fault_start(&w->f, w->a);
        fault_start(&w->f, w->b);
        w->before = w->f.super;
        ledger_init(&w->ledger);
        ck_assert_int_eq(super_hand_over(w->before, &w->ledger, 1), 0);
        ck_assert_uint_eq(w->ledger.n_plugins, 2);
        w->f.conf.ledger = &w->ledger;
}

static void begin(struct world *w)
{
        fault_open(&w->f);
}

static void close_world(struct world *w)
{
        struct super *before = w->before;
        fault_close(&w->f); /* asserts that no process is left */
        super_free(before);
        for (size_t i = 0; i < w->ledger.n_fds; i++)
                if (w->ledger.fds[i].fd >= 0) /* of the control service, when nothing was started that takes it */
                        close(w->ledger.fds[i].fd);
        ledger_fini(&w->ledger);
}

static struct plugin *plugin_of(struct world *w, const char *name)
{
        list_for_each(pos, &w->f.super->plugins) {
                struct plugin *p = list_entry(pos, struct plugin, in_super);
                if (p->adopted && p->adopted->n_instances && strcmp(p->adopted->instances[0].name, name) == 0)
                        return p;
        }
        ck_abort_msg("no plugin for %s", name);
}

static struct component *claim(struct world *w, struct component_spec *spec)
{
        unsigned long pid = (unsigned long)plugin_of(w, spec->name)->life->pid;
        struct component *c = fault_start(&w->f, spec);
        ck_assert_uint_eq((unsigned long)fault_status(&w->f, c).pid, pid);
        return c;
}

ON_LOOP_TEST(what_nobody_claims_ends_when_all_has_started)
{
        struct world w;
        struct str v;
        struct rpc_status st;
        hand_over(&w);
        begin(&w);
        struct component *a = claim(&w, w.a);
        super_started(w.f.super);
        super_adopted(w.f.super);
        ck_assert_int_eq(fault_children(), w.f.children + 1);
        ck_assert_int_eq(fault_get(a, &w.f.arena, "k", &v, &st), 0);
        super_adopted(w.f.super); /* once more finds nothing */
        close_world(&w);
}

ON_LOOP_TEST(a_stop_before_anything_has_started_ends_all)
{
        struct world w;
        hand_over(&w);
        begin(&w);
        close_world(&w);
}

struct job {
        struct world *w;
        struct component *c;
        struct component_spec *spec;
        int result;
        bool done;
};

static void remove_fiber(void *arg)
{
        struct job *j = arg;
        super_component_stop(j->w->f.super, j->c);
        j->done = true;
}

static void adopted_fiber(void *arg)
{
        struct job *j = arg;
        super_adopted(j->w->f.super);
        j->done = true;
}

/* While its process drains, the plugin has no instance any more, as one that nobody wants. */
ON_LOOP_TEST(a_component_that_is_removed_meanwhile_is_no_left_over)
{
        struct world w;
        struct scope sc;
        scope_init(&sc);
        hand_over(&w);
        begin(&w);
        struct job removal = {.w = &w, .c = claim(&w, w.a)}, over = {.w = &w};
        struct plugin *p = plugin_of(&w, "a");
        pid_t pid = p->life->pid;
        ck_assert_int_eq(kill(pid, SIGSTOP), 0); /* so that it drains for as long as it is wanted here */
        ck_assert_int_eq(fiber_go(&sc, "remove", remove_fiber, &removal), 0);
        WAIT_FOR(p->state == PLUGIN_DRAINING);
        ck_assert(list_is_empty(&p->instances));
        ck_assert_int_eq(fiber_go(&sc, "adopted", adopted_fiber, &over), 0);
        WAIT_FOR(over.done); /* b's has ended */
        ck_assert(!removal.done && p->state == PLUGIN_DRAINING);
        ck_assert_int_eq(fault_children(), w.f.children + 1);
        ck_assert_int_eq(kill(pid, SIGCONT), 0);
        scope_join(&sc);
        ck_assert(removal.done);
        ck_assert_int_eq(fault_children(), w.f.children);
        close_world(&w);
}

/* The other way round: the left-overs are being stopped, and a component is removed. */
ON_LOOP_TEST(a_removal_does_not_wait_for_left_overs)
{
        struct world w;
        struct scope sc;
        scope_init(&sc);
        hand_over(&w);
        begin(&w);
        struct job removal = {.w = &w, .c = claim(&w, w.a)}, over = {.w = &w};
        struct plugin *left = plugin_of(&w, "b");
        pid_t pid = left->life->pid;
        ck_assert_int_eq(kill(pid, SIGSTOP), 0);
        ck_assert_int_eq(fiber_go(&sc, "adopted", adopted_fiber, &over), 0);
        WAIT_FOR(left->state == PLUGIN_DRAINING);
        ck_assert_int_eq(fiber_go(&sc, "remove", remove_fiber, &removal), 0);
        WAIT_FOR(removal.done);
        ck_assert(!over.done);
        scope_join(&sc); /* one that does not drain is killed after its grace time */
        ck_assert_int_eq(fault_children(), w.f.children);
        close_world(&w);
}

static void start_fiber(void *arg)
{
        struct job *j = arg;
        const char *err = "";
        struct component *c;
        j->result = super_component_start(j->w->f.super, j->spec, &j->w->f.arena, &c, &err);
        j->done = true;
}

/* Of a daprd that crashed: it has no control socket, and a start waits until it lets itself be attached. */
ON_LOOP_TEST(a_stop_ends_the_wait_for_a_plugin_that_does_not_answer)
{
        struct world w;
        struct scope sc;
        scope_init(&sc);
        hand_over(&w);
        for (size_t i = 0; i < w.ledger.n_plugins; i++) {
                struct ledger_plugin *e = &w.ledger.plugins[i];
                ck_assert_int_eq(kill((pid_t)e->pid, SIGSTOP), 0);
                close(e->control_fd);
                e->control_fd = -1;
        }
        begin(&w);
        struct job start = {.w = &w, .spec = w.a};
        ck_assert_int_eq(fiber_go(&sc, "start", start_fiber, &start), 0);
        WAIT_FOR(w.f.super->taking == 1);
        super_stop(w.f.super, 1);
        scope_join(&sc);
        ck_assert_int_eq(start.result, -ECANCELED);
        close_world(&w);
}

int main(void)
{
        Suite *s = suite_create("adopt");
        TCase *t = tcase_create("plugins of the program before");
        tcase_set_timeout(t, 60);
        tcase_add_test(t, what_nobody_claims_ends_when_all_has_started);
        tcase_add_test(t, a_stop_before_anything_has_started_ends_all);
        tcase_add_test(t, a_component_that_is_removed_meanwhile_is_no_left_over);
        tcase_add_test(t, a_removal_does_not_wait_for_left_overs);
        tcase_add_test(t, a_stop_ends_the_wait_for_a_plugin_that_does_not_answer);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
