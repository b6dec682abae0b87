/*
 * crypto.dapr.jwks: keys of a JWKS that is given as text, in a file, or at a URL; the name of a key is its kid. A file is read again
 * when it has changed, a URL at most every minRefreshInterval; what cannot be read leaves the keys as they are. Operations run on the
 * worker pool, with the set of keys of the moment when they began.
 */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "plugins/shared/crypto/keyset.h"
#include "plugins/shared/crypto/local.h"
#include "plugins/shared/web/web.h"
#include "sdk/base/fiber.h"
#include "sdk/base/json.h"
#include "sdk/base/loop.h"

enum { JWKS_BYTES_MAX = 4 << 20, REQUEST_TIMEOUT_S = 30, MIN_REFRESH_S = 600 };

struct jwks {
        struct keyset *set;
        struct web_site *site;     /* of a URL */
        char *path;                /* of a file */
        struct stat read;          /* the file as it was read last */
        double timeout_s, refresh_s, read_at;
        bool reading;
};

/* ---- where keys come from ---- */

static int parse(struct jwks *j, struct str text, const char **why)
{
        struct keyset *set;
        int r = keyset_parse(&set, text, why);
        if (!r) {
                keyset_unref(j->set);
                j->set = set;
        }
        return r;
}

static int read_file(struct jwks *j, const struct stat *st, const char **why)
{
        FILE *f = fopen(j->path, "re");
        char *text = f ? malloc(JWKS_BYTES_MAX) : NULL;
        size_t n = text ? fread(text, 1, JWKS_BYTES_MAX, f) : 0;
        int r = !f ? -EINVAL : !text ? -ENOMEM : 0;
        *why = f ? "the file is too long" : "the file cannot be opened";
        if (f)
                fclose(f);
        if (!r)
                r = n < JWKS_BYTES_MAX ? parse(j, str_n(text, n), why) : -EINVAL;
        if (text)
                explicit_bzero(text, n);
        free(text);
        j->read = *st;
        return r;
}

static int fetch(struct jwks *j, const char **why)
{
        struct http_header accept = {STR("Accept"), STR("application/json")};
        struct arena a = {0};
        struct web_answer answer;
        double old = fiber_set_deadline(loop_now_exact() + j->timeout_s);
        int r = web_request(j->site, &a, "GET", "", &accept, 1, STR_NULL, JWKS_BYTES_MAX, &answer, why);
        fiber_restore_deadline(old);
        j->read_at = loop_now_exact();
        if (!r && answer.status != 200) {
                *why = "the server's answer is not 200";
                r = -EINVAL;
        }
        if (!r)
                r = parse(j, answer.body, why);
        arena_fini(&a);
        return r;
}

/* Keys that are due to be read again. A failure is logged and changes nothing. Parks for URLs; one fiber at a time does it. */
static void refresh(struct jwks *j)
{
        const char *why = "";
        struct stat st;
        int r = 0;
        if (j->path && stat(j->path, &st) == 0 &&
            (st.st_ino != j->read.st_ino || st.st_size != j->read.st_size || st.st_mtim.tv_sec != j->read.st_mtim.tv_sec ||
             st.st_mtim.tv_nsec != j->read.st_mtim.tv_nsec)) {
                r = read_file(j, &st, &why);
        } else if (j->site && !j->reading && loop_now() - j->read_at >= j->refresh_s) {
                j->reading = true;
                r = fetch(j, &why);
                j->reading = false;
        }
        if (r)
                dapr_log(DAPR_LOG_WARN, "Error while refreshing JWKS cache: %s", r == -ENOMEM ? "out of memory" : why);
}

/* ---- the instance ---- */

static void op_close(void *instance)
{
        struct jwks *j = instance;
        keyset_unref(j->set);
        web_site_free(j->site);
        free(j->path);
        free(j);
}

static int from_text(struct jwks *j, const char *text, const char **why)
{
        struct arena a = {0};
        struct str s = str_of(text);
        while (s.n && s.p[s.n - 1] == '=')
                s.n--;
        struct str json = base64_decode(&a, s);
        int r = parse(j, json.p ? json : str_of(text), why);
        if (r == -EINVAL)
                *why = "failed to parse property 'location': not a URL, path to local file, or JSON value (optionally base64-encoded)";
        arena_fini(&a);
        return r;
}

static int set_up(struct jwks *j, const char *text, const char **why)
{
        struct stat st;
        if (web_is_url(text)) {
                if (!strncasecmp(text, "http:", 5))
                        dapr_log(DAPR_LOG_WARN, "Loading JWK from an HTTP endpoint without TLS: this is not recommended on production environments.");
                int r = web_site_new(&j->site, text, why);
                return r ? r : fetch(j, why);
        }
        if (stat(text, &st) == 0 && !S_ISDIR(st.st_mode)) {
                j->path = strdup(text);
                return j->path ? read_file(j, &st, why) : -ENOMEM;
        }
        return from_text(j, text, why);
}

static int op_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *text = dapr_md_string(md, "jwks"), *why = "";
        if (!text || !*text)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to load metadata: metadata property 'jwks' is required");
        struct jwks *j = calloc(1, sizeof *j);
        if (!j)
                return -ENOMEM;
        j->timeout_s = (double)dapr_md_duration_ns(md, "requestTimeout") / 1e9;
        j->refresh_s = (double)dapr_md_duration_ns(md, "minRefreshInterval") / 1e9;
        if (j->timeout_s < 1e-3)
                j->timeout_s = REQUEST_TIMEOUT_S;
        if (j->refresh_s < 1)
                j->refresh_s = MIN_REFRESH_S;
        int r = set_up(j, text, &why);
        if (!r)
                *instance = j;
        else
                op_close(j);
        return r && r != -ENOMEM ? dapr_fail(c, DAPR_INVALID_ARGUMENT, "failed to init cache: %s", why) : r;
}

/* ---- operations, with a set of keys that stays for as long ---- */

struct job {
        struct local_provider provider; /* what the operation sees as the instance */
        struct keyset *set;
        struct dapr_call *c;
        int (*run)(struct job *j);
        const void *in;
        void *out;
        enum dapr_key_format format;
};

static int find(struct dapr_call *c, struct local_provider *p, const char *name, struct key **ret, const char **ret_why)
{
        *ret = keyset_find(((struct job *)p)->set, name);
        *ret_why = "key not found";
        return *ret ? 0 : DAPR_NOT_FOUND;
}

static void release(struct local_provider *p, struct key *k)
{
}

static int on_thread(void *arg)
{
        struct job *j = arg;
        return j->run(j);
}

static int run(struct jwks *j, struct job *job)
{
        refresh(j);
        job->provider = (struct local_provider){find, release};
        job->set = keyset_ref(j->set);
        int r = dapr_work(on_thread, job);
        keyset_unref(job->set);
        return r;
}

#define OPERATION(name, in_type, out_type)                                                                  \
        static int run_##name(struct job *j)                                                                \
        {                                                                                                   \
                return local_##name(j->c, j, j->in, j->out);                                                \
        }                                                                                                   \
        static int op_##name(struct dapr_call *c, void *instance, const struct in_type *in, out_type *out)  \
        {                                                                                                   \
                return run(instance, &(struct job){.c = c, .run = run_##name, .in = in, .out = out});       \
        }
OPERATION(encrypt, dapr_crypt, struct dapr_crypt_result)
OPERATION(decrypt, dapr_crypt, struct dapr_crypt_result)
OPERATION(wrap_key, dapr_crypt, struct dapr_crypt_result)
OPERATION(unwrap_key, dapr_crypt, struct dapr_crypt_result)
OPERATION(sign, dapr_sign, struct dapr_bytes)
OPERATION(verify, dapr_sign, bool)

static int run_get_key(struct job *j)
{
        return local_get_key(j->c, j, j->in, j->format, j->out);
}

static int op_get_key(struct dapr_call *c, void *instance, const char *key, enum dapr_key_format format, struct dapr_public_key *out)
{
        return run(instance, &(struct job){.c = c, .run = run_get_key, .in = key, .out = out, .format = format});
}

static const struct dapr_crypto_ops ops = {
        .mode = DAPR_FIBER,
        .init = op_init,
        .close = op_close,
        .get_key = op_get_key,
        .encrypt = op_encrypt,
        .decrypt = op_decrypt,
        .wrap_key = op_wrap_key,
        .unwrap_key = op_unwrap_key,
        .sign = op_sign,
        .verify = op_verify,
};
static const struct dapr_component_type types[] = {{.type = "crypto.dapr.jwks", .versions = "v1", .crypto = &ops}};

int main(int argc, char **argv)
{
        static const struct dapr_plugin plugin = {.name = "crypto.dapr.jwks", .version = "1.0.0", .types = types, .n_types = 1};
        return dapr_plugin_main(argc, argv, &plugin);
}
