/*
 * A state store that misbehaves as told: FAULT_MODE (environment, named in its manifest) for what comes before Init, metadata
 * `mode` for Init and after, keys for single calls: crash, hang, slow, unreachable, reachable, chatty, exit; others are found.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dapr/plugin.h"
#include "plugin/v1/lifecycle.pb-c.h"
#include "sdk/base/loop.h"
#include "sdk/net/rpc.h"

/* Also under a sanitizer, which catches the signal. */
static void crash(void)
{
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
}

static void dying(void *arg)
{
        dapr_sleep(0.02);
        fprintf(stderr, "I cannot go on\n");
        _exit(7);
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *mode = dapr_md_string(md, "mode");
        if (!mode)
                mode = "";
        if (strcmp(mode, "init-exit") == 0) {
                fprintf(stderr, "no such backend\n");
                _exit(4);
        }
        if (strcmp(mode, "init-crash") == 0 && (!dapr_md_has(md, "file") || access(dapr_md_string(md, "file"), F_OK) == 0))
                crash();
        if (strcmp(mode, "init-fail") == 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing connection string");
        if (strcmp(mode, "init-blocked") == 0 && access(dapr_md_string(md, "file"), F_OK) == 0)
                return dapr_fail(c, DAPR_UNAVAILABLE, "the backend is away");
        if (strcmp(mode, "init-hang") == 0)
                for (;;)
                        pause();
        if (strcmp(mode, "init-slow") == 0)
                return dapr_sleep(60);
        if (strcmp(mode, "dying") == 0)
                dapr_spawn("dying", dying, NULL);
        if (strcmp(mode, "echo") == 0)
                dapr_log(DAPR_LOG_WARN, "timeout is %lld ns, secret %s", (long long)dapr_md_duration_ns(md, "timeout"),
                         dapr_md_has(md, "secret") ? "given" : "not given");
        *instance = strdup(dapr_instance(c));
        return *instance ? 0 : -ENOMEM;
}

static void close_instance(void *instance)
{
        free(instance);
}

static int get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        if (strcmp(in->key, "crash") == 0)
                crash();
        if (strcmp(in->key, "exit") == 0)
                _exit(9);
        if (strcmp(in->key, "hang") == 0)
                for (;;)
                        pause();
        if (strcmp(in->key, "slow") == 0 && dapr_sleep(0.3))
                return -ECANCELED;
        if (strcmp(in->key, "unreachable") == 0)
                dapr_backend_down(dapr_instance(c), "connection refused by the test");
        if (strcmp(in->key, "reachable") == 0)
                dapr_backend_up(dapr_instance(c));
        if (strcmp(in->key, "chatty") == 0)
                for (int i = 0; i < 3000; i++)
                        printf("line %d of many\n", i);
        fflush(stdout);
        if (strcmp(in->key, "fds") == 0) {
                char *list = dapr_printf(c, "%s", "");
                for (int fd = 0; list && fd < 64; fd++)
                        if (fcntl(fd, F_GETFD) >= 0)
                                list = dapr_printf(c, "%s%d ", list, fd);
                out->value = list ? dapr_copy(c, list, strlen(list)) : (struct dapr_bytes){0};
        } else {
                out->value = dapr_copy(c, instance, strlen(instance));
        }
        out->found = true;
        return out->value.p ? 0 : -ENOMEM;
}

static int set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        if (strcmp(in->key, "crash") == 0)
                raise(SIGKILL);
        if (strcmp(in->key, "mismatch") == 0)
                return dapr_fail(c, DAPR_ETAG_MISMATCH, "not that one");
        if (strcmp(in->key, "slow") == 0)
                return dapr_sleep(0.3);
        return 0;
}

static int del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        return 0;
}

/* ---- before Init ---- */

static int newer_hello(struct rpc_call *c, void *arg)
{
        const Microdapr__Plugin__V1__HelloRequest *in;
        Microdapr__Plugin__V1__HelloResponse out = MICRODAPR__PLUGIN__V1__HELLO_RESPONSE__INIT;
        uint32_t versions[] = {7, 8};
        if (rpc_recv_pb(c, &microdapr__plugin__v1__hello_request__descriptor, &in) != 1)
                return -EBADMSG;
        out.plugin_name = "state.faulty";
        out.plugin_version = "9.0";
        out.contract_versions = versions;
        out.n_contract_versions = 2;
        return rpc_send_pb(c, &out.base);
}

static const struct rpc_method newer_rows[] = {{"/microdapr.plugin.v1.Lifecycle/Hello", newer_hello, NULL}};

static int newer(size_t rows)
{
        struct rpc_server *s;
        struct rpc_server_conf conf = {.name = "newer"};
        if (loop_init() || rpc_server_new(&s, &conf) || rpc_server_add(s, newer_rows, rows) || rpc_server_adopt(s, 3))
                return 1;
        loop_run();
        return 0;
}

static void garbage(int fd)
{
        unsigned char b[1024];
        for (size_t i = 0; i < sizeof b; i++)
                b[i] = (unsigned char)(i * 131 + 7);
        for (int i = 0; i < 4; i++)
                if (write(fd, b, sizeof b) < 0)
                        break;
}

static int misbehave(const char *mode)
{
        if (strcmp(mode, "silent") == 0)
                for (;;)
                        pause();
        if (strcmp(mode, "garbage") == 0) {
                garbage(1);
                garbage(2);
                for (;;)
                        pause();
        }
        if (strcmp(mode, "garbage-socket") == 0) {
                int fd = accept(3, NULL, NULL);
                for (int i = 0; fd < 0 && i < 200; i++, fd = accept(3, NULL, NULL))
                        usleep(10000);
                garbage(fd);
                for (;;)
                        pause();
        }
        if (strcmp(mode, "exit") == 0) {
                fprintf(stderr, "libfoo.so.1: cannot open shared object file\n");
                return 127;
        }
        if (strcmp(mode, "segv") == 0)
                crash();
        if (strcmp(mode, "newer") == 0)
                return newer(1);
        if (strcmp(mode, "stranger") == 0)
                return newer(0);
        return 1;
}

static const struct dapr_state_ops ops = {
        .mode = DAPR_INLINE, .features = DAPR_FEATURE_ETAG, .init = init, .close = close_instance, .get = get, .set = set, .del = del};
static const struct dapr_component_type types[] = {{.type = "state.faulty", .versions = "v1", .state = &ops},
                                                   {.type = "state.alias", .versions = "v1, v2", .state = &ops}};
static const struct dapr_plugin plugin = {.name = "state.faulty", .version = "1.2.3", .types = types, .n_types = 2};

int main(int argc, char **argv)
{
        const char *mode = getenv("FAULT_MODE");
        if (mode && *mode && strcmp(mode, "good") != 0)
                return misbehave(mode);
        return dapr_plugin_main(argc, argv, &plugin);
}
