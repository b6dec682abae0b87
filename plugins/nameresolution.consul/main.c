/*
 * nameresolution.consul: sidecars that an agent of Consul knows. Healthy instances of the service that is named as the app; the port
 * is in their meta. With useCache a watch a name, a blocking query, keeps its instances up to date; without, each question goes to the
 * agent. The own sidecar is registered when the configuration says so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "plugins/nameresolution.consul/consul.h"
#include "plugins/nameresolution.consul/schema.h"
#include "sdk/base/loop.h"

enum { WATCH_PAUSE_MIN_S = 1, WATCH_PAUSE_MAX_S = 60, WATCH_WAIT_S = 300, CLOSE_S = 2 };
#define ANSWER_S 1.0 /* the runtime may use an answer so long */

struct list_of_addresses {
        char *v[CONSUL_ADDRESSES_MAX];
        size_t n;
        bool without_port;      /* an instance has none in its meta */
};
struct watch {
        struct consul *s;
        char *app_id;
        struct list_of_addresses now;
        bool known;             /* now is what the agent says */
        uint64_t index;
};

/* ---- answers ---- */

static void clear(struct list_of_addresses *l)
{
        for (size_t i = 0; i < l->n; i++)
                free(l->v[i]);
        *l = (struct list_of_addresses){0};
}

static int take_instance(struct consul *s, struct arena *a, struct str entry, struct list_of_addresses *to)
{
        struct str service = consul_at(entry, "Service");
        const char *port = consul_text(a, consul_at(service, "Meta"), s->port_key), *host = consul_text(a, service, "Address");

        if (host && !*host)
                host = consul_text(a, consul_at(entry, "Node"), "Address");
        if (!port || !host)
                return -ENOMEM;
        if (!*port)
                to->without_port = true;
        if (!*port || !*host || to->n == CONSUL_ADDRESSES_MAX)
                return 0;
        if (asprintf(&to->v[to->n], strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port) < 0)
                return -ENOMEM;
        to->n++;
        return 0;
}

/* 0, -EBADMSG, -ENOMEM. */
static int read_instances(struct consul *s, struct arena *a, struct str body, struct list_of_addresses *to)
{
        struct json_reader r;
        struct str entry;
        int code = 0;

        json_read_init(&r, body);
        if (!json_enter_array(&r))
                return json_read_null(&r) ? 0 : -EBADMSG;
        while (code == 0 && json_next_element(&r) && json_read_raw(&r, &entry))
                code = take_instance(s, a, entry, to);
        return code ? code : r.error ? -EBADMSG : 0;
}

/* Asks for the app's instances; wait: a blocking query that ends when they are others than at *index. */
static int ask(struct consul *s, const char *app_id, uint64_t *index, struct arena *a, struct list_of_addresses *to, const char **ret_err)
{
        const char *path = consul_health_path(s, a, app_id, index == NULL);
        struct web_answer answer;
        int r;

        if (path && index && *index)
                path = arena_printf(a, "%s&index=%llu&wait=%ds", path, (unsigned long long)*index, WATCH_WAIT_S);
        r = consul_request(s, a, "GET", path, index == NULL, STR_NULL, &answer, ret_err);
        if (r)
                return r;
        if ((r = read_instances(s, a, answer.body, to)) == -EBADMSG)
                *ret_err = "the answer is no list of services";
        struct str at = http_headers_get(&answer.headers, "X-Consul-Index");
        uint64_t now = at.p ? strtoull(arena_strdup(a, at), NULL, 10) : 0;
        if (index)
                *index = now < *index ? 0 : now; /* the agent began anew */
        return r;
}

/* ---- watches ---- */

static void watch_fiber(void *arg)
{
        struct watch *w = arg;
        double pause = WATCH_PAUSE_MIN_S;

        while (!fiber_is_cancelled()) {
                struct arena a = {0};
                struct list_of_addresses next = {0};
                const char *err;
                uint64_t before = w->index;
                int r = ask(w->s, w->app_id, &w->index, &a, &next, &err);

                if (r == 0) {
                        clear(&w->now);
                        w->now = next;
                        w->known = true;
                } else {
                        clear(&next);
                        if (!before) /* without a wait: the agent is not there; then each question finds that out */
                                w->known = false;
                        w->index = 0;
                        if (!fiber_is_cancelled())
                                dapr_log(DAPR_LOG_ERROR, "consul service-watcher error: %s, retry in %gs", err, before ? 0 : pause);
                }
                arena_fini(&a);
                if (r == 0 || before)
                        pause = WATCH_PAUSE_MIN_S;
                else if (fiber_sleep(pause) == 0)
                        pause = pause * 2 < WATCH_PAUSE_MAX_S ? pause * 2 : WATCH_PAUSE_MAX_S;
                if (r == 0 && w->index == 0 && fiber_sleep(WATCH_PAUSE_MIN_S)) /* an agent without indexes */
                        break;
        }
}

static struct watch *watch_get(struct consul *s, const char *app_id)
{
        struct watch *w = map_get(&s->watches, str_of(app_id));

        if (w || s->watches.count >= CONSUL_WATCHES_MAX || !(w = calloc(1, sizeof *w)))
                return w;
        w->s = s;
        w->app_id = strdup(app_id);
        if (w->app_id && map_set(&s->watches, str_of(app_id), w) == 0) {
                if (fiber_go(&s->scope, "watch", watch_fiber, w) == 0)
                        return w;
                map_del(&s->watches, str_of(app_id));
        }
        free(w->app_id);
        free(w);
        return NULL;
}

/* ---- resolve ---- */

static int answer(struct dapr_call *c, const struct list_of_addresses *l, struct dapr_addresses *out)
{
        const char **v = dapr_alloc(c, l->n * sizeof *v);

        for (size_t i = 0; v && i < l->n; i++)
                if (!(v[out->n++] = dapr_strdup(c, l->v[i])))
                        return -ENOMEM;
        out->v = v;
        out->ttl_s = ANSWER_S;
        return v ? 0 : -ENOMEM;
}

static int resolve(struct dapr_call *c, void *instance, const struct dapr_resolve *in, struct dapr_addresses *out)
{
        struct consul *s = instance;
        struct watch *w = s->use_cache ? watch_get(s, in->id) : NULL;
        struct list_of_addresses l = {0};
        struct arena a = {0};
        const char *err = "";
        int r;

        if (w && w->known && w->now.n)
                return answer(c, &w->now, out);
        r = ask(s, in->id, NULL, &a, &l, &err);
        if (r)
                r = dapr_fail(c, DAPR_INTERNAL, "failed to query healthy consul services: %s", err);
        else if (l.n)
                r = answer(c, &l, out);
        else if (l.without_port)
                r = dapr_fail(c, DAPR_NOT_FOUND, "target service AppID '%s' found but %s missing from meta", in->id, s->port_key);
        else
                r = dapr_fail(c, DAPR_NOT_FOUND, "no healthy services found with AppID '%s'", in->id);
        clear(&l);
        arena_fini(&a);
        return r;
}

static int ping(struct dapr_call *c, void *instance)
{
        struct arena a = {0};
        struct web_answer out;
        const char *err;
        int r = consul_request(instance, &a, "GET", "/v1/agent/self", false, STR_NULL, &out, &err);

        if (r)
                r = dapr_fail(c, DAPR_UNAVAILABLE, "%s", err);
        arena_fini(&a);
        return r;
}

/* ---- life ---- */

static int introduce(struct dapr_call *c, struct consul *s)
{
        struct arena a = {0};
        struct web_answer out;
        const char *err;
        bool registers = s->registration.p != NULL;
        int r = registers ? consul_request(s, &a, "PUT", "/v1/agent/service/register", false, s->registration, &out, &err)
                          : consul_request(s, &a, "GET", "/v1/agent/self", false, STR_NULL, &out, &err);

        if (r)
                r = dapr_fail(c, DAPR_UNAVAILABLE, "%s: %s", registers ? "failed to register consul service" : "failed check on consul agent", err);
        else if (registers)
                dapr_log(DAPR_LOG_INFO, "service:%s registered on consul agent", s->name);
        s->registered = r == 0 && registers;
        arena_fini(&a);
        return r;
}

static void take_back(struct consul *s)
{
        struct arena a = {0};
        struct web_answer out;
        const char *err, *path = arena_printf(&a, "/v1/agent/service/deregister/%.*s", STR_FMT(url_escape(&a, str_of(s->id))));
        double old = fiber_set_deadline(loop_now() + CLOSE_S);

        if (consul_request(s, &a, "PUT", path, false, STR_NULL, &out, &err))
                dapr_log(DAPR_LOG_ERROR, "failed to deregister consul service: %s", err);
        else
                dapr_log(DAPR_LOG_INFO, "deregistered service from consul");
        fiber_restore_deadline(old);
        arena_fini(&a);
}

static void close_resolver(void *instance)
{
        struct consul *s = instance;

        scope_cancel(&s->scope);
        scope_join(&s->scope);
        if (s->registered && s->deregister)
                take_back(s);
        for (struct map_entry *e = NULL; (e = map_next(&s->watches, e));) {
                struct watch *w = e->value;
                clear(&w->now);
                free(w->app_id);
                free(w);
        }
        map_fini(&s->watches);
        web_site_free(s->site);
        for (size_t i = 0; i < s->n_headers; i++)
                explicit_bzero((char *)s->headers[i].value.p, s->headers[i].value.n);
        arena_fini(&s->arena);
        free(s);
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct consul *s = calloc(1, sizeof *s);
        int r;

        if (!s)
                return -ENOMEM;
        scope_init(&s->scope);
        r = consul_configure(c, s);
        if (r == 0)
                r = introduce(c, s);
        if (r)
                close_resolver(s);
        else
                *instance = s;
        return r;
}

static const struct dapr_name_ops ops = {.mode = DAPR_FIBER, .init = init, .close = close_resolver, .ping = ping, .resolve = resolve};
static const struct dapr_component_type types[] = {{.type = "nameresolution.consul", .versions = "v1", .names = &ops},
                                                   {.type = "nameresolution.hashicorp.consul", .versions = "v1", .names = &ops}};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &(struct dapr_plugin){"nameresolution.consul", "1.0.0", types, 2});
}
