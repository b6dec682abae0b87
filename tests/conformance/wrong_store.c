/* A plugin for state.sqlite that must not come to serve: it fails as WRONG says, each time in another way. */
#include <dapr/plugin.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { BAD_INIT = 1, BAD_HELLO, BAD_CRASH, BAD_ANSWERS, BAD_SLOW, BAD_LEAK, BAD_READ };

enum { LOST_BYTES = 16 * 1024 };

static void die_soon(void *arg)
{
        dapr_sleep(0.15);
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        if (WRONG == BAD_INIT)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "this build knows no connection string");
        if (WRONG == BAD_CRASH)
                dapr_spawn("die-soon", die_soon, NULL);
        *instance = malloc(1);
        return *instance ? 0 : -ENOMEM;
}

static void shut(void *instance)
{
        free(instance);
}

static int get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        static int reads;
        if (WRONG == BAD_SLOW)
                dapr_sleep(0.06);
        if (WRONG == BAD_READ && ++reads > 20)
                raise(SIGABRT);
        if (WRONG == BAD_LEAK) {
                static char *volatile held; /* a list that only grows: no leak to a sanitizer */
                char *more = calloc(1, LOST_BYTES);
                for (int i = 0; more && i < LOST_BYTES; i += 1024)
                        ((volatile char *)more)[i] = 1;
                if (more) {
                        memcpy(more, &(char *){held}, sizeof held);
                        held = more;
                }
        }
        out->found = WRONG == BAD_ANSWERS;
        if (!out->found)
                return 0;
        out->value = dapr_copy(c, "\"wrong\"", 7);
        out->etag = "1";
        return 0;
}

static int set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        return 0;
}

static int del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        return 0;
}

static const struct dapr_state_ops ops = {.mode = DAPR_INLINE, .init = init, .close = shut, .get = get, .set = set, .del = del};
static const struct dapr_component_type types[] = {{.type = WRONG == BAD_HELLO ? "state.other" : "state.sqlite", .versions = "v1", .state = &ops}};

int main(int argc, char **argv)
{
        static const struct dapr_plugin plugin = {.name = "state.sqlite", .version = "9.9.9", .types = types, .n_types = 1};
        return dapr_plugin_main(argc, argv, &plugin);
}
