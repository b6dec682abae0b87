/*
 * Hash map from byte strings to pointers, with keyed hashing (an attacker cannot choose collisions).
 * Keys are copied; values are borrowed. Zero value = empty map. Iteration order is not defined; removing during iteration is allowed.
 */
#ifndef SDK_BASE_MAP_H
#define SDK_BASE_MAP_H

#include "sdk/base/str.h"

struct map_entry {
        char *key;      /* NUL-terminated copy */
        size_t key_n;
        uint64_t hash;
        void *value;
};
struct map {
        struct map_entry *slots;
        size_t count, tombs, cap; /* cap is a power of two or 0 */
};

void map_fini(struct map *m);
void *map_get(const struct map *m, struct str key);      /* NULL if absent */
struct str map_key(const struct map *m, struct str key); /* the copy of it, which stays where it is as long as its entry; none if absent */
int map_set(struct map *m, struct str key, void *value); /* replaces; 0 or -ENOMEM; value must not be NULL */
void *map_del(struct map *m, struct str key);            /* the value removed, or NULL */
/* for (struct map_entry *e = NULL; (e = map_next(&m, e));) */
struct map_entry *map_next(const struct map *m, struct map_entry *e);
uint64_t hash_bytes(const void *p, size_t n); /* SipHash-1-3 under a process-wide random key */
uint64_t siphash13(const uint64_t key[2], const void *p, size_t n);

#endif
