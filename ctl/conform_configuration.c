/* The conformance kit for configuration stores: items by key, and subscriptions that see changes until they are given up. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/conform.h"
#include "plugin/v1/configuration.pb-c.h"

#define SERVICE "/microdapr.plugin.v1.ConfigurationStore/"
#define STANDS_S (c->timeout_s * 0.5) /* 5 s */
#define CHANGE_S (c->timeout_s)
#define COMMAND_S 10.0
#define COMMAND_POLL_S 0.005
enum { SUBSCRIBERS = 3 };

typedef Microdapr__Plugin__V1__ConfigurationSubscribeRequest subscribe_t;
typedef Microdapr__Plugin__V1__ConfigurationUpdate update_t;
typedef Microdapr__Plugin__V1__ConfigurationGetResponse got_t;

static int get_items(struct conform *c, const char **keys, size_t n, got_t **ret)
{
        Microdapr__Plugin__V1__ConfigurationGetRequest req = MICRODAPR__PLUGIN__V1__CONFIGURATION_GET_REQUEST__INIT;
        req.keys = keys;
        req.n_keys = n;
        return conform_ask(c, SERVICE "Get", &req.base, &microdapr__plugin__v1__configuration_get_response__descriptor, ret);
}

static const char *items_agree(struct conform *c)
{
        got_t *all, *one;
        TRY(get_items(c, NULL, 0, &all), "Get without keys");
        for (size_t i = 0; i < all->n_items && i < 10; i++) {
                const char *keys[] = {all->items[i]->key};
                TRY(get_items(c, keys, 1, &one), "Get of a key");
                const char *value = one->n_items == 1 ? one->items[0]->value : NULL;
                MUST(value && strcmp(value, all->items[i]->value) == 0, conform_text(c, "Get of %s gives %s, of all keys %s", all->items[i]->key,
                                conform_quote(c, value ? str_of(value) : STR_NULL), conform_quote(c, str_of(all->items[i]->value))));
        }
        const char *missing[] = {"conformance.missing.key"};
        TRY(get_items(c, missing, 1, &one), "Get of a key that is not there");
        MUST(one->n_items == 0, "a key that is not there has an item");
        return NULL;
}

/* ---- subscriptions ---- */

struct sub {
        struct rpc_call *call;
        struct arena arena;
};

/* --subscribe-metadata into the request; NULL or what is wrong. */
static const char *put_subscribe_metadata(struct conform *c, subscribe_t *req)
{
        typedef Microdapr__Plugin__V1__ConfigurationSubscribeRequest__MetadataEntry entry_t;
        req->metadata = arena_alloc(&c->call, (c->subscribe_metadata.n + 1) * sizeof *req->metadata);
        for (size_t i = 0; req->metadata && i < c->subscribe_metadata.n; i++) {
                const char *text = c->subscribe_metadata.v[i], *eq = strchr(text, '=');
                entry_t *e = arena_new(&c->call, entry_t);
                MUST(eq, "--subscribe-metadata is NAME=VALUE");
                MUST(e, "out of memory");
                microdapr__plugin__v1__configuration_subscribe_request__metadata_entry__init(e);
                e->key = arena_strdup(&c->call, str_n(text, (size_t)(eq - text)));
                e->value = eq + 1;
                req->metadata[req->n_metadata++] = e;
        }
        return NULL;
}

static int next(struct sub *s, double timeout_s, update_t **ret)
{
        double old = fiber_set_deadline(loop_now_exact() + timeout_s);
        int r = rpc_recv_pb(s->call, &microdapr__plugin__v1__configuration_update__descriptor, ret);
        fiber_restore_deadline(old);
        return r;
}

/* The first update has no items: it says that the subscription stands. */
static const char *sub_open(struct conform *c, struct sub *s, const char *key)
{
        subscribe_t req = MICRODAPR__PLUGIN__V1__CONFIGURATION_SUBSCRIBE_REQUEST__INIT;
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md};
        update_t *u;
        req.keys = &key;
        req.n_keys = 1;
        HOLD(put_subscribe_metadata(c, &req));
        arena_init(&s->arena, 0);
        TRY(rpc_open(c->ch, &s->arena, SERVICE "Subscribe", &o, &s->call, &c->status), "Subscribe");
        rpc_send_pb(s->call, &req.base);
        rpc_send_end(s->call);
        int r = next(s, STANDS_S, &u);
        c->status = s->call->status;
        MUST(r >= 0 || r == -ETIMEDOUT, conform_wrong(c, "Subscribe"));
        MUST(r != -ETIMEDOUT, "a subscription does not say that it stands: by a first update without items");
        MUST(r == 1, "a subscription that nobody had given up has ended");
        return u->n_items ? "the first update has items: it is to say that the subscription stands" : NULL;
}

/* Gives it up; NULL, or how it had ended before. */
static const char *sub_close(struct conform *c, struct sub *s)
{
        const char *fault = NULL;
        if (!s->call)
                return NULL;
        rpc_cancel(s->call);
        int code = rpc_finish(s->call);
        c->status = s->call->status;
        if (code != RPC_CANCELLED && code != RPC_DEADLINE_EXCEEDED)
                fault = conform_wrong(c, "a subscription that nobody had given up");
        s->call = NULL;
        arena_fini(&s->arena);
        return fault;
}

static const char *subscriptions_stand(struct conform *c)
{
        struct sub subs[SUBSCRIBERS] = {0};
        const char *fault = NULL, *worse;
        for (int i = 0; i < SUBSCRIBERS && !fault; i++)
                fault = sub_open(c, &subs[i], "conformance.key");
        for (int i = 0; i < SUBSCRIBERS; i++)
                if ((worse = sub_close(c, &subs[i])) && !fault)
                        fault = worse;
        return fault;
}

/* ---- changes ---- */

/* Runs --change with KEY and VALUE in its environment. Not by ctl's process_start, whose loop reaps any child: the plugin is one, too. */
static const char *change(struct conform *c, const char *key, const char *value)
{
        char *argv[] = {"env", arena_printf(&c->call, "KEY=%s", key), arena_printf(&c->call, "VALUE=%s", value), "sh", "-c", (char *)c->change, NULL};
        posix_spawn_file_actions_t fa;
        pid_t pid;
        int status = 0, r = posix_spawn_file_actions_init(&fa);
        MUST(r == 0, "out of memory");
        posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
        r = posix_spawnp(&pid, argv[0], &fa, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&fa);
        MUST(r == 0, "the command of --change could not be started");
        double end = loop_now_exact() + COMMAND_S;
        while ((r = waitpid(pid, &status, WNOHANG)) == 0) {
                if (loop_now_exact() > end)
                        kill(pid, SIGKILL);
                fiber_sleep(COMMAND_POLL_S);
        }
        return r == pid && status == 0 ? NULL : "the command of --change failed, or took longer than 10 s";
}

/* Until an update has that value; stores may report a change more than once. */
static const char *sees(struct conform *c, struct sub *s, const char *key, const char *value)
{
        double end = loop_now_exact() + CHANGE_S;
        update_t *u;
        for (;;) {
                int r = next(s, end - loop_now_exact(), &u);
                MUST(r == 1, conform_text(c, "a subscription does not see that %s is %s", key, value));
                for (size_t i = 0; i < u->n_items; i++) {
                        MUST(strcmp(u->items[i]->key, key) == 0, conform_text(c, "a subscription to %s sees %s", key, u->items[i]->key));
                        if (strcmp(u->items[i]->value, value) == 0)
                                return NULL;
                }
        }
}

static const char *watch(struct conform *c, struct sub *subs, const char *key)
{
        got_t *got;
        for (int i = 0; i < SUBSCRIBERS; i++)
                HOLD(sub_open(c, &subs[i], key));
        HOLD(change(c, key, "one"));
        for (int i = 0; i < SUBSCRIBERS; i++)
                HOLD(sees(c, &subs[i], key, "one"));
        HOLD(sub_close(c, &subs[0])); /* the others stay */
        HOLD(change(c, arena_printf(&c->call, "%s-other", key), "not for us"));
        HOLD(change(c, key, "two"));
        for (int i = 1; i < SUBSCRIBERS; i++)
                HOLD(sees(c, &subs[i], key, "two"));
        TRY(get_items(c, &key, 1, &got), "Get");
        MUST(got->n_items == 1 && strcmp(got->items[0]->value, "two") == 0, "Get does not give what a subscription has seen");
        return NULL;
}

static const char *changes_are_seen(struct conform *c)
{
        struct sub subs[SUBSCRIBERS] = {0};
        const char *fault, *worse;
        if (!*c->change)
                return conform_skip(c, "say --change COMMAND: one that stores the item $KEY with the value $VALUE behind it");
        fault = watch(c, subs, arena_printf(&c->call, "conformance-%d", (int)getpid()));
        for (int i = 0; i < SUBSCRIBERS; i++)
                if ((worse = sub_close(c, &subs[i])) && !fault)
                        fault = worse;
        return fault;
}

const struct conform_check conform_configuration_checks[] = {
        {"single, missing and all items", items_agree},
        {"three subscriptions stand and end", subscriptions_stand},
        {"changes are seen until one unsubscribes", changes_are_seen},
};
const size_t conform_configuration_n = sizeof conform_configuration_checks / sizeof *conform_configuration_checks;
