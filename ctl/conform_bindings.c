/* The conformance kit for bindings: operations that are listed are there, what is created can be got, and events wait for their answer. */
#include <stdio.h>
#include <unistd.h>

#include "ctl/conform.h"
#include "dapr/proto/components/v1/bindings.pb-c.h"

#define OUTPUT "/dapr.proto.components.v1.OutputBinding/"
#define INPUT "/dapr.proto.components.v1.InputBinding/Read"
#define EVENT_S (c->timeout_s * 0.3) /* 3 s */
#define ARRIVE_S (c->timeout_s)
#define AGAIN_S (c->timeout_s * 0.4) /* 4 s */
typedef Dapr__Proto__Components__V1__InvokeRequest__MetadataEntry entry_t;
typedef Dapr__Proto__Components__V1__InvokeResponse invoked_t;
typedef Dapr__Proto__Components__V1__ListOperationsResponse listed_t;
typedef Dapr__Proto__Components__V1__ReadResponse event_t;

/* ---- output ---- */

static bool lists(const listed_t *l, const char *name)
{
        for (size_t i = 0; i < l->n_operations; i++)
                if (strcmp(l->operations[i], name) == 0)
                        return true;
        return false;
}

static int list(struct conform *c, listed_t **ret)
{
        Dapr__Proto__Components__V1__ListOperationsRequest req = DAPR__PROTO__COMPONENTS__V1__LIST_OPERATIONS_REQUEST__INIT;
        return conform_ask(c, OUTPUT "ListOperations", &req.base, &dapr__proto__components__v1__list_operations_response__descriptor, ret);
}

/* With what --operation-metadata says. */
static int invoke(struct conform *c, const char *operation, struct str data, invoked_t **ret)
{
        Dapr__Proto__Components__V1__InvokeRequest req = DAPR__PROTO__COMPONENTS__V1__INVOKE_REQUEST__INIT;
        req.operation = operation;
        req.data = pb_bytes(data);
        req.metadata = arena_alloc(&c->call, (c->operation_metadata.n + 1) * sizeof *req.metadata);
        for (size_t i = 0; req.metadata && i < c->operation_metadata.n; i++) {
                const char *text = c->operation_metadata.v[i], *eq = strchr(text, '=');
                entry_t *e = eq ? arena_new(&c->call, entry_t) : NULL;
                if (!e)
                        continue;
                dapr__proto__components__v1__invoke_request__metadata_entry__init(e);
                e->key = arena_strdup(&c->call, str_n(text, (size_t)(eq - text)));
                e->value = eq + 1;
                req.metadata[req.n_metadata++] = e;
        }
        return conform_ask(c, OUTPUT "Invoke", &req.base, &dapr__proto__components__v1__invoke_response__descriptor, ret);
}

static bool is_output(const struct conform *c)
{
        return strstr(conform_service(c), "Output") != NULL;
}

static const char *operations_are_listed(struct conform *c)
{
        listed_t *l;
        invoked_t *out;
        if (!is_output(c))
                return conform_skip(c, "it is no output binding");
        TRY(list(c, &l), "ListOperations");
        MUST(l->n_operations, "it has no operation");
        for (size_t i = 0; i < l->n_operations; i++)
                MUST(*l->operations[i], "an operation has no name");
        MUST(lists(l, "no-such-operation") || invoke(c, "no-such-operation", STR(""), &out), "an operation that it does not have was taken");
        MUST(lists(l, "") || invoke(c, "", STR(""), &out), "an operation without a name was taken");
        return NULL;
}

static const char *created_is_got(struct conform *c)
{
        const struct str data = STR("{\"conformance\":\"\xc3\xa4\xe2\x82\xac\"}");
        listed_t *l;
        invoked_t *out;
        if (!is_output(c))
                return conform_skip(c, "it is no output binding");
        TRY(list(c, &l), "ListOperations");
        if (!lists(l, "create") || !lists(l, "get"))
                return conform_skip(c, "it does not have both create and get");
        if (!c->operation_metadata.n)
                return conform_skip(c, "say --operation-metadata NAME=VALUE for what its operations need, such as key=a");
        TRY(invoke(c, "create", data, &out), "create");
        TRY(invoke(c, "get", STR(""), &out), "get");
        MUST(str_eq(pb_str(out->data), data), conform_text(c, "get gives %s instead of the %s that was created", conform_quote(c, pb_str(out->data)), conform_quote(c, data)));
        if (!lists(l, "delete"))
                return NULL;
        TRY(invoke(c, "delete", STR(""), &out), "delete");
        return invoke(c, "get", STR(""), &out) || !str_eq(pb_str(out->data), data) ? NULL : "what was deleted is still got";
}

/* ---- input ---- */

struct reader {
        struct rpc_call *call;
        struct arena arena;
};

static int reader_open(struct conform *c, struct reader *r)
{
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md};
        Dapr__Proto__Components__V1__ReadRequest first = DAPR__PROTO__COMPONENTS__V1__READ_REQUEST__INIT;
        arena_init(&r->arena, 0);
        int code = rpc_open(c->ch, &r->arena, INPUT, &o, &r->call, &c->status);
        if (code == 0)
                rpc_send_pb(r->call, &first.base); /* some do not look up before a message comes */
        return code;
}

static int reader_close(struct conform *c, struct reader *r)
{
        rpc_cancel(r->call);
        int code = rpc_finish(r->call);
        c->status = r->call->status;
        c->status.message = arena_str(&c->call, c->status.message);
        arena_fini(&r->arena);
        return code;
}

static event_t *next(struct reader *r, double timeout_s)
{
        event_t *e = NULL;
        double old = fiber_set_deadline(loop_now_exact() + timeout_s);
        int got = rpc_recv_pb(r->call, &dapr__proto__components__v1__read_response__descriptor, &e);
        fiber_restore_deadline(old);
        return got == 1 ? e : NULL;
}

static void answer(struct reader *r, const event_t *e, const char *error)
{
        Dapr__Proto__Components__V1__ReadRequest ack = DAPR__PROTO__COMPONENTS__V1__READ_REQUEST__INIT;
        Dapr__Proto__Components__V1__AckResponseError failed = DAPR__PROTO__COMPONENTS__V1__ACK_RESPONSE_ERROR__INIT;
        ack.message_id = e->message_id;
        failed.message = error ? error : "";
        ack.response_error = error ? &failed : NULL;
        ack.response_data = pb_bytes(STR("\"taken\""));
        rpc_send_pb(r->call, &ack.base);
}

static const char *is_input(struct conform *c)
{
        return c->n_features && !conform_has(c, "INPUT_BINDING") ? conform_skip(c, "it is no input binding") : NULL;
}

/* Few have an event ready. The first is refused, as by an app that failed: that must be no harm to the stream. */
static const char *events_are_read(struct conform *c)
{
        struct reader r;
        HOLD(is_input(c));
        TRY(reader_open(c, &r), "Read");
        event_t *e = next(&r, EVENT_S);
        bool got = e != NULL, id = e && *e->message_id;
        if (e)
                answer(&r, e, "simulated");
        e = e ? next(&r, AGAIN_S) : NULL;
        bool again = e != NULL;
        if (e)
                answer(&r, e, NULL);
        int code = reader_close(c, &r);
        MUST(!got || id, "an event has no id");
        if (code == RPC_UNIMPLEMENTED)
                return conform_skip(c, "it is no input binding");
        if (code != RPC_CANCELLED && code != RPC_DEADLINE_EXCEEDED)
                return conform_wrong(c, got ? "an event that the app did not take" : "Read");
        return !got ? conform_skip(c, "no event comes soon") : !again ? conform_skip(c, "no second event comes soon") : NULL;
}

/* For those that are both: what goes out comes in, and again when the app failed. */
static const char *created_is_read(struct conform *c)
{
        const char *text = arena_printf(&c->call, "\"conformance %d\"", (int)getpid()), *fault = NULL;
        struct reader r;
        listed_t *l;
        invoked_t *out;
        event_t *e;
        if (!conform_has(c, "INPUT_BINDING") || !is_output(c))
                return conform_skip(c, "it is not both input and output");
        TRY(list(c, &l), "ListOperations");
        if (!lists(l, "create"))
                return conform_skip(c, "it has no create");
        TRY(reader_open(c, &r), "Read");
        if (invoke(c, "create", str_of(text), &out))
                fault = conform_wrong(c, "create");
        double end = loop_now_exact() + ARRIVE_S;
        for (e = NULL; !fault && loop_now_exact() < end;) { /* what others left may come first */
                e = next(&r, end - loop_now_exact());
                if (!e || str_eqz(pb_str(e->data), text))
                        break;
                answer(&r, e, NULL);
        }
        if (!fault && !e)
                fault = "what was created is not read";
        if (e) {
                answer(&r, e, "simulated");
                e = next(&r, AGAIN_S);
                if (!e)
                        fault = conform_skip(c, "an event that the app did not take does not come again soon");
                else if (!str_eqz(pb_str(e->data), text))
                        fault = "an event that the app did not take comes again with other bytes";
                if (e)
                        answer(&r, e, NULL);
        }
        reader_close(c, &r);
        return fault;
}

/* A direction that it does not say to have would never be used. */
static const char *undeclared_is_absent(struct conform *c)
{
        struct str resp;
        struct reader r;
        if (!c->n_features)
                return conform_skip(c, "it does not say which directions it has");
        if (!conform_has(c, "OUTPUT_BINDING"))
                MUST(conform_ask_raw(c, OUTPUT "ListOperations", STR(""), &resp, c->timeout_s), "OUTPUT_BINDING is not declared, but ListOperations answers");
        if (conform_has(c, "INPUT_BINDING"))
                return NULL;
        TRY(reader_open(c, &r), "Read");
        next(&r, 1);
        return reader_close(c, &r) == RPC_UNIMPLEMENTED ? NULL : "INPUT_BINDING is not declared, but Read is served";
}

const struct conform_check conform_binding_checks[] = {
        {"operations are listed, others refused", operations_are_listed},
        {"what is created is got and deleted", created_is_got},
        {"events are read and answered", events_are_read},
        {"what is created is read, again after a failure", created_is_read},
        {"what is not declared is not there", undeclared_is_absent},
};
const size_t conform_binding_n = sizeof conform_binding_checks / sizeof *conform_binding_checks;
