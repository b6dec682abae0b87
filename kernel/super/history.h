/*
 * What happened to which component, when: the last events of all components in one bounded list, kept in memory and read by
 * `daprctl plugin history`. Also carried over when the kernel replaces itself.
 */
#ifndef KERNEL_SUPER_HISTORY_H
#define KERNEL_SUPER_HISTORY_H

#include <stddef.h>
#include <stdint.h>

enum { HISTORY_EVENTS_MAX = 1000, HISTORY_TEXT_BYTES = 400 };

struct super;
struct history;
struct history_event {
        int64_t at_ns; /* wall clock */
        char *name;    /* of the component */
        char *what;    /* "started", "swapped", "rolled back", "failed", "backend lost", ..., or the class of a death nobody asked for */
        char *text;    /* why, or which; "" if there is nothing more to say */
};
int history_new(struct history **ret); /* 0 or -ENOMEM */
void history_free(struct history *h);  /* NULL is fine */
/* Notes an event; the oldest goes when the list is full. */
void history_note(struct super *s, const char *name, const char *what, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void history_add(struct history *h, int64_t at_ns, const char *name, const char *what, const char *text);
/* i-th from the oldest; NULL past the end. */
const struct history_event *history_at(const struct history *h, size_t i);

#endif
