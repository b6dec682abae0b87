/*
 * What a client sees of a failure: the outcome in struct call, made from a row of errors.def, and its two forms: a JSON body for
 * HTTP and google.rpc.Status for gRPC. Nothing here fails: without memory the row's plain text goes out.
 */
#include "kernel/front/errors.h"

#include <stdio.h>

#include "google/protobuf/any.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "sdk/base/json.h"

#define TYPE_PREFIX "type.googleapis.com/"
#define ERROR_DOMAIN "dapr.io"

const struct error_row error_rows[ERROR_ROWS] = {
#define ERROR_ROW(id, tag, reason, category, http, grpc, text) [id] = {tag, reason, category, http, grpc, text},
#include "kernel/front/errors.def"
#undef ERROR_ROW
};

static int fail(struct call *c, enum error_id id, int http_status, int grpc_code, va_list ap)
{
        const struct error_row *row = &error_rows[id];
        char *text = arena_vprintf(c->arena, row->text, ap);

        c->failed = true;
        c->error = id;
        c->http_status = http_status ? http_status : row->http_status;
        c->grpc_code = grpc_code ? grpc_code : row->grpc_code;
        c->message = str_of(text ? text : row->text);
        c->details = NULL;
        return -1;
}

int call_fail(struct call *c, enum error_id id, ...)
{
        va_list ap;
        va_start(ap, id);
        fail(c, id, 0, 0, ap);
        va_end(ap);
        return -1;
}

int call_fail_code(struct call *c, enum error_id id, int http_status, int grpc_code, ...)
{
        va_list ap;
        va_start(ap, grpc_code);
        fail(c, id, http_status, grpc_code, ap);
        va_end(ap);
        return -1;
}

struct error_details *call_details(struct call *c)
{
        static struct error_details none; /* written to and never read: only when memory is out */

        if (!c->details)
                c->details = arena_new(c->arena, struct error_details);
        if (c->details)
                return c->details;
        memset(&none, 0, sizeof none);
        return &none;
}

void details_info(struct error_details *d, const char *key, const char *value)
{
        if (d->n_info < sizeof d->info / sizeof d->info[0]) {
                d->info[d->n_info].key = key;
                d->info[d->n_info++].value = value;
        }
}

const char *call_error_code(const struct call *c)
{
        const struct error_row *row = &error_rows[c->error];
        const char *tag = c->details && c->details->reason ? c->details->tag : row->tag;

        return tag && tag[0] ? tag : c->details && c->details->reason ? c->details->reason : row->reason;
}

const char *call_component_error(struct call *c, const struct component *comp, const struct rpc_status *st)
{
        struct component_status cs = {0};
        char *text;

        component_status_get(comp, c->arena, &cs);
        if (cs.foreign)
                text = arena_printf(c->arena, "rpc error: code = %s desc = %.*s", rpc_code_name(st->code), STR_FMT(st->message));
        else
                text = arena_strdup(c->arena, st->message);
        return text ? text : "out of memory";
}

/* ---- JSON ---- */

/* Is the row rich on this door, and with which reason? NULL = legacy. */
static const char *rich_reason(const struct call *c)
{
        const struct error_row *row = &error_rows[c->error];

        if (c->details && c->details->reason)
                return c->details->reason;
        if (row->reason[0] == '\0')
                return NULL;
        if (row->reason[0] == '=')
                return c->door == DOOR_GRPC ? row->tag : NULL;
        return row->reason;
}

static void json_info(struct json_writer *w, const char *reason, const struct error_details *d)
{
        json_object_begin(w);
        json_kv(w, "@type", STR(TYPE_PREFIX "google.rpc.ErrorInfo"));
        json_kv(w, "domain", str_of(d && d->domain ? d->domain : ERROR_DOMAIN));
        json_key(w, STR("metadata"));
        if (d && (d->n_info || d->info_object)) {
                /* members sorted by name, as maps are written by the reference */
                bool done[sizeof d->info / sizeof d->info[0]] = {false};
                json_object_begin(w);
                for (size_t n = 0; n < d->n_info; n++) {
                        size_t least = d->n_info;
                        for (size_t i = 0; i < d->n_info; i++)
                                if (!done[i] && (least == d->n_info || strcmp(d->info[i].key, d->info[least].key) < 0))
                                        least = i;
                        done[least] = true;
                        json_kv(w, d->info[least].key, str_of(d->info[least].value));
                }
                json_object_end(w);
        } else {
                json_null(w);
        }
        json_kv(w, "reason", str_of(reason));
        json_object_end(w);
}

static void json_details(struct json_writer *w, const char *reason, const struct error_details *d)
{
        json_key(w, STR("details"));
        json_array_begin(w);
        if (d && d->help_url) {
                json_object_begin(w);
                json_kv(w, "@type", STR(TYPE_PREFIX "google.rpc.Help"));
                json_key(w, STR("links"));
                json_array_begin(w);
                json_object_begin(w);
                json_kv_nonempty(w, "description", str_of(d->help_description));
                json_kv(w, "url", str_of(d->help_url));
                json_object_end(w);
                json_array_end(w);
                json_object_end(w);
        }
        if (d && d->field) {
                json_object_begin(w);
                json_kv(w, "@type", STR(TYPE_PREFIX "google.rpc.BadRequest"));
                json_key(w, STR("field_violations"));
                json_array_begin(w);
                json_object_begin(w);
                json_kv_nonempty(w, "field", str_of(d->field));
                json_kv_nonempty(w, "description", str_of(d->field_description));
                json_object_end(w);
                json_array_end(w);
                json_object_end(w);
        }
        if (d && d->resource_type) {
                json_object_begin(w);
                json_kv(w, "@type", STR(TYPE_PREFIX "google.rpc.ResourceInfo"));
                json_kv(w, "description", str_of(d->resource_description));
                json_kv(w, "owner", str_of(d->resource_owner));
                json_kv(w, "resource_name", str_of(d->resource_name));
                json_kv(w, "resource_type", str_of(d->resource_type));
                json_object_end(w);
        }
        json_info(w, reason, d);
        json_array_end(w);
}

void error_json(const struct call *c, struct buf *out)
{
        const char *reason = rich_reason(c);
        struct json_writer w;

        json_write_init(&w, out);
        json_object_begin(&w);
        json_kv(&w, "errorCode", str_of(call_error_code(c)));
        json_kv(&w, "message", c->message);
        if (reason)
                json_details(&w, reason, c->details);
        json_object_end(&w);
}

/* ---- google.rpc.Status ---- */

static Google__Protobuf__Any *any(struct arena *a, const ProtobufCMessage *m, const char *type_url)
{
        Google__Protobuf__Any *x = arena_new(a, Google__Protobuf__Any);
        struct str bytes = pb_pack(a, m);

        if (!x || !bytes.p)
                return NULL;
        google__protobuf__any__init(x);
        x->type_url = type_url;
        x->value = pb_bytes(bytes);
        return x;
}

static const char *nonnull(const char *s)
{
        return s ? s : "";
}

static Google__Protobuf__Any *any_info(struct arena *a, const char *reason, const struct error_details *d)
{
        Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
        Google__Rpc__ErrorInfo__MetadataEntry entries[8], *pointers[8];

        info.reason = reason;
        info.domain = d && d->domain ? d->domain : ERROR_DOMAIN;
        for (size_t i = 0; d && i < d->n_info; i++) {
                google__rpc__error_info__metadata_entry__init(&entries[i]);
                entries[i].key = d->info[i].key;
                entries[i].value = nonnull(d->info[i].value);
                pointers[i] = &entries[i];
                info.n_metadata = i + 1;
        }
        info.metadata = pointers;
        return any(a, &info.base, TYPE_PREFIX "google.rpc.ErrorInfo");
}

static Google__Protobuf__Any *any_help(struct arena *a, const struct error_details *d)
{
        Google__Rpc__Help help = GOOGLE__RPC__HELP__INIT;
        Google__Rpc__Help__Link link = GOOGLE__RPC__HELP__LINK__INIT, *links[1] = {&link};

        link.description = nonnull(d->help_description);
        link.url = d->help_url;
        help.n_links = 1;
        help.links = links;
        return any(a, &help.base, TYPE_PREFIX "google.rpc.Help");
}

static Google__Protobuf__Any *any_bad_request(struct arena *a, const struct error_details *d)
{
        Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
        Google__Rpc__BadRequest__FieldViolation v = GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT, *list[1] = {&v};

        v.field = d->field;
        v.description = nonnull(d->field_description);
        bad.n_field_violations = 1;
        bad.field_violations = list;
        return any(a, &bad.base, TYPE_PREFIX "google.rpc.BadRequest");
}

static Google__Protobuf__Any *any_resource(struct arena *a, const struct error_details *d)
{
        Google__Rpc__ResourceInfo r = GOOGLE__RPC__RESOURCE_INFO__INIT;

        r.resource_type = d->resource_type;
        r.resource_name = nonnull(d->resource_name);
        r.owner = nonnull(d->resource_owner);
        r.description = nonnull(d->resource_description);
        return any(a, &r.base, TYPE_PREFIX "google.rpc.ResourceInfo");
}

static struct str status_bytes(struct arena *a, int code, const char *message, const char *reason, const struct error_details *d)
{
        Google__Rpc__Status st = GOOGLE__RPC__STATUS__INIT;
        Google__Protobuf__Any *list[4];

        st.code = code;
        st.message = message;
        st.details = list;
        if (d && d->help_url && (list[st.n_details] = any_help(a, d)))
                st.n_details++;
        if (d && d->field && (list[st.n_details] = any_bad_request(a, d)))
                st.n_details++;
        if (d && d->resource_type && (list[st.n_details] = any_resource(a, d)))
                st.n_details++;
        if ((list[st.n_details] = any_info(a, reason, d)))
                st.n_details++;
        return pb_pack(a, &st.base);
}

struct str error_status_details(const struct call *c)
{
        const char *reason = rich_reason(c);

        if (c->details && c->details->status.n)
                return c->details->status;
        /* message is NUL-terminated: fail() makes it so */
        return reason ? status_bytes(c->arena, c->grpc_code, c->message.p, reason, c->details) : (struct str){NULL, 0};
}

int rpc_fail_http(struct rpc_call *rpc, int code, int http_status, const char *detail)
{
        const char *text = http_status_text(http_status);
        struct error_details d = {0};
        char number[12];

        snprintf(number, sizeof number, "%d", http_status);
        details_info(&d, "http.code", number);
        details_info(&d, "http.error_message", detail);
        return rpc_fail_details(rpc, code, str_of(text), status_bytes(rpc->arena, code, text, text, &d));
}
