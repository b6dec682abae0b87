/*
 * See tap.h. Records are one allocation each, in a list in their order; the recording ends by itself when its time is over, and lets go
 * of everything when nobody has taken it TAP_LINGER_S after that.
 */
#include "kernel/super/tap.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "kernel/super/history.h"
#include "kernel/super/plugin.h"

struct tap_record {
        struct list in_tap;
        int64_t at_ns, latency_ns;
        int code;
        bool stream;                               /* one message of a stream */
        size_t method_n, req_n, resp_n, message_n; /* as kept, one after the other in data */
        size_t req_bytes, resp_bytes;              /* as they were */
        char data[];
};
struct tap {
        struct component *c;
        struct list records;
        size_t n, bytes;
        uint64_t seen, dropped;
        bool active;
        struct timer timer;
};

/* ---- its life ---- */

static void on_time(struct timer *t)
{
        struct tap *p = container_of(t, struct tap, timer);
        if (p->active) {
                p->active = false;
                timer_start(&p->timer, TAP_LINGER_S, 0);
        } else {
                tap_stop(p->c, "nobody took the rest");
        }
}

int tap_start(struct component *c, double for_s)
{
        if (!(for_s > 0 && for_s <= TAP_FOR_MAX_S))
                return -EINVAL;
        if (c->tap)
                return -EBUSY;
        struct tap *p = calloc(1, sizeof *p);
        if (!p)
                return -ENOMEM;
        p->c = c;
        p->active = true;
        list_init(&p->records);
        timer_init(&p->timer, on_time);
        timer_start(&p->timer, for_s, 0);
        c->tap = p;
        history_note(c->super, c->name, "tap", "calls are recorded for %gs", for_s);
        log_warn(SUPER_SCOPE, "an operator records the calls to component %s for %gs", c->name, for_s);
        return 0;
}

static void let_go(struct tap *p, struct tap_record *r)
{
        list_del(&r->in_tap);
        p->n--;
        p->bytes -= r->req_n + r->resp_n;
        explicit_bzero(r->data, r->method_n + r->req_n + r->resp_n + r->message_n);
        free(r);
}

void tap_free(struct component *c)
{
        struct tap *p = c->tap;
        if (!p)
                return;
        c->tap = NULL;
        timer_stop(&p->timer);
        list_for_each_safe(pos, tmp, &p->records)
                let_go(p, list_entry(pos, struct tap_record, in_tap));
        free(p);
}

void tap_stop(struct component *c, const char *why)
{
        struct tap *p = c->tap;
        if (!p)
                return;
        history_note(c->super, c->name, "tap over", "%s; %llu calls, %llu not kept", why, (unsigned long long)p->seen, (unsigned long long)p->dropped);
        log_info(SUPER_SCOPE, "the recording of calls to component %s is over: %s", c->name, why);
        tap_free(c);
}

/* ---- records ---- */

static char *put(char *to, const char *from, size_t n)
{
        if (n)
                memcpy(to, from, n);
        return to + n;
}

static size_t kept(size_t n)
{
        return n < TAP_MESSAGE_MAX ? n : TAP_MESSAGE_MAX;
}

static void keep(struct tap *p, struct str m, struct str req, struct str resp, int code, struct str message, double seconds, bool stream)
{
        struct timespec now;
        size_t bytes = kept(req.n) + kept(resp.n), message_n = message.n < 4096 ? message.n : 4096;
        if (!p->active)
                return;
        p->seen++;
        struct tap_record *r = p->n < TAP_RECORDS_MAX && p->bytes + bytes <= TAP_BYTES_MAX ? malloc(sizeof *r + m.n + bytes + message_n) : NULL;
        if (!r) {
                p->dropped++;
                return;
        }
        clock_gettime(CLOCK_REALTIME, &now);
        *r = (struct tap_record){.at_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - (int64_t)(seconds * 1e9),
                                 .latency_ns = (int64_t)(seconds * 1e9), .code = code, .stream = stream, .method_n = m.n, .req_n = kept(req.n), .resp_n = kept(resp.n),
                                 .message_n = message_n, .req_bytes = req.n, .resp_bytes = resp.n};
        put(put(put(put(r->data, m.p, m.n), req.p, r->req_n), resp.p, r->resp_n), message.p, message_n);
        list_add_tail(&p->records, &r->in_tap);
        p->n++;
        p->bytes += bytes;
}

void tap_call(struct component *c, const char *method, struct str req, struct str resp, int code, struct str message, double seconds)
{
        keep(c->tap, str_of(method), req, resp, code, message, seconds, false);
}

void tap_message(struct component *c, struct str method, bool sent, struct str msg)
{
        keep(c->tap, method, sent ? msg : STR(""), sent ? STR("") : msg, 0, STR(""), 0, true);
}

static void kv_int(struct json_writer *w, const char *key, int64_t v)
{
        json_key(w, str_of(key));
        json_int(w, v);
}

static void kv_base64(struct json_writer *w, const char *key, struct arena *a, struct str v)
{
        json_key(w, str_of(key));
        json_string(w, v.n ? base64_encode(a, v) : STR(""));
}

static void write_record(struct json_writer *w, struct arena *a, const struct tap_record *r)
{
        const char *at = r->data;
        json_object_begin(w);
        kv_int(w, "time", r->at_ns);
        json_kv(w, "method", str_n(at, r->method_n));
        kv_base64(w, "request", a, str_n(at += r->method_n, r->req_n));
        kv_base64(w, "response", a, str_n(at += r->req_n, r->resp_n));
        kv_int(w, "requestBytes", (int64_t)r->req_bytes);
        kv_int(w, "responseBytes", (int64_t)r->resp_bytes);
        kv_int(w, "code", r->code);
        json_kv(w, "message", str_n(at + r->resp_n, r->message_n));
        kv_int(w, "latencyNs", r->latency_ns);
        if (r->stream) {
                json_key(w, STR("stream"));
                json_bool(w, true);
        }
        json_object_end(w);
}

bool tap_take(struct component *c, struct json_writer *w)
{
        struct tap *p = c->tap;
        size_t taken = 0;
        struct arena a;
        if (!p)
                return false;
        arena_init(&a, 0);
        json_object_begin(w);
        json_key(w, STR("records"));
        json_array_begin(w);
        list_for_each_safe(pos, tmp, &p->records) {
                struct tap_record *r = list_entry(pos, struct tap_record, in_tap);
                if (taken && taken + r->req_n + r->resp_n > TAP_ANSWER_BYTES)
                        break;
                taken += r->req_n + r->resp_n;
                arena_reset(&a);
                write_record(w, &a, r);
                let_go(p, r);
        }
        json_array_end(w);
        json_key(w, STR("active"));
        json_bool(w, p->active);
        kv_int(w, "dropped", (int64_t)p->dropped);
        kv_int(w, "waiting", (int64_t)p->n);
        json_object_end(w);
        arena_fini(&a);
        return true;
}
