/*
 * Reading: libyaml's events become nodes. The stack of open maps and lists is an array of YAML_MAX_DEPTH frames, so that nothing
 * here recurses. A node is counted into its parent when it is complete; since an alias may only point to a complete node, the
 * counts bound every later walk, however aliases are nested ("billion laughs" is refused at its first too large parent).
 *
 * Invariants: items of a map have distinct keys and no merge keys once the map is closed; key is NULL exactly in lists.
 * Failures leave the arena with garbage that its owner frees; libyaml's own memory is freed on every path.
 */
#include "sdk/base/yaml.h"

#include <errno.h>
#include <stdio.h>
#include <yaml.h>

#include "sdk/base/map.h"

enum { INDEX_FROM = 12 }; /* maps with more keys are looked up by hash */

struct frame {
        struct yaml_node *node;
        struct yaml_node *key; /* read, its value not yet */
        bool merges;           /* a merge key was met */
};
struct reader {
        struct arena *a;
        const char *file;
        int first_line, flags;
        yaml_parser_t parser;
        struct map anchors;    /* name -> node */
        struct frame stack[YAML_MAX_DEPTH];
        size_t depth;
        struct yaml_node *root;
        bool root_done;
        const char *error, *warning;
};

/* What to do about the mistakes people make most. */
static const struct {
        const char *problem, *fix;
} hints[] = {
        {"found character that cannot start any token", "indent with spaces, not tabs, and quote values that start with @ or `"},
        {"found a tab character that violates indentation", "indent with spaces, not tabs"},
        {"mapping values are not allowed in this context", "check the indentation, and quote values that hold \": \""},
        {"did not find expected key", "check the indentation and the quotes of the lines above"},
        {"could not find expected ':'", "each line of a map needs \"key: value\""},
        {"did not find expected '-' indicator", "check the indentation of the list"},
        {"found unexpected end of stream", "a quote or bracket is not closed"},
        {"control characters are not allowed", "the file is not text"},
        {"did not find expected ',' or ']'", "a [ is not closed"},
        {"did not find expected ',' or '}'", "a { is not closed; quote values that start with {"},
};

const char *yaml_error(struct arena *a, const struct yaml_node *at, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        const char *text = arena_vprintf(a, fmt, ap);
        va_end(ap);
        if (text && at)
                text = arena_printf(a, "%s:%d:%d: %s", at->file, at->line, at->column, text);
        return text ? text : "out of memory while reading resources";
}

static int out_of_memory(struct reader *r)
{
        r->error = arena_printf(r->a, "%s: needs too much memory", r->file);
        if (!r->error)
                r->error = "a resource file needs too much memory";
        return -ENOMEM;
}

static int fail_at(struct reader *r, const yaml_mark_t *m, const char *what, const char *fix)
{
        r->error = arena_printf(r->a, "%s:%d:%d: %s%s%s", r->file, (int)m->line + r->first_line, (int)m->column + 1, what,
                                fix ? "; " : "", fix ? fix : "");
        return r->error ? -EINVAL : out_of_memory(r);
}

static int parser_failed(struct reader *r, struct str text)
{
        const yaml_parser_t *p = &r->parser;
        yaml_mark_t mark = p->problem_mark;
        const char *problem = p->problem ? p->problem : "not YAML", *fix = NULL;

        if (p->error == YAML_MEMORY_ERROR)
                return out_of_memory(r);
        if (p->error == YAML_READER_ERROR) { /* these carry an offset only */
                mark = (yaml_mark_t){0};
                for (size_t i = 0; i < p->problem_offset && i < text.n; i++) {
                        mark.column++;
                        if (text.p[i] == '\n')
                                mark.line++, mark.column = 0;
                }
        }
        for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
                if (strcmp(problem, hints[i].problem) == 0)
                        fix = hints[i].fix;
        return fail_at(r, &mark, problem, fix);
}

static struct yaml_node *node_new(struct reader *r, enum yaml_kind kind, const yaml_mark_t *m)
{
        struct yaml_node *n = arena_new(r->a, struct yaml_node);
        if (n)
                *n = (struct yaml_node){.kind = kind, .file = r->file, .line = (int)m->line + r->first_line,
                                        .column = (int)m->column + 1, .total_nodes = 1};
        return n;
}

static bool is_merge_key(const struct yaml_node *key)
{
        return str_eqz(key->text, "<<") && (key->tag ? strcmp(key->tag, "tag:yaml.org,2002:merge") == 0 : key->plain);
}

/* Appends to a map or list and counts. False: a limit or memory. */
static int append(struct reader *r, struct yaml_node *to, struct yaml_node *key, struct yaml_node *value, const yaml_mark_t *m)
{
        struct yaml_item *item = arena_new(r->a, struct yaml_item);
        if (!item)
                return out_of_memory(r);
        *item = (struct yaml_item){key, value, NULL};
        if (to->last)
                to->last->next = item;
        else
                to->items = item;
        to->last = item;
        to->n++;
        to->total_nodes += value->total_nodes + (key != NULL);
        to->total_text += value->total_text + (key ? key->total_text : 0);
        if (value->depth + 1 > to->depth)
                to->depth = value->depth + 1;
        if (to->depth + r->depth > YAML_MAX_DEPTH)
                return fail_at(r, m, "nested too deeply", NULL);
        if (to->total_nodes > YAML_MAX_NODES || to->total_text > YAML_MAX_TEXT_BYTES)
                return fail_at(r, m, "the document is too large", "split it; each alias counts as what it stands for");
        return 0;
}

/* ---- closing a map: merge keys, keys that stand twice ---- */

struct index {
        struct map by_key; /* used when the map is large */
        bool hashed;
        struct yaml_node *node;
};

static struct yaml_item *index_find(const struct index *ix, struct str key, const struct yaml_item *before)
{
        if (ix->hashed)
                return map_get(&ix->by_key, key);
        for (struct yaml_item *i = ix->node->items; i && i != before; i = i->next)
                if (str_eq(i->key->text, key))
                        return i;
        return NULL;
}

static int index_add(struct index *ix, struct yaml_item *item)
{
        return ix->hashed ? map_set(&ix->by_key, item->key->text, item) : 0;
}

/* Takes merge items out of the map and returns them as a chain. */
static struct yaml_item *take_merges(struct yaml_node *n)
{
        struct yaml_item *merges = NULL, **tail = &merges, **at = &n->items;

        n->last = NULL;
        while (*at) {
                struct yaml_item *i = *at;
                if (is_merge_key(i->key)) {
                        *at = i->next;
                        i->next = NULL;
                        *tail = i;
                        tail = &i->next;
                        n->n--;
                } else {
                        n->last = i;
                        at = &i->next;
                }
        }
        return merges;
}

static int merge_map(struct reader *r, struct index *ix, const struct yaml_node *from, const yaml_mark_t *m)
{
        for (const struct yaml_item *i = from->items; i; i = i->next) {
                if (index_find(ix, i->key->text, NULL))
                        continue;
                int e = append(r, ix->node, i->key, i->value, m);
                if (e)
                        return e;
                if (index_add(ix, ix->node->last))
                        return out_of_memory(r);
        }
        return 0;
}

static int apply_merges(struct reader *r, struct index *ix, struct yaml_item *merges, const yaml_mark_t *m)
{
        static const char wrong[] = "map merge requires map or sequence of maps as the value";

        for (; merges; merges = merges->next) {
                const struct yaml_node *v = merges->value;
                int e = v->kind == YAML_MAP ? merge_map(r, ix, v, m) : v->kind == YAML_SCALAR ? fail_at(r, m, wrong, NULL) : 0;
                for (struct yaml_item *i = v->kind == YAML_LIST ? v->items : NULL; i && !e; i = i->next)
                        e = i->value->kind == YAML_MAP ? merge_map(r, ix, i->value, m) : fail_at(r, m, wrong, NULL);
                if (e)
                        return e;
        }
        return 0;
}

static int duplicate_key(struct reader *r, const struct yaml_node *key, const struct yaml_node *first)
{
        const char *text = yaml_error(r->a, key, "the key \"%.*s\" stands already in line %d%s", STR_FMT(key->text), first->line,
                                      r->flags & YAML_UNIQUE_KEYS ? "; remove one" : "; the last one counts");
        if (r->flags & YAML_UNIQUE_KEYS) {
                r->error = text;
                return -EINVAL;
        }
        r->warning = text;
        return 0;
}

static int unique_keys(struct reader *r, struct index *ix)
{
        struct yaml_node *n = ix->node;
        struct yaml_item **at = &n->items, *last = NULL;

        while (*at) {
                struct yaml_item *i = *at, *first = index_find(ix, i->key->text, i);
                if (first) {
                        int e = duplicate_key(r, i->key, first->key);
                        if (e)
                                return e;
                        first->value = i->value;
                        *at = i->next;
                        n->n--;
                        continue;
                }
                if (index_add(ix, i))
                        return out_of_memory(r);
                last = i;
                at = &i->next;
        }
        n->last = last;
        return 0;
}

static int close_map(struct reader *r, const struct frame *f, const yaml_mark_t *m)
{
        struct yaml_item *merges = f->merges ? take_merges(f->node) : NULL;
        struct index ix = {.node = f->node, .hashed = merges || f->node->n > INDEX_FROM};
        int e = unique_keys(r, &ix);

        if (!e && merges)
                e = apply_merges(r, &ix, merges, m);
        map_fini(&ix.by_key);
        return e;
}

/* ---- events ---- */

/* A complete node goes into what is open, or becomes the root. */
static int attach(struct reader *r, struct yaml_node *n, const yaml_mark_t *m)
{
        if (r->depth == 0) {
                r->root = n;
                return 0;
        }
        struct frame *f = &r->stack[r->depth - 1];
        if (f->node->kind == YAML_LIST)
                return append(r, f->node, NULL, n, m);
        if (!f->key) {
                if (n->kind != YAML_SCALAR) {
                        r->error = yaml_error(r->a, n, "a map or list cannot be a key; quote the key if it is text");
                        return -EINVAL;
                }
                f->key = n;
                f->merges |= is_merge_key(n);
                return 0;
        }
        int e = append(r, f->node, f->key, n, m);
        f->key = NULL;
        return e;
}

static int set_anchor(struct reader *r, const yaml_char_t *name, struct yaml_node *n)
{
        if (name && map_set(&r->anchors, str_of((const char *)name), n))
                return out_of_memory(r);
        return 0;
}

static int set_tag(struct reader *r, const yaml_char_t *tag, struct yaml_node *n)
{
        if (tag && !(n->tag = arena_strdup(r->a, str_of((const char *)tag))))
                return out_of_memory(r);
        return 0;
}

static int on_scalar(struct reader *r, const yaml_event_t *ev)
{
        struct yaml_node *n = node_new(r, YAML_SCALAR, &ev->start_mark);
        struct str text = {(const char *)ev->data.scalar.value, ev->data.scalar.length};
        int e;

        if (!n || !(n->text.p = arena_strdup(r->a, text)))
                return out_of_memory(r);
        n->text.n = n->total_text = text.n;
        n->plain = ev->data.scalar.plain_implicit;
        if ((e = set_tag(r, ev->data.scalar.tag, n)) || (e = set_anchor(r, ev->data.scalar.anchor, n)))
                return e;
        return attach(r, n, &ev->start_mark);
}

static int on_open(struct reader *r, const yaml_event_t *ev, enum yaml_kind kind, const yaml_char_t *anchor)
{
        struct yaml_node *n = node_new(r, kind, &ev->start_mark);
        if (!n)
                return out_of_memory(r);
        if (r->depth == YAML_MAX_DEPTH)
                return fail_at(r, &ev->start_mark, "nested too deeply", NULL);
        r->stack[r->depth++] = (struct frame){n};
        return set_anchor(r, anchor, n);
}

static int on_close(struct reader *r, const yaml_event_t *ev)
{
        struct frame *f = &r->stack[r->depth - 1];
        int e = f->node->kind == YAML_MAP ? close_map(r, f, &ev->start_mark) : 0;
        if (e)
                return e;
        r->depth--;
        return attach(r, f->node, &ev->start_mark);
}

static int on_alias(struct reader *r, const yaml_event_t *ev)
{
        const char *name = (const char *)ev->data.alias.anchor;
        struct yaml_node *n = map_get(&r->anchors, str_of(name));
        char what[160];

        snprintf(what, sizeof what, "unknown anchor '%.100s' referenced", name);
        if (!n)
                return fail_at(r, &ev->start_mark, what, NULL);
        snprintf(what, sizeof what, "anchor '%.100s' value contains itself", name);
        for (size_t i = 0; i < r->depth; i++)
                if (r->stack[i].node == n)
                        return fail_at(r, &ev->start_mark, what, NULL);
        return attach(r, n, &ev->start_mark);
}

static int on_event(struct reader *r, const yaml_event_t *ev)
{
        switch (ev->type) {
        case YAML_SCALAR_EVENT:
                return on_scalar(r, ev);
        case YAML_ALIAS_EVENT:
                return on_alias(r, ev);
        case YAML_MAPPING_START_EVENT:
                return on_open(r, ev, YAML_MAP, ev->data.mapping_start.anchor);
        case YAML_SEQUENCE_START_EVENT:
                return on_open(r, ev, YAML_LIST, ev->data.sequence_start.anchor);
        case YAML_MAPPING_END_EVENT:
        case YAML_SEQUENCE_END_EVENT:
                return on_close(r, ev);
        case YAML_DOCUMENT_END_EVENT:
        case YAML_STREAM_END_EVENT:
                r->root_done = true;
                return 0;
        case YAML_NO_EVENT:
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_START_EVENT:
                return 0;
        }
        return 0;
}

static int read_events(struct reader *r, struct str text)
{
        int e = 0;

        yaml_parser_set_input_string(&r->parser, (const unsigned char *)(text.n ? text.p : "\n"), text.n ? text.n : 1);
        while (!e && !r->root_done) {
                yaml_event_t ev;
                if (!yaml_parser_parse(&r->parser, &ev))
                        return parser_failed(r, text);
                e = on_event(r, &ev);
                yaml_event_delete(&ev);
        }
        return e;
}

int yaml_read(struct arena *a, struct str text, const char *file, int first_line, int flags, struct yaml_node **ret,
              const char **ret_err)
{
        struct reader *r = arena_new(a, struct reader); /* too large for a fiber's stack */
        int e;

        if (!r || !yaml_parser_initialize(&r->parser)) {
                *ret_err = "a resource file needs too much memory";
                return -ENOMEM;
        }
        r->a = a;
        r->file = file;
        r->first_line = first_line;
        r->flags = flags;
        e = read_events(r, text);
        yaml_parser_delete(&r->parser);
        map_fini(&r->anchors);
        *ret_err = e ? r->error : r->warning;
        if (!e)
                *ret = r->root;
        return e;
}

struct str yaml_next_document(struct str *rest, int *line)
{
        struct str all = *rest, doc = all;
        ptrdiff_t i = str_find(all, STR("\n---"));

        if (i < 0) {
                *rest = STR_NULL;
                return doc;
        }
        doc.n = (size_t)i;
        struct str after = str_skip(all, (size_t)i + 4);
        ptrdiff_t eol = str_chr(after, '\n');
        *rest = eol < 0 ? STR_NULL : str_skip(after, (size_t)eol + 1);
        for (size_t k = 0; k < doc.n; k++)
                *line += doc.p[k] == '\n';
        *line += 2; /* the newline before the separator and the one that ends it */
        return doc;
}

/* ---- access ---- */

static struct yaml_node *find(const struct yaml_node *n, const char *key, bool fold)
{
        struct yaml_node *folded = NULL;

        if (!n || n->kind != YAML_MAP)
                return NULL;
        for (const struct yaml_item *i = n->items; i; i = i->next) {
                if (str_eqz(i->key->text, key))
                        return i->value;
                if (fold && !folded && str_ieq(i->key->text, str_of(key)))
                        folded = i->value;
        }
        return folded;
}

struct yaml_node *yaml_get(const struct yaml_node *n, const char *key)
{
        return find(n, key, false);
}

struct yaml_node *yaml_get_fold(const struct yaml_node *n, const char *key)
{
        return find(n, key, true);
}

struct yaml_node *yaml_path(const struct yaml_node *n, const char *path)
{
        struct yaml_node *at = (struct yaml_node *)n;

        for (struct str rest = str_of(path), part; rest.p && at;) {
                struct yaml_node *next = NULL;
                part = str_cut(&rest, '.');
                for (const struct yaml_item *i = at->kind == YAML_MAP ? at->items : NULL; i && !next; i = i->next)
                        if (str_eq(i->key->text, part))
                                next = i->value;
                at = next;
        }
        return at;
}
