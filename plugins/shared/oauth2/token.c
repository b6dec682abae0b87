/* The token endpoint: what is posted to it, and what it may answer. Some servers answer errors with 200 and some answer forms. */
#include "plugins/shared/oauth2/token.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/shared/web/web.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"

enum { ANSWER_BYTES_MAX = 1 << 20 };
#define ASK_S 30.0

int oauth2_client_init(struct oauth2_client *c, const char *url, const char *id, const char *secret, enum oauth2_style style,
                       const char **ret_err)
{
        size_t n = strlen(url);
        int r;

        *c = (struct oauth2_client){.id = strdup(id), .secret = strdup(secret), .style = style, .slash = n && url[n - 1] == '/'};
        r = c->id && c->secret ? web_site_new(&c->site, url, ret_err) : -ENOMEM;
        if (r)
                oauth2_client_fini(c);
        return r;
}

void oauth2_client_fini(struct oauth2_client *c)
{
        web_site_free(c->site);
        free(c->id);
        free(c->secret);
        *c = (struct oauth2_client){0};
}

/* Percent-coded, a space as a plus. */
static struct str form(struct arena *a, const char *s)
{
        struct str e = url_escape(a, str_of(s));
        char *to = e.p ? arena_alloc(a, e.n + 1) : NULL;
        size_t n = 0;

        for (size_t i = 0; to && i < e.n; i++) {
                bool space = str_has_prefix(str_skip(e, i), STR("%20"));
                to[n++] = space ? '+' : e.p[i];
                i += space ? 2 : 0;
        }
        return to ? str_n(to, n) : STR_NULL;
}

int oauth2_put_param(struct buf *b, struct arena *a, const char *name, const char *value)
{
        struct str n = form(a, name), v = form(a, value);

        if (!n.p || !v.p)
                return -ENOMEM;
        return buf_printf(b, "%s%.*s=%.*s", buf_len(b) ? "&" : "", STR_FMT(n), STR_FMT(v));
}

/* ---- the answer ---- */

struct answer {
        struct str token, type, error, description;
        double expires_in;
};

static struct str *text_field(struct answer *x, struct str name)
{
        return str_eqz(name, "access_token")      ? &x->token
             : str_eqz(name, "token_type")        ? &x->type
             : str_eqz(name, "error")             ? &x->error
             : str_eqz(name, "error_description") ? &x->description
                                                  : NULL;
}

static double seconds(struct arena *a, struct str s)
{
        const char *z = arena_strdup(a, s);
        double v = z ? strtod(z, NULL) : 0;
        return isfinite(v) && v > 0 ? fmin(v, 2147483647) : 0;
}

static bool read_json(struct arena *a, struct str body, struct answer *x)
{
        struct json_reader r;
        struct str name, text;
        double number;

        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return false;
        while (json_next_member(&r, a, &name)) {
                struct str *to = text_field(x, name);
                if (to && json_read_string(&r, a, to))
                        continue;
                if (str_eqz(name, "expires_in") && json_read_double(&r, &number))
                        x->expires_in = number > 0 ? number : 0;
                else if (str_eqz(name, "expires_in") && json_read_string(&r, a, &text))
                        x->expires_in = seconds(a, text);
                else
                        json_skip(&r);
        }
        return json_at_end(&r);
}

static void read_form(struct arena *a, struct str body, struct answer *x)
{
        struct str key, value;

        while (query_next(a, &body, &key, &value)) {
                struct str *to = text_field(x, key);
                if (to)
                        *to = value;
                else if (str_eqz(key, "expires_in"))
                        x->expires_in = seconds(a, value);
        }
}

static struct str type_name(struct str t)
{
        return t.n == 0 || str_ieq(t, STR("bearer")) ? STR("Bearer") : str_ieq(t, STR("mac")) ? STR("MAC") : str_ieq(t, STR("basic")) ? STR("Basic") : t;
}

static bool is_header_text(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
                        return false;
        return s.n > 0;
}

static int read_answer(struct arena *a, const struct web_answer *w, struct oauth2_token *ret, const char **ret_why)
{
        struct answer x = {0};
        struct str type = w->content_type;
        bool ok = w->status >= 200 && w->status <= 299;

        if (str_has_prefix(type, STR("application/x-www-form-urlencoded")) || str_has_prefix(type, STR("text/plain")))
                read_form(a, w->body, &x);
        else if (!read_json(a, w->body, &x) && ok) {
                *ret_why = "oauth2: cannot parse json";
                return -EBADMSG;
        }
        if (x.error.n)
                *ret_why = arena_printf(a, "oauth2: \"%.*s\" \"%.*s\"", STR_FMT(x.error), STR_FMT(x.description));
        else if (!ok)
                *ret_why = arena_printf(a, "oauth2: cannot fetch token: %d %s", w->status, http_status_text(w->status));
        else if (!is_header_text(x.token) || !is_header_text(type_name(x.type)))
                *ret_why = "oauth2: server response missing access_token";
        else {
                ret->header = arena_printf(a, "%.*s %.*s", STR_FMT(type_name(x.type)), STR_FMT(x.token));
                ret->expires_in_s = x.expires_in;
                return ret->header ? 0 : -ENOMEM;
        }
        return -EACCES;
}

/* ---- the question ---- */

static const char *basic(const struct oauth2_client *c, struct arena *a)
{
        struct str id = form(a, c->id), secret = form(a, c->secret), both;

        if (!id.p || !secret.p)
                return NULL;
        both = str_of(arena_printf(a, "%.*s:%.*s", STR_FMT(id), STR_FMT(secret)));
        both = both.p ? base64_encode(a, both) : both;
        return both.p ? arena_printf(a, "Basic %.*s", STR_FMT(both)) : NULL;
}

static int ask(struct oauth2_client *c, struct arena *a, enum oauth2_style style, const struct oauth2_param *params, size_t n,
               struct oauth2_token *ret, const char **ret_why)
{
        struct http_header h[] = {{STR("Content-Type"), STR("application/x-www-form-urlencoded")}, {STR("Accept"), STR("application/json")},
                                  {STR("Authorization"), STR("")}};
        const char *auth = style == OAUTH2_IN_HEADER ? basic(c, a) : "";
        struct web_answer answer;
        struct buf b = {0};
        int r = auth ? 0 : -ENOMEM;

        for (size_t i = 0; !r && i < n; i++)
                r = oauth2_put_param(&b, a, params[i].name, params[i].value);
        if (!r && style == OAUTH2_IN_PARAMS && *c->id)
                r = oauth2_put_param(&b, a, "client_id", c->id);
        if (!r && style == OAUTH2_IN_PARAMS && *c->secret)
                r = oauth2_put_param(&b, a, "client_secret", c->secret);
        h[2].value = str_of(auth);
        if (!r)
                r = web_request(c->site, a, "POST", c->slash ? "/" : "", h, *auth ? 3 : 2, buf_str(&b), ANSWER_BYTES_MAX, &answer, ret_why);
        buf_fini(&b);
        return r ? r : read_answer(a, &answer, ret, ret_why);
}

int oauth2_token_get(struct oauth2_client *c, struct arena *a, const struct oauth2_param *params, size_t n, struct oauth2_token *ret,
                     const char **ret_why)
{
        double old = fiber_set_deadline(loop_now_exact() + ASK_S);
        enum oauth2_style style = c->style ? c->style : OAUTH2_IN_HEADER;
        int r;

        *ret_why = "out of memory";
        r = ask(c, a, style, params, n, ret, ret_why);
        if (r && r != -ENOMEM && !c->style) {
                style = OAUTH2_IN_PARAMS;
                r = ask(c, a, style, params, n, ret, ret_why);
        }
        if (!r)
                c->style = style;
        fiber_restore_deadline(old);
        return r;
}
