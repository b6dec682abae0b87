/*
 * What a store says when it fails, and what a client then sees. Three forms of answers mean more than their text:
 *   etag errors      FAILED_PRECONDITION or INVALID_ARGUMENT with one BadRequest violation of field "etag"
 *   rich errors      one ErrorInfo with kit_error = "true": the component chooses codes, tag and reason itself
 *   items            one ErrorInfo ITEM_FAILED an item of a bulk call (our plugins)
 * All else is a text: bare from our plugins, which stand where the reference has its built-in components, and as gRPC errors
 * print from foreign ones.
 */
#include <stdlib.h>

#include "google/protobuf/any.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "kernel/blocks/state.h"
#include "sdk/base/flags.h"

#define MISMATCH "possible etag mismatch. error from state store"
#define INVALID "invalid etag value"

void state_failure_text(struct state_failure *f, const char *text)
{
        *f = (struct state_failure){.text = text ? text : "out of memory"};
        f->http_text = f->text;
        f->message = str_of(f->text);
        f->grpc_code = RPC_UNKNOWN;
}

static void *unpack_any(struct arena *a, const Google__Protobuf__Any *any, const ProtobufCMessageDescriptor *d)
{
        struct str url = str_of(any->type_url);
        ptrdiff_t slash = str_chr(url, '/');
        if (!str_eqz(str_skip(url, slash < 0 ? 0 : (size_t)slash + 1), d->name))
                return NULL;
        return pb_unpack(a, d, pb_str(any->value));
}

static const char *info_get(const Google__Rpc__ErrorInfo *info, const char *key)
{
        for (size_t i = 0; i < info->n_metadata; i++)
                if (!strcmp(info->metadata[i]->key, key))
                        return info->metadata[i]->value;
        return NULL;
}

static const char *etag_text(struct arena *a, bool mismatch, const char *why)
{
        const char *prefix = mismatch ? MISMATCH : INVALID;
        const char *text = why && *why ? arena_printf(a, "%s: %s", prefix, why) : prefix;
        return text ? text : prefix;
}

static void set_etag(struct state_failure *f, bool mismatch, const char *text)
{
        f->kind = mismatch ? STATE_FAIL_ETAG_MISMATCH : STATE_FAIL_ETAG_INVALID;
        f->text = f->http_text = text;
}

static bool read_etag(struct call *c, const Google__Rpc__Status *st, struct state_failure *f)
{
        if (st->n_details != 1 || (f->grpc_code != RPC_FAILED_PRECONDITION && f->grpc_code != RPC_INVALID_ARGUMENT))
                return false;
        const Google__Rpc__BadRequest *bad = unpack_any(c->arena, st->details[0], &google__rpc__bad_request__descriptor);
        if (!bad || bad->n_field_violations != 1 || strcmp(bad->field_violations[0]->field, "etag"))
                return false;
        bool mismatch = f->grpc_code == RPC_FAILED_PRECONDITION;
        set_etag(f, mismatch, etag_text(c->arena, mismatch, bad->field_violations[0]->description));
        return true;
}

static bool read_rich(struct call *c, const Google__Rpc__ErrorInfo *info, struct state_failure *f)
{
        const char *rich = info_get(info, "kit_error"), *code = info_get(info, "http_code"), *tag = info_get(info, "tag");
        int64_t http;
        if (!rich || strcmp(rich, "true") || !code || parse_int64(str_of(code), &http) || http < 100 || http > 999)
                return false;
        f->kind = STATE_FAIL_RICH;
        f->http_status = (int)http;
        f->tag = tag ? tag : "";
        f->reason = info->reason;
        f->domain = info->domain;
        f->text = arena_printf(c->arena, "api error: code = %s desc = %.*s", rpc_code_name(f->grpc_code), STR_FMT(f->message));
        f->http_text = f->text ? f->text : "";
        return true;
}

/* "delete affected only 1 rows, expected 2" */
static bool read_row_mismatch(struct call *c, const Google__Rpc__ErrorInfo *info, struct state_failure *f)
{
        const char *expected = info_get(info, "expected"), *affected = info_get(info, "affected");
        if (f->grpc_code != RPC_INTERNAL || !expected || !affected)
                return false;
        f->text = arena_printf(c->arena, "delete affected only %lld rows, expected %lld", strtoll(affected, NULL, 10),
                               strtoll(expected, NULL, 10));
        f->http_text = f->text ? f->text : "";
        return true;
}

/* Items of a bulk call. All failed on their etags: an etag error around all their texts. Some did: the texts, and for HTTP the
 * first etag error, which is what the reference finds when it looks for one. */
static void read_items(struct call *c, const Google__Rpc__Status *st, struct state_failure *f)
{
        struct buf all = {0};
        const char *first = NULL;
        size_t n = 0, n_etag = 0;
        bool invalid = false, first_invalid = false;
        for (size_t i = 0; i < st->n_details; i++) {
                const Google__Rpc__ErrorInfo *info = unpack_any(c->arena, st->details[i], &google__rpc__error_info__descriptor);
                if (!info || strcmp(info->reason, "ITEM_FAILED"))
                        continue;
                const char *etag = info_get(info, "etag"), *text = info_get(info, "message");
                bool is_invalid = etag && !strcmp(etag, "invalid");
                if (etag) {
                        text = etag_text(c->arena, !is_invalid, text);
                        n_etag++;
                        invalid |= is_invalid;
                        if (!first)
                                first = text, first_invalid = is_invalid;
                }
                buf_printf(&all, "%s%s", n++ ? "\n" : "", text ? text : "");
        }
        const char *joined = n ? arena_strdup(c->arena, buf_str(&all)) : NULL;
        buf_fini(&all);
        if (!joined)
                return;
        f->of_items = true;
        f->text = f->http_text = joined;
        if (n_etag == n) {
                set_etag(f, !invalid, etag_text(c->arena, !invalid, joined));
        } else if (first) {
                set_etag(f, !first_invalid, joined);
                f->http_text = first;
        }
}

void state_failure_read(struct call *c, const struct state_store *s, enum state_method method, const struct rpc_status *st,
                        struct state_failure *f)
{
        /* of a pluggable component, only the answers of these are more than their text: so the reference reads them */
        bool writes = method == STATE_SET || method == STATE_DELETE || method == STATE_BULK_SET || method == STATE_BULK_DELETE;
        state_failure_text(f, s->foreign ? arena_printf(c->arena, "rpc error: code = %s desc = %.*s", rpc_code_name(st->code),
                                                        STR_FMT(st->message))
                                         : arena_strdup(c->arena, st->message));
        f->grpc_code = st->code;
        f->message = st->message;
        f->details = st->details;
        const Google__Rpc__Status *status =
                st->details.n ? pb_unpack(c->arena, &google__rpc__status__descriptor, st->details) : NULL;
        if (!status || !status->n_details || ((writes || !s->foreign) && read_etag(c, status, f)))
                return;
        const Google__Rpc__ErrorInfo *info = unpack_any(c->arena, status->details[0], &google__rpc__error_info__descriptor);
        if (info && status->n_details == 1 && (read_rich(c, info, f) || (method == STATE_BULK_DELETE && read_row_mismatch(c, info, f))))
                return;
        if (!s->foreign)
                read_items(c, status, f);
}

void state_failure_of_bulk(struct call *c, const struct state_store *s, struct state_failure *f)
{
        bool mismatch = f->kind == STATE_FAIL_ETAG_MISMATCH;
        if (!s->foreign && !f->of_items && (mismatch || f->kind == STATE_FAIL_ETAG_INVALID))
                set_etag(f, mismatch, etag_text(c->arena, mismatch, f->text));
}

/* ---- outcomes ---- */

/* A component's own error goes to the client as it is. */
static int fail_rich(struct call *c, const struct state_failure *f)
{
        const char *message = arena_strdup(c->arena, f->message);
        call_fail_code(c, ERR_UNTYPED, f->http_status, f->grpc_code, message ? message : "");
        struct error_details *d = call_details(c);
        d->tag = f->tag;
        d->reason = f->reason;
        d->domain = f->domain;
        return -1;
}

static bool is_rich_on_grpc(const struct call *c, const struct state_failure *f)
{
        return c->door == DOOR_GRPC && f->kind == STATE_FAIL_RICH;
}

static const char *text_of(const struct call *c, const struct state_failure *f)
{
        return c->door == DOOR_HTTP ? f->http_text : f->text;
}

/* Status of a failed write. */
static int http_of(const struct state_failure *f)
{
        switch (f->kind) {
        case STATE_FAIL_ETAG_MISMATCH: return 409;
        case STATE_FAIL_ETAG_INVALID: return 400;
        case STATE_FAIL_RICH: return f->http_status;
        case STATE_FAIL_OTHER: break;
        }
        return 0;
}

static int grpc_of(const struct state_failure *f)
{
        switch (f->kind) {
        case STATE_FAIL_ETAG_MISMATCH: return RPC_ABORTED;
        case STATE_FAIL_ETAG_INVALID: return RPC_INVALID_ARGUMENT;
        case STATE_FAIL_RICH:
        case STATE_FAIL_OTHER: break;
        }
        return 0;
}

static const char *zstr(struct call *c, struct str s)
{
        const char *z = arena_strdup(c->arena, s);
        return z ? z : "";
}

int state_fail_get(struct call *c, const struct state_store *s, struct str key, const struct state_failure *f)
{
        if (is_rich_on_grpc(c, f))
                return fail_rich(c, f);
        return call_fail_code(c, ERR_STATE_GET, f->http_status, 0, zstr(c, key), s->name, f->text);
}

int state_fail_save(struct call *c, const struct state_store *s, const struct state_failure *f)
{
        if (is_rich_on_grpc(c, f))
                return fail_rich(c, f);
        return call_fail_code(c, ERR_STATE_SAVE, http_of(f), grpc_of(f), s->name, text_of(c, f));
}

int state_fail_delete(struct call *c, struct str key, const struct state_failure *f)
{
        if (is_rich_on_grpc(c, f))
                return fail_rich(c, f);
        return call_fail_code(c, ERR_STATE_DELETE, http_of(f), grpc_of(f), zstr(c, key), text_of(c, f));
}

int state_fail_bulk_delete(struct call *c, const struct state_store *s, const struct state_failure *f)
{
        if (is_rich_on_grpc(c, f))
                return fail_rich(c, f);
        return call_fail_code(c, ERR_STATE_BULK_DELETE, http_of(f), grpc_of(f), s->name, text_of(c, f));
}

int state_fail_bulk_get(struct call *c, const struct state_store *s, const struct state_failure *f)
{
        if (is_rich_on_grpc(c, f))
                return fail_rich(c, f);
        if (c->door == DOOR_HTTP)
                return call_fail_code(c, ERR_STATE_BULK_GET, f->http_status, 0, f->text);
        call_fail_code(c, ERR_UNTYPED, 0, s->foreign ? f->grpc_code : 0, zstr(c, f->message));
        if (s->foreign && f->details.n)
                call_details(c)->status = f->details;
        return -1;
}

int state_fail_transaction(struct call *c, const struct state_failure *f)
{
        return call_fail(c, ERR_STATE_TRANSACTION, f->text);
}

int state_fail_query(struct call *c, const struct state_store *s, const struct state_failure *f)
{
        if (f->kind == STATE_FAIL_RICH)
                return fail_rich(c, f);
        call_fail(c, ERR_STATE_QUERY, s->name, f->text);
        struct error_details *d = call_details(c);
        d->resource_type = "state";
        d->resource_name = s->name;
        return -1;
}
