/*
 * Load on a sidecar for drills, lean enough that what it measures is the sidecar's: callers that write a key, read it back and compare
 * it, publishers, the app that takes their events, streaming subscriptions that connect again at once when they end.
 *   load_bench -h HTTP_PORT [-g GRPC_PORT] [-a APP_PORT] [-c callers] [-p publishers] [-s streams] [-w pause_ms]
 *              [-S store] [-P pubsub] [-k configuration store, one more stream]
 * A line on its standard input begins a phase of that name, the first one the load; its end ends all. Each caller's connection is kept alive and is used
 * strictly: an end without an answer is a failure, unless "Connection: close" was said. Prints one JSON object: calls, p50, p99 and
 * longest of each phase, failures, messages sent, lost and doubled, pauses of streams in ms.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "dapr/proto/runtime/v1/appcallback.pb-c.h"
#include "dapr/proto/runtime/v1/configuration.pb-c.h"
#include "dapr/proto/runtime/v1/pubsub.pb-c.h"
#include "sdk/base/loop.h"
#include "sdk/net/http.h"
#include "sdk/net/rpc.h"

enum { PHASES_MAX = 64, FAILURES_SHOWN = 5, PUBLISHERS_MAX = 256, REQUEST_BYTES = 512 };
static const double LAST_MESSAGES_S = 20, STREAM_AGAIN_S = 0.002;

struct samples {
        double *v;
        size_t n, cap;
};

struct phase {
        char name[64];
        struct samples calls;
};

static struct {
        int http, grpc, app, callers, publishers, streams, pause_ms;
        const char *store, *pubsub, *configuration;
        struct phase phases[PHASES_MAX];
        size_t n_phases;
        unsigned long failed, sent[PUBLISHERS_MAX], taken[PUBLISHERS_MAX], doubled;
        struct samples seen[PUBLISHERS_MAX]; /* times that message n came */
        char failures[FAILURES_SHOWN][200];
        struct samples pauses;
        bool done;
        struct scope scope;
        struct cond begun;
        struct io_watch in;
        char line[64];
        size_t line_n;
} L = {.callers = 8, .store = "store", .pubsub = "pub"};

static void add(struct samples *s, double v)
{
        if (s->n == s->cap) {
                s->cap = s->cap ? s->cap * 2 : 1024;
                s->v = realloc(s->v, s->cap * sizeof *s->v);
                if (!s->v)
                        abort();
        }
        s->v[s->n++] = v;
}

static void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void fail(const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        if (L.failed < FAILURES_SHOWN)
                vsnprintf(L.failures[L.failed], sizeof L.failures[0], fmt, ap);
        va_end(ap);
        L.failed++;
}

/* ---- HTTP/1.1, strictly ---- */

struct client {
        struct conn *io;
};

static int dial(struct client *c)
{
        char target[32];
        if (c->io)
                return 0;
        snprintf(target, sizeof target, "127.0.0.1:%d", L.http);
        return conn_dial(str_of(target), &c->io);
}

static void hang_up(struct client *c)
{
        conn_free(c->io);
        c->io = NULL;
}

/* The value of a header in head, or NULL. */
static const char *header(struct str head, struct str name)
{
        for (struct str rest = head; rest.n;) {
                ptrdiff_t end = str_chr(rest, '\n');
                struct str line = end < 0 ? rest : str_n(rest.p, (size_t)end);
                if (line.n > name.n + 1 && str_ieq(str_n(line.p, name.n), name) && line.p[name.n] == ':')
                        return line.p + name.n + 1 + (line.p[name.n + 1] == ' ');
                rest = end < 0 ? STR_NULL : str_skip(rest, (size_t)end + 1);
        }
        return NULL;
}

/* 0 with status and the body in the connection's buffer from *ret_at on, or -errno. */
static int answer(struct client *c, int *ret_status, struct str *ret_body, size_t *ret_bytes)
{
        ptrdiff_t head = -1;
        int r = 1;
        while ((head = str_find(buf_str(&c->io->in), STR("\r\n\r\n"))) < 0 && r > 0)
                r = conn_read(c->io);
        if (head < 0)
                return r < 0 ? r : -ECONNRESET;
        struct str h = str_n(buf_str(&c->io->in).p, (size_t)head + 2);
        const char *length = header(h, STR("Content-Length"));
        size_t body = length ? strtoul(length, NULL, 10) : 0, want = (size_t)head + 4 + body;
        while (buf_len(&c->io->in) < want && (r = conn_read(c->io)) > 0)
                ;
        if (buf_len(&c->io->in) < want)
                return r < 0 ? r : -ECONNRESET;
        *ret_status = atoi(buf_str(&c->io->in).p + 9);
        *ret_body = str_n(buf_str(&c->io->in).p + head + 4, body);
        *ret_bytes = want;
        return 0;
}

/* One call; body is copied into to. The status, or -errno. */
static int call(struct client *c, const char *method, const char *path, const char *body, char *to, size_t n)
{
        char head[REQUEST_BYTES];
        struct str got;
        int status, r = dial(c);
        size_t bytes;
        if (r)
                return r;
        double began = loop_now_exact();
        int len = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", method,
                           path, strlen(body), body);
        conn_write(c->io, head, (size_t)len);
        r = answer(c, &status, &got, &bytes);
        if (r) {
                hang_up(c);
                return r;
        }
        add(&L.phases[L.n_phases - 1].calls, loop_now_exact() - began);
        snprintf(to, n, "%.*s", STR_FMT(got));
        const char *closes = header(str_n(buf_str(&c->io->in).p, bytes - got.n), STR("Connection"));
        bool ends = closes && strncasecmp(closes, "close", 5) == 0;
        buf_consume(&c->io->in, bytes);
        if (ends)
                hang_up(c);
        return status;
}

static void rest(void)
{
        if (L.pause_ms)
                fiber_sleep(L.pause_ms / 1e3);
}

static void caller(void *arg)
{
        struct client c = {0};
        int i = (int)(intptr_t)arg;
        char path[128], key[128], body[128], got[256], want[32];
        snprintf(path, sizeof path, "/v1.0/state/%s", L.store);
        snprintf(key, sizeof key, "/v1.0/state/%s/k%d", L.store, i);
        for (long n = 1; !L.done; n++) {
                snprintf(body, sizeof body, "[{\"key\":\"k%d\",\"value\":%ld}]", i, n);
                int r = call(&c, "POST", path, body, got, sizeof got);
                if (r != 204)
                        fail("set: %d %s", r, r < 0 ? strerrordesc_np(-r) : got);
                snprintf(want, sizeof want, "%ld", n);
                r = call(&c, "GET", key, "", got, sizeof got);
                if (r != 200)
                        fail("get: %d %s", r, r < 0 ? strerrordesc_np(-r) : got);
                else if (strcmp(got, want) != 0)
                        fail("get: %.40s instead of %s", got, want);
                rest();
        }
        hang_up(&c);
}

static void publisher(void *arg)
{
        struct client c = {0};
        int i = (int)(intptr_t)arg;
        char path[128], body[64], got[256];
        snprintf(path, sizeof path, "/v1.0/publish/%s/t", L.pubsub);
        while (!L.done) {
                snprintf(body, sizeof body, "{\"n\":\"%d-%lu\"}", i, L.sent[i]);
                int r = call(&c, "POST", path, body, got, sizeof got);
                if (r != 204)
                        fail("publish: %d %s", r, r < 0 ? strerrordesc_np(-r) : got);
                else
                        L.sent[i]++;
                rest();
        }
        hang_up(&c);
}

/* ---- the app ---- */

static void note_message(struct str body)
{
        ptrdiff_t at = str_find(body, STR("\"n\":\""));
        char text[48];
        int i;
        unsigned long n;
        if (at < 0)
                return;
        snprintf(text, sizeof text, "%.*s", (int)(body.n - (size_t)at - 5), body.p + at + 5);
        if (sscanf(text, "%d-%lu\"", &i, &n) != 2 || i < 0 || i >= L.publishers)
                return;
        struct samples *s = &L.seen[i];
        while (s->n <= n)
                add(s, 0);
        L.taken[i] += s->v[n] == 0;
        L.doubled += s->v[n] > 0;
        s->v[n]++;
}

static void handle(struct http_req *r, void *arg)
{
        static const struct http_header json[] = {{STR("Content-Type"), STR("application/json")}};
        struct str body;
        if (http_req_body(r, &body))
                return;
        if (str_eqz(r->path, "/got"))
                note_message(body);
        http_resp_send(r, 200, json, 1, str_eqz(r->path, "/dapr/subscribe") ? STR("[]") : STR("{}"));
}

/* ---- streams ---- */

typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestAlpha1 topic_request;

static void talk(struct rpc_call *c, double *ended)
{
        topic_request q = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__INIT;
        Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestInitialAlpha1 first = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_INITIAL_ALPHA1__INIT;
        Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestProcessedAlpha1 done = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_PROCESSED_ALPHA1__INIT;
        Dapr__Proto__Runtime__V1__TopicEventResponse ok = DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__INIT;
        const Dapr__Proto__Runtime__V1__SubscribeTopicEventsResponseAlpha1 *m;
        first.pubsub_name = L.pubsub;
        first.topic = "u";
        q.subscribe_topic_events_request_type_case = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_TYPE_INITIAL_REQUEST;
        q.initial_request = &first;
        if (rpc_send_pb(c, &q.base))
                return;
        q.subscribe_topic_events_request_type_case = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_TYPE_EVENT_PROCESSED;
        q.event_processed = &done;
        done.status = &ok;
        while (rpc_recv_pb(c, &dapr__proto__runtime__v1__subscribe_topic_events_response_alpha1__descriptor, &m) == 1) {
                if (m->subscribe_topic_events_response_type_case ==
                    DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_TYPE_INITIAL_RESPONSE) {
                        if (*ended > 0)
                                add(&L.pauses, (loop_now_exact() - *ended) * 1e3);
                        *ended = 0;
                        continue;
                }
                done.id = m->event_message->id;
                if (rpc_send_pb(c, &q.base))
                        break;
        }
}

static void follow(struct rpc_call *c, double *ended)
{
        Dapr__Proto__Runtime__V1__SubscribeConfigurationRequest q = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_CONFIGURATION_REQUEST__INIT;
        const Dapr__Proto__Runtime__V1__SubscribeConfigurationResponse *m;
        q.store_name = L.configuration;
        if (rpc_send_pb(c, &q.base))
                return;
        while (rpc_recv_pb(c, &dapr__proto__runtime__v1__subscribe_configuration_response__descriptor, &m) == 1) {
                if (*ended > 0)
                        add(&L.pauses, (loop_now_exact() - *ended) * 1e3);
                *ended = 0;
        }
}

/* Each on a connection of its own, made anew when the sidecar has said good-bye to it. */
static void stream(void *arg)
{
        bool topic = arg == NULL;
        char target[32];
        double ended = 0;
        snprintf(target, sizeof target, "127.0.0.1:%d", L.grpc);
        const struct rpc_channel_conf conf = {.target = str_of(target), .max_recv_bytes = -1};
        while (!L.done) {
                struct rpc_channel *ch;
                struct rpc_call *c;
                struct rpc_status st = {0};
                struct rpc_opts o = {.flags = RPC_REUSE};
                struct arena a;
                arena_init(&a, 0);
                if (rpc_channel_new(&ch, &conf))
                        abort();
                int r = rpc_open(ch, &a, topic ? "/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1" : "/dapr.proto.runtime.v1.Dapr/SubscribeConfiguration",
                                 &o, &c, &st);
                if (r == 0) {
                        (topic ? talk : follow)(c, &ended);
                        if (L.done)
                                rpc_cancel(c);
                        rpc_finish(c);
                }
                if (ended == 0)
                        ended = loop_now_exact();
                rpc_channel_close(ch);
                arena_fini(&a);
                fiber_sleep(STREAM_AGAIN_S);
        }
}

/* ---- phases and the end ---- */

static void begin_phase(const char *name)
{
        if (L.n_phases < PHASES_MAX)
                snprintf(L.phases[L.n_phases++].name, sizeof L.phases[0].name, "%s", name);
        cond_broadcast(&L.begun);
}

static void on_input(struct io_watch *w, int events)
{
        char c;
        ssize_t n = read(0, &c, 1);
        if (n == 1 && c != '\n' && L.line_n < sizeof L.line - 1) {
                L.line[L.line_n++] = c;
        } else if (n == 1) {
                L.line[L.line_n] = '\0';
                L.line_n = 0;
                begin_phase(L.line);
        } else {
                io_watch_stop(w);
                L.done = true;
                cond_broadcast(&L.begun);
        }
}

static int by_value(const void *a, const void *b)
{
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

static void tell_samples(const struct samples *s, double unit)
{
        if (s->n)
                qsort(s->v, s->n, sizeof *s->v, by_value);
        double last = s->n ? s->v[s->n - 1] : 0;
        printf("\"n\":%zu,\"p50\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f", s->n, s->n ? s->v[s->n / 2] * unit : 0, s->n ? s->v[s->n * 99 / 100] * unit : 0,
               s->n ? s->v[s->n * 999 / 1000] * unit : 0, last * unit);
}

static void tell(void)
{
        unsigned long sent = 0, lost = 0;
        for (int i = 0; i < L.publishers; i++) {
                sent += L.sent[i];
                lost += L.sent[i] > L.taken[i] ? L.sent[i] - L.taken[i] : 0;
        }
        printf("{\"failed\":%lu,\"sent\":%lu,\"lost\":%lu,\"doubled\":%lu,\"failures\":[", L.failed, sent, lost, L.doubled);
        for (unsigned long i = 0; i < L.failed && i < FAILURES_SHOWN; i++) {
                for (char *c = L.failures[i]; *c; c++)
                        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ')
                                *c = '\'';
                printf("%s\"%s\"", i ? "," : "", L.failures[i]);
        }
        printf("],\"pauses\":{");
        tell_samples(&L.pauses, 1);
        printf("},\"phases\":{");
        for (size_t i = 0; i < L.n_phases; i++) {
                printf("%s\"%s\":{", i ? "," : "", L.phases[i].name);
                tell_samples(&L.phases[i].calls, 1e3);
                printf("}");
        }
        printf("}}\n");
}

static bool all_came(void)
{
        for (int i = 0; L.app && i < L.publishers; i++)
                if (L.taken[i] < L.sent[i])
                        return false;
        return true;
}

static void drill(void *arg)
{
        struct scope load, streams;
        scope_init(&load);
        scope_init(&streams);
        while (!L.n_phases && !L.done)
                cond_wait(&L.begun);
        for (intptr_t i = 0; i < L.callers; i++)
                fiber_go(&load, "caller", caller, (void *)i);
        for (intptr_t i = 0; i < L.publishers; i++)
                fiber_go(&load, "publisher", publisher, (void *)i);
        for (int i = 0; L.grpc && i < L.streams; i++)
                fiber_go(&streams, "stream", stream, NULL);
        if (L.grpc && L.configuration)
                fiber_go(&streams, "stream", stream, &L);
        scope_join(&load);
        while (!L.done)
                cond_wait(&L.begun);
        scope_cancel(&streams);
        scope_join(&streams);
        double until = loop_now() + LAST_MESSAGES_S;
        while (!all_came() && loop_now() < until)
                fiber_sleep(0.01);
        tell();
        loop_stop();
}

static bool options(int argc, char **argv)
{
        for (int o; (o = getopt(argc, argv, "h:g:a:c:p:s:w:S:P:k:")) != -1;) {
                static const char letters[] = "hgacpsw";
                int *const numbers[] = {&L.http, &L.grpc, &L.app, &L.callers, &L.publishers, &L.streams, &L.pause_ms};
                const char *at = strchr(letters, o);
                if (at)
                        *numbers[at - letters] = atoi(optarg);
                else if (o == 'S' || o == 'P' || o == 'k')
                        *(o == 'S' ? &L.store : o == 'P' ? &L.pubsub : &L.configuration) = optarg;
                else
                        return false;
        }
        return L.http > 0 && L.publishers <= PUBLISHERS_MAX;
}

int main(int argc, char **argv)
{
        struct http_server *app = NULL;
        char addr[32];
        if (!options(argc, argv) || loop_init())
                return 2;
        cond_init(&L.begun);
        snprintf(addr, sizeof addr, "127.0.0.1:%d", L.app);
        if (L.app && (http_server_new(&app, &(struct http_server_conf){.name = "app", .handler = handle}) || http_server_listen(app, str_of(addr)))) {
                fprintf(stderr, "cannot listen on %s\n", addr);
                return 1;
        }
        io_watch_init(&L.in, 0, on_input);
        io_watch_set(&L.in, IO_READ);
        scope_init(&L.scope);
        if (fiber_go(&L.scope, "drill", drill, NULL))
                return 1;
        loop_run();
        fflush(stdout);
        _exit(0);
}
