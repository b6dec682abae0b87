/* The control service's verbs: what an operator does to a component, and the ledger of what happened to it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/super/catalog.h"
#include "kernel/super/control_internal.h"
#include "kernel/super/history.h"
#include "sdk/base/flags.h"

static const double SETTLE_S = 0.5, SHADOW_MAX_S = 3600;

const char *control_query(struct http_req *r, const char *key)
{
        struct str rest = r->query, k, v;
        while (query_next(r->arena, &rest, &k, &v))
                if (str_eqz(k, key))
                        return arena_strdup(r->arena, v);
        return NULL;
}

static void done(struct http_req *r, int e, const char *err)
{
        if (e)
                control_refuse(r, e == -ENOENT ? 404 : 500, err && *err ? err : "it is not done");
        else
                http_resp_send(r, 204, NULL, 0, STR(""));
}

/* ---- which plugin ---- */

struct wanted {
        const struct component *c;
        const char *version, *file;
        struct buf others;
        struct arena *a;
};

static void consider(void *arg, const char *folder, const struct manifest *m, const char *err)
{
        struct wanted *w = arg;
        const struct component_spec *spec = w->c->now->spec;
        if (!m || !manifest_serves(m, spec->type, spec->version ? spec->version : ""))
                return;
        if (strcmp(m->version, w->version) == 0 && !w->file)
                w->file = arena_strdup(w->a, str_of(m->file));
        buf_printf(&w->others, "%s%s", w->others.len ? ", " : "", m->version);
}

/* plugin.yaml of the version, or NULL with a text. */
static const char *by_version(struct control *k, struct http_req *r, struct component *c, const char *version, const char **ret_err)
{
        struct wanted w = {.c = c, .version = version, .a = r->arena};
        catalog_each(&k->super->conf, r->arena, consider, &w);
        if (!w.file)
                *ret_err = arena_printf(r->arena, "version %s of a plugin for %s is not installed; installed: %.*s", version, c->now->spec->type,
                                        STR_FMT(buf_str(&w.others)));
        buf_fini(&w.others);
        return w.file;
}

/* A folder, or its plugin.yaml. */
static const char *by_path(struct http_req *r, const char *path)
{
        struct str p = str_of(path);
        if (str_has_suffix(p, STR(".yaml")))
                return path;
        return arena_printf(r->arena, "%s%splugin.yaml", path, str_has_suffix(p, STR("/")) ? "" : "/");
}

/* ---- verbs ---- */

static void tell_swap(struct http_req *r, struct component *c, const struct swap_report *report)
{
        struct buf b = {0};
        struct json_writer w;
        const struct plugin *p = c->now ? c->now->plugin : NULL;
        json_write_init(&w, &b);
        json_object_begin(&w);
        control_kv(&w, "plugin", p ? p->name : "");
        control_kv(&w, "version", p ? plugin_version(p) : "");
        control_number(&w, "shadowReads", report->shadow_reads);
        control_number(&w, "shadowDifferences", report->shadow_differences);
        control_number(&w, "shadowP99Us", (uint64_t)(report->shadow_p99_ms * 1e3));
        control_number(&w, "presentP99Us", (uint64_t)(report->present_p99_ms * 1e3));
        json_object_end(&w);
        control_reply(r, 200, &b);
        buf_fini(&b);
}

/* One of several in a process moves with the others only: that must have been said. */
static bool may_move(struct http_req *r, struct component *c, const char *verb)
{
        const char *others = control_query(r, "all") ? NULL : super_sharers(c, r->arena);
        if (others)
                control_refuse(r, 409, arena_printf(r->arena, "component %s shares its process with %s; they move together only: daprctl plugin %s %s --all",
                                                    c->name, others, verb, c->name));
        return !others;
}

static void upgrade(struct control *k, struct http_req *r, struct component *c)
{
        const char *path = control_query(r, "path"), *version = control_query(r, "version"), *shadow = control_query(r, "shadow"), *err = NULL;
        struct swap_report report = {0};
        struct swap_request q = {.why = "upgrade", .settle_s = SETTLE_S, .report = &report};
        int64_t ns = 0;
        if (shadow && (parse_duration(str_of(shadow), &ns) || ns < 0 || (double)ns / 1e9 > SHADOW_MAX_S)) {
                control_refuse(r, 400, "shadow is a duration such as 30s, at most 1h");
                return;
        }
        q.shadow_s = (double)ns / 1e9;
        q.debug = control_query(r, "debug");
        if (!path == !version) {
                control_refuse(r, 400, "say the path of a plugin's folder or the version of an installed one");
                return;
        }
        if (!may_move(r, c, "upgrade"))
                return;
        q.manifest = path ? by_path(r, path) : by_version(k, r, c, version, &err);
        int e = q.manifest ? super_shared_swap(k->super, c, &q, r->arena, &err) : -EINVAL;
        if (e)
                done(r, e, err);
        else
                tell_swap(r, c, &report);
}

static void rollback(struct control *k, struct http_req *r, struct component *c)
{
        const char *err = NULL;
        struct swap_report none = {0};
        if (!may_move(r, c, "rollback"))
                return;
        int e = super_component_rollback(k->super, c, r->arena, &err);
        if (e)
                done(r, e, err);
        else
                tell_swap(r, c, &none);
}

static void restart(struct control *k, struct http_req *r, struct component *c)
{
        const char *err = NULL;
        int e = super_component_restart(k->super, c, control_query(r, "force") != NULL, r->arena, &err);
        done(r, e, err);
}

static void enable(struct control *k, struct http_req *r, struct component *c)
{
        const char *err = NULL;
        int e = super_component_enable(k->super, c, true, r->arena, &err);
        done(r, e, err);
}

static void disable(struct control *k, struct http_req *r, struct component *c)
{
        const char *err = NULL;
        int e = super_component_enable(k->super, c, false, r->arena, &err);
        done(r, e, err);
}

bool control_post(struct control *k, struct http_req *r, struct component *c, struct str verb)
{
        static const struct {
                const char *verb;
                void (*fn)(struct control *k, struct http_req *r, struct component *c);
        } verbs[] = {{"restart", restart},         {"upgrade", upgrade},         {"rollback", rollback},    {"enable", enable}, {"disable", disable},
                     {"fault", control_fault},     {"unfault", control_unfault}, {"tap", control_tap_start}, {"untap", control_tap_stop},
                     {"call", control_call}};
        for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
                if (str_eqz(verb, verbs[i].verb)) {
                        verbs[i].fn(k, r, c);
                        return true;
                }
        return false;
}

void control_upgrade(struct control *k, struct http_req *r)
{
        const struct super_conf *conf = &k->super->conf;
        const char *binary = control_query(r, "binary"), *err = "this daprd cannot be upgraded in place";
        int e = conf->on_upgrade ? conf->on_upgrade(conf->arg, binary ? binary : "", r->arena, &err) : -ENOTSUP;
        if (e) {
                control_refuse(r, 500, err);
                return;
        }
        struct buf b = {0};
        buf_printf(&b, "{\"upgrades\":%u}", k->super->upgrades);
        control_reply(r, 202, &b);
        buf_fini(&b);
}

/* ---- what has happened ---- */

void control_history(struct control *k, struct http_req *r, struct str name)
{
        const struct history_event *e;
        struct buf b = {0};
        struct json_writer w;
        size_t n = 0;
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_key(&w, STR("events"));
        json_array_begin(&w);
        for (size_t i = 0; (e = history_at(k->super->history, i)); i++) {
                char at[40];
                if (!str_eqz(name, e->name))
                        continue;
                n++;
                control_time(at, e->at_ns);
                json_object_begin(&w);
                control_kv(&w, "time", at);
                control_kv(&w, "event", e->what);
                control_kv(&w, "detail", e->text);
                json_object_end(&w);
        }
        json_array_end(&w);
        json_object_end(&w);
        if (n)
                control_reply(r, 200, &b);
        else
                control_refuse(r, 404, "nothing is known of such a component");
        buf_fini(&b);
}
