/* From the API's requests to the plugin contract's. Everything lives in the call's arena. */
#include <errno.h>

#include "kernel/blocks/conversation.h"
#include "sdk/base/pbjson.h"

typedef Microdapr__Plugin__V1__ConverseMessage message_t;
typedef Microdapr__Plugin__V1__ConversePart part_t;
typedef Microdapr__Plugin__V1__ConverseToolCall tool_call_t;
typedef Microdapr__Plugin__V1__ConverseToolResult tool_result_t;
typedef Microdapr__Plugin__V1__ConverseTool tool_t;
typedef Dapr__Proto__Runtime__V1__ConversationMessageOfUser of_text; /* developer, system and user have one layout */
typedef Dapr__Proto__Runtime__V1__ConversationMessageOfAssistant of_assistant;
typedef Dapr__Proto__Runtime__V1__ConversationMessageOfTool of_tool;
typedef Dapr__Proto__Runtime__V1__ConversationMessageContent content_t;

_Static_assert(sizeof(of_text) == sizeof(Dapr__Proto__Runtime__V1__ConversationMessageOfSystem), "layout of messages");
_Static_assert(sizeof(of_text) == sizeof(Dapr__Proto__Runtime__V1__ConversationMessageOfDeveloper), "layout of messages");
_Static_assert(sizeof(Dapr__Proto__Runtime__V1__ConversationRequestAlpha2__MetadataEntry) ==
                       sizeof(Microdapr__Plugin__V1__ConverseRequest__MetadataEntry),
               "layout of map entries");

static int no_memory(struct call *c, const char *name)
{
        return call_fail(c, ERR_CONVERSATION_INVOKE, name, "the request needs more memory than one request may take");
}

/* The row's text, with what is wrong behind it. */
static int invalid(struct call *c, const char *name, const char *why)
{
        call_fail(c, ERR_CONVERSATION_INVALID_PARMS, name);
        const char *text = arena_printf(c->arena, "%.*s: %s", STR_FMT(c->message), why);
        if (text)
                c->message = str_of(text);
        return -1;
}

int conversation_scrub(struct call *c, const char *name, bool scrub, struct pii **p, const char **text)
{
        struct str clean;
        if (!scrub || !**text)
                return 0;
        int r = *p ? 0 : pii_new(p);
        if (!r)
                r = pii_scrub(*p, str_of(*text), c->arena, &clean);
        if (r)
                return call_fail(c, ERR_CONVERSATION_INVOKE, name, r == -ENOMEM ? "out of memory" : strerror(-r));
        *text = clean.p;
        return 0;
}

/* ---- parts ---- */

static int add_message(struct call *c, const char *name, converse_request *ask, const char *role, const char *who, size_t max_parts,
                       message_t **ret)
{
        message_t *m = arena_new(c->arena, message_t);
        if (!m)
                return no_memory(c, name);
        microdapr__plugin__v1__converse_message__init(m);
        m->role = role;
        m->name = who ? who : "";
        m->parts = arena_alloc(c->arena, max_parts * sizeof *m->parts);
        ask->messages[ask->n_messages++] = m;
        *ret = m;
        return m->parts ? 0 : no_memory(c, name);
}

static part_t *add_part(struct call *c, message_t *m)
{
        part_t *p = arena_new(c->arena, part_t);
        if (!p)
                return NULL;
        microdapr__plugin__v1__converse_part__init(p);
        m->parts[m->n_parts++] = p;
        return p;
}

static int add_text(struct call *c, const char *name, message_t *m, const char *text)
{
        part_t *p = add_part(c, m);
        if (!p)
                return no_memory(c, name);
        p->part_case = MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART_TEXT;
        p->text = *text ? text : "";
        return 0;
}

static int add_texts(struct call *c, const char *name, message_t *m, content_t *const *v, size_t n, bool scrub, struct pii **pii)
{
        for (size_t i = 0; i < n; i++) {
                const char *text = v[i]->text;
                if (conversation_scrub(c, name, scrub, pii, &text) || add_text(c, name, m, text))
                        return -1;
        }
        return 0;
}

static int add_calls(struct call *c, const char *name, message_t *m, const of_assistant *from)
{
        for (size_t i = 0; i < from->n_tool_calls; i++) {
                const Dapr__Proto__Runtime__V1__ConversationToolCalls *t = from->tool_calls[i];
                if (t->tool_types_case != DAPR__PROTO__RUNTIME__V1__CONVERSATION_TOOL_CALLS__TOOL_TYPES_FUNCTION)
                        return invalid(c, name, "tool types cannot be nil");
                part_t *p = add_part(c, m);
                tool_call_t *call = arena_new(c->arena, tool_call_t);
                if (!p || !call)
                        return no_memory(c, name);
                microdapr__plugin__v1__converse_tool_call__init(call);
                call->id = t->_id_case ? t->id : "";
                call->type = "function";
                call->name = t->function->name;
                call->arguments = t->function->arguments;
                p->part_case = MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART_TOOL_CALL;
                p->tool_call = call;
        }
        return 0;
}

static int add_results(struct call *c, const char *name, message_t *m, const of_tool *from, bool scrub, struct pii **pii)
{
        for (size_t i = 0; i < from->n_content; i++) {
                const char *text = from->content[i]->text;
                if (conversation_scrub(c, name, scrub, pii, &text))
                        return -1;
                part_t *p = add_part(c, m);
                tool_result_t *t = arena_new(c->arena, tool_result_t);
                if (!p || !t)
                        return no_memory(c, name);
                microdapr__plugin__v1__converse_tool_result__init(t);
                t->id = from->_tool_id_case ? from->tool_id : "";
                t->name = from->name;
                t->content = text;
                p->part_case = MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART_TOOL_RESULT;
                p->tool_result = t;
        }
        return 0;
}

/* ---- alpha2 ---- */

static int add_text_message(struct call *c, const char *name, converse_request *ask, const char *role, const of_text *from, bool scrub,
                            struct pii **pii)
{
        message_t *m;
        return add_message(c, name, ask, role, from->_name_case ? from->name : NULL, from->n_content, &m) ||
                               add_texts(c, name, m, from->content, from->n_content, scrub, pii)
                       ? -1
                       : 0;
}

static int add_any(struct call *c, const char *name, converse_request *ask, const Dapr__Proto__Runtime__V1__ConversationMessage *in,
                   bool scrub, struct pii **pii)
{
        message_t *m;
        switch (in->message_types_case) {
        case DAPR__PROTO__RUNTIME__V1__CONVERSATION_MESSAGE__MESSAGE_TYPES_OF_DEVELOPER:
                return add_text_message(c, name, ask, "developer", (const void *)in->of_developer, scrub, pii);
        case DAPR__PROTO__RUNTIME__V1__CONVERSATION_MESSAGE__MESSAGE_TYPES_OF_SYSTEM:
                return add_text_message(c, name, ask, "system", (const void *)in->of_system, scrub, pii);
        case DAPR__PROTO__RUNTIME__V1__CONVERSATION_MESSAGE__MESSAGE_TYPES_OF_USER:
                return add_text_message(c, name, ask, "user", in->of_user, scrub, pii);
        case DAPR__PROTO__RUNTIME__V1__CONVERSATION_MESSAGE__MESSAGE_TYPES_OF_ASSISTANT: {
                const of_assistant *a = in->of_assistant;
                return add_message(c, name, ask, "assistant", a->_name_case ? a->name : NULL, a->n_content + a->n_tool_calls, &m) ||
                                       add_texts(c, name, m, a->content, a->n_content, scrub, pii) || add_calls(c, name, m, a)
                               ? -1
                               : 0;
        }
        case DAPR__PROTO__RUNTIME__V1__CONVERSATION_MESSAGE__MESSAGE_TYPES_OF_TOOL:
                return add_message(c, name, ask, "tool", in->of_tool->name, in->of_tool->n_content, &m) ||
                                       add_results(c, name, m, in->of_tool, scrub, pii)
                               ? -1
                               : 0;
        case DAPR__PROTO__RUNTIME__V1__CONVERSATION_MESSAGE__MESSAGE_TYPES__NOT_SET:
        case _DAPR__PROTO__RUNTIME__V1__CONVERSATION_MESSAGE__MESSAGE_TYPES__CASE_IS_INT_SIZE:
                break;
        }
        return invalid(c, name, "message type cannot be nil");
}

/* A Struct as JSON text. */
static int json_of(struct call *c, const char *name, const ProtobufCMessage *m, ProtobufCBinaryData *ret)
{
        struct buf b = {0};
        int r = m ? pbjson_write(&b, m, 0) : buf_addz(&b, "{}");
        char *text = r ? NULL : arena_strdup(c->arena, buf_str(&b));
        *ret = pb_bytes(str_n(text, buf_len(&b)));
        buf_fini(&b);
        if (r == -EINVAL)
                return invalid(c, name, "a JSON schema holds a value without a kind");
        return text ? 0 : no_memory(c, name);
}

static const Dapr__Proto__Runtime__V1__ConversationToolsFunction *function_of(const Dapr__Proto__Runtime__V1__ConversationTools *t)
{
        return t->tool_types_case == DAPR__PROTO__RUNTIME__V1__CONVERSATION_TOOLS__TOOL_TYPES_FUNCTION ? t->function : NULL;
}

static int add_tools(struct call *c, const alpha2_request *in, converse_request *ask)
{
        ask->tools = arena_alloc(c->arena, in->n_tools * sizeof *ask->tools);
        for (size_t i = 0; ask->tools && i < in->n_tools; i++) {
                const Dapr__Proto__Runtime__V1__ConversationToolsFunction *f = function_of(in->tools[i]);
                if (!f)
                        continue;
                tool_t *t = arena_new(c->arena, tool_t);
                if (!t)
                        return no_memory(c, in->name);
                microdapr__plugin__v1__converse_tool__init(t);
                t->type = "function";
                t->name = f->name;
                t->description = f->_description_case ? f->description : "";
                if (json_of(c, in->name, f->parameters ? &f->parameters->base : NULL, &t->parameters))
                        return -1;
                ask->tools[ask->n_tools++] = t;
        }
        return ask->tools ? 0 : no_memory(c, in->name);
}

static int check_tool_choice(struct call *c, const alpha2_request *in, const char **ret)
{
        const char *choice = in->_tool_choice_case ? in->tool_choice : "";
        if (!*choice && in->n_tools)
                choice = "auto";
        *ret = choice;
        if (!*choice || !strcmp(choice, "auto") || !strcmp(choice, "none"))
                return 0;
        if (!strcmp(choice, "required"))
                return in->n_tools ? 0
                                   : invalid(c, in->name, "tool choice must be 'auto', 'none', 'required', or a specific tool name matching "
                                                          "the tools available to be used");
        for (size_t i = 0; i < in->n_tools; i++)
                if (function_of(in->tools[i]) && !strcmp(function_of(in->tools[i])->name, choice))
                        return 0;
        return in->n_tools ? invalid(c, in->name, "tool choice selected was not found. Must be 'auto', 'none', 'required', or a specific "
                                                  "tool name matching the tools available to be used")
                           : 0;
}

int conversation_ask_alpha2(struct call *c, const alpha2_request *in, struct pii **p, converse_request *ask)
{
        size_t n = 0;
        for (size_t i = 0; i < in->n_inputs; i++)
                n += in->inputs[i]->n_messages;
        ask->messages = arena_alloc(c->arena, n * sizeof *ask->messages);
        if (!ask->messages)
                return no_memory(c, in->name);
        for (size_t i = 0; i < in->n_inputs; i++) {
                bool scrub = in->inputs[i]->_scrub_pii_case && in->inputs[i]->scrub_pii;
                for (size_t k = 0; k < in->inputs[i]->n_messages; k++)
                        if (add_any(c, in->name, ask, in->inputs[i]->messages[k], scrub, p))
                                return -1;
        }
        if (check_tool_choice(c, in, &ask->tool_choice) || add_tools(c, in, ask))
                return -1;
        if (in->_response_format_case && json_of(c, in->name, &in->response_format->base, &ask->response_format))
                return -1;
        if (in->_prompt_cache_retention_case) {
                ask->_prompt_cache_retention_ns_case =
                        MICRODAPR__PLUGIN__V1__CONVERSE_REQUEST___PROMPT_CACHE_RETENTION_NS_PROMPT_CACHE_RETENTION_NS;
                ask->prompt_cache_retention_ns =
                        (int64_t)((uint64_t)in->prompt_cache_retention->seconds * 1000000000u) + in->prompt_cache_retention->nanos;
        }
        ask->temperature = in->_temperature_case ? in->temperature : 0;
        ask->context_id = in->_context_id_case ? in->context_id : "";
        ask->metadata = (void *)in->metadata;
        ask->n_metadata = in->n_metadata;
        return 0;
}

/* ---- alpha1 ---- */

static const char *role_of(const char *s)
{
        static const struct {
                const char *given, *role;
        } roles[] = {{"system", "system"}, {"assistant", "assistant"}, {"ai", "assistant"}, {"tool", "tool"}, {"function", "function"},
                     {"generic", "generic"}};
        for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
                if (!strcmp(s, roles[i].given))
                        return roles[i].role;
        return "user";
}

int conversation_ask_alpha1(struct call *c, const alpha1_request *in, struct pii **p, converse_request *ask)
{
        ask->messages = arena_alloc(c->arena, in->n_inputs * sizeof *ask->messages);
        if (!ask->messages)
                return no_memory(c, in->name);
        for (size_t i = 0; i < in->n_inputs; i++) {
                const Dapr__Proto__Runtime__V1__ConversationInput *from = in->inputs[i];
                const char *text = from->content;
                message_t *m;
                if (conversation_scrub(c, in->name, from->_scrub_pii_case && from->scrubpii, p, &text) ||
                    add_message(c, in->name, ask, role_of(from->_role_case ? from->role : ""), NULL, 1, &m) ||
                    add_text(c, in->name, m, text))
                        return -1;
        }
        ask->temperature = in->_temperature_case ? in->temperature : 0;
        ask->context_id = in->_context_id_case ? in->contextid : "";
        return 0;
}
