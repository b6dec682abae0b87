/* Reading a JWKS. */
#include "plugins/shared/crypto/keyset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/json.h"

enum { KEYS_MAX = 1000 };

struct keyset *keyset_ref(struct keyset *s)
{
        s->refs++;
        return s;
}

void keyset_unref(struct keyset *s)
{
        if (!s || --s->refs > 0)
                return;
        for (size_t i = 0; i < s->n; i++)
                key_free(s->keys[i]);
        free(s->keys);
        free(s);
}

struct key *keyset_find(const struct keyset *s, const char *kid)
{
        for (size_t i = 0; i < s->n; i++)
                if (s->keys[i]->kid && strcmp(s->keys[i]->kid, kid) == 0)
                        return s->keys[i];
        return NULL;
}

static int add(struct keyset *s, struct str jwk)
{
        const char *err;
        struct key *k;
        int r = key_from_jwk(&k, jwk, &err);
        if (r == -EINVAL) {
                dapr_log(DAPR_LOG_WARN, "a key of the JWKS is left out: %s", err);
                return 0;
        }
        if (!r)
                s->keys[s->n++] = k;
        return r;
}

/* The array that stands next. */
static int add_all(struct keyset *s, struct json_reader *r)
{
        struct str jwk;
        int x = 0;
        if (!json_enter_array(r))
                return -EINVAL;
        while (!x && json_next_element(r)) {
                if (s->n == KEYS_MAX)
                        return -E2BIG;
                x = json_read_raw(r, &jwk) ? add(s, jwk) : -EINVAL;
        }
        return x;
}

int keyset_parse(struct keyset **ret, struct str json, const char **ret_err)
{
        struct keyset *s = calloc(1, sizeof *s);
        struct arena a = {0};
        struct json_reader r;
        struct str name;
        bool has_keys = false;
        int x = 0;
        if (!s || !(s->keys = calloc(KEYS_MAX, sizeof *s->keys))) {
                free(s);
                return -ENOMEM;
        }
        s->refs = 1;
        json_read_init(&r, json);
        if (!json_enter_object(&r))
                x = -EINVAL;
        while (!x && json_next_member(&r, &a, &name)) {
                if (!str_eqz(name, "keys"))
                        json_skip(&r);
                else if (!(x = add_all(s, &r)))
                        has_keys = true;
        }
        if (!x && (r.error || !json_at_end(&r)))
                x = -EINVAL;
        if (!x && !has_keys)
                x = add(s, json);
        arena_fini(&a);
        *ret_err = x == -E2BIG ? "the JWKS has more than 1000 keys" : "the JWKS is not valid JSON of that form";
        if (x)
                keyset_unref(s);
        else
                *ret = s;
        return x == -E2BIG ? -EINVAL : x;
}
