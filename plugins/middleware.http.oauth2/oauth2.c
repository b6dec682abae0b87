/*
 * middleware.http.oauth2: signs users in by the authorization code flow. A session is named by a cookie; until it holds a token, requests
 * are sent to the authorization server, which sends them back with a code; then the token goes into a header of each request. Sessions
 * live in this process's memory for SESSION_S after their last use.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#include "plugins/shared/oauth2/token.h"
#include "sdk/base/loop.h"
#include "sdk/base/map.h"
#include "sdk/base/regex.h"
#include "sdk/net/http.h"

#define COOKIE "gosessionsid"
enum { SESSIONS_MAX = 100000, ID_BYTES = 32, ID_TEXT = 2 * ID_BYTES + 1, STATE_TEXT = 37, URL_BYTES_MAX = 8192 };
#define SESSION_S 7200.0
#define SWEEP_S 60.0

struct session {
        char id[ID_TEXT], state[STATE_TEXT];
        char *redirect;          /* where the user wanted to go; NULL = not sent away yet */
        char *token;             /* "Bearer abc" */
        double used_at;
        unsigned uses;           /* requests that look at it now: it stays */
};
struct oauth2 {
        struct arena arena;
        struct oauth2_client client;
        const char *scope, *auth_url, *redirect_url, *header_name;
        struct regex *filter;    /* NULL: every path */
        bool force_https;
        struct map sessions;
        double swept_at;
};

/* ---- sessions ---- */

static void session_free(struct session *s)
{
        free(s->redirect);
        free(s->token);
        free(s);
}

static void sweep(struct oauth2 *o, double now)
{
        if (now - o->swept_at < SWEEP_S)
                return;
        o->swept_at = now;
        for (struct map_entry *e = NULL; (e = map_next(&o->sessions, e));) {
                struct session *s = e->value;
                if (!s->uses && now - s->used_at > SESSION_S) {
                        map_del(&o->sessions, str_of(s->id));
                        session_free(s);
                }
        }
}

static int random_bytes(void *p, size_t n)
{
        return getrandom(p, n, 0) == (ssize_t)n ? 0 : -EIO;
}

/* NULL = there are too many, or no memory. */
static struct session *session_new(struct oauth2 *o, double now)
{
        unsigned char raw[ID_BYTES];
        struct session *s;

        if (o->sessions.count >= SESSIONS_MAX || random_bytes(raw, sizeof raw) || !(s = calloc(1, sizeof *s)))
                return NULL;
        for (size_t i = 0; i < ID_BYTES; i++) {
                static const char hex[] = "0123456789abcdef";
                s->id[2 * i] = hex[raw[i] >> 4];
                s->id[2 * i + 1] = hex[raw[i] & 15];
        }
        s->used_at = now;
        if (map_set(&o->sessions, str_of(s->id), s)) {
                free(s);
                return NULL;
        }
        return s;
}

/* The session that the request's cookie names, or NULL. An id that is not known is never taken over. */
static struct session *session_find(const struct oauth2 *o, const struct dapr_http *x, double now)
{
        for (size_t i = 0; i < x->headers.n; i++) {
                struct str rest = str_of(x->headers.v[i].value), one;
                if (strcasecmp(x->headers.v[i].key, "Cookie") != 0)
                        continue;
                while (rest.p && (one = str_trim(str_cut(&rest, ';')), 1)) {
                        struct session *s;
                        if (!str_has_prefix(one, STR(COOKIE "=")))
                                continue;
                        s = map_get(&o->sessions, str_skip(one, sizeof COOKIE));
                        if (s && now - s->used_at <= SESSION_S)
                                return s;
                }
        }
        return NULL;
}

/* ---- the component ---- */

static void shut(void *instance)
{
        struct oauth2 *o = instance;

        for (struct map_entry *e = NULL; (e = map_next(&o->sessions, e));)
                session_free(e->value);
        map_fini(&o->sessions);
        oauth2_client_fini(&o->client);
        arena_fini(&o->arena);
        free(o);
}

static const char *text(struct oauth2 *o, const struct dapr_metadata *md, const char *name)
{
        const char *v = dapr_md_string(md, name);
        return arena_strdup(&o->arena, str_of(v ? v : ""));
}

static int set_up(struct dapr_call *c, struct oauth2 *o, const struct dapr_metadata *md)
{
        const char *filter = dapr_md_string(md, "pathFilter"), *why = "", *id = text(o, md, "clientID"), *secret = text(o, md, "clientSecret");
        const char *token_url = text(o, md, "tokenURL");
        char *scope = (char *)text(o, md, "scopes");
        int r;

        o->scope = scope;
        o->auth_url = text(o, md, "authURL");
        o->redirect_url = text(o, md, "redirectURL");
        o->header_name = text(o, md, "authHeaderName");
        o->force_https = dapr_md_bool(md, "forceHTTPS");
        if (!id || !secret || !token_url || !scope || !o->auth_url || !o->redirect_url || !o->header_name)
                return -ENOMEM;
        for (char *at = scope; *at; at++)
                if (*at == ',')
                        *at = ' ';
        if (filter && *filter) {
                r = regex_compile(&o->filter, str_of(filter), &o->arena, &why);
                if (r)
                        return r == -EINVAL ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata property 'pathFilter': error parsing regexp: %s", why) : r;
        }
        r = oauth2_client_init(&o->client, token_url, id, secret, OAUTH2_UNKNOWN, &why);
        return r == -EINVAL ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata property 'tokenURL' is %s", why) : r;
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct oauth2 *o = calloc(1, sizeof *o);
        int r;

        if (!o)
                return -ENOMEM;
        arena_init(&o->arena, 0);
        r = set_up(c, o, md);
        if (r)
                shut(o);
        else
                *instance = o;
        return r;
}

/* ---- the flow ---- */

static int redirect(struct dapr_call *c, const char *url)
{
        int r = dapr_http_add_header(c, "Location", url);
        return r ? r : dapr_http_answer(c, 302, "", 0);
}

static int set_cookie(struct dapr_call *c, const struct session *s)
{
        char when[64];
        time_t end = time(NULL) + (time_t)SESSION_S;
        struct tm tm;
        const char *v;

        strftime(when, sizeof when, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&end, &tm));
        v = dapr_printf(c, COOKIE "=%s; Path=/; Expires=%s; HttpOnly; SameSite=Lax", s->id, when);
        return v ? dapr_http_add_header(c, "Set-Cookie", v) : -ENOMEM;
}

/* A random UUID. */
static int new_state(char to[STATE_TEXT])
{
        unsigned char u[16];
        static const char hex[] = "0123456789abcdef";
        size_t n = 0;

        if (random_bytes(u, sizeof u))
                return -EIO;
        u[6] = (u[6] & 0x0f) | 0x40;
        u[8] = (u[8] & 0x3f) | 0x80;
        for (size_t i = 0; i < sizeof u; i++) {
                if (i == 4 || i == 6 || i == 8 || i == 10)
                        to[n++] = '-';
                to[n++] = hex[u[i] >> 4];
                to[n++] = hex[u[i] & 15];
        }
        to[n] = 0;
        return 0;
}

static const char *auth_code_url(const struct oauth2 *o, struct dapr_call *c, const char *state)
{
        const struct oauth2_param p[] = {{"access_type", "offline"}, {"client_id", o->client.id}, {"redirect_uri", o->redirect_url},
                                         {"response_type", "code"}, {"scope", o->scope}, {"state", state}};
        struct arena a;
        struct buf b = {0};
        const char *url = NULL;
        int r = 0;

        arena_init(&a, 0);
        for (size_t i = 0; !r && i < sizeof p / sizeof *p; i++)
                if (*p[i].value)
                        r = oauth2_put_param(&b, &a, p[i].name, p[i].value);
        if (!r)
                url = dapr_printf(c, "%s%c%.*s", o->auth_url, strchr(o->auth_url, '?') ? '&' : '?', STR_FMT(buf_str(&b)));
        buf_fini(&b);
        arena_fini(&a);
        return url;
}

static int send_away(struct dapr_call *c, struct oauth2 *o, struct session *s, const struct dapr_http *x)
{
        const char *url, *back = dapr_printf(c, "%s%s%s", x->raw_path, *x->query ? "?" : "", x->query);
        int r = back ? new_state(s->state) : -ENOMEM;

        if (r)
                return r;
        if (strlen(back) > URL_BYTES_MAX)
                return dapr_http_answer_text(c, 414, NULL);
        if (o->force_https)
                back = dapr_printf(c, "https://%s%s", x->authority, back);
        free(s->redirect);
        s->redirect = back ? strdup(back) : NULL;
        url = auth_code_url(o, c, s->state);
        return s->redirect && url ? redirect(c, url) : -ENOMEM;
}

static int exchange(struct dapr_call *c, struct oauth2 *o, struct session *s, const char *code)
{
        const struct oauth2_param p[] = {{"grant_type", "authorization_code"}, {"code", code}, {"redirect_uri", o->redirect_url}};
        struct oauth2_token token;
        struct arena a;
        const char *why;
        int r;

        arena_init(&a, 0);
        s->uses++;
        r = oauth2_token_get(&o->client, &a, p, *o->redirect_url ? 3 : 2, &token, &why);
        s->uses--;
        if (r == 0) {
                free(s->token);
                s->token = strdup(token.header);
                r = s->token ? redirect(c, s->redirect) : -ENOMEM;
        } else {
                dapr_log(DAPR_LOG_ERROR, "Failed to exchange token: %s", why);
                r = dapr_http_answer_text(c, 500, NULL);
        }
        arena_fini(&a);
        return r;
}

static int come_back(struct dapr_call *c, struct oauth2 *o, struct session *s, const struct dapr_http *x, const char *state)
{
        const char *code = dapr_query_get(c, x->query, "code");

        if (!s->redirect) {
                dapr_log(DAPR_LOG_ERROR, "a request came back from the authorization server for a session that was not sent there");
                return dapr_http_answer_text(c, 500, NULL);
        }
        if (strcmp(state, s->state) != 0)
                return dapr_http_answer_text(c, 400, "invalid state");
        if (!code || !*code)
                return dapr_http_answer_text(c, 400, "code not found");
        return exchange(c, o, s, code);
}

/* 1 = the filter is not for this path. */
static int is_left_out(const struct oauth2 *o, const struct dapr_http *x)
{
        struct arena scratch;
        int r;

        if (!o->filter)
                return 0;
        arena_init(&scratch, 0);
        r = regex_match(o->filter, str_of(x->path), &scratch, NULL);
        arena_fini(&scratch);
        return r < 0 ? r : !r;
}

static int request(struct dapr_call *c, void *instance, struct dapr_http *x)
{
        struct oauth2 *o = instance;
        double now = loop_now_exact();
        struct session *s;
        const char *state;
        int r = is_left_out(o, x);

        if (r)
                return r < 0 ? r : 0;
        sweep(o, now);
        s = session_find(o, x, now);
        if (s && s->token) {
                s->used_at = now;
                return dapr_http_add_header(c, o->header_name, s->token);
        }
        if (!s) {
                s = session_new(o, now);
                if (!s)
                        return dapr_http_answer_text(c, 503, "too many sessions");
                if (set_cookie(c, s))
                        return -ENOMEM;
        }
        s->used_at = now;
        state = dapr_query_get(c, x->query, "state");
        return state && *state ? come_back(c, o, s, x, state) : send_away(c, o, s, x);
}

static const struct dapr_middleware_ops ops = {.mode = DAPR_FIBER, .init = init, .close = shut, .request = request};
static const struct dapr_component_type types[] = {{.type = "middleware.http.oauth2", .versions = "v1", .middleware = &ops}};
static const struct dapr_plugin plugin = {.name = "middleware.http.oauth2", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
