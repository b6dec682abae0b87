/*
 * Why a process ended, in a class and in words, and what that means for the next start.
 *
 * Not every death counts towards FAILED. One that was ready for stable_s starts with a clean sheet. A signal that others send
 * (SIGKILL, SIGTERM, ...) to a process which has answered calls is not the plugin's fault. What counts is kept with its time;
 * deaths_max of them within deaths_window_s and the plugin has FAILED. The first that counts is followed by a start at once,
 * the next by backoff_min_s, then twice that, and so on.
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/super/plugin.h"

#define OOM_SAMPLE_S 1.0

static const char *const class_names[DEATH_CLASSES] = {"none", "clean exit", "error exit", "signal",        "out of memory",
                                                       "hang", "protocol",   "start timeout", "operator", "sandbox",
                                                       "not verified", "unknown"};

const char *death_class_name(enum death_class d)
{
        return class_names[d];
}

static uint64_t oom_kills(void)
{
        char line[128];
        unsigned long long n = 0;
        FILE *f = fopen("/proc/vmstat", "re");
        while (f && fgets(line, sizeof line, f))
                if (sscanf(line, "oom_kill %llu", &n) == 1)
                        break;
        if (f)
                fclose(f);
        return n;
}

void death_oom_sample(struct super *s)
{
        double now = loop_now();
        if (s->oom_at > 0 && now - s->oom_at < OOM_SAMPLE_S)
                return;
        uint64_t n = oom_kills();
        s->oom_before = s->oom_at > 0 ? s->oom_now : n;
        s->oom_now = n;
        s->oom_at = now;
}

/* Has memory run out on this machine in the last moments, for a process whose end has not been told yet? Takes one such kill. */
static bool was_oom_kill(struct super *s)
{
        if (oom_kills() <= s->oom_before)
                return false;
        s->oom_before++;
        if (s->oom_now < s->oom_before)
                s->oom_now = s->oom_before;
        return true;
}

/* ---- whose want of memory ---- */

static uint64_t resident_bytes(pid_t pid)
{
        char path[40];
        unsigned long long pages = 0;
        snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
        FILE *f = fopen(path, "re");
        if (f && fscanf(f, "%*s %llu", &pages) != 1)
                pages = 0;
        if (f)
                fclose(f);
        return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void death_oom_watch(struct life *l)
{
        uint64_t rss = resident_bytes(l->pid);
        l->rss_bytes = rss ? rss : l->rss_bytes;
        cgroups_tidy(&l->plugin->super->cgroups);
        if (!cgroup_oom_file(&l->plugin->super->cgroups, l->pid, l->oom_file, &l->oom_of_living) || !cgroup_oom_count(l->oom_file, &l->oom_kills))
                l->oom_file[0] = '\0';
}

/* Such a death is told once: nobody else in the group has died of it. */
static void tell_once(struct super *s, const struct life *l)
{
        list_for_each(pos, &s->plugins) {
                struct life *other = list_entry(pos, struct plugin, in_super)->life;
                if (other && other != l && strcmp(other->oom_file, l->oom_file) == 0)
                        other->oom_kills++;
        }
}

void death_oom_look(struct life *l)
{
        struct super *s = l->plugin->super;
        char file[CGROUP_FILE_BYTES];
        uint64_t before = l->oom_kills, kills = 0;
        bool of_living;
        if (l->cgroup[0] && s->cgroups.memory) {
                l->oom = cgroup_had_oom(&s->cgroups, l->cgroup, &l->oom_kills) ? OOM_YES : OOM_NO;
                l->oom_is_own = true;
                return;
        }
        if (!l->oom_file[0])
                return;
        if (!l->oom_of_living && cgroup_oom_file(&s->cgroups, l->pid, file, &of_living) && strcmp(file, l->oom_file) != 0) {
                memcpy(l->oom_file, file, sizeof file); /* somebody has moved it */
                before = 0;
        }
        if (!cgroup_oom_count(l->oom_file, &kills))
                return;
        l->oom = kills > before ? OOM_YES : OOM_NO;
        if (l->oom == OOM_YES)
                tell_once(s, l);
}

/* Nobody counts for it alone, and what the machine counts may be another process: it must have been one that mattered. */
static bool was_large(const struct life *l)
{
        enum { LARGE_PART = 4 };
        uint64_t limit = l->plugin->manifest ? l->plugin->manifest->rights.memory_bytes : 0;
        uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
        return l->rss_bytes >= (limit && limit < machine ? limit : machine) / LARGE_PART;
}

static bool died_of_want(const struct life *l)
{
        return l->oom == OOM_YES || (l->oom == OOM_UNKNOWN && was_large(l) && was_oom_kill(l->plugin->super));
}

/* The last thing it said at level warning or worse, if it was this life that said it. */
static const char *last_words(const struct life *l)
{
        const struct log_ring *r = &l->plugin->ring;
        int64_t since = wall_ns() - (int64_t)((loop_now_exact() - l->started_at + 0.001) * 1e9);
        for (size_t i = r->count; i-- > 0;) {
                const struct log_ring_line *line = log_ring_at(r, i);
                if (line->at_ns < since)
                        break;
                if (line->level <= LOG_WARN && line->text && line->text[0])
                        return line->text;
        }
        return NULL;
}

static const char *when(const struct life *l)
{
        switch (l->plugin->state) {
        case PLUGIN_STARTING: return " before it answered";
        case PLUGIN_HELLO: return " before it answered Hello";
        case PLUGIN_INIT: return " in Init";
        case PLUGIN_ABSENT: case PLUGIN_READY: case PLUGIN_DEGRADED: case PLUGIN_DRAINING: case PLUGIN_STOPPED:
        case PLUGIN_BACKOFF: case PLUGIN_FAILED: case PLUGIN_STATES: break;
        }
        return "";
}

static enum death_class by_us(const struct life *l, char *text, size_t n)
{
        const struct super_tuning *t = &l->plugin->super->tuning;
        switch (l->verdict) {
        case DEATH_HANG:
                if (l->stuck_for_good) {
                        snprintf(text, n, "hung and was killed: %s", l->stuck);
                        return DEATH_HANG;
                }
                snprintf(text, n, "sent no sign of life for %.3g s and was killed", t->health_interval_s * t->health_missed);
                return DEATH_HANG;
        case DEATH_START_TIMEOUT:
                snprintf(text, n, "%s within %.3g s and was killed", l->attached && !l->ready_at ? "did not let itself be taken over" :
                         l->plugin->state == PLUGIN_INIT ? "did not finish Init" : "did not answer Hello", loop_now() - l->started_at);
                return DEATH_START_TIMEOUT;
        case DEATH_PROTOCOL:
                snprintf(text, n, "does not keep to the plugin contract and was killed%s%.180s", l->plugin->last_error[0] ? ": " : "",
                         l->plugin->last_error);
                return DEATH_PROTOCOL;
        case DEATH_OPERATOR:
                snprintf(text, n, "was stopped");
                return DEATH_OPERATOR;
        case DEATH_SANDBOX:
                snprintf(text, n, "%.160s%s, which its manifest does not ask for, and was killed", l->violation, when(l));
                return DEATH_SANDBOX;
        case DEATH_NONE: case DEATH_CLEAN: case DEATH_ERROR: case DEATH_SIGNAL: case DEATH_OOM: case DEATH_UNVERIFIED: case DEATH_UNKNOWN:
        case DEATH_CLASSES: break;
        }
        return DEATH_NONE;
}

/* A process of a group of its own that the machine has killed needs no other reason. */
static bool is_proven_oom(const struct life *l)
{
        return l->oom == OOM_YES && l->oom_is_own;
}

static void say_oom(const struct life *l, char *text, size_t n)
{
        int k = snprintf(text, n, "was killed%s because memory ran out", when(l));
        if (l->oom_is_own && k > 0 && (size_t)k < n)
                snprintf(text + k, n - (size_t)k, " in its cgroup (memory.max %llu, memory.events oom_kill %llu)",
                         (unsigned long long)l->plugin->manifest->rights.memory_bytes, (unsigned long long)l->oom_kills);
}

enum death_class death_classify(const struct life *l, int code, int status, char *text, size_t n)
{
        enum death_class d = DEATH_ERROR;
        char what[ERROR_BYTES / 2];
        if (code == CLD_EXITED) {
                d = status == 0 ? DEATH_CLEAN : DEATH_ERROR;
                snprintf(what, sizeof what, "ended by itself with exit code %d%s", status, when(l));
        } else if (l->verdict != DEATH_NONE && (status == SIGKILL || !code) && !is_proven_oom(l)) {
                d = by_us(l, what, sizeof what);
        } else if (!code && !is_proven_oom(l)) {
                d = DEATH_UNKNOWN;
                snprintf(what, sizeof what, "ended%s; how is told to nobody, the daprd that started it is gone", when(l));
        } else if ((status == SIGKILL || !code) && died_of_want(l)) {
                d = DEATH_OOM;
                say_oom(l, what, sizeof what);
        } else if (status == SIGSYS && l->walls) {
                d = DEATH_SANDBOX;
                snprintf(what, sizeof what, "made a system call%s that no plugin needs, and was killed", when(l));
        } else {
                d = DEATH_SIGNAL;
                snprintf(what, sizeof what, "was killed%s by signal %d (%s)", when(l), status, sigdescr_np(status) ? sigdescr_np(status) : "?");
        }
        if (l->verdict == DEATH_OPERATOR)
                d = DEATH_OPERATOR;
        const char *words = d == DEATH_OPERATOR ? NULL : last_words(l);
        snprintf(text, n, "%s%s%.200s", what, words ? "; its last words: " : "", words ? words : "");
        return d;
}

static bool is_no_fault_of_its_own(const struct life *l, enum death_class why)
{
        if (why == DEATH_OPERATOR)
                return true;
        if (why != DEATH_SIGNAL || !l || l->good_calls == 0)
                return false;
        return l->signal == SIGKILL || l->signal == SIGTERM || l->signal == SIGINT || l->signal == SIGHUP || l->signal == SIGQUIT;
}

static double pause_after(const struct super_tuning *t, size_t nth, double max)
{
        double s = nth < 2 ? 0 : t->backoff_min_s * pow(2, (double)nth - 2);
        return s < max ? s : max;
}

double death_tally(struct plugin *p, const struct life *l, enum death_class why)
{
        const struct super_tuning *t = &p->super->tuning;
        double now = loop_now();
        size_t old = 0;
        if (l && l->ready_at && now - l->ready_at >= t->stable_s)
                p->n_deaths = 0;
        if (is_no_fault_of_its_own(l, why))
                return 0;
        while (old < p->n_deaths && now - p->deaths[old] > t->deaths_window_s)
                old++;
        if (old == 0 && p->n_deaths == DEATHS_KEPT)
                old = 1;
        memmove(p->deaths, p->deaths + old, (p->n_deaths - old) * sizeof *p->deaths);
        p->n_deaths -= old;
        p->deaths[p->n_deaths++] = now;
        if (!p->manifest) /* a foreign socket may come back at any time */
                return pause_after(t, p->n_deaths, t->backoff_max_s < 1 ? t->backoff_max_s : 1);
        if (p->n_deaths >= t->deaths_max) {
                char last[ERROR_BYTES];
                snprintf(last, sizeof last, "%s", p->last_error);
                plugin_set_error(p, "died %zu times within %.3g s, the last time (%s) it %s", p->n_deaths, now - p->deaths[0],
                                 death_class_name(why), last);
                return -1;
        }
        return pause_after(t, p->n_deaths, t->backoff_max_s);
}
