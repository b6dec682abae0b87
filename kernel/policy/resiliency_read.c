/*
 * Reading Resiliency resources. The document's form is checked first, as decoding into the reference's structs does (names without
 * regard to case, scalars for texts); then policies and targets are taken in the order of the document, and the first fault ends
 * the reading: what stands before it stays.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/policy/resiliency_internal.h"
#include "sdk/base/flags.h"
#include "sdk/base/log.h"

struct reader {
        struct resiliency *r;
        struct arena *a;     /* of error texts */
        const char *err;     /* the first fault */
        int status;          /* 0, -EINVAL, -ENOMEM */
        bool form;           /* only checks the form */
};

static int no_memory(struct reader *rd)
{
        return rd->status = rd->status ? rd->status : -ENOMEM;
}

__attribute__((format(printf, 2, 3))) static int fault(struct reader *rd, const char *fmt, ...)
{
        va_list ap;
        if (rd->status)
                return rd->status;
        va_start(ap, fmt);
        rd->err = arena_vprintf(rd->a, fmt, ap);
        va_end(ap);
        return rd->status = rd->err ? -EINVAL : -ENOMEM;
}

/* ---- scalars ---- */

/* Text of a node, "" when it is absent or null; key names it in errors. */
static const char *text_of(struct reader *rd, const struct yaml_node *n, struct str key)
{
        struct str s = STR_NULL;
        if (yaml_is_null(n))
                return "";
        int r = yaml_string(&rd->r->arena, n, YAML_1_1, &s);
        if (r == -ENOMEM)
                no_memory(rd);
        else if (r)
                fault(rd, "%s", yaml_error(rd->a, n, "%.*s must be a text", STR_FMT(key)));
        const char *z = s.p ? arena_strdup(&rd->r->arena, s) : "";
        if (!z)
                no_memory(rd);
        return z ? z : "";
}

static const char *text(struct reader *rd, const struct yaml_node *map, const char *key)
{
        return text_of(rd, yaml_get_fold(map, key), str_of(key));
}

/* An integer member; false = absent. */
static bool integer(struct reader *rd, const struct yaml_node *map, const char *key, int64_t *ret)
{
        const struct yaml_node *n = yaml_get_fold(map, key);
        struct yaml_value v;
        if (yaml_is_null(n))
                return false;
        int r = n->kind == YAML_SCALAR ? yaml_resolve(rd->a, n, YAML_1_1, &v) : -EINVAL;
        if (!r && v.type == YAML_INT) {
                *ret = v.i;
                return true;
        }
        if (!r && v.type == YAML_FLOAT && v.d >= -0x1p62 && v.d <= 0x1p62 && (double)(int64_t)v.d == v.d) {
                *ret = (int64_t)v.d;
                return true;
        }
        fault(rd, "%s", yaml_error(rd->a, n, "%s must be a whole number", key));
        return false;
}

static const struct yaml_node *map_at(struct reader *rd, const struct yaml_node *map, const char *key)
{
        const struct yaml_node *n = yaml_get_fold(map, key);
        if (yaml_is_null(n))
                return NULL;
        if (n->kind == YAML_MAP)
                return n;
        fault(rd, "%s", yaml_error(rd->a, n, "%s must be a map", key));
        return NULL;
}

/* Milliseconds as a plain number, or a duration of Go. */
static bool read_duration(const char *z, int64_t *ret_ns)
{
        char *end;
        bool number = *z == '-' || *z == '+' || (*z >= '0' && *z <= '9');
        errno = 0;
        long long ms = number ? strtoll(z, &end, 10) : 0;
        if (number && !*end && end != z && !errno && !__builtin_mul_overflow((int64_t)ms, 1000000, ret_ns))
                return true;
        return parse_duration(str_of(z), ret_ns) == 0;
}

/* ---- maps ---- */

/* Puts a value under a name; what stood there stays in the arena. */
static int put(struct reader *rd, struct map *m, struct str name, void *value)
{
        return value && map_set(m, name, value) == 0 ? 0 : no_memory(rd);
}

/* Calls fn for each entry of a map of maps until one fails. */
static void each(struct reader *rd, const struct yaml_node *map, void (*fn)(struct reader *rd, struct str name, const struct yaml_node *n))
{
        for (const struct yaml_item *i = map ? map->items : NULL; i && !rd->status; i = i->next) {
                if (i->value && !yaml_is_null(i->value) && i->value->kind != YAML_MAP)
                        fault(rd, "%s", yaml_error(rd->a, i->value, "%.*s must be a map", STR_FMT(i->key->text)));
                else
                        fn(rd, i->key->text, i->value);
        }
}

/* ---- policies ---- */

/* In the words of Go's time.ParseDuration. */
static void bad_duration(struct reader *rd, struct str name, const char *z)
{
        size_t sign = *z == '-' || *z == '+', number = strspn(z + sign, "0123456789."), unit = strcspn(z + sign + number, "0123456789.");
        static const char *const units[] = {"ns", "us", "ms", "s", "m", "h"};
        struct str u = str_n(z + sign + number, unit);
        bool known = false;
        for (size_t i = 0; i < sizeof units / sizeof *units; i++)
                known |= str_eqz(u, units[i]);
        if (!number || known)
                fault(rd, "invalid duration \"%.*s\", %s: time: invalid duration \"%s\"", STR_FMT(name), z, z);
        else if (!unit)
                fault(rd, "invalid duration \"%.*s\", %s: time: missing unit in duration \"%s\"", STR_FMT(name), z, z);
        else
                fault(rd, "invalid duration \"%.*s\", %s: time: unknown unit \"%.*s\" in duration \"%s\"", STR_FMT(name), z, STR_FMT(u), z);
}

static void read_timeouts(struct reader *rd, const struct yaml_node *map)
{
        for (const struct yaml_item *i = map ? map->items : NULL; i && !rd->status; i = i->next) {
                struct str key = i->key->text;
                const char *z = text_of(rd, i->value, key);
                int64_t *ns = arena_new(&rd->r->arena, int64_t);
                if (rd->form)
                        continue;
                if (put(rd, &rd->r->timeouts, key, ns))
                        return;
                if (!read_duration(z, ns))
                        bad_duration(rd, key, z);
        }
}

/* What mapstructure makes of several faults. */
struct faults {
        char text[400];
        size_t len;
        int n;
};

__attribute__((format(printf, 2, 3))) static void add_fault(struct faults *f, const char *fmt, ...)
{
        va_list ap;
        f->len += (size_t)snprintf(f->text + f->len, sizeof f->text - f->len, "\n* ");
        va_start(ap, fmt);
        if (f->len < sizeof f->text)
                f->len += (size_t)vsnprintf(f->text + f->len, sizeof f->text - f->len, fmt, ap);
        va_end(ap);
        if (f->len >= sizeof f->text)
                f->len = sizeof f->text - 1;
        f->n++;
}

/* With quotes around it and backslashes before quotes. */
static const char *quoted(struct arena *a, const char *z)
{
        char *to = arena_alloc(a, 2 * strlen(z) + 3), *p = to;
        if (!to)
                return "";
        *p++ = '"';
        for (; *z; z++) {
                if (*z == '"' || *z == '\\')
                        *p++ = '\\';
                *p++ = *z;
        }
        *p++ = '"';
        *p = '\0';
        return to;
}

static void end_faults(struct reader *rd, const struct faults *f, struct str name)
{
        if (f->n)
                fault(rd, "invalid retry configuration \"%.*s\": %d error(s) decoding:\n%s", STR_FMT(name), f->n, f->text);
}

static void take_duration(struct faults *f, const char *key, const char *z, int64_t *ns)
{
        if (*z && !read_duration(z, ns))
                add_fault(f, "error decoding '%s': invalid duration \"%s\"", key, z);
}

/* One of "400" and "500-504"; the texts are the reference's. */
static bool read_range(struct reader *rd, const char *pattern, int least, int most, struct code_range *ret)
{
        int v[2];
        const char *dash = strchr(pattern, '-'), *names[] = {"start", "end"};
        struct str part[2] = {str_n(pattern, dash ? (size_t)(dash - pattern) : strlen(pattern)), str_of(dash ? dash + 1 : pattern)};
        if (dash && strchr(dash + 1, '-'))
                return fault(rd, "invalid pattern %s, more than one '-' exists", pattern), false;
        for (int i = 0; i < 2; i++) {
                int64_t x = 0;
                size_t at = part[i].n && part[i].p[0] == '+', digits = 0;
                for (; at < part[i].n && part[i].p[at] >= '0' && part[i].p[at] <= '9' && digits < 10; at++, digits++)
                        x = x * 10 + part[i].p[at] - '0';
                if (!digits || at < part[i].n)
                        return fault(rd, "failed to parse %s code %.*s from pattern %s to int, strconv.Atoi: parsing \"%.*s\": invalid syntax",
                                     names[i], STR_FMT(part[i]), pattern, STR_FMT(part[i])), false;
                if (x < least || x > most)
                        return fault(rd, "invalid pattern %s, %s code %" PRId64 " is not valid", pattern, names[i], x), false;
                v[i] = (int)x;
        }
        if (v[1] < v[0])
                return fault(rd, "invalid pattern %s, start value should not bigger than end value", pattern), false;
        *ret = (struct code_range){v[0], v[1]};
        return true;
}

static void read_ranges(struct reader *rd, const char *z, int least, int most, struct code_ranges *ret)
{
        size_t n = 1;
        if (!*z)
                return;
        for (const char *c = z; *c; c++)
                n += *c == ',';
        ret->given = true;
        ret->v = arena_alloc(&rd->r->arena, n * sizeof *ret->v);
        if (!ret->v) {
                no_memory(rd);
                return;
        }
        for (struct str rest = str_of(z), part; rest.p && !rd->status;) {
                part = str_cut(&rest, ',');
                char *one = part.n ? arena_strdup(&rd->r->arena, part) : NULL;
                if (part.n && !one)
                        no_memory(rd);
                else if (one && read_range(rd, one, least, most, &ret->v[ret->n]))
                        ret->n++;
        }
}

static bool is_builtin(struct str name)
{
        static const char *const names[] = {"DaprBuiltInServiceRetries", "DaprBuiltInActorRetries", "DaprBuiltInActorReminderRetries",
                                            "DaprBuiltInInitializationRetries", "DaprBuiltInActorNotFoundRetries"};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (str_eqz(name, names[i]))
                        return true;
        return false;
}

static const struct backoff_conf default_backoff = {.duration_ns = 5000000000, .initial_ns = 500000000, .jitter = 0.5, .multiplier = 1.5,
                                                    .max_interval_ns = 60000000000, .max_elapsed_ns = 900000000000, .max_retries = -1};

static void read_retry(struct reader *rd, struct str name, const struct yaml_node *n)
{
        struct policy_retry *p = arena_new(&rd->r->arena, struct policy_retry);
        const char *policy = text(rd, n, "policy"), *duration = text(rd, n, "duration"), *max_interval = text(rd, n, "maxInterval");
        const struct yaml_node *matching = map_at(rd, n, "matching");
        const char *http = text(rd, matching, "httpStatusCodes"), *grpc = text(rd, matching, "gRPCStatusCodes");
        struct faults f = {0};
        int64_t tries;
        bool has_tries = integer(rd, n, "maxRetries", &tries);
        if (!p)
                no_memory(rd);
        if (rd->form || rd->status)
                return;
        p->backoff = default_backoff;
        if (has_tries)
                p->backoff.max_retries = tries;
        p->backoff.exponential = !strcasecmp(policy, "exponential");
        take_duration(&f, "duration", duration, &p->backoff.duration_ns);
        take_duration(&f, "maxInterval", max_interval, &p->backoff.max_interval_ns);
        if (*policy && !p->backoff.exponential && strcasecmp(policy, "constant"))
                add_fault(&f, "error decoding 'policy': invalid PolicyType \"%s\": unexpected back off policy type: %s", policy, policy);
        end_faults(rd, &f, name);
        if (rd->status)
                return;
        if (str_eqz(name, "DaprBuiltInActorNotFoundRetries")) {
                log_warn(RESILIENCY_SCOPE, "Attempted to override protected policy %.*s which is not allowed. Ignoring provided policy and using default.",
                         STR_FMT(name));
                return;
        }
        if (is_builtin(name) && p->backoff.max_retries < 3) {
                log_warn(RESILIENCY_SCOPE, "Attempted override of %.*s did not meet minimum retry count, resetting to 3.", STR_FMT(name));
                p->backoff.max_retries = 3;
        }
        read_ranges(rd, http, 100, 599, &p->http);
        read_ranges(rd, grpc, 0, 16, &p->grpc);
        if (!rd->status)
                put(rd, &rd->r->retries, name, p);
}

static void read_breaker(struct reader *rd, struct str name, const struct yaml_node *n)
{
        struct breaker_conf *c = arena_new(&rd->r->arena, struct breaker_conf);
        const char *interval = text(rd, n, "interval"), *timeout = text(rd, n, "timeout"), *trip = text(rd, n, "trip");
        struct faults f = {0};
        struct cel_error err;
        int64_t max = 0;
        integer(rd, n, "maxRequests", &max);
        if (!c || !(c->name = arena_strdup(&rd->r->arena, name)))
                no_memory(rd);
        if (rd->form || rd->status)
                return;
        take_duration(&f, "interval", interval, &c->interval_ns);
        if (max < 0)
                add_fault(&f, "cannot parse 'maxRequests', %" PRId64 ".000000 overflows uint", max);
        c->max_requests = max > UINT32_MAX ? UINT32_MAX : (uint32_t)max;
        take_duration(&f, "timeout", timeout, &c->timeout_ns);
        int r = *trip ? cel_compile(&c->trip, str_of(trip), &err) : 0;
        if (r == -EINVAL)
                add_fault(&f, "error decoding 'trip': invalid Expr %s: %s", quoted(rd->a, trip), err.text);
        else if (r)
                no_memory(rd);
        end_faults(rd, &f, name);
        struct breaker_conf *old = map_get(&rd->r->breakers, name);
        if (rd->status || put(rd, &rd->r->breakers, name, c)) {
                cel_free(c->trip);
                return;
        }
        if (old)
                cel_free(old->trip);
}

/* ---- targets ---- */

static struct policy_names read_names(struct reader *rd, const struct yaml_node *n)
{
        return (struct policy_names){text(rd, n, "timeout"), text(rd, n, "retry"), text(rd, n, "circuitBreaker")};
}

static struct target_conf *read_target(struct reader *rd, const struct yaml_node *n)
{
        struct target_conf *t = arena_new(&rd->r->arena, struct target_conf);
        if (!t)
                no_memory(rd);
        else
                t->names = read_names(rd, n);
        return t;
}

static void read_cache_size(struct reader *rd, const struct yaml_node *n, struct target_conf *t, size_t standard)
{
        int64_t size = 0;
        integer(rd, n, "circuitBreakerCacheSize", &size);
        if (!rd->form && size < 0)
                fault(rd, "must provide a positive size");
        if (t)
                t->cache_size = size > 0 ? (size_t)size : standard;
}

static void read_app(struct reader *rd, struct str name, const struct yaml_node *n)
{
        struct target_conf *t = read_target(rd, n);
        read_cache_size(rd, n, t, RESILIENCY_APP_BREAKERS);
        if (!rd->form && !rd->status)
                put(rd, &rd->r->confs[TARGET_APP], name, t);
}

static void read_actor(struct reader *rd, struct str name, const struct yaml_node *n)
{
        struct target_conf *t = read_target(rd, n);
        const char *scope = text(rd, n, "circuitBreakerScope");
        if (!rd->form && t && *t->names.breaker) {
                if (!*scope)
                        fault(rd, "actor circuit breakers must include scope");
                else if (strcmp(scope, "type") && strcmp(scope, "id") && strcmp(scope, "both"))
                        fault(rd, "unknown circuit breaker scope \"%s\"", scope);
                t->scope = strcmp(scope, "type") ? BREAKER_SCOPE_ID : BREAKER_SCOPE_TYPE;
        }
        read_cache_size(rd, n, t, RESILIENCY_ACTOR_BREAKERS);
        if (!rd->form && !rd->status)
                put(rd, &rd->r->confs[TARGET_ACTOR], name, t);
}

static void read_component(struct reader *rd, struct str name, const struct yaml_node *n)
{
        const struct yaml_node *out = map_at(rd, n, "outbound"), *in = map_at(rd, n, "inbound");
        struct target_conf *t = read_target(rd, out);
        if (t)
                t->inbound = read_names(rd, in);
        if (!rd->form && !rd->status)
                put(rd, &rd->r->confs[TARGET_COMPONENT], name, t);
}

/* ---- the document ---- */

static void read_spec(struct reader *rd, const struct yaml_node *doc)
{
        const struct yaml_node *spec = map_at(rd, doc, "spec"), *policies = map_at(rd, spec, "policies"), *targets = map_at(rd, spec, "targets");
        read_timeouts(rd, map_at(rd, policies, "timeouts"));
        each(rd, map_at(rd, policies, "retries"), read_retry);
        each(rd, map_at(rd, policies, "circuitBreakers"), read_breaker);
        each(rd, map_at(rd, targets, "apps"), read_app);
        each(rd, map_at(rd, targets, "actors"), read_actor);
        each(rd, map_at(rd, targets, "components"), read_component);
}

int resiliency_read(struct resiliency *r, const struct yaml_node *doc, struct arena *a, bool *ret_parsed, const char **ret_err)
{
        struct reader rd = {.r = r, .a = a, .form = true};
        read_spec(&rd, doc);
        *ret_parsed = !rd.status;
        if (!rd.status) {
                rd.form = false;
                log_info(RESILIENCY_SCOPE, "Loading Resiliency configuration: %.*s", STR_FMT(r->name));
                read_spec(&rd, doc);
        }
        *ret_err = rd.err;
        return rd.status;
}
