/*
 * Failed answers with details, as google.rpc.Status in grpc-status-details-bin.
 *   one etag error: BadRequest with a single violation of field "etag" (the contract of pluggable state stores);
 *   several items failed, or one for another reason: one ErrorInfo an item, reason ITEM_FAILED, domain microdapr, metadata
 *   key, code (gRPC number), message, and etag = mismatch | invalid where it is an etag error.
 */
#include <errno.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "sdk/plugin/runtime.h"

enum { TEXT_MAX = 4096, DETAILS_MAX = 5000 }; /* they travel as headers: what does not fit is left out */

static const char *etag_prefix(int code)
{
        return code == DAPR_ETAG_MISMATCH ? "possible etag mismatch. error from state store" : "invalid etag value";
}

static Google__Protobuf__Any *any_of(struct dapr_call *dc, const char *url, const ProtobufCMessage *m)
{
        Google__Protobuf__Any *any = arena_new(dc->arena, Google__Protobuf__Any);
        struct str packed = pb_pack(dc->arena, m);
        if (!any || !packed.p)
                return NULL;
        google__protobuf__any__init(any);
        any->type_url = url;
        any->value = pb_bytes(packed);
        return any;
}

static int fail(struct dapr_call *dc, int code, struct str text, Google__Protobuf__Any **details, size_t n)
{
        Google__Rpc__Status st = GOOGLE__RPC__STATUS__INIT;
        char *z = arena_strdup(dc->arena, text);
        st.code = code;
        st.message = z ? z : "";
        st.details = details;
        st.n_details = n;
        return rpc_fail_details(dc->rpc, code, text, pb_pack(dc->arena, &st.base));
}

int sdk_fail_etag(struct dapr_call *dc, int code, const char *text)
{
        Google__Rpc__BadRequest__FieldViolation v = GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
        Google__Rpc__BadRequest__FieldViolation *list[] = {&v};
        Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
        v.field = "etag";
        v.description = text;
        bad.field_violations = list;
        bad.n_field_violations = 1;
        Google__Protobuf__Any *any = any_of(dc, "type.googleapis.com/google.rpc.BadRequest", &bad.base);
        const char *full = arena_printf(dc->arena, "%s%s%s", etag_prefix(code), *text ? ": " : "", text);
        return fail(dc, sdk_code(code), str_of(full ? full : text), &any, any != NULL);
}

static Google__Protobuf__Any *item_detail(struct dapr_call *dc, const char *key, const struct dapr_bulk_result *r)
{
        typedef Google__Rpc__ErrorInfo__MetadataEntry entry_t;
        entry_t e[4], *list[4];
        Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
        const char *code = arena_printf(dc->arena, "%d", sdk_code(r->code));
        const char *names[] = {"key", "code", "message", "etag"};
        const char *values[] = {key, code ? code : "", r->message ? r->message : "",
                                r->code == DAPR_ETAG_MISMATCH ? "mismatch" : r->code == DAPR_ETAG_INVALID ? "invalid" : NULL};
        for (size_t i = 0; i < 4 && values[i]; i++) {
                google__rpc__error_info__metadata_entry__init(&e[i]);
                e[i].key = names[i];
                e[i].value = values[i];
                list[info.n_metadata++] = &e[i];
        }
        info.reason = "ITEM_FAILED";
        info.domain = "microdapr";
        info.metadata = list;
        return any_of(dc, "type.googleapis.com/google.rpc.ErrorInfo", &info.base);
}

int sdk_fail_items(struct dapr_call *dc, const char *const *keys, const struct dapr_bulk_result *results, size_t n)
{
        size_t failed = 0, first = n;
        struct buf text = {0};
        for (size_t i = 0; i < n; i++)
                if (results[i].code && failed++ == 0)
                        first = i;
        bool etag = results[first].code == DAPR_ETAG_MISMATCH || results[first].code == DAPR_ETAG_INVALID;
        if (failed == 1 && etag) {
                dc->rt->errors++;
                return sdk_fail_etag(dc, results[first].code, results[first].message ? results[first].message : "");
        }
        Google__Protobuf__Any **details = arena_alloc(dc->arena, failed * sizeof *details);
        size_t used = 0, bytes = 0;
        for (size_t i = first; details && i < n && bytes < DETAILS_MAX && buf_len(&text) < TEXT_MAX; i++) {
                const struct dapr_bulk_result *r = &results[i];
                if (!r->code)
                        continue;
                bool is_etag = r->code == DAPR_ETAG_MISMATCH || r->code == DAPR_ETAG_INVALID;
                const char *message = r->message ? r->message : "";
                buf_printf(&text, "%s%s%s%s", used ? "\n" : "", is_etag ? etag_prefix(r->code) : "", is_etag && *message ? ": " : "", message);
                details[used] = item_detail(dc, keys[i], r);
                if (!details[used])
                        break;
                bytes += details[used++]->value.len;
        }
        dc->rt->errors++;
        int r = fail(dc, sdk_code(results[first].code), arena_str(dc->arena, buf_str(&text)), details, used);
        buf_fini(&text);
        return r;
}
