/* The request of a chat completion. What the contract cannot say (several texts in one message) is said as OpenAI says it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "plugins/shared/openai/openai.h"
#include "sdk/base/json.h"

static bool begins(const char *s, const char *with)
{
        return strncasecmp(s, with, strlen(with)) == 0;
}

/* Take no other temperature than their own. */
static bool is_reasoning(const char *model)
{
        return begins(model, "o1-") || !strcasecmp(model, "o3") || begins(model, "o3-") || begins(model, "gpt-5");
}

/* Take no system messages: those become part of the first message of the user. */
static bool lacks_system(const char *model)
{
        static const char *const names[] = {"o1", "o1-mini", "o1-preview", "o3", "o3-mini", "o3-preview"};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (!strcasecmp(model, names[i]))
                        return true;
        return false;
}

static const char *role_of(const char *role)
{
        static const char *const same[] = {"system", "assistant", "tool", "function"};
        for (size_t i = 0; i < 4; i++)
                if (!strcmp(role, same[i]))
                        return role;
        return "user"; /* user, developer, generic */
}

/* ---- messages ---- */

struct writer {
        struct json_writer w;
        struct buf system;         /* what still has to go in front of a user's message */
};

static void put_content(struct writer *x, const struct dapr_chat_message *m, bool with_system)
{
        size_t texts = with_system;
        for (size_t i = 0; i < m->n; i++)
                texts += m->parts[i].kind == DAPR_PART_TEXT;
        json_key(&x->w, STR("content"));
        if (texts != 1)
                texts ? json_array_begin(&x->w) : json_string(&x->w, STR(""));
        for (size_t i = 0; i < m->n + with_system; i++) {
                const struct dapr_part *p = i < with_system ? NULL : &m->parts[i - with_system];
                struct str text = p ? str_of(p->text) : buf_str(&x->system);
                if (p && p->kind != DAPR_PART_TEXT)
                        continue;
                if (texts == 1) {
                        json_string(&x->w, text);
                        continue;
                }
                json_object_begin(&x->w);
                json_kv(&x->w, "type", STR("text"));
                json_kv(&x->w, "text", text);
                json_object_end(&x->w);
        }
        if (texts > 1)
                json_array_end(&x->w);
}

static void put_calls(struct json_writer *w, const struct dapr_chat_message *m)
{
        bool any = false;
        for (size_t i = 0; i < m->n; i++) {
                const struct dapr_tool_call *t = &m->parts[i].call;
                if (m->parts[i].kind != DAPR_PART_TOOL_CALL)
                        continue;
                if (!any) {
                        json_key(w, STR("tool_calls"));
                        json_array_begin(w);
                }
                any = true;
                json_object_begin(w);
                json_kv_nonempty(w, "id", str_of(t->id));
                json_kv(w, "type", STR("function"));
                json_key(w, STR("function"));
                json_object_begin(w);
                json_kv(w, "name", str_of(t->name));
                json_kv(w, "arguments", str_of(t->arguments));
                json_object_end(w);
                json_object_end(w);
        }
        if (any)
                json_array_end(w);
}

static int put_message(struct dapr_call *c, struct writer *x, const struct dapr_chat_message *m)
{
        const char *role = role_of(m->role);
        bool user = !strcmp(role, "user"), with_system = user && buf_len(&x->system);
        const struct dapr_part *result = m->n && m->parts[0].kind == DAPR_PART_TOOL_RESULT ? m->parts : NULL;
        if (!strcmp(role, "tool") && (m->n != 1 || !result))
                return m->n != 1 ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "expected exactly one part for role tool, got %zu", m->n)
                                 : dapr_fail(c, DAPR_INVALID_ARGUMENT, "expected part of type ToolCallResponse for role tool, got llms.TextContent");
        json_object_begin(&x->w);
        json_kv(&x->w, "role", str_of(role));
        if (result) {
                json_kv(&x->w, "content", str_of(result->text));
                if (!strcmp(role, "tool"))
                        json_kv_nonempty(&x->w, "tool_call_id", str_of(result->call.id));
                else
                        json_kv_nonempty(&x->w, "name", str_of(result->call.name));
        } else {
                put_content(x, m, with_system);
                put_calls(&x->w, m);
        }
        json_object_end(&x->w);
        if (with_system)
                buf_clear(&x->system);
        return 0;
}

static int put_messages(struct dapr_call *c, struct writer *x, const char *model, const struct dapr_converse *in)
{
        bool merge = lacks_system(model);
        int r = 0;
        for (size_t i = 0; merge && i < in->n_messages; i++)
                for (size_t k = 0; !strcmp(in->messages[i].role, "system") && k < in->messages[i].n; k++) {
                        if (buf_len(&x->system))
                                buf_addz(&x->system, "\n\n");
                        buf_addz(&x->system, in->messages[i].parts[k].text);
                }
        if (buf_len(&x->system))
                buf_addz(&x->system, "\n\n");
        json_key(&x->w, STR("messages"));
        json_array_begin(&x->w);
        for (size_t i = 0; !r && i < in->n_messages; i++)
                if (!merge || strcmp(in->messages[i].role, "system"))
                        r = put_message(c, x, &in->messages[i]);
        json_array_end(&x->w);
        if (x->system.failed)
                x->w.out->failed = true;
        return r;
}

/* ---- options ---- */

static void put_tools(struct json_writer *w, const struct dapr_converse *in)
{
        if (in->n_tools) {
                json_key(w, STR("tools"));
                json_array_begin(w);
        }
        for (size_t i = 0; i < in->n_tools; i++) {
                const struct dapr_tool *t = &in->tools[i];
                json_object_begin(w);
                json_kv(w, "type", str_of(t->type));
                json_key(w, STR("function"));
                json_object_begin(w);
                json_kv(w, "name", str_of(t->name));
                json_kv_nonempty(w, "description", str_of(t->description));
                json_key(w, STR("parameters"));
                json_raw(w, t->parameters && json_valid(str_of(t->parameters)) ? str_of(t->parameters) : STR("{}"));
                json_object_end(w);
                json_object_end(w);
        }
        if (in->n_tools)
                json_array_end(w);
}

static void put_tool_choice(struct json_writer *w, const char *choice)
{
        if (!*choice)
                return;
        json_key(w, STR("tool_choice"));
        if (!strcmp(choice, "auto") || !strcmp(choice, "none") || !strcmp(choice, "required")) {
                json_string(w, str_of(choice));
                return;
        }
        json_object_begin(w);
        json_kv(w, "type", STR("function"));
        json_key(w, STR("function"));
        json_object_begin(w);
        json_kv(w, "name", str_of(choice));
        json_object_end(w);
        json_object_end(w);
}

struct schema {
        struct buf text;           /* the schema without what is said beside it */
        struct str name, strict;   /* strict: raw */
        bool has_type;
};

static void read_schema(struct arena *a, const char *json, struct schema *s)
{
        struct json_reader r;
        struct json_writer w;
        struct str member, raw, text;
        s->name = STR("response");
        s->strict = STR("false");
        json_read_init(&r, str_of(json));
        json_write_init(&w, &s->text);
        json_object_begin(&w);
        json_enter_object(&r);
        while (json_next_member(&r, a, &member)) {
                if (str_eqz(member, "name") && json_peek(&r) == JSON_STRING) {
                        if (json_read_string(&r, a, &text) && text.n)
                                s->name = text;
                        continue;
                }
                s->has_type |= str_eqz(member, "type") && json_peek(&r) == JSON_STRING;
                if (!json_read_raw(&r, &raw))
                        break;
                if (str_eqz(member, "strict")) {
                        s->strict = str_eqz(raw, "true") ? STR("true") : STR("false");
                        continue;
                }
                json_key(&w, member);
                json_raw(&w, raw);
        }
        json_object_end(&w);
}

static void put_format(struct json_writer *w, const char *json)
{
        struct schema s = {0};
        struct arena a = {0};
        if (!json)
                return;
        read_schema(&a, json, &s);
        if (!s.has_type) {
                dapr_log(DAPR_LOG_WARN, "the response format has no type and is left out");
        } else {
                json_key(w, STR("response_format"));
                json_object_begin(w);
                json_kv(w, "type", STR("json_schema"));
                json_key(w, STR("json_schema"));
                json_object_begin(w);
                json_kv(w, "name", s.name);
                json_key(w, STR("strict"));
                json_raw(w, s.strict);
                json_key(w, STR("schema"));
                json_raw(w, buf_str(&s.text));
                json_object_end(w);
                json_object_end(w);
                if (s.text.failed)
                        w->out->failed = true;
        }
        buf_fini(&s.text);
        arena_fini(&a);
}

static void put_metadata(struct json_writer *w, const struct dapr_converse *in)
{
        bool any = false;
        char text[64];
        for (size_t i = 0; i <= in->metadata.n; i++) {
                bool retention = i == in->metadata.n;
                const char *key = retention ? "prompt_cache_retention" : in->metadata.v[i].key;
                if (retention && in->prompt_cache_retention_ns < 0)
                        break;
                if (!strcmp(key, "thinking_config") || begins(key, "openai:"))
                        continue;
                if (!any) {
                        json_key(w, STR("metadata"));
                        json_object_begin(w);
                }
                any = true;
                int64_t s = in->prompt_cache_retention_ns / 1000000000;
                snprintf(text, sizeof text, "%lldh%dm%ds", (long long)(s / 3600), (int)(s / 60 % 60), (int)(s % 60));
                json_kv(w, key, str_of(retention ? text : in->metadata.v[i].value));
        }
        if (any)
                json_object_end(w);
}

int openai_write(struct dapr_call *c, const char *model, const struct dapr_converse *in, struct buf *out)
{
        struct writer x = {0};
        json_write_init(&x.w, out);
        json_object_begin(&x.w);
        json_kv(&x.w, "model", str_of(model));
        int r = put_messages(c, &x, model, in);
        if (!is_reasoning(model)) {
                json_key(&x.w, STR("temperature"));
                json_double(&x.w, in->temperature);
        }
        put_format(&x.w, in->response_format);
        put_tools(&x.w, in);
        put_tool_choice(&x.w, in->tool_choice);
        put_metadata(&x.w, in);
        json_object_end(&x.w);
        buf_fini(&x.system);
        return r ? r : out->failed ? -ENOMEM : 0;
}
