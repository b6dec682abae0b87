/*
 * secretstores.local.file: secrets from a JSON file, read once at init. Nested objects and arrays become flat names joined by
 * nestedSeparator ("redis:password", "list:0"). With multiValued each member of the top object is one secret with several values.
 * Every init gets the whole file into two flat arrays, sorted by name; a get is a binary search.
 */
#include <ctype.h>
#include <dapr/plugin.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/json.h"

enum { FILE_BYTES_MAX = 64 * 1024 * 1024 };

struct value {
        const char *secret, *key, *text; /* in the arena */
};
struct store {
        struct arena arena;
        struct value *v; /* sorted by secret, then key */
        size_t n, cap;
};

/* ---- reading the file ---- */

struct reading {
        struct store *s;
        struct json_reader r;
        struct buf path;                 /* name of the value that is being read */
        size_t marks[JSON_MAX_DEPTH];    /* length of path outside each open level */
        size_t index[JSON_MAX_DEPTH];    /* next element of an array; SIZE_MAX for objects */
        int depth;
        const char *separator, *secret;  /* secret: of multiValued, else NULL */
        bool failed;
};

static void add(struct reading *rd, const char *secret, const char *key, const char *text)
{
        struct store *s = rd->s;
        if (s->n == s->cap) {
                size_t cap = s->cap ? s->cap * 2 : 64;
                struct value *v = realloc(s->v, cap * sizeof *v);
                if (!v) {
                        rd->failed = true;
                        return;
                }
                s->v = v;
                s->cap = cap;
        }
        if (!secret || !key || !text)
                rd->failed = true;
        else
                s->v[s->n++] = (struct value){secret, key, text};
}

/* Takes the scalar that stands next: strings as their value, all else as its JSON text. */
static void take_scalar(struct reading *rd, const char *secret)
{
        struct str v;
        bool ok = json_peek(&rd->r) == JSON_STRING ? json_read_string(&rd->r, &rd->s->arena, &v) : json_read_raw(&rd->r, &v);
        if (!ok)
                return;
        const char *key = arena_strdup(&rd->s->arena, buf_str(&rd->path));
        add(rd, secret ? secret : key, key, arena_strdup(&rd->s->arena, v));
}

static void push_name(struct reading *rd, struct str name)
{
        if (buf_len(&rd->path))
                buf_addz(&rd->path, rd->separator);
        buf_adds(&rd->path, name);
}

/* Enters the container that stands next; false when it is a scalar. */
static bool enter(struct reading *rd)
{
        bool object = json_enter_object(&rd->r), array = !object && json_enter_array(&rd->r);
        if (!object && !array)
                return false;
        rd->marks[rd->depth] = buf_len(&rd->path);
        rd->index[rd->depth++] = array ? 0 : SIZE_MAX;
        return true;
}

/* Moves to the next member of the innermost level and puts its name on the path; false at the end of the level. */
static bool next(struct reading *rd)
{
        size_t *index = &rd->index[rd->depth - 1];
        struct str name;
        char number[24];
        rd->path.len = rd->path.off + rd->marks[rd->depth - 1];
        if (*index == SIZE_MAX) {
                if (!json_next_member(&rd->r, &rd->s->arena, &name))
                        return false;
        } else {
                if (!json_next_element(&rd->r))
                        return false;
                snprintf(number, sizeof number, "%zu", (*index)++);
                name = str_of(number);
        }
        push_name(rd, name);
        return true;
}

/* Flattens the object that stands next; all its values belong to `secret` (NULL: each is a secret of its own). */
static void flatten(struct reading *rd, const char *secret)
{
        int base = rd->depth;
        if (!enter(rd))
                return;
        while (rd->depth > base && !rd->r.error && !rd->failed) {
                if (!next(rd))
                        rd->depth--;
                else if (!enter(rd))
                        take_scalar(rd, secret);
        }
}

static void read_multi_valued(struct reading *rd)
{
        struct str name, text;
        if (!json_enter_object(&rd->r))
                return;
        while (json_next_member(&rd->r, &rd->s->arena, &name) && !rd->failed) {
                const char *secret = arena_strdup(&rd->s->arena, name);
                buf_clear(&rd->path);
                switch (json_peek(&rd->r)) {
                case JSON_STRING:
                        if (json_read_string(&rd->r, &rd->s->arena, &text))
                                add(rd, secret, secret, arena_strdup(&rd->s->arena, text));
                        break;
                case JSON_OBJECT:
                        flatten(rd, secret);
                        break;
                case JSON_ERROR: case JSON_END: case JSON_NULL: case JSON_FALSE: case JSON_TRUE: case JSON_NUMBER: case JSON_ARRAY:
                        json_skip(&rd->r);
                        break;
                }
        }
}

static int by_name(const void *a, const void *b)
{
        const struct value *x = a, *y = b;
        int r = strcmp(x->secret, y->secret);
        return r ? r : strcmp(x->key, y->key);
}

static int parse(struct dapr_call *c, struct store *s, struct str text, const char *separator, bool multi_valued)
{
        struct reading *rd = calloc(1, sizeof *rd);
        if (!rd)
                return -ENOMEM;
        rd->s = s;
        rd->separator = separator;
        json_read_init(&rd->r, text);
        enum json_type top = json_peek(&rd->r);
        if (top == JSON_NULL)
                json_skip(&rd->r);
        else if (multi_valued)
                read_multi_valued(rd);
        else if (top == JSON_OBJECT)
                flatten(rd, NULL);
        int r = 0;
        if (rd->failed || rd->path.failed)
                r = -ENOMEM;
        else if (rd->r.error)
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "the secrets file is not valid JSON: %s at byte %zu", rd->r.error, rd->r.error_pos);
        else if (top != JSON_OBJECT && top != JSON_NULL)
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "the secrets file must hold one JSON object");
        else if (!json_at_end(&rd->r))
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "the secrets file holds more than one JSON object");
        buf_fini(&rd->path);
        free(rd);
        if (!r && s->n)
                qsort(s->v, s->n, sizeof *s->v, by_name);
        return r;
}

/* "open /x: no such file or directory" */
static int open_failed(struct dapr_call *c, const char *verb, const char *path, int err)
{
        char *why = dapr_strdup(c, strerror(err));
        if (why)
                *why = (char)tolower((unsigned char)*why);
        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s %s: %s", verb, path, why ? why : "");
}

static int read_file(struct dapr_call *c, const char *path, struct buf *out)
{
        FILE *f = fopen(path, "re");
        char chunk[2048];
        size_t n;
        if (!f)
                return open_failed(c, "open", path, errno);
        while ((n = fread(chunk, 1, sizeof chunk, f)) > 0 && buf_len(out) <= FILE_BYTES_MAX)
                buf_add(out, chunk, n);
        int err = ferror(f) ? errno : 0;
        fclose(f);
        if (err)
                return open_failed(c, "read", path, err);
        if (buf_len(out) > FILE_BYTES_MAX)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "%s is larger than %d MiB", path, FILE_BYTES_MAX >> 20);
        return out->failed ? -ENOMEM : 0;
}

/* ---- operations ---- */

static void op_close(void *instance)
{
        struct store *s = instance;
        arena_fini(&s->arena);
        free(s->v);
        free(s);
}

static int op_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        const char *path = dapr_md_string(md, "secretsFile"), *separator = dapr_md_string(md, "nestedSeparator");
        bool multi_valued = dapr_md_bool(md, "multiValued");
        if (!path || !*path)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "missing local secrets file in metadata");
        struct store *s = calloc(1, sizeof *s);
        struct buf text = {0};
        if (!s)
                return -ENOMEM;
        arena_init(&s->arena, 0);
        int r = read_file(c, path, &text);
        if (!r)
                r = parse(c, s, buf_str(&text), separator && *separator ? separator : ":", multi_valued);
        explicit_bzero(text.p, text.cap);
        buf_fini(&text);
        if (r) {
                op_close(s);
                return r;
        }
        dapr_set_features(c, multi_valued ? DAPR_FEATURE_MULTIPLE_VALUES_PER_SECRET : 0);
        *instance = s;
        return 0;
}

/* The values of the secret that starts at index i; *ret_next = index behind it. */
static int take_values(struct dapr_call *c, const struct store *s, size_t i, size_t *ret_next, struct dapr_kvs *out)
{
        size_t end = i, n = 0;
        while (end < s->n && !strcmp(s->v[end].secret, s->v[i].secret))
                end++;
        struct dapr_kv *kv = dapr_alloc(c, (end - i) * sizeof *kv);
        if (!kv)
                return -ENOMEM;
        for (size_t j = i; j < end; j++)
                if (!n || strcmp(kv[n - 1].key, s->v[j].key)) /* of equal names, made by flattening, one stays */
                        kv[n++] = (struct dapr_kv){s->v[j].key, s->v[j].text};
        *out = (struct dapr_kvs){kv, n};
        *ret_next = end;
        return 0;
}

static int op_get(struct dapr_call *c, void *instance, const char *name, struct dapr_kvs metadata, struct dapr_kvs *out)
{
        const struct store *s = instance;
        size_t lo = 0, hi = s->n;
        while (lo < hi) {
                size_t mid = lo + (hi - lo) / 2;
                if (strcmp(s->v[mid].secret, name) < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        if (lo == s->n || strcmp(s->v[lo].secret, name))
                return dapr_fail(c, DAPR_NOT_FOUND, "secret %s not found", name);
        return take_values(c, s, lo, &hi, out);
}

static int op_bulk_get(struct dapr_call *c, void *instance, struct dapr_kvs metadata, struct dapr_secrets *out)
{
        const struct store *s = instance;
        struct dapr_secret *list = dapr_alloc(c, s->n * sizeof *list);
        size_t n = 0;
        if (!list)
                return -ENOMEM;
        for (size_t i = 0; i < s->n; n++) {
                list[n].name = s->v[i].secret;
                int r = take_values(c, s, i, &i, &list[n].values);
                if (r)
                        return r;
        }
        *out = (struct dapr_secrets){list, n};
        return 0;
}

static const struct dapr_secret_ops ops = {
        .mode = DAPR_FIBER,
        .features = DAPR_FEATURE_MULTIPLE_VALUES_PER_SECRET, /* of instances with multiValued */
        .init = op_init,
        .close = op_close,
        .get = op_get,
        .bulk_get = op_bulk_get,
};
static const struct dapr_component_type types[] = {{.type = "secretstores.local.file", .versions = "v1", .secrets = &ops}};

int main(int argc, char **argv)
{
        static const struct dapr_plugin plugin = {.name = "secretstores.local.file", .version = "1.0.0", .types = types, .n_types = 1};
        return dapr_plugin_main(argc, argv, &plugin);
}
