/* The conformance kit for secret stores, locks, configuration, crypto, conversation and bindings; and a harmless call of each kind. */
#include <stdio.h>
#include <unistd.h>

#include "ctl/conform.h"
#include "dapr/proto/components/v1/bindings.pb-c.h"
#include "dapr/proto/components/v1/secretstore.pb-c.h"
#include "dapr/proto/components/v1/state.pb-c.h"
#include "plugin/v1/configuration.pb-c.h"
#include "plugin/v1/conversation.pb-c.h"
#include "plugin/v1/crypto.pb-c.h"
#include "plugin/v1/lock.pb-c.h"

#define TRY(x, what) do { if (x) return conform_wrong(c, what); } while (0)
#define MUST(x, text) do { if (!(x)) return (text); } while (0)

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

const struct conform_check conform_lock_checks[] = {{"one owner at a time", one_owner}, {"locks expire", locks_expire}};
const size_t conform_lock_n = sizeof conform_lock_checks / sizeof *conform_lock_checks;

/* ---- configuration ---- */

#define SUBSCRIBED_S 0.2

static int get_items(struct conform *c, const char **keys, size_t n, Microdapr__Plugin__V1__ConfigurationGetResponse **ret)
{
        Microdapr__Plugin__V1__ConfigurationGetRequest req = MICRODAPR__PLUGIN__V1__CONFIGURATION_GET_REQUEST__INIT;
        req.keys = keys;
        req.n_keys = n;
        return conform_ask(c, "/microdapr.plugin.v1.ConfigurationStore/Get", &req.base, &microdapr__plugin__v1__configuration_get_response__descriptor, ret);
}

static const char *items_agree(struct conform *c)
{
        Microdapr__Plugin__V1__ConfigurationGetResponse *all, *one;
        TRY(get_items(c, NULL, 0, &all), "Get without keys");
        for (size_t i = 0; i < all->n_items && i < 10; i++) {
                const char *keys[] = {all->items[i]->key};
                TRY(get_items(c, keys, 1, &one), "Get of a key");
                MUST(one->n_items == 1 && strcmp(one->items[0]->value, all->items[i]->value) == 0, "Get of a key and of all keys differ");
        }
        const char *missing[] = {"conformance.missing.key"};
        TRY(get_items(c, missing, 1, &one), "Get of a key that is not there");
        MUST(one->n_items == 0, "a key that is not there has an item");
        return NULL;
}

typedef Microdapr__Plugin__V1__ConfigurationSubscribeRequest subscribe_t;

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

/* A receive that passes its deadline gives the stream up, and so does rpc_cancel(); any other end is the component's own. */
static const char *subscriptions_open_and_end(struct conform *c)
{
        subscribe_t req = MICRODAPR__PLUGIN__V1__CONFIGURATION_SUBSCRIBE_REQUEST__INIT;
        Microdapr__Plugin__V1__ConfigurationUpdate *update;
        const char *keys[] = {"conformance.key"}, *fault = put_subscribe_metadata(c, &req);
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md};
        struct rpc_call *calls[3];
        int n = 0;
        req.keys = keys;
        req.n_keys = 1;
        for (; n < 3 && !fault; n++) {
                TRY(rpc_open(c->ch, &c->call, "/microdapr.plugin.v1.ConfigurationStore/Subscribe", &o, &calls[n], &c->status), "Subscribe");
                rpc_send_pb(calls[n], &req.base);
                rpc_send_end(calls[n]);
        }
        for (int i = 0; i < n; i++) {
                double old = fiber_set_deadline(loop_now_exact() + SUBSCRIBED_S);
                rpc_recv_pb(calls[i], &microdapr__plugin__v1__configuration_update__descriptor, &update);
                fiber_restore_deadline(old);
                rpc_cancel(calls[i]);
                int code = rpc_finish(calls[i]);
                c->status = calls[i]->status;
                if (code != RPC_CANCELLED && code != RPC_DEADLINE_EXCEEDED)
                        fault = conform_wrong(c, "a subscription that nobody had given up");
        }
        return fault;
}

const struct conform_check conform_configuration_checks[] = {{"single, missing and all items", items_agree},
                                                             {"three subscriptions open and end", subscriptions_open_and_end}};
const size_t conform_configuration_n = sizeof conform_configuration_checks / sizeof *conform_configuration_checks;

/* ---- crypto ---- */

#define CRYPTO "/microdapr.plugin.v1.Crypto/"

static const char *missing_key(struct conform *c)
{
        Microdapr__Plugin__V1__CryptoGetKeyRequest req = MICRODAPR__PLUGIN__V1__CRYPTO_GET_KEY_REQUEST__INIT;
        req.key_name = "conformance-missing-key";
        int r = conform_ask(c, CRYPTO "GetKey", &req.base, NULL, NULL);
        MUST(r != 0, "a key that is not there was given");
        return r == RPC_UNAVAILABLE || r == RPC_DEADLINE_EXCEEDED ? conform_wrong(c, "GetKey of a key that is not there") : NULL;
}

static const char *unknown_algorithm(struct conform *c)
{
        Microdapr__Plugin__V1__CryptoRequest req = MICRODAPR__PLUGIN__V1__CRYPTO_REQUEST__INIT;
        req.algorithm = "no-such-algorithm";
        req.key_name = c->keys.n ? c->keys.v[0] : "any";
        req.data = pb_bytes(STR("text"));
        return conform_ask(c, CRYPTO "Encrypt", &req.base, NULL, NULL) ? NULL : "an unknown algorithm was taken";
}

/* --key name:algorithm, e.g. rsa:RSA-OAEP-256. */
static const char *round_trips(struct conform *c)
{
        if (c->keys.n == 0)
                return conform_skip(c, "say --key NAME:ALGORITHM for keys that it holds, such as rsa:RSA-OAEP-256");
        for (size_t i = 0; i < c->keys.n; i++) {
                const char *colon = strrchr(c->keys.v[i], ':');
                Microdapr__Plugin__V1__CryptoRequest req = MICRODAPR__PLUGIN__V1__CRYPTO_REQUEST__INIT;
                Microdapr__Plugin__V1__CryptoResponse *sealed, *opened;
                MUST(colon, "--key is NAME:ALGORITHM");
                req.key_name = arena_strdup(&c->call, str_n(c->keys.v[i], (size_t)(colon - c->keys.v[i])));
                req.algorithm = colon + 1;
                req.data = pb_bytes(STR("a text to keep"));
                bool gcm = strstr(req.algorithm, "GCM") != NULL, block = gcm || strstr(req.algorithm, "CBC");
                req.nonce = pb_bytes(gcm ? STR("twelve bytes") : block ? STR("sixteen bytes...") : STR(""));
                TRY(conform_ask(c, CRYPTO "Encrypt", &req.base, &microdapr__plugin__v1__crypto_response__descriptor, &sealed), "Encrypt");
                MUST(!str_eq(pb_str(sealed->data), STR("a text to keep")), "the cipher text is the text");
                req.data = sealed->data;
                req.tag = sealed->tag;
                TRY(conform_ask(c, CRYPTO "Decrypt", &req.base, &microdapr__plugin__v1__crypto_response__descriptor, &opened), "Decrypt");
                MUST(str_eq(pb_str(opened->data), STR("a text to keep")), "what comes back is another text");
                if (!req.tag.len)
                        continue;
                req.tag.data[0] ^= 1;
                MUST(conform_ask(c, CRYPTO "Decrypt", &req.base, NULL, NULL), "a changed tag was taken");
        }
        return NULL;
}

const struct conform_check conform_crypto_checks[] = {
        {"a key that is not there", missing_key}, {"an unknown algorithm", unknown_algorithm}, {"what is encrypted is decrypted", round_trips}};
const size_t conform_crypto_n = sizeof conform_crypto_checks / sizeof *conform_crypto_checks;

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

const struct conform_check conform_conversation_checks[] = {{"messages of all roles are answered", converses}};
const size_t conform_conversation_n = sizeof conform_conversation_checks / sizeof *conform_conversation_checks;

/* ---- bindings ---- */

#define OUTPUT "/dapr.proto.components.v1.OutputBinding/"
typedef Dapr__Proto__Components__V1__InvokeResponse invoked_t;

static bool lists(const Dapr__Proto__Components__V1__ListOperationsResponse *l, const char *name)
{
        for (size_t i = 0; i < l->n_operations; i++)
                if (strcmp(l->operations[i], name) == 0)
                        return true;
        return false;
}

static const char *operations_are_listed(struct conform *c)
{
        Dapr__Proto__Components__V1__ListOperationsRequest req = DAPR__PROTO__COMPONENTS__V1__LIST_OPERATIONS_REQUEST__INIT;
        Dapr__Proto__Components__V1__ListOperationsResponse *resp;
        Dapr__Proto__Components__V1__InvokeRequest invoke = DAPR__PROTO__COMPONENTS__V1__INVOKE_REQUEST__INIT;
        if (!strstr(conform_service(c), "Output"))
                return conform_skip(c, "it is no output binding");
        TRY(conform_ask(c, OUTPUT "ListOperations", &req.base, &dapr__proto__components__v1__list_operations_response__descriptor, &resp), "ListOperations");
        MUST(resp->n_operations, "it has no operation");
        invoke.operation = "no-such-operation";
        MUST(lists(resp, "no-such-operation") || conform_ask(c, OUTPUT "Invoke", &invoke.base, NULL, NULL), "an operation that it does not have was taken");
        return subject_is_alive(c->subject) || !c->subject->pid ? NULL : "it is gone";
}

/* Events of an input binding; few have one ready. */
static const char *events_are_read(struct conform *c)
{
        struct rpc_opts o = {.md = c->md, .n_md = c->n_md};
        struct rpc_call *call;
        Dapr__Proto__Components__V1__ReadResponse *event;
        Dapr__Proto__Components__V1__ReadRequest ack = DAPR__PROTO__COMPONENTS__V1__READ_REQUEST__INIT;
        if (c->n_features && !conform_has(c, "INPUT_BINDING"))
                return conform_skip(c, "it is no input binding");
        TRY(rpc_open(c->ch, &c->call, "/dapr.proto.components.v1.InputBinding/Read", &o, &call, &c->status), "Read");
        double old = fiber_set_deadline(loop_now_exact() + 3);
        int r = rpc_recv_pb(call, &dapr__proto__components__v1__read_response__descriptor, &event);
        if (r == 1) {
                ack.message_id = event->message_id;
                rpc_send_pb(call, &ack.base);
        }
        fiber_restore_deadline(old);
        rpc_cancel(call);
        int code = rpc_finish(call);
        if (r == 1)
                return *event->message_id ? NULL : "an event has no id";
        if (code == RPC_CANCELLED || code == RPC_DEADLINE_EXCEEDED || code == RPC_UNIMPLEMENTED)
                return conform_skip(c, code == RPC_UNIMPLEMENTED ? "it is no input binding" : "no event within 3 s");
        c->status = call->status;
        return conform_wrong(c, "Read");
}

const struct conform_check conform_binding_checks[] = {{"operations are listed, others refused", operations_are_listed},
                                                       {"events are read and acknowledged", events_are_read}};
const size_t conform_binding_n = sizeof conform_binding_checks / sizeof *conform_binding_checks;
