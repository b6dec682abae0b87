/* kernel/observe: span_context.h, trace.h, span.h */
#include <stdio.h>
#include <stdlib.h>

#include "kernel/observe/span.h"
#include "kernel/observe/tracer.h"
#include "opentelemetry/proto/collector/trace/v1/trace_service.pb-c.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "tests/unit/on_loop.h"

#define PARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#define UNSAMPLED "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"

static struct arena arena;

static void setup(void)
{
        log_set_level(LOG_ERROR);
        arena_init(&arena, 0);
}

static void teardown(void)
{
        arena_fini(&arena);
}

/* ---- wire forms ---- */

START_TEST(a_traceparent_reads_back)
{
        struct span_context c;
        char text[TRACEPARENT_CHARS + 1];

        ck_assert(span_context_from_w3c(STR(PARENT), &c));
        ck_assert(span_context_is_valid(&c));
        ck_assert_int_eq(c.flags, 1);
        span_context_to_w3c(&c, text);
        ck_assert_str_eq(text, PARENT);
}
END_TEST

START_TEST(what_is_no_traceparent_is_refused)
{
        static const char *const bad[] = {
                "", "-", "---", TRACEPARENT_NONE, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", PARENT "-00",
                "zz-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"};
        struct span_context c;

        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
                ck_assert_msg(!span_context_from_w3c(str_of(bad[i]), &c), "%s", bad[i]);
                ck_assert(!span_context_is_valid(&c));
        }
        /* later versions may have more */
        ck_assert(span_context_from_w3c(STR("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"), &c));
}
END_TEST

START_TEST(the_binary_form_reads_back_and_may_lack_its_end)
{
        struct span_context c, d;
        uint8_t b[TRACE_BINARY_BYTES];

        ck_assert(span_context_from_w3c(STR(PARENT), &c));
        span_context_to_binary(&c, b);
        ck_assert(span_context_from_binary(str_n(b, sizeof b), &d));
        ck_assert_mem_eq(&c, &d, sizeof c);
        for (size_t n = 0; n < sizeof b; n++)
                ck_assert_int_eq(span_context_from_binary(str_n(b, n), &d), n >= 18);
        ck_assert(span_context_from_binary(str_n(b, 18), &d));
        ck_assert(!span_context_is_valid(&d));
        b[0] = 1;
        ck_assert(!span_context_from_binary(str_n(b, sizeof b), &d));
}
END_TEST

START_TEST(tracestate_is_checked)
{
        static const struct {
                const char *text;
                bool good;
        } rows[] = {{"", true}, {"a=b", true}, {"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", true}, {"a=b, c=d ", true}, {",,a=b", true},
                    {"1t@sys=x", true}, {"a", false}, {"A=b", false}, {"a=", false}, {"a=b,a=c", false}, {"a=b=c", false}, {"1a=b", false},
                    {"t@1sys=x", false}, {"a=\x01", false}, {"a=b\xc3\xa9", false}};
        struct buf many = {0};

        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
                ck_assert_msg(tracestate_is_valid(str_of(rows[i].text)) == rows[i].good, "%s", rows[i].text);
        for (int i = 0; i < TRACESTATE_MEMBERS_MAX; i++)
                buf_printf(&many, "k%d=v,", i);
        ck_assert(tracestate_is_valid(buf_str(&many)));
        buf_addz(&many, "one=more");
        ck_assert(!tracestate_is_valid(buf_str(&many)));
        buf_fini(&many);
}
END_TEST

START_TEST(baggage_is_checked_with_its_limits)
{
        static const struct {
                const char *text, *fault;
        } rows[] = {{"", NULL}, {"k=v", NULL}, {"k1=v1,k2=v2", NULL}, {" k = v ;p=1; q ", NULL}, {"k=", NULL}, {"k=a%20b", NULL}, {"k=v;", NULL},
                    {"invalid", "invalid baggage list-member"}, {"k=v,", "invalid baggage list-member"}, {",k=v", "invalid baggage list-member"},
                    {"=v", "invalid key"}, {"a b=v", "invalid key"}, {"k=a b", "invalid value"}, {"k=%2", "invalid value"},
                    {"k=%zz", "invalid value"}, {"k=\"v\"", "invalid value"}, {"k=v;p q", "invalid baggage list-member property"},
                    {"k=\xc3\xa9", "invalid value"}};
        struct buf b = {0};
        struct str part;

        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
                ck_assert_pstr_eq(baggage_fault(str_of(rows[i].text), &part), rows[i].fault);
        for (int i = 0; i <= BAGGAGE_MEMBERS_MAX; i++)
                buf_printf(&b, "%sk%d=v", i ? "," : "", i);
        ck_assert_pstr_eq(baggage_fault(buf_str(&b), &part), "too many list-members in baggage-string");
        buf_clear(&b);
        buf_addz(&b, "k=");
        for (int i = 0; i < BAGGAGE_BYTES_MAX; i++)
                buf_addc(&b, 'x');
        ck_assert_pstr_eq(baggage_fault(buf_str(&b), &part), "baggage-string too large");
        buf_fini(&b);
}
END_TEST

/* ---- traces ---- */

static struct tracer *tracer(const char *rate, bool out)
{
        struct tracer *tr;
        char err[200];
        const struct tracer_conf conf = {.app_id = "App", .sampling_rate = rate, .stdout_ = out, .zipkin_endpoint = "", .otlp_endpoint = "",
                                         .otlp_protocol = ""};

        ck_assert_int_eq(tracer_new(&tr, &conf, err, sizeof err), 0);
        return tr;
}

static void begin(struct trace *t, struct tracer *tr, const char *parent, const char *state)
{
        struct http_headers h = {0};

        if (parent)
                http_headers_add(&h, &arena, STR("Traceparent"), str_of(parent));
        if (state)
                http_headers_add(&h, &arena, STR("TRACESTATE"), str_of(state));
        ck_assert_ptr_null(trace_begin_http(t, tr, &arena, &h, STR("/x")));
}

static void drop(struct tracer *tr)
{
        tracer_stop(tr, 1);
        tracer_free(tr);
}

ON_LOOP_TEST(off_passes_on_what_came_even_when_it_is_wrong)
{
        struct tracer *tr = tracer("0", true);
        struct trace t;

        begin(&t, tr, "nonsense", "A");
        ck_assert(str_eqz(trace_value(&t, TRACE_PARENT), "nonsense"));
        ck_assert(str_eqz(trace_value(&t, TRACE_STATE), "A"));
        ck_assert(!t.has_ctx && !t.span);
        trace_end(&t);
        drop(tr);
}

ON_LOOP_TEST(passive_keeps_the_callers_context_and_has_zeros_without_one)
{
        struct tracer *tr = tracer("", false);
        struct trace t;

        begin(&t, tr, PARENT, "a=b");
        ck_assert(str_eqz(trace_value(&t, TRACE_PARENT), PARENT));
        ck_assert(str_eqz(trace_value(&t, TRACE_STATE), "a=b"));
        ck_assert_ptr_null(t.span);
        begin(&t, tr, "nonsense", "a=b");
        ck_assert(str_eqz(trace_value(&t, TRACE_PARENT), TRACEPARENT_NONE));
        ck_assert_ptr_null(trace_value(&t, TRACE_STATE).p);
        drop(tr);
}

ON_LOOP_TEST(active_makes_a_child_and_keeps_the_callers_decision)
{
        struct tracer *tr = tracer("0.000001", true);
        struct trace t;
        struct span_context c;

        begin(&t, tr, PARENT, "a=b");
        ck_assert(span_context_from_w3c(trace_value(&t, TRACE_PARENT), &c));
        ck_assert_mem_eq(trace_value(&t, TRACE_PARENT).p, PARENT, 36);
        ck_assert_mem_ne(trace_value(&t, TRACE_PARENT).p + 36, PARENT + 36, 16);
        ck_assert_int_eq(c.flags, 1);
        ck_assert(trace_is_recorded(&t));
        trace_end(&t);
        begin(&t, tr, UNSAMPLED, NULL);
        ck_assert(span_context_from_w3c(trace_value(&t, TRACE_PARENT), &c));
        ck_assert_int_eq(c.flags, 0);
        ck_assert(!trace_is_recorded(&t));
        trace_end(&t);
        drop(tr);
}

ON_LOOP_TEST(new_traces_are_sampled_by_their_id)
{
        struct tracer *all = tracer("1", false), *half = tracer("0.5", false), *wrong = tracer("half", false);
        uint8_t low[TRACE_ID_BYTES] = {[8] = 0x7f}, high[TRACE_ID_BYTES] = {[8] = 0x80};
        int sampled = 0;

        ck_assert(tracer_samples(half, low));
        ck_assert(!tracer_samples(half, high));
        ck_assert(tracer_samples(all, high));
        ck_assert(!tracer_samples(wrong, low)); /* 0.0001 */
        for (int i = 0; i < 10000; i++) {
                struct trace t;
                begin(&t, half, NULL, NULL);
                sampled += t.ctx.flags;
        }
        ck_assert_int_gt(sampled, 4500);
        ck_assert_int_lt(sampled, 5500);
        drop(all);
        drop(half);
        drop(wrong);
}

ON_LOOP_TEST(a_span_has_limits)
{
        struct tracer *tr = tracer("1", true);
        struct trace t;
        static char big[8192];
        char key[16];

        begin(&t, tr, NULL, NULL);
        memset(big, 'x', sizeof big);
        trace_attr(&t, "big", str_n(big, sizeof big));
        trace_attr(&t, "big", STR("small"));
        trace_attr(&t, "none", STR(""));
        ck_assert_int_eq(t.span->n_attrs, 1);
        ck_assert(str_eqz(t.span->attrs[0].value, "small"));
        trace_attr(&t, "big", str_n(big, sizeof big));
        ck_assert_int_eq(t.span->attrs[0].value.n, SPAN_VALUE_MAX);
        trace_attr(&t, "text", STR("a\xff" "b"));
        ck_assert(str_eqz(t.span->attrs[1].value, "a?b"));
        for (int i = 0; i < 2 * SPAN_ATTRS_MAX; i++) {
                snprintf(key, sizeof key, "k%d", i);
                trace_attr(&t, key, STR("v"));
        }
        ck_assert_int_eq(t.span->n_attrs, SPAN_ATTRS_MAX);
        ck_assert_int_eq(t.span->n_dropped, SPAN_ATTRS_MAX + 2);
        trace_attr_user(&t, STR("Dapr-X"), STR("v"));
        trace_end(&t);
        drop(tr);
}

ON_LOOP_TEST(an_ended_span_takes_what_it_says)
{
        struct tracer *tr = tracer("1", true);
        struct trace t;
        struct span *p;

        begin(&t, tr, PARENT, "a=b");
        trace_attr(&t, "key", STR("value"));
        trace_attr(&t, "another", STR(""));
        trace_attr(&t, "other", STR("o"));
        trace_status_http(&t, 404);
        p = span_packed(t.span);
        trace_discard(&t);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq(span_bytes(p), sizeof *p + 2 * sizeof *p->attrs + sizeof "a=b" + sizeof "/x" + sizeof "Code(404): Not Found" +
                                         sizeof "key" + sizeof "value" + sizeof "other" + sizeof "o");
        ck_assert_str_eq(p->state.p, "a=b");
        ck_assert_str_eq(p->name.p, "/x");
        ck_assert_str_eq(p->status_text.p, "Code(404): Not Found");
        ck_assert_uint_eq(p->n_attrs, 2);
        ck_assert_str_eq(p->attrs[0].key.p, "key");
        ck_assert_str_eq(p->attrs[1].value.p, "o");
        ck_assert(p->has_parent);
        span_unref(p);
        drop(tr);
}

/* ---- bodies ---- */

static struct span *sample(struct tracer *tr, struct trace *t)
{
        begin(t, tr, PARENT, "a=b");
        trace_attr(t, "db.name", STR("Store"));
        trace_status_http(t, 404);
        t->span->end_ns = t->span->start_ns + 1500000;
        return t->span;
}

static const struct span_attr service[] = {{STR("service.name"), STR("App")}};
static const struct span_resource resource = {service, 1};

ON_LOOP_TEST(otlp_holds_what_a_span_says)
{
        struct tracer *tr = tracer("1", true);
        struct trace t;
        struct span *s = sample(tr, &t);
        struct buf b = {0};

        span_write_otlp(&b, &resource, &s, 1);
        Opentelemetry__Proto__Collector__Trace__V1__ExportTraceServiceRequest *m =
                pb_unpack(&arena, &opentelemetry__proto__collector__trace__v1__export_trace_service_request__descriptor, buf_str(&b));
        ck_assert_ptr_nonnull(m);
        const Opentelemetry__Proto__Trace__V1__ResourceSpans *rs = m->resource_spans[0];
        const Opentelemetry__Proto__Trace__V1__Span *x = rs->scope_spans[0]->spans[0];
        ck_assert_str_eq(rs->resource->attributes[0]->value->string_value, "App");
        ck_assert_str_eq(rs->scope_spans[0]->scope->name, "dapr-diagnostics");
        ck_assert_str_eq(x->name, "/x");
        ck_assert_int_eq(x->kind, 3);
        ck_assert_str_eq(x->trace_state, "a=b");
        ck_assert_mem_eq(x->parent_span_id.data, "\x00\xf0\x67\xaa\x0b\xa9\x02\xb7", 8);
        ck_assert_int_eq(x->flags, 0x301);
        ck_assert_int_eq(x->status->code, 2);
        ck_assert_str_eq(x->status->message, "Code(404): Not Found");
        ck_assert_int_eq(x->end_time_unix_nano - x->start_time_unix_nano, 1500000);
        buf_fini(&b);
        trace_discard(&t);
        drop(tr);
}

ON_LOOP_TEST(zipkin_holds_what_a_span_says)
{
        struct tracer *tr = tracer("1", true);
        struct trace t;
        struct span *s = sample(tr, &t);
        struct buf b = {0};

        span_write_zipkin(&b, &resource, &s, 1);
        ck_assert(json_valid(buf_str(&b)));
        buf_addc(&b, '\0');
        ck_assert_ptr_nonnull(strstr(b.p, "\"duration\":1500,\"traceId\":\"4bf92f3577b34da6a3ce929d0e0e4736\""));
        ck_assert_ptr_nonnull(strstr(b.p, "\"parentId\":\"00f067aa0ba902b7\",\"name\":\"/x\",\"kind\":\"CLIENT\",\"localEndpoint\":{\"serviceName\":"
                                          "\"app\"},\"remoteEndpoint\":{\"serviceName\":\"store\"},\"tags\":{\"db.name\":\"Store\",\"service.name\":"
                                          "\"App\",\"otel.status_code\":\"ERROR\",\"error\":\"Code(404): Not Found\",\"otel.scope.name\":"
                                          "\"dapr-diagnostics\"}}]"));
        buf_fini(&b);
        trace_discard(&t);
        drop(tr);
}

/* ---- queue ---- */

struct fake {
        struct span_sink sink;
        int fails, sends;
        size_t taken;
        struct cond go;
        bool held;
};

static int take(struct span_sink *s, struct span *const *v, size_t n, char *err, size_t err_n)
{
        struct fake *f = (struct fake *)s;

        f->sends++;
        while (f->held)
                if (cond_wait(&f->go))
                        return -EAGAIN;
        if (f->fails && f->fails--)
                return -EIO;
        f->taken += n;
        return 0;
}

static void keep(struct span_sink *s)
{
}

static void give(struct span_exporter *e, struct tracer *tr)
{
        struct trace t;

        begin(&t, tr, PARENT, NULL);
        span_exporter_add(e, t.span);
        trace_discard(&t);
}

ON_LOOP_TEST(a_full_queue_drops_and_never_waits)
{
        struct tracer *tr = tracer("1", true);
        struct fake f = {.sink = {"fake", take, keep, 10}, .held = true};
        struct span_exporter *e;

        cond_init(&f.go);
        ck_assert_int_eq(span_exporter_new(&e, &f.sink, &(struct exporter_conf){.queue_max = 8, .batch_max = 2, .delay_s = 0.001, .app_id = "a"}), 0);
        for (int i = 0; i < 2; i++)
                give(e, tr);
        while (!f.sends)
                fiber_yield();
        for (int i = 0; i < 20; i++) /* 2 are with the sink, 8 fit */
                give(e, tr);
        f.held = false;
        cond_broadcast(&f.go);
        span_exporter_stop(e, loop_now_exact() + 5);
        ck_assert_int_eq(f.taken, 10);
        span_exporter_free(e);
        drop(tr);
}

ON_LOOP_TEST(a_stop_sends_what_waits_and_does_not_hang)
{
        struct tracer *tr = tracer("1", true);
        struct fake f = {.sink = {"fake", take, keep, 10}}, stuck = {.sink = {"fake", take, keep, 10}, .held = true};
        struct span_exporter *e, *s;
        const struct exporter_conf conf = {.queue_max = 100, .batch_max = 50, .delay_s = 1000, .app_id = "a"};

        cond_init(&stuck.go);
        ck_assert_int_eq(span_exporter_new(&e, &f.sink, &conf), 0);
        ck_assert_int_eq(span_exporter_new(&s, &stuck.sink, &conf), 0);
        for (int i = 0; i < 3; i++) {
                give(e, tr);
                give(s, tr);
        }
        span_exporter_stop(e, loop_now_exact() + 5);
        ck_assert_int_eq(f.taken, 3);
        span_exporter_stop(s, loop_now_exact() + 0.05);
        ck_assert_int_eq(stuck.taken, 0);
        give(s, tr); /* after the end: dropped */
        span_exporter_free(e);
        span_exporter_free(s);
        drop(tr);
}

int main(void)
{
        Suite *s = suite_create("trace");
        TCase *t = tcase_create("trace");

        tcase_add_checked_fixture(t, setup, teardown);
        tcase_add_test(t, a_traceparent_reads_back);
        tcase_add_test(t, what_is_no_traceparent_is_refused);
        tcase_add_test(t, the_binary_form_reads_back_and_may_lack_its_end);
        tcase_add_test(t, tracestate_is_checked);
        tcase_add_test(t, baggage_is_checked_with_its_limits);
        tcase_add_test(t, off_passes_on_what_came_even_when_it_is_wrong);
        tcase_add_test(t, passive_keeps_the_callers_context_and_has_zeros_without_one);
        tcase_add_test(t, active_makes_a_child_and_keeps_the_callers_decision);
        tcase_add_test(t, new_traces_are_sampled_by_their_id);
        tcase_add_test(t, a_span_has_limits);
        tcase_add_test(t, an_ended_span_takes_what_it_says);
        tcase_add_test(t, otlp_holds_what_a_span_says);
        tcase_add_test(t, zipkin_holds_what_a_span_says);
        tcase_add_test(t, a_full_queue_drops_and_never_waits);
        tcase_add_test(t, a_stop_sends_what_waits_and_does_not_hang);
        suite_add_tcase(s, t);
        return run_suite(s);
}
