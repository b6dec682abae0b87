/* Language models: microdapr.plugin.v1.Conversation from one ops table. Jobs as in state.c. */
#include <errno.h>

#include "plugin/v1/conversation.pb-c.h"
#include "sdk/plugin/runtime.h"
#include "sdk/plugin/state_codec.h"

typedef Microdapr__Plugin__V1__ConverseRequest request_t;
typedef Microdapr__Plugin__V1__ConverseResponse response_t;
typedef Microdapr__Plugin__V1__ConverseOutput output_t;
typedef Microdapr__Plugin__V1__ConverseChoice choice_t;
typedef Microdapr__Plugin__V1__ConverseToolCall tool_call_t;
typedef Microdapr__Plugin__V1__ConverseUsage usage_t;

struct job {
        struct dapr_call *dc;
        const struct dapr_conversation_ops *ops;
        struct dapr_converse in;
        struct dapr_converse_result out;
};

static int job_converse(void *arg)
{
        struct job *j = arg;
        return j->ops->converse(j->dc, j->dc->inst->obj, &j->in, &j->out);
}

/* ---- request ---- */

static struct dapr_tool_call read_call(const tool_call_t *t)
{
        return (struct dapr_tool_call){t->id, t->type, t->name, t->arguments};
}

static void read_part(const Microdapr__Plugin__V1__ConversePart *from, struct dapr_part *to)
{
        *to = (struct dapr_part){.kind = DAPR_PART_TEXT, .text = ""};
        switch (from->part_case) {
        case MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART_TEXT:
                to->text = from->text;
                break;
        case MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART_TOOL_CALL:
                to->kind = DAPR_PART_TOOL_CALL;
                to->call = read_call(from->tool_call);
                break;
        case MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART_TOOL_RESULT:
                to->kind = DAPR_PART_TOOL_RESULT;
                to->text = from->tool_result->content;
                to->call = (struct dapr_tool_call){from->tool_result->id, "function", from->tool_result->name, ""};
                break;
        case MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART__NOT_SET:
        case _MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART__CASE_IS_INT_SIZE:
                break;
        }
}

static int read_messages(struct arena *a, const request_t *in, struct dapr_converse *to)
{
        struct dapr_chat_message *m = arena_alloc(a, in->n_messages * sizeof *m);
        for (size_t i = 0; m && i < in->n_messages; i++) {
                struct dapr_part *parts = arena_alloc(a, in->messages[i]->n_parts * sizeof *parts);
                if (!parts)
                        return -ENOMEM;
                for (size_t k = 0; k < in->messages[i]->n_parts; k++)
                        read_part(in->messages[i]->parts[k], &parts[k]);
                m[i] = (struct dapr_chat_message){in->messages[i]->role, in->messages[i]->name, parts, in->messages[i]->n_parts};
        }
        to->messages = m;
        to->n_messages = in->n_messages;
        return m ? 0 : -ENOMEM;
}

static int read_tools(struct arena *a, const request_t *in, struct dapr_converse *to)
{
        struct dapr_tool *t = arena_alloc(a, in->n_tools * sizeof *t);
        for (size_t i = 0; t && i < in->n_tools; i++) {
                struct str schema = pb_str(in->tools[i]->parameters);
                t[i] = (struct dapr_tool){in->tools[i]->type, in->tools[i]->name, in->tools[i]->description,
                                          schema.n ? arena_strdup(a, schema) : NULL};
                if (schema.n && !t[i].parameters)
                        return -ENOMEM;
        }
        to->tools = t;
        to->n_tools = in->n_tools;
        return t ? 0 : -ENOMEM;
}

static int read_request(struct dapr_call *dc, struct str req, struct dapr_converse *to)
{
        const request_t *in = pb_unpack(dc->arena, &microdapr__plugin__v1__converse_request__descriptor, req);
        if (!in)
                return -EBADMSG;
        *to = (struct dapr_converse){.tool_choice = in->tool_choice,
                                     .temperature = in->temperature,
                                     .prompt_cache_retention_ns = in->_prompt_cache_retention_ns_case ? in->prompt_cache_retention_ns : -1,
                                     .context_id = in->context_id};
        if (in->response_format.len && !(to->response_format = arena_strdup(dc->arena, pb_str(in->response_format))))
                return -ENOMEM;
        int r = read_messages(dc->arena, in, to);
        if (r == 0)
                r = read_tools(dc->arena, in, to);
        return r ? r : state_read_map(dc, req, 5, &to->metadata);
}

/* ---- reply ---- */

static const char *text_or_empty(const char *s)
{
        return s ? s : "";
}

static choice_t *pack_choice(struct arena *a, const struct dapr_choice *from)
{
        choice_t *c = arena_new(a, choice_t);
        if (!c)
                return NULL;
        microdapr__plugin__v1__converse_choice__init(c);
        c->finish_reason = text_or_empty(from->finish_reason);
        c->index = from->index;
        c->content = text_or_empty(from->content);
        c->tool_calls = arena_alloc(a, from->n_tool_calls * sizeof *c->tool_calls);
        for (; c->tool_calls && c->n_tool_calls < from->n_tool_calls; c->n_tool_calls++) {
                const struct dapr_tool_call *t = &from->tool_calls[c->n_tool_calls];
                tool_call_t *to = arena_new(a, tool_call_t);
                if (!to)
                        return NULL;
                microdapr__plugin__v1__converse_tool_call__init(to);
                to->id = text_or_empty(t->id);
                to->type = text_or_empty(t->type);
                to->name = text_or_empty(t->name);
                to->arguments = text_or_empty(t->arguments);
                c->tool_calls[c->n_tool_calls] = to;
        }
        return c->tool_calls ? c : NULL;
}

static output_t *pack_output(struct arena *a, const struct dapr_output *from)
{
        output_t *o = arena_new(a, output_t);
        if (!o)
                return NULL;
        microdapr__plugin__v1__converse_output__init(o);
        o->choices = arena_alloc(a, from->n * sizeof *o->choices);
        for (; o->choices && o->n_choices < from->n; o->n_choices++)
                if (!(o->choices[o->n_choices] = pack_choice(a, &from->choices[o->n_choices])))
                        return NULL;
        return o->choices ? o : NULL;
}

static void pack_usage(const struct dapr_usage *u, usage_t *to)
{
        microdapr__plugin__v1__converse_usage__init(to);
        to->completion_tokens = u->completion;
        to->prompt_tokens = u->prompt;
        to->total_tokens = u->total;
        to->completion_accepted_prediction_tokens = u->completion_accepted_prediction;
        to->completion_audio_tokens = u->completion_audio;
        to->completion_reasoning_tokens = u->completion_reasoning;
        to->completion_rejected_prediction_tokens = u->completion_rejected_prediction;
        to->prompt_audio_tokens = u->prompt_audio;
        to->prompt_cached_tokens = u->prompt_cached;
}

static int reply(struct dapr_call *dc, const struct dapr_converse_result *from)
{
        response_t out = MICRODAPR__PLUGIN__V1__CONVERSE_RESPONSE__INIT;
        usage_t usage;
        out.model = text_or_empty(from->model);
        if (from->usage) {
                pack_usage(from->usage, &usage);
                out.usage = &usage;
        }
        out.outputs = arena_alloc(dc->arena, from->n * sizeof *out.outputs);
        for (; out.outputs && out.n_outputs < from->n; out.n_outputs++)
                if (!(out.outputs[out.n_outputs] = pack_output(dc->arena, &from->outputs[out.n_outputs])))
                        return sdk_outcome(dc, -ENOMEM);
        return out.outputs ? sdk_reply_pb(dc, &out.base) : sdk_outcome(dc, -ENOMEM);
}

/* ---- methods ---- */

static int conversation_converse(struct dapr_call *dc, struct str req)
{
        struct job j = {.dc = dc, .ops = dc->inst->type->conversation};
        int r = read_request(dc, req, &j.in);
        if (r == 0)
                r = sdk_run(dc, j.ops->mode, job_converse, &j);
        return r ? sdk_outcome(dc, r) : reply(dc, &j.out);
}

static int conversation_init(struct dapr_call *dc, struct str req)
{
        struct dapr_kvs metadata = {0};
        struct str *part;
        size_t n;
        int r = state_read_repeated(dc, req, 1, &part, &n); /* ConversationInitRequest { metadata = 1 } */
        if (r == 0 && n)
                r = state_read_map(dc, part[n - 1], 1, &metadata);
        if (r == 0)
                r = sdk_instance_init(dc, SDK_CONVERSATION, metadata);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

static int conversation_features(struct dapr_call *dc, struct str req)
{
        return sdk_reply(dc, STR("")); /* none are defined */
}

static int conversation_ping(struct dapr_call *dc, struct str req)
{
        int r = sdk_instance_ping(dc);
        return r ? sdk_outcome(dc, r) : sdk_reply(dc, STR(""));
}

#define CONVERSATION "/microdapr.plugin.v1.Conversation/"
static const struct sdk_method methods[] = {
        {CONVERSATION "Init", SDK_CONVERSATION, conversation_init, .any_instance = true},
        {CONVERSATION "Features", SDK_CONVERSATION, conversation_features, true, .any_instance = true},
        {CONVERSATION "Ping", SDK_CONVERSATION, conversation_ping, true, .any_instance = true},
        {CONVERSATION "Converse", SDK_CONVERSATION, conversation_converse},
};
const struct sdk_service sdk_conversation_service = {methods, sizeof methods / sizeof *methods};
