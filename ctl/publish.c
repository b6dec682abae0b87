/* `publish`: one event to a topic, through an app's sidecar. */
#include <stdio.h>

#include "ctl/commands.h"
#include "ctl/payload.h"
#include "sdk/net/http.h"

#define ASK_TIMEOUT_S 60.0

#define O(f) offsetof(struct publish_opts, f)
static const struct flag_row publish_rows[] = {
        {"publish-app-id", FLAG_STRING, O(app_id), "", "ID", "The ID of the publishing app", .short_name = 'i'},
        {"pubsub", FLAG_STRING, O(pubsub), "", "NAME", "The name of the pub/sub component", .short_name = 'p'},
        {"topic", FLAG_STRING, O(topic), "", "TOPIC", "The topic to be published to", .short_name = 't'},
        {"data", FLAG_STRING, O(data), "", "JSON", "The JSON serialized data string (optional)", .short_name = 'd'},
        {"data-file", FLAG_STRING, O(data_file), "", "FILE", "A file containing the JSON serialized data (optional); - is the standard input",
         .short_name = 'f'},
        {"metadata", FLAG_STRING, O(metadata), "", "JSON", "The JSON serialized publish metadata (optional)", .short_name = 'm'},
        {"content-type", FLAG_STRING, O(content_type), "", "TYPE",
         "The data's content type (default: application/json, or application/cloudevents+json for a CloudEvent)"},
        {"unix-domain-socket", FLAG_STRING, O(socket), "", "DIR", "Path to a unix domain socket dir of the sidecar", .short_name = 'u'},
        {"output", FLAG_STRING, O(output), "", "FORMAT", "The output format: json, or a sentence (default)", .short_name = 'o'},
        CTL_GLOBAL_ROWS(publish_opts),
};
#undef O
const struct flag_program publish_program = {
        .name = "dapr publish", .summary = "Publish a pub-sub event", .usage = "dapr publish --publish-app-id ID --pubsub NAME --topic TOPIC [flags]",
        .examples = "  # Publish to the sample topic\n"
                    "  dapr publish --publish-app-id myapp --pubsub target --topic sample --data '{\"key\":\"value\"}'\n\n"
                    "  # An event that lives for ten seconds, from a file\n"
                    "  dapr publish -i myapp -p target -t sample -f event.json --metadata '{\"ttlInSeconds\":\"10\"}'\n\n"
                    "  # Without any event around the data\n"
                    "  dapr publish -i myapp -p target -t sample -d hello --content-type text/plain -m '{\"rawPayload\":\"true\"}'\n",
        .rows = publish_rows, .n_rows = sizeof(publish_rows) / sizeof(*publish_rows)};

/* A CloudEvent has all that one must have: it goes as it is. */
static bool is_event(struct arena *a, struct str data)
{
        static const char *const must[] = {"id", "source", "specversion", "type"};
        struct json_reader r;
        struct str name;
        unsigned seen = 0;
        json_read_init(&r, data);
        if (!json_enter_object(&r))
                return false;
        while (json_next_member(&r, a, &name)) {
                for (unsigned i = 0; i < 4; i++)
                        seen |= str_eqz(name, must[i]) ? 1u << i : 0;
                json_skip(&r);
        }
        return !r.error && seen == 15;
}

struct path {
        struct arena *a;
        struct buf b;
};

static void add_metadata(void *arg, struct str key, struct str value)
{
        struct path *p = arg;
        struct str k = url_escape(p->a, key), v = url_escape(p->a, value);
        buf_printf(&p->b, "%cmetadata.%.*s=%.*s", str_chr(buf_str(&p->b), '?') < 0 ? '?' : '&', STR_FMT(k), STR_FMT(v));
}

static const char *path_of(struct arena *a, const struct publish_opts *o)
{
        struct path p = {.a = a};
        struct str pubsub = url_escape(a, str_of(o->pubsub)), topic = url_escape(a, str_of(o->topic));
        buf_printf(&p.b, "/v1.0/publish/%.*s/%.*s", STR_FMT(pubsub), STR_FMT(topic));
        const char *ret = payload_metadata(a, o->metadata, add_metadata, &p) ? NULL : arena_strdup(a, buf_str(&p.b));
        buf_fini(&p.b);
        return ret;
}

static int report(struct arena *a, const struct publish_opts *o, int r, int status, struct str body)
{
        struct str why = r ? str_of(strerror(-r)) : status >= 300 ? payload_error(a, body) : STR("");
        bool good = !r && status < 300;
        if (ui_is_json(o->output)) {
                struct buf b = {0};
                struct json_writer w;
                json_write_init(&w, &b);
                json_object_begin(&w);
                json_kv(&w, "appId", str_of(o->app_id));
                json_kv(&w, "pubsub", str_of(o->pubsub));
                json_kv(&w, "topic", str_of(o->topic));
                json_key(&w, STR("published"));
                json_bool(&w, good);
                if (!good)
                        json_kv(&w, "error", why);
                json_object_end(&w);
                ui_print_json(&b);
                buf_fini(&b);
        } else if (good) {
                ui_say(UI_SUCCESS, "Event published successfully");
        } else {
                ui_say(UI_FAILURE, "Error publishing topic %s: %.*s", o->topic, STR_FMT(why));
        }
        return !good;
}

int publish_run(void *opts, int argc, char **argv)
{
        struct publish_opts *o = opts;
        struct arena a;
        struct str data, body = STR("");
        int status = 0, code = 1;
        if (!ui_output_ok(o->output, false))
                return 1;
        if (argc || !*o->app_id || !*o->pubsub || !*o->topic) {
                ui_say(UI_FAILURE, "Say which app publishes where: dapr publish --publish-app-id myapp --pubsub target --topic sample --data '{}'");
                return 1;
        }
        arena_init(&a, 0);
        const char *path = payload_read(&a, "publish", o->data, o->data_file, &data) ? NULL : path_of(&a, o);
        struct sidecar *s = path ? payload_sidecar(&a, o->app_id, o->socket) : NULL;
        if (s) {
                const char *type = *o->content_type ? o->content_type : is_event(&a, data) ? "application/cloudevents+json" : "application/json";
                struct sidecar_request req = {.method = "POST", .path = path, .body = data, .content_type = type, .timeout_s = ASK_TIMEOUT_S};
                int r = sidecar_send(&a, s, &req, &status, &body);
                code = report(&a, o, r, status, body);
        }
        arena_fini(&a);
        return code;
}
