/*
 * Connection strings: what the reference's driver understands (a postgres:// URI or key=value pairs), as keywords for libpq.
 * Fields of the component override their part of the string. Keywords of the driver's pool are taken out; keywords that libpq does
 * not know are settings of the session and go into `options`. Every value is owned by struct pg_settings.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plugins/shared/postgres/postgres.h"
#include "sdk/base/buf.h"
#include "sdk/base/flags.h"

enum { CONNS_MIN = 4, CONNS_MAX = 1000 };
static const double default_timeout_s = 20, default_idle_s = 1800, default_life_s = 3600;

void pg_settings_fini(struct pg_settings *s)
{
        for (size_t i = 0; i < s->n; i++) {
                free(s->keys[i]);
                free(s->values[i]);
        }
        *s = (struct pg_settings){0};
}

static const char *get(const struct pg_settings *s, const char *key)
{
        for (size_t i = 0; i < s->n; i++)
                if (strcmp(s->keys[i], key) == 0)
                        return s->values[i];
        return NULL;
}

/* Sets or replaces. 0, -ENOMEM, -E2BIG. */
static int put(struct pg_settings *s, struct str key, struct str value)
{
        if (str_eqz(key, "database"))
                key = STR("dbname");
        for (size_t i = 0; i < s->n; i++)
                if (str_eqz(key, s->keys[i])) {
                        char *v = strndup(value.p, value.n);
                        if (!v)
                                return -ENOMEM;
                        free(s->values[i]);
                        s->values[i] = v;
                        return 0;
                }
        if (s->n == PG_PAIRS_MAX)
                return -E2BIG;
        char *k = strndup(key.p, key.n), *v = strndup(value.p ? value.p : "", value.n);
        if (!k || !v) {
                free(k);
                free(v);
                return -ENOMEM;
        }
        s->keys[s->n] = k;
        s->values[s->n++] = v;
        return 0;
}

static int put_default(struct pg_settings *s, const char *key, const char *value)
{
        return get(s, key) ? 0 : put(s, str_of(key), str_of(value));
}

static void drop(struct pg_settings *s, size_t i)
{
        free(s->keys[i]);
        free(s->values[i]);
        s->n--;
        s->keys[i] = s->keys[s->n];
        s->values[i] = s->values[s->n];
        s->keys[s->n] = s->values[s->n] = NULL;
}

/* ---- key=value pairs; values may stand in '…', \ takes the next character as it is ---- */

static int parse_pairs(struct pg_settings *s, const char *p)
{
        struct buf value = {0};
        int r = 0;
        while (!r) {
                while (isspace((unsigned char)*p))
                        p++;
                if (!*p)
                        break;
                const char *key = p;
                while (*p && *p != '=' && !isspace((unsigned char)*p))
                        p++;
                size_t key_n = (size_t)(p - key);
                while (isspace((unsigned char)*p))
                        p++;
                if (*p != '=')
                        continue; /* a word without a value: skipped, as the reference does */
                p++;
                while (isspace((unsigned char)*p))
                        p++;
                bool quoted = *p == '\'';
                p += quoted;
                buf_clear(&value);
                for (; *p && (quoted ? *p != '\'' : !isspace((unsigned char)*p)); p++) {
                        if (*p == '\\' && p[1])
                                p++;
                        buf_addc(&value, *p);
                }
                if (quoted && *p++ != '\'') {
                        r = -EINVAL;
                        break;
                }
                r = value.failed ? -ENOMEM : put(s, str_n(key, key_n), buf_str(&value));
        }
        buf_fini(&value);
        return r;
}

/* ---- URI ---- */

/* Percent-decodes; '+' is a space in queries only. */
static int put_decoded(struct pg_settings *s, struct str key, struct str v, bool query)
{
        struct buf out = {0};
        int r = 0;
        for (size_t i = 0; !r && i < v.n; i++) {
                if (v.p[i] != '%') {
                        buf_addc(&out, query && v.p[i] == '+' ? ' ' : v.p[i]);
                        continue;
                }
                if (i + 2 >= v.n || !isxdigit((unsigned char)v.p[i + 1]) || !isxdigit((unsigned char)v.p[i + 2])) {
                        r = -EINVAL;
                        break;
                }
                char hex[3] = {v.p[i + 1], v.p[i + 2], 0};
                buf_addc(&out, (char)strtol(hex, NULL, 16));
                i += 2;
        }
        if (!r)
                r = out.failed ? -ENOMEM : put(s, key, buf_str(&out));
        buf_fini(&out);
        return r;
}

/* host:port, several by comma, hosts possibly [v6]: libpq wants two lists. */
static int put_hosts(struct pg_settings *s, struct str all)
{
        struct buf hosts = {0}, ports = {0};
        bool has_port = false;
        for (struct str rest = all, one; rest.p && (one = str_cut(&rest, ','), 1);) {
                struct str host = one, port = STR("");
                if (one.n && one.p[0] == '[') {
                        ptrdiff_t end = str_chr(one, ']');
                        if (end < 0)
                                break;
                        host = str_n(one.p + 1, (size_t)end - 1);
                        port = str_skip(one, (size_t)end + 1);
                        port = port.n && port.p[0] == ':' ? str_skip(port, 1) : STR("");
                } else if (str_chr(one, ':') >= 0) {
                        port = one;
                        host = str_cut(&port, ':');
                }
                if (one.p != all.p) {
                        buf_addc(&hosts, ',');
                        buf_addc(&ports, ',');
                }
                buf_adds(&hosts, host);
                buf_adds(&ports, port);
                has_port |= port.n > 0;
        }
        int r = hosts.failed || ports.failed ? -ENOMEM : 0;
        if (!r && buf_len(&hosts))
                r = put_decoded(s, STR("host"), buf_str(&hosts), false);
        if (!r && has_port)
                r = put(s, STR("port"), buf_str(&ports));
        buf_fini(&hosts);
        buf_fini(&ports);
        return r;
}

static int parse_uri(struct pg_settings *s, const char *uri)
{
        struct str query = str_of(strstr(uri, "://") + 3), path, user;
        int r = 0;
        query.n = strcspn(query.p, "#");
        path = str_cut(&query, '?');
        struct str where = str_cut(&path, '/');
        ptrdiff_t at = -1;
        for (size_t i = 0; i < where.n; i++)
                if (where.p[i] == '@')
                        at = (ptrdiff_t)i;
        if (at >= 0) {
                struct str password = str_n(where.p, (size_t)at);
                user = str_cut(&password, ':');
                where = str_skip(where, (size_t)at + 1);
                if (user.n)
                        r = put_decoded(s, STR("user"), user, false);
                if (!r && password.p && password.n)
                        r = put_decoded(s, STR("password"), password, false);
        }
        if (!r)
                r = put_hosts(s, where);
        if (!r && path.p && path.n)
                r = put_decoded(s, STR("dbname"), path, false);
        while (!r && query.p) {
                struct str value = str_cut(&query, '&'), key = str_cut(&value, '=');
                if (key.n)
                        r = put_decoded(s, key, value.p ? value : STR(""), true);
        }
        return r;
}

/* ---- what is not for libpq ---- */

static double seconds_of(const char *v, double otherwise)
{
        int64_t ns;
        return v && parse_duration(str_trim(str_of(v)), &ns) == 0 && ns > 0 ? (double)ns / 1e9 : otherwise;
}

static int read_mode(struct dapr_call *c, struct pg_settings *s, const char *mode)
{
        if (!*mode || !strcmp(mode, "cache_statement"))
                s->unnamed = false;
        else if (!strcmp(mode, "cache_describe") || !strcmp(mode, "describe_exec") || !strcmp(mode, "exec") || !strcmp(mode, "simple_protocol"))
                s->unnamed = true;
        else
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid queryExecMode metadata value: %s", mode);
        return 0;
}

/* Takes the keywords of the reference's driver out of the pairs. */
static int take_driver_keys(struct dapr_call *c, struct pg_settings *s)
{
        static const char *const ignored[] = {"pool_min_conns", "pool_min_idle_conns", "pool_health_check_period",
                                              "pool_max_conn_lifetime_jitter", "statement_cache_capacity",
                                              "description_cache_capacity", "min_read_buffer_size"};
        for (size_t i = 0; i < s->n;) {
                const char *k = s->keys[i], *v = s->values[i];
                int64_t n;
                bool mine = true;
                int r = 0;
                if (!strcmp(k, "pool_max_conns")) {
                        if (parse_int64(str_of(v), &n) != 0 || n < 1)
                                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to parse connection string: cannot parse pool_max_conns");
                        s->max_conns = n > CONNS_MAX ? CONNS_MAX : (int)n;
                } else if (!strcmp(k, "pool_max_conn_idle_time"))
                        s->max_idle_s = seconds_of(v, s->max_idle_s);
                else if (!strcmp(k, "pool_max_conn_lifetime"))
                        s->max_life_s = seconds_of(v, s->max_life_s);
                else if (!strcmp(k, "default_query_exec_mode"))
                        r = read_mode(c, s, v);
                else {
                        mine = false;
                        for (size_t x = 0; x < sizeof ignored / sizeof *ignored; x++)
                                mine |= !strcmp(k, ignored[x]);
                }
                if (r)
                        return r;
                if (mine)
                        drop(s, i);
                else
                        i++;
        }
        return 0;
}

static bool is_known(const PQconninfoOption *known, const char *key)
{
        for (; known->keyword; known++)
                if (!strcmp(known->keyword, key))
                        return true;
        return false;
}

/* search_path=app becomes options='-c search_path=app'. */
static int take_session_keys(struct pg_settings *s)
{
        PQconninfoOption *known = PQconndefaults();
        struct buf options = {0};
        if (!known)
                return -ENOMEM;
        if (get(s, "options"))
                buf_addz(&options, get(s, "options"));
        for (size_t i = 0; i < s->n;) {
                if (is_known(known, s->keys[i])) {
                        i++;
                        continue;
                }
                buf_printf(&options, "%s-c %s=", buf_len(&options) ? " " : "", s->keys[i]);
                for (const char *v = s->values[i]; *v; v++) {
                        if (isspace((unsigned char)*v) || *v == '\\')
                                buf_addc(&options, '\\');
                        buf_addc(&options, *v);
                }
                drop(s, i);
        }
        int r = options.failed ? -ENOMEM : buf_len(&options) ? put(s, STR("options"), buf_str(&options)) : 0;
        buf_fini(&options);
        PQconninfoFree(known);
        return r;
}

/* ---- the component's fields ---- */

static int override(struct pg_settings *s, const struct dapr_metadata *md)
{
        static const struct {
                const char *field, *key;
        } fields[] = {{"host", "host"}, {"hostaddr", "hostaddr"}, {"port", "port"}, {"database", "dbname"},
                      {"user", "user"}, {"password", "password"}, {"sslRootCert", "sslrootcert"}};
        int r = 0;
        for (size_t i = 0; !r && i < sizeof fields / sizeof *fields; i++) {
                const char *v = dapr_md_string(md, fields[i].field);
                if (v && *v)
                        r = put(s, str_of(fields[i].key), str_of(v));
        }
        return r;
}

static int read_limits(struct dapr_call *c, const struct dapr_metadata *md, const char *prefix, struct pg_settings *s)
{
        const char *timeout = dapr_md_has(md, "timeoutInSeconds") ? "timeoutInSeconds" : "timeout";
        s->timeout_s = dapr_md_has(md, timeout) ? (double)dapr_md_duration_ns(md, timeout) / 1e9 : default_timeout_s;
        if (s->timeout_s < 1)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%sinvalid value for 'timeout': must be greater than 1s", prefix);
        int64_t conns = dapr_md_int(md, "maxConns"), idle_ns = dapr_md_duration_ns(md, "connectionMaxIdleTime");
        if (!dapr_md_has(md, "connectionMaxIdleTime"))
                idle_ns = dapr_md_duration_ns(md, "connMaxIdleTime"); /* older name */
        if (conns > 1)
                s->max_conns = conns > CONNS_MAX ? CONNS_MAX : (int)conns;
        if (s->max_conns < 2) /* the second one works while the first holds the lock of a migration */
                s->max_conns = 2;
        if (idle_ns > 0)
                s->max_idle_s = (double)idle_ns / 1e9;
        const char *mode = dapr_md_string(md, "queryExecMode");
        return mode && *mode ? read_mode(c, s, mode) : 0;
}

int pg_settings_read(struct dapr_call *c, const struct dapr_metadata *md, const char *prefix, struct pg_settings *s)
{
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        *s = (struct pg_settings){.max_conns = cpus > CONNS_MIN ? (int)cpus : CONNS_MIN, .max_idle_s = default_idle_s, .max_life_s = default_life_s};
        const char *cs = dapr_md_string(md, "connectionString");
        if (!cs || !*cs)
                cs = dapr_md_string(md, "url");
        if (!cs)
                cs = "";
        bool uri = !strncmp(cs, "postgres://", 11) || !strncmp(cs, "postgresql://", 13);
        if (dapr_md_bool(md, "useAzureAD") || dapr_md_bool(md, "useAWSIAM"))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "useAzureAD and useAWSIAM are not supported: use a connection string with a password or certificate");
        int r = uri ? parse_uri(s, cs) : parse_pairs(s, cs);
        if (!r)
                r = override(s, md);
        if (!r && s->n == 0)
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "%sfailed to build connection string", prefix);
        if (!r)
                r = take_driver_keys(c, s);
        if (!r)
                r = read_limits(c, md, prefix, s);
        if (!r)
                r = take_session_keys(s);
        if (!r)
                r = put_default(s, "client_encoding", "UTF8");
        if (!r)
                r = put_default(s, "gssencmode", "disable"); /* the reference's driver has none; looking for tickets takes time */
        if (r == -EINVAL || r == -E2BIG)
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to parse connection string: %s",
                              r == -E2BIG ? "too many keywords" : uri ? "invalid percent-encoding" : "unterminated quoted string");
        if (r)
                pg_settings_fini(s);
        return r;
}
