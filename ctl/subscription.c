/* `subscription list`, `subscription pause` and `subscription resume`: what a running sidecar takes from its brokers. */
#include <stdio.h>
#include <stdlib.h>

#include "ctl/commands.h"
#include "ctl/live.h"
#include "sdk/net/http.h"

#define ASK_TIMEOUT_S 5.0

enum { COL_STATE = 4, COLUMNS = 10 };
struct row {
        const char *pubsub, *topic, *name, *kind, *state;
        int64_t in_flight, bytes, max, handed_back;
};

#define O(f) offsetof(struct subscription_opts, f)
static const struct flag_row list_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose sidecar is asked (default: all that run)", .short_name = 'a'},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or table (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(subscription_opts),
};
static const struct flag_row change_rows[] = {
        {"app-id", FLAG_STRING, O(app_id), "", "ID", "The app whose sidecar holds the subscription", .short_name = 'a'},
        {"all", FLAG_BOOL, O(all), "false", NULL, "All subscriptions of the app", .short_name = 'A'},
        CTL_GLOBAL_ROWS(subscription_opts),
};
#undef O
const struct flag_program subscription_list_program = {
        .name = "dapr subscription list", .summary = "List the subscriptions of running sidecars",
        .usage = "dapr subscription list [flags]", .examples = "  dapr subscription list --app-id myapp\n",
        .rows = list_rows, .n_rows = sizeof(list_rows) / sizeof(*list_rows)};
const struct flag_program subscription_pause_program = {
        .name = "dapr subscription pause", .summary = "Hand the app no more messages of a topic; the broker keeps them",
        .usage = "dapr subscription pause PUBSUB TOPIC --app-id ID",
        .examples = "  dapr subscription pause orderpubsub orders --app-id myapp\n  dapr subscription pause --all --app-id myapp\n",
        .rows = change_rows, .n_rows = sizeof(change_rows) / sizeof(*change_rows)};
const struct flag_program subscription_resume_program = {
        .name = "dapr subscription resume", .summary = "Go on with what was paused",
        .usage = "dapr subscription resume PUBSUB TOPIC --app-id ID",
        .examples = "  dapr subscription resume orderpubsub orders --app-id myapp\n",
        .rows = change_rows, .n_rows = sizeof(change_rows) / sizeof(*change_rows)};

/* ---- what a sidecar answers: {"appId", "subscriptions": [row…]} ---- */

static void read_row(struct json_reader *r, struct arena *a, struct row *to)
{
        struct str key, text;
        *to = (struct row){"", "", "", "", "", 0, 0, 0, 0};
        if (!json_enter_object(r)) {
                json_skip(r);
                return;
        }
        while (json_next_member(r, a, &key)) {
                const struct {
                        const char *key, **to;
                } texts[] = {{"pubsub", &to->pubsub}, {"topic", &to->topic}, {"name", &to->name}, {"kind", &to->kind}, {"state", &to->state}};
                const struct {
                        const char *key;
                        int64_t *to;
                } numbers[] = {{"inFlight", &to->in_flight}, {"bytesInFlight", &to->bytes}, {"maxConcurrency", &to->max}, {"handedBack", &to->handed_back}};
                bool taken = false;
                for (size_t i = 0; !taken && i < sizeof(texts) / sizeof(*texts); i++)
                        if (str_eqz(key, texts[i].key) && (taken = json_read_string(r, a, &text)))
                                *texts[i].to = arena_strdup(a, text);
                for (size_t i = 0; !taken && i < sizeof(numbers) / sizeof(*numbers); i++)
                        taken = str_eqz(key, numbers[i].key) && json_read_int64(r, numbers[i].to);
                if (!taken)
                        json_skip(r);
        }
}

/* Calls fn for each row; raw is its JSON. Their number. */
static size_t each_row(struct arena *a, struct str body, void (*fn)(void *arg, const struct row *row, struct str raw), void *arg)
{
        struct json_reader r, inner;
        struct str key, raw;
        struct row row;
        size_t n = 0;
        json_read_init(&r, body);
        for (bool good = json_enter_object(&r); good && json_next_member(&r, a, &key);) {
                if (!str_eqz(key, "subscriptions") || !json_enter_array(&r)) {
                        json_skip(&r);
                        continue;
                }
                while (json_next_element(&r) && json_read_raw(&r, &raw)) {
                        json_read_init(&inner, raw);
                        read_row(&inner, a, &row);
                        fn(arg, &row, raw);
                        n++;
                }
        }
        return n;
}

/* ---- list ---- */

struct listing {
        struct arena *a;
        const char *app_id;
        struct table *t;         /* or */
        struct json_writer *w;
};

static void add_row(void *arg, const struct row *x, struct str raw)
{
        struct listing *l = arg;
        struct arena *a = l->a;
        if (l->w) {
                json_object_begin(l->w);
                json_kv(l->w, "appId", str_of(l->app_id));
                json_key(l->w, STR("subscription"));
                json_raw(l->w, raw);
                json_object_end(l->w);
                return;
        }
        table_add(l->t, (const char *[]){l->app_id, x->pubsub, x->topic, x->kind, x->state, x->name, arena_printf(a, "%lld", (long long)x->in_flight),
                                         x->bytes ? ui_bytes(a, x->bytes) : "-", arena_printf(a, "%lld", (long long)x->max),
                                         arena_printf(a, "%lld", (long long)x->handed_back)});
}

static const char *cell_color(size_t col, const char *text)
{
        return col != COL_STATE ? NULL : live_color(text[0] == 'a' ? "READY" : "BACKOFF");
}

static int list(struct subscription_opts *o, struct arena *a, bool json)
{
        static const char *const header[COLUMNS] = {"APP ID", "PUBSUB", "TOPIC", "KIND", "STATE", "NAME", "IN FLIGHT", "BYTES", "LIMIT", "HANDED BACK"};
        struct sidecars found = {0};
        struct table t;
        struct buf b = {0};
        struct json_writer w;
        size_t n = 0;
        int failed = 0;
        if (live_sidecars(a, o->app_id, &found))
                return 1;
        table_init(&t, header, COLUMNS);
        t.color = cell_color;
        json_write_init(&w, &b);
        json_array_begin(&w);
        for (size_t i = 0; i < found.n; i++) {
                struct listing l = {a, found.v[i].app_id, &t, json ? &w : NULL};
                struct str body;
                int r = live_ask(a, &found.v[i], "GET", "/v1/subscriptions", ASK_TIMEOUT_S, &body);
                failed |= r;
                if (!r)
                        n += each_row(a, body, add_row, &l);
        }
        json_array_end(&w);
        if (json)
                ui_print_json(&b);
        else if (n)
                table_print(&t, stdout);
        else if (!failed)
                printf("No subscriptions found.\n");
        table_fini(&t);
        buf_fini(&b);
        return failed;
}

int subscription_list_run(void *opts, int argc, char **argv)
{
        struct subscription_opts *o = opts;
        struct arena a;
        int code;
        if (!ui_output_ok(o->output, false))
                return 1;
        arena_init(&a, 0);
        code = list(o, &a, ui_is_json(o->output));
        arena_fini(&a);
        return code;
}

/* ---- pause and resume ---- */

static void say_row(void *arg, const struct row *x, struct str raw)
{
        ui_say(UI_SUCCESS, "%s topic %s of %s", (const char *)arg, x->topic, x->pubsub);
}

static int change(struct subscription_opts *o, int argc, char **argv, const char *verb, const char *done)
{
        if (!*o->app_id || argc != (o->all ? 0 : 2)) {
                ui_say(UI_FAILURE, "Say which subscription of which app: dapr subscription %s orderpubsub orders --app-id myapp", verb);
                return 1;
        }
        struct arena a;
        struct str body;
        arena_init(&a, 0);
        struct sidecar *s = live_sidecar(&a, o->app_id);
        struct str pubsub = o->all ? STR("*") : url_escape(&a, str_of(argv[0])), topic = o->all ? STR("*") : url_escape(&a, str_of(argv[1]));
        int code = s ? live_ask(&a, s, "POST", arena_printf(&a, "/v1/subscriptions/%.*s/%.*s/%s", STR_FMT(pubsub), STR_FMT(topic), verb), ASK_TIMEOUT_S,
                                &body) : 1;
        if (!code)
                each_row(&a, body, say_row, (void *)done);
        arena_fini(&a);
        return code;
}

int subscription_pause_run(void *opts, int argc, char **argv)
{
        return change(opts, argc, argv, "pause", "Paused");
}

int subscription_resume_run(void *opts, int argc, char **argv)
{
        return change(opts, argc, argv, "resume", "Resumed");
}
