/*
 * JSON bodies of the state API, read as the reference's decoder does: names of members without case, the last of equal ones
 * counts, null leaves a field unset, unknown members are skipped, what follows the value is ignored. A value of the wrong type
 * is an error that names the field. Values of states are taken as raw bytes.
 */
#include "kernel/blocks/state_json.h"

#include "kernel/front/json_fault.h"

/* ---- white space ---- */

static bool is_space(char c)
{
        return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Index behind the string that starts at i. */
static size_t skip_string(struct str s, size_t i)
{
        for (i++; i < s.n && s.p[i] != '"'; i++) {
                while (i + 8 <= s.n && json_is_plain8(s.p + i))
                        i += 8;
                if (i >= s.n || s.p[i] == '"')
                        break;
                if (s.p[i] == '\\')
                        i++;
        }
        return i + 1 < s.n ? i + 1 : s.n;
}

struct str state_json_compact(struct arena *a, struct str json)
{
        char *out = NULL;
        size_t n = 0, from = 0, i = 0;
        while (i < json.n) {
                if (json.p[i] == '"') {
                        i = skip_string(json, i);
                        continue;
                }
                if (!is_space(json.p[i])) {
                        i++;
                        continue;
                }
                if (!out && !(out = arena_alloc(a, json.n)))
                        return STR_NULL;
                memcpy(out + n, json.p + from, i - from);
                n += i - from;
                while (i < json.n && is_space(json.p[i]))
                        i++;
                from = i;
        }
        if (!out)
                return json;
        memcpy(out + n, json.p + from, json.n - from);
        return str_n(out, n + json.n - from);
}

/* ---- reading ---- */

static const char *type_name(enum json_type t)
{
        switch (t) {
        case JSON_FALSE:
        case JSON_TRUE: return "bool";
        case JSON_NUMBER: return "number";
        case JSON_STRING: return "string";
        case JSON_ARRAY: return "array";
        case JSON_OBJECT: return "object";
        case JSON_NULL: return "null";
        case JSON_ERROR:
        case JSON_END: break;
        }
        return "value";
}

void state_json_begin(struct state_json *j, struct arena *a, struct str body)
{
        *j = (struct state_json){.a = a};
        json_read_init(&j->r, body);
        if (json_peek(&j->r) == JSON_END)
                j->error = "EOF";
}

static void wrong_type(struct state_json *j, const char *field, const char *want)
{
        const char *have = type_name(json_peek(&j->r));
        if (!j->error)
                j->error = *field ? arena_printf(j->a, "json: cannot unmarshal %s into Go struct field %s of type %s", have, field, want)
                                  : arena_printf(j->a, "json: cannot unmarshal %s into Go value of type %s", have, want);
        json_skip(&j->r);
}

bool state_json_array(struct state_json *j, const char *field, const char *type)
{
        if (json_read_null(&j->r))
                return false;
        if (json_enter_array(&j->r))
                return true;
        wrong_type(j, field, type);
        return false;
}

bool state_json_object(struct state_json *j, const char *field, const char *type)
{
        if (json_read_null(&j->r))
                return false;
        if (json_enter_object(&j->r))
                return true;
        wrong_type(j, field, type);
        return false;
}

bool state_json_string(struct state_json *j, const char *field, struct str *ret)
{
        if (json_read_null(&j->r))
                return false;
        if (json_read_string(&j->r, j->a, ret))
                return true;
        wrong_type(j, field, "string");
        return false;
}

void state_json_int(struct state_json *j, const char *field, int64_t *ret)
{
        if (!json_read_null(&j->r) && !json_read_int64(&j->r, ret))
                wrong_type(j, field, "int");
}

void state_json_map(struct state_json *j, const char *field, struct rpc_mdlist *ret)
{
        struct str k, v;
        if (!state_json_object(j, field, "map[string]string"))
                return;
        while (json_next_member(&j->r, j->a, &k)) {
                v = STR("");
                if (json_peek(&j->r) == JSON_NULL)
                        json_skip(&j->r);
                else if (!state_json_string(j, field, &v))
                        continue;
                state_metadata_set(j->a, ret, k, v);
        }
}

void state_metadata_set(struct arena *a, struct rpc_mdlist *md, struct str key, struct str value)
{
        for (size_t i = 0; i < md->n; i++)
                if (str_eq(md->v[i].key, key)) {
                        md->v[i].value = value;
                        return;
                }
        rpc_md_add(md, a, key, value);
}

const char *state_json_error(struct state_json *j)
{
        if (j->r.error) {
                const char *text = json_fault(j->a, j->r.in, j->whole);
                if (!text) /* what the reference takes and we do not: text that is not UTF-8 */
                        text = arena_printf(j->a, "%s at byte %zu", j->r.error, j->r.error_pos + 1);
                return text ? text : "out of memory";
        }
        if (j->whole && j->error && !strcmp(j->error, "EOF"))
                return "unexpected end of JSON input";
        return j->error ? j->error : j->a->exhausted ? "out of memory" : NULL;
}

/* ---- items ---- */

static const struct {
        const char *text;
        int value;
} concurrencies[] = {{"first-write", STATE_CONCURRENCY_FIRST_WRITE}, {"last-write", STATE_CONCURRENCY_LAST_WRITE}},
  consistencies[] = {{"eventual", STATE_CONSISTENCY_EVENTUAL}, {"strong", STATE_CONSISTENCY_STRONG}};

void state_item_consistency(struct arena *a, struct state_item *i, struct str text)
{
        i->consistency = 0;
        for (size_t n = 0; n < 2; n++)
                if (str_eqz(text, consistencies[n].text))
                        i->consistency = consistencies[n].value;
        if (text.n && !i->consistency)
                i->bad_option = arena_printf(a, "unrecognized consistency model '%.*s'", STR_FMT(text));
}

void state_item_concurrency(struct arena *a, struct state_item *i, struct str text)
{
        i->concurrency = 0;
        for (size_t n = 0; n < 2; n++)
                if (str_eqz(text, concurrencies[n].text))
                        i->concurrency = concurrencies[n].value;
        if (text.n && !i->concurrency && !i->bad_option)
                i->bad_option = arena_printf(a, "unrecognized concurrency model '%.*s'", STR_FMT(text));
}

static void read_options(struct state_json *j, struct state_item *i)
{
        struct str name, text;
        if (!state_json_object(j, "SetRequest.options", "state.SetStateOption"))
                return;
        while (json_next_member(&j->r, j->a, &name)) {
                if (str_ieq(name, STR("concurrency"))) {
                        if (state_json_string(j, "SetStateOption.options.Concurrency", &text))
                                state_item_concurrency(j->a, i, text);
                } else if (str_ieq(name, STR("consistency"))) {
                        if (state_json_string(j, "SetStateOption.options.Consistency", &text))
                                state_item_consistency(j->a, i, text);
                } else {
                        json_skip(&j->r);
                }
        }
}

static void read_value(struct state_json *j, struct state_item *i)
{
        struct str raw;
        i->is_null = json_peek(&j->r) == JSON_NULL;
        if (json_read_raw(&j->r, &raw))
                i->value = state_json_compact(j->a, raw);
}

void state_json_item(struct state_json *j, struct state_item *i)
{
        struct str name;
        *i = (struct state_item){.value = STR("null"), .is_json = true, .is_null = true};
        if (!state_json_object(j, "", "state.SetRequest"))
                return;
        while (json_next_member(&j->r, j->a, &name)) {
                if (str_ieq(name, STR("key")))
                        state_json_string(j, "SetRequest.key", &i->key);
                else if (str_ieq(name, STR("value")))
                        read_value(j, i);
                else if (str_ieq(name, STR("etag")))
                        i->has_etag = state_json_string(j, "SetRequest.etag", &i->etag);
                else if (str_ieq(name, STR("metadata")))
                        state_json_map(j, "SetRequest.metadata", &i->md);
                else if (str_ieq(name, STR("options")))
                        read_options(j, i);
                else if (str_ieq(name, STR("contentType")))
                        state_json_string(j, "SetRequest.contentType", &i->content_type);
                else
                        json_skip(&j->r);
        }
}
