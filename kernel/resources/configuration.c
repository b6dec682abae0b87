/*
 * The Configuration: the defaults as a document, each --config file laid over what was there, then the environment of
 * OpenTelemetry. The merged tree stays for the sections that later blocks read. Header values of OTEL_* may be secret: they never
 * stand in an error.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "kernel/opts.h"
#include "kernel/resources/config_fields.h"
#include "kernel/resources/expand_env.h"
#include "kernel/resources/resources.h"
#include "sdk/base/yaml.h"
#include "sdk/base/log.h"

static const char scope[] = "dapr.runtime";
enum { CONFIG_MAX_BYTES = 256 * 1024 * 1024 };

static const char defaults[] = "spec:\n"
                               "  tracing: {otel: {isSecure: true}}\n"
                               "  metric: {enabled: true}\n"
                               "  accessControl: {defaultAction: allow, trustDomain: public}\n";

static int set_error(struct configuration *c, int r, const char *prefix, const char *text, const char **ret_err)
{
        *ret_err = arena_printf(&c->arena, "%s%s", prefix, text ? text : "out of memory");
        if (!*ret_err)
                *ret_err = "error loading configuration: out of memory";
        return r;
}

/* Lays one text over c->doc. An empty text changes nothing. */
static int add_text(struct configuration *c, struct str text, const char *name, const char **ret_err)
{
        struct yaml_node *doc = NULL;
        int r = yaml_read(&c->arena, text, name, 1, YAML_UNIQUE_KEYS, &doc, ret_err);

        if (r || yaml_is_null(doc))
                return r;
        if (doc->kind != YAML_MAP) {
                *ret_err = yaml_error(&c->arena, doc, "a Configuration must be a map with apiVersion, kind, metadata and spec");
                return -EINVAL;
        }
        c->doc = yaml_merge(&c->arena, (struct yaml_node *)c->doc, doc);
        return c->doc ? 0 : -ENOMEM;
}

static int begin(struct configuration *c, const char **ret_err)
{
        *c = (struct configuration){0};
        *ret_err = NULL;
        arena_init(&c->arena, CONFIG_MAX_BYTES);
        return add_text(c, str_n(defaults, sizeof defaults - 1), "defaults", ret_err);
}

static int add_file(struct configuration *c, const char *path, const char **ret_err)
{
        struct arena file = {0};
        struct stat st;
        struct str text;
        struct buf expanded = {0};
        const char *why = NULL;
        int r;

        if (stat(path, &st)) {
                *ret_err = os_error(&c->arena, "stat", path, errno);
                return -EINVAL;
        }
        r = yaml_read_file(&file, path, true, &text, &why);
        if (r == 0)
                r = expand_env(&expanded, text);
        if (r == -EFBIG && !why)
                why = "the file is too large with its variables replaced";
        if (r == 0) {
                const char *name = arena_strdup(&c->arena, str_of(path));
                r = add_text(c, buf_str(&expanded), name ? name : "", ret_err);
        } else if (why) {
                *ret_err = arena_strdup(&c->arena, str_of(why));
                r = -EINVAL;
        }
        buf_fini(&expanded);
        arena_fini(&file);
        return r;
}

/* ---- checks ---- */

static int by_text(const void *a, const void *b)
{
        return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_secret_scopes(struct configuration *c, const char **ret_err)
{
        for (size_t i = 0; i < c->n_secret_scopes; i++) {
                struct secret_scope *s = &c->secret_scopes[i];
                for (size_t k = 0; k < i; k++) {
                        if (strcmp(c->secret_scopes[k].store, s->store) != 0)
                                continue;
                        *ret_err = arena_printf(&c->arena, "%s storeName is repeated in secrets configuration", s->store);
                        return -EINVAL;
                }
                if (*s->default_access && strcasecmp(s->default_access, "allow") != 0 && strcasecmp(s->default_access, "deny") != 0) {
                        *ret_err = arena_printf(&c->arena, "defaultAccess %s can be either allow or deny", s->default_access);
                        return -EINVAL;
                }
                if (s->n_allowed)
                        qsort(s->allowed, s->n_allowed, sizeof *s->allowed, by_text);
                if (s->n_denied)
                        qsort(s->denied, s->n_denied, sizeof *s->denied, by_text);
        }
        return 0;
}

/* ---- the environment of OpenTelemetry ---- */

static const char *first_env(const char *a, const char *b)
{
        const char *v = getenv(a);
        if (!v || !*v)
                v = getenv(b);
        return v && *v ? v : NULL;
}

static void endpoint_from_env(struct configuration *c)
{
        const char *endpoint = first_env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
        const char *protocol = first_env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
        const char *insecure = getenv("OTEL_EXPORTER_OTLP_INSECURE");

        if (!endpoint)
                return;
        endpoint += strncmp(endpoint, "http://", 7) == 0 ? 7 : 0;
        endpoint += strncmp(endpoint, "https://", 8) == 0 ? 8 : 0;
        c->tracing_otel_endpoint = endpoint;
        if (!*c->tracing_sampling_rate)
                c->tracing_sampling_rate = "1";
        c->tracing_otel_protocol = protocol && strncmp(protocol, "http", 4) == 0 ? "http" : "grpc";
        if (insecure && strcmp(insecure, "true") == 0)
                c->tracing_otel_is_secure = false;
}

static int hex_digit(char c)
{
        return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? (c | 0x20) - 'a' + 10 : -1;
}

/* %XX; false on a wrong escape. Decodes in place and returns the new length. */
static bool unescape_path(char *s, size_t *n)
{
        size_t to = 0;
        for (size_t i = 0; i < *n; i++) {
                if (s[i] != '%') {
                        s[to++] = s[i];
                        continue;
                }
                int high = i + 2 < *n ? hex_digit(s[i + 1]) : -1, low = i + 2 < *n ? hex_digit(s[i + 2]) : -1;
                if (high < 0 || low < 0)
                        return false;
                s[to++] = (char)(high << 4 | low);
                i += 2;
        }
        *n = to;
        return true;
}

static bool is_header_name(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (!isalnum((unsigned char)s.p[i]) && !memchr("!#$%&'*+-.^_`|~", s.p[i], 15))
                        return false;
        return s.n > 0;
}

static int one_header(struct configuration *c, struct str pair, const char **ret_err)
{
        struct str rest = pair, name = str_trim(str_cut(&rest, '='));
        const char *problem = !rest.p ? "missing '=' parse headers input" : !is_header_name(name) ? "invalid header key" : NULL;
        char *value = rest.p ? arena_strdup(&c->arena, rest) : NULL;
        size_t n = rest.n;

        if (!problem && !value)
                return -ENOMEM;
        if (!problem && !unescape_path(value, &n))
                problem = "escape header value";
        if (problem) {
                *ret_err = arena_printf(&c->arena, "%s (OTEL_EXPORTER_OTLP_HEADERS wants name=value,name=value)", problem);
                return -EINVAL;
        }
        struct str v = str_trim(str_n(value, n));
        const char *text = arena_printf(&c->arena, "%.*s=%.*s", STR_FMT(name), STR_FMT(v));
        if (!text)
                return -ENOMEM;
        c->tracing_otel_headers[c->n_tracing_otel_headers++] = text;
        return 0;
}

static int headers_from_env(struct configuration *c, const char **ret_err)
{
        const char *text = first_env("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS");
        size_t most = c->n_tracing_otel_headers + 1;
        int r = 0;

        if (!text)
                return 0;
        for (const char *p = text; *p; p++)
                most += *p == ',';
        const char **all = arena_alloc(&c->arena, most * sizeof *all);
        if (!all)
                return -ENOMEM;
        for (size_t i = 0; i < c->n_tracing_otel_headers; i++)
                all[i] = c->tracing_otel_headers[i];
        c->tracing_otel_headers = all;
        for (struct str rest = str_of(text); rest.p && r == 0;)
                r = one_header(c, str_cut(&rest, ','), ret_err);
        return r;
}

static int timeout_from_env(struct configuration *c, const char **ret_err)
{
        const char *text = first_env("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
        char *end;

        if (!text)
                return 0;
        errno = 0;
        long ms = strtol(text, &end, 10);
        if (*end || errno || isspace((unsigned char)*text) || ms > INT_MAX) {
                *ret_err = arena_printf(&c->arena, "strconv.Atoi: parsing \"%s\": %s", text,
                                        *end ? "invalid syntax" : "value out of range");
                return -EINVAL;
        }
        if (ms > 0)
                c->tracing_otel_timeout_ns = (int64_t)ms * 1000000;
        return 0;
}

static int read_environment(struct configuration *c, const char **ret_err)
{
        bool is_configured = *c->tracing_otel_endpoint;
        int r = 0;

        if (!is_configured)
                endpoint_from_env(c);
        if (!is_configured || !c->n_tracing_otel_headers)
                r = headers_from_env(c, ret_err);
        if (!r && (!is_configured || !c->tracing_otel_timeout_ns))
                r = timeout_from_env(c, ret_err);
        return r;
}

/* ---- all together ---- */

static int finish(struct configuration *c, const char **ret_err)
{
        struct buf json = {0};
        const char *why = NULL;
        int r = config_apply_metrics(c);

        if (r == 0)
                r = config_decode(c, &why);
        if (r == 0)
                r = check_secret_scopes(c, &why);
        if (r == 0 && (r = yaml_to_json(&json, c->doc, YAML_V3)) == -EINVAL)
                why = "a value has no form in JSON (.inf, .nan, a null key or a wrong tag); quote it";
        if (r == 0 && !(c->json = arena_str(&c->arena, buf_str(&json))).p)
                r = -ENOMEM;
        buf_fini(&json);
        if (r)
                return set_error(c, r, "error loading configuration: ", why, ret_err);
        r = read_environment(c, &why);
        if (r)
                return set_error(c, r, "error setting tracing spec from env: ", why, ret_err);
        return 0;
}

static void log_files(const struct daprd_opts *o)
{
        struct buf list = {0};
        for (size_t i = 0; i < o->config.n; i++)
                buf_printf(&list, "%s%s", i ? ", " : "", o->config.v[i]);
        log_debug(scope, "Loading config from file(s): %.*s", STR_FMT(buf_str(&list)));
        buf_fini(&list);
}

int configuration_load(struct configuration *c, const struct daprd_opts *o, const char **ret_err)
{
        bool files = strcmp(o->mode, "kubernetes") != 0 && o->config.n > 0;
        const char *why;
        int r = begin(c, &why);

        if (files)
                log_files(o);
        else
                log_info(scope, "loading default configuration");
        for (size_t i = 0; files && i < o->config.n && r == 0; i++)
                r = add_file(c, o->config.v[i], &why);
        return r ? set_error(c, r, "error loading configuration: ", why, ret_err) : finish(c, ret_err);
}

int configuration_apply(struct configuration *c, struct str text, const char *name, const char **ret_err)
{
        const char *why;
        int r = begin(c, &why);

        if (r == 0)
                r = add_text(c, text, name, &why);
        return r ? set_error(c, r, "error loading configuration: ", why, ret_err) : finish(c, ret_err);
}

void configuration_fini(struct configuration *c)
{
        arena_fini(&c->arena);
        *c = (struct configuration){0};
}

struct str configuration_section(struct configuration *c, const char *path)
{
        const struct yaml_node *n = yaml_path(yaml_get(c->doc, "spec"), path);
        struct buf json = {0};
        struct str s = STR_NULL;

        if (!yaml_is_null(n) && yaml_to_json(&json, n, YAML_V3) == 0)
                s = arena_str(&c->arena, buf_str(&json));
        buf_fini(&json);
        return s;
}

bool configuration_feature(const struct configuration *c, const char *name)
{
        for (size_t i = 0; i < c->n_features; i++)
                if (strcmp(c->features[i], name) == 0)
                        return true;
        return false;
}

static bool contains(const char *const *list, size_t n, struct str s)
{
        for (size_t i = 0; i < n; i++)
                if (str_eqz(s, list[i]))
                        return true;
        return false;
}

bool configuration_secret_allowed(const struct configuration *c, const char *store, struct str secret)
{
        for (size_t i = 0; i < c->n_secret_scopes; i++) {
                const struct secret_scope *s = &c->secret_scopes[i];
                if (strcmp(s->store, store) != 0)
                        continue;
                if (s->n_allowed)
                        return contains(s->allowed, s->n_allowed, secret);
                return !contains(s->denied, s->n_denied, secret) && strcasecmp(s->default_access, "deny") != 0;
        }
        return true;
}
