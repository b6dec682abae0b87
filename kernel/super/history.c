/* A ring of events. What cannot be stored for want of memory is left out: the ledger never disturbs what it tells of. */
#include "kernel/super/history.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/super/keep.h"
#include "kernel/super/plugin.h"

struct history {
        struct history_event v[HISTORY_EVENTS_MAX];
        size_t next, count;
};

int history_new(struct history **ret)
{
        *ret = calloc(1, sizeof **ret);
        return *ret ? 0 : -ENOMEM;
}

static void event_fini(struct history_event *e)
{
        free(e->name);
        free(e->what);
        free(e->text);
        *e = (struct history_event){0};
}

void history_free(struct history *h)
{
        if (!h)
                return;
        for (size_t i = 0; i < HISTORY_EVENTS_MAX; i++)
                event_fini(&h->v[i]);
        free(h);
}

void history_add(struct history *h, int64_t at_ns, const char *name, const char *what, const char *text)
{
        struct history_event e = {at_ns, strdup(name), strdup(what), strdup(text)};
        if (!e.name || !e.what || !e.text) {
                event_fini(&e);
                return;
        }
        event_fini(&h->v[h->next]);
        h->v[h->next] = e;
        h->next = (h->next + 1) % HISTORY_EVENTS_MAX;
        if (h->count < HISTORY_EVENTS_MAX)
                h->count++;
}

void history_note(struct super *s, const char *name, const char *what, const char *fmt, ...)
{
        char text[HISTORY_TEXT_BYTES];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        history_add(s->history, wall_ns(), name, what, text);
        keep_note(s);
}

const struct history_event *history_at(const struct history *h, size_t i)
{
        return i < h->count ? &h->v[(h->next + HISTORY_EVENTS_MAX - h->count + i) % HISTORY_EVENTS_MAX] : NULL;
}
