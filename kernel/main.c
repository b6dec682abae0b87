/*
 * daprd: argv -> log -> loop -> runtime -> exit code. 0 = stopped as asked, 1 = fatal, 2 = the command line is wrong.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "kernel/runtime.h"
#include "kernel/super/confine_run.h"
#include "kernel/super/ledger.h"
#include "kernel/upgrade.h"
#include "sdk/base/log.h"
#include "sdk/base/loop.h"
#include "sdk/base/work.h"
#include "sdk/net/conn.h"

#ifndef DAPR_COMMIT
#define DAPR_COMMIT "unknown"
#endif
#define SCOPE "dapr.runtime"

enum { EXIT_USAGE = 2, ERROR_BYTES = 1024 };

static int setup_log(const struct daprd_opts *o)
{
        enum log_level level;
        int r;

        log_setup(o->app_id, DAPR_VERSION, o->log_as_json);
        if (log_level_parse(str_of(o->log_level), &level)) {
                log_fatal(SCOPE, "invalid value for --log-level: %s", o->log_level);
                return -1;
        }
        log_set_level(level);
        if (o->log_file[0] && (r = log_to_file(o->log_file))) {
                log_fatal(SCOPE, "cannot write to the log file %s: %s", o->log_file, strerror(-r));
                return -1;
        }
        log_info(SCOPE, "Starting Dapr Runtime -- version %s -- commit %s", DAPR_VERSION, DAPR_COMMIT);
        log_info(SCOPE, "Log level set to: %s", o->log_level);
        return 0;
}

/* Each connection and plugin takes descriptors: as many as the hard limit allows, as the reference's runtime does by itself. */
static void raise_descriptors(void)
{
        struct rlimit l;

        if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
                l.rlim_cur = l.rlim_max;
                setrlimit(RLIMIT_NOFILE, &l);
        }
}

static void run(void *arg)
{
        runtime_run(arg);
        loop_stop();
}

static int serve(struct kernel *k)
{
        struct scope scope;
        int r = loop_init();

        if (r) {
                log_fatal(SCOPE, "cannot make an event loop: %s", strerror(-r));
                return 1;
        }
        scope_init(&scope);
        if (fiber_go_flags(&scope, "runtime", FIBER_BIG, run, k)) {
                log_fatal(SCOPE, "out of memory");
                return 1;
        }
        loop_run();
        conn_fini();
        work_fini();
        loop_fini();
        return k->exit_code;
}

int main(int argc, char **argv)
{
        struct kernel *k;
        char err[ERROR_BYTES];
        int r;

        if (argc == 2 && strcmp(argv[1], LEDGER_PROBE_ARG) == 0) {
                printf("microdapr-ledger %d\n", LEDGER_VERSION);
                return 0;
        }
        if (argc == 2 && strcmp(argv[1], CONFINE_RUN_ARG) == 0)
                return confine_run();
        k = calloc(1, sizeof *k);
        if (!k)
                return 1;
        k->argv = argv;
        signal(SIGPIPE, SIG_IGN);
        raise_descriptors();
        r = opts_parse(&k->opts, argc, argv, err, sizeof err);
        if (r) {
                if (r != -ECANCELED)
                        fprintf(stderr, "%s\n", err);
                free(k);
                return r == -ECANCELED ? 0 : EXIT_USAGE;
        }
        if (setup_log(&k->opts)) {
                r = 1;
        } else if (opts_check(&k->opts, err, sizeof err)) {
                log_fatal(SCOPE, "Fatal error from runtime: %s", err);
                r = 1;
        } else if (upgrade_inherit(k, err, sizeof err)) {
                log_fatal(SCOPE, "Fatal error from runtime: %s", err);
                r = 1;
        } else {
                runtime_hold_signals();
                r = serve(k);
        }
        opts_fini(&k->opts);
        free(k);
        return r;
}
