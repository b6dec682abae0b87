/* kernel/mesh/message.h and convert.h, kernel/policy/acl.h */
#include <errno.h>
#include <stdlib.h>

#include "dapr/proto/internals/v1/service_invocation.pb-c.h"
#include "kernel/mesh/convert.h"
#include "kernel/mesh/message.h"
#include "kernel/policy/acl.h"
#include "sdk/base/pb.h"
#include "tests/unit/on_loop.h"

typedef Dapr__Proto__Internals__V1__InternalInvokeRequestStream request_stream;
typedef Dapr__Proto__Internals__V1__InternalInvokeResponseStream response_stream;

static struct arena A;

static void setup(void)
{
        arena_init(&A, 0);
}

static void teardown(void)
{
        arena_fini(&A);
}

static struct http_headers headers(const char *const *pairs)
{
        struct http_headers h = {0};

        for (; *pairs; pairs += 2)
                http_headers_add(&h, &A, str_of(pairs[0]), str_of(pairs[1]));
        return h;
}

/* ---- messages ---- */

START_TEST(a_request_reads_as_protobuf_does)
{
        static const char *const md[] = {"X-A", "1", "Content-Type", "a/b", "X-A", "2", "X-Empty", "", NULL};
        struct mesh_request q = {.method = STR("m/n"), .content_type = STR("a/b"), .type_url = STR("u"), .query = STR("q=1"), .verb = 4,
                                 .has_message = true, .has_http = true, .md = headers(md)}, back;
        struct str msg = mesh_put_request(&A, &q, STR("body"));
        const request_stream *p = pb_unpack(&A, &dapr__proto__internals__v1__internal_invoke_request_stream__descriptor, msg);
        struct mesh_payload payload;
        bool has_head;

        ck_assert_ptr_nonnull(p);
        ck_assert_int_eq(p->request->ver, 1);
        ck_assert_str_eq(p->request->message->method, "m/n");
        ck_assert_str_eq(p->request->message->data->type_url, "u");
        ck_assert_int_eq(p->request->message->http_extension->verb, 4);
        ck_assert_str_eq(p->request->message->http_extension->querystring, "q=1");
        ck_assert_uint_eq(p->request->n_metadata, 3);
        ck_assert_str_eq(p->request->metadata[0]->key, "X-A");
        ck_assert_uint_eq(p->request->metadata[0]->value->n_values, 2);
        ck_assert_str_eq(p->request->metadata[0]->value->values[1], "2");
        ck_assert_uint_eq(p->request->metadata[2]->value->n_values, 1);
        ck_assert(str_eqz(pb_str(p->payload->data), "body"));
        ck_assert_int_eq(mesh_read_request(&A, msg, &back, &has_head, &payload), 0);
        ck_assert(has_head && payload.present && str_eqz(payload.data, "body") && !payload.seq);
        ck_assert(str_eqz(back.method, "m/n") && str_eqz(back.query, "q=1") && back.verb == 4 && back.md.n == 4);
}
END_TEST

START_TEST(a_response_reads_as_protobuf_does)
{
        static const char *const md[] = {"x-a", "1", NULL};
        struct mesh_response r = {.code = 404, .message = STR("why"), .content_type = STR("a/b"), .headers = headers(md), .trailers = headers(md)}, back;
        struct str msg = mesh_put_response(&A, &r, STR_NULL), body;
        const response_stream *p = pb_unpack(&A, &dapr__proto__internals__v1__internal_invoke_response_stream__descriptor, msg);
        struct mesh_payload payload;
        bool has_head;

        ck_assert_ptr_nonnull(p);
        ck_assert_int_eq(p->response->status->code, 404);
        ck_assert_str_eq(p->response->status->message, "why");
        ck_assert_uint_eq(p->response->n_trailers, 1);
        ck_assert_ptr_null(p->payload);
        ck_assert_int_eq(mesh_read_response(&A, msg, &back, &has_head, &payload), 0);
        ck_assert(has_head && back.has_status && back.code == 404 && !payload.present && str_eqz(back.content_type, "a/b"));
        msg = mesh_put_whole_response(&A, &r, STR("b"));
        ck_assert_int_eq(mesh_read_whole_response(&A, msg, &back, &body), 0);
        ck_assert(str_eqz(body, "b") && back.trailers.n == 1);
}
END_TEST

START_TEST(pieces_have_their_numbers)
{
        char room[MESH_CHUNK_ROOM + 300];
        const uint64_t numbers[] = {0, 1, 127, 128, UINT64_MAX};
        struct mesh_request q;
        struct mesh_payload p;
        bool has_head;

        memset(room, 'x', sizeof room);
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
                ck_assert_int_eq(mesh_read_request(&A, mesh_put_chunk(room, 300, numbers[i]), &q, &has_head, &p), 0);
                ck_assert(!has_head && p.present && p.seq == numbers[i] && p.data.n == 300 && p.data.p[299] == 'x');
        }
}
END_TEST

START_TEST(messages_that_are_none_are_refused)
{
        struct buf b = {0};
        struct mesh_request q = {.method = STR("m"), .has_message = true};
        struct mesh_payload p;
        struct str msg;
        bool has_head;

        ck_assert_int_eq(mesh_read_request(&A, STR("\x0a\x7f"), &q, &has_head, &p), -EBADMSG);
        ck_assert_int_eq(mesh_read_request(&A, STR("\x12\x02\x0a\x09"), &q, &has_head, &p), -EBADMSG);
        q = (struct mesh_request){.method = STR("m"), .has_message = true};
        for (int i = 0; i <= MESH_METADATA_MAX; i++)
                http_headers_add(&q.md, &A, str_of(arena_printf(&A, "x%d", i)), STR("v"));
        msg = mesh_put_request(&A, &q, STR_NULL);
        ck_assert_int_eq(mesh_read_request(&A, msg, &q, &has_head, &p), -E2BIG);
        buf_fini(&b);
}
END_TEST

START_TEST(a_verb_may_be_any_number)
{
        const int verbs[] = {127, 128, 99999, INT32_MAX, -1, INT32_MIN};

        for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
                struct mesh_request q = {.method = STR("m"), .verb = verbs[i], .has_message = true, .has_http = true};
                const request_stream *p = pb_unpack(&A, &dapr__proto__internals__v1__internal_invoke_request_stream__descriptor,
                                                    mesh_put_request(&A, &q, STR("x")));
                ck_assert_ptr_nonnull(p);
                ck_assert_int_eq((int)p->request->message->http_extension->verb, verbs[i]);
        }
}
END_TEST

/* ---- words ---- */

static const char *value(const struct http_headers *h, const char *name)
{
        struct str v = http_headers_get(h, name);

        return v.p ? arena_strdup(&A, v) : NULL;
}

START_TEST(headers_between_sidecars)
{
        static const char *const in[] = {"x-a", "1", "connection", "keep-alive, X-Hop", "x-hop", "h", "TE", "trailers", "host", "h", "content-length", "3",
                                         "x-bin", "b", "accept", "*/*", NULL};
        static const char *const evil[] = {"X-A", "1\r\nX-B: 2", "X-Ok", "3", ":path", "/p", "grpc-timeout", "1S", "k-bin", "AAE=", "Accept", "*/*", NULL};
        struct http_headers from = headers(in), to = {0}, plain = {0}, out = {0}, bad = headers(evil);
        struct rpc_mdlist md = {0};

        ck_assert_int_eq(convert_http_to_internal(&A, &from, &to), 0);
        ck_assert_uint_eq(to.n, 4);
        ck_assert(str_eqz(to.v[0].name, "X-A") && str_eqz(to.v[1].name, "Content-Length") && str_eqz(to.v[2].name, "X-Bin") && str_eqz(to.v[3].name, "Accept"));
        ck_assert_int_eq(convert_internal_to_http(&A, &to, &plain), 0);
        ck_assert_ptr_null(value(&plain, "X-Bin"));
        ck_assert_int_eq(convert_internal_to_http(&A, &bad, &out), 0);
        ck_assert_ptr_null(value(&out, "X-A"));
        ck_assert_str_eq(value(&out, "X-Ok"), "3");
        ck_assert_str_eq(value(&out, "dapr-path"), "/p");
        ck_assert_str_eq(value(&out, "dapr-grpc-timeout"), "1S");
        ck_assert_int_eq(convert_internal_to_md(&A, &bad, &md), 0);
        ck_assert(str_eq(rpc_md_get(&md, "k-bin"), str_n("\0\1", 2)));
        ck_assert(str_eqz(rpc_md_get(&md, "dapr-accept"), "*/*"));
}
END_TEST

START_TEST(methods_and_paths)
{
        static const struct {
                const char *method, *clean, *path;
        } rows[] = {{"a/../b", "b", "/b"}, {"../../etc", "etc", "/etc"}, {"..", "", "/"}, {"a b/ü", "a b/ü", "/a%20b/%C3%BC"}, {"a%41", "a%41", "/a%41"},
                    {"a%4", "a%4", NULL}, {"a%zz", "a%zz", NULL}, {"a#b", NULL, NULL}, {"a?b", NULL, NULL}, {"a\nb", NULL, NULL}, {"", "", "/"},
                    {"a[b]", "a[b]", "/a[b]"}, {"a[b]|", "a[b]|", "/a%5Bb%5D%7C"}};
        const char *err;

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct str m = convert_method(&A, str_of(rows[i].method), &err);
                ck_assert_msg(rows[i].clean ? m.p && str_eqz(m, rows[i].clean) : !m.p, "%s", rows[i].method);
                if (!m.p)
                        continue;
                struct str p = convert_path(&A, "http://h", m, STR(""), &err);
                ck_assert_msg(rows[i].path ? p.p && str_eqz(p, rows[i].path) : !p.p, "%s", rows[i].method);
        }
        ck_assert(!convert_path(&A, "http://h", STR("x%z1"), STR(""), &err).p);
        ck_assert_str_eq(err, "parse \"http://h/x%z1\": invalid URL escape \"%z1\"");
}
END_TEST

/* ---- access control ---- */

#define POLICY(operations)                                                                                                                          \
        "{\"defaultAction\":\"deny\",\"trustDomain\":\"td\",\"policies\":[{\"appId\":\"a\",\"namespace\":\"n\",\"trustDomain\":\"td\","            \
        "\"defaultAction\":\"deny\",\"operations\":[" operations "]}]}"
#define OP(name, verbs) "{\"name\":\"" name "\",\"httpVerb\":[" verbs "],\"action\":\"allow\"}"

START_TEST(operations_match_as_in_the_reference)
{
        static const struct {
                const char *json, *operation, *verb;
                bool is_http, allowed;
        } rows[] = {
                {POLICY(OP("/op1", "\"GET\"")), "op1", "GET", true, true},
                {POLICY(OP("/op1", "\"GET\"")), "op1", "POST", true, false},
                {POLICY(OP("/op1", "\"GET\"")), "op1/x", "GET", true, true}, /* an operation covers what stands below */
                {POLICY(OP("/op1", "\"GET\"")), "OP1", "GET", true, true},
                {POLICY(OP("/op1", "\"GET\"")), "op1", "", true, false},
                {POLICY(OP("/op1/*", "\"*\"")), "op1/x", "PUT", true, true},
                {POLICY(OP("/op1/*", "\"*\"")), "op1", "PUT", true, true},
                {POLICY(OP("/op1/*", "\"*\"")), "op1/x/y", "PUT", true, false},
                {POLICY(OP("/op1/**", "\"*\"")), "op1/x/y/z", "PUT", true, true},
                {POLICY(OP("/op1/*/c", "\"*\"")), "op1/x/c", "PUT", true, false}, /* in the middle * matches nothing */
                {POLICY(OP("/op1/a*b", "\"*\"")), "op1/axxb", "PUT", true, true},
                {POLICY(OP("/op1/a*b", "\"*\"")), "op1/axxc", "PUT", true, false},
                {POLICY(OP("op1", "\"*\"")), "/op1", "PUT", true, true},
                {POLICY(OP("/p.S/M", "")), "/p.S/M", "", false, true},
                {POLICY(OP("/p.S/M", "")), "/p.s/m", "", false, false},
                {POLICY(OP("/p.S/*", "")), "/p.S/Other", "", false, true},
                {POLICY(""), "x", "GET", true, false},
        };
        const struct acl_caller caller = {STR("td"), STR("n"), STR("a")};
        enum acl_decider who;

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct acl *l;
                const char *err = NULL;
                ck_assert_msg(!acl_new(&l, str_of(rows[i].json), rows[i].is_http, &A, &err), "%s", err);
                ck_assert_msg(acl_allows(l, &caller, str_of(rows[i].operation), str_of(rows[i].verb), &who) == rows[i].allowed, "%zu: %s %s", i,
                              rows[i].operation, rows[i].json);
                ck_assert_int_eq(who, ACL_APP);
                acl_free(l);
        }
}
END_TEST

START_TEST(callers_that_no_policy_names)
{
        static const struct {
                const char *trust_domain, *ns, *app_id;
        } callers[] = {{"td", "n", "b"}, {"td", "m", "a"}, {"other", "n", "a"}, {"", "", ""}};
        enum acl_decider who;
        const char *err;
        struct acl *l;

        ck_assert(!acl_new(&l, STR(POLICY(OP("/**", "\"*\""))), true, &A, &err));
        for (size_t i = 0; i < sizeof callers / sizeof *callers; i++) {
                struct acl_caller c = {str_of(callers[i].trust_domain), str_of(callers[i].ns), str_of(callers[i].app_id)};
                ck_assert(!acl_allows(l, &c, STR("x"), STR("GET"), &who));
                ck_assert_int_eq(who, ACL_GLOBAL);
        }
        acl_free(l);
        ck_assert(!acl_new(&l, STR("{}"), true, &A, &err) && !l);
        ck_assert_int_eq(acl_new(&l, STR("{\"policies\":[{\"appId\":\"a\",\"trustDomain\":\"t\"}]}"), true, &A, &err), -EINVAL);
        ck_assert_str_eq(err, "invalid access control spec. missing trustdomain for apps: [], missing namespace for apps: [a], missing app name on at "
                              "least one of the app policies: false");
        ck_assert_int_eq(acl_new(&l, STR("{\"policies\":7}"), true, &A, &err), -EINVAL);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("mesh");
        TCase *tc = tcase_create("mesh");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, a_request_reads_as_protobuf_does);
        tcase_add_test(tc, a_response_reads_as_protobuf_does);
        tcase_add_test(tc, pieces_have_their_numbers);
        tcase_add_test(tc, a_verb_may_be_any_number);
        tcase_add_test(tc, messages_that_are_none_are_refused);
        tcase_add_test(tc, headers_between_sidecars);
        tcase_add_test(tc, methods_and_paths);
        tcase_add_test(tc, operations_match_as_in_the_reference);
        tcase_add_test(tc, callers_that_no_policy_names);
        suite_add_tcase(s, tc);
        return run_suite(s);
}
