/*
 * One small component of each kind, right as long as the setting `how` is empty. Each word of it breaks one promise of its kind, so that
 * each check of the conformance kit is seen to fail.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ITEMS = 64, NAMES = 32, MESSAGES = 512 };

static char how[32], file[256];

static int is(const char *word)
{
        return strcmp(how, word) == 0;
}

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *word = dapr_md_string(md, "how"), *path = dapr_md_string(md, "file");
        snprintf(how, sizeof how, "%s", word ? word : "");
        snprintf(file, sizeof file, "%s", path ? path : "");
        *instance = how;
        return 0;
}

/* ---- middleware ---- */

static int busy;

static int request_head(struct dapr_call *c, void *o, struct dapr_http *x)
{
        if (is("status"))
                return dapr_http_answer(c, 99, "x", 1);
        if (is("odd") && (strcmp(x->method, "WHAT-IS-THIS") == 0 || x->headers.n > 100))
                return dapr_fail(c, DAPR_INTERNAL, "too odd for me");
        return dapr_http_add_header(c, is("header") ? "a b" : "x-seen", "yes");
}

static int request_whole(struct dapr_call *c, void *o, struct dapr_http *x)
{
        while (is("alone") && busy)
                if (dapr_sleep(0.01))
                        return -ECANCELED;
        busy = 1;
        dapr_http_want(c, DAPR_HTTP_REQUEST_BODY | DAPR_HTTP_RESPONSE_BODY);
        return 0;
}

static int body(struct dapr_call *c, void *o, struct dapr_http *x, struct dapr_bytes in, bool last, struct dapr_bytes *out)
{
        *out = dapr_copy(c, in.p, in.n);
        if (is("pieces") && in.n) /* the last byte of each piece is lost */
                out->n--;
        if (is("big") && in.n == 65536)
                return dapr_fail(c, DAPR_INTERNAL, "too big for me");
        return 0;
}

static void over(void *o, struct dapr_http *x)
{
        busy = 0;
}

/* ---- name resolution ---- */

static struct { char instance[64], app[64]; int port; } names[NAMES];

static int name_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const struct dapr_sidecar *me = dapr_sidecar(c);
        int i = 0;
        init(c, md, instance);
        while (i < NAMES - 1 && *names[i].app && (is("keeps") || strcmp(names[i].instance, dapr_instance(c)) != 0))
                i++;
        snprintf(names[i].instance, sizeof names[i].instance, "%s", dapr_instance(c));
        snprintf(names[i].app, sizeof names[i].app, "%s", me->app_id);
        names[i].port = is("port") ? 1 : me->internal_port;
        return 0;
}

static int resolve(struct dapr_call *c, void *o, const struct dapr_resolve *in, struct dapr_addresses *out)
{
        const char **v = dapr_alloc(c, sizeof *v);
        if (is("dies") && strlen(in->id) > 200)
                abort();
        if (is("slow"))
                dapr_sleep(0.7);
        for (int i = 0; i < NAMES; i++)
                if (*in->id && strcmp(names[i].app, in->id) == 0) {
                        v[0] = dapr_printf(c, is("address") ? "http://127.0.0.1:%d/" : "127.0.0.1:%d", names[i].port);
                        *out = (struct dapr_addresses){v, 1, 1};
                        return 0;
                }
        return is("silent") ? 0 : dapr_fail(c, DAPR_NOT_FOUND, "no host found for %s", in->id);
}

/* ---- bindings ---- */

static char created[256];
static size_t n_created;
static int waiting;

static int invoke(struct dapr_call *c, void *o, const struct dapr_invoke *in, struct dapr_invoke_result *out)
{
        if (strcmp(in->operation, "create") == 0) {
                n_created = in->data.n < sizeof created ? in->data.n : sizeof created;
                memcpy(created, in->data.p, n_created);
                waiting = !is("unread");
        } else if (strcmp(in->operation, "delete") == 0 && !is("kept")) {
                n_created = 0;
        } else if (strcmp(in->operation, "get") == 0) {
                if (!n_created)
                        return dapr_fail(c, DAPR_NOT_FOUND, "nothing is there");
                out->data = dapr_copy(c, created, is("cut") ? n_created - 1 : n_created);
        }
        return 0;
}

static int read_events(struct dapr_call *c, void *o, struct dapr_reader *r)
{
        while (dapr_sleep(0.02) == 0)
                if (waiting) {
                        struct dapr_event e = {.data = {created, n_created}};
                        int code = dapr_binding_event(r, &e, NULL);
                        if (code == -ECANCELED)
                                break;
                        if (code && is("touchy"))
                                return dapr_fail(c, DAPR_INTERNAL, "the app failed, so I do, too");
                        if (code && is("other"))
                                created[0] ^= 1;
                        waiting = code != 0;
                }
        return -ECANCELED;
}

/* ---- configuration: lines "KEY VALUE" of a file ---- */

static struct { char key[128], value[128]; } items[ITEMS];
static size_t n_items;

static void read_file(void)
{
        FILE *f = *file ? fopen(file, "re") : NULL;
        n_items = 0;
        while (f && n_items < ITEMS && fscanf(f, "%127s %127[^\n]", items[n_items].key, items[n_items].value) == 2) {
                size_t i = 0;
                while (strcmp(items[i].key, items[n_items].key) != 0)
                        i++;
                if (i < n_items)
                        memcpy(items[i].value, items[n_items].value, sizeof items[i].value);
                else
                        n_items++;
        }
        if (f)
                fclose(f);
}

static int wanted(const struct dapr_config_query *in, const char *key)
{
        for (size_t i = 0; i < in->n; i++)
                if (strcmp(in->keys[i], key) == 0)
                        return 1;
        return in->n == 0 || is("all");
}

static int config_get(struct dapr_call *c, void *o, const struct dapr_config_query *in, struct dapr_config_items *out)
{
        struct dapr_config_item *v = dapr_alloc(c, (ITEMS + 1) * sizeof *v);
        read_file();
        for (size_t i = 0; i < n_items; i++)
                if (wanted(in, items[i].key))
                        v[out->n++] = (struct dapr_config_item){.key = items[i].key, .value = is("stale") && in->n ? "old" : items[i].value};
        if (is("ghost"))
                v[out->n++] = (struct dapr_config_item){.key = "conformance.missing.key", .value = "boo"};
        out->v = v;
        return 0;
}

static int config_subscribe(struct dapr_call *c, void *o, struct dapr_config_watch *w, const struct dapr_config_query *in)
{
        char seen[ITEMS][128] = {{0}};
        int r = is("late") ? 0 : dapr_config_subscribed(w);
        for (; r == 0; r = dapr_sleep(0.01)) {
                if (is("deaf"))
                        continue;
                read_file();
                for (size_t i = 0; i < n_items && r == 0; i++)
                        if (wanted(in, items[i].key) && strcmp(seen[i], items[i].value) != 0) {
                                snprintf(seen[i], sizeof seen[i], "%s", items[i].value);
                                r = dapr_config_changed(w, &(struct dapr_config_item){.key = items[i].key, .value = seen[i]}, 1);
                        }
        }
        return r;
}

/* ---- locks ---- */

static struct { char resource[64], owner[64]; time_t end; } locks[ITEMS];

static int lock_of(const char *resource)
{
        int i = 0;
        while (i < ITEMS - 1 && *locks[i].resource && strcmp(locks[i].resource, resource) != 0)
                i++;
        snprintf(locks[i].resource, sizeof locks[i].resource, "%s", resource);
        if (*locks[i].owner && time(NULL) > locks[i].end && !is("ever"))
                *locks[i].owner = '\0';
        return i;
}

static int try_lock(struct dapr_call *c, void *o, const struct dapr_lock *in, bool *taken)
{
        int i = lock_of(in->resource);
        *taken = !*locks[i].owner || is("both");
        if (!*taken)
                return 0;
        snprintf(locks[i].owner, sizeof locks[i].owner, "%s", in->owner);
        locks[i].end = time(NULL) + in->expiry_s;
        return 0;
}

static int unlock(struct dapr_call *c, void *o, const struct dapr_lock *in, enum dapr_unlock *out)
{
        int i = lock_of(in->resource);
        *out = !*locks[i].owner ? DAPR_LOCK_MISSING : strcmp(locks[i].owner, in->owner) != 0 && !is("thief") ? DAPR_LOCK_OF_OTHERS : DAPR_UNLOCKED;
        if (*out == DAPR_UNLOCKED)
                *locks[i].owner = '\0';
        return 0;
}

/* ---- crypto: no cipher, but it keeps what a cipher promises to the kit ---- */

static unsigned sum(const char *key, struct dapr_bytes a, struct dapr_bytes b)
{
        unsigned n = 5381;
        for (size_t i = 0; i < a.n; i++)
                n = n * 33 + ((const unsigned char *)a.p)[i];
        for (size_t i = 0; i < b.n; i++)
                n = n * 31 + ((const unsigned char *)b.p)[i] + 1;
        for (const char *p = is("anykey") ? "" : key; *p; p++)
                n = n * 37 + (unsigned char)*p;
        return n;
}

static int known(struct dapr_call *c, const char *key, const char *algorithm, const char *want)
{
        if (!is("missing") && strncmp(key, "key", 3) != 0)
                return dapr_fail(c, DAPR_NOT_FOUND, "key not found");
        return is("lenient") || strcmp(algorithm, want) == 0 ? 0 : dapr_fail(c, DAPR_INVALID_ARGUMENT, "unsupported algorithm");
}

static struct dapr_bytes scramble(struct dapr_call *c, struct dapr_bytes in)
{
        struct dapr_bytes out = dapr_copy(c, in.p, in.n);
        for (size_t i = 0; i < out.n && !is("plain"); i++)
                ((char *)out.p)[i] ^= 0x55;
        return out;
}

static int encrypt(struct dapr_call *c, void *o, const struct dapr_crypt *in, struct dapr_crypt_result *out)
{
        unsigned tag = sum(in->key, in->data, in->associated_data);
        int r = known(c, in->key, in->algorithm, "A256GCM");
        out->data = scramble(c, in->data);
        out->tag = dapr_copy(c, &tag, sizeof tag);
        return r;
}

static int decrypt(struct dapr_call *c, void *o, const struct dapr_crypt *in, struct dapr_crypt_result *out)
{
        int r = known(c, in->key, in->algorithm, "A256GCM");
        out->data = scramble(c, in->data);
        unsigned tag = sum(in->key, out->data, in->associated_data);
        if (is("wrong"))
                ((char *)out->data.p)[0]++;
        return r ? r : is("untagged") || (in->tag.n == sizeof tag && memcmp(in->tag.p, &tag, sizeof tag) == 0) ? 0 : dapr_fail(c, DAPR_INVALID_ARGUMENT, "no");
}

static int sign(struct dapr_call *c, void *o, const struct dapr_sign *in, struct dapr_bytes *out)
{
        unsigned tag = sum(in->key, in->digest, (struct dapr_bytes){0});
        *out = dapr_copy(c, &tag, sizeof tag);
        return known(c, in->key, in->algorithm, "RS256");
}

static int verify(struct dapr_call *c, void *o, const struct dapr_sign *in, bool *valid)
{
        unsigned tag = sum(in->key, in->digest, (struct dapr_bytes){0});
        *valid = is("trusting") || (in->signature.n == sizeof tag && memcmp(in->signature.p, &tag, sizeof tag) == 0);
        return known(c, in->key, in->algorithm, "RS256");
}

static int get_key(struct dapr_call *c, void *o, const char *key, enum dapr_key_format format, struct dapr_public_key *out)
{
        out->text = format == DAPR_KEY_PEM ? "-----BEGIN PUBLIC KEY-----" : is("private") ? "{\"kty\":\"RSA\",\"d\":\"x\"}" : "{\"kty\":\"RSA\"}";
        return known(c, key, "", "");
}

/* ---- conversation ---- */

static int converse(struct dapr_call *c, void *o, const struct dapr_converse *in, struct dapr_converse_result *out)
{
        static const struct dapr_tool_call call = {"1", "function", "launch", "{}"};
        static struct dapr_choice choice;
        static struct dapr_output output = {&choice, 1};
        choice = (struct dapr_choice){.finish_reason = is("endless") ? "" : "stop", .content = is("mute") ? "" : "hello", .tool_calls = &call, .n_tool_calls = is("rogue")};
        out->outputs = &output;
        out->n = 1;
        return 0;
}

/* ---- secrets ---- */

static int secret_get(struct dapr_call *c, void *o, const char *name, struct dapr_kvs md, struct dapr_kvs *out)
{
        struct dapr_kv *kv = dapr_alloc(c, sizeof *kv);
        *kv = (struct dapr_kv){dapr_strdup(c, name), is("two-faced") ? "other" : "abcd"};
        if (strcmp(name, "known") != 0 && !is("generous"))
                return dapr_fail(c, DAPR_NOT_FOUND, "there is no secret %s", name);
        *out = (struct dapr_kvs){kv, 1};
        return 0;
}

static int secret_bulk(struct dapr_call *c, void *o, struct dapr_kvs md, struct dapr_secrets *out)
{
        static const struct dapr_kv kv = {"known", "abcd"};
        static const struct dapr_secret one = {"known", {&kv, 1}};
        *out = (struct dapr_secrets){&one, 1};
        return 0;
}

/* ---- a broker ---- */

static struct message { char topic[128]; char *data; size_t n; int state; } messages[MESSAGES]; /* state: 0 free, 1 waiting, 2 with the app */
static unsigned long long first, last; /* in order */

static int publish(struct dapr_call *c, void *o, const struct dapr_publish *in)
{
        struct message *m = &messages[last++ % MESSAGES];
        free(m->data);
        m->n = is("cut") && in->data.n > 1000 ? 1000 : in->data.n;
        m->data = malloc(m->n + 1);
        memcpy(m->data, in->data.p, m->n);
        if (is("bytes") && m->n == 9)
                m->data[0] = 'M';
        snprintf(m->topic, sizeof m->topic, "%s", in->topic);
        m->state = is("lossy") && m->n == 9 && m->data[8] == '7' ? 0 : 1;
        return 0;
}

static void done(void *arg, enum dapr_outcome outcome)
{
        struct message *m = arg;
        m->state = outcome == DAPR_ACKED ? 0 : 1;
        if (outcome == DAPR_NACKED && is("other") && m->n)
                m->data[0] ^= 1;
}

static struct message *pick(const char *topic)
{
        struct message *found = NULL;
        for (unsigned long long i = last > MESSAGES ? last - MESSAGES : first; i < last; i++) {
                struct message *m = &messages[i % MESSAGES];
                int mine = is("mixes") ? strncmp(m->topic, topic, strlen(topic) - 1) == 0 : strcmp(m->topic, topic) == 0;
                if (m->state != 1 || !mine)
                        continue;
                if (!is("backwards") || m->n != 9)
                        return m;
                found = m;
        }
        return found;
}

static int subscribe(struct dapr_call *c, void *o, struct dapr_subscription *s, const struct dapr_topic *topic)
{
        int r = 0;
        dapr_subscribed(s);
        while (r == 0) {
                struct message *m = pick(topic->name);
                if (is("backwards") && m && m->n == 9)
                        dapr_sleep(0.05); /* all ten are there then */
                m = pick(topic->name);
                if (!m) {
                        r = dapr_sleep(0.005);
                        continue;
                }
                m->state = 2;
                r = dapr_deliver(s, &(struct dapr_message){.topic = is("mixes") ? topic->name : is("topic") ? "elsewhere" : m->topic, .data = {m->data, m->n}}, done, m);
                if (r)
                        m->state = 1;
        }
        return dapr_subscription_wait(s);
}

static int bulk_publish(struct dapr_call *c, void *o, const struct dapr_bulk_publish *in, struct dapr_bulk_result *out)
{
        int n = is("half") ? 5 : (int)in->n;
        for (int i = 0; i < n; i++)
                publish(c, o, &(struct dapr_publish){.topic = in->topic, .data = in->entries[i].data});
        return 0;
}

/* ---- state: says more or less than it does ---- */

static char value[256];
static size_t n_value;
static unsigned version;

static int get(struct dapr_call *c, void *o, const struct dapr_get *in, struct dapr_item *out)
{
        *out = (struct dapr_item){.found = n_value > 0, .value = dapr_copy(c, value, n_value), .etag = n_value ? dapr_printf(c, "%u", version) : NULL};
        return 0;
}

static int set(struct dapr_call *c, void *o, const struct dapr_set *in)
{
        if (in->etag && *in->etag && strtoul(in->etag, NULL, 10) != version)
                return dapr_fail(c, DAPR_ETAG_MISMATCH, "old");
        n_value = in->value.n < sizeof value ? in->value.n : sizeof value;
        memcpy(value, in->value.p, n_value);
        version++;
        return 0;
}

static int del(struct dapr_call *c, void *o, const struct dapr_delete *in)
{
        n_value = 0;
        return 0;
}

static int query(struct dapr_call *c, void *o, const struct dapr_query *in, struct dapr_query_result *out)
{
        return 0; /* never finds anything */
}

static int keys_like(struct dapr_call *c, void *o, const struct dapr_keys_like *in, struct dapr_keys *out)
{
        return 0;
}

static const char *const operations[] = {"create", "get", "delete", NULL};
static const struct dapr_middleware_ops heads = {.mode = DAPR_FIBER, .init = init, .request = request_head},
        bodies = {.mode = DAPR_FIBER, .init = init, .request = request_whole, .request_body = body, .response_body = body, .done = over};
static const struct dapr_name_ops name_ops = {.mode = DAPR_FIBER, .init = name_init, .resolve = resolve};
static const struct dapr_binding_ops binding = {.mode = DAPR_FIBER, .init = init, .operations = operations, .invoke = invoke, .read = read_events};
static const struct dapr_configuration_ops configuration = {.mode = DAPR_FIBER, .init = init, .get = config_get, .subscribe = config_subscribe};
static const struct dapr_lock_ops lock = {.mode = DAPR_INLINE, .init = init, .try_lock = try_lock, .unlock = unlock};
static const struct dapr_crypto_ops crypto = {.mode = DAPR_INLINE, .init = init, .get_key = get_key, .encrypt = encrypt, .decrypt = decrypt, .sign = sign, .verify = verify};
static const struct dapr_conversation_ops conversation = {.mode = DAPR_INLINE, .init = init, .converse = converse};
static const struct dapr_secret_ops secrets = {.mode = DAPR_INLINE, .init = init, .get = secret_get, .bulk_get = secret_bulk};
static const struct dapr_pubsub_ops broker = {.mode = DAPR_FIBER, .init = init, .publish = publish, .bulk_publish = bulk_publish, .subscribe = subscribe},
        boaster = {.mode = DAPR_FIBER, .features = DAPR_FEATURE_SUBSCRIBE_WILDCARDS | DAPR_FEATURE_MESSAGE_TTL, .init = init, .publish = publish, .subscribe = subscribe};
static const struct dapr_state_ops modest = {.mode = DAPR_INLINE, .init = init, .get = get, .set = set, .del = del},
        proud = {.mode = DAPR_INLINE, .features = DAPR_FEATURE_ETAG | DAPR_FEATURE_TTL | DAPR_FEATURE_QUERY | DAPR_FEATURE_KEYS_LIKE | DAPR_FEATURE_TRANSACTIONAL,
                 .init = init, .get = get, .set = set, .del = del, .query = query, .keys_like = keys_like};
static const struct dapr_component_type types[] = {
        {.type = "middleware.heads", .versions = "v1", .middleware = &heads}, {.type = "middleware.bodies", .versions = "v1", .middleware = &bodies},
        {.type = "nameresolution.wrong", .versions = "v1", .names = &name_ops}, {.type = "bindings.wrong", .versions = "v1", .binding = &binding},
        {.type = "configuration.wrong", .versions = "v1", .configuration = &configuration}, {.type = "lock.wrong", .versions = "v1", .lock = &lock},
        {.type = "crypto.wrong", .versions = "v1", .crypto = &crypto}, {.type = "conversation.wrong", .versions = "v1", .conversation = &conversation},
        {.type = "secretstores.wrong", .versions = "v1", .secrets = &secrets}, {.type = "pubsub.wrong", .versions = "v1", .pubsub = &broker},
        {.type = "pubsub.boaster", .versions = "v1", .pubsub = &boaster}, {.type = "state.modest", .versions = "v1", .state = &modest},
        {.type = "state.proud", .versions = "v1", .state = &proud}};

int main(int argc, char **argv)
{
        static const struct dapr_plugin plugin = {.name = "wrong", .version = "1.0.0", .types = types, .n_types = sizeof types / sizeof *types};
        return dapr_plugin_main(argc, argv, &plugin);
}
