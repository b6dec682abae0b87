/*
 * One fiber writes for as long as there is something new; changes that come while it writes make it write once more. What cannot be
 * written is said once and tried again at the next change: a full disk does not disturb components.
 */
#include "kernel/super/keep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/opts.h"
#include "kernel/super/adopt.h"
#include "kernel/super/history.h"
#include "kernel/super/ledger_file.h"
#include "kernel/super/proof.h"
#include "sdk/base/work.h"

struct keeper {
        uint64_t noted, written; /* counts of changes */
        bool running, stopped, complained;
        struct cond changed;
        char folder[sizeof((struct runtime_dir *)0)->own];
        struct buf bytes;
};

static void fill_plugins(struct super *s, struct ledger *l)
{
        list_for_each(pos, &s->plugins) {
                const struct plugin *p = list_entry(pos, struct plugin, in_super);
                if (p->manifest && p->life && p->life->token[0] && !p->life->ended)
                        adopt_describe(l, p);
        }
}

static int fill(struct super *s, struct buf *to)
{
        const struct history_event *e;
        char boot[BOOT_ID_BYTES];
        struct ledger l;
        ledger_init(&l);
        proof_boot_id(boot);
        l.pid = getpid();
        l.app_id = s->conf.opts->app_id;
        l.boot_id = boot;
        l.linger_ms = (int64_t)(s->linger_s * 1000);
        l.at_ns = wall_ns();
        for (size_t i = 0; (e = history_at(s->history, i)); i++)
                ledger_add_event(&l, e->at_ns, e->name, e->what, e->text);
        fill_plugins(s, &l);
        int r = ledger_frame(&l, to);
        ledger_fini(&l);
        return r;
}

static int write_job(void *arg)
{
        struct keeper *k = arg;
        return ledger_file_write(k->folder, buf_str(&k->bytes));
}

static int write_once(struct super *s)
{
        struct keeper *k = s->keeper;
        buf_clear(&k->bytes);
        int r = runtime_dir_open(&s->dir);
        if (r == 0)
                r = fill(s, &k->bytes);
        memcpy(k->folder, s->dir.own, sizeof k->folder);
        return r ? r : work_run(write_job, k);
}

static void keep_fiber(void *arg)
{
        struct super *s = arg;
        struct keeper *k = s->keeper;
        fiber_shield_begin();
        while (k->written != k->noted && !k->stopped) {
                uint64_t n = k->noted;
                int r = write_once(s);
                if (r && !k->complained)
                        log_warn(SUPER_SCOPE, "the ledger in %s cannot be written: %s; after a crash of this daprd nothing of it is known", s->dir.own,
                                 strerrordesc_np(-r));
                k->complained = r != 0;
                k->written = n;
                cond_broadcast(&k->changed);
        }
        fiber_shield_end();
        k->running = false;
        cond_broadcast(&k->changed);
}

static struct keeper *keeper_of(struct super *s)
{
        if (!s->keeper && s->conf.opts && (s->keeper = calloc(1, sizeof *s->keeper)))
                cond_init(&s->keeper->changed);
        return s->keeper;
}

void keep_note(struct super *s)
{
        struct keeper *k = keeper_of(s);
        if (!k || k->stopped)
                return;
        k->noted++;
        if (!k->running)
                k->running = fiber_go(&s->cleanup, "ledger", keep_fiber, s) == 0;
}

void keep_flush(struct super *s)
{
        struct keeper *k = s->keeper;
        uint64_t n = k ? k->noted : 0;
        while (k && k->running && k->written < n && !k->stopped)
                if (cond_wait(&k->changed))
                        return;
}

void keep_stop(struct super *s)
{
        if (s->keeper)
                s->keeper->stopped = true;
}

void keep_free(struct super *s)
{
        if (s->keeper)
                buf_fini(&s->keeper->bytes);
        free(s->keeper);
        s->keeper = NULL;
}
