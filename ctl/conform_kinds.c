/* The conformance kit for secret stores, locks and conversation; and a harmless call of each kind. */
#include <stdio.h>
#include <unistd.h>

#include "ctl/conform.h"
#include "dapr/proto/components/v1/secretstore.pb-c.h"
#include "dapr/proto/components/v1/state.pb-c.h"
#include "plugin/v1/conversation.pb-c.h"
#include "plugin/v1/lock.pb-c.h"


/* ---- a call that changes nothing ---- */

int conform_probe(struct conform *c, struct arena *a, double timeout_s)
{
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md, .timeout_s = timeout_s};
        const char *kind = c->kind, *method = "Ping";
        struct str req = STR(""), resp;
        if (strcmp(kind, "state") == 0) {
                method = "Get";
                req = STR("\x0a\x11" "conformance-probe"); /* key, field 1 */
        } else if (strcmp(kind, "secretstores") == 0) {
                method = "BulkGet";
        } else if (strcmp(kind, "lock") == 0) {
                method = "Unlock";
                req = STR("\x0a\x05probe\x12\x05probe");
        } else if (strcmp(kind, "configuration") == 0) {
                method = "Get";
                req = STR("\x0a\x05probe");
        } else if (strcmp(kind, "bindings") == 0 && strstr(conform_service(c), "Output")) {
                method = "ListOperations";
        }
        c->status = (struct rpc_status){0};
        return rpc_unary(c->ch, a, arena_printf(a, "/%s/%s", conform_service(c), method), req, &resp, &o, &c->status);
}

bool conform_probe_is_ping(const struct conform *c)
{
        static const char *const kinds[] = {"pubsub", "bindings", "crypto", "conversation", "middleware", "nameresolution"};
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
                if (strcmp(kinds[i], c->kind) == 0)
                        return true;
        return false;
}

/* ---- walls ---- */

/* The system's own word: no new rights, and a filter of system calls. */
static const char *walls_stand(struct conform *c)
{
        char path[64], line[256];
        int no_new_privs = 0, filter = 0;
        snprintf(path, sizeof path, "/proc/%d/status", (int)c->subject->pid);
        FILE *f = fopen(path, "re");
        MUST(f, "its process cannot be looked at");
        while (fgets(line, sizeof line, f)) {
                no_new_privs |= strncmp(line, "NoNewPrivs:\t1", 13) == 0;
                filter |= strncmp(line, "Seccomp:\t2", 10) == 0;
        }
        fclose(f);
        return no_new_privs && filter ? NULL : "its process may get new rights, or make any system call";
}

void conform_walls(struct conform *c)
{
        static const struct conform_check checks[] = {{"it runs inside its manifest's walls", walls_stand}};
        conform_run(c, "walls", checks, 1);
}

/* ---- secret stores ---- */

#define SECRETS "/dapr.proto.components.v1.SecretStore/"
typedef Dapr__Proto__Components__V1__GetSecretResponse secret_t;
typedef Dapr__Proto__Components__V1__BulkGetSecretResponse secrets_t;

static int get_secret(struct conform *c, const char *name, secret_t **ret)
{
        Dapr__Proto__Components__V1__GetSecretRequest req = DAPR__PROTO__COMPONENTS__V1__GET_SECRET_REQUEST__INIT;
        req.key = name;
        return conform_ask(c, SECRETS "Get", &req.base, &dapr__proto__components__v1__get_secret_response__descriptor, ret);
}

static int bulk_secrets(struct conform *c, secrets_t **ret)
{
        Dapr__Proto__Components__V1__BulkGetSecretRequest req = DAPR__PROTO__COMPONENTS__V1__BULK_GET_SECRET_REQUEST__INIT;
        return conform_ask(c, SECRETS "BulkGet", &req.base, &dapr__proto__components__v1__bulk_get_secret_response__descriptor, ret);
}

static bool has_value(const secret_t *s, const char *value)
{
        for (size_t i = 0; i < s->n_data; i++)
                if (strcmp(s->data[i]->value, value) == 0)
                        return true;
        return false;
}

static const char *known_secrets(struct conform *c)
{
        if (c->secrets.n == 0)
                return conform_skip(c, "say --secret name=value for one that it holds");
        for (size_t i = 0; i < c->secrets.n; i++) {
                const char *eq = strchr(c->secrets.v[i], '=');
                secret_t *s;
                MUST(eq, "--secret is name=value");
                TRY(get_secret(c, arena_strdup(&c->call, str_n(c->secrets.v[i], (size_t)(eq - c->secrets.v[i]))), &s), "Get");
                MUST(has_value(s, eq + 1), "Get gives another value than --secret says");
        }
        return NULL;
}

static const char *bulk_is_as_single(struct conform *c)
{
        secrets_t *all;
        int r = bulk_secrets(c, &all);
        if (r == RPC_UNIMPLEMENTED)
                return conform_skip(c, "it cannot list its secrets");
        TRY(r, "BulkGet");
        for (size_t i = 0; i < all->n_data && i < 10; i++) {
                secret_t *one;
                TRY(get_secret(c, all->data[i]->key, &one), "Get of a secret that BulkGet lists");
                const Dapr__Proto__Components__V1__SecretResponse *in = all->data[i]->value;
                MUST(in && in->n_secrets == one->n_data, "Get and BulkGet differ in the number of values");
                for (size_t k = 0; k < in->n_secrets; k++)
                        MUST(has_value(one, in->secrets[k]->value), "Get and BulkGet differ in a value");
        }
        return all->n_data ? NULL : conform_skip(c, "it holds no secrets");
}

static const char *missing_secret(struct conform *c)
{
        secret_t *s;
        int r = get_secret(c, "conformance-missing-secret", &s);
        if (r == RPC_UNAVAILABLE || r == RPC_DEADLINE_EXCEEDED)
                return conform_wrong(c, "Get of a secret that is not there");
        for (size_t i = 0; r == 0 && i < s->n_data; i++)
                MUST(!*s->data[i]->value, "a secret that is not there has a value");
        return NULL;
}

const struct conform_check conform_secret_checks[] = {
        {"secrets that it holds", known_secrets},
        {"bulk and single agree", bulk_is_as_single},
        {"a secret that is not there", missing_secret},
};
const size_t conform_secret_n = sizeof conform_secret_checks / sizeof *conform_secret_checks;

/* ---- locks ---- */

#define LOCK "/microdapr.plugin.v1.Lock/"
#define EXPIRY_MAX_S 6.0

static int try_lock(struct conform *c, const char *resource, const char *owner, int expiry_s, bool *ret)
{
        Microdapr__Plugin__V1__LockTryRequest req = MICRODAPR__PLUGIN__V1__LOCK_TRY_REQUEST__INIT;
        Microdapr__Plugin__V1__LockTryResponse *resp;
        req.resource = resource;
        req.owner = owner;
        req.expiry_s = expiry_s;
        int r = conform_ask(c, LOCK "TryLock", &req.base, &microdapr__plugin__v1__lock_try_response__descriptor, &resp);
        *ret = r == 0 && resp->success;
        return r;
}

/* The status, or -1. */
static int unlock(struct conform *c, const char *resource, const char *owner)
{
        Microdapr__Plugin__V1__LockUnlockRequest req = MICRODAPR__PLUGIN__V1__LOCK_UNLOCK_REQUEST__INIT;
        Microdapr__Plugin__V1__LockUnlockResponse *resp;
        req.resource = resource;
        req.owner = owner;
        return conform_ask(c, LOCK "Unlock", &req.base, &microdapr__plugin__v1__lock_unlock_response__descriptor, &resp) ? -1 : (int)resp->status;
}

static const char *lock_name(struct conform *c, const char *name)
{
        const char *z = arena_printf(&c->call, "conformance-%d-%s", (int)getpid(), name);
        return z ? z : "";
}

static const char *one_owner(struct conform *c)
{
        const char *a = lock_name(c, "a"), *b = lock_name(c, "b");
        bool got;
        TRY(try_lock(c, a, "ada", 30, &got), "TryLock");
        MUST(got, "a free resource was not locked");
        TRY(try_lock(c, a, "bob", 30, &got), "TryLock of a locked resource");
        MUST(!got, "two owners have one lock");
        TRY(try_lock(c, b, "bob", 30, &got), "TryLock of another resource");
        MUST(got, "a lock on one resource locks another");
        MUST(unlock(c, a, "bob") == 2, "Unlock by another owner is not answered with LOCK_BELONGS_TO_OTHERS");
        MUST(unlock(c, a, "ada") == 0, "Unlock by the owner is not answered with SUCCESS");
        MUST(unlock(c, a, "ada") == 1, "Unlock of a free resource is not answered with LOCK_DOES_NOT_EXIST");
        TRY(try_lock(c, a, "bob", 30, &got), "TryLock after Unlock");
        MUST(got, "a resource that was given back was not locked");
        return unlock(c, a, "bob") == 0 && unlock(c, b, "bob") == 0 ? NULL : "Unlock failed";
}

static const char *locks_expire(struct conform *c)
{
        const char *a = lock_name(c, "expires");
        bool got;
        TRY(try_lock(c, a, "ada", 1, &got), "TryLock");
        MUST(got, "a free resource was not locked");
        for (double end = loop_now_exact() + EXPIRY_MAX_S; ; fiber_sleep(0.1)) {
                TRY(try_lock(c, a, "bob", 30, &got), "TryLock");
                if (got)
                        break;
                MUST(loop_now_exact() < end, "a lock of 1 s is held after 6 s");
        }
        MUST(unlock(c, a, "ada") == 2, "the old owner can still unlock");
        return unlock(c, a, "bob") == 0 ? NULL : "Unlock failed";
}

const char *conform_lock_holds(struct conform *c, const char *name, void (*turn)(struct conform *c))
{
        const char *a = lock_name(c, name), *fault = NULL;
        bool got;
        TRY(try_lock(c, a, "ada", 30, &got), "TryLock");
        MUST(got, "a free resource was not locked");
        turn(c);
        if (try_lock(c, a, "bob", 30, &got))
                fault = conform_wrong(c, "TryLock in the other process");
        else if (got)
                fault = "what one process has locked the other locks for another owner";
        else if (unlock(c, a, "bob") != 2)
                fault = "Unlock by another owner in the other process is not answered with LOCK_BELONGS_TO_OTHERS";
        else if (unlock(c, a, "ada") != 0)
                fault = "Unlock by the owner in the other process is not answered with SUCCESS";
        turn(c);
        HOLD(fault);
        return unlock(c, a, "ada") == 1 ? NULL : "a lock that the other process has given back is still held";
}

const struct conform_check conform_lock_checks[] = {{"one owner at a time", one_owner}, {"locks expire", locks_expire}};
const size_t conform_lock_n = sizeof conform_lock_checks / sizeof *conform_lock_checks;

/* ---- conversation ---- */

static const char *converses(struct conform *c)
{
        static const char *const roles[] = {"system", "developer", "user", "assistant", "user"};
        Microdapr__Plugin__V1__ConversePart parts[5], *part_list[5];
        Microdapr__Plugin__V1__ConverseMessage messages[5], *list[5];
        Microdapr__Plugin__V1__ConverseRequest req = MICRODAPR__PLUGIN__V1__CONVERSE_REQUEST__INIT;
        Microdapr__Plugin__V1__ConverseResponse *resp;
        for (int i = 0; i < 5; i++) {
                microdapr__plugin__v1__converse_part__init(&parts[i]);
                microdapr__plugin__v1__converse_message__init(&messages[i]);
                parts[i].part_case = MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART_TEXT;
                parts[i].text = i == 4 ? "Say hello." : "Be brief.";
                part_list[i] = &parts[i];
                messages[i].role = roles[i];
                messages[i].parts = &part_list[i];
                messages[i].n_parts = 1;
                list[i] = &messages[i];
        }
        req.messages = list;
        req.n_messages = 5;
        TRY(conform_ask(c, "/microdapr.plugin.v1.Conversation/Converse", &req.base, &microdapr__plugin__v1__converse_response__descriptor, &resp), "Converse");
        MUST(resp->n_outputs && resp->outputs[0]->n_choices, "the answer has no choice");
        MUST(*resp->outputs[0]->choices[0]->content, "the answer has no text");
        MUST(*resp->outputs[0]->choices[0]->finish_reason, "the answer does not say why it ended");
        return NULL;
}

/* A question, the call of a tool, and what came of it. */
struct tool_talk {
        Microdapr__Plugin__V1__ConversePart parts[3], *part_list[3];
        Microdapr__Plugin__V1__ConverseMessage messages[3], *list[3];
        Microdapr__Plugin__V1__ConverseTool tool, *tools[1];
        Microdapr__Plugin__V1__ConverseToolCall call;
        Microdapr__Plugin__V1__ConverseToolResult result;
};

static void fill_talk(struct tool_talk *t)
{
        static const char *const roles[] = {"user", "assistant", "tool"};
        microdapr__plugin__v1__converse_tool__init(&t->tool);
        microdapr__plugin__v1__converse_tool_call__init(&t->call);
        microdapr__plugin__v1__converse_tool_result__init(&t->result);
        for (int i = 0; i < 3; i++) {
                microdapr__plugin__v1__converse_part__init(&t->parts[i]);
                microdapr__plugin__v1__converse_message__init(&t->messages[i]);
                t->part_list[i] = &t->parts[i];
                t->messages[i].role = roles[i];
                t->messages[i].parts = &t->part_list[i];
                t->messages[i].n_parts = 1;
                t->list[i] = &t->messages[i];
        }
        t->tools[0] = &t->tool;
        t->call.id = t->result.id = "call-1";
        t->call.type = t->tool.type = "function";
        t->call.name = t->result.name = t->messages[2].name = t->tool.name = "weather";
        t->call.arguments = "{\"city\":\"Oslo\"}";
        t->result.content = "12 degrees";
        t->tool.description = "The weather of a city.";
        t->tool.parameters = pb_bytes(STR("{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}"));
        t->parts[0].part_case = MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART_TEXT;
        t->parts[0].text = "What is the weather in Oslo?";
        t->parts[1].part_case = MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART_TOOL_CALL;
        t->parts[1].tool_call = &t->call;
        t->parts[2].part_case = MICRODAPR__PLUGIN__V1__CONVERSE_PART__PART_TOOL_RESULT;
        t->parts[2].tool_result = &t->result;
}

static const char *check_calls(struct conform *c, const Microdapr__Plugin__V1__ConverseChoice *choice)
{
        for (size_t i = 0; i < choice->n_tool_calls; i++) {
                const Microdapr__Plugin__V1__ConverseToolCall *t = choice->tool_calls[i];
                MUST(strcmp(t->name, "weather") == 0, conform_text(c, "it calls the tool '%s', which it was not offered", t->name));
                MUST(*t->id, "a call of a tool has no id");
        }
        return NULL;
}

/* A model may call or not, but only what it was offered. */
static const char *tools_are_offered(struct conform *c)
{
        Microdapr__Plugin__V1__ConverseRequest req = MICRODAPR__PLUGIN__V1__CONVERSE_REQUEST__INIT;
        Microdapr__Plugin__V1__ConverseResponse *resp;
        struct tool_talk t;
        fill_talk(&t);
        req.messages = t.list;
        req.n_messages = 3;
        req.tools = t.tools;
        req.n_tools = 1;
        req.tool_choice = "auto";
        TRY(conform_ask(c, "/microdapr.plugin.v1.Conversation/Converse", &req.base, &microdapr__plugin__v1__converse_response__descriptor, &resp), "Converse with a tool");
        for (size_t i = 0; i < resp->n_outputs; i++)
                for (size_t k = 0; k < resp->outputs[i]->n_choices; k++)
                        HOLD(check_calls(c, resp->outputs[i]->choices[k]));
        return resp->n_outputs && resp->outputs[0]->n_choices ? NULL : "the answer has no choice";
}

const struct conform_check conform_conversation_checks[] = {{"messages of all roles are answered", converses}, {"tools may be offered", tools_are_offered}};
const size_t conform_conversation_n = sizeof conform_conversation_checks / sizeof *conform_conversation_checks;
