/*
 * `plugin replay`: sends the calls of a recording again, to a component of a running sidecar or to a plugin in a folder (which a throw-away
 * sidecar starts), one after the other, and tells which answers differ from those that were recorded.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "ctl/package/store.h"
#include "ctl/replay_etags.h"
#include "ctl/scratch.h"
#include "ctl/tape.h"
#include "proto/registry.h"
#include "sdk/base/loop.h"
#include "sdk/base/pbjson.h"
#include "sdk/base/yaml.h"
#include "sdk/net/http.h"
#include "sdk/net/rpc.h"

#define CALL_TIMEOUT_S 30.0
#define START_TIMEOUT_S 60.0
enum { SHOWN_MAX = 50, SHOWN_CHARS = 300, DEPTH_MAX = 64 };

#define O(f) offsetof(struct plugin_replay_opts, f)
static const struct flag_row replay_rows[] = {
        {"against", FLAG_STRING, O(against), "", "NAME|DIR", "A component of --app-id's sidecar, or a plugin's folder"},
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose running sidecar holds the component", .short_name = 'a'},
        {"component", FLAG_STRING, O(component), "", "FILE", "With a folder: the component's YAML, for its settings (default: none are set)"},
        {"strict", FLAG_BOOL, O(strict), "false", NULL, "ETags must be the same, too"},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(plugin_replay_opts),
};
#undef O
const struct flag_program plugin_replay_program = {
        .name = "dapr plugin replay", .summary = "Send recorded calls to another plugin and compare the answers",
        .usage = "dapr plugin replay FILE --against NAME|DIR [flags]",
        .examples = "  # A new build, with the settings of a component file; writes go to where those settings point\n"
                    "  dapr plugin replay calls.tap --against ./build/state.mine --component ./test/statestore.yaml\n\n"
                    "  # A component of a running sidecar\n  dapr plugin replay calls.tap --against statestore --app-id myapp\n",
        .rows = replay_rows, .n_rows = sizeof(replay_rows) / sizeof(*replay_rows)};

struct answer {
        int code;
        struct str message, response;
};
struct replay {
        const struct plugin_replay_opts *o;
        struct tape_head head;
        struct tape_call *calls;
        size_t n;
        const struct sidecar *sidecar;
        const char *component;
        size_t sent, differ, skipped, streamed;
        struct replay_etags etags;
        double seconds, recorded_seconds;
        struct buf json;
        struct json_writer w;
};

/* ---- comparing ---- */

/* A copy of a JSON value without members of this name. */
static void copy_without(struct json_reader *r, struct json_writer *w, struct arena *a, const char *left_out)
{
        char stack[DEPTH_MAX];
        size_t depth = 0;
        struct str raw, name;
        do {
                enum json_type t = json_peek(r);
                if (t == JSON_OBJECT && depth < DEPTH_MAX && json_enter_object(r)) {
                        json_object_begin(w);
                        stack[depth++] = 'o';
                } else if (t == JSON_ARRAY && depth < DEPTH_MAX && json_enter_array(r)) {
                        json_array_begin(w);
                        stack[depth++] = 'a';
                } else if (json_read_raw(r, &raw)) {
                        json_raw(w, raw);
                }
                for (bool at_value = false; depth && !at_value;) {
                        if (stack[depth - 1] == 'a') {
                                at_value = json_next_element(r);
                        } else if ((at_value = json_next_member(r, a, &name))) {
                                if (str_eqz(name, left_out)) {
                                        json_skip(r);
                                        at_value = false;
                                        continue;
                                }
                                json_key(w, name);
                        }
                        if (!at_value)
                                stack[--depth] == 'a' ? json_array_end(w) : json_object_end(w);
                }
        } while (depth && !r->error);
}

/* The answer as a person reads it, and as it is compared. */
static struct str readable(struct arena *a, const struct replay *p, struct str method, struct str bytes)
{
        const struct pb_method *m = pb_method_find(method);
        const ProtobufCMessage *msg = m ? pb_unpack(a, m->response, bytes) : NULL;
        struct buf whole = {0}, b = {0};
        struct json_writer w;
        struct json_reader r;
        struct str text = bytes;
        if (msg && pbjson_write(&whole, msg, 0) == 0) {
                json_read_init(&r, buf_str(&whole));
                json_write_init(&w, &b);
                copy_without(&r, &w, a, p->o->strict ? "" : "etag");
                text = arena_str(a, buf_str(&b));
        }
        buf_fini(&whole);
        buf_fini(&b);
        return text;
}

static const char *told(struct arena *a, const struct replay *p, const struct tape_call *c, const struct answer *x)
{
        if (x->code)
                return arena_printf(a, "%s: %.*s", rpc_code_name(x->code), STR_FMT(x->message));
        struct str text = readable(a, p, c->method, x->response);
        return arena_printf(a, "%.*s%s", (int)(text.n < SHOWN_CHARS ? text.n : SHOWN_CHARS), text.p ? text.p : "", text.n > SHOWN_CHARS ? "..." : "");
}

/* Texts of errors are each plugin's own. */
static bool is_same(struct arena *a, const struct replay *p, const struct tape_call *c, const struct answer *was, const struct answer *now)
{
        if (was->code || now->code)
                return was->code == now->code;
        return str_eq(was->response, now->response) || str_eq(readable(a, p, c->method, was->response), readable(a, p, c->method, now->response));
}

static void tell_difference(struct arena *a, struct replay *p, size_t i, const struct answer *was, const struct answer *now)
{
        const struct tape_call *c = &p->calls[i];
        const char *before = told(a, p, c, was), *after = told(a, p, c, now);
        if (p->differ > SHOWN_MAX)
                return;
        if (!ui_is_json(p->o->output)) {
                printf("#%zu %.*s\n  recorded: %s\n  now:      %s\n", i + 1, STR_FMT(c->method), before, after);
                return;
        }
        json_object_begin(&p->w);
        json_key(&p->w, STR("call"));
        json_uint(&p->w, i + 1);
        json_kv(&p->w, "method", c->method);
        json_kv(&p->w, "recorded", str_of(before));
        json_kv(&p->w, "now", str_of(after));
        json_object_end(&p->w);
}

/* ---- calls ---- */

static const char *read_answer(struct arena *a, struct str body, struct answer *x)
{
        struct json_reader r;
        struct str name, v;
        int64_t n;
        *x = (struct answer){.code = -1};
        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return "it answers something that this version does not understand";
        while (json_next_member(&r, a, &name)) {
                if (str_eqz(name, "code") && json_read_int64(&r, &n))
                        x->code = (int)n;
                else if (str_eqz(name, "message") && json_read_string(&r, a, &v))
                        x->message = v;
                else if (str_eqz(name, "response") && json_read_string(&r, a, &v))
                        x->response = v.n ? base64_decode(a, v) : v;
                else
                        json_skip(&r);
        }
        return x->code >= 0 ? NULL : "it answers something that this version does not understand";
}

static int send_one(struct replay *p, size_t i)
{
        const struct tape_call *c = &p->calls[i];
        struct answer was = {c->code, c->message, c->response}, now;
        struct arena a;
        struct str body, method = STR("");
        arena_init(&a, 0);
        method = url_escape(&a, c->method);
        const char *path = live_path(&a, p->component, arena_printf(&a, "/call?method=%.*s", STR_FMT(method)));
        const struct sidecar_request q = {.method = "POST", .path = path, .body = replay_etags_apply(&p->etags, &a, c->method, c->request),
                                           .timeout_s = CALL_TIMEOUT_S};
        double began = loop_now_exact();
        const char *err = live_send(&a, p->sidecar, &q, &body);
        p->seconds += loop_now_exact() - began;
        p->recorded_seconds += (double)c->latency_ns / 1e9;
        if (!err)
                err = read_answer(&a, body, &now);
        p->sent++;
        if (!err && !was.code && !now.code)
                replay_etags_learn(&p->etags, c->method, was.response, now.response);
        if (err)
                ui_say(UI_FAILURE, "call %zu, %.*s: %s", i + 1, STR_FMT(c->method), err);
        else if (!is_same(&a, p, c, &was, &now)) {
                p->differ++;
                tell_difference(&a, p, i, &was, &now);
        }
        arena_fini(&a);
        return err ? 1 : 0;
}

static int send_all(struct replay *p)
{
        int code = 0;
        for (size_t i = 0; !code && i < p->n; i++)
                if (p->calls[i].stream)
                        p->streamed++;
                else if (tape_is_whole(&p->calls[i]))
                        code = send_one(p, i);
                else
                        p->skipped++;
        return code;
}

static int run(struct replay *p)
{
        bool json = ui_is_json(p->o->output);
        if (json) {
                json_write_init(&p->w, &p->json);
                json_object_begin(&p->w);
                json_key(&p->w, STR("differences"));
                json_array_begin(&p->w);
        }
        replay_etags_init(&p->etags);
        int code = send_all(p);
        replay_etags_fini(&p->etags);
        if (json) {
                json_array_end(&p->w);
                const struct { const char *key; size_t v; } n[] = {{"calls", p->n}, {"sent", p->sent}, {"differ", p->differ}, {"skipped", p->skipped},
                                                                    {"streamed", p->streamed}};
                for (size_t i = 0; i < 5; i++) {
                        json_key(&p->w, str_of(n[i].key));
                        json_uint(&p->w, n[i].v);
                }
                json_object_end(&p->w);
                ui_print_json(&p->json);
        } else if (!code) {
                if (p->differ > SHOWN_MAX)
                        printf("... and %zu more\n", p->differ - SHOWN_MAX);
                if (p->streamed)
                        ui_say(UI_INFO, "%zu messages of streams are not sent: what a subscription brings is the broker's", p->streamed);
                if (p->skipped)
                        ui_say(UI_WARNING, "%zu calls were too large to be recorded as a whole and are left out", p->skipped);
                ui_say(p->differ ? UI_FAILURE : UI_SUCCESS, "%zu calls sent, %zu answers differ", p->sent, p->differ);
        }
        buf_fini(&p->json);
        return code || p->differ ? 1 : 0;
}

/* ---- whom to ask ---- */

/* A folder with a component in it, and beside it one that holds the plugin alone. */
static const char *prepare(struct arena *a, const struct replay *p, const char *dir, const char **ret_resources, const char **ret_plugins)
{
        const char *resources = path_join(a, dir, "resources"), *plugins = path_join(a, dir, "plugins");
        char *real = realpath(p->o->against, NULL), *slash = real ? strrchr(real, '/') : NULL;
        const char *link = slash ? arena_printf(a, "%s/%s", plugins, slash + 1) : NULL, *err = NULL;
        struct str text = STR_NULL;
        if (!path_exists(path_join(a, p->o->against, "plugin.yaml")))
                err = arena_printf(a, "%s has no plugin.yaml: it is no plugin's folder (for a component of a running sidecar add --app-id)", p->o->against);
        else if (*p->o->component && yaml_read_file(a, p->o->component, false, &text, &err) != 0)
                ;
        else if (!text.p)
                text = str_of(arena_printf(a, "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: %s\nspec:\n  type: %s\n  version: v1\n"
                                              "  metadata: []\n", p->head.component, p->head.type));
        if (!err && (!link || path_mkdirs(resources) || path_mkdirs(plugins) || symlink(real, link) ||
                     path_write(path_join(a, resources, "component.yaml"), text, 0600, true)))
                err = arena_printf(a, "could not prepare %s: %s", dir, strerror(errno));
        free(real);
        *ret_resources = resources;
        *ret_plugins = plugins;
        return err;
}

static int against_folder(struct arena *a, struct replay *p)
{
        char dir[] = "/tmp/daprctl-XXXXXX";
        struct scratch s = {0};
        const char *resources, *plugins;
        struct lives all = {0};
        if (!mkdtemp(dir)) {
                ui_say(UI_FAILURE, "Could not make a temporary folder: %s", strerror(errno));
                return 1;
        }
        const char *err = prepare(a, p, dir, &resources, &plugins);
        struct scratch_options so = {p->o->globals.runtime_path, *p->head.app_id ? p->head.app_id : "replay", &resources, 1, plugins, "off", NULL};
        int code = 1;
        if (err)
                ui_say(UI_FAILURE, "%s", err);
        else if (!scratch_start(&s, a, &so, START_TIMEOUT_S) && !live_list(a, &s.sidecar, &all)) {
                const struct live *l = NULL;
                for (size_t i = 0; i < all.n && !l; i++)
                        l = strcasecmp(all.v[i].type, p->head.type) == 0 ? &all.v[i] : NULL;
                if (!l)
                        ui_say(UI_FAILURE, "%s holds no component of type %s", *p->o->component ? p->o->component : "the throw-away sidecar", p->head.type);
                else if (strcmp(l->state, "FAILED") == 0)
                        ui_say(UI_FAILURE, "the plugin does not start: %s", l->last_error);
                else {
                        p->sidecar = &s.sidecar;
                        p->component = l->name;
                        code = run(p);
                }
        }
        scratch_stop(&s);
        store_remove_tree(dir);
        return code;
}

static int against_running(struct arena *a, struct replay *p)
{
        struct live l;
        p->sidecar = live_sidecar(a, p->o->app_id);
        p->component = p->o->against;
        return p->sidecar && !live_get(a, p->sidecar, p->component, &l) ? run(p) : 1;
}

int plugin_replay_run(void *opts, int argc, char **argv)
{
        struct replay p = {.o = opts};
        struct arena a;
        const char *err = NULL;
        if (!ui_output_ok(p.o->output, false))
                return 1;
        if (argc != 1 || !*p.o->against) {
                ui_say(UI_FAILURE, "Say what and against which: dapr plugin replay calls.tap --against ./state.mine");
                return 1;
        }
        arena_init(&a, 0);
        int code = 1;
        if (tape_read(&a, argv[0], &p.head, &p.calls, &p.n, &err))
                ui_say(UI_FAILURE, "%s", err);
        else if (p.head.redacted)
                ui_say(UI_FAILURE, "%s is redacted: it tells what was called, but not with which values. Record with: dapr plugin tap %s --app-id %s "
                                   "--unredacted -w FILE", argv[0], p.head.component, p.head.app_id);
        else
                code = *p.o->app_id ? against_running(&a, &p) : against_folder(&a, &p);
        arena_fini(&a);
        return code;
}
