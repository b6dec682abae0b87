/* crypto.cstore: signatures by a checksum with one key, which protect nothing. Put your provider in its place. */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

static const char secret[] = "a secret that never leaves this process";

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        (void)c, (void)md; /* read settings: dapr_md_string(md, "url") */
        *instance = (void *)secret;
        return 0;
}

static uint64_t checksum(const char *key, struct dapr_bytes data)
{
        uint64_t sum = 14695981039346656037u;
        for (const char *p = key; *p; p++)
                sum = (sum ^ (unsigned char)*p) * 1099511628211u;
        for (size_t i = 0; i < data.n; i++)
                sum = (sum ^ ((const unsigned char *)data.p)[i]) * 1099511628211u;
        return sum;
}

static int check(struct dapr_call *c, const struct dapr_sign *in)
{
        if (strcmp(in->key, "hello") != 0)
                return dapr_fail(c, DAPR_NOT_FOUND, "key not found");
        return strcmp(in->algorithm, "RS256") == 0 ? 0 : dapr_fail(c, DAPR_INVALID_ARGUMENT, "unsupported algorithm");
}

static int sign(struct dapr_call *c, void *instance, const struct dapr_sign *in, struct dapr_bytes *out)
{
        uint64_t sum = checksum(instance, in->digest);
        int r = check(c, in);
        if (r)
                return r;
        *out = dapr_copy(c, &sum, sizeof sum);
        return out->p ? 0 : -ENOMEM;
}

static int verify(struct dapr_call *c, void *instance, const struct dapr_sign *in, bool *valid)
{
        uint64_t sum = checksum(instance, in->digest);
        *valid = in->signature.n == sizeof sum && memcmp(in->signature.p, &sum, sizeof sum) == 0;
        return check(c, in);
}

static const struct dapr_crypto_ops ops = {.mode = DAPR_INLINE, .init = init, .sign = sign, .verify = verify};
static const struct dapr_component_type types[] = {{.type = "crypto.cstore", .versions = "v1", .crypto = &ops}};
/* PLUGIN_VERSION: that of plugin.yaml, from the Makefile. */
static const struct dapr_plugin plugin = {.name = "crypto.cstore", .version = PLUGIN_VERSION, .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
