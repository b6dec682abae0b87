/* The answer of a chat completion. Members that are not there or of another type count as not there. */
#include <errno.h>
#include <string.h>

#include "plugins/shared/openai/openai.h"
#include "sdk/base/json.h"

enum { CHOICES_MAX = 128, CALLS_MAX = 1024 };

struct reading {
        struct dapr_call *c;
        struct arena *a;           /* of names; the strings that are kept go into the call's memory */
        struct json_reader r;
        bool failed;               /* no memory */
};

static const char *keep(struct reading *x, struct str s)
{
        const char *z = dapr_printf(x->c, "%.*s", STR_FMT(s));
        x->failed |= z == NULL;
        return z ? z : "";
}

/* The string that stands next, or skips what does. */
static const char *text(struct reading *x)
{
        struct str s;
        if (json_peek(&x->r) != JSON_STRING) {
                json_skip(&x->r);
                return "";
        }
        return json_read_string(&x->r, x->a, &s) ? keep(x, s) : "";
}

static uint64_t number(struct reading *x)
{
        uint64_t v = 0;
        if (!json_read_uint64(&x->r, &v))
                json_skip(&x->r);
        return v;
}

/* ---- choices ---- */

static void read_function(struct reading *x, struct dapr_tool_call *t)
{
        struct str name;
        if (!json_enter_object(&x->r)) {
                json_skip(&x->r);
                return;
        }
        while (json_next_member(&x->r, x->a, &name)) {
                if (str_eqz(name, "name"))
                        t->name = text(x);
                else if (str_eqz(name, "arguments") && json_peek(&x->r) == JSON_OBJECT) { /* some servers give JSON instead of its text */
                        struct str raw;
                        t->arguments = json_read_raw(&x->r, &raw) ? keep(x, raw) : "";
                } else if (str_eqz(name, "arguments"))
                        t->arguments = text(x);
                else
                        json_skip(&x->r);
        }
}

static void read_calls(struct reading *x, struct dapr_choice *to)
{
        struct dapr_tool_call *v = NULL;
        size_t cap = 0;
        struct str name;
        if (!json_enter_array(&x->r)) {
                json_skip(&x->r);
                return;
        }
        while (json_next_element(&x->r)) {
                if (to->n_tool_calls == cap) {
                        struct dapr_tool_call *more = cap < CALLS_MAX ? dapr_alloc(x->c, (cap * 2 + 4) * sizeof *v) : NULL;
                        if (!more) {
                                x->failed = true;
                                return;
                        }
                        if (cap)
                                memcpy(more, v, cap * sizeof *v);
                        v = more;
                        cap = cap * 2 + 4;
                }
                struct dapr_tool_call *t = &v[to->n_tool_calls];
                *t = (struct dapr_tool_call){"", "function", "", ""};
                if (!json_enter_object(&x->r)) {
                        json_skip(&x->r);
                        continue;
                }
                while (json_next_member(&x->r, x->a, &name)) {
                        if (str_eqz(name, "id"))
                                t->id = text(x);
                        else if (str_eqz(name, "function"))
                                read_function(x, t);
                        else
                                json_skip(&x->r);
                }
                to->tool_calls = v;
                to->n_tool_calls++;
        }
}

static void read_message(struct reading *x, struct dapr_choice *to)
{
        struct str name;
        if (!json_enter_object(&x->r)) {
                json_skip(&x->r);
                return;
        }
        while (json_next_member(&x->r, x->a, &name)) {
                if (str_eqz(name, "content"))
                        to->content = text(x);
                else if (str_eqz(name, "tool_calls"))
                        read_calls(x, to);
                else
                        json_skip(&x->r);
        }
}

/* Each choice is an output of its own, as the reference has it. */
static void read_choices(struct reading *x, struct dapr_converse_result *out)
{
        struct dapr_output *outputs = dapr_alloc(x->c, CHOICES_MAX * sizeof *outputs);
        struct dapr_choice *choices = dapr_alloc(x->c, CHOICES_MAX * sizeof *choices);
        struct str name;
        x->failed |= !outputs || !choices;
        if (x->failed || !json_enter_array(&x->r)) {
                json_skip(&x->r);
                return;
        }
        while (out->n < CHOICES_MAX && json_next_element(&x->r)) {
                struct dapr_choice *ch = &choices[out->n];
                *ch = (struct dapr_choice){.finish_reason = "", .index = (int64_t)out->n, .content = ""};
                if (!json_enter_object(&x->r)) {
                        json_skip(&x->r);
                        continue;
                }
                while (json_next_member(&x->r, x->a, &name)) {
                        if (str_eqz(name, "message"))
                                read_message(x, ch);
                        else if (str_eqz(name, "finish_reason"))
                                ch->finish_reason = text(x);
                        else
                                json_skip(&x->r);
                }
                if (!*ch->finish_reason)
                        ch->finish_reason = "unknown";
                outputs[out->n] = (struct dapr_output){ch, 1};
                out->n++;
        }
        out->outputs = outputs;
}

/* ---- usage ---- */

struct field {
        const char *name;
        uint64_t *to;
};

static void read_fields(struct reading *x, const struct field *f, size_t n)
{
        struct str name;
        if (!json_enter_object(&x->r)) {
                json_skip(&x->r);
                return;
        }
        while (json_next_member(&x->r, x->a, &name)) {
                size_t i = 0;
                while (i < n && !str_eqz(name, f[i].name))
                        i++;
                if (i < n)
                        *f[i].to = number(x);
                else
                        json_skip(&x->r);
        }
}

static void read_usage(struct reading *x, struct dapr_usage *u)
{
        const struct field prompt[] = {{"audio_tokens", &u->prompt_audio}, {"cached_tokens", &u->prompt_cached}};
        const struct field completion[] = {{"accepted_prediction_tokens", &u->completion_accepted_prediction},
                                           {"audio_tokens", &u->completion_audio},
                                           {"reasoning_tokens", &u->completion_reasoning},
                                           {"rejected_prediction_tokens", &u->completion_rejected_prediction}};
        const struct field totals[] = {{"completion_tokens", &u->completion}, {"prompt_tokens", &u->prompt}, {"total_tokens", &u->total}};
        struct str name;
        if (!json_enter_object(&x->r)) {
                json_skip(&x->r);
                return;
        }
        while (json_next_member(&x->r, x->a, &name)) {
                size_t i = 0;
                while (i < 3 && !str_eqz(name, totals[i].name))
                        i++;
                if (i < 3)
                        *totals[i].to = number(x);
                else if (str_eqz(name, "prompt_tokens_details"))
                        read_fields(x, prompt, 2);
                else if (str_eqz(name, "completion_tokens_details"))
                        read_fields(x, completion, 4);
                else
                        json_skip(&x->r);
        }
}

static int read_answer(struct reading *x, struct dapr_converse_result *out)
{
        struct dapr_usage *u = dapr_alloc(x->c, sizeof *u);
        struct str name;
        if (!u)
                return -ENOMEM;
        *u = (struct dapr_usage){0};
        if (!json_enter_object(&x->r))
                return dapr_fail(x->c, DAPR_INTERNAL, "the API's answer is no JSON object");
        while (!x->failed && json_next_member(&x->r, x->a, &name)) {
                if (str_eqz(name, "choices"))
                        read_choices(x, out);
                else if (str_eqz(name, "model"))
                        out->model = text(x);
                else if (str_eqz(name, "usage"))
                        read_usage(x, u);
                else
                        json_skip(&x->r);
        }
        if (x->failed)
                return -ENOMEM;
        if (x->r.error)
                return dapr_fail(x->c, DAPR_INTERNAL, "the API's answer is not valid JSON: %s", x->r.error);
        if (u->completion || u->prompt || u->total)
                out->usage = u;
        return out->n ? 0 : dapr_fail(x->c, DAPR_INTERNAL, "empty response");
}

int openai_read(struct dapr_call *c, struct str json, struct dapr_converse_result *out)
{
        struct arena a = {0};
        struct reading x = {.c = c, .a = &a};
        json_read_init(&x.r, json);
        int r = read_answer(&x, out);
        arena_fini(&a);
        return r;
}

struct str openai_error(struct arena *a, struct str json)
{
        struct json_reader r;
        struct str name, s = STR("");
        json_read_init(&r, json);
        if (!json_enter_object(&r))
                return s;
        while (json_next_member(&r, a, &name)) {
                if (!str_eqz(name, "error") || !json_enter_object(&r)) {
                        json_skip(&r);
                        continue;
                }
                while (json_next_member(&r, a, &name))
                        if (!str_eqz(name, "message") || !json_read_string(&r, a, &s))
                                json_skip(&r);
        }
        return s;
}
