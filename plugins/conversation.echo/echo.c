/*
 * conversation.echo: repeats the texts of the request, for tests. Tools are answered with a call of each, whose arguments are the
 * sorted names of its properties. Keeps nothing; cannot fail but for tools whose schema is of the wrong shape.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/arena.h"
#include "sdk/base/json.h"

struct answer {
        struct dapr_call *c;
        struct buf text;
        struct dapr_tool_call *calls;
        size_t n_calls;
};

static size_t count_calls(const struct dapr_converse *in)
{
        size_t n = in->n_tools;
        for (size_t i = 0; i < in->n_messages; i++)
                for (size_t k = 0; k < in->messages[i].n; k++)
                        n += in->messages[i].parts[k].kind == DAPR_PART_TOOL_CALL;
        return n;
}

static int by_text(const void *a, const void *b)
{
        return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char *go_type(enum json_type t)
{
        switch (t) {
        case JSON_STRING: return "string";
        case JSON_NUMBER: return "float64";
        case JSON_TRUE: case JSON_FALSE: return "bool";
        case JSON_ARRAY: return "[]interface {}";
        case JSON_NULL: case JSON_OBJECT: case JSON_ERROR: case JSON_END: break;
        }
        return "<nil>";
}

/* Names of the members of the object that stands next, sorted, joined by commas. */
static int join_names(struct dapr_call *c, struct json_reader *r, struct arena *a, const char **ret)
{
        const char **names = NULL;
        struct buf out = {0};
        struct str name;
        size_t n = 0, cap = 0;
        json_enter_object(r);
        while (json_next_member(r, a, &name) && json_skip(r)) {
                if (n == cap) {
                        names = arena_grow(a, names, cap * sizeof *names, (cap * 2 + 8) * sizeof *names);
                        cap = cap * 2 + 8;
                }
                if (!names || !(names[n++] = arena_strdup(a, name)))
                        return -ENOMEM;
        }
        if (n)
                qsort(names, n, sizeof *names, by_text);
        for (size_t i = 0; i < n; i++) {
                if (i)
                        buf_addc(&out, ',');
                buf_addz(&out, names[i]);
        }
        buf_addc(&out, '\0');
        *ret = out.failed ? NULL : dapr_copy(c, buf_str(&out).p, buf_len(&out)).p;
        buf_fini(&out);
        return *ret ? 0 : -ENOMEM;
}

/* What stands at "properties" of the tool's schema. */
static int arguments_of(struct dapr_call *c, const struct dapr_tool *t, struct arena *a, const char **ret)
{
        struct json_reader r;
        struct str name;
        *ret = "";
        json_read_init(&r, str_of(t->parameters));
        if (!t->parameters || !json_enter_object(&r))
                return 0;
        while (json_next_member(&r, a, &name)) {
                if (!str_eqz(name, "properties")) {
                        json_skip(&r);
                        continue;
                }
                if (json_peek(&r) != JSON_OBJECT)
                        return dapr_fail(c, DAPR_INTERNAL, "tool function properties must be a map[string]any, got %s", go_type(json_peek(&r)));
                return join_names(c, &r, a, ret);
        }
        return 0;
}

static int call_tools(struct answer *an, const struct dapr_converse *in)
{
        for (size_t i = 0; i < in->n_tools; i++) {
                struct dapr_tool_call *to = &an->calls[an->n_calls++];
                struct arena scratch = {0};
                *to = (struct dapr_tool_call){dapr_printf(an->c, "%zu", i), in->tools[i].type, in->tools[i].name, ""};
                int r = arguments_of(an->c, &in->tools[i], &scratch, &to->arguments);
                arena_fini(&scratch);
                if (r || !to->id)
                        return r ? r : -ENOMEM;
        }
        return 0;
}

static void add_line(struct answer *an, bool *first)
{
        if (!*first)
                buf_addc(&an->text, '\n');
        *first = false;
}

static void repeat(struct answer *an, const struct dapr_converse *in)
{
        bool first = true;
        for (size_t i = 0; i < in->n_messages; i++) {
                for (size_t k = 0; k < in->messages[i].n; k++) {
                        const struct dapr_part *p = &in->messages[i].parts[k];
                        switch (p->kind) {
                        case DAPR_PART_TEXT:
                                add_line(an, &first);
                                buf_addz(&an->text, p->text);
                                break;
                        case DAPR_PART_TOOL_CALL:
                                an->calls[an->n_calls++] = p->call;
                                break;
                        case DAPR_PART_TOOL_RESULT:
                                add_line(an, &first);
                                buf_printf(&an->text, "Tool Response for tool ID '%s' with name '%s': ", p->call.id, p->call.name);
                                buf_addz(&an->text, p->text);
                                break;
                        }
                }
        }
}

/* Words between white space, Unicode's included, as Go's strings.Fields has it. */
static uint64_t count_words(const char *s)
{
        static const char *const wide[] = {"\xc2\x85", "\xc2\xa0", "\xe1\x9a\x80", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
        uint64_t n = 0;
        bool in_word = false;
        while (*s) {
                size_t space = strchr(" \t\n\v\f\r", *s) ? 1 : 0;
                for (size_t i = 0; !space && (unsigned char)*s >= 0xc2 && i < sizeof wide / sizeof *wide; i++)
                        if (strncmp(s, wide[i], strlen(wide[i])) == 0)
                                space = strlen(wide[i]);
                if (!space && strncmp(s, "\xe2\x80", 2) == 0 && (unsigned char)s[2] >= 0x80 && (unsigned char)s[2] <= 0x8a)
                        space = 3;
                n += !space && !in_word;
                in_word = !space;
                s += space ? space : 1;
        }
        return n;
}

static int op_converse(struct dapr_call *c, void *instance, const struct dapr_converse *in, struct dapr_converse_result *out)
{
        struct answer an = {.c = c, .calls = dapr_alloc(c, count_calls(in) * sizeof *an.calls)};
        struct dapr_choice *choice = dapr_alloc(c, sizeof *choice);
        struct dapr_output *output = dapr_alloc(c, sizeof *output);
        struct dapr_usage *usage = dapr_alloc(c, sizeof *usage);
        if (!an.calls || !choice || !output || !usage)
                return -ENOMEM;
        int r = call_tools(&an, in);
        if (r)
                return r;
        repeat(&an, in);
        buf_addc(&an.text, '\0');
        const char *content = an.text.failed ? NULL : dapr_copy(c, buf_str(&an.text).p, buf_len(&an.text)).p;
        buf_fini(&an.text);
        if (!content)
                return -ENOMEM;
        *choice = (struct dapr_choice){an.n_calls ? "tool_calls" : "stop", 0, content, an.calls, an.n_calls};
        *output = (struct dapr_output){choice, 1};
        uint64_t words = count_words(content);
        *usage = (struct dapr_usage){.completion = words, .prompt = words, .total = 2 * words};
        *out = (struct dapr_converse_result){output, 1, NULL, usage};
        return 0;
}

static const struct dapr_conversation_ops ops = {.mode = DAPR_INLINE, .converse = op_converse};
static const struct dapr_component_type types[] = {{.type = "conversation.echo", .versions = "v1", .conversation = &ops}};

int main(int argc, char **argv)
{
        static const struct dapr_plugin plugin = {.name = "conversation.echo", .version = "1.0.0", .types = types, .n_types = 1};
        return dapr_plugin_main(argc, argv, &plugin);
}
