/* The state table alone, its surroundings replaced by recorders: every cell is filled, and the promises between cells hold. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/super/plugin.h"

static struct {
        struct life life;
        char calls[128];
        int start_result;
        double tally;
        bool goes_back;
} T;

static void record(const char *what)
{
        if (strlen(T.calls) + strlen(what) + 2 < sizeof T.calls) {
                strcat(T.calls, what);
                strcat(T.calls, " ");
        }
}

/* ---- what table.c calls ---- */

int life_start(struct plugin *p)
{
        record("start");
        if (T.start_result)
                return T.start_result;
        T.life = (struct life){.plugin = p, .number = ++p->lives, .pidfd = -1, .control_fd = -1, .usable = false};
        p->life = &T.life;
        return 0;
}
void life_kill(struct life *l, enum death_class why)
{
        record("kill");
        l->verdict = why;
        l->usable = false;
}
void life_kill_after(struct life *l, double s, enum death_class why)
{
        record("kill-later");
}
void life_end(struct life *l)
{
        record("end");
        if (l)
                l->plugin->life = NULL;
}
void life_let_go(struct life *l)
{
}
void plugin_set_death(struct plugin *p, enum death_class d)
{
        p->last_death = d;
}
double death_tally(struct plugin *p, const struct life *l, enum death_class why)
{
        return T.tally;
}
bool swap_goes_back(const struct plugin *p)
{
        return T.goes_back;
}
void plugin_notify(struct plugin *p)
{
}
void timer_start(struct timer *t, double after_s, double repeat_s)
{
        record("timer");
}
void timer_stop(struct timer *t)
{
}
double loop_now(void)
{
        return 100;
}
bool log_enabled(enum log_level level)
{
        return false;
}
void log_printf(enum log_level level, const char *scope, const char *fmt, ...)
{
}

/* ---- helpers ---- */

static struct manifest own;

static struct plugin *plugin_in(enum plugin_state s, bool with_life)
{
        static struct plugin p;
        memset(&T, 0, sizeof T);
        p = (struct plugin){.name = "x", .manifest = &own, .state = s, .wanted = true, .lives = 1};
        if (with_life) {
                T.life = (struct life){.plugin = &p, .pidfd = -1, .control_fd = -1, .usable = s == PLUGIN_READY || s == PLUGIN_DEGRADED};
                p.life = &T.life;
        }
        return &p;
}

static void becomes(enum plugin_state from, enum plugin_event e, enum plugin_state to, const char *calls)
{
        struct plugin *p = plugin_in(from, from >= PLUGIN_STARTING && from <= PLUGIN_DRAINING);
        plugin_event(p, e);
        if (p->state != to || strcmp(T.calls, calls) != 0)
                ck_abort_msg("%s in %s: %s (%s), expected %s (%s)", plugin_event_name(e), plugin_state_name(from),
                             plugin_state_name(p->state), T.calls, plugin_state_name(to), calls);
}

START_TEST(every_cell_can_be_run)
{
        for (int s = 0; s < PLUGIN_STATES; s++)
                for (int e = 0; e < PLUGIN_EVENTS; e++) {
                        bool life = (s >= PLUGIN_STARTING && s <= PLUGIN_DRAINING) || (s == PLUGIN_BACKOFF && e == EV_EXIT) ||
                                    (s == PLUGIN_FAILED && e == EV_EXIT);
                        struct plugin *p = plugin_in((enum plugin_state)s, life);
                        plugin_event(p, (enum plugin_event)e);
                        ck_assert_int_lt(p->state, PLUGIN_STATES);
                        ck_assert(plugin_state_name(p->state) && plugin_event_name((enum plugin_event)e));
                }
}
END_TEST

START_TEST(the_way_up)
{
        becomes(PLUGIN_ABSENT, EV_START, PLUGIN_STARTING, "start ");
        becomes(PLUGIN_STARTING, EV_CONNECTED, PLUGIN_HELLO, "");
        becomes(PLUGIN_HELLO, EV_HELLO, PLUGIN_INIT, "");
        becomes(PLUGIN_INIT, EV_READY, PLUGIN_READY, "");
        becomes(PLUGIN_READY, EV_BACKEND_DOWN, PLUGIN_DEGRADED, "");
        becomes(PLUGIN_DEGRADED, EV_BACKEND_UP, PLUGIN_READY, "");
}
END_TEST

START_TEST(ready_opens_the_plugin_for_calls)
{
        struct plugin *p = plugin_in(PLUGIN_INIT, true);
        p->first = true;
        ck_assert(!plugin_is_callable(p));
        plugin_event(p, EV_READY);
        ck_assert(plugin_is_callable(p));
        ck_assert(!p->first);
        plugin_event(p, EV_LOST);
        ck_assert(!plugin_is_callable(p));
        ck_assert_int_eq(p->state, PLUGIN_BACKOFF);
        ck_assert_str_eq(T.calls, "kill-later ");
}
END_TEST

START_TEST(a_death_is_followed_by_a_start_a_pause_or_the_end)
{
        struct plugin *p = plugin_in(PLUGIN_READY, true);
        plugin_event(p, EV_EXIT);
        ck_assert_int_eq(p->state, PLUGIN_STARTING);
        ck_assert_str_eq(T.calls, "end start ");
        p = plugin_in(PLUGIN_READY, true);
        T.tally = 0.2;
        plugin_event(p, EV_EXIT);
        ck_assert_int_eq(p->state, PLUGIN_BACKOFF);
        ck_assert_str_eq(T.calls, "end timer ");
        plugin_event(p, EV_BACKOFF_OVER);
        ck_assert_int_eq(p->state, PLUGIN_STARTING);
        p = plugin_in(PLUGIN_READY, true);
        T.goes_back = true; /* it was on trial: nobody waits for it */
        plugin_event(p, EV_EXIT);
        ck_assert_int_eq(p->state, PLUGIN_BACKOFF);
        ck_assert_str_eq(T.calls, "end timer ");
        p = plugin_in(PLUGIN_READY, true);
        T.tally = -1;
        plugin_event(p, EV_EXIT);
        ck_assert_int_eq(p->state, PLUGIN_FAILED);
        p = plugin_in(PLUGIN_INIT, true);
        p->first = true; /* never was ready: final, whatever the tally says */
        plugin_event(p, EV_EXIT);
        ck_assert_int_eq(p->state, PLUGIN_FAILED);
        ck_assert_str_eq(T.calls, "end ");
}
END_TEST

/* Never ready, and a start waits for it: the class of the death decides, and whose doing it was. */
START_TEST(a_first_start_outlives_a_death_by_chance)
{
        static const enum death_class again[] = {DEATH_SIGNAL, DEATH_OOM, DEATH_HANG, DEATH_ERROR, DEATH_CLEAN};
        for (int d = 0; d < DEATH_CLASSES; d++) {
                for (enum plugin_state s = PLUGIN_STARTING; s <= PLUGIN_INIT; s++) {
                        struct plugin *p = plugin_in(s, true);
                        bool expected = false;
                        for (size_t i = 0; i < (s == PLUGIN_INIT ? 5 : 3); i++)
                                expected |= again[i] == (enum death_class)d;
                        p->first = p->patient = true;
                        p->last_death = (enum death_class)d;
                        T.tally = 0.2;
                        plugin_event(p, EV_EXIT);
                        ck_assert_msg(p->state == (expected ? PLUGIN_BACKOFF : PLUGIN_FAILED), "%d in %s", d, plugin_state_name(s));
                        ck_assert(p->first);
                }
        }
        struct plugin *p = plugin_in(PLUGIN_INIT, true);
        p->first = p->patient = true;
        p->last_death = DEATH_SIGNAL;
        T.tally = -1; /* too often */
        plugin_event(p, EV_EXIT);
        ck_assert_int_eq(p->state, PLUGIN_FAILED);
}
END_TEST

START_TEST(a_hang_kills_and_waits_for_the_end)
{
        becomes(PLUGIN_READY, EV_HANG, PLUGIN_BACKOFF, "kill ");
        becomes(PLUGIN_DEGRADED, EV_HANG, PLUGIN_BACKOFF, "kill ");
        becomes(PLUGIN_HELLO, EV_TIMEOUT, PLUGIN_HELLO, "kill ");
        becomes(PLUGIN_DRAINING, EV_HANG, PLUGIN_DRAINING, "kill ");
}
END_TEST

START_TEST(a_start_that_fails_is_a_death)
{
        struct plugin *p = plugin_in(PLUGIN_BACKOFF, false);
        T.start_result = -1;
        T.tally = 1;
        plugin_event(p, EV_BACKOFF_OVER);
        ck_assert_int_eq(p->state, PLUGIN_BACKOFF);
        p = plugin_in(PLUGIN_ABSENT, false);
        p->first = true;
        T.start_result = -1;
        plugin_event(p, EV_START);
        ck_assert_int_eq(p->state, PLUGIN_FAILED);
}
END_TEST

START_TEST(stop_from_anywhere)
{
        becomes(PLUGIN_READY, EV_STOP, PLUGIN_DRAINING, "");
        becomes(PLUGIN_INIT, EV_STOP, PLUGIN_DRAINING, "kill ");
        becomes(PLUGIN_BACKOFF, EV_STOP, PLUGIN_STOPPED, "");
        becomes(PLUGIN_FAILED, EV_STOP, PLUGIN_STOPPED, "");
        becomes(PLUGIN_DRAINING, EV_EXIT, PLUGIN_STOPPED, "end ");
        becomes(PLUGIN_DRAINING, EV_DRAINED, PLUGIN_DRAINING, "kill-later ");
        becomes(PLUGIN_STOPPED, EV_EXIT, PLUGIN_STOPPED, "");
        becomes(PLUGIN_STOPPED, EV_BACKOFF_OVER, PLUGIN_STOPPED, "");
}
END_TEST

START_TEST(failed_stays_until_the_operator_starts_it)
{
        for (int e = 0; e < PLUGIN_EVENTS; e++)
                if (e != EV_START && e != EV_STOP)
                        becomes(PLUGIN_FAILED, (enum plugin_event)e, PLUGIN_FAILED, e == EV_EXIT ? "end " : "");
        struct plugin *p = plugin_in(PLUGIN_FAILED, false);
        p->n_deaths = 10;
        plugin_event(p, EV_START);
        ck_assert_int_eq(p->state, PLUGIN_STARTING);
        ck_assert_uint_eq(p->n_deaths, 0);
        p = plugin_in(PLUGIN_FAILED, true); /* the old process is not gone yet */
        plugin_event(p, EV_START);
        ck_assert_int_eq(p->state, PLUGIN_FAILED);
}
END_TEST

START_TEST(a_foreign_one_has_no_hello)
{
        struct plugin *p = plugin_in(PLUGIN_STARTING, true);
        p->manifest = NULL;
        plugin_event(p, EV_CONNECTED);
        ck_assert_int_eq(p->state, PLUGIN_INIT);
        plugin_event(p, EV_READY);
        plugin_event(p, EV_STOP);
        plugin_event(p, EV_DRAINED);
        ck_assert_int_eq(p->state, PLUGIN_STOPPED);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("super_table");
        TCase *t = tcase_create("table");
        tcase_add_test(t, every_cell_can_be_run);
        tcase_add_test(t, the_way_up);
        tcase_add_test(t, ready_opens_the_plugin_for_calls);
        tcase_add_test(t, a_death_is_followed_by_a_start_a_pause_or_the_end);
        tcase_add_test(t, a_first_start_outlives_a_death_by_chance);
        tcase_add_test(t, a_hang_kills_and_waits_for_the_end);
        tcase_add_test(t, a_start_that_fails_is_a_death);
        tcase_add_test(t, stop_from_anywhere);
        tcase_add_test(t, failed_stays_until_the_operator_starts_it);
        tcase_add_test(t, a_foreign_one_has_no_hello);
        suite_add_tcase(s, t);
        SRunner *r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        int failed = srunner_ntests_failed(r);
        srunner_free(r);
        return failed != 0;
}
