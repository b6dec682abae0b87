/* Intrusive doubly linked list. A list head points to itself when empty. */
#ifndef SDK_BASE_LIST_H
#define SDK_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
        struct list *prev, *next;
};

#define LIST_INIT(name) {&(name), &(name)}
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_for_each(pos, head) for (struct list *pos = (head)->next; pos != (head); pos = pos->next)
#define list_for_each_safe(pos, tmp, head) \
        for (struct list *pos = (head)->next, *tmp = pos->next; pos != (head); pos = tmp, tmp = pos->next)

static inline void list_init(struct list *h)
{
        h->prev = h->next = h;
}
static inline bool list_is_empty(const struct list *h)
{
        return h->next == h || h->next == NULL;
}
static inline void list_add_tail(struct list *h, struct list *n)
{
        n->prev = h->prev;
        n->next = h;
        h->prev->next = n;
        h->prev = n;
}
static inline void list_add_head(struct list *h, struct list *n)
{
        n->next = h->next;
        n->prev = h;
        h->next->prev = n;
        h->next = n;
}
/* Removes n from its list; n becomes empty, so that removing twice is harmless. */
static inline void list_del(struct list *n)
{
        if (n->next) {
                n->prev->next = n->next;
                n->next->prev = n->prev;
        }
        n->prev = n->next = n;
}

#endif
