/* Reading is bounded three ways: by the packet, by MDNS_RECORDS_MAX, and a compressed name only jumps backwards, MDNS_HOPS_MAX times. */
#include "plugins/nameresolution.mdns/packet.h"

#include <errno.h>

enum { HEADER_BYTES = 12, CLASS_IN = 1, TOP_BIT = 0x8000, FLAG_RESPONSE = 0x8000, FLAG_AUTHORITATIVE = 0x0400, FLAG_TRUNCATED = 0x0200,
       POINTER = 0xc0 };

/* ---- names ---- */

int mdns_name_set(struct mdns_name *n, struct str text)
{
        size_t at = 0;

        if (text.n && text.p[text.n - 1] == '.')
                text.n--;
        for (struct str rest = text, label; rest.p;) {
                label = str_cut(&rest, '.');
                if (label.n == 0 || label.n > MDNS_LABEL_MAX || at + 1 + label.n + 1 > MDNS_NAME_MAX)
                        return -EINVAL;
                n->b[at++] = (uint8_t)label.n;
                memcpy(n->b + at, label.p, label.n);
                at += label.n;
        }
        if (at == 0)
                return -EINVAL;
        n->b[at++] = 0;
        n->n = (uint8_t)at;
        return 0;
}

static uint8_t lower(uint8_t c)
{
        return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c; /* lengths are below 'A' */
}

bool mdns_name_eq(const struct mdns_name *a, const struct mdns_name *b)
{
        if (a->n != b->n)
                return false;
        for (size_t i = 0; i < a->n; i++)
                if (lower(a->b[i]) != lower(b->b[i]))
                        return false;
        return true;
}

struct str mdns_name_key(const struct mdns_name *n, uint8_t to[MDNS_NAME_MAX])
{
        memcpy(to, n->b, n->n);
        return str_n(to, n->n);
}

size_t mdns_label_bytes(struct str key)
{
        size_t n = key.n ? (uint8_t)key.p[0] : 0;
        return n && n + 1 < key.n ? n + 1 : 0;
}

/* ---- reading ---- */

static uint16_t get16(const uint8_t *p)
{
        return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
        return (uint32_t)get16(p) << 16 | get16(p + 2);
}

int mdns_read_init(struct mdns_reader *r, struct str packet)
{
        size_t total = 0;

        *r = (struct mdns_reader){.p = (const uint8_t *)packet.p, .n = packet.n, .pos = HEADER_BYTES};
        if (packet.n < HEADER_BYTES || packet.n > MDNS_PACKET_MAX)
                return -EBADMSG;
        r->id = get16(r->p);
        r->response = get16(r->p + 2) & FLAG_RESPONSE;
        r->truncated = get16(r->p + 2) & FLAG_TRUNCATED;
        if (r->p[2] & 0x78 || r->p[3] & 0x0f) /* another opcode, an error: RFC 6762 sections 18.3 and 18.11 */
                return -EBADMSG;
        for (int s = 0; s < MDNS_SECTIONS; s++)
                total += r->left[s] = get16(r->p + 4 + 2 * s);
        return total > MDNS_RECORDS_MAX ? -EBADMSG : 0;
}

/* The name at pos. Returns the offset behind it, or 0. */
static size_t read_name(const struct mdns_reader *r, size_t pos, struct mdns_name *to)
{
        size_t end = 0, at = 0, floor = pos;

        for (int hops = 0; pos < r->n;) {
                uint8_t c = r->p[pos];
                if ((c & POINTER) == POINTER) {
                        size_t target = pos + 1 < r->n ? (size_t)(get16(r->p + pos) & 0x3fff) : r->n;
                        if (!end)
                                end = pos + 2;
                        if (target >= floor || target < HEADER_BYTES || ++hops > MDNS_HOPS_MAX)
                                return 0;
                        pos = floor = target;
                        continue;
                }
                if (c & POINTER || pos + 1 + c > r->n || at + 1u + c > MDNS_NAME_MAX)
                        return 0;
                memcpy(to->b + at, r->p + pos, 1u + c);
                at += 1u + c;
                pos += 1u + c;
                if (c == 0) {
                        to->n = (uint8_t)at;
                        return end ? end : pos;
                }
        }
        return 0;
}

static int read_data(const struct mdns_reader *r, struct mdns_record *rec, size_t pos, size_t n)
{
        const uint8_t *p = r->p + pos;

        switch (rec->type) {
        case MDNS_PTR:
                return read_name(r, pos, &rec->target) == pos + n ? 0 : -EBADMSG;
        case MDNS_SRV:
                if (n < 7 || read_name(r, pos + 6, &rec->target) != pos + n)
                        return -EBADMSG;
                rec->port = get16(p + 4);
                return 0;
        case MDNS_TXT:
                if (n && 1u + p[0] > n)
                        return -EBADMSG;
                rec->text = n ? str_n(p + 1, p[0]) : STR("");
                return 0;
        case MDNS_A:
                memcpy(&rec->addr.v4, p, n == 4 ? 4 : 0);
                return n == 4 ? 0 : -EBADMSG;
        case MDNS_AAAA:
                memcpy(&rec->addr.v6, p, n == 16 ? 16 : 0);
                return n == 16 ? 0 : -EBADMSG;
        default:
                return 0;
        }
}

int mdns_read(struct mdns_reader *r, struct mdns_record *rec)
{
        while (r->section < MDNS_SECTIONS && r->left[r->section] == 0)
                r->section++;
        if (r->section == MDNS_SECTIONS)
                return 0;
        r->left[r->section]--;
        rec->section = (enum mdns_section)r->section;
        rec->target.n = 0;
        rec->text = STR_NULL;
        rec->ttl = 0;
        size_t fixed = rec->section == MDNS_QUESTION ? 4 : 10, pos = read_name(r, r->pos, &rec->name);
        if (!pos || pos + fixed > r->n)
                return -EBADMSG;
        const uint8_t *p = r->p + pos;
        rec->type = get16(p);
        rec->class = get16(p + 2) & ~TOP_BIT;
        rec->top_bit = get16(p + 2) & TOP_BIT;
        pos += fixed;
        if (rec->section != MDNS_QUESTION) {
                size_t n = get16(p + 8);
                rec->ttl = get32(p + 4);
                if (pos + n > r->n || read_data(r, rec, pos, n))
                        return -EBADMSG;
                pos += n;
        }
        r->pos = pos;
        return 1;
}

/* ---- writing ---- */

static void put(struct mdns_writer *w, const void *p, size_t n)
{
        if (w->failed || w->n + n > sizeof w->b) {
                w->failed = true;
                return;
        }
        memcpy(w->b + w->n, p, n);
        w->n += n;
}

static void put16(struct mdns_writer *w, uint16_t v)
{
        put(w, (uint8_t[]){(uint8_t)(v >> 8), (uint8_t)v}, 2);
}

static void put_name(struct mdns_writer *w, const struct mdns_name *n)
{
        put(w, n->b, n->n);
}

static void count(struct mdns_writer *w, enum mdns_section s)
{
        uint8_t *at = w->b + 4 + 2 * (int)s;
        uint16_t n = (uint16_t)(get16(at) + 1);
        at[0] = (uint8_t)(n >> 8);
        at[1] = (uint8_t)n;
}

void mdns_write_init(struct mdns_writer *w, uint16_t id, bool response)
{
        w->n = 0;
        w->failed = false;
        put16(w, id);
        put16(w, response ? FLAG_RESPONSE | FLAG_AUTHORITATIVE : 0);
        put(w, (uint8_t[8]){0}, 8);
}

void mdns_write_question(struct mdns_writer *w, const struct mdns_name *name, uint16_t type)
{
        put_name(w, name);
        put16(w, type);
        put16(w, CLASS_IN);
        count(w, MDNS_QUESTION);
}

/* What stands before a record's data. */
static void put_head(struct mdns_writer *w, enum mdns_section s, const struct mdns_name *name, uint16_t type, uint32_t ttl, bool flush,
                     size_t data)
{
        put_name(w, name);
        put16(w, type);
        put16(w, (uint16_t)(CLASS_IN | (flush ? TOP_BIT : 0)));
        put16(w, (uint16_t)(ttl >> 16));
        put16(w, (uint16_t)ttl);
        put16(w, (uint16_t)data);
        count(w, s);
}

void mdns_write_ptr(struct mdns_writer *w, enum mdns_section s, const struct mdns_name *name, uint32_t ttl, const struct mdns_name *target)
{
        put_head(w, s, name, MDNS_PTR, ttl, false, target->n);
        put_name(w, target);
}

void mdns_write_srv(struct mdns_writer *w, enum mdns_section s, const struct mdns_name *name, uint32_t ttl, bool flush, uint16_t port,
                    const struct mdns_name *target)
{
        put_head(w, s, name, MDNS_SRV, ttl, flush, 6u + target->n);
        put(w, (uint8_t[4]){0}, 4); /* priority, weight */
        put16(w, port);
        put_name(w, target);
}

void mdns_write_txt(struct mdns_writer *w, enum mdns_section s, const struct mdns_name *name, uint32_t ttl, bool flush, struct str text)
{
        uint8_t n = (uint8_t)(text.n > 255 ? 255 : text.n);
        put_head(w, s, name, MDNS_TXT, ttl, flush, 1u + n);
        put(w, &n, 1);
        put(w, text.p, n);
}

void mdns_write_addr(struct mdns_writer *w, enum mdns_section s, const struct mdns_name *name, uint32_t ttl, bool flush, const void *addr,
                     size_t n)
{
        put_head(w, s, name, n == 4 ? MDNS_A : MDNS_AAAA, ttl, flush, n);
        put(w, addr, n);
}
