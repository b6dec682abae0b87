/*
 * YAML trees as JSON, and trees made of trees: one laid over another. Both walk with an explicit stack: a tree is at most YAML_MAX_DEPTH deep and
 * its size with aliases written out is bounded (yaml.h). Keys are sorted, as the reference's encoder does, so that a metadata
 * value that is a map has the same bytes.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/base/yaml.h"
#include "sdk/base/yaml_float.h"
#include "sdk/base/json.h"

struct level { /* one open map or list */
        const struct yaml_item **sorted; /* of a map */
        const struct yaml_item *next;    /* of a list */
        size_t at, n;
        bool is_map;
};

static int compare_keys(const void *pa, const void *pb)
{
        const struct yaml_item *const *a = pa, *const *b = pb;
        struct str x = (*a)->key->text, y = (*b)->key->text;
        int c = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
        return c ? c : x.n < y.n ? -1 : x.n > y.n;
}

static int open_level(struct arena *a, struct level *l, const struct yaml_node *n, struct json_writer *w)
{
        *l = (struct level){.next = n->items, .n = n->n, .is_map = n->kind == YAML_MAP};
        if (!l->is_map) {
                json_array_begin(w);
                return 0;
        }
        json_object_begin(w);
        l->sorted = arena_alloc(a, n->n * sizeof(void *));
        if (!l->sorted)
                return -ENOMEM;
        size_t k = 0;
        for (const struct yaml_item *i = n->items; i; i = i->next)
                l->sorted[k++] = i;
        qsort(l->sorted, n->n, sizeof(void *), compare_keys);
        return 0;
}

static int write_scalar(struct arena *a, const struct yaml_node *n, enum yaml_schema schema, struct json_writer *w)
{
        char number[YAML_FLOAT_TEXT];
        struct yaml_value v;
        int r = yaml_resolve(a, n, schema, &v);

        if (r)
                return r;
        switch (v.type) {
        case YAML_NULL:
                json_null(w);
                return 0;
        case YAML_BOOL:
                json_bool(w, v.b);
                return 0;
        case YAML_INT:
                json_int(w, v.i);
                return 0;
        case YAML_UINT:
                json_uint(w, v.u);
                return 0;
        case YAML_STRING:
                json_string(w, v.s);
                return 0;
        case YAML_FLOAT:
                if (isnan(v.d) || isinf(v.d))
                        return -EINVAL;
                yaml_format_float(number, v.d, YAML_FLOAT_JSON);
                json_raw(w, str_of(number));
                return 0;
        }
        return -EINVAL;
}

static int write_key(struct arena *a, const struct yaml_node *key, enum yaml_schema schema, struct json_writer *w)
{
        struct str text;
        int r = yaml_string(a, key, schema, &text);
        if (r)
                return r;
        if (!text.p)
                return -EINVAL;
        json_key(w, text);
        return 0;
}

static int write_tree(struct arena *a, const struct yaml_node *n, enum yaml_schema schema, struct json_writer *w)
{
        struct level *stack = arena_alloc(a, (YAML_MAX_DEPTH + 1) * sizeof *stack);
        size_t depth = 0;
        int r;

        if (!stack)
                return -ENOMEM;
        for (;;) {
                if (n->kind == YAML_SCALAR)
                        r = write_scalar(a, n, schema, w);
                else if (depth <= YAML_MAX_DEPTH)
                        r = open_level(a, &stack[depth++], n, w);
                else
                        r = -EINVAL;
                if (r)
                        return r;
                while (depth && stack[depth - 1].at == stack[depth - 1].n) {
                        if (stack[--depth].is_map)
                                json_object_end(w);
                        else
                                json_array_end(w);
                }
                if (!depth)
                        return 0;
                struct level *l = &stack[depth - 1];
                const struct yaml_item *i = l->is_map ? l->sorted[l->at] : l->next;
                l->at++;
                if (!l->is_map)
                        l->next = i->next;
                else if ((r = write_key(a, i->key, schema, w)))
                        return r;
                n = i->value;
        }
}

int yaml_to_json(struct buf *out, const struct yaml_node *n, enum yaml_schema schema)
{
        struct json_writer w;
        struct arena a;

        arena_init(&a, 0);
        json_write_init(&w, out);
        int r = write_tree(&a, n, schema, &w);
        arena_fini(&a);
        return r ? r : out->failed ? -ENOMEM : 0;
}

/* ---- merge ---- */

struct pending { /* item->value and `over` are maps that are still to be merged */
        struct yaml_item *item;
        const struct yaml_node *over;
        struct pending *next;
};

static struct yaml_item *item_of(struct yaml_node *n, struct str key)
{
        for (struct yaml_item *i = n->items; i; i = i->next)
                if (str_eq(i->key->text, key))
                        return i;
        return NULL;
}

static struct yaml_item *add_item(struct arena *a, struct yaml_node *to, struct yaml_node *key, struct yaml_node *value)
{
        struct yaml_item *i = arena_new(a, struct yaml_item);
        if (!i)
                return NULL;
        *i = (struct yaml_item){key, value, NULL};
        if (to->last)
                to->last->next = i;
        else
                to->items = i;
        to->last = i;
        to->n++;
        return i;
}

/* A copy of `base` (its values shared) with the items of `over`; maps that stand in both go to *todo. */
static struct yaml_node *merge_one(struct arena *a, const struct yaml_node *base, const struct yaml_node *over,
                                   struct pending **todo)
{
        struct yaml_node *n = arena_new(a, struct yaml_node);
        if (!n)
                return NULL;
        *n = *over;
        n->items = n->last = NULL;
        n->n = 0;
        n->depth = base->depth > over->depth ? base->depth : over->depth;
        for (const struct yaml_item *i = base->items; i; i = i->next)
                if (!add_item(a, n, i->key, i->value))
                        return NULL;
        for (const struct yaml_item *i = over->items; i; i = i->next) {
                struct yaml_item *have = item_of(n, i->key->text);
                if (have && have->value->kind == YAML_MAP && i->value->kind == YAML_MAP) {
                        struct pending *p = arena_new(a, struct pending);
                        if (!p)
                                return NULL;
                        *p = (struct pending){have, i->value, *todo};
                        *todo = p;
                } else if (have) {
                        have->value = i->value;
                } else if (!add_item(a, n, i->key, i->value)) {
                        return NULL;
                }
        }
        return n;
}

struct yaml_node *yaml_merge(struct arena *a, struct yaml_node *base, struct yaml_node *over)
{
        struct pending *todo = NULL;

        if (!base || base->kind != YAML_MAP || over->kind != YAML_MAP)
                return over;
        struct yaml_node *root = merge_one(a, base, over, &todo);
        while (root && todo) {
                struct pending *p = todo;
                todo = p->next;
                p->item->value = merge_one(a, p->item->value, p->over, &todo);
                if (!p->item->value)
                        return NULL;
        }
        return root;
}

struct yaml_node *yaml_map_new(struct arena *a, const char *file)
{
        struct yaml_node *n = arena_new(a, struct yaml_node);
        if (n)
                *n = (struct yaml_node){.kind = YAML_MAP, .file = file, .total_nodes = 1};
        return n;
}

int yaml_set(struct arena *a, struct yaml_node *map, const char *key, struct yaml_node *value)
{
        struct yaml_item *have = item_of(map, str_of(key));
        if (have) {
                have->value = value;
        } else {
                struct yaml_node *k = arena_new(a, struct yaml_node);
                if (!k)
                        return -ENOMEM;
                *k = (struct yaml_node){.file = value->file, .line = value->line, .column = value->column, .text = str_of(key),
                                        .plain = true, .total_nodes = 1};
                if (!add_item(a, map, k, value))
                        return -ENOMEM;
        }
        if (value->depth + 1 > map->depth)
                map->depth = value->depth + 1;
        return 0;
}
