/*
 * middleware.http.ratelimit: so many requests a second for each client and path. A token bucket each: it begins full, holds what one
 * second gives (at least 1), and a request without a token gets 429. The client is the last address of X-Forwarded-For, else X-Real-IP,
 * else the peer; an IPv6 address counts by its /64. Buckets that are full again say nothing and are dropped when many are held.
 */
#include <arpa/inet.h>
#include <dapr/plugin.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/loop.h"
#include "sdk/base/map.h"

enum { BUCKETS_MAX = 100000, KEY_PATH_BYTES = 1024 };

struct bucket {
        double tokens, at;
};
struct limiter {
        double rate, burst;
        struct map buckets;
        double swept_at;
};

static void drop_all(struct limiter *l)
{
        for (struct map_entry *e = NULL; (e = map_next(&l->buckets, e));)
                free(e->value);
        map_fini(&l->buckets);
}

static void shut(void *instance)
{
        drop_all(instance);
        free(instance);
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *given = dapr_md_string(md, "maxRequestsPerSecond");
        struct limiter *l;
        char *end = NULL;
        double rate = given && *given ? strtod(given, &end) : 100;

        if (end && (end == given || *end || isnan(rate)))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata property maxRequestsPerSecond is no number: %s", given);
        if (rate <= 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "metadata property maxRequestsPerSecond must be a positive value");
        l = calloc(1, sizeof *l);
        if (!l)
                return -ENOMEM;
        l->rate = rate;
        l->burst = floor(fmax(1, rate));
        *instance = l;
        return 0;
}

/* ---- who asks ---- */

static const char *last_of_list(struct dapr_call *c, const char *list)
{
        const char *comma = strrchr(list, ',');
        char *one = dapr_strdup(c, comma ? comma + 1 : list);
        size_t n;

        if (!one)
                return NULL;
        while (*one == ' ' || *one == '\t')
                one++;
        n = strlen(one);
        while (n && (one[n - 1] == ' ' || one[n - 1] == '\t'))
                one[--n] = 0;
        return one;
}

/* "127.0.0.1:40000" or "[::1]:40000" without the port. */
static const char *host_of(struct dapr_call *c, const char *peer)
{
        char *host = dapr_strdup(c, *peer == '[' ? peer + 1 : peer), *end;

        if (!host)
                return NULL;
        end = *peer == '[' ? strchr(host, ']') : strrchr(host, ':');
        if (end)
                *end = 0;
        return host;
}

static const char *canonical(struct dapr_call *c, const char *ip)
{
        unsigned char a[16];
        char *text;

        if (strchr(ip, '.') || inet_pton(AF_INET6, ip, a) != 1)
                return ip;
        memset(a + 8, 0, 8);
        text = dapr_alloc(c, INET6_ADDRSTRLEN);
        return text ? inet_ntop(AF_INET6, a, text, INET6_ADDRSTRLEN) : NULL;
}

static const char *client_of(struct dapr_call *c, const struct dapr_http *x)
{
        const char *forwarded = dapr_kvs_get(x->headers, "X-Forwarded-For"), *real = dapr_kvs_get(x->headers, "X-Real-IP");
        const char *ip = forwarded && *forwarded ? last_of_list(c, forwarded) : real && *real ? real : host_of(c, x->peer);

        ip = ip ? canonical(c, ip) : NULL;
        return ip && !*ip ? "0.0.0.0" : ip;
}

/* ---- buckets ---- */

static double tokens_now(const struct limiter *l, const struct bucket *b, double now)
{
        return fmin(l->burst, b->tokens + (now - b->at) * l->rate);
}

static void sweep(struct limiter *l, double now)
{
        if (now - l->swept_at < 1)
                return;
        l->swept_at = now;
        for (struct map_entry *e = NULL; (e = map_next(&l->buckets, e));)
                if (tokens_now(l, e->value, now) >= l->burst) {
                        free(e->value);
                        map_del(&l->buckets, (struct str){e->key, e->key_n});
                }
}

static struct bucket *bucket_of(struct limiter *l, const char *key, double now)
{
        struct bucket *b = map_get(&l->buckets, str_of(key));

        if (b)
                return b;
        if (l->buckets.count >= BUCKETS_MAX)
                sweep(l, now);
        if (l->buckets.count >= BUCKETS_MAX)
                return NULL;
        b = malloc(sizeof *b);
        if (b && map_set(&l->buckets, str_of(key), b)) {
                free(b);
                b = NULL;
        }
        if (b)
                *b = (struct bucket){l->burst, now};
        return b;
}

static int tell(struct dapr_call *c, const struct limiter *l, const struct dapr_http *x, double tokens)
{
        const char *forwarded = dapr_kvs_get(x->headers, "X-Forwarded-For");
        const char *limit = dapr_printf(c, "%.2f", l->rate), *rounded = dapr_printf(c, "%.0f", round(l->rate));
        const char *left = dapr_printf(c, "%d", (int)tokens);

        if (!limit || !rounded || !left)
                return -ENOMEM;
        if (dapr_http_add_response_header(c, "RateLimit-Limit", rounded) || dapr_http_add_response_header(c, "RateLimit-Reset", "1") ||
            dapr_http_add_response_header(c, "RateLimit-Remaining", left) || dapr_http_add_response_header(c, "X-Rate-Limit-Limit", limit) ||
            dapr_http_add_response_header(c, "X-Rate-Limit-Duration", "1") ||
            dapr_http_add_response_header(c, "X-Rate-Limit-Request-Remote-Addr", x->peer))
                return -ENOMEM;
        return forwarded && *forwarded ? dapr_http_add_response_header(c, "X-Rate-Limit-Request-Forwarded-For", forwarded) : 0;
}

static int request(struct dapr_call *c, void *instance, struct dapr_http *x)
{
        struct limiter *l = instance;
        const char *ip = client_of(c, x), *key = ip ? dapr_printf(c, "%s|%.*s", ip, KEY_PATH_BYTES, x->path) : NULL;
        double now = loop_now_exact();
        struct bucket *b = key ? bucket_of(l, key, now) : NULL;
        bool passes = false;
        int r;

        if (!key)
                return -ENOMEM;
        if (b) {
                b->tokens = tokens_now(l, b, now);
                b->at = now;
                passes = b->tokens >= 1;
                b->tokens -= passes;
        }
        r = tell(c, l, x, passes ? b->tokens : 0);
        return r || passes ? r : dapr_http_answer_text(c, 429, "You have reached maximum request limit.");
}

static const struct dapr_middleware_ops ops = {.mode = DAPR_INLINE, .init = init, .close = shut, .request = request};
static const struct dapr_component_type types[] = {{.type = "middleware.http.ratelimit", .versions = "v1", .middleware = &ops}};
static const struct dapr_plugin plugin = {.name = "middleware.http.ratelimit", .version = "1.0.0", .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
