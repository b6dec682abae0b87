/* A link for several callers: the one who finds it broken waits until nobody uses it, closes it and opens another. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "plugins/shared/amqp/amqp.h"

void amqp_shared_init(struct amqp_shared *x, const struct amqp_settings *s, const char *instance)
{
        *x = (struct amqp_shared){.s = s, .instance = instance};
        fmutex_init(&x->linking);
        cond_init(&x->unused);
}

void amqp_shared_fini(struct amqp_shared *x)
{
        amqp_link_close(x->link);
        x->link = NULL;
}

static int open_link(struct amqp_shared *x, char *err, size_t err_n)
{
        struct amqp_link *l;
        int r = amqp_link_open(&l, x->s, err, err_n);
        if (!r && x->opened && (r = x->opened(x->arg, l))) {
                snprintf(err, err_n, "%s", amqp_link_is_broken(l) ? amqp_link_error(l) : strerror(-r));
                amqp_link_close(l);
        }
        if (!r) {
                x->link = l;
                dapr_backend_up(x->instance);
        } else if (r != -ECANCELED) {
                dapr_backend_down(x->instance, err);
        }
        return r;
}

int amqp_shared_get(struct amqp_shared *x, struct amqp_link **ret, char *err, size_t err_n)
{
        int r = fmutex_lock(&x->linking);
        if (r)
                return r;
        if (x->link && amqp_link_is_broken(x->link)) {
                while (x->users && !r)
                        r = cond_wait(&x->unused);
                if (!r) {
                        amqp_link_close(x->link);
                        x->link = NULL;
                }
        }
        if (!r && !x->link)
                r = open_link(x, err, err_n);
        if (!r) {
                x->users++;
                *ret = x->link;
        }
        fmutex_unlock(&x->linking);
        return r;
}

void amqp_shared_put(struct amqp_shared *x)
{
        if (--x->users == 0)
                cond_broadcast(&x->unused);
}

bool amqp_is_lost(int r)
{
        switch (r) {
        case 0:
        case -EACCES:
        case -EINVAL:
        case -ECANCELED:
        case -ENOMEM:
        case -ENAMETOOLONG:
        case -ETIMEDOUT:
                return false;
        default:
                return true;
        }
}
