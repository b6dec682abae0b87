/*
 * YAML trees as JSON, and trees made of trees: one laid over another. Both walk with an explicit stack: a tree is at most
 * YAML_MAX_DEPTH deep and its size with aliases written out is bounded (yaml.h). Keys are sorted, as the reference's encoder does,
 * so that a metadata value that is a map has the same bytes.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/base/json.h"
#include "sdk/base/map.h"
#include "sdk/base/yaml.h"
#include "sdk/base/yaml_float.h"

struct member { /* of a map */
        struct str key;
        const struct yaml_node *value;
        size_t at; /* its place in the text */
};
struct level { /* one open map or list */
        const struct member *members;
        const struct yaml_item *next; /* of a list */
        size_t at, n;
        bool is_map;
};

static int compare_members(const void *pa, const void *pb)
{
        const struct member *a = pa, *b = pb;
        size_t n = a->key.n < b->key.n ? a->key.n : b->key.n;
        int c = n ? memcmp(a->key.p, b->key.p, n) : 0;
        if (c == 0)
                c = (a->key.n > b->key.n) - (a->key.n < b->key.n);
        return c ? c : a->at < b->at ? -1 : 1;
}

/* Sorted; of keys that are the same as text (10 and 0xa) the last counts. */
static int sort_members(struct arena *a, struct level *l, const struct yaml_node *map, enum yaml_schema schema)
{
        struct member *m = arena_alloc(a, map->n * sizeof *m);
        size_t n = 0;

        if (!m)
                return -ENOMEM;
        for (const struct yaml_item *i = map->items; i; i = i->next, n++) {
                m[n] = (struct member){.value = i->value, .at = n};
                int r = yaml_string(a, i->key, schema, &m[n].key);
                if (r || !m[n].key.p)
                        return r ? r : -EINVAL;
        }
        qsort(m, n, sizeof *m, compare_members);
        for (size_t i = 0; i < n; i++) {
                if (l->n && str_eq(m[l->n - 1].key, m[i].key))
                        l->n--;
                m[l->n++] = m[i];
        }
        l->members = m;
        return 0;
}

static int open_level(struct arena *a, struct level *l, const struct yaml_node *n, enum yaml_schema schema, struct json_writer *w)
{
        *l = (struct level){.next = n->items, .is_map = n->kind == YAML_MAP};
        if (l->is_map) {
                json_object_begin(w);
                return sort_members(a, l, n, schema);
        }
        l->n = n->n;
        json_array_begin(w);
        return 0;
}

/* The next node of a level that is not used up; writes its key. */
static const struct yaml_node *next_of(struct level *l, struct json_writer *w)
{
        if (l->is_map) {
                const struct member *m = &l->members[l->at++];
                json_key(w, m->key);
                return m->value;
        }
        const struct yaml_node *n = l->next->value;
        l->next = l->next->next;
        l->at++;
        return n;
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
                        r = open_level(a, &stack[depth++], n, schema, w);
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
                n = next_of(&stack[depth - 1], w);
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

/* `over` laid on the items of n, found by `index`; maps that stand in both go to *todo. */
static int merge_items(struct arena *a, struct yaml_node *n, struct map *index, const struct yaml_node *over, struct pending **todo)
{
        for (struct yaml_item *i = n->items; i; i = i->next)
                if (map_set(index, i->key->text, i))
                        return -ENOMEM;
        for (const struct yaml_item *i = over->items; i; i = i->next) {
                struct yaml_item *have = map_get(index, i->key->text);
                if (have && have->value->kind == YAML_MAP && i->value->kind == YAML_MAP) {
                        struct pending *p = arena_new(a, struct pending);
                        if (!p)
                                return -ENOMEM;
                        *p = (struct pending){have, i->value, *todo};
                        *todo = p;
                } else if (have) {
                        have->value = i->value;
                } else if (!(have = add_item(a, n, i->key, i->value)) || map_set(index, i->key->text, have)) {
                        return -ENOMEM;
                }
        }
        return 0;
}

/* A copy of `base` (its values shared) with the items of `over`. */
static struct yaml_node *merge_one(struct arena *a, const struct yaml_node *base, const struct yaml_node *over,
                                   struct pending **todo)
{
        struct yaml_node *n = arena_new(a, struct yaml_node);
        struct map index = {0};

        if (!n)
                return NULL;
        *n = *over;
        n->items = n->last = NULL;
        n->n = 0;
        n->depth = base->depth > over->depth ? base->depth : over->depth;
        for (const struct yaml_item *i = base->items; i; i = i->next)
                if (!add_item(a, n, i->key, i->value))
                        return NULL;
        int r = merge_items(a, n, &index, over, todo);
        map_fini(&index);
        return r ? NULL : n;
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
