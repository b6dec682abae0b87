/*
 * Metadata values at the moment of start: environment references, secrets, templates, in the reference's order and with its log
 * lines. Values are secret: they never stand in a log line or an error.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "kernel/opts.h"
#include "kernel/resources/resources.h"
#include "sdk/base/buf.h"
#include "sdk/base/log.h"
#include "sdk/base/utf8.h"

static const char scope[] = "dapr.runtime.processor.secret";
enum { UUID_TEXT = 37, ENV_NAME_MAX = 1024 };
enum { UNREADY = 1, NO_STORE_NAMED = 2 }; /* besides 0 and -errno, of one item */

static const char *store_of(const struct component_spec *c, const struct daprd_opts *o)
{
        return !*c->secret_store && strcmp(o->mode, "kubernetes") == 0 ? "kubernetes" : c->secret_store;
}

static bool reads_environment(const struct metadata_item *m)
{
        return !m->value && m->env_ref;
}

const char *component_needs_store(const struct component_spec *c, const struct daprd_opts *o)
{
        for (size_t i = 0; i < c->n_metadata && *store_of(c, o); i++)
                if (!reads_environment(&c->metadata[i]) && c->metadata[i].secret_name)
                        return store_of(c, o);
        return NULL;
}

/* ---- environment ---- */

/* The allow-list is searched as the reference does: the first place where the name occurs must be a whole word. */
static bool env_is_allowed(const char *name, const char *allow_list)
{
        char upper[ENV_NAME_MAX];
        size_t n = strlen(name);

        if (n == 0 || n >= sizeof upper)
                return false;
        for (size_t i = 0; i <= n; i++)
                upper[i] = (char)toupper((unsigned char)name[i]);
        if (strcmp(upper, "APP_API_TOKEN") == 0 || strncmp(upper, "DAPR_", 5) == 0 || strchr(upper, ' '))
                return false;
        if (!allow_list || !*allow_list)
                return true;
        const char *at = strstr(allow_list, upper);
        return at && (at[n] == '\0' || at[n] == ' ') && (at == allow_list || at[-1] == ' ');
}

static const char *read_env(struct component_spec *c, const struct metadata_item *m, const struct daprd_opts *o)
{
        if (env_is_allowed(m->env_ref, o->env_keys)) {
                const char *v = getenv(m->env_ref);
                return v ? v : "";
        }
        log_warn(scope, "Component %s references an env variable that isn't allowed: %s", c->name, m->env_ref);
        return "";
}

/* ---- Go string literals: values from outside that look like one are unquoted, as the reference's String() does ---- */

static int hex_of(const char *s, int n, uint32_t *ret)
{
        *ret = 0;
        for (int i = 0; i < n; i++) {
                if (!isxdigit((unsigned char)s[i]))
                        return -EINVAL;
                *ret = *ret << 4 | (uint32_t)(s[i] <= '9' ? s[i] - '0' : (s[i] | 0x20) - 'a' + 10);
        }
        return n;
}

/* One escape after its backslash. Writes to *out; returns the bytes read or -EINVAL. */
static int unescape(const char *s, char quote, char **out)
{
        static const char plain[] = "a\ab\bf\fn\nr\rt\tv\v\\\\";
        uint32_t code;
        int n;

        for (size_t i = 0; i + 1 < sizeof plain; i += 2) {
                if (*s == plain[i]) {
                        *(*out)++ = plain[i + 1];
                        return 1;
                }
        }
        if (*s == quote) {
                *(*out)++ = quote;
                return 1;
        }
        if (*s >= '0' && *s <= '7') {
                code = 0;
                for (n = 0; n < 3; n++) {
                        if (s[n] < '0' || s[n] > '7')
                                return -EINVAL;
                        code = code * 8 + (uint32_t)(s[n] - '0');
                }
                if (code > 255)
                        return -EINVAL;
                *(*out)++ = (char)code;
                return 3;
        }
        n = hex_of(s + 1, *s == 'x' ? 2 : *s == 'u' ? 4 : *s == 'U' ? 8 : 0, &code);
        if (n <= 0)
                return -EINVAL;
        if (n == 2)
                *(*out)++ = (char)code;
        else if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
                return -EINVAL;
        else
                *out += utf8_put(*out, code);
        return n + 1;
}

/* The text between the quotes, or the value itself when it is no whole literal. */
static const char *unquote(struct arena *a, const char *value)
{
        size_t n = strlen(value);
        char quote = value[0];

        if (n < 2 || value[n - 1] != quote || !strchr("\"'`", quote))
                return value;
        char *copy = arena_alloc(a, n), *out = copy;
        if (!copy)
                return NULL;
        size_t chars = 0;
        for (const char *s = value + 1, *end = value + n - 1; s < end; chars++) {
                if (*s == quote || (*s == '\n' && quote != '`'))
                        return value;
                if (*s == '\\' && quote != '`') {
                        int used = s + 1 < end ? unescape(s + 1, quote, &out) : -EINVAL;
                        if (used < 0 || s + 1 + used > end)
                                return value;
                        s += 1 + used;
                } else if (quote == '`' && *s == '\r') {
                        s++;
                } else {
                        int len = quote == '\'' ? utf8_char_len(s, (size_t)(end - s)) : 1;
                        len = len > 0 ? len : 1;
                        memcpy(out, s, (size_t)len);
                        out += len;
                        s += len;
                }
        }
        *out = '\0';
        return quote == '\'' && chars != 1 ? value : copy;
}

/* ---- templates ---- */

static int new_uuid(char out[UUID_TEXT])
{
        unsigned char b[16];

        if (getrandom(b, sizeof b, 0) != sizeof b)
                return -EIO;
        b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
        b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
        for (int i = 0; i < 16; i++)
                out += snprintf(out, 4, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
        return 0;
}

/* Replaces every `what`; `with` NULL = a new UUID for each. */
static int replace_all(struct buf *text, const char *what, const char *with)
{
        struct str rest = buf_str(text), needle = str_of(what);
        struct buf out = {0};
        char uuid[UUID_TEXT];
        int r = 0;

        for (ptrdiff_t i; r == 0 && (i = str_find(rest, needle)) >= 0; rest = str_skip(rest, (size_t)i + needle.n)) {
                buf_add(&out, rest.p, (size_t)i);
                r = with ? 0 : new_uuid(uuid);
                buf_addz(&out, with ? with : uuid);
        }
        buf_adds(&out, rest);
        if (out.failed)
                r = -ENOMEM;
        if (r) {
                buf_fini(&out);
                return r;
        }
        buf_fini(text);
        *text = out;
        return 0;
}

static int expand(struct component_spec *c, struct metadata_item *m, const struct daprd_opts *o, const char **ret_err)
{
        struct buf text = {0}, ns = {0};
        int r = 0;

        if (!strchr(m->value, '{'))
                return 0;
        c->namespace_scoped |= strstr(m->value, "{namespace}") != NULL;
        if (strstr(m->value, "{podName}") && !*o->pod_name) {
                *ret_err = arena_printf(&c->arena, "failed to parse metadata: property %s refers to {podName} but podName is not set",
                                        m->name);
                return *ret_err ? -EINVAL : -ENOMEM;
        }
        buf_addz(&text, m->value);
        buf_printf(&ns, "%s.%s%c", o->own_namespace, o->app_id, '\0');
        if (text.failed || ns.failed)
                r = -ENOMEM;
        if (!r)
                r = replace_all(&text, "{uuid}", NULL);
        if (!r)
                r = replace_all(&text, "{podName}", o->pod_name);
        if (!r)
                r = replace_all(&text, "{namespace}", ns.p);
        if (!r)
                r = replace_all(&text, "{appID}", o->app_id);
        if (!r && !(m->value = arena_strdup(&c->arena, buf_str(&text))))
                r = -ENOMEM;
        buf_fini(&text);
        buf_fini(&ns);
        return r;
}

/* ---- all together ---- */

static int resolve_item(struct component_spec *c, struct metadata_item *m, const struct daprd_opts *o, secret_get_fn get, void *arg,
                        const char **ret_err)
{
        const char *value = NULL, *err = NULL;

        if (reads_environment(m)) {
                m->value = unquote(&c->arena, read_env(c, m, o));
                return m->value ? 0 : -ENOMEM;
        }
        if (!m->secret_name)
                return 0;
        const char *store = store_of(c, o);
        int r = get ? get(arg, store, m->secret_name, m->secret_key, &c->arena, &value, &err) : SECRET_NO_STORE;
        if (r == SECRET_NO_STORE) {
                log_warn(scope, "Component %s references a secret store that isn't loaded: %s", c->name, store);
                *ret_err = store;
                return *store ? UNREADY : NO_STORE_NAMED;
        }
        if (r < 0)
                log_error(scope, "Error getting secret: %s", err ? err : strerror(-r));
        if (r != SECRET_FOUND || !value || !*value)
                return 0;
        m->value = unquote(&c->arena, value);
        if (m->value == value)
                m->value = arena_strdup(&c->arena, str_of(value));
        return m->value ? 0 : -ENOMEM;
}

int component_resolve(struct component_spec *c, const struct daprd_opts *o, secret_get_fn get, void *arg, const char **ret_err)
{
        int r = 0;

        *ret_err = NULL;
        for (size_t i = 0; i < c->n_metadata && r == 0; i++)
                r = resolve_item(c, &c->metadata[i], o, get, arg, ret_err);
        if (r == NO_STORE_NAMED) /* no auth.secretStore: as in the reference it starts without the secret and what follows it */
                r = 0;
        for (size_t i = 0; i < c->n_metadata && r == 0; i++) {
                if (!c->metadata[i].value)
                        c->metadata[i].value = "";
                r = expand(c, &c->metadata[i], o, ret_err);
        }
        if (r < 0 && !*ret_err)
                *ret_err = "out of memory while resolving metadata";
        return r;
}
