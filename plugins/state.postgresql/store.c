/*
 * state.postgresql: the operations. An instance is a pool of connections, the statements of its layout (v1 or v2, layout.c) and a
 * fiber that deletes expired rows. What the two versions do differently beyond their SQL is here: v1 keeps JSON as jsonb and
 * anything else as base64 in a JSON string, its ETag is a number; v2 keeps bytes as they are, its ETag is a UUID.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "plugins/state.postgresql/store.h"
#include "sdk/base/buf.h"
#include "sdk/base/flags.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"
#include "sdk/base/rfc3339.h"

static const double default_cleanup_s = 3600, cleanup_limit_s = 600;

/* ---- clean-up ---- */

/* One process of those that share the database: whoever moves the time of the last clean-up first. */
static int clean(struct store *s, struct pg_conn *conn, struct pg_error *e)
{
        struct buf mark = {0};
        char interval_ms[32];
        PGresult *res = NULL;
        int64_t n = 0;
        snprintf(interval_ms, sizeof interval_ms, "%.0f", s->cleanup_s * 1000 - 100);
        struct pg_param param = pg_text(interval_ms);
        buf_printf(&mark, "INSERT INTO %s (key, value) VALUES ('last-cleanup%s", s->meta_table, s->layout->version == 2 ? "-state-v2-" : "");
        for (const char *p = s->prefix; *p; p++)
                for (int twice = *p == '\''; twice >= 0; twice--)
                        buf_addc(&mark, *p);
        buf_printf(&mark, "', now()::text) ON CONFLICT (key) DO UPDATE SET value = now()::text"
                          " WHERE (EXTRACT('epoch' FROM now() - %s.value::timestamp with time zone) * 1000)::bigint > $1::bigint%c",
                   s->meta_table, 0);
        int r = mark.failed ? -ENOMEM : pg_conn_query(conn, buf_str(&mark).p, &param, 1, &res, e);
        if (!r) {
                n = pg_affected(res);
                PQclear(res);
        }
        if (!r && n > 0) {
                r = pg_conn_run(conn, s->statement[ST_EXPIRE], NULL, 0, &res, e);
                if (!r) {
                        dapr_log(DAPR_LOG_INFO, "Removed %lld expired rows", (long long)pg_affected(res));
                        PQclear(res);
                }
        }
        buf_fini(&mark);
        return r;
}

static void clean_fiber(void *arg)
{
        struct store *s = arg;
        dapr_log(DAPR_LOG_INFO, "Schedule expired data clean up every %gs", s->cleanup_s);
        while (fiber_sleep(s->cleanup_s) == 0) {
                struct pg_conn *conn = NULL;
                struct pg_error e = {0};
                double old = fiber_set_deadline(loop_now() + cleanup_limit_s);
                int r = pg_acquire(s->pg, &conn, &e);
                if (!r)
                        r = clean(s, conn, &e);
                pg_release(conn);
                fiber_restore_deadline(old);
                if (r && r != -ECANCELED)
                        dapr_log(DAPR_LOG_ERROR, "Error removing expired data: %s", e.text);
        }
}

/* ---- init and close ---- */

static void store_close(void *instance)
{
        struct store *s = instance;
        if (!s)
                return;
        scope_cancel(&s->scope);
        scope_join(&s->scope);
        pg_close(s->pg);
        for (size_t i = 0; i < STATEMENTS; i++)
                free(s->sql[i]);
        free(s->table);
        free(s->meta_table);
        free(s->prefix);
        free(s);
}

static char *md_copy(const struct dapr_metadata *md, const char *field, const char *otherwise)
{
        const char *v = dapr_md_string(md, field);
        return strdup(v && *v ? v : otherwise);
}

static void read_cleanup(const struct dapr_metadata *md, struct store *s)
{
        const char *field = dapr_md_has(md, "cleanupIntervalInSeconds") ? "cleanupIntervalInSeconds" : "cleanupInterval";
        const char *v = dapr_md_string(md, field);
        double seconds = v && *v ? (double)dapr_md_duration_ns(md, field) / 1e9 : default_cleanup_s;
        s->cleanup_s = seconds > 0 ? seconds : 0;
}

static int prepare(struct store *s)
{
        for (size_t i = 0; i < STATEMENTS; i++) {
                struct buf b = {0};
                for (const char *p = s->layout->sql[i]; *p;) {
                        if (strncmp(p, "%1$s", 4) == 0) {
                                buf_addz(&b, s->table);
                                p += 4;
                        } else
                                buf_addc(&b, *p++);
                }
                buf_addc(&b, '\0');
                s->sql[i] = b.failed ? NULL : strdup(buf_str(&b).p);
                buf_fini(&b);
                if (!s->sql[i])
                        return -ENOMEM;
                s->statement[i] = pg_statement(s->pg, s->sql[i]);
        }
        return 0;
}

static int open_database(struct dapr_call *c, struct store *s, struct pg_settings *set)
{
        int r = pg_open(c, set, &s->pg);
        const char *key = s->layout->version == 1 ? "migrations" : dapr_printf(c, "migrations-state-v2-%s", s->prefix);
        if (!r)
                r = key ? pg_migrate(c, s->pg, s->meta_table, key, s->layout->migrations, s->layout->n_migrations, s) : -ENOMEM;
        if (!r)
                r = prepare(s);
        if (!r && s->cleanup_s > 0)
                r = fiber_go(&s->scope, "clean-up", clean_fiber, s);
        return r;
}

static int store_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance, const struct layout *layout)
{
        struct pg_settings set;
        int r = pg_settings_read(c, md, layout->version == 1 ? "failed to parse metadata: " : "", &set);
        if (r)
                return r;
        struct store *s = calloc(1, sizeof *s);
        if (!s) {
                pg_settings_fini(&set);
                return -ENOMEM;
        }
        scope_init(&s->scope);
        s->layout = layout;
        s->prefix = layout->version == 2 ? md_copy(md, "tablePrefix", "") : strdup("");
        s->meta_table = md_copy(md, "metadataTableName", "dapr_metadata");
        if (layout->version == 1)
                s->table = md_copy(md, "tableName", "state");
        else if (s->prefix && asprintf(&s->table, "%sstate", s->prefix) < 0)
                s->table = NULL;
        read_cleanup(md, s);
        if (s->prefix && s->table && s->meta_table)
                r = open_database(c, s, &set);
        else
                r = -ENOMEM;
        pg_settings_fini(&set);
        if (r) {
                store_close(s);
                return r;
        }
        *instance = s;
        return 0;
}

static int init_v1(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        return store_init(c, md, instance, &layout_v1);
}

static int init_v2(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        return store_init(c, md, instance, &layout_v2);
}

static int store_ping(struct dapr_call *c, void *instance)
{
        struct store *s = instance;
        return pg_ping(c, s->pg);
}

/* ---- reading ---- */

/* v1: a JSON string of base64. Neither has anything to escape. */
static int decode_binary(struct dapr_call *c, struct str text, struct dapr_item *out)
{
        struct arena a;
        arena_init(&a, 0);
        if (text.n >= 2 && text.p[0] == '"' && text.p[text.n - 1] == '"')
                text = str_n(text.p + 1, text.n - 2);
        struct str raw = base64_decode(&a, text);
        int r = raw.p ? 0 : dapr_fail(c, DAPR_INTERNAL, "failed to decode base64 data: illegal base64 data");
        if (!r) {
                out->value = dapr_copy(c, raw.p, raw.n);
                r = out->value.p || !raw.n ? 0 : -ENOMEM;
        }
        arena_fini(&a);
        return r;
}

static int read_row(struct dapr_call *c, const PGresult *res, int row, struct dapr_item *out)
{
        struct str value = pg_column(res, row, 0), etag = pg_column(res, row, 2);
        char when[RFC3339_BYTES];
        int64_t expiry;
        if (str_eqz(pg_column(res, row, 1), "true")) {
                int r = decode_binary(c, value, out);
                if (r)
                        return r;
        } else {
                out->value = dapr_copy(c, value.p, value.n);
                if (!out->value.p && value.n)
                        return -ENOMEM;
        }
        out->found = true;
        out->etag = dapr_printf(c, "%.*s", STR_FMT(etag));
        if (!out->etag)
                return -ENOMEM;
        if (pg_is_null(res, row, 3) || parse_int64(pg_column(res, row, 3), &expiry) != 0 || !rfc3339_format(when, expiry, 0))
                return 0;
        struct dapr_kv *md = dapr_alloc(c, sizeof *md);
        if (!md)
                return -ENOMEM;
        *md = (struct dapr_kv){"ttlExpireTime", dapr_strdup(c, when)};
        out->metadata = (struct dapr_kvs){md, 1};
        return md->value ? 0 : -ENOMEM;
}

static int store_get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        struct store *s = instance;
        struct pg_error e;
        PGresult *res = NULL;
        struct pg_param key = pg_text(in->key);
        if (!*in->key)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing key in get operation");
        int r = pg_run(s->pg, s->statement[ST_GET], &key, 1, true, &res, &e);
        if (r)
                return pg_fail(c, r, &e, NULL);
        if (PQntuples(res) > 0)
                r = read_row(c, res, 0, out);
        PQclear(res);
        return r;
}

/* {"a","b"} */
static void add_array(struct buf *b, const struct dapr_get *in, size_t n)
{
        buf_addc(b, '{');
        for (size_t i = 0; i < n; i++) {
                buf_addz(b, i ? ",\"" : "\"");
                for (const char *p = in[i].key; *p; p++) {
                        if (*p == '"' || *p == '\\')
                                buf_addc(b, '\\');
                        buf_addc(b, *p);
                }
                buf_addc(b, '"');
        }
        buf_addz(b, "}");
        buf_addc(b, '\0');
}

static int store_bulk_get(struct dapr_call *c, void *instance, const struct dapr_get *in, size_t n, struct dapr_item *out)
{
        struct store *s = instance;
        struct pg_error e;
        struct buf keys = {0};
        PGresult *res = NULL;
        if (n == 0)
                return 0;
        add_array(&keys, in, n);
        struct pg_param param = pg_text(buf_str(&keys).p);
        int r = keys.failed ? -ENOMEM : pg_run(s->pg, s->statement[ST_BULK_GET], &param, 1, true, &res, &e);
        buf_fini(&keys);
        if (r)
                return pg_fail(c, r, &e, NULL);
        for (int row = 0; !r && row < PQntuples(res); row++) {
                int64_t at;
                if (parse_int64(pg_column(res, row, 4), &at) == 0 && at >= 1 && at <= (int64_t)n)
                        r = read_row(c, res, row, &out[at - 1]);
        }
        PQclear(res);
        return r;
}

/* ---- writing ---- */

static int check_number(struct dapr_call *c, const char *etag)
{
        errno = 0;
        char *end;
        unsigned long long v = strtoull(etag, &end, 10);
        if (!isdigit((unsigned char)*etag) || *end)
                return dapr_fail(c, DAPR_ETAG_INVALID, "strconv.ParseUint: parsing \"%s\": invalid syntax", etag);
        if (errno || v > UINT32_MAX)
                return dapr_fail(c, DAPR_ETAG_INVALID, "strconv.ParseUint: parsing \"%s\": value out of range", etag);
        return 0;
}

/* The forms that the reference takes; all of them but the urn: are the server's too. */
static int check_uuid(struct dapr_call *c, const char **etag)
{
        const char *p = *etag;
        size_t n = strlen(p), digits = 0;
        if (n == 45 && strncasecmp(p, "urn:uuid:", 9) == 0)
                p += 9, n -= 9;
        if (n != 36 && n != 38 && n != 32)
                return dapr_fail(c, DAPR_ETAG_MISMATCH, "invalid UUID length: %zu", n);
        *etag = p;
        for (size_t i = 0; i < n; i++) {
                size_t at = n == 38 ? i - 1 : i;
                bool brace = n == 38 && (i == 0 || i == n - 1), dash = n != 32 && (at == 8 || at == 13 || at == 18 || at == 23);
                if (brace ? p[i] != (i ? '}' : '{') : dash ? p[i] != '-' : !isxdigit((unsigned char)p[i]))
                        return dapr_fail(c, DAPR_ETAG_MISMATCH, "invalid UUID format");
                digits += !brace && !dash;
        }
        return digits == 32 ? 0 : dapr_fail(c, DAPR_ETAG_MISMATCH, "invalid UUID format");
}

static int check_etag(struct dapr_call *c, const struct store *s, const char **etag)
{
        return s->layout->version == 1 ? check_number(c, *etag) : check_uuid(c, etag);
}

/* A statement on the caller's connection (of a transaction) or any. *affected = its rows. */
static int write(struct dapr_call *c, struct store *s, struct pg_conn *conn, enum statement st, const struct pg_param *params, int n,
                 int64_t *affected)
{
        struct pg_error e;
        PGresult *res = NULL;
        int r = conn ? pg_conn_run(conn, s->statement[st], params, n, &res, &e) : pg_run(s->pg, s->statement[st], params, n, false, &res, &e);
        if (r)
                return pg_fail(c, r, &e, NULL);
        *affected = pg_affected(res);
        PQclear(res);
        return 0;
}

/* The value as its column takes it: $2, and $4 of v1. */
static int encode(struct dapr_call *c, const struct store *s, const struct dapr_set *in, struct pg_param *value, bool *is_binary)
{
        struct str v = str_n(in->value.p, in->value.n);
        *is_binary = !in->content_type || strncasecmp(in->content_type, "application/json", 16) != 0;
        if (s->layout->version == 2) {
                *value = pg_binary(v.p, v.n);
                return 0;
        }
        size_t n = *is_binary ? BASE64_LEN(v.n) + 2 : v.n;
        char *text = v.n > INT32_MAX / 2 ? NULL : dapr_alloc(c, n + 1);
        if (!text)
                return -ENOMEM;
        if (*is_binary) {
                text[0] = '"';
                base64_put(text + 1, v);
                text[n - 1] = '"';
        } else if (v.n)
                memcpy(text, v.p, v.n);
        text[n] = '\0';
        *value = pg_text(text);
        return 0;
}

static int set_on(struct dapr_call *c, struct store *s, struct pg_conn *conn, const struct dapr_set *in)
{
        struct pg_param p[5];
        char ttl[24];
        bool has_etag = in->etag && *in->etag, is_binary;
        const char *etag = in->etag;
        int64_t affected = 0;
        int n = 3;
        if (!*in->key)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing key in set operation");
        int r = encode(c, s, in, &p[1], &is_binary);
        if (!r && has_etag)
                r = check_etag(c, s, &etag);
        if (r)
                return r;
        snprintf(ttl, sizeof ttl, "%lld", (long long)in->ttl_s);
        p[0] = pg_text(in->key);
        p[2] = pg_text(in->ttl_s > 0 ? ttl : NULL);
        if (s->layout->version == 1)
                p[n++] = pg_text(is_binary ? "true" : "false");
        if (has_etag)
                p[n++] = pg_text(etag);
        r = write(c, s, conn, has_etag ? ST_SET_ETAG : in->concurrency == DAPR_FIRST_WRITE ? ST_SET_FIRST : ST_SET, p, n, &affected);
        if (r || affected == 1)
                return r;
        return has_etag ? dapr_fail(c, DAPR_ETAG_MISMATCH, "%s", "") : dapr_fail(c, DAPR_INTERNAL, "no item was updated");
}

static int del_on(struct dapr_call *c, struct store *s, struct pg_conn *conn, const struct dapr_delete *in)
{
        bool has_etag = in->etag && *in->etag;
        const char *etag = in->etag;
        int64_t affected = 0;
        if (!*in->key)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing key in delete operation");
        int r = has_etag ? check_etag(c, s, &etag) : 0;
        if (r)
                return r;
        struct pg_param p[] = {pg_text(in->key), pg_text(etag)};
        r = write(c, s, conn, has_etag ? ST_DELETE_ETAG : ST_DELETE, p, has_etag ? 2 : 1, &affected);
        return r || affected == 1 || !has_etag ? r : dapr_fail(c, DAPR_ETAG_MISMATCH, "%s", "");
}

static int store_set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        return set_on(c, instance, NULL, in);
}

static int store_del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        return del_on(c, instance, NULL, in);
}

static int apply(struct dapr_call *c, struct store *s, struct pg_conn *conn, const struct dapr_op *op)
{
        return op->kind == DAPR_OP_SET ? set_on(c, s, conn, &op->set) : del_on(c, s, conn, &op->del);
}

static int transaction(struct dapr_call *c, struct store *s, struct pg_conn *conn, const struct dapr_op *ops, size_t n)
{
        struct pg_error e;
        int r = pg_conn_do(conn, "BEGIN", &e);
        if (r)
                return pg_fail(c, r, &e, "failed to begin transaction");
        for (size_t i = 0; !r && i < n; i++)
                r = apply(c, s, conn, &ops[i]);
        if (r) {
                struct pg_error ignored;
                pg_conn_do(conn, "ROLLBACK", &ignored); /* when it fails the connection is closed, which rolls back too */
                return r;
        }
        r = pg_conn_do(conn, "COMMIT", &e);
        return r ? pg_fail(c, r, &e, "failed to commit transaction") : 0;
}

static int store_transact(struct dapr_call *c, void *instance, const struct dapr_op *ops, size_t n, struct dapr_kvs metadata)
{
        struct store *s = instance;
        struct pg_conn *conn = NULL;
        struct pg_error e;
        if (n <= 1)
                return n ? apply(c, s, NULL, &ops[0]) : 0;
        double old = pg_limit(s->pg);
        int r = pg_acquire(s->pg, &conn, &e);
        r = r ? pg_fail(c, r, &e, "failed to begin transaction") : transaction(c, s, conn, ops, n);
        pg_release(conn);
        fiber_restore_deadline(old);
        return r;
}

/* ---- keys by pattern ---- */

static int store_keys_like(struct dapr_call *c, void *instance, const struct dapr_keys_like *in, struct dapr_keys *out)
{
        struct store *s = instance;
        struct pg_error e;
        PGresult *res = NULL;
        char limit[24];
        int64_t after;
        bool more = in->token && *in->token;
        if (!in->pattern || !*in->pattern)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "keys like pattern cannot be empty");
        if (more && parse_int64(str_of(in->token), &after) != 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid continue token: strconv.ParseInt: parsing \"%s\": invalid syntax", in->token);
        snprintf(limit, sizeof limit, "%lld", (long long)in->page_size + 1); /* one more tells whether there is a next page */
        struct pg_param p[] = {pg_text(in->pattern), pg_text(more ? in->token : NULL), pg_text(in->page_size ? limit : NULL)};
        int r = pg_run(s->pg, s->statement[ST_KEYS], p, 3, true, &res, &e);
        if (r)
                return pg_fail(c, r, &e, NULL);
        size_t n = (size_t)PQntuples(res);
        bool next = in->page_size && n > in->page_size;
        if (next)
                n = in->page_size;
        const char **keys = dapr_alloc(c, (n + 1) * sizeof *keys);
        r = keys ? 0 : -ENOMEM;
        for (size_t i = 0; !r && i < n; i++) {
                keys[i] = dapr_printf(c, "%.*s", STR_FMT(pg_column(res, (int)i, 0)));
                r = keys[i] ? 0 : -ENOMEM;
        }
        if (!r) {
                out->keys = keys;
                out->n = n;
                out->token = next ? dapr_printf(c, "%.*s", STR_FMT(pg_column(res, (int)n - 1, 1))) : NULL;
        }
        PQclear(res);
        return r;
}

enum { FEATURES = DAPR_FEATURE_ETAG | DAPR_FEATURE_TRANSACTIONAL | DAPR_FEATURE_TTL | DAPR_FEATURE_KEYS_LIKE };
#define OPS(init_fn, feature_bits, query_fn)                                                                                       \
        {                                                                                                                          \
                .mode = DAPR_FIBER, .features = feature_bits, .init = init_fn, .close = store_close, .ping = store_ping,           \
                .get = store_get, .bulk_get = store_bulk_get, .set = store_set, .del = store_del, .transact = store_transact,      \
                .keys_like = store_keys_like, .query = query_fn, .ttl_error = "error parsing TTL: "                                \
        }
static const struct dapr_state_ops ops_v1 = OPS(init_v1, FEATURES | DAPR_FEATURE_QUERY, store_query);
static const struct dapr_state_ops ops_v2 = OPS(init_v2, FEATURES, NULL);
static const struct dapr_component_type types[] = {
        {.type = "state.postgresql", .versions = "v1", .state = &ops_v1},
        {.type = "state.postgresql", .versions = "v2", .state = &ops_v2},
        {.type = "state.postgres", .versions = "v1", .state = &ops_v1},
        {.type = "state.postgres", .versions = "v2", .state = &ops_v2},
};
static const struct dapr_plugin plugin = {.name = "state.postgresql", .version = "1.0.0", .types = types, .n_types = sizeof types / sizeof *types};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
