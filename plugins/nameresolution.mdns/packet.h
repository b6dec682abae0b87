/*
 * Multicast DNS packets (RFC 1035 section 4, RFC 6762 section 18): a pull reader that needs no memory, and a writer into a caller's
 * buffer. Names are kept as on the wire, without compression: length, bytes, length, bytes, ..., 0. Nothing here trusts a packet.
 */
#ifndef PLUGINS_MDNS_PACKET_H
#define PLUGINS_MDNS_PACKET_H

#include <netinet/in.h>

#include "sdk/base/str.h"

enum {
        MDNS_PACKET_MAX = 9000,  /* RFC 6762 section 17 */
        MDNS_NAME_MAX = 255,
        MDNS_LABEL_MAX = 63,
        MDNS_HOPS_MAX = 32,      /* compression pointers in one name */
        MDNS_RECORDS_MAX = 512,  /* questions and records of one packet; more are an error */
        MDNS_OUT_MAX = 3072
};
enum mdns_type { MDNS_A = 1, MDNS_PTR = 12, MDNS_TXT = 16, MDNS_AAAA = 28, MDNS_SRV = 33, MDNS_ANY = 255 };
enum mdns_section { MDNS_QUESTION, MDNS_ANSWER, MDNS_AUTHORITY, MDNS_ADDITIONAL, MDNS_SECTIONS };

struct mdns_name {
        uint8_t n;                /* with the last 0; 0 = none */
        uint8_t b[MDNS_NAME_MAX];
};
/* "a.b.local." -> labels, dots part them, a last one may be missing. 0, or -EINVAL: empty, a label or the name is too long. */
int mdns_name_set(struct mdns_name *n, struct str text);
bool mdns_name_eq(const struct mdns_name *a, const struct mdns_name *b); /* ASCII case does not count */
/* The name's wire bytes: a key for maps. Case counts, as it does in app ids. */
struct str mdns_name_key(const struct mdns_name *n, uint8_t to[MDNS_NAME_MAX]);
/* Bytes of the first label with its length byte; 0 at the end. */
size_t mdns_label_bytes(struct str key);

struct mdns_record {
        enum mdns_section section;
        uint16_t type, class;     /* class without its top bit */
        bool top_bit;             /* unicast wanted (questions), cache flush (records) */
        uint32_t ttl;
        struct mdns_name name;
        struct mdns_name target;  /* of PTR, SRV */
        uint16_t port;            /* of SRV */
        struct str text;          /* of TXT: its first string, in the packet */
        union {
                struct in_addr v4;
                struct in6_addr v6;
        } addr;                   /* of A, AAAA */
};
struct mdns_reader {
        const uint8_t *p;
        size_t n, pos;
        uint16_t id;
        bool response, truncated;
        uint16_t left[MDNS_SECTIONS];
        int section;
};
/* 0 or -EBADMSG. The packet must outlive the reader. */
int mdns_read_init(struct mdns_reader *r, struct str packet);
/* The next question or record; of other types only name, type, class and ttl. 1, 0 at the end, -EBADMSG. */
int mdns_read(struct mdns_reader *r, struct mdns_record *rec);

struct mdns_writer {
        uint8_t b[MDNS_OUT_MAX];
        size_t n;
        bool failed;              /* it did not fit: send nothing */
};
void mdns_write_init(struct mdns_writer *w, uint16_t id, bool response);
/* Sections in their order. */
void mdns_write_question(struct mdns_writer *w, const struct mdns_name *name, uint16_t type);
void mdns_write_ptr(struct mdns_writer *w, enum mdns_section s, const struct mdns_name *name, uint32_t ttl, const struct mdns_name *target);
/* flush: RFC 6762 section 10.2 */
void mdns_write_srv(struct mdns_writer *w, enum mdns_section s, const struct mdns_name *name, uint32_t ttl, bool flush, uint16_t port,
                    const struct mdns_name *target);
void mdns_write_txt(struct mdns_writer *w, enum mdns_section s, const struct mdns_name *name, uint32_t ttl, bool flush, struct str text);
/* A for 4 bytes, AAAA for 16. */
void mdns_write_addr(struct mdns_writer *w, enum mdns_section s, const struct mdns_name *name, uint32_t ttl, bool flush, const void *addr,
                     size_t n);

#endif
