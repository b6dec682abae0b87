/* exec with a ledger. When the new program cannot be started after all, this one starts itself again in its place. */
#include "kernel/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/super/ledger.h"
#include "sdk/base/log.h"
#include "sdk/base/work.h"

#define SCOPE "dapr.runtime.upgrade"

enum { LAST_TURNS = 2 }; /* of the loop: what was answered at last goes out */
static const double SETTLE_S = 2; /* the name resolver starts in the background */

/* ---- the new program ---- */

int upgrade_inherit(struct kernel *k, char *err, size_t err_n)
{
        const char *text = getenv(LEDGER_ENV), *why = "";
        struct ledger *l;
        int r;

        if (!text)
                return 0;
        l = calloc(1, sizeof *l);
        if (!l)
                return -ENOMEM;
        ledger_init(l);
        r = ledger_read(l, atoi(text), &why);
        unsetenv(LEDGER_ENV);
        if (r == 0 && l->pid != getpid()) {
                why = "it belongs to another process";
                r = -ESRCH;
        }
        if (r) {
                snprintf(err, err_n, "the ledger that %s=%s names cannot be used: %s", LEDGER_ENV, text, why);
                ledger_fini(l);
                free(l);
                return r;
        }
        for (size_t i = 0; i < l->n_fds; i++)
                fcntl(l->fds[i].fd, F_SETFD, FD_CLOEXEC);
        for (size_t i = 0; i < l->n_extended; i++) {
                char *value = strdup(l->extended[i].value);
                if (!value || map_set(&k->extended, str_of(l->extended[i].key), value))
                        free(value);
        }
        k->ledger = l;
        return 0;
}

static void inherited_fiber(void *arg)
{
        struct kernel *k = arg;
        struct ledger *l = k->ledger;

        if (fiber_sleep(SETTLE_S) == 0)
                super_adopted(k->super);
        for (size_t i = 0; i < l->n_fds; i++)
                if (l->fds[i].fd >= 0)
                        close(l->fds[i].fd);
        k->ledger = NULL;
        ledger_fini(l);
        free(l);
}

void upgrade_inherited(struct kernel *k)
{
        super_started(k->super);
        if (!k->ledger)
                return;
        log_info(SCOPE, "Took over from the program before: %zu plugin processes go on", k->ledger->n_plugins);
        if (fiber_go(&k->background, "inherited", inherited_fiber, k))
                log_warn(SCOPE, "what was not taken over stays open: out of memory");
}

/* ---- the old program ---- */

struct probe {
        char path[PATH_MAX];
        char err[512];
};

static int probe_job(void *arg)
{
        struct probe *p = arg;

        return ledger_probe(p->path, p->err, sizeof p->err);
}

int upgrade_ask(void *arg, const char *binary, struct arena *a, const char **ret_err)
{
        struct kernel *k = arg;
        struct probe *p = arena_zalloc(a, sizeof *p);
        int r;

        *ret_err = "out of memory";
        if (!p)
                return -ENOMEM;
        if (!k->reload || k->shutting_down || k->upgrading) {
                *ret_err = k->reload ? "daprd stops, or is upgraded already" : "daprd has not started yet";
                return -EBUSY;
        }
        snprintf(p->path, sizeof p->path, "%s", *binary ? binary : k->exe);
        if (p->path[0] != '/' || strlen(p->path) >= sizeof k->binary) {
                *ret_err = "the program must be named by its full path";
                return -EINVAL;
        }
        r = work_run(probe_job, p);
        if (r) {
                *ret_err = p->err[0] ? p->err : strerrordesc_np(-r);
                log_error(SCOPE, "Upgrade refused: %s", *ret_err);
                return r;
        }
        memcpy(k->binary, p->path, strlen(p->path) + 1); /* measured above */
        k->upgrading = true;
        cond_broadcast(&k->changed);
        return 0;
}

void upgrade_exec(struct kernel *k, struct ledger *l, double grace_s)
{
        char number[16];
        int fd, r = super_hand_over(k->super, l, grace_s);

        l->pid = getpid();
        for (struct map_entry *e = NULL; (e = map_next(&k->extended, e));)
                ledger_add_extended(l, e->key, e->value);
        fd = r ? r : ledger_write(l);
        if (fd < 0) {
                log_fatal(SCOPE, "the ledger cannot be written: %s", strerrordesc_np(-fd));
                return;
        }
        fcntl(fd, F_SETFD, 0);
        snprintf(number, sizeof number, "%d", fd);
        setenv(LEDGER_ENV, number, 1);
        for (int i = 0; i < LAST_TURNS; i++)
                fiber_yield();
        execv(k->binary, k->argv);
        log_error(SCOPE, "%s cannot be started: %s; this daprd goes on", k->binary, strerror(errno));
        execv("/proc/self/exe", k->argv);
        log_fatal(SCOPE, "daprd cannot start itself again: %s", strerror(errno));
}
