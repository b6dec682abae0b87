/*
 * The conformance kit for name resolvers: addresses are addresses, what nobody knows is said so, and a resolver that makes sidecars
 * known takes that back when another sidecar takes the instance's place.
 */
#include <ctype.h>
#include <unistd.h>

#include "ctl/conform.h"
#include "plugin/v1/nameresolution.pb-c.h"

#define SERVICE "/microdapr.plugin.v1.NameResolution/"
#define KNOWN_S (c->timeout_s * 0.6) /* 6 s */
#define POLL_S 0.1
enum { MANY = 16, ADDRESSES_MAX = 1000, ID_BYTES = 300, PORT = 50002 };

typedef Microdapr__Plugin__V1__NameResolveResponse resolved_t;
typedef Microdapr__Plugin__V1__NameResolutionInitRequest init_t;

static int resolve(struct conform *c, struct arena *a, const char *id, const char **failed, size_t n_failed, resolved_t **ret)
{
        Microdapr__Plugin__V1__NameResolveRequest req = MICRODAPR__PLUGIN__V1__NAME_RESOLVE_REQUEST__INIT;
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md, .timeout_s = c->timeout_s};
        req.id = id;
        req.namespace_ = "default";
        req.port = PORT;
        req.failed = failed;
        req.n_failed = n_failed;
        c->status = (struct rpc_status){0};
        return rpc_unary_pb(c->ch, a, SERVICE "Resolve", &req.base, &microdapr__plugin__v1__name_resolve_response__descriptor, ret, &o, &c->status);
}

/* host:port, IPv6 hosts in brackets. */
static bool is_address(struct str s)
{
        ptrdiff_t colon = -1;
        long port = 0;
        for (size_t i = 0; i < s.n; i++) {
                if (!isgraph((unsigned char)s.p[i]) || s.p[i] == '/')
                        return false;
                if (s.p[i] == ':')
                        colon = (ptrdiff_t)i;
        }
        if (colon < 1 || (size_t)colon + 1 == s.n || s.n - (size_t)colon > 6)
                return false;
        for (size_t i = (size_t)colon + 1; i < s.n; i++) {
                if (!isdigit((unsigned char)s.p[i]))
                        return false;
                port = port * 10 + (s.p[i] - '0');
        }
        struct str host = str_n(s.p, (size_t)colon);
        bool bracketed = host.p[0] == '[' && host.p[host.n - 1] == ']';
        return port > 0 && port < 65536 && (bracketed || str_chr(host, ':') < 0);
}

static const char *check_addresses(struct conform *c, const resolved_t *r)
{
        MUST(r->n_addresses <= ADDRESSES_MAX, "it gives more than 1,000 addresses");
        for (size_t i = 0; i < r->n_addresses; i++)
                MUST(is_address(str_of(r->addresses[i])), conform_text(c, "'%s' is no address: host:port, IPv6 hosts in brackets", r->addresses[i]));
        return NULL;
}

/* Init of another component of the process, for another sidecar. NULL or what is wrong. */
static const char *init_as(struct conform *c, struct conform *other, const char *instance, const char *app_id)
{
        init_t *req = pb_unpack(&c->call, &microdapr__plugin__v1__name_resolution_init_request__descriptor, c->init);
        MUST(req && req->instance, "out of memory");
        *other = *c;
        other->md[0].value = str_of(instance);
        req->instance->app_id = app_id;
        req->instance->internal_port = PORT + 1;
        struct rpc_opts o = {.md = other->md, .n_md = other->n_md, .timeout_s = c->timeout_s};
        struct str ignored;
        c->status = (struct rpc_status){0};
        TRY(rpc_unary(c->ch, &c->call, SERVICE "Init", pb_pack(&c->call, &req->base), &ignored, &o, &c->status), "Init of a second component");
        return NULL;
}

/* A resolver by rule gives an address for any name. */
static bool knows_all(struct conform *c)
{
        resolved_t *r;
        return resolve(c, &c->call, "conformance-nobody-has-this-name", NULL, 0, &r) == 0 && r->n_addresses;
}

static const char *unknown_apps(struct conform *c)
{
        resolved_t *r;
        double end = loop_now_exact() + c->timeout_s;
        int code;
        if (knows_all(c))
                return conform_skip(c, "it gives every name an address, by a rule");
        while ((code = resolve(c, &c->call, "conformance-unknown-app", NULL, 0, &r)) == 0) { /* nothing yet: ask again in a moment */
                HOLD(check_addresses(c, r));
                MUST(!r->n_addresses, "an app that nobody knows has an address");
                MUST(loop_now_exact() < end, "it never says that it does not know an app");
                fiber_sleep(POLL_S);
        }
        MUST(code != RPC_DEADLINE_EXCEEDED, conform_wrong(c, "an app that nobody knows"));
        return c->status.message.n ? NULL : "an app that nobody knows is an error without a text";
}

/* The code; waits for addresses while there are none yet. */
static int resolve_soon(struct conform *c, const char *id, bool there, resolved_t **ret)
{
        double end = loop_now_exact() + KNOWN_S;
        for (;;) {
                int code = resolve(c, &c->call, id, NULL, 0, ret);
                bool hit = code == 0 && (*ret)->n_addresses;
                if (hit == there || loop_now_exact() >= end)
                        return code;
                fiber_sleep(POLL_S);
        }
}

static bool has_port(const resolved_t *r, int port)
{
        char text[16];
        snprintf(text, sizeof text, ":%d", port);
        for (size_t i = 0; i < r->n_addresses; i++) {
                size_t n = strlen(r->addresses[i]), m = strlen(text);
                if (n > m && strcmp(r->addresses[i] + n - m, text) == 0)
                        return true;
        }
        return false;
}

static const char *own_sidecar(struct conform *c)
{
        resolved_t *r;
        int code = resolve_soon(c, "conformance", true, &r);
        if (code)
                return conform_skip(c, conform_text(c, "its own sidecar cannot be found (%.*s): it makes none known", STR_FMT(c->status.message)));
        HOLD(check_addresses(c, r));
        MUST(r->n_addresses, "its own sidecar has no address");
        return has_port(r, PORT) ? NULL : conform_text(c, "%s is not the port that its sidecar has for others (%d)", r->addresses[0], PORT);
}

static const char *another_takes_its_place(struct conform *c)
{
        struct conform b;
        resolved_t *r;
        const char *first = arena_printf(&c->call, "conformance-%d-first", (int)getpid()), *second = arena_printf(&c->call, "conformance-%d-second", (int)getpid());
        if (knows_all(c))
                return conform_skip(c, "it gives every name an address, by a rule");
        HOLD(init_as(c, &b, "conformance-other", first));
        if (resolve_soon(c, first, true, &r))
                return conform_skip(c, "it makes no sidecar known");
        MUST(r->n_addresses && has_port(r, PORT + 1), "a second component's sidecar is not found at its port");
        HOLD(init_as(c, &b, "conformance-other", second));
        MUST(resolve_soon(c, second, true, &r) == 0 && r->n_addresses, "what a component's second Init makes known is not found");
        int code = resolve_soon(c, first, false, &r);
        MUST(code != 0 || !r->n_addresses, "what its first Init made known was not taken back by the second");
        return own_sidecar(c);
}

/* Questions at once, each on its own fiber. */
struct question {
        struct conform c;
        const char *id, *fault;
};

static void ask(void *arg)
{
        struct question *q = arg;
        struct arena a;
        resolved_t *r;
        arena_init(&a, 0);
        int code = resolve(&q->c, &a, q->id, NULL, 0, &r);
        if (code == RPC_UNAVAILABLE || code == RPC_DEADLINE_EXCEEDED)
                q->fault = conform_wrong(&q->c, conform_text(&q->c, "the name '%.40s'", q->id));
        else if (code == 0)
                q->fault = check_addresses(&q->c, r);
        arena_fini(&a);
}

static const char *ask_all(struct conform *c, const char *const *ids, size_t n)
{
        struct question *q = arena_zalloc(&c->call, n * sizeof *q);
        struct scope s;
        MUST(q, "out of memory");
        scope_init(&s);
        for (size_t i = 0; i < n; i++) {
                q[i].c = *c;
                q[i].c.timeout_s = c->timeout_s * 3; /* they wait for each other */
                q[i].id = ids[i];
                fiber_go_flags(&s, "question", FIBER_BIG, ask, &q[i]);
        }
        scope_join(&s);
        for (size_t i = 0; i < n; i++)
                HOLD(q[i].fault);
        return NULL;
}

static const char *odd_names(struct conform *c)
{
        char *big = arena_alloc(&c->call, ID_BYTES + 1);
        MUST(big, "out of memory");
        memset(big, 'n', ID_BYTES);
        big[ID_BYTES] = '\0';
        const char *const ids[] = {"", "..", "a..b", "with space", "a/b:1", "%s%n", "\xc3\xbcml\xc3\xa4ut", "'; DROP TABLE hosts; --", "{{.}}", big};
        return ask_all(c, ids, sizeof ids / sizeof *ids);
}

static const char *failed_addresses(struct conform *c)
{
        const char *failed[] = {"127.0.0.1:50002", "[::1]:1", "not an address"};
        resolved_t *r;
        int code = resolve(c, &c->call, "conformance", failed, 3, &r);
        MUST(code != RPC_UNAVAILABLE && code != RPC_DEADLINE_EXCEEDED, conform_wrong(c, "a question with addresses that failed"));
        return code ? NULL : check_addresses(c, r);
}

static const char *many_at_once(struct conform *c)
{
        const char *ids[MANY];
        for (size_t i = 0; i < MANY; i++)
                ids[i] = "conformance";
        return ask_all(c, ids, MANY);
}

const struct conform_check conform_name_checks[] = {
        {"an app that nobody knows", unknown_apps},
        {"its own sidecar is found", own_sidecar},
        {"another sidecar takes its place", another_takes_its_place},
        {"odd names are no harm", odd_names},
        {"addresses that failed may be named", failed_addresses},
        {"16 questions at once", many_at_once},
};
const size_t conform_name_n = sizeof conform_name_checks / sizeof *conform_name_checks;
