/*
 * An instance: where the API is, the key, the model, and answers that are kept for cacheTTL. The key goes into a header and nowhere
 * else. Operations park on their fiber while the API works, which may be long: nothing else waits for them.
 */
#include "plugins/shared/openai/openai.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "plugins/shared/web/web.h"
#include "sdk/base/loop.h"

enum { ANSWER_BYTES_MAX = 64 << 20, CACHE_ENTRIES = 256, CACHE_ANSWER_MAX = 1 << 20 };

struct cached {
        char *request, *answer;    /* NULL = free */
        size_t answer_n;
        double until;              /* loop time */
};
struct openai {
        struct web_site *site;
        char *key, *model, *suffix;
        bool azure;
        double cache_s;            /* 0 = nothing is kept */
        struct cached cache[CACHE_ENTRIES];
        size_t next;               /* the entry that is given up next */
};

static void cached_clear(struct cached *e)
{
        free(e->request);
        free(e->answer);
        *e = (struct cached){0};
}

void openai_close(void *instance)
{
        struct openai *o = instance;
        web_site_free(o->site);
        if (o->key)
                explicit_bzero(o->key, strlen(o->key));
        for (size_t i = 0; i < CACHE_ENTRIES; i++)
                cached_clear(&o->cache[i]);
        free(o->key);
        free(o->model);
        free(o->suffix);
        free(o);
}

/* The first that is set: the environment counts more than the component, as in the reference. */
static const char *model_of(const char *env, const char *given, const char *otherwise)
{
        const char *v = env ? getenv(env) : NULL;
        return v && *v ? v : given && *given ? given : otherwise;
}

static const char *given(const struct dapr_metadata *md, const char *field, const char *otherwise)
{
        const char *v = dapr_md_string(md, field);
        return v && *v ? v : otherwise;
}

static int set_up(struct dapr_call *c, struct openai *o, const struct dapr_metadata *md, const struct openai_defaults *d)
{
        const char *key = given(md, "key", d->key), *endpoint = given(md, "endpoint", NULL), *version = given(md, "apiVersion", NULL);
        const char *err;
        o->azure = d->azure_model && !strcasecmp(given(md, "apiType", ""), "azure");
        if (o->azure && (!endpoint || !version))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "endpoint and apiVersion must be provided when apiType is set to 'azure'");
        if (!key)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing the OpenAI API key, set it in the component's metadata field 'key'");
        int64_t ttl = dapr_md_duration_ns(md, "responseCacheTTL");
        ttl = ttl > 0 ? ttl : dapr_md_duration_ns(md, "cacheTTL");
        o->cache_s = ttl > 0 ? (double)ttl / 1e9 : 0;
        o->key = strdup(key);
        o->model = strdup(o->azure ? model_of(d->azure_model_env, dapr_md_string(md, "model"), d->azure_model)
                                   : model_of(d->model_env, dapr_md_string(md, "model"), d->model));
        int n = o->azure ? asprintf(&o->suffix, "/openai/deployments/%s/chat/completions?api-version=%s", o->model ? o->model : "", version)
                         : asprintf(&o->suffix, "/chat/completions");
        if (!o->key || !o->model || n < 0) {
                o->suffix = n < 0 ? NULL : o->suffix;
                return -ENOMEM;
        }
        for (const char *p = o->key; *p; p++)
                if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "the API key holds a character that cannot stand in a header");
        int r = web_site_new(&o->site, endpoint ? endpoint : d->endpoint, &err);
        return r == -EINVAL ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "endpoint %s: %s", endpoint ? endpoint : d->endpoint, err) : r;
}

int openai_init(struct dapr_call *c, const struct dapr_metadata *md, const struct openai_defaults *d, void **instance)
{
        struct openai *o = calloc(1, sizeof *o);
        int r = o ? set_up(c, o, md, d) : -ENOMEM;
        if (!r)
                *instance = o;
        else if (o)
                openai_close(o);
        return r;
}

/* ---- the cache ---- */

static struct cached *find(struct openai *o, const char *request)
{
        for (size_t i = 0; i < CACHE_ENTRIES; i++) {
                struct cached *e = &o->cache[i];
                if (e->request && e->until < loop_now())
                        cached_clear(e);
                if (e->request && !strcmp(e->request, request))
                        return e;
        }
        return NULL;
}

static void put(struct openai *o, const char *request, struct str answer)
{
        struct cached *e = &o->cache[o->next++ % CACHE_ENTRIES];
        if (answer.n > CACHE_ANSWER_MAX)
                return;
        cached_clear(e);
        e->request = strdup(request);
        e->answer = malloc(answer.n ? answer.n : 1);
        if (!e->request || !e->answer) {
                cached_clear(e);
                return;
        }
        memcpy(e->answer, answer.p, answer.n);
        e->answer_n = answer.n;
        e->until = loop_now() + o->cache_s;
}

/* ---- a turn ---- */

static int ask(struct dapr_call *c, struct openai *o, struct arena *a, struct str request, struct str *ret)
{
        const char *bearer = o->azure ? o->key : arena_printf(a, "Bearer %s", o->key), *why;
        struct http_header h[] = {{STR("Content-Type"), STR("application/json")},
                                  {STR("Accept"), STR("application/json")},
                                  {o->azure ? STR("api-key") : STR("Authorization"), str_of(bearer)}};
        struct web_answer answer;
        if (!bearer)
                return -ENOMEM;
        int r = web_request(o->site, a, "POST", o->suffix, h, sizeof h / sizeof *h, request, ANSWER_BYTES_MAX, &answer, &why);
        if (r)
                return dapr_fail(c, r == -ETIMEDOUT ? 4 : DAPR_UNAVAILABLE, "%s", why);
        *ret = answer.body;
        if (answer.status == 200)
                return 0;
        struct str text = openai_error(a, answer.body);
        int code = answer.status == 401 || answer.status == 403 ? DAPR_PERMISSION_DENIED
                   : answer.status == 429                       ? DAPR_RESOURCE_EXHAUSTED
                   : answer.status < 500                        ? DAPR_INVALID_ARGUMENT
                                                                : DAPR_UNAVAILABLE;
        return text.n ? dapr_fail(c, code, "API returned unexpected status code: %d: %.*s", answer.status, STR_FMT(text))
                      : dapr_fail(c, code, "API returned unexpected status code: %d", answer.status);
}

static bool is_useful(const struct dapr_converse_result *out)
{
        for (size_t i = 0; i < out->n; i++)
                if (*out->outputs[i].choices->content || out->outputs[i].choices->n_tool_calls)
                        return true;
        return false;
}

static int turn(struct dapr_call *c, struct openai *o, struct arena *a, const char *request, struct dapr_converse_result *out)
{
        struct cached *e = o->cache_s > 0 ? find(o, request) : NULL;
        struct str answer;
        int r = 0;
        if (e)
                answer = str_n(e->answer, e->answer_n);
        else
                r = ask(c, o, a, str_of(request), &answer);
        if (!r)
                r = openai_read(c, answer, out);
        if (!r && !e && o->cache_s > 0)
                put(o, request, answer);
        return r;
}

int openai_converse(struct dapr_call *c, void *instance, const struct dapr_converse *in, struct dapr_converse_result *out)
{
        struct openai *o = instance;
        struct buf request = {0};
        struct arena a = {0};
        int r = openai_write(c, o->model, in, &request);
        if (!r && buf_addc(&request, '\0'))
                r = -ENOMEM;
        if (!r)
                r = turn(c, o, &a, request.p, out);
        if (!r && in->n_tools && !strcmp(in->tool_choice, "required") && !is_useful(out))
                r = dapr_fail(c, DAPR_INTERNAL, "LLM returned empty response with no tool calls despite %zu tools being available", in->n_tools);
        buf_fini(&request);
        arena_fini(&a);
        return r;
}
