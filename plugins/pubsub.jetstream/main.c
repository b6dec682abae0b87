/*
 * pubsub.jetstream: the component and publishing. A publish waits until the stream has stored the message; its CloudEvent's id is the
 * message's id, by which the server drops what comes twice, so a publish whose connection broke is done again without harm.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/pubsub.jetstream/jetstream.h"
#include "plugins/shared/options/options.h"
#include "sdk/base/flags.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"

enum { NO_STREAM_TRIES = 3 };
#define PUBLISH_S 20.0
#define INIT_WAIT_S 2.0
#define NO_STREAM_PAUSE_S 0.25

/* ---- settings ---- */

static const struct {
        const char *name, *server;
} policies[] = {{"all", "all"}, {"last", "last"}, {"new", "new"}, {"sequence", "by_start_sequence"}, {"time", "by_start_time"}};

static int read_text(const struct dapr_metadata *md, const char *field, char **ret)
{
        const char *v = dapr_md_string(md, field);
        if (!v || !*v)
                return 0;
        *ret = strdup(v);
        return *ret ? 0 : -ENOMEM;
}

static int read_name(struct dapr_call *c, const struct dapr_metadata *md, const char *field, char **ret)
{
        int r = read_text(md, field, ret);
        if (r || !*ret || (nats_is_name(str_of(*ret)) && strlen(*ret) < NAME_MAX_BYTES))
                return r;
        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "jetstream: %s is %s: a name has no dots, blanks, wildcards and slashes", field, *ret);
}

/* "1s, 2s", with or without brackets around */
static int read_backoff(struct dapr_call *c, const struct dapr_metadata *md, struct broker *b)
{
        const char *v = dapr_md_string(md, "backOff");
        struct str rest = str_trim(str_of(v ? v : ""));
        if (!rest.n)
                return 0;
        if (rest.p[0] == '[' && rest.p[rest.n - 1] == ']' && rest.n > 1)
                rest = str_n(rest.p + 1, rest.n - 2);
        while (rest.p) {
                struct str one = str_trim(str_cut(&rest, ','));
                if (b->n_backoff == BACKOFF_MAX)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "jetstream: backOff has more than %d durations", BACKOFF_MAX);
                if (parse_duration(one, &b->backoff_ns[b->n_backoff]) || b->backoff_ns[b->n_backoff++] <= 0)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "jetstream: backOff is %s: write durations, 1s, 2s, 4s", v);
        }
        return 0;
}

static int read_policies(struct dapr_call *c, const struct dapr_metadata *md, struct broker *b)
{
        const char *deliver = dapr_md_string(md, "deliverPolicy"), *ack = dapr_md_string(md, "ackPolicy"), *mode = dapr_md_string(md, "concurrency");
        for (size_t i = 0; i < sizeof(policies) / sizeof(*policies); i++)
                if (strcmp(deliver && *deliver ? deliver : "all", policies[i].name) == 0)
                        b->deliver_policy = policies[i].server;
        if (!b->deliver_policy)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "deliver policy %s is not one of: all, last, new, sequence, time", deliver);
        b->ack = ack && strcmp(ack, "all") == 0 ? JS_ALL : ack && strcmp(ack, "none") == 0 ? JS_NONE : JS_EXPLICIT;
        if (mode && *mode && strcmp(mode, "single") && strcmp(mode, "parallel"))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "jetstream: concurrency is %s: write single or parallel", mode);
        b->single = !mode || strcmp(mode, "parallel") != 0;
        return 0;
}

static int read_prefix(struct dapr_call *c, const struct dapr_metadata *md, struct broker *b)
{
        const char *domain = dapr_md_string(md, "domain"), *prefix = dapr_md_string(md, "apiPrefix");
        int n;
        if (prefix && *prefix)
                n = asprintf(&b->prefix, "%s%s", prefix, prefix[strlen(prefix) - 1] == '.' ? "" : ".");
        else if (domain && *domain)
                n = asprintf(&b->prefix, "$JS.%s.API.", domain);
        else
                n = asprintf(&b->prefix, "$JS.API.");
        if (n < 0) {
                b->prefix = NULL;
                return -ENOMEM;
        }
        if (n < NAME_MAX_BYTES && !nats_subject_fault(str_n(b->prefix, (size_t)n - 1), false))
                return 0;
        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "jetstream: %s makes no subject: words and dots between them", prefix && *prefix ? "apiPrefix" : "domain");
}

static int read_settings(struct dapr_call *c, const struct dapr_metadata *md, struct broker *b)
{
        const struct {
                const char *field;
                int64_t *to;
        } numbers[] = {{"startSequence", &b->start_sequence}, {"startTime", &b->start_time}, {"maxDeliver", &b->max_deliver},
                       {"maxAckPending", &b->max_ack_pending}, {"replicas", &b->replicas},   {"rateLimit", &b->rate_limit}};
        int r = nats_settings_read(c, md, &b->s);
        for (size_t i = 0; !r && i < sizeof(numbers) / sizeof(*numbers); i++)
                r = option_count(c, md, "jetstream", numbers[i].field, 0, INT64_MAX, numbers[i].to);
        if (!r)
                r = read_name(c, md, "streamName", &b->stream);
        if (!r)
                r = read_name(c, md, "durableName", &b->durable);
        if (!r)
                r = read_text(md, "queueGroupName", &b->queue);
        if (!r && b->queue && (strpbrk(b->queue, " \t\r\n") || strlen(b->queue) >= NAME_MAX_BYTES))
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "jetstream: queueGroupName is %s: a name has no blanks", b->queue);
        if (!r)
                r = read_policies(c, md, b);
        if (!r)
                r = read_backoff(c, md, b);
        if (!r)
                r = read_prefix(c, md, b);
        if (r)
                return r;
        b->flow_control = dapr_md_bool(md, "flowControl");
        b->memory_storage = dapr_md_bool(md, "memoryStorage");
        b->ack_wait_ns = dapr_md_duration_ns(md, "ackWait");
        b->heartbeat_ns = dapr_md_duration_ns(md, dapr_md_has(md, "heartbeat") ? "heartbeat" : "hearbeat");
        b->instance = strdup(dapr_instance(c));
        return b->instance ? 0 : -ENOMEM;
}

/* ---- the component ---- */

static void jetstream_close(void *instance)
{
        struct broker *b = instance;
        nats_close(b->nats);
        nats_settings_fini(&b->s);
        free(b->instance);
        free(b->stream);
        free(b->durable);
        free(b->queue);
        free(b->prefix);
        free(b);
}

static int jetstream_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct broker *b = calloc(1, sizeof(*b));
        char err[WHY_MAX] = "";
        if (!b)
                return -ENOMEM;
        int r = read_settings(c, md, b);
        if (!r && (r = nats_open(&b->nats, &b->s, b->instance, fmin(INIT_WAIT_S, dapr_deadline_s(c) - 0.2), err, sizeof(err))) < 0 &&
            r != -ENOMEM && r != -ECANCELED)
                r = dapr_fail(c, r == -EACCES ? DAPR_PERMISSION_DENIED : DAPR_UNAVAILABLE, "jetstream: cannot connect to nats at %s: %s",
                              b->s.servers[0].address, err);
        if (r)
                jetstream_close(b);
        else
                *instance = b;
        return r;
}

static int jetstream_ping(struct dapr_call *c, void *instance)
{
        struct broker *b = instance;
        return nats_is_connected(b->nats) ? 0 : dapr_fail(c, DAPR_UNAVAILABLE, "jetstream: not connected: %s", nats_error(b->nats));
}

/* ---- publishing ---- */

/* The CloudEvent's id as a header block; empty when there is none. */
static struct str id_header(struct arena *a, struct str event)
{
        struct json_reader r;
        struct str key, id = STR("");
        json_read_init(&r, event);
        for (bool good = json_enter_object(&r); good && json_next_member(&r, a, &key);)
                if (!str_eqz(key, "id") || !json_read_string(&r, a, &id))
                        json_skip(&r);
        if (r.error || !id.n)
                return STR("");
        struct str copy = arena_str(a, id);
        for (size_t i = 0; copy.p && i < copy.n; i++)
                if (copy.p[i] == '\r' || copy.p[i] == '\n')
                        ((char *)copy.p)[i] = ' ';
        return str_of(copy.p ? arena_printf(a, "NATS/1.0\r\nNats-Msg-Id: %.*s\r\n\r\n", STR_FMT(copy)) : "");
}

/* Did the stream store it? 0, or dapr_fail()'s code with its words. */
static int read_ack(struct dapr_call *c, struct arena *a, struct str answer)
{
        struct json_reader r;
        struct str key, text = STR_NULL, stream = STR_NULL;
        json_read_init(&r, answer);
        for (bool good = json_enter_object(&r); good && json_next_member(&r, a, &key);) {
                if (str_eqz(key, "stream") && json_read_string(&r, a, &stream))
                        continue;
                if (!str_eqz(key, "error") || !json_enter_object(&r)) {
                        json_skip(&r);
                        continue;
                }
                text = STR("unknown error");
                while (json_next_member(&r, a, &key))
                        if (!str_eqz(key, "description") || !json_read_string(&r, a, &text))
                                json_skip(&r);
        }
        if (!r.error && !text.p && stream.n)
                return 0;
        return text.p ? dapr_fail(c, DAPR_INTERNAL, "nats: %.*s", STR_FMT(text)) : dapr_fail(c, DAPR_INTERNAL, "nats: invalid jetstream publish response");
}

static int publish_failed(struct dapr_call *c, const struct broker *b, int r)
{
        switch (r) {
        case -ECANCELED:
        case -ENOMEM: return r;
        case -EHOSTUNREACH: return dapr_fail(c, DAPR_UNAVAILABLE, "nats: no response from stream");
        case -EMSGSIZE: return dapr_fail(c, DAPR_INVALID_ARGUMENT, "nats: maximum payload exceeded");
        default: break;
        }
        return nats_is_connected(b->nats) ? dapr_fail(c, DAPR_UNAVAILABLE, "nats: timeout")
                                          : dapr_fail(c, DAPR_UNAVAILABLE, "nats: not connected: %s", nats_error(b->nats));
}

static int jetstream_publish(struct dapr_call *c, void *instance, const struct dapr_publish *in)
{
        struct broker *b = instance;
        struct arena a;
        struct nats_message *m = NULL;
        const char *fault = nats_subject_fault(str_of(in->topic), false);
        struct str data = str_n(in->data.p, in->data.n);
        double limit = loop_now() + PUBLISH_S;
        int r = 0, silent = 0;
        if (fault)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "the topic %s %s", in->topic, fault);
        arena_init(&a, 0);
        struct str head = id_header(&a, data);
        do { /* a server that restarts or elects a leader answers again soon */
                if (r == -EHOSTUNREACH && (++silent == NO_STREAM_TRIES || fiber_sleep(NO_STREAM_PAUSE_S)))
                        break;
                r = nats_request(b->nats, str_of(in->topic), head, data, limit - loop_now(), &m);
        } while (r == -ECONNRESET || r == -EHOSTUNREACH);
        if (!r) {
                r = read_ack(c, &a, m->payload);
                free(m);
        } else {
                r = publish_failed(c, b, r);
        }
        arena_fini(&a);
        return r;
}

static const struct dapr_pubsub_ops ops = {
        .mode = DAPR_FIBER,
        .features = DAPR_FEATURE_PAUSE,
        .init = jetstream_init,
        .close = jetstream_close,
        .ping = jetstream_ping,
        .publish = jetstream_publish,
        .bulk_at_once = 64,
        .subscribe = jetstream_subscribe,
};
static const struct dapr_component_type types[] = {{.type = "pubsub.jetstream", .versions = "v1", .pubsub = &ops}};
static const struct dapr_plugin plugin = {.name = "pubsub.jetstream", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
