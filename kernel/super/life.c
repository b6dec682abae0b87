/*
 * One run of a plugin's process, or one connection to a foreign component. Starting and ending never park: what waits for a
 * dead life's fibers and calls is a clean-up fiber of the supervisor.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/super/ledger.h"
#include "kernel/super/plugin.h"
#include "kernel/super/proof.h"
#include "kernel/super/spawn.h"

#define DEBUGGER_POLL_S 0.3

void life_ref(struct life *l)
{
        l->refs++;
}

void life_unref(struct life *l)
{
        if (--l->refs == 0)
                free(l);
}

/* ---- watches ---- */

static void on_lost(void *arg)
{
        struct life *l = arg;
        struct plugin *p = l->plugin;
        if (l->ended || p->life != l)
                return;
        if (p->manifest) {
                plugin_event(p, EV_LOST);
                return;
        }
        plugin_set_error(p, "the connection to %s was lost", p->path);
        plugin_set_death(p, DEATH_PROTOCOL);
        plugin_event(p, p->state == PLUGIN_DRAINING ? EV_DRAINED : EV_EXIT);
}

/* The process has ended, be it a child of ours or not. */
static bool has_ended(const struct life *l)
{
        struct pollfd p = {.fd = l->pidfd, .events = POLLIN};
        return l->pidfd >= 0 && poll(&p, 1, 0) == 1;
}

/* How it ended; si_code 0 = it has, and nobody tells us how. False: it has not. */
static bool reap(struct life *l, siginfo_t *si)
{
        if (waitid(P_PIDFD, (id_t)l->pidfd, si, WEXITED | WNOHANG | WNOWAIT) == 0) {
                if (si->si_pid == 0)
                        return false;
                death_oom_look(l);
                return waitid(P_PIDFD, (id_t)l->pidfd, si, WEXITED | WNOHANG) == 0;
        }
        if (errno != ECHILD || !has_ended(l))
                return false;
        death_oom_look(l);
        return true;
}

static void on_exit_event(struct io_watch *w, int events)
{
        struct life *l = container_of(w, struct life, exit_watch);
        struct plugin *p = l->plugin;
        siginfo_t si = {0};
        if (!reap(l, &si))
                return;
        io_watch_stop(w);
        l->usable = false;
        output_stop(&l->out);
        output_stop(&l->err);
        l->signal = si.si_code == CLD_EXITED ? 0 : si.si_status;
        char text[ERROR_BYTES];
        enum death_class d = death_classify(l, si.si_code, si.si_status, text, sizeof text);
        if (p->state != PLUGIN_FAILED) { /* there the first reason stays */
                plugin_set_death(p, d);
                plugin_set_error(p, "%s", text);
        }
        bool had_failed = p->state == PLUGIN_FAILED;
        /* An end that was asked for is told by whoever asked. */
        if (d != DEATH_OPERATOR && p->state != PLUGIN_DRAINING) {
                char line[ERROR_BYTES + 64];
                snprintf(line, sizeof line, "%s, process %d, %s", p->name, (int)l->pid, text);
                plugin_note(p, death_class_name(d), line);
        }
        plugin_event(p, EV_EXIT);
        if (p->state == PLUGIN_FAILED && !had_failed)
                plugin_note(p, "failed", p->last_error);
}

static void on_kill_timer(struct timer *t)
{
        struct life *l = container_of(t, struct life, kill_timer);
        life_kill(l, l->kill_why);
}

bool life_is_debugged(const struct life *l)
{
        return l->plugin->debugged && l->number == 1;
}

double life_limit_s(const struct life *l, double s)
{
        return life_is_debugged(l) ? DEBUG_LIMIT_S : s;
}

struct tracing {
        char state;     /* 'T' = stopped */
        int tracer;     /* pid of its debugger, 0 = none */
};

static struct tracing trace_of(const struct life *l)
{
        char path[64], line[128];
        struct tracing t = {0};
        snprintf(path, sizeof path, "/proc/%d/status", (int)l->pid);
        FILE *f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f))
                if (sscanf(line, "State: %c", &t.state) != 1 && sscanf(line, "TracerPid: %d", &t.tracer) == 1)
                        break;
        if (f)
                fclose(f);
        return t;
}

/* A debugger holds the process, or it is stopped and waits for one. */
bool life_is_held(const struct life *l)
{
        struct tracing t = trace_of(l);
        return t.tracer > 0 || (l->plugin->debugged && t.state == 'T');
}

/* It is stopped twice then: as it started, and by its debugger, which has had a moment to take hold of it. The former ends here. */
static void on_debug_timer(struct timer *timer)
{
        struct life *l = container_of(timer, struct life, debug_timer);
        struct tracing t = trace_of(l);
        bool had = l->has_debugger;
        l->has_debugger = t.tracer > 0;
        if (had && l->has_debugger)
                syscall(SYS_pidfd_send_signal, l->pidfd, SIGCONT, NULL, 0);
        if ((had && l->has_debugger) || (t.tracer == 0 && t.state != 'T'))
                timer_stop(timer);
}

static void on_start_timer(struct timer *t)
{
        struct life *l = container_of(t, struct life, start_timer);
        plugin_event(l->plugin, EV_TIMEOUT);
}

/* A report that is late because this process did not run (stopped, suspended) is no hang: then one more interval is given. The same
 * while somebody debugs the plugin. */
static void on_watchdog(struct timer *t)
{
        struct life *l = container_of(t, struct life, watchdog);
        const struct super_tuning *u = &l->plugin->super->tuning;
        double now = loop_now(), limit = u->health_interval_s * u->health_missed;
        bool we_slept = now - l->watchdog_due > u->health_interval_s / 2;
        l->watchdog_due = now + u->health_interval_s;
        death_oom_sample(l->plugin->super);
        death_oom_watch(l);
        if (we_slept) {
                if (l->report_at < now - limit + u->health_interval_s)
                        l->report_at = now - limit + u->health_interval_s;
        } else if (now - l->report_at > limit && life_is_held(l)) {
                l->report_at = now;
        } else if (now - l->report_at > limit) {
                timer_stop(t);
                plugin_event(l->plugin, EV_HANG);
        }
}

void life_watchdog_start(struct life *l)
{
        double interval = l->plugin->super->tuning.health_interval_s;
        l->report_at = loop_now();
        l->watchdog_due = l->report_at + interval;
        timer_start(&l->watchdog, interval, interval);
}

/* ---- start ---- */

static struct life *life_new(struct plugin *p)
{
        struct life *l = calloc(1, sizeof *l);
        if (!l)
                return NULL;
        l->plugin = p;
        l->number = ++p->lives;
        l->refs = 1;
        l->pidfd = l->control_fd = l->out.fd = l->err.fd = -1;
        l->started_at = loop_now();
        scope_init(&l->scope);
        list_init(&l->calls);
        timer_init(&l->watchdog, on_watchdog);
        timer_init(&l->kill_timer, on_kill_timer);
        timer_init(&l->start_timer, on_start_timer);
        timer_init(&l->debug_timer, on_debug_timer);
        return l;
}

static int open_channel(struct life *l)
{
        struct rpc_channel_conf conf = {
                .target = str_of(l->plugin->socket), .authority = STR("localhost"), .max_recv_bytes = -1, .no_reconnect = true};
        int r = rpc_channel_new(&l->ch, &conf);
        if (r == 0)
                rpc_channel_on_lost(l->ch, on_lost, l);
        return r;
}

/* Of a process that was taken over from another daprd; we have no descriptor of it. */
static void forget_socket(struct plugin *p)
{
        if (p->path)
                unlink(p->path);
        free(p->path);
        free(p->socket);
        p->path = p->socket = NULL;
}

/* The listening socket is made once and outlives the processes. */
static int open_socket(struct plugin *p)
{
        struct super *s = p->super;
        int r = p->listen_fd >= 0 ? 0 : runtime_dir_open(&s->dir);
        if (r || p->listen_fd >= 0)
                return r;
        forget_socket(p);
        if (asprintf(&p->path, "%s/%u.sock", s->dir.own, ++s->sockets) < 0 || asprintf(&p->socket, "unix:%s", p->path) < 0)
                return -ENOMEM;
        p->listen_fd = listener_unix(p->path);
        return p->listen_fd < 0 ? p->listen_fd : 0;
}

static size_t n_variables(char *const *env)
{
        size_t n = 0;
        while (env[n])
                n++;
        return n;
}

/* All of daprd's but what belongs to itself: its tokens and its DAPR_… settings. */
static char **whole_environment(struct arena *a)
{
        size_t n = n_variables(environ), used = 0;
        char **env = arena_zalloc(a, (n + 2) * sizeof *env);
        for (size_t i = 0; env && i < n; i++)
                if (strncasecmp(environ[i], "DAPR_", 5) && strncasecmp(environ[i], "APP_API_TOKEN=", 14))
                        env[used++] = environ[i];
        return env;
}

static char **make_environment(const struct manifest *m, struct arena *a)
{
        char **env = arena_zalloc(a, (m->n_environment + 2) * sizeof *env);
        size_t n = 0;
        if (m->n_environment == 1 && !strcmp(m->environment[0], "*"))
                return whole_environment(a);
        for (size_t i = 0; env && i < m->n_environment; i++) {
                const char *value = getenv(m->environment[i]);
                if (value && (env[n] = arena_printf(a, "%s=%s", m->environment[i], value)))
                        n++;
        }
        return env;
}

static const char *only_component(const struct plugin *p)
{
        if (list_is_empty(&p->instances) || p->instances.next->next != &p->instances)
                return NULL;
        return list_entry(p->instances.next, struct instance, in_plugin)->spec->name;
}

/* Of the file that was looked at, when one was: another one may stand at the path by now. */
static uint64_t executable_id(const struct manifest *m, const struct life_program *program)
{
        char path[40];
        snprintf(path, sizeof path, "/proc/self/fd/%d", program->exec_fd);
        return proof_file_id(program->exec_fd >= 0 ? path : m->executable);
}

/* With lingering its output goes through named pipes, which the next kernel can open, and it is told by a secret who that is. */
static int prepare_linger(struct life *l, struct arena *a, struct spawn_how *how)
{
        unsigned char secret[(LINGER_TOKEN_BYTES - 1) / 2];
        const char *path = l->plugin->path;
        if (l->plugin->super->linger_s <= 0)
                return 0;
        if (getrandom(secret, sizeof secret, 0) != (ssize_t)sizeof secret)
                return -EAGAIN;
        for (size_t i = 0; i < sizeof secret; i++)
                snprintf(l->token + 2 * i, 3, "%02x", secret[i]);
        how->lingers = true;
        how->out_path = arena_printf(a, "%.*s.out", (int)(strlen(path) - strlen(".sock")), path);
        how->err_path = arena_printf(a, "%.*s.err", (int)(strlen(path) - strlen(".sock")), path);
        return how->out_path && how->err_path ? 0 : -ENOMEM;
}

static int spawn(struct life *l, const struct life_program *program)
{
        struct plugin *p = l->plugin;
        struct spawned sp;
        struct arena a;
        char err[ERROR_BYTES / 2] = "";
        death_oom_sample(p->super);
        arena_init(&a, 0);
        char **env = make_environment(p->manifest, &a), no_byte_code[] = "PYTHONDONTWRITEBYTECODE=1";
        if (env && program->is_pinned_script) /* byte code beside the modules would be files that are not in the package */
                env[n_variables(env)] = no_byte_code;
        struct confinement *c = arena_alloc(&a, sizeof *c);
        int r = env && c ? confine_prepare(p, &a, c) : -ENOMEM;
        if (r == 0) {
                struct spawn_how how = {.cgroup_fd = confine_group(l, c), .exec_fd = program->exec_fd, .listen_fd = p->listen_fd, .sandbox = &c->sandbox,
                                        .stopped = life_is_debugged(l)};
                l->executable_id = p->super->linger_s > 0 ? executable_id(p->manifest, program) : 0;
                r = prepare_linger(l, &a, &how);
                if (r == 0)
                        r = spawn_plugin(p->manifest->executable, env, &how, &sp, err, sizeof err);
                l->uid = c->sandbox.on && c->sandbox.uid ? c->sandbox.uid : geteuid();
                sandbox_fini(&c->sandbox);
                if (how.cgroup_fd >= 0)
                        close(how.cgroup_fd);
        }
        if (r || !sp.in_cgroup) {
                cgroup_remove(&p->super->cgroups, l->cgroup);
                l->cgroup[0] = '\0';
        }
        if (r) {
                arena_fini(&a);
                plugin_set_error(p, "could not be started: %s", err[0] ? err : strerrordesc_np(-r));
                return r;
        }
        l->pid = sp.pid;
        l->pidfd = sp.pidfd;
        l->control_fd = sp.control_fd;
        l->start_ticks = l->token[0] ? proof_start_ticks(l->pid) : 0;
        confine_watch(l, c);
        l->walls |= l->cgroup[0] ? WALL_CGROUP : 0;
        death_oom_watch(l);
        arena_fini(&a);
        output_start(&l->out, sp.out_fd, LOG_INFO, p->name, only_component(p), &p->ring);
        output_start(&l->err, sp.err_fd, LOG_WARN, p->name, only_component(p), &p->ring);
        io_watch_init(&l->exit_watch, l->pidfd, on_exit_event);
        io_watch_set(&l->exit_watch, IO_READ);
        if (life_is_debugged(l))
                timer_start(&l->debug_timer, DEBUGGER_POLL_S, DEBUGGER_POLL_S);
        else
                timer_start(&l->start_timer, p->super->tuning.hello_timeout_s, 0);
        return 0;
}

static int say_hello(struct life *l)
{
        int r = life_hello_start(l);
        if (r == 0)
                return 0;
        plugin_set_error(l->plugin, "could not be started: %s", strerrordesc_np(-r));
        if (l->pidfd >= 0) { /* no fiber can be had: reaped here, a killed process ends at once */
                siginfo_t si;
                syscall(SYS_pidfd_send_signal, l->pidfd, SIGKILL, NULL, 0);
                waitid(P_PIDFD, (id_t)l->pidfd, &si, WEXITED);
        }
        return r;
}

int life_start(struct plugin *p)
{
        must(!p->life);
        int r = p->manifest ? open_socket(p) : 0;
        if (r) {
                plugin_set_error(p, "could not be started: no socket for it: %s", strerrordesc_np(-r));
                return r;
        }
        struct life *l = life_new(p);
        if (!l)
                return -ENOMEM;
        bool checked = p->manifest && life_needs_check(p);
        r = open_channel(l);
        if (r == 0 && p->manifest && !checked)
                r = spawn(l, &(struct life_program){.exec_fd = -1});
        if (r) {
                if (l->ch)
                        rpc_channel_close(l->ch);
                life_unref(l);
                return r;
        }
        p->life = l;
        if (checked && (r = life_check_start(l)) == 0)
                return 0;
        if (!checked && (r = say_hello(l)) == 0)
                return 0;
        life_end(l);
        return r;
}

void life_run(struct life *l, const struct life_program *program)
{
        struct plugin *p = l->plugin;
        if (spawn(l, program) == 0 && say_hello(l) == 0)
                return;
        plugin_set_death(p, DEATH_ERROR);
        plugin_event(p, EV_EXIT);
}

/* Without a control socket it is a process of a daprd that crashed. */
static void take_over(struct life *l, const struct ledger_plugin *e)
{
        l->pid = (pid_t)e->pid;
        l->pidfd = e->pidfd;
        l->control_fd = e->control_fd;
        l->attached = e->control_fd < 0;
        l->walls = (unsigned)e->walls;
        l->uid = (uid_t)e->uid;
        l->start_ticks = e->start_ticks;
        l->executable_id = e->executable_id;
        l->generation = (unsigned)e->generation + l->attached;
        snprintf(l->token, sizeof l->token, "%s", e->token);
        snprintf(l->cgroup, sizeof l->cgroup, "%s", cgroup_is_there(&l->plugin->super->cgroups, e->cgroup) ? e->cgroup : "");
}

int life_adopt(struct plugin *p, const struct ledger_plugin *e)
{
        struct life *l = life_new(p);
        if (!l)
                return -ENOMEM;
        int r = open_channel(l);
        if (r) {
                life_unref(l);
                return r;
        }
        take_over(l, e);
        death_oom_sample(p->super);
        p->life = l;
        p->state = PLUGIN_INIT;
        r = life_resume_start(l);
        if (r) {
                l->pidfd = l->control_fd = -1;
                life_end(l);
                return r;
        }
        output_start(&l->out, e->out_fd, LOG_INFO, p->name, NULL, &p->ring);
        output_start(&l->err, e->err_fd, LOG_WARN, p->name, NULL, &p->ring);
        if (l->attached) /* it runs already: as long as any other may be silent */
                timer_start(&l->start_timer, p->super->tuning.health_interval_s * p->super->tuning.health_missed, 0);
        io_watch_init(&l->exit_watch, l->pidfd, on_exit_event);
        io_watch_set(&l->exit_watch, IO_READ);
        return 0;
}

/* ---- end ---- */

void life_kill(struct life *l, enum death_class why)
{
        timer_stop(&l->kill_timer);
        if (l->ended)
                return;
        /* its end was not told yet: then the reason was another one */
        bool too_late = (why == DEATH_PROTOCOL || why == DEATH_HANG) && l->pidfd >= 0 && (has_ended(l) || proof_is_exiting(l->pid));
        if (l->verdict == DEATH_NONE && !too_late)
                l->verdict = why;
        if (l->verdict == DEATH_HANG && !list_is_empty(&l->calls))
                list_entry(l->calls.next, struct sending, in_life)->is_suspect = true;
        l->usable = false;
        if (l->pidfd >= 0)
                syscall(SYS_pidfd_send_signal, l->pidfd, SIGKILL, NULL, 0);
        else
                life_end(l);
}

void life_kill_after(struct life *l, double s, enum death_class why)
{
        if (l->ended || timer_is_active(&l->kill_timer))
                return;
        l->kill_why = why;
        timer_start(&l->kill_timer, s, 0);
}

static void cleanup_fiber(void *arg)
{
        struct life *l = arg;
        fiber_shield_begin();
        scope_join(&l->scope);
        fiber_shield_end();
        life_unref(l);
}

static void close_fd(int *fd)
{
        if (*fd >= 0)
                close(*fd);
        *fd = -1;
}

void life_let_go(struct life *l)
{
        close_fd(&l->control_fd);
        if (l->lifeline)
                rpc_cancel(l->lifeline);
}

void life_end(struct life *l)
{
        struct plugin *p = l->plugin;
        if (l->ended)
                return;
        l->ended = true;
        l->usable = false;
        if (p->life == l)
                p->life = NULL;
        timer_stop(&l->watchdog);
        timer_stop(&l->kill_timer);
        timer_stop(&l->start_timer);
        timer_stop(&l->debug_timer);
        io_watch_stop(&l->exit_watch);
        output_stop(&l->out);
        output_stop(&l->err);
        sandbox_watch_stop(l->watch);
        l->watch = NULL;
        cgroup_remove(&p->super->cgroups, l->cgroup);
        close_fd(&l->pidfd);
        close_fd(&l->control_fd);
        rpc_channel_on_lost(l->ch, NULL, NULL);
        rpc_channel_close(l->ch);
        scope_cancel(&l->scope);
        if (l->scope.count == 0)
                life_unref(l);
        else if (fiber_go(&p->super->cleanup, "plugin-cleanup", cleanup_fiber, l))
                must(!"a fiber for cleaning up"); /* only when FIBER_MAX is reached with no fiber ever ending */
}
