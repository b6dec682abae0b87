/* Look-ups in the kernel object, and the wish to stop. */
#include "kernel/kernel.h"

#include <unistd.h>

#include "sdk/base/loop.h"

enum { FORCE_EXIT_MS = 100 };

struct component *kernel_component(struct kernel *k, enum component_kind kind, struct str name)
{
        return map_get(&k->components[kind], name);
}

size_t kernel_component_count(const struct kernel *k, enum component_kind kind)
{
        return k->components[kind].count;
}

static void force_exit(struct timer *t)
{
        _exit(1);
}

void kernel_shutdown(struct kernel *k, bool force)
{
        static struct timer forced; /* the last thing that happens to the process */

        if (force) {
                timer_init(&forced, force_exit);
                timer_start(&forced, FORCE_EXIT_MS / 1e3, 0);
                return;
        }
        k->shutting_down = true;
        cond_broadcast(&k->changed);
}
