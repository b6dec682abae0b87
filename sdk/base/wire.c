/* Reading one field. Groups do not exist in proto3; one that somebody sends is passed over as an unknown field. */
#include "sdk/base/wire.h"

enum { GROUP_DEPTH_MAX = 100 };

static bool take(struct wire *w, uint64_t n, const uint8_t **ret)
{
        if (n > (uint64_t)(w->end - w->p)) {
                w->bad = true;
                return false;
        }
        *ret = w->p;
        w->p += n;
        return true;
}

static bool value(struct wire *w, unsigned type, struct wire_field *f)
{
        uint64_t n;
        const uint8_t *at;
        switch (type) {
        case WIRE_VARINT:
                return wire_varint(w, &f->u);
        case WIRE_64:
                if (!take(w, 8, &at))
                        return false;
                memcpy(&f->u, at, 8);
                return true;
        case WIRE_32:
                if (!take(w, 4, &at))
                        return false;
                memcpy(&f->u, at, 4);
                return true;
        case WIRE_BYTES:
                if (!wire_varint(w, &n) || !take(w, n, &at))
                        return false;
                f->bytes = str_n(at, (size_t)n);
                return true;
        default:
                w->bad = true;
                return false;
        }
}

static bool tag(struct wire *w, uint32_t *number, unsigned *type)
{
        uint64_t t;
        if (!wire_varint(w, &t))
                return false;
        *number = (uint32_t)(t >> 3);
        *type = (unsigned)(t & 7);
        if (*number == 0 || t > UINT32_MAX)
                w->bad = true;
        return !w->bad;
}

/* To the end of the group that has begun, with all groups in it. */
static bool skip_group(struct wire *w, uint32_t number)
{
        uint32_t open[GROUP_DEPTH_MAX] = {number};
        unsigned depth = 1, type;
        struct wire_field f;
        while (depth > 0) {
                if (!tag(w, &f.number, &type))
                        return false;
                if (type == WIRE_GROUP && depth < GROUP_DEPTH_MAX)
                        open[depth++] = f.number;
                else if (type == WIRE_GROUP_END && open[depth - 1] == f.number)
                        depth--;
                else if (!value(w, type, &f)) /* also a group too deep, or an end of another */
                        return false;
        }
        return true;
}

bool wire_next(struct wire *w, struct wire_field *f)
{
        f->u = 0;
        f->bytes = STR_NULL;
        if (w->bad || w->p >= w->end || !tag(w, &f->number, &f->type))
                return false;
        if (f->type != WIRE_GROUP)
                return value(w, f->type, f);
        if (!skip_group(w, f->number))
                return false;
        f->number = 0; /* nobody's */
        return true;
}
