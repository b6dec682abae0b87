/*
 * The conformance kit: two processes of one component at the same time, with the same settings. That is what upgrade, rollback, restart
 * and each save in `plugin dev` make: the new process is initialized while the old one serves, the old one stands by and may take over
 * again, and ends (close) after the new one has written. What either has acknowledged must be seen by the other, and stay.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>

#include "ctl/conform_state.h"

#define SEEN_S 1.0 /* stores may be eventually consistent */
#define POLL_S 0.02

/* ---- the other process ---- */

/* Makes the other process the one that is asked, or the first again. */
static void turn(struct conform *c)
{
        struct subject *subject = c->subject;
        struct rpc_channel *ch = c->ch;
        c->subject = c->second;
        c->ch = c->second_ch;
        c->second = subject;
        c->second_ch = ch;
}

static const char *start_second(struct conform *c)
{
        struct subject *s = arena_new(c->arena, struct subject);
        if (!s)
                return "out of memory";
        *s = (struct subject){.program = c->subject->program, .launcher = c->subject->launcher, .launch = c->subject->launch,
                              .environment = c->subject->environment, .n_environment = c->subject->n_environment,
                              .listen_fd = -1, .control_fd = -1, .pidfd = -1};
        int r = subject_open(s, c->arena);
        if (r) {
                subject_close(s);
                return conform_text(c, "it was not started: %s", strerror(-r));
        }
        c->second = s;
        turn(c);
        const char *fault = conform_connect(c);
        if (!fault)
                fault = conform_init(c);
        turn(c);
        return fault;
}

static void end_second(struct conform *c)
{
        if (c->second_ch)
                rpc_channel_close(c->second_ch);
        if (c->second)
                subject_close(c->second);
        c->second_ch = NULL;
        c->second = NULL;
}

static const char *both_run(struct conform *c)
{
        const char *fault = start_second(c);
        if (fault)
                end_second(c);
        return fault ? conform_text(c, "beside a running process a second one with the same settings does not start, so that it cannot be upgraded: %s", fault) : NULL;
}

/* Why a check of two processes is left out, or NULL. */
static const char *left_out(struct conform *c)
{
        if (c->is_volatile)
                return conform_skip(c, "plugin.yaml says volatile: what it holds ends with its process");
        return c->second ? NULL : conform_skip(c, "there is no second process");
}
#define BOTH(c) do { const char *why_ = left_out(c); if (why_) return why_; } while (0)

/* ---- state ---- */

enum who { OLD, NEW };
static const char *const names[] = {"the old process", "the new process"};

static int set_by(struct conform *c, enum who who, const char *key, const char *value, const char *etag)
{
        if (who == NEW)
                turn(c);
        int r = state_set_all(c, key, str_of(value), etag, false, NULL);
        if (who == NEW)
                turn(c);
        return r;
}

static int del_by(struct conform *c, enum who who, const char *key, const char *etag)
{
        if (who == NEW)
                turn(c);
        int r = state_del(c, key, etag);
        if (who == NEW)
                turn(c);
        return r;
}

/* value NULL: it is gone. NULL once the process reads that, else how it differs. */
static const char *reads(struct conform *c, enum who who, const char *key, const char *value)
{
        const char *fault;
        double end = loop_now_exact() + SEEN_S;
        if (who == NEW)
                turn(c);
        while ((fault = state_expect(c, key, value ? str_of(value) : STR_NULL)) && loop_now_exact() < end)
                fiber_sleep(POLL_S);
        if (who == NEW)
                turn(c);
        return fault;
}

/* did: what the other has done, "wrote". */
static const char *seen_by(struct conform *c, enum who who, const char *key, const char *value, const char *did)
{
        const char *fault = reads(c, who, key, value);
        return fault ? conform_text(c, "%s does not see what %s %s: %s", names[who], names[!who], did, fault) : NULL;
}

static const char *writes_are_seen(struct conform *c, enum who writer, const char *name)
{
        const char *key = state_key(c, name);
        TRY(set_by(c, writer, key, "1", NULL), "Set");
        HOLD(seen_by(c, !writer, key, "1", "wrote"));
        TRY(set_by(c, writer, key, "another", NULL), "Set");
        HOLD(seen_by(c, !writer, key, "another", "wrote over"));
        TRY(del_by(c, writer, key, NULL), "Delete");
        return seen_by(c, !writer, key, NULL, "deleted");
}

static const char *old_writes(struct conform *c)
{
        BOTH(c);
        return writes_are_seen(c, OLD, "swap-old");
}

static const char *new_writes(struct conform *c)
{
        BOTH(c);
        return writes_are_seen(c, NEW, "swap-new");
}

static const char *etags_hold(struct conform *c)
{
        BOTH(c);
        const char *key = state_key(c, "swap-etag");
        got_t *g;
        for (enum who w = OLD; w <= NEW; w++) {
                TRY(set_by(c, w, key, "1", NULL), "Set");
                HOLD(seen_by(c, !w, key, "1", "wrote"));
                TRY(state_get(c, key, &g), "Get");
                MUST(g->etag && *g->etag->value, "Get gives no ETag");
                const char *first = g->etag->value;
                if (set_by(c, !w, key, "2", first))
                        return conform_text(c, "%s does not take the ETag of what %s wrote: %s", names[!w], names[w], conform_wrong(c, "Set"));
                MUST(set_by(c, w, key, "3", first), conform_text(c, "%s takes a write with an ETag that is old since %s wrote", names[w], names[!w]));
                MUST(del_by(c, w, key, first), conform_text(c, "%s takes a delete with an ETag that is old since %s wrote", names[w], names[!w]));
                HOLD(seen_by(c, w, key, "2", "wrote"));
                HOLD(seen_by(c, !w, key, "2", "wrote"));
        }
        return del_by(c, OLD, key, NULL) ? conform_wrong(c, "Delete") : NULL;
}

/* The old process ends as after an upgrade; then a third one comes to its socket. */
static const char *replace_old(struct conform *c)
{
        int code, status;
        subject_release(c->subject);
        if (subject_wait(c->subject, 5, &code, &status))
                return "the old process still runs 5 s after the runtime has closed descriptor 4";
        int r = subject_start(c->subject);
        if (r)
                return conform_text(c, "it does not start again: %s", strerror(-r));
        HOLD(conform_connect(c));
        return conform_init(c);
}

static const char *nothing_is_lost(struct conform *c)
{
        BOTH(c);
        const char *a = state_key(c, "swap-end-old"), *b = state_key(c, "swap-end-new"), *gone = state_key(c, "swap-end-gone");
        TRY(set_by(c, OLD, gone, "1", NULL), "Set");
        TRY(set_by(c, OLD, a, "of the old", NULL), "Set");
        TRY(set_by(c, NEW, b, "of the new", NULL), "Set");
        TRY(del_by(c, NEW, gone, NULL), "Delete");
        HOLD(replace_old(c));
        for (enum who w = OLD; w <= NEW; w++) {
                const char *fault = reads(c, w, a, "of the old");
                fault = fault ? fault : reads(c, w, b, "of the new");
                fault = fault ? fault : reads(c, w, gone, NULL);
                if (fault)
                        return conform_text(c, "after the old process has ended, %s reads otherwise than was acknowledged: %s",
                                            w == OLD ? "a process that starts then" : names[w], fault);
        }
        return del_by(c, OLD, a, NULL) || del_by(c, OLD, b, NULL) ? conform_wrong(c, "Delete") : NULL;
}

static const struct conform_check state_checks[] = {
        {"a second process starts beside the first", both_run},
        {"the new process sees what the old one writes", old_writes},
        {"the old process sees what the new one writes", new_writes},
        {"an ETag holds in both processes", etags_hold, "ETAG"},
        {"the end of the old process loses nothing", nothing_is_lost},
};

/* ---- locks ---- */

static const char *locks_hold(struct conform *c)
{
        BOTH(c);
        HOLD(conform_lock_holds(c, "swap-old", turn));
        turn(c);
        const char *fault = conform_lock_holds(c, "swap-new", turn);
        turn(c);
        return fault;
}

static const struct conform_check lock_checks[] = {
        {"a second process starts beside the first", both_run},
        {"a lock of one process holds in the other", locks_hold},
};
/* What only reads: it need but start. */
static const struct conform_check start_checks[] = {{"a second process starts beside the first", both_run}};

void conform_swap(struct conform *c)
{
        static const struct { const char *kind; const struct conform_check *checks; size_t n; } rows[] = {
                {"state", state_checks, sizeof state_checks / sizeof *state_checks},
                {"lock", lock_checks, sizeof lock_checks / sizeof *lock_checks},
                {"configuration", start_checks, 1},
                {"secretstores", start_checks, 1},
                {"crypto", start_checks, 1},
        };
        for (size_t i = 0; c->subject->program && i < sizeof rows / sizeof *rows; i++)
                if (strcmp(rows[i].kind, c->kind) == 0)
                        conform_run(c, "swap", rows[i].checks, rows[i].n);
        end_second(c);
}
