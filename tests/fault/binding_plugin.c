/* Bindings of every shape the SDK has. Input: each event's data tells what came back for the one before: "<reply>|<error>". */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dapr/plugin.h"

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        *instance = strdup(dapr_md_string(md, "mode") ? dapr_md_string(md, "mode") : "");
        return *instance ? 0 : -ENOMEM;
}

static int say(struct dapr_reader *r, const char *text, struct dapr_event_reply *reply)
{
        const struct dapr_kv md[] = {{"k", "v"}};
        const struct dapr_event e = {.data = {text, strlen(text)}, .content_type = "text/plain", .metadata = {md, 1}};

        return dapr_binding_event(r, &e, reply);
}

static void task(struct dapr_reader *r, void *arg)
{
        say(r, arg, NULL);
}

static int answer(struct dapr_reader *r, char *text, size_t n)
{
        struct dapr_event_reply reply = {0};
        int x = say(r, text, &reply);

        if ((x == 0) != (reply.error == NULL))
                snprintf(text, n, "wrong: %d", x);
        else
                snprintf(text, n, "%.*s|%s", (int)reply.data.n, (const char *)reply.data.p, reply.error ? reply.error : "");
        dapr_event_reply_free(&reply);
        return x == DAPR_INTERNAL ? 0 : x;
}

static int read_events(struct dapr_call *c, void *instance, struct dapr_reader *r)
{
        char text[200] = "first";
        int x = 0;

        if (strcmp(instance, "fail") == 0)
                return dapr_fail(c, DAPR_UNAVAILABLE, "nothing to read");
        if (strcmp(instance, "end") == 0)
                return 0;
        if (strcmp(instance, "tasks") == 0) {
                dapr_reader_go(r, task, "one");
                dapr_reader_go(r, task, "two");
                return dapr_sleep(1000);
        }
        while (x == 0)
                x = answer(r, text, sizeof text);
        return x;
}

static int invoke(struct dapr_call *c, void *instance, const struct dapr_invoke *in, struct dapr_invoke_result *out)
{
        static const struct dapr_kv md[] = {{"why", "because"}};

        if (strcmp(in->operation, "nothing") == 0)
                return 0;
        if (strcmp(in->operation, "empty") == 0) {
                out->data = (struct dapr_bytes){"", 0};
                return 0;
        }
        out->metadata = (struct dapr_kvs){md, 1};
        if (strcmp(in->operation, "fail") == 0)
                return dapr_fail(c, DAPR_NOT_FOUND, "not %s", dapr_kvs_get(in->metadata, "what"));
        out->data = in->data;
        out->content_type = "a/b";
        return 0;
}

static const char *const operations[] = {"nothing", "empty", "fail", "echo", NULL};
static const struct dapr_binding_ops on_fiber = {.mode = DAPR_FIBER, .init = init, .close = free, .read = read_events};
static const struct dapr_binding_ops on_worker = {.mode = DAPR_WORKER, .init = init, .close = free, .read = read_events};
static const struct dapr_binding_ops both = {.mode = DAPR_FIBER, .init = init, .close = free, .read = read_events,
                                             .operations = operations, .invoke = invoke};

int main(int argc, char **argv)
{
        static const struct dapr_component_type types[] = {{.type = "bindings.fiber", .versions = "v1", .binding = &on_fiber},
                                                           {.type = "bindings.worker", .versions = "v1", .binding = &on_worker},
                                                           {.type = "bindings.both", .versions = "v1", .binding = &both}};
        static const struct dapr_plugin plugin = {.name = "bindings", .version = "1", .types = types, .n_types = 3, .worker_threads = 2};

        return dapr_plugin_main(argc, argv, &plugin);
}
