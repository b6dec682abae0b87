/* Readiness targets: a short array, asked by each health request. Targets are added at start and never removed. */
#include "kernel/observe/health.h"

#include "sdk/base/log.h"

int health_add(struct health *h, const char *name, enum health_scope scope)
{
        must(h->n < HEALTH_TARGETS_MAX);
        h->t[h->n] = (struct health_target){.name = name, .scope = scope};
        return h->n++;
}

void health_set(struct health *h, int target, bool ready)
{
        must(target >= 0 && target < h->n);
        h->t[target].ready = ready;
}

bool health_check(const struct health *h, enum health_scope scope, struct buf *unready)
{
        int targets = 0, missing = 0;

        for (int i = 0; i < h->n; i++) {
                if (h->t[i].scope != scope)
                        continue;
                targets++;
                if (h->t[i].ready)
                        continue;
                if (missing++ && unready)
                        buf_addc(unready, ' ');
                if (unready)
                        buf_addz(unready, h->t[i].name);
        }
        return targets > 0 && missing == 0;
}
