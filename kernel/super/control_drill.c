/* The control service's tools for drills and debugging: faults, recordings of calls, and single calls, as kernel/super/control.h has them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/super/control_internal.h"
#include "kernel/super/fault.h"
#include "kernel/super/tap.h"
#include "sdk/base/flags.h"

enum { METHOD_MAX = 120 };

/* ---- faults ---- */

void control_fault_row(struct json_writer *w, const struct component *c, struct arena *a)
{
        double left_s = 0;
        uint64_t hits = 0;
        const char *text = fault_text(c, a, &left_s, &hits);
        if (!text)
                return;
        json_key(w, STR("fault"));
        json_object_begin(w);
        control_kv(w, "what", text);
        control_number(w, "leftSeconds", (uint64_t)(left_s > 0 ? left_s + 0.5 : 0));
        control_number(w, "hits", hits);
        json_object_end(w);
}

/* 0 and *ret (unchanged when it is not given), or 400 is answered. */
static int query_seconds(struct http_req *r, const char *key, double *ret)
{
        const char *text = control_query(r, key);
        int64_t ns;
        if (!text)
                return 0;
        if (parse_duration(str_of(text), &ns)) {
                control_refuse(r, 400, arena_printf(r->arena, "%s is a duration such as 100ms, not \"%s\"", key, text));
                return -EINVAL;
        }
        *ret = (double)ns / 1e9;
        return 0;
}

static int code_of(const char *text)
{
        char *end;
        long n = strtol(text, &end, 10);
        if (*text && !*end)
                return n > 0 && n <= RPC_UNAUTHENTICATED ? (int)n : -EINVAL;
        for (int code = 1; code <= RPC_UNAUTHENTICATED; code++) {
                const char *name = rpc_code_name(code), *t = text;
                while (*t && *name) { /* DEADLINE_EXCEEDED and DeadlineExceeded are one */
                        if (*t == '_')
                                t++;
                        if ((*t | 32) != (*name | 32))
                                break;
                        t++;
                        name++;
                }
                if (!*t && !*name)
                        return code;
        }
        return strcasecmp(text, "CANCELLED") == 0 ? RPC_CANCELLED : -EINVAL;
}

static int read_plan(struct http_req *r, struct fault_plan *p)
{
        const char *error = control_query(r, "error"), *rate = control_query(r, "rate"), *kill = control_query(r, "kill");
        char *end;
        if (query_seconds(r, "delay", &p->delay_s) || query_seconds(r, "for", &p->for_s))
                return -EINVAL;
        p->kill = kill && strcmp(kill, "true") == 0;
        if (error && (p->code = code_of(error)) < 0) {
                control_refuse(r, 400, arena_printf(r->arena, "error is a gRPC code other than OK, such as UNAVAILABLE or 14, not \"%s\"", error));
                return -EINVAL;
        }
        if (rate && (p->rate = strtod(rate, &end), !*rate || *end)) {
                control_refuse(r, 400, arena_printf(r->arena, "rate is a number above 0 and at most 1, not \"%s\"", rate));
                return -EINVAL;
        }
        return 0;
}

static void done(struct http_req *r, int e, const char *err)
{
        if (e)
                control_refuse(r, e == -ENOENT ? 404 : e == -ENOMEM ? 500 : 400, err);
        else
                http_resp_send(r, 204, NULL, 0, STR(""));
}

void control_fault(struct control *k, struct http_req *r, struct component *c)
{
        struct fault_plan p = {.rate = 1, .for_s = FAULT_FOR_DEFAULT_S};
        const char *err = NULL;
        if (read_plan(r, &p))
                return;
        if (p.kill && !p.code && !p.delay_s && !control_query(r, "rate")) {
                done(r, fault_kill(c), "it has no process that was started here");
                return;
        }
        int e = fault_set(c, &p, &err);
        done(r, e, err ? err : "out of memory");
}

void control_unfault(struct control *k, struct http_req *r, struct component *c)
{
        done(r, fault_clear(c, "cleared by an operator"), "there is no fault in this component");
}

/* ---- recordings ---- */

void control_tap_start(struct control *k, struct http_req *r, struct component *c)
{
        double for_s = 0;
        if (query_seconds(r, "for", &for_s))
                return;
        int e = tap_start(c, for_s);
        done(r, e, e == -EBUSY    ? "somebody records its calls already"
                   : e == -EINVAL ? "for is a duration above 0 and at most 1h"
                                  : "out of memory");
}

void control_tap_stop(struct control *k, struct http_req *r, struct component *c)
{
        tap_stop(c, "stopped by an operator");
        done(r, 0, NULL);
}

void control_tap_take(struct http_req *r, struct component *c)
{
        struct buf b = {0};
        struct json_writer w;
        json_write_init(&w, &b);
        if (tap_take(c, &w))
                control_reply(r, 200, &b);
        else
                control_refuse(r, 404, "nobody records its calls");
        buf_fini(&b);
}

/* ---- single calls ---- */

static bool is_method(const char *m)
{
        size_t slashes = 0;
        for (size_t i = 0; m[i]; i++) {
                bool word = (m[i] >= 'a' && m[i] <= 'z') || (m[i] >= 'A' && m[i] <= 'Z') || (m[i] >= '0' && m[i] <= '9');
                slashes += m[i] == '/';
                if (!(word || m[i] == '.' || m[i] == '_' || m[i] == '/') || i > METHOD_MAX)
                        return false;
        }
        return m[0] == '/' && slashes == 2;
}

void control_call(struct control *k, struct http_req *r, struct component *c)
{
        const char *method = control_query(r, "method");
        struct str req, resp = STR("");
        struct rpc_status st = {0};
        struct buf b = {0};
        struct json_writer w;
        int e = http_req_body(r, &req);
        if (e || !method || !is_method(method)) {
                control_refuse(r, e == -EMSGSIZE ? 413 : 400, e ? "the message is too long, or did not come whole" : "method is a gRPC method, /package.Service/Name");
                return;
        }
        int code = component_call_bytes(c, r->arena, method, req, &resp, &st);
        json_write_init(&w, &b);
        json_object_begin(&w);
        control_number(&w, "code", (uint64_t)code);
        json_kv(&w, "message", code ? st.message : STR(""));
        json_kv(&w, "response", !code && resp.n ? base64_encode(r->arena, resp) : STR(""));
        json_object_end(&w);
        control_reply(r, 200, &b);
        buf_fini(&b);
}
