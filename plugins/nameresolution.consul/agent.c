/*
 * Settings, as the reference reads them: the client's own fields, else CONSUL_* of the environment, else the agent on this host. The
 * registration is ready as JSON here; its meta always holds the port that other sidecars need.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "plugins/nameresolution.consul/consul.h"
#include "plugins/nameresolution.consul/schema.h"
#include "sdk/net/tls.h"

#define PORT_KEY "DAPR_PORT"

/* ---- files, on a worker ---- */

struct file {
        const char *path;
        struct arena *a;
        struct str text;
};

static int job_read(void *arg)
{
        struct file *f = arg;
        FILE *in = fopen(f->path, "re");
        char *p = in ? arena_alloc(f->a, CONSUL_FILE_MAX) : NULL;
        int r = in ? p ? 0 : -ENOMEM : -errno;

        if (r == 0) {
                f->text = str_n(p, fread(p, 1, CONSUL_FILE_MAX, in));
                r = ferror(in) ? -EIO : f->text.n == CONSUL_FILE_MAX ? -EFBIG : 0;
        }
        if (in)
                fclose(in);
        return r;
}

static int read_file(struct dapr_call *c, struct arena *a, const char *what, const char *path, struct str *ret)
{
        struct file f = {.path = path, .a = a};
        int r;

        if (!*path)
                return 0;
        r = dapr_work(job_read, &f);
        *ret = f.text;
        return r ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "field '%s': open %s: %s", what, path, strerrordesc_np(-r)) : 0;
}

/* ---- the client ---- */

static const char *given(const char *value, const char *env, const char *otherwise)
{
        const char *e = env ? getenv(env) : NULL;
        return value && *value ? value : e && *e ? e : otherwise;
}

static bool env_is_true(const char *name)
{
        const char *e = getenv(name);
        return e && (!strcasecmp(e, "true") || !strcmp(e, "1") || !strcasecmp(e, "t"));
}

static int make_tls(struct dapr_call *c, struct consul *s, struct str client, struct tls_context **ret)
{
        struct str conf = consul_at(client, "TLSConfig");
        struct arena files = {0};
        struct tls_options o = {.insecure_skip_verify = consul_bool(conf, "InsecureSkipVerify")};
        const char *verify = getenv("CONSUL_HTTP_SSL_VERIFY");
        char why[256];
        int r = 0;

        if (verify && (!strcasecmp(verify, "false") || !strcmp(verify, "0")))
                o.insecure_skip_verify = true;
        if (*consul_text(&s->arena, conf, "CAPath"))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "field 'client.tlsConfig.caPath' is not supported; put the certificates into one file "
                                                           "and name it in caFile");
        if (o.insecure_skip_verify)
                dapr_log(DAPR_LOG_WARN, "hashicorp consul: you are using 'insecureSkipVerify' to skip server config verify which is unsafe!");
        r = read_file(c, &files, "client.tlsConfig.caFile", given(consul_text(&s->arena, conf, "CAFile"), "CONSUL_CACERT", ""), &o.roots_pem);
        if (r == 0)
                r = read_file(c, &files, "client.tlsConfig.certFile", given(consul_text(&s->arena, conf, "CertFile"), "CONSUL_CLIENT_CERT", ""),
                              &o.cert_pem);
        if (r == 0)
                r = read_file(c, &files, "client.tlsConfig.keyFile", given(consul_text(&s->arena, conf, "KeyFile"), "CONSUL_CLIENT_KEY", ""),
                              &o.key_pem);
        if (r == 0 && tls_context_new(ret, &o, why, sizeof why))
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to init consul client: client.tlsConfig: %s", why);
        if (o.key_pem.p)
                explicit_bzero((char *)o.key_pem.p, o.key_pem.n);
        arena_fini(&files);
        return r;
}

static int add_header(struct consul *s, struct str name, const char *value)
{
        if (!value)
                return -ENOMEM;
        s->headers[s->n_headers++] = (struct http_header){name, str_of(value)};
        return 0;
}

static int add_credentials(struct dapr_call *c, struct consul *s, struct str client)
{
        struct arena *a = &s->arena;
        struct str auth = consul_at(client, "HTTPAuth"), file = STR_NULL;
        const char *token = given(consul_text(a, client, "Token"), "CONSUL_HTTP_TOKEN", ""), *basic = getenv("CONSUL_HTTP_AUTH");
        int r = 0;

        if (!*token)
                r = read_file(c, a, "client.tokenFile", given(consul_text(a, client, "TokenFile"), "CONSUL_HTTP_TOKEN_FILE", ""), &file);
        if (file.n)
                token = arena_strdup(a, str_trim(file));
        const char *of_query = consul_text(a, consul_at(s->conf, "QueryOptions"), "Token");
        if (r == 0 && of_query && *of_query)
                token = of_query;
        if (r == 0 && token && *token)
                r = add_header(s, STR("X-Consul-Token"), token);
        if (auth.p)
                basic = arena_printf(a, "%s:%s", consul_text(a, auth, "Username"), consul_text(a, auth, "Password"));
        if (r == 0 && basic && *basic)
                r = add_header(s, STR("Authorization"), arena_printf(a, "Basic %.*s", STR_FMT(base64_encode(a, str_of(basic)))));
        for (size_t i = 0; i < s->n_headers; i++)
                for (size_t k = 0; k < s->headers[i].value.n; k++)
                        if ((unsigned char)s->headers[i].value.p[k] < ' ' || (unsigned char)s->headers[i].value.p[k] > '~')
                                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "the token holds a character that cannot stand in a header");
        return r;
}

static int make_client(struct dapr_call *c, struct consul *s)
{
        struct str client = consul_at(s->conf, "Client");
        const char *address = given(consul_text(&s->arena, client, "Address"), "CONSUL_HTTP_ADDR", "127.0.0.1:8500"), *err;
        const char *scheme = given(consul_text(&s->arena, client, "Scheme"), NULL, env_is_true("CONSUL_HTTP_SSL") ? "https" : "http");
        const char *rest = strstr(address, "://");
        struct tls_context *tls = NULL;
        int r = 0;

        if (rest) {
                struct str given_scheme = str_n(address, (size_t)(rest - address));
                if (str_eqz(given_scheme, "https"))
                        scheme = "https";
                else if (!str_eqz(given_scheme, "http"))
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to init consul client: consul api error initing client: Unknown protocol "
                                                                   "scheme: %.*s; http and https are served",
                                         STR_FMT(given_scheme));
                address = rest + 3;
        }
        if (strcmp(scheme, "http") && strcmp(scheme, "https"))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "field 'client.scheme' is '%s': http or https", scheme);
        if (*scheme && scheme[4] == 's')
                r = make_tls(c, s, client, &tls);
        const char *url = arena_printf(&s->arena, "%s://%s%s", scheme, address, strchr(address, ':') || strchr(address, '/') ? "" : ":8500");
        const char *server_name = consul_text(&s->arena, consul_at(client, "TLSConfig"), "Address");
        if (r == 0 && (!url || !server_name))
                r = -ENOMEM;
        if (r == 0 && (r = web_site_new_tls(&s->site, url, tls, server_name, &err)) == -EINVAL)
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "field 'client.address': %s: %s", address, err);
        tls_context_unref(tls);
        return r ? r : add_credentials(c, s, client);
}

/* ---- what each question carries ---- */

static void add_text(struct consul *s, struct buf *b, const char *name, struct str value)
{
        if (value.n)
                buf_printf(b, "&%s=%.*s", name, STR_FMT(url_escape(&s->arena, value)));
}

static void add_node_meta(struct consul *s, struct buf *b, struct str map)
{
        struct json_reader r;
        struct str k, v;

        json_read_init(&r, map.p ? map : STR("{}"));
        if (!json_enter_object(&r))
                return;
        while (json_next_member(&r, &s->arena, &k) && json_read_string(&r, &s->arena, &v))
                add_text(s, b, "node-meta", str_of(arena_printf(&s->arena, "%.*s:%.*s", STR_FMT(k), STR_FMT(v))));
}

static int make_query(struct consul *s)
{
        static const struct {
                const char *field, *param;
        } texts[] = {{"Namespace", "ns"}, {"Partition", "partition"}, {"Near", "near"}, {"Filter", "filter"}},
          flags[] = {{"AllowStale", "stale"}, {"RequireConsistent", "consistent"}, {"LocalOnly", "local-only"}, {"Connect", "connect"}};
        struct str o = consul_at(s->conf, "QueryOptions"), client = consul_at(s->conf, "Client");
        struct buf b = {0}, cache = {0};
        const char *dc = consul_text(&s->arena, o, "Datacenter");

        if (dc && !*dc)
                dc = consul_text(&s->arena, client, "Datacenter");
        add_text(s, &b, "dc", str_of(dc));
        for (size_t i = 0; i < 4; i++) {
                add_text(s, &b, texts[i].param, str_of(consul_text(&s->arena, o, texts[i].field)));
                if (consul_bool(o, flags[i].field))
                        buf_printf(&b, "&%s", flags[i].param);
        }
        if (consul_int(o, "RelayFactor"))
                buf_printf(&b, "&relay-factor=%lld", (long long)consul_int(o, "RelayFactor"));
        add_node_meta(s, &b, consul_at(o, "NodeMeta"));
        if (consul_int(o, "MaxAge") > 0)
                buf_printf(&cache, "max-age=%lld", (long long)consul_int(o, "MaxAge") / 1000000000);
        if (consul_int(o, "StaleIfError") > 0)
                buf_printf(&cache, "%sstale-if-error=%lld", buf_len(&cache) ? ", " : "", (long long)consul_int(o, "StaleIfError") / 1000000000);
        s->query = arena_str(&s->arena, buf_str(&b));
        if (buf_len(&cache))
                s->cache_control = (struct http_header){STR("Cache-Control"), arena_str(&s->arena, buf_str(&cache))};
        bool failed = b.failed || cache.failed || !s->query.p;
        buf_fini(&b);
        buf_fini(&cache);
        return failed ? -ENOMEM : 0;
}

const char *consul_health_path(struct consul *s, struct arena *a, const char *app_id, bool cached)
{
        struct str o = consul_at(s->conf, "QueryOptions");
        bool use = cached && (!o.p || (consul_bool(o, "UseCache") && !consul_bool(o, "RequireConsistent")));
        return arena_printf(a, "/v1/health/service/%.*s?passing=1%s%.*s", STR_FMT(url_escape(a, str_of(app_id))), use ? "&cached" : "",
                            STR_FMT(s->query));
}

/* ---- the registration ---- */

/* meta with the port that other sidecars connect to. */
static void write_meta(struct consul *s, struct json_writer *w, struct str meta, int port)
{
        struct json_reader r;
        struct str k, raw;
        char text[12];

        json_key(w, STR("Meta"));
        json_object_begin(w);
        json_read_init(&r, meta.p ? meta : STR("{}"));
        if (json_enter_object(&r))
                while (json_next_member(&r, &s->arena, &k) && json_read_raw(&r, &raw))
                        if (!str_eqz(k, s->port_key)) {
                                json_key(w, k);
                                json_raw(w, raw);
                        }
        snprintf(text, sizeof text, "%d", port);
        json_kv(w, s->port_key, str_of(text));
        json_object_end(w);
}

static void write_advanced(struct consul *s, struct json_writer *w, struct str reg, int port)
{
        struct json_reader r;
        struct str k, raw;

        json_read_init(&r, reg);
        if (json_enter_object(&r))
                while (json_next_member(&r, &s->arena, &k) && json_read_raw(&r, &raw))
                        if (!str_eqz(k, "Meta")) {
                                json_key(w, k);
                                json_raw(w, raw);
                        }
        write_meta(s, w, consul_at(reg, "Meta"), port);
}

static void write_check(struct consul *s, struct json_writer *w, const struct dapr_sidecar *of)
{
        const char *format = strchr(of->address, ':') ? "http://[%s]:%d/v1.0/healthz?appid=%s" : "http://%s:%d/v1.0/healthz?appid=%s";

        json_array_begin(w);
        json_object_begin(w);
        json_kv(w, "CheckID", str_of(arena_printf(&s->arena, "daprHealth:%s", s->id)));
        json_kv(w, "Name", STR("Dapr Health Status"));
        json_kv(w, "Interval", STR("15s"));
        json_kv(w, "HTTP", str_of(arena_printf(&s->arena, format, of->address, of->http_port, of->app_id)));
        json_object_end(w);
        json_array_end(w);
}

static void write_own(struct consul *s, struct json_writer *w, const struct dapr_sidecar *of)
{
        struct str checks = consul_at(s->conf, "Checks"), tags = consul_at(s->conf, "Tags");

        json_kv(w, "ID", str_of(s->id));
        json_kv(w, "Name", str_of(of->app_id));
        json_kv(w, "Address", str_of(of->address));
        json_key(w, STR("Port"));
        json_int(w, of->app_port);
        json_key(w, STR("Checks"));
        if (checks.p && !str_eqz(checks, "[]"))
                json_raw(w, checks);
        else
                write_check(s, w, of);
        if (tags.p) {
                json_key(w, STR("Tags"));
                json_raw(w, tags);
        }
        write_meta(s, w, consul_at(s->conf, "Meta"), of->internal_port);
}

static int make_registration(struct dapr_call *c, struct consul *s, const struct dapr_sidecar *of)
{
        struct str advanced = consul_at(s->conf, "AdvancedRegistration");
        struct json_writer w;
        struct buf b = {0};

        if (!advanced.p && !consul_bool(s->conf, "SelfRegister"))
                return 0;
        const char *missing = advanced.p ? NULL : !*of->app_id ? "APP_ID" : !of->app_port ? "APP_PORT" : !*of->address ? "HOST_ADDRESS"
                              : !of->http_port ? "DAPR_HTTP_PORT" : NULL;
        if (missing)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata property missing: %s", missing);
        s->name = advanced.p ? consul_text(&s->arena, advanced, "Name") : of->app_id;
        s->id = advanced.p ? consul_text(&s->arena, advanced, "ID") : arena_printf(&s->arena, "%s-%s-%d", of->app_id, of->address, of->http_port);
        s->name = s->name ? arena_strdup(&s->arena, str_of(s->name)) : NULL;
        if (s->id && !*s->id)
                s->id = s->name; /* as the agent does */
        if (!s->id || !s->name)
                return -ENOMEM;
        json_write_init(&w, &b);
        json_object_begin(&w);
        if (advanced.p)
                write_advanced(s, &w, advanced, of->internal_port);
        else
                write_own(s, &w, of);
        json_object_end(&w);
        s->registration = arena_str(&s->arena, buf_str(&b));
        bool failed = b.failed || !s->registration.p;
        buf_fini(&b);
        return failed ? -ENOMEM : 0;
}

int consul_configure(struct dapr_call *c, struct consul *s)
{
        const struct dapr_sidecar *of = dapr_sidecar(c);
        struct buf conf = {0}, unknown = {0};
        char err[256];
        int r;

        if (of->internal_port <= 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata property missing: DAPR_PORT");
        r = consul_canonical(str_of(*of->configuration ? of->configuration : "{}"), &conf, &unknown, err, sizeof err);
        if (r == -EINVAL)
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "error deserializing to configSpec: %s", err);
        if (r == 0 && buf_len(&unknown))
                dapr_log(DAPR_LOG_WARN, "nameresolution.consul does not know these fields of the configuration: %.*s", STR_FMT(buf_str(&unknown)));
        if (r == 0 && !(s->conf = arena_str(&s->arena, buf_str(&conf))).p)
                r = -ENOMEM;
        buf_fini(&conf);
        buf_fini(&unknown);
        if (r)
                return r;
        s->use_cache = consul_bool(s->conf, "UseCache");
        s->deregister = consul_bool(s->conf, "SelfDeregister");
        s->port_key = consul_text(&s->arena, s->conf, "DaprPortMetaKey");
        if (s->port_key && !*s->port_key)
                s->port_key = PORT_KEY;
        r = s->port_key ? make_client(c, s) : -ENOMEM;
        if (r == 0)
                r = make_query(s);
        return r ? r : make_registration(c, s, of);
}

/* ---- requests ---- */

int consul_request(struct consul *s, struct arena *a, const char *method, const char *path, bool cached, struct str body,
                   struct web_answer *ret, const char **ret_err)
{
        struct http_header h[CONSUL_HEADERS_MAX + 2];
        size_t n = s->n_headers;
        int r = path ? 0 : -ENOMEM;

        memcpy(h, s->headers, n * sizeof *h);
        if (body.p)
                h[n++] = (struct http_header){STR("Content-Type"), STR("application/json")};
        if (cached && s->cache_control.value.p)
                h[n++] = s->cache_control;
        *ret_err = "out of memory";
        if (r == 0)
                r = web_request(s->site, a, method, path, h, n, body, CONSUL_ANSWER_MAX, ret, ret_err);
        if (r == 0 && (ret->status < 200 || ret->status > 299)) {
                *ret_err = arena_printf(a, "Unexpected response code: %d (%.*s)", ret->status, (int)(ret->body.n > 300 ? 300 : ret->body.n),
                                        ret->body.p ? ret->body.p : "");
                return *ret_err ? DAPR_INTERNAL : -ENOMEM;
        }
        return r;
}
