/*
 * Building blocks without an implementation here: one table an API. The answers are those of the reference with no placement or
 * scheduler configured. A block that comes registers its own rows, and its rows here can go.
 */
#include "kernel/front/unconfigured.h"

#include <stdio.h>
#include <stdlib.h>

#include "dapr/proto/runtime/v1/dapr.pb-c.h"
#include "kernel/front/errors.h"
#include "kernel/front/http.h"
#include "kernel/front/json_fault.h"
#include "sdk/base/json.h"
#include "sdk/base/list.h"

/* name: component, store or job; arg: the one detail of the request that decides between two answers. Always fails. */
typedef int (*answer_fn)(struct call *c, struct str name, struct str arg);

/* What the body has to be before anything else is looked at. PROTO: nothing, or a JSON object. */
enum body_kind { BODY_ANY, BODY_PROTO, BODY_LIST, BODY_OBJECT };

struct http_row {
        struct http_route route;
        const char *name_param, *body_member; /* NULL = none; two members: "a,b", the first that is there */
        enum body_kind body;
        answer_fn fn;
};
struct grpc_row {
        struct grpc_route route;
        const char *name_field, *arg_field;
        answer_fn fn;
};

/* ---- answers ---- */

static int no_placement(struct call *c, struct str name, struct str arg)
{
        return call_fail(c, ERR_ACTOR_NO_PLACEMENT);
}

static int no_scheduler(struct call *c, enum error_id id)
{
        call_fail(c, id, "scheduler clients are disabled");
        details_info(call_details(c), "namespace", c->k->opts.own_namespace);
        details_info(call_details(c), "appID", c->k->opts.app_id);
        return -1;
}

static int no_job(struct call *c, struct str name, enum error_id id)
{
        return no_scheduler(c, name.n ? id : ERR_JOB_NAME_EMPTY);
}

static int no_job_schedule(struct call *c, struct str name, struct str schedule)
{
        if (str_chr(name, '|') >= 0)
                return no_scheduler(c, ERR_JOB_NAME_EMPTY);
        return no_job(c, name, schedule.n ? ERR_JOB_SCHEDULE : ERR_JOB_SCHEDULE_EMPTY);
}

/* Names of reminders and timers become a part of a path. */
static int no_placement_named(struct call *c, struct str name, struct str arg)
{
        bool is_bad = str_eqz(name, ".") || str_eqz(name, "..");

        for (size_t i = 0; i < name.n && !is_bad; i++)
                is_bad = (unsigned char)name.p[i] < ' ' || name.p[i] == 0x7f || strchr("#?/\\", name.p[i]);
        if (is_bad)
                return call_fail(c, ERR_BAD_REQUEST, arena_printf(c->arena, "name contains forbidden character: \"%.*s\"", STR_FMT(name)));
        return no_placement(c, name, arg);
}

static int no_job_get(struct call *c, struct str name, struct str arg)
{
        return no_job(c, name, ERR_JOB_GET);
}

static int no_job_delete(struct call *c, struct str name, struct str arg)
{
        return no_job(c, name, ERR_JOB_DELETE);
}

static int no_job_delete_prefix(struct call *c, struct str name, struct str arg)
{
        return no_scheduler(c, ERR_JOB_DELETE);
}

static int no_job_list(struct call *c, struct str name, struct str arg)
{
        return no_scheduler(c, ERR_JOB_LIST);
}

/* ---- HTTP ---- */

/* The first of the members of the JSON body, as text. False: answered. */
static bool body_member(struct call *c, const char *names, struct str *ret)
{
        struct json_reader r;
        struct str body, name, raw;

        if (call_body(c, &body))
                return false;
        json_read_init(&r, body);
        if (!body.n || !json_enter_object(&r))
                return true;
        while (json_next_member(&r, c->arena, &name) && json_read_raw(&r, &raw)) {
                for (struct str rest = str_of(names), n; rest.p && (n = str_cut(&rest, ','), 1);) {
                        if (!str_eq(n, name))
                                continue;
                        if (raw.n > 1 && raw.p[0] == '"')
                                raw = str_n(raw.p + 1, raw.n - 2);
                        *ret = raw;
                        return true;
                }
        }
        return true;
}

static const char *type_of(char first)
{
        switch (first) {
        case '{': return "object";
        case '[': return "array";
        case '"': return "string";
        case 't':
        case 'f': return "bool";
        default: return "number";
        }
}

/* NULL, or what is wrong with it. */
static const char *body_fault(struct call *c, enum body_kind kind, struct str body)
{
        const char *why;
        char first;

        if (kind == BODY_ANY || (kind == BODY_PROTO && !body.n))
                return NULL;
        why = json_fault(c->arena, body, kind == BODY_PROTO);
        if (why)
                return why;
        first = str_trim(body).p[0];
        if (first == (kind == BODY_LIST ? '[' : '{') || (first == 'n' && kind != BODY_PROTO))
                return NULL;
        if (kind == BODY_PROTO)
                return "an object was expected (at byte 0)";
        return arena_printf(c->arena, "json: cannot unmarshal %s into Go value of type %s", type_of(first),
                            kind == BODY_LIST ? "[]api.TransactionalOperation" : "struct");
}

static bool body_is_good(struct call *c, enum body_kind kind)
{
        struct str body = STR("");
        const char *why;

        if (kind != BODY_ANY && call_body(c, &body))
                return false;
        why = body_fault(c, kind, body);
        if (!why)
                return true;
        call_fail(c, ERR_MALFORMED_REQUEST, why);
        reply_error(c);
        return false;
}

static void answer_http(struct call *c)
{
        const struct http_row *row = container_of(c->route, struct http_row, route);
        struct str name = row->name_param ? route_param(c, row->name_param) : STR(""), arg = STR("");

        if (!body_is_good(c, row->body))
                return;
        if (row->body_member && !body_member(c, row->body_member, &arg))
                return;
        row->fn(c, name, arg);
        reply_error(c);
}

#define HTTP(methods, prefix, path, group, version, name, param, member, body, fn) \
        {{methods, prefix path, group, version, name, answer_http}, param, member, body, fn}
#define ACTOR "/v1.0/actors/{actorType}/{actorId}/"
#define WORKFLOW(prefix, version)                                                                                                         \
        HTTP("GET", prefix, "workflows/{component}/{id}", "workflows", version, "GetWorkflow", NULL, NULL, BODY_PROTO, no_placement),     \
        HTTP("POST", prefix, "workflows/{component}/{id}/raiseEvent/{event}", "workflows", version, "RaiseEventWorkflow", NULL, NULL,     \
             BODY_ANY, no_placement),                                                                                                     \
        HTTP("POST", prefix, "workflows/{component}/{id}/start", "workflows", version, "StartWorkflow", NULL, NULL, BODY_ANY,             \
             no_placement),                                                                                                               \
        HTTP("POST", prefix, "workflows/{component}/{id}/pause", "workflows", version, "PauseWorkflow", NULL, NULL, BODY_PROTO,           \
             no_placement),                                                                                                               \
        HTTP("POST", prefix, "workflows/{component}/{id}/resume", "workflows", version, "ResumeWorkflow", NULL, NULL, BODY_PROTO,         \
             no_placement),                                                                                                               \
        HTTP("POST", prefix, "workflows/{component}/{id}/terminate", "workflows", version, "TerminateWorkflow", NULL, NULL, BODY_PROTO,   \
             no_placement),                                                                                                               \
        HTTP("POST", prefix, "workflows/{component}/{id}/purge", "workflows", version, "PurgeWorkflow", NULL, NULL, BODY_PROTO,           \
             no_placement)
static const struct http_row http_rows[] = {
        HTTP("POST,PUT", ACTOR, "state", "actors", "v1", "ExecuteActorStateTransaction", NULL, NULL, BODY_LIST, no_placement),
        HTTP("GET,POST,DELETE,PUT", ACTOR, "method/{method}", "actors", "v1", "InvokeActor", NULL, NULL, BODY_ANY, no_placement),
        HTTP("GET", ACTOR, "state/{key}", "actors", "v1", "GetActorState", NULL, NULL, BODY_ANY, no_placement),
        HTTP("POST,PUT", ACTOR, "reminders/{name}", "actors", "v1", "RegisterActorReminder", "name", NULL, BODY_OBJECT, no_placement_named),
        HTTP("POST,PUT", ACTOR, "timers/{name}", "actors", "v1", "RegisterActorTimer", "name", NULL, BODY_OBJECT, no_placement_named),
        HTTP("DELETE", ACTOR, "reminders/{name}", "actors", "v1", "UnregisterActorReminder", NULL, NULL, BODY_PROTO, no_placement),
        HTTP("DELETE", ACTOR, "timers/{name}", "actors", "v1", "UnregisterActorTimer", NULL, NULL, BODY_PROTO, no_placement),
        HTTP("GET", ACTOR, "reminders/{name}", "actors", "v1", "GetActorReminder", NULL, NULL, BODY_ANY, no_placement),
        WORKFLOW("/v1.0/", "v1"),
        WORKFLOW("/v1.0-beta1/", "v1beta1"),
        WORKFLOW("/v1.0-alpha1/", "v1alpha1"),
        HTTP("POST", "/v1.0-alpha1/", "jobs/{name}", "jobs", "v1alpha1", "ScheduleJob", "name", "schedule,dueTime", BODY_PROTO, no_job_schedule),
        HTTP("GET", "/v1.0-alpha1/", "jobs/{name}", "jobs", "v1alpha1", "GetJob", "name", NULL, BODY_ANY, no_job_get),
        HTTP("DELETE", "/v1.0-alpha1/", "jobs/{name}", "jobs", "v1alpha1", "DeleteJob", "name", NULL, BODY_ANY, no_job_delete),
};

/* ---- gRPC ---- */

static struct str field_text(struct arena *a, const ProtobufCMessage *m, const char *name)
{
        const ProtobufCFieldDescriptor *f = name ? protobuf_c_message_descriptor_get_field_by_name(m->descriptor, name) : NULL;
        const char *at;

        if (!f)
                return STR("");
        at = (const char *)m + f->offset;
        if (f->type == PROTOBUF_C_TYPE_STRING)
                return str_of(*(const char *const *)at);
        if (f->type == PROTOBUF_C_TYPE_INT32)
                return str_of(arena_printf(a, "%d", *(const int32_t *)at));
        return STR("");
}

static int answer_grpc(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out)
{
        const struct grpc_row *row = container_of(c->method, struct grpc_row, route);

        return row->fn(c, field_text(c->arena, in, row->name_field), field_text(c->arena, in, row->arg_field));
}

static int job_schedule(struct call *c, const ProtobufCMessage *in, ProtobufCMessage *out)
{
        const Dapr__Proto__Runtime__V1__Job *job = ((const Dapr__Proto__Runtime__V1__ScheduleJobRequest *)in)->job;

        if (!job)
                return no_scheduler(c, ERR_JOB_EMPTY);
        return no_job_schedule(c, str_of(job->name), str_of(job->_schedule_case || job->_due_time_case ? "given" : ""));
}

#define GRPC(method, group, name, arg, fn) {{method, group, NULL, NULL, answer_grpc, NULL}, name, arg, fn}
#define GRPC_WORKFLOW(verb)                                                                              \
        GRPC(verb "WorkflowAlpha1", "workflows.v1alpha1", NULL, NULL, no_placement),                     \
        GRPC(verb "WorkflowBeta1", "workflows.v1beta1", NULL, NULL, no_placement)

static const struct grpc_row grpc_rows[] = {
        GRPC("RegisterActorTimer", "actors.v1", NULL, NULL, no_placement),
        GRPC("UnregisterActorTimer", "actors.v1", NULL, NULL, no_placement),
        GRPC("RegisterActorReminder", "actors.v1", NULL, NULL, no_placement),
        GRPC("UnregisterActorReminder", "actors.v1", NULL, NULL, no_placement),
        GRPC("UnregisterActorRemindersByType", "actors.v1", NULL, NULL, no_placement),
        GRPC("ListActorReminders", "actors.v1", NULL, NULL, no_placement),
        GRPC("GetActorState", "actors.v1", NULL, NULL, no_placement),
        GRPC("GetActorReminder", "actors.v1", NULL, NULL, no_placement),
        GRPC("ExecuteActorStateTransaction", "actors.v1", NULL, NULL, no_placement),
        GRPC("InvokeActor", "actors.v1", NULL, NULL, no_placement),
        GRPC_WORKFLOW("Start"),
        GRPC_WORKFLOW("Get"),
        GRPC_WORKFLOW("Purge"),
        GRPC_WORKFLOW("Terminate"),
        GRPC_WORKFLOW("Pause"),
        GRPC_WORKFLOW("Resume"),
        GRPC_WORKFLOW("RaiseEvent"),
        {{"ScheduleJobAlpha1", "jobs.v1alpha1", NULL, NULL, job_schedule, NULL}, NULL, NULL, NULL},
        GRPC("GetJobAlpha1", "jobs.v1alpha1", "name", NULL, no_job_get),
        GRPC("DeleteJobAlpha1", "jobs.v1alpha1", "name", NULL, no_job_delete),
        GRPC("DeleteJobsByPrefixAlpha1", "jobs.v1alpha1", NULL, NULL, no_job_delete_prefix),
        GRPC("ListJobsAlpha1", "jobs.v1alpha1", NULL, NULL, no_job_list),
};

const struct http_route *unconfigured_http(size_t i)
{
        return i < sizeof http_rows / sizeof http_rows[0] ? &http_rows[i].route : NULL;
}

const struct grpc_route *unconfigured_grpc(size_t i)
{
        return i < sizeof grpc_rows / sizeof grpc_rows[0] ? &grpc_rows[i].route : NULL;
}

/* The workflow engine's service: what each call says in front of the reason, or that it needs nothing of what is missing. */
static const struct hub_row {
        const char *method, *prefix;
        bool is_served;
} hub_rows[] = {
        {"/Hello", NULL, true},
        {"/CompleteActivityTask", NULL, true},
        {"/CompleteOrchestratorTask", NULL, true},
        {"/StartInstance", "failed to create orchestration instance", false},
        {"/TerminateInstance", "failed to submit termination request", false},
        {"/PurgeInstances", "failed to purge orchestration state", false},
        {"/GetWorkItems", "unable to establish work item stream at this time", false},
};

int unconfigured_task_hub(struct rpc_call *rpc, void *arg)
{
        const struct error_row *row = &error_rows[ERR_ACTOR_NO_PLACEMENT];

        for (size_t i = 0; i < sizeof hub_rows / sizeof hub_rows[0]; i++) {
                if (!str_has_suffix(rpc->method, str_of(hub_rows[i].method)))
                        continue;
                if (hub_rows[i].is_served)
                        return rpc_send(rpc, STR(""));
                return rpc_fail(rpc, row->grpc_code, "%s: api error: code = Unavailable desc = %s", hub_rows[i].prefix, row->text);
        }
        return rpc_fail(rpc, row->grpc_code, "%s", row->text);
}
