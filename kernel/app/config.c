/*
 * GET /dapr/config: what the app says about its actors. Asked once, when the app is first healthy. An answer other than 200 is an
 * empty configuration; an app that cannot be asked, or answers with something else than JSON, has none.
 */
#include <errno.h>

#include "kernel/app/internal.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"

#define SCOPE "dapr.runtime"

enum { CONFIG_MAX_BYTES = 4 << 20 };

/* Member names as encoding/json takes them: without case. */
static bool is_member(struct str name, const char *want)
{
        return str_ieq(name, str_of(want));
}

static int read_entities(struct app_config *c, struct arena *a, struct json_reader *r)
{
        size_t cap = 0;
        struct str s;

        if (json_read_null(r))
                return 0;
        if (!json_enter_array(r))
                return -EINVAL;
        c->n_entities = 0;
        while (json_next_element(r)) {
                if (c->n_entities == cap) {
                        size_t more = cap ? cap * 2 : 8;
                        c->entities = arena_grow(a, c->entities, cap * sizeof *c->entities, more * sizeof *c->entities);
                        cap = more;
                }
                if (!c->entities || !json_read_string(r, a, &s) || !(c->entities[c->n_entities] = arena_strdup(a, s)))
                        return -EINVAL;
                c->n_entities++;
        }
        return r->error ? -EINVAL : 0;
}

static void warn_partitions(struct json_reader *r)
{
        int64_t n;

        if (!json_read_int64(r, &n))
                json_skip(r);
        else if (n > 0)
                log_warn(SCOPE, "remindersStoragePartitions is deprecated and will be removed in future versions");
}

static int parse(struct app_config *c, struct arena *a, struct str json)
{
        struct json_reader r;
        struct str name;
        int e = 0;

        json_read_init(&r, json);
        if (!json_enter_object(&r))
                return -EINVAL;
        while (e == 0 && json_next_member(&r, a, &name)) {
                if (is_member(name, "entities"))
                        e = read_entities(c, a, &r);
                else if (is_member(name, "remindersStoragePartitions"))
                        warn_partitions(&r);
                else
                        json_skip(&r);
        }
        return e || r.error ? -EINVAL : 0;
}

static void take(struct app *p, struct str json)
{
        struct app_config c = {.json = arena_str(&p->config_arena, json)};

        if (!c.json.p || parse(&c, &p->config_arena, c.json))
                return;
        p->config = c;
        log_info(SCOPE, "Application configuration loaded");
}

void app_config_read(struct app *p)
{
        const struct daprd_opts *o = &p->k->opts;
        const struct http_header id = {STR("dapr-app-id"), str_of(o->app_id)};
        struct app_response resp = {0};
        struct arena a;
        int r;

        if (p->config_read)
                return;
        p->config_read = true;
        if (o->disable_config_endpoint) {
                log_warn(SCOPE, "Skipping programmatic dapr configuration loading (see 'disable-init-endpoints' flag/annotation)");
                return;
        }
        if (p->is_grpc)
                return;
        arena_init(&a, 2 * CONFIG_MAX_BYTES);
        r = app_http(p, &a,
                     &(struct app_request){.method = STR("GET"), .path = STR("/dapr/config"), .headers = &id, .n_headers = 1,
                                           .content_type = STR("application/json"), .max_response_bytes = CONFIG_MAX_BYTES},
                     &resp);
        if (r == 0 && resp.status != 200)
                log_info(SCOPE, "Application configuration loaded");
        else if (r == 0)
                take(p, resp.body);
        arena_fini(&a);
}

const struct app_config *app_config(const struct app *p)
{
        return &p->config;
}
