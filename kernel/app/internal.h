/* Inside the app channel. */
#ifndef KERNEL_APP_INTERNAL_H
#define KERNEL_APP_INTERNAL_H

#include "kernel/app/app.h"
#include "kernel/kernel.h"
#include "kernel/observe/trace.h"

#define TOKEN_HEADER "dapr-api-token"

enum { WATCHERS_MAX = 16 };

struct app_watcher {
        void (*fn)(void *arg, bool healthy);
        void *arg;
};

struct app {
        struct kernel *k;
        bool is_grpc, has_tls;
        char target[300];              /* "127.0.0.1:8080" */
        char base_url[310];
        struct str token;              /* APP_API_TOKEN; n == 0: none */
        struct tls_context *tls;
        struct http_client *http;      /* HTTP apps */
        struct rpc_channel *grpc;      /* gRPC apps */
        struct map open;               /* exchanges of app_http_open: struct open_call, by the exchange's address */
        bool limited;
        struct fsem slots;             /* with --app-max-concurrency */

        /* health.c */
        struct scope scope;            /* probes, notifications */
        bool healthy, told;            /* the present state; what the watchers know */
        unsigned failures;
        struct cond changed;
        struct app_watcher watchers[WATCHERS_MAX];
        size_t n_watchers;
        struct fmutex telling;         /* watchers hear of one change at a time */

        /* config.c */
        struct arena config_arena;
        struct app_config config;
        bool config_read;
};

/* http.c: how long the head of an answer may be. */
enum { APP_HEADER_BYTES_MIN = 4096 };
size_t app_header_bytes(const struct app *p);
/* http.c: one exchange without slot, metrics, token and trace headers, for health probes. 0 or -errno; *status. Parks. */
int app_http_probe(struct app *p, struct arena *a, const char *path, int *status);

/* config.c: asks the app once. Parks. */
void app_config_read(struct app *p);

#endif
