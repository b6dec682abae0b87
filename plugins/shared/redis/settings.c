/*
 * Metadata fields of Redis components, as the reference's documentation names them. Durations without a unit are milliseconds,
 * -1 means "none". Bad values are refused with the field's name.
 */
#include "plugins/shared/redis/redis.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/buf.h"
#include "sdk/base/flags.h"

static char *keep(const char *s)
{
        return s && *s ? strdup(s) : NULL;
}

static int read_duration(struct dapr_call *c, const struct dapr_metadata *md, const char *field, double dflt, double *ret)
{
        const char *v = dapr_md_string(md, field);
        int64_t n;
        *ret = dflt;
        if (!v || !*v)
                return 0;
        if (parse_int64(str_of(v), &n) == 0) {
                if (n != 0)
                        *ret = n < 0 ? -1 : (double)n / 1e3;
                return 0;
        }
        if (parse_duration(str_of(v), &n) != 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT,
                                 "redis client configuration error: %s is %s: write a duration such as 500ms or 2s, or milliseconds", field, v);
        if (n != 0)
                *ret = (double)n / 1e9;
        return 0;
}

static int read_int(struct dapr_call *c, const struct dapr_metadata *md, const char *field, int dflt, int min, int max, int *ret)
{
        const char *v = dapr_md_string(md, field);
        int64_t n;
        *ret = dflt;
        if (!v || !*v)
                return 0;
        if (parse_int64(str_of(v), &n) != 0 || n < min || n > max)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT,
                                 "redis client configuration error: %s is %s: write a whole number from %d to %d", field, v, min, max);
        *ret = (int)n;
        return 0;
}

/* One address with its port: what stands there, else redisPort, else 6379. The two must not contradict each other. */
static int add_address(struct dapr_call *c, struct buf *out, struct str addr, const char *port)
{
        ptrdiff_t colon = -1;
        bool bracketed = addr.n && addr.p[0] == '[';
        for (size_t i = 0; i < addr.n; i++) {
                if (addr.p[i] == ']')
                        colon = -1;
                else if (addr.p[i] == ':')
                        colon = colon == -1 || bracketed ? (ptrdiff_t)i : -2; /* -2: a bare IPv6 address */
        }
        if (colon > 0) {
                struct str own = str_skip(addr, (size_t)colon + 1);
                if (port && !str_eqz(own, port))
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT,
                                         "redis host \"%.*s\" already contains port %.*s, but redisPort is set to %s; either remove the "
                                         "port from redisHost or remove the redisPort setting",
                                         STR_FMT(addr), STR_FMT(own), port);
                return buf_adds(out, addr);
        }
        if (!port)
                port = "6379";
        return colon == -2 ? buf_printf(out, "[%.*s]:%s", STR_FMT(addr), port) : buf_printf(out, "%.*s:%s", STR_FMT(addr), port);
}

static int read_host(struct dapr_call *c, const struct dapr_metadata *md, struct redis_settings *s)
{
        const char *host = dapr_md_string(md, "redisHost");
        const char *port = dapr_md_string(md, "redisPort");
        int64_t n;
        if (!host || !*host)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis store error: missing host address");
        if (port && (!*port || (parse_int64(str_of(port), &n) == 0 && n == 0)))
                port = NULL;
        if (port && (parse_int64(str_of(port), &n) != 0 || n < 1 || n > 65535))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis client configuration error: redisPort is %s: write a port from 1 to 65535", port);
        struct buf out = {0};
        int r = 0;
        for (struct str rest = str_of(host); rest.p && !r;) {
                struct str one = str_trim(str_cut(&rest, ','));
                if (!one.n)
                        continue;
                if (buf_len(&out))
                        r = buf_addc(&out, ',');
                if (!r)
                        r = add_address(c, &out, one, port);
        }
        if (!r)
                r = buf_addc(&out, '\0');
        s->host = out.p;
        if (r)
                s->host = NULL, buf_fini(&out);
        return r;
}

int redis_settings_read(struct dapr_call *c, const struct dapr_metadata *md, struct redis_settings *s)
{
        *s = (struct redis_settings){0};
        const char *type = dapr_md_string(md, "redisType");
        if (type && *type && strcmp(type, "node") != 0 && strcmp(type, "cluster") != 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis client configuration error: redisType is %s: write node or cluster", type);
        s->type = type && strcmp(type, "cluster") == 0 ? REDIS_CLUSTER : REDIS_NODE;
        int r = read_host(c, md, s);
        if (r)
                return r;
        /* maxRetries and maxRetryBackoff are the names of older component files; the latter counts nanoseconds. */
        const char *old_retries = dapr_md_has(md, "redisMaxRetries") ? "redisMaxRetries" : "maxRetries";
        if ((r = read_int(c, md, old_retries, 3, -1, 1000, &s->max_retries)) ||
            (r = read_int(c, md, "redisDB", 0, 0, 1 << 20, &s->db)) ||
            (r = read_duration(c, md, "redisMinRetryInterval", 0.008, &s->retry_min_s)) ||
            (r = read_duration(c, md, "redisMaxRetryInterval", 0.512, &s->retry_max_s)) ||
            (r = read_duration(c, md, "dialTimeout", 5, &s->dial_timeout_s)) ||
            (r = read_duration(c, md, "readTimeout", 3, &s->read_timeout_s)))
                return r;
        s->tls = dapr_md_bool(md, "enableTLS");
        s->failover = dapr_md_bool(md, "failover");
        if (dapr_md_bool(md, "useEntraID"))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis client configuration error: useEntraID needs Azure's identity service, "
                                                           "which this plugin does not speak; set redisUsername and redisPassword instead");
        s->username = keep(dapr_md_string(md, "redisUsername"));
        s->password = keep(dapr_md_string(md, "redisPassword"));
        s->sentinel_username = keep(dapr_md_string(md, "sentinelUsername"));
        s->sentinel_password = keep(dapr_md_string(md, "sentinelPassword"));
        s->sentinel_master = keep(dapr_md_string(md, "sentinelMasterName"));
        s->client_cert = keep(dapr_md_string(md, "clientCert"));
        s->client_key = keep(dapr_md_string(md, "clientKey"));
        s->ca_cert = keep(dapr_md_string(md, "caCert"));
        if (s->failover && !s->sentinel_master)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis client configuration error: failover is on but sentinelMasterName is "
                                                           "empty: name the master as the sentinels know it");
        if (s->failover && s->type == REDIS_CLUSTER)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis client configuration error: failover (sentinel) and redisType cluster "
                                                           "exclude each other: remove one");
        if (s->type == REDIS_CLUSTER && s->db)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis client configuration error: a cluster has database 0 only: remove redisDB");
        if (!s->client_cert != !s->client_key)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "redis client configuration error: clientCert and clientKey go together: set both or none");
        return 0;
}

enum { OWNED = 9 };

static void owned_strings(struct redis_settings *s, char **ret[OWNED])
{
        char **owned[OWNED] = {&s->host, &s->username, &s->password, &s->sentinel_username, &s->sentinel_password,
                               &s->sentinel_master, &s->client_cert, &s->client_key, &s->ca_cert};
        memcpy(ret, owned, sizeof(owned));
}

int redis_settings_copy(struct redis_settings *to, const struct redis_settings *from)
{
        char **owned[OWNED];
        bool failed = false;
        *to = *from;
        owned_strings(to, owned);
        for (size_t i = 0; i < OWNED; i++)
                if (*owned[i]) {
                        *owned[i] = strdup(*owned[i]);
                        failed |= !*owned[i];
                }
        if (failed)
                redis_settings_fini(to);
        return failed ? -ENOMEM : 0;
}

void redis_settings_fini(struct redis_settings *s)
{
        char **owned[OWNED];
        owned_strings(s, owned);
        for (size_t i = 0; i < OWNED; i++) {
                free(*owned[i]);
                *owned[i] = NULL;
        }
}
