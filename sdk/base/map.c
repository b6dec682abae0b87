/*
 * Open addressing with linear probing, a power of two of slots, at most three quarters of them used (tombstones count).
 * An empty slot has no key; a tombstone has the address of `tomb` as its key. Deleting never moves an entry, so that a loop may
 * delete; the table is rebuilt only when an insertion finds it full. The hash key is random per process.
 */
#include "sdk/base/map.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/random.h>

enum { MAP_MIN_SLOTS = 8 };

static char tomb[1];
static uint64_t hash_key[2];

__attribute__((constructor)) static void hash_key_init(void)
{
        if (getrandom(hash_key, sizeof(hash_key), GRND_NONBLOCK) == (ssize_t)sizeof(hash_key))
                return;
        /* Early in boot: the 16 random bytes that the kernel gives every program. */
        const void *r = (const void *)getauxval(AT_RANDOM);
        if (r)
                memcpy(hash_key, r, sizeof(hash_key));
}

struct sip {
        uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, int n)
{
        return x << n | x >> (64 - n);
}

static inline void sip_round(struct sip *s)
{
        s->v0 += s->v1;
        s->v1 = rotl(s->v1, 13) ^ s->v0;
        s->v0 = rotl(s->v0, 32);
        s->v2 += s->v3;
        s->v3 = rotl(s->v3, 16) ^ s->v2;
        s->v0 += s->v3;
        s->v3 = rotl(s->v3, 21) ^ s->v0;
        s->v2 += s->v1;
        s->v1 = rotl(s->v1, 17) ^ s->v2;
        s->v2 = rotl(s->v2, 32);
}

uint64_t siphash13(const uint64_t key[2], const void *p, size_t n)
{
        struct sip s = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261,
                        key[1] ^ 0x7465646279746573};
        const unsigned char *c = p;
        uint64_t last = (uint64_t)n << 56;
        size_t left = n;
        for (; left >= 8; left -= 8, c += 8) {
                uint64_t m;
                memcpy(&m, c, 8);
                m = le64toh(m);
                s.v3 ^= m;
                sip_round(&s);
                s.v0 ^= m;
        }
        for (size_t i = 0; i < left; i++)
                last |= (uint64_t)c[i] << 8 * i;
        s.v3 ^= last;
        sip_round(&s);
        s.v0 ^= last;
        s.v2 ^= 0xff;
        sip_round(&s);
        sip_round(&s);
        sip_round(&s);
        return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

uint64_t hash_bytes(const void *p, size_t n)
{
        return siphash13(hash_key, p, n);
}

void map_fini(struct map *m)
{
        for (size_t i = 0; i < m->cap; i++)
                if (m->slots[i].key != tomb)
                        free(m->slots[i].key);
        free(m->slots);
        *m = (struct map){0};
}

static struct map_entry *find(const struct map *m, struct str key, uint64_t hash)
{
        if (!m->count)
                return NULL;
        for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
                struct map_entry *e = &m->slots[i];
                if (!e->key)
                        return NULL;
                if (e->hash == hash && e->key != tomb && str_eq(str_n(e->key, e->key_n), key))
                        return e;
        }
}

/* The first slot on the key's way that holds no entry. There is always one. */
static struct map_entry *vacant(const struct map *m, uint64_t hash)
{
        size_t i = hash & (m->cap - 1);
        while (m->slots[i].key && m->slots[i].key != tomb)
                i = (i + 1) & (m->cap - 1);
        return &m->slots[i];
}

static int make_room(struct map *m)
{
        if (m->cap && (m->count + m->tombs + 1) * 4 <= m->cap * 3)
                return 0;
        struct map bigger = {.count = m->count, .cap = m->cap ? m->cap : MAP_MIN_SLOTS};
        while ((m->count + 1) * 2 > bigger.cap)
                bigger.cap *= 2;
        bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
        if (!bigger.slots)
                return -ENOMEM;
        for (struct map_entry *e = NULL; (e = map_next(m, e));)
                *vacant(&bigger, e->hash) = *e;
        free(m->slots);
        *m = bigger;
        return 0;
}

void *map_get(const struct map *m, struct str key)
{
        struct map_entry *e = m->count ? find(m, key, hash_bytes(key.p, key.n)) : NULL;
        return e ? e->value : NULL;
}

struct str map_key(const struct map *m, struct str key)
{
        struct map_entry *e = m->count ? find(m, key, hash_bytes(key.p, key.n)) : NULL;
        return e ? str_n(e->key, e->key_n) : STR_NULL;
}

int map_set(struct map *m, struct str key, void *value)
{
        uint64_t hash = hash_bytes(key.p, key.n);
        struct map_entry *e = find(m, key, hash);
        if (e) {
                e->value = value;
                return 0;
        }
        if (make_room(m))
                return -ENOMEM;
        char *copy = malloc(key.n + 1);
        if (!copy)
                return -ENOMEM;
        if (key.n)
                memcpy(copy, key.p, key.n);
        copy[key.n] = '\0';
        e = vacant(m, hash);
        m->tombs -= e->key == tomb;
        m->count++;
        *e = (struct map_entry){.key = copy, .key_n = key.n, .hash = hash, .value = value};
        return 0;
}

void *map_del(struct map *m, struct str key)
{
        struct map_entry *e = m->count ? find(m, key, hash_bytes(key.p, key.n)) : NULL;
        if (!e)
                return NULL;
        void *value = e->value;
        free(e->key);
        *e = (struct map_entry){.key = tomb};
        m->count--;
        m->tombs++;
        return value;
}

struct map_entry *map_next(const struct map *m, struct map_entry *e)
{
        for (size_t i = e ? (size_t)(e - m->slots) + 1 : 0; i < m->cap; i++)
                if (m->slots[i].key && m->slots[i].key != tomb)
                        return &m->slots[i];
        return NULL;
}
