/* See scratch.h. */
#include "ctl/scratch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/live.h"
#include "ctl/package/store.h"
#include "sdk/base/loop.h"

#define POLL_S 0.02
#define STOP_S 10.0

/* Registering with mDNS or Consul would send other apps' calls here. */
static const char configuration[] = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: scratch\nspec:\n  metric:\n"
                                    "    enabled: false\n  nameResolution:\n    component: sqlite\n    configuration:\n"
                                    "      connectionString: \"%s/names.db\"\n";

static void on_line(void *arg, struct str line, bool is_stderr)
{
        struct scratch *s = arg;
        if (buf_len(&s->log) + line.n < SCRATCH_LOG_MAX) {
                buf_adds(&s->log, line);
                buf_addc(&s->log, '\n');
        }
}

static char **environment(struct arena *a, const char *plugins_path)
{
        size_t n = 0, k = 0;
        while (environ[n])
                n++;
        char **env = arena_alloc(a, (n + 2) * sizeof *env);
        const char *old = getenv("DAPR_PLUGINS_PATH");
        for (size_t i = 0; env && i < n; i++)
                if (strncmp(environ[i], "DAPR_PLUGINS_PATH=", 18) != 0 || !plugins_path)
                        env[k++] = environ[i];
        if (env && plugins_path)
                env[k++] = arena_printf(a, "DAPR_PLUGINS_PATH=%s%s%s", plugins_path, old ? ":" : "", old ? old : "");
        if (env)
                env[k] = NULL;
        return env;
}

static int start(struct scratch *s, struct arena *a, const struct scratch_options *o, const char *daprd)
{
        const char *config = path_join(a, s->dir, "config.yaml"), *text = arena_printf(a, configuration, s->dir);
        char **argv = arena_zalloc(a, (24 + 2 * o->n_resources) * sizeof *argv);
        size_t n = 0;
        if (!argv || !text || path_write(config, str_of(text), 0600, true))
                return -EIO;
        const char *const fixed[] = {daprd, "--app-id", o->app_id, "--config", config, "--unix-domain-socket", s->dir, "--enable-metrics=false",
                                     "--dapr-internal-grpc-port", "0", "--dapr-internal-grpc-listen-address", "127.0.0.1", "--log-level", "info",
                                     "--tolerate-component-errors", "--dapr-graceful-shutdown-seconds", "1"};
        for (; n < sizeof fixed / sizeof *fixed; n++)
                argv[n] = (char *)fixed[n];
        for (size_t i = 0; i < o->n_resources; i++) {
                argv[n++] = (char *)"--resources-path";
                argv[n++] = (char *)o->resources[i];
        }
        if (o->verify && *o->verify)
                argv[n++] = arena_printf(a, "--plugin-verify=%s", o->verify);
        if (o->lock && *o->lock)
                argv[n++] = arena_printf(a, "--plugin-lock=%s", o->lock);
        struct process_options po = {.env = environment(a, o->plugins_path), .on_line = on_line, .arg = s, .own_group = true, .no_stdin = true};
        return po.env ? process_start(&s->daprd, argv, &po) : -ENOMEM;
}

/* Its log says so: components that come late are those that wait for a pluggable one. */
static bool is_up(const struct scratch *s)
{
        return str_find(buf_str(&s->log), STR("dapr initialized. Status: Running")) >= 0;
}

static struct str last_line(struct str log)
{
        log = str_trim(log);
        const char *nl = log.n ? memrchr(log.p, '\n', log.n) : NULL;
        return nl ? str_skip(log, (size_t)(nl - log.p) + 1) : log;
}

int scratch_start(struct scratch *s, struct arena *a, const struct scratch_options *o, double timeout_s)
{
        char dir[] = "/tmp/daprctl-XXXXXX";
        const char *daprd = path_program(a, o->runtime_path, "daprd");
        double until = loop_now_exact() + timeout_s;
        *s = (struct scratch){0};
        if (!daprd) {
                ui_say(UI_FAILURE, "daprd was not found beside this program, in the install folder's bin or in PATH");
                return 1;
        }
        if (!mkdtemp(dir) || !(s->dir = strdup(dir))) {
                ui_say(UI_FAILURE, "Could not make a temporary folder: %s", strerror(errno));
                return 1;
        }
        int r = start(s, a, o, daprd);
        if (r) {
                ui_say(UI_FAILURE, "Could not start %s: %s", daprd, strerror(-r));
                return 1;
        }
        s->sidecar = (struct sidecar){.app_id = o->app_id, .pid = s->daprd->pid, .uid = (int)getuid(), .socket = s->dir};
        while (!is_up(s) && !s->daprd->exited && loop_now_exact() < until)
                if (fiber_sleep(POLL_S))
                        break;
        if (is_up(s) && !s->daprd->exited)
                return 0;
        struct str line = last_line(buf_str(&s->log));
        ui_say(UI_FAILURE, "A sidecar with these resources %s: %.*s", s->daprd->exited ? "ends at once" : "does not come up", STR_FMT(line));
        return 1;
}

void scratch_stop(struct scratch *s)
{
        if (s->daprd) {
                fiber_shield_begin();
                process_signal(s->daprd, SIGTERM);
                if (process_wait(s->daprd, STOP_S)) {
                        process_signal(s->daprd, SIGKILL);
                        process_wait(s->daprd, STOP_S);
                }
                process_free(s->daprd);
                fiber_shield_end();
        }
        if (s->dir)
                store_remove_tree(s->dir);
        free(s->dir);
        buf_fini(&s->log);
        *s = (struct scratch){0};
}
