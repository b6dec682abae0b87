/* The control socket: routes are few and by hand; answers are made whole and sent. Its trouble never disturbs components. */
#include "kernel/super/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "kernel/observe/metrics_serve.h"
#include "kernel/observe/slow.h"
#include "kernel/opts.h"
#include "kernel/super/control_internal.h"
#include "kernel/super/ledger.h"
#include "sdk/base/runtime_settings.h"

enum { APP_ID_CHARS = 40, CONTROL_CONNS_MAX = 32, CONTROL_BODY_MAX = 2 << 20 };
static const double GIVE_GRACE_S = 0.05; /* for answers to daprctl when another program takes over */

/* ---- rows ---- */

void control_kv(struct json_writer *w, const char *key, const char *value)
{
        json_kv(w, key, str_of(value ? value : ""));
}

void control_number(struct json_writer *w, const char *key, uint64_t v)
{
        json_key(w, str_of(key));
        json_uint(w, v);
}

static void seconds(struct json_writer *w, const char *key, double v)
{
        json_key(w, str_of(key));
        json_double(w, (double)(int64_t)(v * 1000) / 1000);
}

static void flag(struct json_writer *w, const char *key, bool v)
{
        json_key(w, str_of(key));
        json_bool(w, v);
}

static void write_state(struct json_writer *w, const struct component_status *st)
{
        control_kv(w, "state", plugin_state_name(st->state));
        control_kv(w, "plugin", st->plugin_name);
        control_kv(w, "pluginVersion", st->plugin_version);
        control_kv(w, "executable", st->executable);
        control_kv(w, "socket", st->socket);
        control_number(w, "pid", (uint64_t)st->pid);
        flag(w, "foreign", st->foreign);
        control_number(w, "adopted", st->adopted);
        control_kv(w, "backend", !st->backend_known ? "unknown" : st->backend_reachable ? "reachable" : "unreachable");
        control_kv(w, "lastError", st->last_error);
        if (st->stuck[0])
                control_kv(w, "stuck", st->stuck);
        control_kv(w, "lastDeath", death_class_name(st->last_death));
        control_number(w, "restarts", st->restarts);
        control_number(w, "deaths", st->deaths_in_window);
        control_number(w, "calls", st->calls);
        control_number(w, "errors", st->errors);
        control_number(w, "inflight", st->inflight);
        control_number(w, "abandoned", st->abandoned);
        control_number(w, "rssBytes", st->rss_bytes);
        seconds(w, "cpuSeconds", st->cpu_seconds);
        seconds(w, "sinceSeconds", st->since_s);
}

static void write_walls(struct json_writer *w, unsigned walls)
{
        json_key(w, STR("walls"));
        json_array_begin(w);
        for (unsigned bit = 1; bit && bit <= walls; bit <<= 1)
                if ((walls & bit) && sandbox_wall_name(bit))
                        json_string(w, str_of(sandbox_wall_name(bit)));
        json_array_end(w);
}

static void write_features(struct json_writer *w, unsigned features)
{
        json_key(w, STR("features"));
        json_array_begin(w);
        for (unsigned bit = 1; bit && bit <= features; bit <<= 1)
                if ((features & bit) && component_feature_name(bit))
                        json_string(w, str_of(component_feature_name(bit)));
        json_array_end(w);
}

/* Leaves the object open. */
static void row_begin(struct json_writer *w, const struct component *c, struct arena *a)
{
        struct component_status st;
        component_status_get(c, a, &st);
        json_object_begin(w);
        control_kv(w, "component", c->name);
        control_kv(w, "type", c->now ? c->now->spec->type : "");
        control_kv(w, "version", c->now ? c->now->spec->version : "");
        flag(w, "disabled", c->disabled);
        if (c->candidate && c->candidate->life && c->candidate->life->pid > 0)
                control_number(w, "candidatePid", (uint64_t)c->candidate->life->pid);
        write_state(w, &st);
        write_walls(w, st.walls);
        write_features(w, component_features(c));
        control_fault_row(w, c, a);
}

static void write_failed(struct json_writer *w, const struct failed_start *f)
{
        json_object_begin(w);
        control_kv(w, "component", f->name);
        control_kv(w, "type", f->type);
        control_kv(w, "state", plugin_state_name(PLUGIN_FAILED));
        control_kv(w, "lastError", f->error);
        json_object_end(w);
}

static void write_metadata(struct json_writer *w, const struct component *c)
{
        json_key(w, STR("metadata"));
        json_object_begin(w);
        const struct instance *now = c->now;
        const struct manifest *manifest = now->plugin->manifest;
        for (size_t i = 0; i < now->spec->n_metadata; i++) {
                const struct metadata_item *m = &now->spec->metadata[i];
                const struct manifest_field *f = manifest && m->name ? manifest_field(manifest, m->name) : NULL;
                bool is_plain = f ? !f->sensitive : runtime_setting(str_of(now->spec->type), str_of(m->name)) == RUNTIME_SETTING_PLAIN;
                bool known = is_plain && !m->secret_name; /* what nobody vouches for may be a secret */
                control_kv(w, m->name, known ? m->value : "***");
        }
        json_object_end(w);
}

void control_time(char to[40], int64_t at_ns)
{
        time_t t = (time_t)(at_ns / 1000000000);
        struct tm tm;
        gmtime_r(&t, &tm);
        size_t n = strftime(to, 30, "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(to + n, 40 - n, ".%03dZ", (int)(at_ns / 1000000 % 1000));
}

static void write_lines(struct json_writer *w, const char *key, const struct log_ring *ring)
{
        const struct log_ring_line *l;
        json_key(w, str_of(key));
        json_array_begin(w);
        for (size_t i = 0; (l = log_ring_at(ring, i)); i++) {
                char at[40];
                control_time(at, l->at_ns);
                json_object_begin(w);
                control_kv(w, "time", at);
                control_kv(w, "level", log_level_name(l->level));
                control_kv(w, "msg", l->text);
                json_object_end(w);
        }
        json_array_end(w);
}

/* ---- routes ---- */

void control_reply(struct http_req *r, int status, const struct buf *body)
{
        struct http_header h = {STR("Content-Type"), STR("application/json")};
        http_resp_send(r, status, &h, 1, body->failed ? STR("{}") : buf_str(body));
}

void control_refuse(struct http_req *r, int status, const char *text)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        control_kv(&w, "error", text);
        json_object_end(&w);
        control_reply(r, status, &b);
        buf_fini(&b);
}

static void list(struct control *k, struct http_req *r)
{
        struct super *s = k->super;
        const struct { const char *name; bool is_there; } limits[] = {
                {"memory", s->cgroups.memory}, {"processes", s->cgroups.pids}, {"CPU", s->cgroups.cpu}};
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        control_kv(&w, "appId", s->conf.opts ? s->conf.opts->app_id : "");
        control_number(&w, "pid", (uint64_t)getpid());
        control_kv(&w, "version", DAPR_VERSION);
        control_number(&w, "upgrades", s->upgrades);
        flag(&w, "started", s->started);
        control_kv(&w, "cgroups", s->cgroups.own[0] ? s->cgroups.own : "");
        control_kv(&w, "cgroupsMissing", s->conf.opts && s->conf.opts->plugin_sandbox_off ? "the sandbox is off" : s->cgroups.why);
        json_key(&w, STR("wallsLacking"));
        json_array_begin(&w);
        const char *lacks;
        for (int i = 0; (lacks = sandbox_lacks(i)); i++)
                json_string(&w, str_of(lacks));
        json_array_end(&w);
        json_key(&w, STR("cgroupLimits"));
        json_array_begin(&w);
        for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
                if (limits[i].is_there)
                        json_string(&w, str_of(limits[i].name));
        json_array_end(&w);
        json_key(&w, STR("plugins"));
        json_array_begin(&w);
        list_for_each(pos, &s->components) {
                row_begin(&w, list_entry(pos, struct component, in_super), r->arena);
                json_object_end(&w);
        }
        list_for_each(pos, &s->failed)
                write_failed(&w, list_entry(pos, struct failed_start, in_super));
        json_array_end(&w);
        json_object_end(&w);
        control_reply(r, 200, &b);
        buf_fini(&b);
}

static void metrics(struct control *k, struct http_req *r)
{
        const struct str type = STR("text/plain; version=0.0.4; charset=utf-8");

        if (!k->super->conf.metrics)
                http_resp_send(r, 200, &(struct http_header){STR("Content-Type"), type}, 1, (struct str){0});
        else if (metrics_serve(k->super->conf.metrics, r, type) == -ENOMEM)
                control_refuse(r, 500, "out of memory");
}

static void slow_requests(struct control *k, struct http_req *r)
{
        struct buf b = {0};
        slow_write(k->super->conf.slow, &b);
        control_reply(r, 200, &b);
        buf_fini(&b);
}

static struct component *find(struct super *s, struct str name)
{
        list_for_each(pos, &s->components) {
                struct component *c = list_entry(pos, struct component, in_super);
                if (str_eqz(name, c->name) && c->now)
                        return c;
        }
        return NULL;
}

static void show(struct control *k, struct http_req *r, const struct component *c)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        row_begin(&w, c, r->arena);
        write_metadata(&w, c);
        write_lines(&w, "log", &c->now->plugin->ring);
        json_object_end(&w);
        control_reply(r, 200, &b);
        buf_fini(&b);
}

static void show_lines(struct http_req *r, const struct component *c)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        json_object_begin(&w);
        write_lines(&w, "lines", &c->now->plugin->ring);
        json_object_end(&w);
        control_reply(r, 200, &b);
        buf_fini(&b);
}

static void show_failed(struct control *k, struct http_req *r, struct str name)
{
        list_for_each(pos, &k->super->failed) {
                const struct failed_start *f = list_entry(pos, struct failed_start, in_super);
                if (!str_eqz(name, f->name))
                        continue;
                struct buf b = {0};
                struct json_writer w;
                json_write_init(&w, &b);
                write_failed(&w, f);
                control_reply(r, 200, &b);
                buf_fini(&b);
                return;
        }
        control_refuse(r, 404, "there is no such component");
}

static bool handle_elsewhere(struct control *k, struct http_req *r)
{
        for (size_t i = 0; i < CONTROL_ROUTES_MAX; i++) {
                struct str prefix = str_of(k->routes[i].prefix);
                if (!k->routes[i].fn || !str_has_prefix(r->path, prefix))
                        continue;
                k->routes[i].fn(r, str_skip(r->path, prefix.n), k->routes[i].arg);
                return true;
        }
        return false;
}

void control_serve(struct super *s, const char *prefix, control_fn fn, void *arg)
{
        struct control *k = s->control;
        for (size_t i = 0; k && i < CONTROL_ROUTES_MAX; i++) {
                bool same = k->routes[i].prefix && strcmp(k->routes[i].prefix, prefix) == 0;
                if (!same && k->routes[i].fn)
                        continue;
                k->routes[i].prefix = prefix;
                k->routes[i].fn = fn;
                k->routes[i].arg = arg;
                return;
        }
}

static void handle(struct http_req *r, void *arg)
{
        struct control *k = arg;
        if (handle_elsewhere(k, r))
                return;
        struct str rest = r->path;
        bool get = str_eq(r->method, STR("GET")), post = str_eq(r->method, STR("POST"));
        if (post && str_eq(rest, STR("/v1/upgrade"))) {
                control_upgrade(k, r);
                return;
        }
        if (get && str_eq(rest, STR("/v1/plugins"))) {
                list(k, r);
                return;
        }
        if (get && str_eq(rest, STR("/v1/metrics"))) {
                metrics(k, r);
                return;
        }
        if (get && str_eq(rest, STR("/v1/requests"))) {
                slow_requests(k, r);
                return;
        }
        if (!str_has_prefix(rest, STR("/v1/plugins/"))) {
                control_refuse(r, 404, "unknown path");
                return;
        }
        rest = str_skip(rest, sizeof "/v1/plugins/" - 1);
        struct str name = url_unescape(r->arena, str_cut(&rest, '/'), false);
        struct component *c = find(k->super, name);
        if (get && !rest.p && c)
                show(k, r, c);
        else if (get && !rest.p)
                show_failed(k, r, name);
        else if (get && str_eq(rest, STR("history")))
                control_history(k, r, name);
        else if (!c)
                control_refuse(r, 404, "there is no such component");
        else if (get && str_eq(rest, STR("logs")))
                show_lines(r, c);
        else if (get && str_eq(rest, STR("tap")))
                control_tap_take(r, c);
        else if (!post || !control_post(k, r, c, rest))
                control_refuse(r, 404, "unknown path");
}

/* ---- the socket ---- */

static void socket_path(char *to, size_t n, const char *dir, const char *app_id)
{
        char id[APP_ID_CHARS + 1];
        size_t k = 0;
        for (; app_id[k] && k < APP_ID_CHARS; k++) {
                char ch = app_id[k];
                bool plain = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || strchr("._-", ch);
                id[k] = plain && !(k == 0 && ch == '.') ? ch : '_';
        }
        id[k] = '\0';
        snprintf(to, n, "%s/%s.%d.sock", dir, id, (int)getpid());
}

static int open_socket(struct control *k)
{
        char addr[160];
        struct http_server_conf conf = {.name = "control", .handler = handle, .arg = k, .max_conns = CONTROL_CONNS_MAX, .no_h2c = true,
                                        .max_body_bytes = CONTROL_BODY_MAX};
        int r = runtime_dir_open(&k->super->dir);
        if (r)
                return r;
        const struct daprd_opts *o = k->super->conf.opts;
        socket_path(k->path, sizeof k->path, k->super->dir.user, o && o->app_id ? o->app_id : "");
        snprintf(addr, sizeof addr, "unix:%s", k->path);
        int fd = k->super->conf.ledger ? ledger_take(k->super->conf.ledger, conf.name, true) : -1;
        if (fd < 0)
                unlink(k->path);
        r = http_server_new(&k->server, &conf);
        if (r == 0)
                r = fd >= 0 ? http_server_adopt(k->server, fd) : http_server_listen(k->server, str_of(addr)); /* the folder is ours alone; the socket is made so too */
        while (fd >= 0 && r == 0 && (fd = ledger_take(k->super->conf.ledger, conf.name, false)) >= 0)
                http_server_take(k->server, fd);
        if (r == 0 && chmod(k->path, 0600))
                r = -errno;
        return r;
}

void control_start(struct super *s)
{
        if (s->control)
                return;
        struct control *k = calloc(1, sizeof *k);
        if (!k)
                return;
        s->control = k;
        k->super = s;
        int r = open_socket(k);
        if (r)
                log_warn(SUPER_SCOPE, "no control socket for daprctl at %s: %s", k->path, strerrordesc_np(-r));
}

static void give(void *arg, const char *name, int fd, bool listening)
{
        int kept = fcntl(fd, F_DUPFD, 3);
        close(fd);
        if (kept >= 0 && !ledger_add_fd(arg, name, kept, listening))
                close(kept);
}

void control_give(struct super *s, struct ledger *l)
{
        struct control *k = s->control;
        if (!k)
                return;
        if (k->server) {
                http_server_hand_over(k->server, GIVE_GRACE_S, give, l);
                http_server_free(k->server);
        }
        free(k);
        s->control = NULL;
}

void control_stop(struct super *s)
{
        struct control *k = s->control;
        if (!k)
                return;
        if (k->server) {
                http_server_stop(k->server, 0.2);
                http_server_free(k->server);
        }
        if (k->path[0])
                unlink(k->path);
        free(k);
        s->control = NULL;
}
