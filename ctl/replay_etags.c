/* See replay_etags.h. An ETag is a message field of that name with the text in its field `value`, wherever it stands in a message. */
#include "ctl/replay_etags.h"

#include "proto/registry.h"
#include "sdk/base/pb.h"

enum { MESSAGES_MAX = 512, ETAGS_MAX = 256 };

struct found {
        char **v[ETAGS_MAX]; /* where the texts stand in the message, in an order that depends on its form only */
        size_t n;
};

static void note_etag(ProtobufCMessage *m, struct found *f)
{
        for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
                const ProtobufCFieldDescriptor *d = &m->descriptor->fields[i];
                if (strcmp(d->name, "value") == 0 && pb_types[d->type].kind == PB_STRING && d->label != PROTOBUF_C_LABEL_REPEATED && f->n < ETAGS_MAX)
                        f->v[f->n++] = (char **)((char *)m + d->offset);
        }
}

static bool is_member_set(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *d)
{
        const char *base = (const char *)m;
        if (d->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
                return *(const uint32_t *)(base + d->quantifier_offset) == d->id;
        return *(void *const *)(base + d->offset) != NULL;
}

/* All messages below one, breadth first. */
static void find_etags(struct arena *a, ProtobufCMessage *root, struct found *f)
{
        ProtobufCMessage **queue = arena_alloc(a, MESSAGES_MAX * sizeof *queue);
        size_t n = 0;
        if (!queue)
                return;
        queue[n++] = root;
        for (size_t at = 0; at < n; at++) {
                ProtobufCMessage *m = queue[at];
                for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
                        const ProtobufCFieldDescriptor *d = &m->descriptor->fields[i];
                        char *base = (char *)m;
                        if (pb_types[d->type].kind != PB_MESSAGE)
                                continue;
                        bool repeated = d->label == PROTOBUF_C_LABEL_REPEATED;
                        size_t count = repeated ? *(size_t *)(base + d->quantifier_offset) : is_member_set(m, d);
                        ProtobufCMessage **sub = repeated ? *(ProtobufCMessage ***)(base + d->offset) : (ProtobufCMessage **)(base + d->offset);
                        for (size_t k = 0; k < count && n < MESSAGES_MAX; k++) {
                                if (strcmp(d->name, "etag") == 0)
                                        note_etag(sub[k], f);
                                queue[n++] = sub[k];
                        }
                }
        }
}

void replay_etags_init(struct replay_etags *e)
{
        *e = (struct replay_etags){0};
        arena_init(&e->arena, 64 << 20);
}

void replay_etags_fini(struct replay_etags *e)
{
        map_fini(&e->now);
        arena_fini(&e->arena);
}

void replay_etags_learn(struct replay_etags *e, struct str method, struct str recorded, struct str now)
{
        const struct pb_method *m = pb_method_find(method);
        struct arena a;
        arena_init(&a, 0);
        struct found *f = arena_zalloc(&a, 2 * sizeof *f);
        ProtobufCMessage *was = m ? pb_unpack(&a, m->response, recorded) : NULL, *is = m ? pb_unpack(&a, m->response, now) : NULL;
        if (f && was && is) {
                find_etags(&a, was, &f[0]);
                find_etags(&a, is, &f[1]);
                for (size_t i = 0; f[0].n == f[1].n && i < f[0].n; i++) {
                        char *to = **f[0].v[i] && **f[1].v[i] ? arena_strdup(&e->arena, str_of(*f[1].v[i])) : NULL;
                        struct str key = to ? arena_str(&e->arena, str_of(*f[0].v[i])) : STR_NULL;
                        if (key.p)
                                map_set(&e->now, key, to); /* out of memory: then this one stays as it was recorded */
                }
        }
        arena_fini(&a);
}

struct str replay_etags_apply(const struct replay_etags *e, struct arena *a, struct str method, struct str request)
{
        const struct pb_method *m = pb_method_find(method);
        ProtobufCMessage *msg = m ? pb_unpack(a, m->request, request) : NULL;
        struct found *f = msg ? arena_new(a, struct found) : NULL;
        bool changed = false;
        if (!f)
                return request;
        find_etags(a, msg, f);
        for (size_t i = 0; i < f->n; i++) {
                char *to = **f->v[i] ? map_get(&e->now, str_of(*f->v[i])) : NULL;
                if (to) {
                        *f->v[i] = to;
                        changed = true;
                }
        }
        struct str packed = changed ? pb_pack(a, msg) : request;
        return packed.p ? packed : request;
}
