/*
 * The conversation building block: one turn with a language model. The caller's messages become the plugin contract's
 * (conversation_request.c), its answer becomes the API's; personal data is scrubbed on both ways where the caller wants it. Prompts
 * and answers go into no log.
 */
#include "kernel/blocks/conversation.h"

#include <errno.h>

#include "kernel/front/http.h"
#include "kernel/observe/observe.h"
#include "kernel/policy/resiliency.h"
#include "sdk/base/loop.h"

#define CONVERSE "/microdapr.plugin.v1.Conversation/Converse"

typedef Dapr__Proto__Runtime__V1__ConversationResponse alpha1_response;
typedef Dapr__Proto__Runtime__V1__ConversationResponseAlpha2 alpha2_response;
typedef Dapr__Proto__Runtime__V1__ConversationResult alpha1_result;
typedef Dapr__Proto__Runtime__V1__ConversationResultAlpha2 alpha2_result;
typedef Dapr__Proto__Runtime__V1__ConversationResultAlpha2CompletionUsage usage_t;
typedef Dapr__Proto__Runtime__V1__ConversationResultAlpha2CompletionUsageCompletionTokensDetails completion_details;
typedef Dapr__Proto__Runtime__V1__ConversationResultAlpha2CompletionUsagePromptTokensDetails prompt_details;
typedef Dapr__Proto__Runtime__V1__ConversationResultChoices choice_t;
typedef Dapr__Proto__Runtime__V1__ConversationResultMessage result_message;
typedef Dapr__Proto__Runtime__V1__ConversationToolCalls tool_call_t;
typedef Dapr__Proto__Runtime__V1__ConversationToolCallsOfFunction function_t;
typedef Microdapr__Plugin__V1__ConverseUsage plugin_usage;
typedef Microdapr__Plugin__V1__ConverseChoice plugin_choice;
typedef Microdapr__Plugin__V1__ConverseOutput plugin_output;

_Static_assert(sizeof(Dapr__Proto__Runtime__V1__ConversationResult__ParametersEntry) ==
                       sizeof(Dapr__Proto__Runtime__V1__ConversationRequest__ParametersEntry),
               "layout of map entries");

/* The patterns, compiled when somebody first asks for them: they cost a megabyte that most processes never need. */
static struct pii *scrubber;

static void fini(struct kernel *k)
{
        pii_free(scrubber);
        scrubber = NULL;
}

static int no_memory(struct call *c, const char *name)
{
        return call_fail(c, ERR_CONVERSATION_INVOKE, name, "out of memory");
}

/* ---- the plugin ---- */

static struct component *find(struct call *c, const char *name, size_t n_inputs)
{
        struct component *comp = kernel_component(c->k, KIND_CONVERSATION, str_of(name));
        if (!comp)
                call_fail(c, ERR_CONVERSATION_NOT_FOUND, name);
        else if (!n_inputs)
                call_fail(c, ERR_CONVERSATION_MISSING_INPUTS, name);
        return comp && n_inputs ? comp : NULL;
}

static int converse(struct call *c, struct component *comp, const char *name, const converse_request *ask, converse_response **ret)
{
        struct rpc_status st = {0};
        double since = loop_now_exact();
        const char *policy_error;
        int code = resiliency_component_call(c->k, comp, c->arena, CONVERSE, &ask->base,
                                             &microdapr__plugin__v1__converse_response__descriptor, ret, &st, &policy_error);
        observe_component(c->k->observe, OBSERVE_CONVERSATION, str_of(name), "", !code, (loop_now_exact() - since) * 1000);
        return code ? call_fail(c, ERR_CONVERSATION_INVOKE, name, policy_error ? policy_error : call_component_error(c, comp, &st)) : 0;
}

/* ---- alpha1 ---- */

static int converse_alpha1(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const alpha1_request *in = (const void *)req;
        alpha1_response *out = (void *)resp;
        converse_request ask = MICRODAPR__PLUGIN__V1__CONVERSE_REQUEST__INIT;
        converse_response *answer;
        struct component *comp = find(c, in->name, in->n_inputs);
        if (!comp || conversation_ask_alpha1(c, in, &scrubber, &ask) || converse(c, comp, in->name, &ask, &answer))
                return -1;
        if (in->_context_id_case && *in->contextid) {
                out->_context_id_case = DAPR__PROTO__RUNTIME__V1__CONVERSATION_RESPONSE___CONTEXT_ID_CONTEXT_ID;
                out->contextid = in->contextid;
        }
        out->outputs = arena_alloc(c->arena, answer->n_outputs * sizeof *out->outputs);
        for (size_t i = 0; out->outputs && i < answer->n_outputs; i++) {
                alpha1_result *r = arena_new(c->arena, alpha1_result);
                const char *text = answer->outputs[i]->n_choices ? answer->outputs[i]->choices[0]->content : "";
                if (!r)
                        return no_memory(c, in->name);
                if (conversation_scrub(c, in->name, in->_scrub_pii_case && in->scrubpii, &scrubber, &text))
                        return -1;
                dapr__proto__runtime__v1__conversation_result__init(r);
                r->result = text;
                r->parameters = (void *)in->parameters;
                r->n_parameters = in->n_parameters;
                out->outputs[out->n_outputs++] = r;
        }
        return out->outputs ? 0 : no_memory(c, in->name);
}

/* ---- alpha2 ---- */

static usage_t *usage_of(struct arena *a, const plugin_usage *from)
{
        usage_t *u = arena_new(a, usage_t);
        completion_details *cd = arena_new(a, completion_details);
        prompt_details *pd = arena_new(a, prompt_details);
        if (!u || !cd || !pd)
                return NULL;
        dapr__proto__runtime__v1__conversation_result_alpha2_completion_usage__init(u);
        dapr__proto__runtime__v1__conversation_result_alpha2_completion_usage_completion_tokens_details__init(cd);
        dapr__proto__runtime__v1__conversation_result_alpha2_completion_usage_prompt_tokens_details__init(pd);
        u->completion_tokens = from->completion_tokens;
        u->prompt_tokens = from->prompt_tokens;
        u->total_tokens = from->total_tokens;
        cd->accepted_prediction_tokens = from->completion_accepted_prediction_tokens;
        cd->audio_tokens = from->completion_audio_tokens;
        cd->reasoning_tokens = from->completion_reasoning_tokens;
        cd->rejected_prediction_tokens = from->completion_rejected_prediction_tokens;
        pd->audio_tokens = from->prompt_audio_tokens;
        pd->cached_tokens = from->prompt_cached_tokens;
        if (cd->accepted_prediction_tokens || cd->audio_tokens || cd->reasoning_tokens || cd->rejected_prediction_tokens) {
                u->_completion_tokens_details_case = 4; /* the field's number */
                u->completion_tokens_details = cd;
        }
        if (pd->audio_tokens || pd->cached_tokens) {
                u->_prompt_tokens_details_case = 5;
                u->prompt_tokens_details = pd;
        }
        return u;
}

static int add_tool_calls(struct call *c, const char *name, const plugin_choice *from, result_message *to)
{
        to->tool_calls = arena_alloc(c->arena, from->n_tool_calls * sizeof *to->tool_calls);
        for (size_t i = 0; to->tool_calls && i < from->n_tool_calls; i++) {
                tool_call_t *t = arena_new(c->arena, tool_call_t);
                function_t *f = arena_new(c->arena, function_t);
                if (!t || !f)
                        return no_memory(c, name);
                dapr__proto__runtime__v1__conversation_tool_calls__init(t);
                dapr__proto__runtime__v1__conversation_tool_calls_of_function__init(f);
                f->name = from->tool_calls[i]->name;
                f->arguments = from->tool_calls[i]->arguments;
                t->tool_types_case = DAPR__PROTO__RUNTIME__V1__CONVERSATION_TOOL_CALLS__TOOL_TYPES_FUNCTION;
                t->function = f;
                if (*from->tool_calls[i]->id) {
                        t->_id_case = DAPR__PROTO__RUNTIME__V1__CONVERSATION_TOOL_CALLS___ID_ID;
                        t->id = from->tool_calls[i]->id;
                }
                to->tool_calls[to->n_tool_calls++] = t;
        }
        return to->tool_calls ? 0 : no_memory(c, name);
}

static int add_choice(struct call *c, const alpha2_request *in, const plugin_choice *from, alpha2_result *to)
{
        choice_t *ch = arena_new(c->arena, choice_t);
        result_message *m = arena_new(c->arena, result_message);
        const char *text = from->content;
        if (!ch || !m)
                return no_memory(c, in->name);
        if (conversation_scrub(c, in->name, in->_scrub_pii_case && in->scrub_pii, &scrubber, &text))
                return -1;
        dapr__proto__runtime__v1__conversation_result_choices__init(ch);
        dapr__proto__runtime__v1__conversation_result_message__init(m);
        m->content = text;
        ch->finish_reason = from->finish_reason;
        ch->index = from->index;
        ch->message = m;
        to->choices[to->n_choices++] = ch;
        return add_tool_calls(c, in->name, from, m);
}

static int add_output(struct call *c, const alpha2_request *in, const converse_response *answer, const plugin_output *from,
                      alpha2_response *out)
{
        alpha2_result *r = arena_new(c->arena, alpha2_result);
        if (!r)
                return no_memory(c, in->name);
        dapr__proto__runtime__v1__conversation_result_alpha2__init(r);
        out->outputs[out->n_outputs++] = r;
        r->choices = arena_alloc(c->arena, from->n_choices * sizeof *r->choices);
        if (!r->choices)
                return no_memory(c, in->name);
        for (size_t i = 0; i < from->n_choices; i++)
                if (add_choice(c, in, from->choices[i], r))
                        return -1;
        if (*answer->model) {
                r->_model_case = DAPR__PROTO__RUNTIME__V1__CONVERSATION_RESULT_ALPHA2___MODEL_MODEL;
                r->model = answer->model;
        }
        if (answer->usage) {
                r->_usage_case = DAPR__PROTO__RUNTIME__V1__CONVERSATION_RESULT_ALPHA2___USAGE_USAGE;
                r->usage = usage_of(c->arena, answer->usage);
                if (!r->usage)
                        return no_memory(c, in->name);
        }
        return 0;
}

static int converse_alpha2(struct call *c, const ProtobufCMessage *req, ProtobufCMessage *resp)
{
        const alpha2_request *in = (const void *)req;
        alpha2_response *out = (void *)resp;
        converse_request ask = MICRODAPR__PLUGIN__V1__CONVERSE_REQUEST__INIT;
        converse_response *answer;
        struct component *comp = find(c, in->name, in->n_inputs);
        if (!comp || conversation_ask_alpha2(c, in, &scrubber, &ask) || converse(c, comp, in->name, &ask, &answer))
                return -1;
        if (in->_context_id_case && *in->context_id) {
                out->_context_id_case = DAPR__PROTO__RUNTIME__V1__CONVERSATION_RESPONSE_ALPHA2___CONTEXT_ID_CONTEXT_ID;
                out->context_id = in->context_id;
        }
        out->outputs = arena_alloc(c->arena, answer->n_outputs * sizeof *out->outputs);
        if (!out->outputs)
                return no_memory(c, in->name);
        for (size_t i = 0; i < answer->n_outputs; i++)
                if (add_output(c, in, answer, answer->outputs[i], out))
                        return -1;
        return 0;
}

/* ---- HTTP ---- */

static void http_alpha1(struct call *c)
{
        alpha1_response out = DAPR__PROTO__RUNTIME__V1__CONVERSATION_RESPONSE__INIT;
        alpha1_request *in = call_body_message(c, &dapr__proto__runtime__v1__conversation_request__descriptor);
        if (!in)
                return;
        in->name = arena_strdup(c->arena, route_param(c, "name"));
        if (converse_alpha1(c, &in->base, &out.base))
                reply_error(c);
        else
                reply_message(c, &out.base, 0);
}

static void http_alpha2(struct call *c)
{
        alpha2_response out = DAPR__PROTO__RUNTIME__V1__CONVERSATION_RESPONSE_ALPHA2__INIT;
        alpha2_request *in = call_body_message(c, &dapr__proto__runtime__v1__conversation_request_alpha2__descriptor);
        if (!in)
                return;
        in->name = arena_strdup(c->arena, route_param(c, "name"));
        if (converse_alpha2(c, &in->base, &out.base))
                reply_error(c);
        else
                reply_message(c, &out.base, 0);
}

static const struct http_route http_routes[] = {
        {"POST", "/v1.0-alpha1/conversation/{name}/converse", "conversation", "v1alpha1", "Converse", http_alpha1},
        {"POST", "/v1.0-alpha2/conversation/{name}/converse", "conversation", "v1alpha2", "Converse", http_alpha2},
};
static const struct grpc_route grpc_routes[] = {
        {"ConverseAlpha1", "conversation.v1alpha1", &dapr__proto__runtime__v1__conversation_request__descriptor,
         &dapr__proto__runtime__v1__conversation_response__descriptor, converse_alpha1, NULL},
        {"ConverseAlpha2", "conversation.v1alpha2", &dapr__proto__runtime__v1__conversation_request_alpha2__descriptor,
         &dapr__proto__runtime__v1__conversation_response_alpha2__descriptor, converse_alpha2, NULL},
};
const struct block conversation_block_def = {
        .name = "conversation",
        .http = http_routes,
        .n_http = sizeof http_routes / sizeof *http_routes,
        .grpc = grpc_routes,
        .n_grpc = sizeof grpc_routes / sizeof *grpc_routes,
        .fini = fini,
};
