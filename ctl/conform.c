/* See conform.h: the run, calls, and what every plugin must do whatever its kind. */
#include "ctl/conform_state.h"

#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "plugin/v1/lifecycle.pb-c.h"

#define LIFECYCLE "/microdapr.plugin.v1.Lifecycle/"
#define START_S 15.0
enum { CONTRACT_VERSION = 1, HEALTH_INTERVAL_MS = 50, BIG_BYTES = 3 * 1024 * 1024, QUOTED_BYTES = 32 };

/* ---- calls ---- */

const char *conform_text(struct conform *c, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        const char *z = arena_vprintf(c->arena, fmt, ap);
        va_end(ap);
        return z ? z : "out of memory";
}

const char *conform_quote(struct conform *c, struct str bytes)
{
        struct buf b = {0};
        if (!bytes.p)
                return "nothing";
        buf_addc(&b, '"');
        for (size_t i = 0; i < bytes.n && i < QUOTED_BYTES; i++) {
                unsigned char x = (unsigned char)bytes.p[i];
                if (x >= ' ' && x < 0x7f)
                        buf_addc(&b, (char)x);
                else
                        buf_printf(&b, "\\x%02x", x);
        }
        buf_addz(&b, "\"");
        if (bytes.n > QUOTED_BYTES)
                buf_printf(&b, "... (%zu bytes)", bytes.n);
        const char *z = arena_strdup(c->arena, buf_str(&b));
        buf_fini(&b);
        return z ? z : "";
}

const char *conform_skip(struct conform *c, const char *why)
{
        c->skip = true;
        return why;
}

int conform_ask_raw(struct conform *c, const char *method, struct str req, struct str *resp, double timeout_s)
{
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md, .timeout_s = timeout_s};
        c->status = (struct rpc_status){0};
        return rpc_unary(c->ch, &c->call, method, req, resp, &o, &c->status);
}

int conform_ask(struct conform *c, const char *method, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *d, void *resp)
{
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md, .timeout_s = c->timeout_s};
        struct str ignored, packed = pb_pack(&c->call, req);
        c->status = (struct rpc_status){0};
        if (!packed.p)
                return RPC_RESOURCE_EXHAUSTED;
        return d ? rpc_unary_pb(c->ch, &c->call, method, req, d, resp, &o, &c->status)
                 : rpc_unary(c->ch, &c->call, method, packed, &ignored, &o, &c->status);
}

const char *conform_wrong(struct conform *c, const char *what)
{
        return c->status.message.n ? conform_text(c, "%s was answered with %s (%.*s)", what, rpc_code_name(c->status.code), STR_FMT(c->status.message))
                                   : conform_text(c, "%s was answered with %s", what, rpc_code_name(c->status.code));
}

bool conform_has(const struct conform *c, const char *feature)
{
        for (size_t i = 0; i < c->n_features; i++)
                if (strcmp(c->features[i], feature) == 0)
                        return true;
        return false;
}

/* ---- the run ---- */

static void add_result(struct conform *c, const char *group, const char *name, enum conform_status status, const char *detail, double ms)
{
        if (c->n == c->cap) {
                size_t cap = c->cap ? c->cap * 2 : 64;
                struct conform_result *v = arena_grow(c->arena, c->v, c->cap * sizeof *v, cap * sizeof *v);
                if (!v)
                        return;
                c->v = v;
                c->cap = cap;
        }
        c->v[c->n++] = (struct conform_result){group, name, detail ? detail : "", status, ms};
}

static const char *end_of_control_ends(struct conform *c);

static bool has_died(const struct conform *c)
{
        return c->subject->pid && !subject_is_alive(c->subject);
}

void conform_run(struct conform *c, const char *group, const struct conform_check *checks, size_t n)
{
        for (size_t i = 0; i < n && !c->stopped; i++) {
                if (checks[i].feature && !conform_has(c, checks[i].feature)) {
                        add_result(c, group, checks[i].name, CONFORM_SKIP, conform_text(c, "it does not have %s", checks[i].feature), 0);
                        continue;
                }
                if (c->dead) {
                        add_result(c, group, checks[i].name, CONFORM_SKIP, "the process is not there any more", 0);
                        continue;
                }
                arena_reset(&c->call);
                c->skip = false;
                double start = loop_now_exact();
                const char *fault = checks[i].fn(c);
                add_result(c, group, checks[i].name, c->skip ? CONFORM_SKIP : fault ? CONFORM_FAIL : CONFORM_PASS, fault,
                           (loop_now_exact() - start) * 1000);
                if (checks[i].fn != end_of_control_ends && has_died(c)) {
                        add_result(c, group, "the process lives on", CONFORM_FAIL, conform_text(c, "it ended in '%s'", checks[i].name), 0);
                        c->dead = !c->subject->program || subject_start(c->subject) != 0 || conform_connect(c) != NULL || conform_init(c) != NULL;
                }
        }
}

/* ---- Hello and Init ---- */

typedef Microdapr__Plugin__V1__HelloResponse hello_t;

static int say_hello(struct conform *c, hello_t **ret)
{
        Microdapr__Plugin__V1__HelloRequest req = MICRODAPR__PLUGIN__V1__HELLO_REQUEST__INIT;
        uint32_t versions[] = {CONTRACT_VERSION};
        req.kernel_version = CTL_VERSION;
        req.contract_versions = versions;
        req.n_contract_versions = 1;
        req.instance_name = "conformance";
        req.component_type = c->type;
        req.component_version = c->version;
        return conform_ask(c, LIFECYCLE "Hello", &req.base, &microdapr__plugin__v1__hello_response__descriptor, ret);
}

static int say_accept(struct conform *c, bool accepted)
{
        Microdapr__Plugin__V1__AcceptRequest req = MICRODAPR__PLUGIN__V1__ACCEPT_REQUEST__INIT;
        req.accepted = accepted;
        req.contract_version = CONTRACT_VERSION;
        return conform_ask(c, LIFECYCLE "Accept", &req.base, NULL, NULL);
}

static const struct { const char *kind, *service; } kinds[] = {
        {"state", "dapr.proto.components.v1.StateStore"}, {"pubsub", "dapr.proto.components.v1.PubSub"},
        {"bindings", "dapr.proto.components.v1.OutputBinding"}, {"secretstores", "dapr.proto.components.v1.SecretStore"},
        {"configuration", "microdapr.plugin.v1.ConfigurationStore"}, {"lock", "microdapr.plugin.v1.Lock"},
        {"crypto", "microdapr.plugin.v1.Crypto"}, {"conversation", "microdapr.plugin.v1.Conversation"},
        {"middleware", "microdapr.plugin.v1.HttpMiddleware"}, {"nameresolution", "microdapr.plugin.v1.NameResolution"}};

const char *conform_service(const struct conform *c)
{
        if (strcmp(c->kind, "bindings") == 0 && c->n_features && !conform_has(c, "OUTPUT_BINDING"))
                return "dapr.proto.components.v1.InputBinding";
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
                if (strcmp(kinds[i].kind, c->kind) == 0)
                        return kinds[i].service;
        return "";
}

const char *conform_method(struct conform *c, const char *name)
{
        const char *z = arena_printf(&c->call, "/%s/%s", conform_service(c), name);
        return z ? z : "";
}

static void keep_features(struct conform *c, char *const *v, size_t n)
{
        c->n_features = 0;
        for (size_t i = 0; i < n && c->n_features < CONFORM_FEATURES_MAX; i++)
                c->features[c->n_features++] = arena_strdup(c->arena, str_of(v[i]));
}

static bool has_version(const Microdapr__Plugin__V1__ComponentType *t, const char *version)
{
        for (size_t i = 0; i < t->n_versions; i++)
                if (strcasecmp(t->versions[i], version) == 0)
                        return true;
        return t->n_versions == 0;
}

static const char *take_hello(struct conform *c)
{
        hello_t *h;
        if (say_hello(c, &h))
                return conform_wrong(c, "Hello");
        c->plugin_version = arena_strdup(c->arena, str_of(h->plugin_version));
        for (size_t i = 0; i < h->n_component_types; i++)
                if (strcasecmp(h->component_types[i]->type, c->type) == 0 && has_version(h->component_types[i], c->version))
                        keep_features(c, (char *const *)h->component_types[i]->features, h->component_types[i]->n_features);
        return say_accept(c, true) ? conform_wrong(c, "Accept") : NULL;
}

const char *conform_connect(struct conform *c)
{
        struct rpc_channel_conf conf = {.target = str_of(arena_printf(c->arena, "unix:%s", c->subject->socket)), .max_recv_bytes = -1};
        double old = fiber_set_deadline(loop_now_exact() + START_S);
        if (c->ch)
                rpc_channel_close(c->ch);
        c->ch = NULL;
        int r = rpc_channel_new(&c->ch, &conf);
        if (r == 0)
                r = rpc_channel_connect(c->ch);
        fiber_restore_deadline(old);
        if (r)
                return conform_text(c, "its socket cannot be reached: %s", strerror(-r));
        double timeout_s = c->timeout_s; /* a start may take longer than a call */
        c->timeout_s = timeout_s > START_S ? timeout_s : START_S;
        const char *fault = c->subject->program ? take_hello(c) : NULL;
        c->timeout_s = timeout_s;
        return fault;
}

const char *conform_init(struct conform *c)
{
        struct str resp;
        if (conform_ask_raw(c, conform_method(c, "Init"), c->init, &resp, c->timeout_s * 3))
                return conform_wrong(c, "Init");
        if (c->subject->program || strcmp(c->kind, "bindings") == 0)
                return NULL;
        /* A pluggable component tells its features when asked: a list of strings, field 1. */
        if (conform_ask_raw(c, conform_method(c, "Features"), STR(""), &resp, c->timeout_s))
                return conform_wrong(c, "Features");
        c->n_features = 0;
        while (resp.n > 2 && resp.p[0] == 0x0a && (unsigned char)resp.p[1] < 128 && (size_t)resp.p[1] + 2 <= resp.n) {
                if (c->n_features < CONFORM_FEATURES_MAX)
                        c->features[c->n_features++] = arena_strdup(c->arena, str_n(resp.p + 2, (size_t)resp.p[1]));
                resp = str_skip(resp, (size_t)resp.p[1] + 2);
        }
        return NULL;
}

/* ---- contract ---- */

static const char *hello_is_right(struct conform *c)
{
        hello_t *h;
        bool type = false, version = false;
        if (say_hello(c, &h))
                return conform_wrong(c, "Hello");
        if (c->plugin_name && strcmp(h->plugin_name, c->plugin_name) != 0)
                return conform_text(c, "Hello names the plugin %s, plugin.yaml %s", h->plugin_name, c->plugin_name);
        if (c->manifest_version && strcmp(h->plugin_version, c->manifest_version) != 0)
                return conform_text(c, "Hello says version %s, plugin.yaml %s", h->plugin_version, c->manifest_version);
        for (size_t i = 0; i < h->n_contract_versions; i++)
                version |= h->contract_versions[i] == CONTRACT_VERSION;
        for (size_t i = 0; i < h->n_component_types; i++)
                type |= strcasecmp(h->component_types[i]->type, c->type) == 0;
        return !version ? "it does not speak version 1 of the contract" : !type ? conform_text(c, "Hello does not name the type %s", c->type) : NULL;
}

static const char *features_are_known(struct conform *c)
{
        static const char *const known[] = {"ETAG", "TRANSACTIONAL", "TTL", "QUERY_API", "DELETE_WITH_PREFIX", "PARTITION_KEY", "KEYS_LIKE",
                "MULTIPLE_KEY_VALUES_PER_SECRET", "BULK_PUBSUB", "MESSAGE_TTL", "SUBSCRIBE_WILDCARDS", "INPUT_BINDING", "OUTPUT_BINDING",
                "HTTP_EXCHANGE", "ACTOR_STATE"};
        for (size_t i = 0; i < c->n_features; i++) {
                bool hit = false;
                for (size_t k = 0; k < sizeof known / sizeof *known; k++)
                        hit |= strcmp(c->features[i], known[k]) == 0;
                if (!hit)
                        return conform_text(c, "there is no feature %s", c->features[i]);
        }
        return NULL;
}

static const char *methods_are_paths(struct conform *c)
{
        hello_t *h;
        if (say_hello(c, &h))
                return conform_wrong(c, "Hello");
        for (size_t i = 0; i < h->n_idempotent_methods; i++) {
                const char *m = h->idempotent_methods[i];
                if (m[0] != '/' || !strchr(m + 1, '/'))
                        return conform_text(c, "the idempotent method '%s' is no path such as /service/method", m);
        }
        return NULL;
}

/* After a crash the runtime sends idempotent calls again: twice these would be two. (Publish may be: messages come at least once.) */
static const char *writes_are_not_idempotent(struct conform *c)
{
        static const char *const never[] = {"StateStore/Set", "StateStore/Delete", "StateStore/BulkSet", "StateStore/BulkDelete", "TransactionalStateStore/Transact",
                "OutputBinding/Invoke", "Lock/TryLock", "Lock/Unlock", "Conversation/Converse"};
        hello_t *h;
        if (say_hello(c, &h))
                return conform_wrong(c, "Hello");
        for (size_t i = 0; i < h->n_idempotent_methods; i++)
                for (size_t k = 0; k < sizeof never / sizeof *never; k++)
                        if (str_has_suffix(str_of(h->idempotent_methods[i]), str_of(never[k])))
                                return conform_text(c, "%s is called idempotent: after a crash it would be sent twice", h->idempotent_methods[i]);
        return NULL;
}

/* plugin.yaml may say features, too: then it and Hello say the same. */
static const char *manifest_says_the_same(struct conform *c)
{
        if (!c->n_declared)
                return conform_skip(c, "plugin.yaml names no features");
        for (size_t i = 0; i < c->n_declared; i++)
                if (!conform_has(c, c->declared[i]))
                        return conform_text(c, "plugin.yaml says %s, Hello does not", c->declared[i]);
        for (size_t i = 0; i < c->n_features; i++) {
                bool hit = false;
                for (size_t k = 0; k < c->n_declared; k++)
                        hit |= strcmp(c->features[i], c->declared[k]) == 0;
                if (!hit)
                        return conform_text(c, "Hello says %s, plugin.yaml does not", c->features[i]);
        }
        return NULL;
}

static const char *calls_before_init_fail(struct conform *c)
{
        if (conform_probe_is_ping(c))
                return conform_skip(c, "its kind has no call that changes nothing");
        int r = conform_probe(c, &c->call, c->timeout_s);
        return r == RPC_FAILED_PRECONDITION || r == RPC_UNIMPLEMENTED ? NULL : conform_wrong(c, "a call before Init");
}

static const char *init_answers(struct conform *c)
{
        const char *fault = conform_init(c);
        c->stopped = fault != NULL;
        return fault;
}

static const char *ping_answers(struct conform *c)
{
        struct str resp;
        int r = conform_ask_raw(c, conform_method(c, "Ping"), STR(""), &resp, c->timeout_s);
        return r == 0 || (r == RPC_UNIMPLEMENTED && strcmp(c->kind, "middleware") == 0) ? NULL : conform_wrong(c, "Ping");
}

static const char *unknown_methods_are_refused(struct conform *c)
{
        struct str resp;
        if (conform_ask_raw(c, conform_method(c, "NoSuchMethod"), STR(""), &resp, c->timeout_s) != RPC_UNIMPLEMENTED)
                return conform_wrong(c, "an unknown method");
        return conform_ask_raw(c, "/no.such.Service/Method", STR(""), &resp, c->timeout_s) == RPC_UNIMPLEMENTED ? NULL
                                                                                                                   : conform_wrong(c, "an unknown service");
}

static const char *garbage_messages_are_refused(struct conform *c)
{
        struct str resp;
        int r = conform_ask_raw(c, conform_method(c, "Init"), STR("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), &resp, c->timeout_s);
        if (r == 0)
                return "a request of random bytes was taken";
        return r == RPC_INVALID_ARGUMENT || r == RPC_INTERNAL || r == RPC_UNKNOWN || r == RPC_UNIMPLEMENTED ? NULL : conform_wrong(c, "a request of random bytes");
}

static const char *large_messages_are_taken(struct conform *c)
{
        struct str resp;
        char *big = arena_zalloc(&c->call, BIG_BYTES + 8);
        if (!big)
                return "out of memory";
        /* field 15, bytes, unknown to every request: it must be read over */
        big[0] = 0x7a;
        size_t n = 1, len = BIG_BYTES;
        for (; len > 0x7f; len >>= 7)
                big[n++] = (char)((len & 0x7f) | 0x80);
        big[n++] = (char)len;
        int r = conform_ask_raw(c, conform_method(c, "Ping"), str_n(big, n + BIG_BYTES), &resp, c->timeout_s);
        return r == 0 || r == RPC_UNIMPLEMENTED ? NULL : conform_wrong(c, "a message of 3 MiB");
}

static const char *init_may_come_again(struct conform *c)
{
        const char *fault = conform_init(c);
        if (fault)
                return fault;
        return ping_answers(c);
}

static const char *health_streams(struct conform *c)
{
        Microdapr__Plugin__V1__HealthRequest req = MICRODAPR__PLUGIN__V1__HEALTH_REQUEST__INIT;
        Microdapr__Plugin__V1__HealthReport *h;
        struct rpc_call *call;
        req.interval_ms = HEALTH_INTERVAL_MS;
        const char *fault = NULL;
        double old = fiber_set_deadline(loop_now_exact() + c->timeout_s);
        if (rpc_open(c->ch, &c->call, LIFECYCLE "Health", NULL, &call, &c->status)) {
                fiber_restore_deadline(old);
                return conform_wrong(c, "Health");
        }
        rpc_send_pb(call, &req.base);
        rpc_send_end(call);
        double first = loop_now_exact();
        for (int i = 0; i < 4 && !fault; i++) {
                if (rpc_recv_pb(call, &microdapr__plugin__v1__health_report__descriptor, &h) != 1)
                        fault = "the stream of reports ends";
                else if (!h->alive)
                        fault = "it says that it wants to be restarted";
                else if (i == 0 && loop_now_exact() - first > 1)
                        fault = "the first report did not come at once";
        }
        if (!fault && loop_now_exact() - first > 2)
                fault = "reports do not come at the interval that was asked for (50 ms)";
        rpc_cancel(call);
        rpc_finish(call);
        fiber_restore_deadline(old);
        return fault;
}

static const char *stats_are_plausible(struct conform *c)
{
        Microdapr__Plugin__V1__StatsRequest req = MICRODAPR__PLUGIN__V1__STATS_REQUEST__INIT;
        Microdapr__Plugin__V1__StatsResponse *s;
        if (conform_ask(c, LIFECYCLE "Stats", &req.base, &microdapr__plugin__v1__stats_response__descriptor, &s))
                return conform_wrong(c, "Stats");
        return s->calls && s->rss_bytes > 100000 && s->open_fds > 2 ? NULL : "calls, memory or descriptors are missing";
}

static const char *log_level_is_set(struct conform *c)
{
        Microdapr__Plugin__V1__SetLogLevelRequest req = MICRODAPR__PLUGIN__V1__SET_LOG_LEVEL_REQUEST__INIT;
        req.level = "nonsense";
        if (conform_ask(c, LIFECYCLE "SetLogLevel", &req.base, NULL, NULL) != RPC_INVALID_ARGUMENT)
                return conform_wrong(c, "the log level 'nonsense'");
        req.level = "info";
        return conform_ask(c, LIFECYCLE "SetLogLevel", &req.base, NULL, NULL) ? conform_wrong(c, "the log level 'info'") : NULL;
}

static const char *reflection_lists(struct conform *c)
{
        Grpc__Reflection__V1__ServerReflectionRequest req = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
        Grpc__Reflection__V1__ServerReflectionResponse *resp = NULL;
        const char *const names[] = {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};
        struct rpc_call *call;
        bool hit = false;
        req.message_request_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
        req.list_services = "";
        double old = fiber_set_deadline(loop_now_exact() + c->timeout_s);
        for (size_t i = 0; i < 2 && !hit; i++) {
                if (rpc_open(c->ch, &c->call, names[i], NULL, &call, &c->status))
                        continue;
                rpc_send_pb(call, &req.base);
                rpc_send_end(call);
                if (rpc_recv_pb(call, &grpc__reflection__v1__server_reflection_response__descriptor, &resp) == 1 && resp->list_services_response)
                        for (size_t k = 0; k < resp->list_services_response->n_service; k++)
                                hit |= strcmp(resp->list_services_response->service[k]->name, conform_service(c)) == 0;
                rpc_finish(call);
        }
        fiber_restore_deadline(old);
        return hit ? NULL : conform_text(c, "reflection does not list %s", conform_service(c));
}

static const struct conform_check own_checks[] = {
        {"Hello names plugin, version, contract and types", hello_is_right},
        {"features are known ones", features_are_known},
        {"idempotent methods are paths", methods_are_paths},
        {"writes are not called idempotent", writes_are_not_idempotent},
        {"plugin.yaml and Hello name the same features", manifest_says_the_same},
        {"calls before Init fail", calls_before_init_fail},
};
static const struct conform_check common_checks[] = {
        {"Init", init_answers},
        {"Ping", ping_answers},
        {"reflection lists the services", reflection_lists},
        {"unknown methods are refused", unknown_methods_are_refused},
        {"garbage messages are refused", garbage_messages_are_refused},
        {"messages of 3 MiB are taken", large_messages_are_taken},
        {"Init may come again", init_may_come_again},
};
static const struct conform_check lifecycle_checks[] = {
        {"health is reported at once and at the interval", health_streams},
        {"Stats", stats_are_plausible},
        {"SetLogLevel", log_level_is_set},
};

void conform_contract(struct conform *c)
{
        if (c->subject->program)
                RUN(c, "contract", own_checks);
        RUN(c, "contract", common_checks);
        if (c->subject->program)
                RUN(c, "contract", lifecycle_checks);
}

/* ---- the end ---- */

static const char *drain_hands_back(struct conform *c)
{
        Microdapr__Plugin__V1__DrainRequest req = MICRODAPR__PLUGIN__V1__DRAIN_REQUEST__INIT;
        req.timeout_ms = 1000;
        if (conform_ask(c, LIFECYCLE "Drain", &req.base, NULL, NULL))
                return conform_wrong(c, "Drain");
        if (conform_probe_is_ping(c))
                return NULL;
        int r = conform_probe(c, &c->call, c->timeout_s);
        return r == RPC_UNAVAILABLE || r == RPC_UNIMPLEMENTED ? NULL : conform_wrong(c, "a call after Drain");
}

static const char *end_of_control_ends(struct conform *c)
{
        int code, status;
        subject_release(c->subject);
        if (subject_wait(c->subject, 5, &code, &status))
                return "it still runs 5 s after the runtime has closed descriptor 4";
        return code == CLD_EXITED && status == 0 ? NULL : conform_text(c, "it ended with %s %d instead of exit code 0", code == CLD_EXITED ? "code" : "signal", status);
}

static const struct conform_check ending_checks[] = {
        {"Drain", drain_hands_back},
        {"it ends with 0 when the runtime is gone", end_of_control_ends},
};

void conform_ending(struct conform *c)
{
        if (c->subject->program)
                RUN(c, "end", ending_checks);
}

void conform_kind(struct conform *c)
{
        const struct { const char *kind; const struct conform_check *checks; size_t n; } rows[] = {
                {"state", conform_state_checks, conform_state_n}, {"state", conform_search_checks, conform_search_n},
                 {"pubsub", conform_pubsub_checks, conform_pubsub_n},
                {"secretstores", conform_secret_checks, conform_secret_n}, {"lock", conform_lock_checks, conform_lock_n},
                {"configuration", conform_configuration_checks, conform_configuration_n}, {"crypto", conform_crypto_checks, conform_crypto_n},
                {"conversation", conform_conversation_checks, conform_conversation_n}, {"bindings", conform_binding_checks, conform_binding_n},
                {"middleware", conform_middleware_checks, conform_middleware_n}, {"nameresolution", conform_name_checks, conform_name_n}};
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                if (strcmp(rows[i].kind, c->kind) == 0)
                        conform_run(c, c->kind, rows[i].checks, rows[i].n);
}

void conform_undeclared(struct conform *c)
{
        if (strcmp(c->kind, "state") == 0)
                conform_run(c, c->kind, conform_undeclared_checks, conform_undeclared_n);
}
