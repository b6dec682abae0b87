/* Reading one field; groups (wire types 3 and 4) do not exist in proto3 and are refused. */
#include "sdk/base/wire.h"

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

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

bool wire_next(struct wire *w, struct wire_field *f)
{
        uint64_t tag, n;
        const uint8_t *at;
        if (w->bad || w->p >= w->end || !wire_varint(w, &tag))
                return false;
        f->number = (uint32_t)(tag >> 3);
        f->u = 0;
        f->bytes = STR_NULL;
        if (f->number == 0 || tag > UINT32_MAX) {
                w->bad = true;
                return false;
        }
        switch (tag & 7) {
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
