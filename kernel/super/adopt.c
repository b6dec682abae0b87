/*
 * Handing plugins over to the program that takes this one's place by exec, and taking them over there. A process of a plugin keeps its
 * listening socket, its control socket (whose end would tell it to go) and its pipes; only the connection to it is made anew. Its
 * instances stay initialised: one is taken over when its Init request would be the same now, byte for byte; else the component is
 * started as usual and the old process ends with nothing to do.
 */
#include "kernel/super/adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/super/control.h"
#include "kernel/super/history.h"
#include "kernel/super/keep.h"
#include "kernel/super/ledger.h"
#include "kernel/super/linger.h"
#include "kernel/super/swap.h"

#define NOTE_DISABLED "component disabled"
#define NOTE_PREVIOUS "plugin before"

static const double CONNECT_S = 5;
enum { LEFT_OVER_GRACE_S = 1 };

/* ---- what makes an Init another one ---- */

static uint64_t request_hash(const struct instance *i)
{
        uint64_t h = 14695981039346656037u; /* FNV-1a */
        for (size_t k = 0; k < i->init_request.n; k++)
                h = (h ^ (unsigned char)i->init_request.p[k]) * 1099511628211u;
        return h;
}

/* ---- giving ---- */

/* Another descriptor of the same thing, without close-on-exec. */
static int keep(int fd)
{
        return fd < 0 ? -1 : fcntl(fd, F_DUPFD, 3);
}

static bool is_worth_it(const struct plugin *p)
{
        bool used = false;
        list_for_each(pos, &p->instances) {
                const struct instance *i = list_entry(pos, struct instance, in_plugin);
                used |= i->component && i->component->now == i && instance_is_usable(i) && !i->component->disabled;
        }
        return p->manifest && used && plugin_is_callable(p) && (p->listen_fd >= 0 || p->life->attached);
}

static const char *text_of(struct ledger *l, const char *s)
{
        return arena_strdup(&l->arena, str_of(s ? s : ""));
}

static int note_maps(struct ledger *l, const struct plugin *p, struct ledger_plugin *e)
{
        e->idempotent = arena_alloc(&l->arena, (p->idempotent.count + 1) * sizeof *e->idempotent);
        e->features = arena_alloc(&l->arena, (p->features.count + 1) * sizeof *e->features);
        if (!e->idempotent || !e->features)
                return -ENOMEM;
        for (struct map_entry *m = NULL; (m = map_next(&p->idempotent, m));)
                e->idempotent[e->n_idempotent++] = arena_strdup(&l->arena, str_n(m->key, m->key_n));
        for (struct map_entry *m = NULL; (m = map_next(&p->features, m));)
                e->features[e->n_features++] = (struct ledger_named){arena_strdup(&l->arena, str_n(m->key, m->key_n)), (uintptr_t)m->value};
        return 0;
}

static int note_instances(struct ledger *l, const struct plugin *p, struct ledger_plugin *e)
{
        size_t n = 0;
        list_for_each(pos, &p->instances)
                n++;
        e->instances = arena_alloc(&l->arena, (n + 1) * sizeof *e->instances);
        if (!e->instances)
                return -ENOMEM;
        list_for_each(pos, &p->instances) {
                const struct instance *i = list_entry(pos, struct instance, in_plugin);
                if (i->component->now == i && instance_is_usable(i))
                        e->instances[e->n_instances++] = (struct ledger_instance){text_of(l, i->spec->name), text_of(l, i->spec->type),
                                                                                  text_of(l, i->spec->version), i->component->kind, i->features,
                                                                                  request_hash(i)};
        }
        return 0;
}

struct ledger_plugin *adopt_describe(struct ledger *l, const struct plugin *p)
{
        struct ledger_plugin *e = ledger_add_plugin(l);
        const struct life *life = p->life;
        if (!e)
                return NULL;
        e->name = text_of(l, p->name);
        e->manifest = text_of(l, p->manifest->file);
        e->version = text_of(l, p->manifest->version);
        e->path = text_of(l, p->path);
        e->reported_name = text_of(l, p->reported_name);
        e->reported_version = text_of(l, p->reported_version);
        e->pid = life->pid;
        e->restarts = p->restarts;
        e->backend_known = p->backend_known;
        e->backend_up = p->backend_up;
        e->walls = life->walls;
        e->executable = text_of(l, p->manifest->executable);
        e->token = text_of(l, life->token);
        e->start_ticks = life->start_ticks;
        e->uid = life->uid;
        e->executable_id = life->executable_id;
        e->generation = life->generation;
        e->cgroup = text_of(l, life->cgroup);
        return note_maps(l, p, e) || note_instances(l, p, e) ? NULL : e;
}

static int give_plugin(struct ledger *l, struct plugin *p)
{
        struct ledger_plugin *e = adopt_describe(l, p);
        struct life *life = p->life;
        if (!e)
                return -ENOMEM;
        e->listen_fd = keep(p->listen_fd);
        e->pidfd = keep(life->pidfd);
        e->control_fd = keep(life->control_fd);
        e->out_fd = keep(life->out.fd);
        e->err_fd = keep(life->err.fd);
        e->watch_fd = life->watch ? keep(sandbox_watch_fd(life->watch)) : -1;
        /* from here on it is not ours: its end is not seen, its socket stays */
        if (p->listen_fd >= 0)
                close(p->listen_fd);
        p->listen_fd = -1;
        p->state = PLUGIN_STOPPED;
        life->cgroup[0] = '\0';
        life_end(life);
        return 0;
}

/* What an operator has done to components. */
static void note_components(struct super *s, struct ledger *l)
{
        list_for_each(pos, &s->components) {
                const struct component *c = list_entry(pos, struct component, in_super);
                if (c->disabled)
                        ledger_add_note(l, NOTE_DISABLED, c->name, "");
                if (c->previous)
                        ledger_add_note(l, NOTE_PREVIOUS, c->name, c->previous);
        }
}

void adopt_notes(struct super *s, struct component *c, struct arena *a)
{
        const struct ledger *l = s->started ? NULL : s->conf.ledger;
        const char *previous = ledger_note(l, NOTE_PREVIOUS, c->name), *err = NULL;

        if (previous && !c->previous && strcmp(previous, c->now->plugin->manifest ? c->now->plugin->manifest->file : previous) != 0)
                c->previous = strdup(previous);
        if (ledger_note(l, NOTE_DISABLED, c->name) && super_component_enable(s, c, false, a, &err))
                log_warn(SUPER_SCOPE, "component %s was disabled and is not any more: %s", c->name, err);
}

int super_hand_over(struct super *s, struct ledger *l, double grace_s)
{
        int r = 0;
        s->stopping = true;
        keep_stop(s); /* what stands on disk is right until the other program writes */
        list_for_each(pos, &s->components)
                swap_standby_over(list_entry(pos, struct component, in_super));
        note_components(s, l);
        foreign_watch_stop(s);
        control_give(s, l);
        scope_cancel(&s->scope);
        list_for_each(pos, &s->plugins) {
                struct plugin *p = list_entry(pos, struct plugin, in_super);
                if (r == 0 && is_worth_it(p))
                        r = give_plugin(l, p);
        }
        l->dir_user = text_of(l, s->dir.user);
        l->dir_own = text_of(l, s->dir.own);
        l->dir_lock = keep(s->dir.lock_fd);
        l->upgrades = s->upgrades + 1;
        const struct history_event *e;
        for (size_t i = 0; (e = history_at(s->history, i)); i++)
                ledger_add_event(l, e->at_ns, e->name, e->what, e->text);
        super_stop(s, grace_s);
        return r;
}

/* ---- taking ---- */

static int cloexec(int fd)
{
        if (fd >= 0)
                fcntl(fd, F_SETFD, FD_CLOEXEC);
        return fd;
}

static void end_process(const struct ledger_plugin *e)
{
        const int fds[] = {e->listen_fd, e->pidfd, e->control_fd, e->out_fd, e->err_fd, e->watch_fd};
        if (e->pidfd >= 0)
                syscall(SYS_pidfd_send_signal, e->pidfd, SIGKILL, NULL, 0);
        for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
}

static int fill_plugin(struct plugin *p, struct ledger_plugin *e)
{
        p->path = strdup(e->path);
        if (!p->path || asprintf(&p->socket, "unix:%s", p->path) < 0) {
                p->socket = NULL;
                return -ENOMEM;
        }
        const int fds[] = {e->listen_fd, e->pidfd, e->control_fd, e->out_fd, e->err_fd, e->watch_fd};
        for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
                cloexec(fds[i]);
        p->listen_fd = e->listen_fd;
        p->reported_name = *e->reported_name ? strdup(e->reported_name) : NULL;
        p->reported_version = *e->reported_version ? strdup(e->reported_version) : NULL;
        for (size_t i = 0; i < e->n_idempotent; i++)
                map_set(&p->idempotent, str_of(e->idempotent[i]), p);
        for (size_t i = 0; i < e->n_features; i++)
                map_set(&p->features, str_of(e->features[i].name), (void *)(uintptr_t)e->features[i].number);
        p->restarts = (unsigned)e->restarts;
        p->backend_known = e->backend_known;
        p->backend_up = e->backend_up;
        p->first = e->control_fd < 0; /* one that does not let itself be attached is not tried again */
        p->wanted = true;
        p->adopted = e;
        return 0;
}

static void adopt_plugin(struct super *s, struct ledger_plugin *e)
{
        struct manifest *m = NULL;
        struct arena a;
        const char *err = "";
        arena_init(&a, 0);
        int r = manifest_read(e->manifest, &m, &a, &err);
        if (r == 0 && strcmp(m->version, e->version) != 0) {
                err = "another version stands there now";
                r = -ESTALE;
        } else if (r == 0 && strcmp(m->executable, e->executable) != 0) {
                err = "its manifest names another program now";
                r = -ESTALE;
        }
        struct plugin *p = r ? NULL : plugin_new(s, m, m->name);
        if (p)
                r = fill_plugin(p, e);
        if (p && r == 0)
                r = life_adopt(p, e);
        if (r || !p) {
                log_warn(SUPER_SCOPE, "plugin %s of before cannot be taken over and is started anew: %s", e->name, *err ? err : strerrordesc_np(-r));
                end_process(e);
                if (p) {
                        p->listen_fd = -1;
                        plugin_free(p);
                } else {
                        manifest_free(m);
                }
        }
        arena_fini(&a);
}

/* Events and processes; numbers of new sockets begin after theirs. */
void adopt_remains(struct super *s, struct ledger *l)
{
        for (size_t i = 0; i < l->n_events; i++)
                history_add(s->history, l->events[i].at_ns, l->events[i].name, l->events[i].what, l->events[i].text);
        for (size_t i = 0; i < l->n_plugins; i++) {
                const char *number = strrchr(l->plugins[i].path, '/');
                unsigned n = number ? (unsigned)strtoul(number + 1, NULL, 10) : 0;
                s->sockets = n > s->sockets ? n : s->sockets;
                adopt_plugin(s, &l->plugins[i]);
        }
}

void adopt_plugins(struct super *s, struct ledger *l)
{
        snprintf(s->dir.user, sizeof s->dir.user, "%s", l->dir_user);
        snprintf(s->dir.own, sizeof s->dir.own, "%s", l->dir_own);
        s->dir.lock_fd = cloexec(l->dir_lock);
        s->upgrades = (unsigned)l->upgrades;
        adopt_remains(s, l);
}

/* ---- one component ---- */

static const struct ledger_instance *find_instance(const struct plugin *p, const struct component *c, const struct component_spec *spec)
{
        for (size_t i = 0; p->adopted && i < p->adopted->n_instances; i++) {
                const struct ledger_instance *e = &p->adopted->instances[i];
                if (e->kind == c->kind && strcmp(e->name, spec->name) == 0 && strcasecmp(e->type, spec->type) == 0 &&
                    strcmp(e->version, spec->version ? spec->version : "") == 0)
                        return e;
        }
        return NULL;
}

/* A broker that was told to rest when its subscriptions ended hands out again. */
static void wake_broker(struct instance *i, struct arena *a)
{
        struct rpc_status st = {0};
        struct str resp;
        instance_call(i, a, "/dapr.proto.components.v1.PubSub/Resume", STR(""), &resp, &st);
}

/* Nothing of it is wanted: it ends before another process takes its place, its ports and its files. */
static void make_room(struct plugin *p, const struct component *c)
{
        if (!p->life || !p->life->attached || p->manifest->share || !list_is_empty(&p->instances))
                return;
        log_info(SUPER_SCOPE, "plugin %s, process %d, of the daprd before is stopped: the settings of %s are others now", p->name, (int)p->life->pid,
                 c->name);
        super_stop_plugin(p, LEFT_OVER_GRACE_S);
}

static void wait_callable(const struct plugin *p, unsigned life)
{
        double until = loop_now() + CONNECT_S;
        while (!plugin_is_callable(p) && !p->super->stopping && p->life && p->life->number == life)
                if (cond_wait_until((struct cond *)&p->changed, until))
                        break;
}

/* The instance, which is the component's from then on; whether its plugin can be called is not known yet. */
static struct instance *take(struct component *c, struct plugin *p, const struct ledger_instance *e, const struct component_spec *spec, struct arena *a)
{
        struct instance *i;
        if (p->life->attached) {
                wait_callable(p, p->life->number);
                if (p->super->stopping)
                        return NULL;
                if (!plugin_is_callable(p)) {
                        log_warn(SUPER_SCOPE, "plugin %s of the daprd before is not taken over, component %s is started anew: %s", p->name, c->name,
                                 p->last_error[0] ? p->last_error : "it does not answer");
                        return NULL;
                }
        }
        if (instance_new(&i, p, spec, a))
                return NULL;
        instance_attach(i, c);
        if (request_hash(i) != e->request) {
                instance_free(i);
                make_room(p, c);
                return NULL;
        }
        if (p->life && p->adopted->watch_fd >= 0) {
                confine_adopted(p->life, p->adopted->watch_fd, (unsigned)p->adopted->walls, a);
                p->adopted->watch_fd = -1;
        }
        i->features = (unsigned)e->features;
        i->started = true;
        i->init_life = p->life ? p->life->number : 0;
        c->now = i;
        return i;
}

static struct instance *take_and_wait(struct super *s, struct component *c, struct plugin *p, const struct ledger_instance *e,
                                      const struct component_spec *spec, struct arena *a)
{
        s->taking++;
        struct instance *i = take(c, p, e, spec, a);
        if (--s->taking == 0)
                cond_broadcast(&s->taken);
        if (!i)
                return NULL;
        wait_callable(p, i->init_life);
        if (!instance_is_usable(i)) {
                c->now = NULL;
                super_abandon(i);
                return NULL;
        }
        if (c->kind == KIND_PUBSUB)
                wake_broker(i, a);
        return i;
}

struct instance *adopt_instance(struct super *s, struct component *c, const struct component_spec *spec, struct arena *a)
{
        list_for_each(pos, &s->plugins) {
                struct plugin *p = list_entry(pos, struct plugin, in_super);
                const struct ledger_instance *e = p->life ? find_instance(p, c, spec) : NULL;
                if (e)
                        return take_and_wait(s, c, p, e, spec, a);
        }
        return NULL;
}


static void stop_fiber(void *arg)
{
        struct plugin *p = arg;
        super_stop_plugin(p, LEFT_OVER_GRACE_S);
        if (list_is_empty(&p->instances) && !p->life)
                plugin_free(p);
}

/* Starts that still wait for an adopted plugin, the name resolver's above all. */
static void wait_taken(struct super *s)
{
        if (s->taking && s->stopping)
                list_for_each(pos, &s->plugins)
                        cond_broadcast(&list_entry(pos, struct plugin, in_super)->changed);
        fiber_shield_begin();
        while (s->taking)
                cond_wait(&s->taken);
        fiber_shield_end();
}

void super_adopted(struct super *s)
{
        struct scope scope;
        scope_init(&scope);
        wait_taken(s);
        list_for_each_safe(pos, next, &s->plugins) {
                struct plugin *p = list_entry(pos, struct plugin, in_super);
                bool left_over = p->adopted && list_is_empty(&p->instances);
                if (p->adopted && p->adopted->watch_fd >= 0)
                        close(p->adopted->watch_fd);
                p->adopted = NULL;
                if (left_over && !p->life)
                        plugin_free(p);
                else if (left_over && fiber_go(&scope, "plugin-left-over", stop_fiber, p))
                        life_kill(p->life, DEATH_OPERATOR);
        }
        fiber_shield_begin();
        scope_join(&scope);
        fiber_shield_end();
        linger_end(s);
}
