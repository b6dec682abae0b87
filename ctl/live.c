/* See live.h. Rows are read loosely: a member that is missing or of another type keeps its empty value, unknown ones are passed on. */
#include "ctl/live.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "sdk/net/http.h"

#define ASK_TIMEOUT_S 5.0

struct sidecar *live_sidecar(struct arena *a, const char *app_id)
{
        struct sidecars all;
        int r = sidecars_find(a, false, &all);
        struct sidecar *s = r ? NULL : sidecars_get(&all, app_id);
        if (r)
                ui_say(UI_FAILURE, "Could not read the process table: %s", strerror(-r));
        else if (!s)
                ui_say(UI_FAILURE, "couldn't find app id %s: no daprd of that id runs here (dapr list shows those that do)", app_id);
        return s;
}

int live_sidecars(struct arena *a, const char *app_id, struct sidecars *ret)
{
        struct sidecar *one = *app_id ? live_sidecar(a, app_id) : NULL;
        if (one)
                *ret = (struct sidecars){one, 1};
        return one ? 0 : *app_id || sidecars_find(a, false, ret);
}

static const char *error_of(struct arena *a, struct str body)
{
        struct json_reader r;
        struct str name, text;
        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return NULL;
        while (json_next_member(&r, a, &name))
                if (str_eqz(name, "error") && json_read_string(&r, a, &text))
                        return arena_strdup(a, text);
                else
                        json_skip(&r);
        return NULL;
}

const char *live_try(struct arena *a, const struct sidecar *s, const char *method, const char *path, double timeout_s, struct str *ret)
{
        return live_send(a, s, &(struct sidecar_request){.method = method, .path = path, .timeout_s = timeout_s}, ret);
}

const char *live_send(struct arena *a, const struct sidecar *s, const struct sidecar_request *req, struct str *ret)
{
        int status = 0, r = req->path ? sidecar_control_send(a, s, req, &status, ret) : -ENOMEM;
        const char *text = NULL;
        if (r && !sidecar_runs(s))
                text = arena_printf(a, "the sidecar of %s has ended", s->app_id);
        else if (r == -ENOENT)
                text = arena_printf(a, "the sidecar of %s (process %d) has no control socket that this user can find", s->app_id, s->pid);
        else if (r)
                text = arena_printf(a, "the sidecar of %s (process %d) does not answer: %s", s->app_id, s->pid, strerror(-r));
        else if (status / 100 == 2)
                return NULL;
        else if ((text = error_of(a, *ret)))
                text = arena_printf(a, "the sidecar of %s answers: %s", s->app_id, text);
        else
                text = arena_printf(a, "the sidecar of %s answers with status %d", s->app_id, status);
        return text ? text : "out of memory";
}

int live_ask(struct arena *a, const struct sidecar *s, const char *method, const char *path, double timeout_s, struct str *ret)
{
        const char *text = live_try(a, s, method, path, timeout_s, ret);
        if (text)
                ui_say(UI_FAILURE, "%s", text);
        return text != NULL;
}

const char *live_path(struct arena *a, const char *component, const char *rest)
{
        struct str escaped = url_escape(a, str_of(component));
        return arena_printf(a, "/v1/plugins/%.*s%s", STR_FMT(escaped), rest);
}

/* ---- rows ---- */

static bool read_text(struct json_reader *r, struct arena *a, struct str name, struct live *l)
{
        const struct { const char *name, **to; } texts[] = {
                {"component", &l->name}, {"type", &l->type}, {"state", &l->state}, {"backend", &l->backend}, {"lastError", &l->last_error},
                {"plugin", &l->plugin}, {"pluginVersion", &l->plugin_version}, {"executable", &l->executable}, {"lastDeath", &l->last_death},
                {"stuck", &l->stuck}};
        struct str v;
        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
                if (str_eqz(name, texts[i].name) && json_read_string(r, a, &v)) {
                        const char *z = arena_strdup(a, v);
                        *texts[i].to = z ? z : "";
                        return true;
                }
        return false;
}

static bool read_fault(struct json_reader *r, struct arena *a, struct str name, struct live *l)
{
        struct str what = STR("");
        int64_t left = 0, hits = 0;
        if (!str_eqz(name, "fault") || !json_enter_object(r))
                return false;
        while (json_next_member(r, a, &name))
                if (!(str_eqz(name, "what") && json_read_string(r, a, &what)) && !(str_eqz(name, "leftSeconds") && json_read_int64(r, &left)) &&
                    !(str_eqz(name, "hits") && json_read_int64(r, &hits)))
                        json_skip(r);
        l->fault = arena_printf(a, "%.*s, for %lld s more, met by %lld", STR_FMT(what), (long long)left, (long long)hits);
        if (!l->fault)
                l->fault = "";
        return true;
}

static bool read_number(struct json_reader *r, struct str name, struct live *l)
{
        const struct { const char *name; int64_t *to; } numbers[] = {{"pid", &l->pid}, {"candidatePid", &l->candidate_pid}, {"restarts", &l->restarts}, {"adopted", &l->adopted}, {"calls", &l->calls},
                                                                    {"errors", &l->errors}, {"inflight", &l->inflight}, {"rssBytes", &l->rss_bytes}};
        for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
                if (str_eqz(name, numbers[i].name))
                        return json_read_int64(r, numbers[i].to);
        return str_eqz(name, "foreign") && json_read_bool(r, &l->foreign);
}

static int read_row(struct arena *a, const struct sidecar *s, struct str raw, struct live *l)
{
        struct json_reader r;
        struct str name;
        *l = (struct live){.app_id = s->app_id, .name = "", .type = "", .state = "", .backend = "", .last_error = "", .plugin = "",
                           .plugin_version = "", .executable = "", .last_death = "", .stuck = "", .fault = "", .raw = raw, .uptime_s = -1, .rss_bytes = -1};
        json_read_init(&r, raw);
        if (!json_enter_object(&r))
                return -EBADMSG;
        while (json_next_member(&r, a, &name))
                if (!read_text(&r, a, name, l) && !read_number(&r, name, l) && !read_fault(&r, a, name, l))
                        json_skip(&r);
        int64_t started = l->pid > 0 ? process_started_s((int)l->pid) : 0;
        if (started)
                l->uptime_s = time(NULL) > started ? time(NULL) - started : 0; /* the start is rounded */
        return r.error ? -EBADMSG : 0;
}

static int add_row(struct arena *a, const struct sidecar *s, struct str raw, struct lives *ret)
{
        struct live *v = arena_grow(a, ret->v, ret->n * sizeof(*v), (ret->n + 1) * sizeof(*v));
        if (!v)
                return -ENOMEM;
        ret->v = v;
        int r = read_row(a, s, raw, &v[ret->n]);
        if (!r)
                ret->n++;
        return r;
}

static int say_garbled(const struct sidecar *s)
{
        ui_say(UI_FAILURE, "the sidecar of %s answers something that this version does not understand", s->app_id);
        return 1;
}

int live_list(struct arena *a, const struct sidecar *s, struct lives *ret)
{
        struct str body, name, raw;
        struct json_reader r;
        int e = live_ask(a, s, "GET", "/v1/plugins", ASK_TIMEOUT_S, &body);
        if (e)
                return e;
        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return say_garbled(s);
        while (json_next_member(&r, a, &name)) {
                if (!str_eqz(name, "plugins") || !json_enter_array(&r)) {
                        json_skip(&r);
                        continue;
                }
                while (json_next_element(&r))
                        if (!json_read_raw(&r, &raw) || add_row(a, s, raw, ret))
                                return say_garbled(s);
        }
        return r.error ? say_garbled(s) : 0;
}

int live_get(struct arena *a, const struct sidecar *s, const char *component, struct live *ret)
{
        struct str body;
        int e = live_ask(a, s, "GET", live_path(a, component, ""), ASK_TIMEOUT_S, &body);
        if (e)
                return e;
        return read_row(a, s, body, ret) ? say_garbled(s) : 0;
}

void live_write_json(struct json_writer *w, struct arena *a, const struct live *l)
{
        struct json_reader r;
        struct str name, raw;
        json_object_begin(w);
        json_kv(w, "appId", str_of(l->app_id));
        json_kv(w, "name", str_of(l->name));
        if (l->uptime_s >= 0) {
                json_key(w, STR("uptimeSeconds"));
                json_int(w, l->uptime_s);
        }
        json_read_init(&r, l->raw);
        json_enter_object(&r);
        while (json_next_member(&r, a, &name)) {
                if (!json_read_raw(&r, &raw))
                        break;
                if (str_eqz(name, "component") || str_eqz(name, "log"))
                        continue;
                json_key(w, name);
                json_raw(w, raw);
        }
        json_object_end(w);
}

const char *live_color(const char *state)
{
        static const struct { const char *state, *color; } colors[] = {{"READY", "\033[32m"}, {"DEGRADED", "\033[33m"}, {"BACKOFF", "\033[33m"},
                                                                       {"FAILED", "\033[31m"}};
        for (size_t i = 0; i < sizeof(colors) / sizeof(*colors); i++)
                if (strcmp(state, colors[i].state) == 0)
                        return colors[i].color;
        return NULL;
}
