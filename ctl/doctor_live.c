/*
 * What a sidecar tells about its components: how far each came on its way from the plugin to its backend. A failure's text is sorted into
 * the step that it belongs to by the words that the runtime and the usual client libraries use; what is not recognised is Init's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/doctor.h"
#include "sdk/base/loop.h"
#include "sdk/net/conn.h"

#define DIAL_TIMEOUT_S 2.0
#define SETTLE_S 10.0
#define POLL_S 0.05

struct cause {
        const char *words;    /* of the error's text; without case */
        enum doctor_step step;
        const char *fix;      /* %s: the plugin's name or type */
};
/* First match wins: sure ones stand first. */
static const struct cause causes[] = {
        {"has no row for", STEP_LOCK, ""},
        {" pins ", STEP_LOCK, ""},
        {"is another package", STEP_LOCK, ""},
        {"its signature", STEP_SIGNATURE, ""},
        {"is not signed", STEP_SIGNATURE, ""},
        {"is not trusted", STEP_SIGNATURE, ""},
        {"was not started", STEP_PACKAGE, ""},
        {"sign of life", STEP_PING, "dapr plugin logs tells what %s did before; dapr plugin tap, which call it hung at"},
        {"hung and was killed", STEP_PING, "dapr plugin logs tells what %s did before; hangAfter in its plugin.yaml says how long its calls may take"},
        {"metadata field", STEP_SCHEMA, "correct the setting; dapr plugin info %s lists them"},
        {"is not installed", STEP_PLUGIN, "dapr plugin install %s"},
        {"couldn't find", STEP_PLUGIN, "dapr plugin install %s, or start the pluggable component"},
        {"do not belong together", STEP_HELLO, "dapr plugin install %s --force"},
        {"contract", STEP_HELLO, "install a version of %s for this runtime: dapr plugin upgrade"},
        {"hello", STEP_HELLO, "dapr plugin install %s --force"},
        {"sandbox", STEP_PERMISSION, "dapr plugin security %s tells what it may do; if it needs more, its manifest must ask for it"},
        {"landlock", STEP_PERMISSION, "dapr plugin security %s tells what it may do"},
        {"wrongpass", STEP_INIT, "correct user and password of %s"},
        {"noauth", STEP_INIT, "set user and password of %s"},
        {"password", STEP_INIT, "correct user and password of %s"},
        {"auth", STEP_INIT, "correct the credentials of %s"},
        {"not authori", STEP_INIT, "correct the credentials of %s"},
        {"access_refused", STEP_INIT, "correct the credentials of %s"},
        {"secret", STEP_INIT, "the secret store must hold the secret that %s refers to, and come up itself"},
        {"permission denied", STEP_PERMISSION, "give the user that runs daprd the right, or name another file for %s"},
        {"no such file", STEP_PERMISSION, "make the file or folder that %s is told to use"},
        {"unable to open database", STEP_PERMISSION, "make the folder that %s is told to use, and writable"},
        {"connection refused", STEP_BACKEND, "start the server, or correct host and port of %s"},
        {"could not connect", STEP_BACKEND, "start the server, or correct host and port of %s"},
        {"cannot connect", STEP_BACKEND, "start the server, or correct host and port of %s"},
        {"no such host", STEP_BACKEND, "correct the host name of %s"},
        {"unreachable", STEP_BACKEND, "start the server, or correct host and port of %s"},
        {"timed out", STEP_BACKEND, "start the server, or correct host and port of %s"},
        {"timeout", STEP_BACKEND, "start the server, or correct host and port of %s; a slow one needs a longer spec.initTimeout"},
        {"connect", STEP_BACKEND, "start the server, or correct host and port of %s"},
};

static const struct cause *cause_of(const char *error)
{
        static const struct cause other = {"", STEP_INIT, "the settings of %s: dapr plugin info tells what they mean"};
        for (size_t i = 0; i < sizeof causes / sizeof *causes; i++)
                if (strcasestr(error, causes[i].words))
                        return &causes[i];
        return &other;
}

static void blame(struct doctor *d, const struct live *l)
{
        const char *why = *l->last_error ? l->last_error : "it does not come up";
        const struct cause *c = cause_of(why);
        if (strcmp(l->last_death, "sandbox") == 0)
                c = cause_of("sandbox");
        static const char mend[] = "to mend it: ";
        const char *said = strstr(why, mend);
        char fix[400];
        if (said)
                snprintf(fix, sizeof fix, "%s", said + sizeof mend - 1);
        else
                snprintf(fix, sizeof fix, c->fix, *l->plugin && c->step != STEP_PLUGIN ? l->plugin : l->type);
        for (enum doctor_step s = STEP_HELLO; s < c->step && s <= STEP_INIT; s++)
                doctor_found(d, s, FOUND_GOOD, l->name, s == STEP_HELLO ? "the plugin answers" : "it takes its settings", "");
        doctor_found(d, c->step, FOUND_WRONG, l->name, why, arena_strdup(d->a, str_of(fix)));
}

static void praise(struct doctor *d, const struct live *l)
{
        bool known = strcmp(l->backend, "unknown") != 0;
        doctor_found(d, STEP_HELLO, FOUND_GOOD, l->name,
                     l->foreign ? "a pluggable component behind a socket" : arena_printf(d->a, "%s %s, process %lld", l->plugin, l->plugin_version, (long long)l->pid), "");
        doctor_found(d, STEP_INIT, FOUND_GOOD, l->name, arena_printf(d->a, "%s, %lld calls, %lld with errors", l->state, (long long)l->calls, (long long)l->errors), "");
        if (l->restarts)
                doctor_found(d, strcmp(l->last_death, "hang") == 0 ? STEP_PING : STEP_INIT, FOUND_WARNING, l->name, arena_printf(d->a, "its process was started again %lld times; last death: %s", (long long)l->restarts, l->last_death),
                             arena_printf(d->a, "dapr plugin history %s --app-id %s", l->name, l->app_id));
        if (*l->fault)
                doctor_found(d, STEP_INIT, FOUND_WARNING, l->name, arena_printf(d->a, "an operator has set a fault: %s", l->fault),
                             arena_printf(d->a, "dapr plugin fault %s --app-id %s --clear", l->name, l->app_id));
        doctor_found(d, STEP_PING, FOUND_GOOD, l->name, l->foreign ? "it answers Ping" : "its reports of health come", "");
        doctor_found(d, STEP_BACKEND, FOUND_GOOD, l->name, known ? "it reports its backend as reachable" : "it reports no trouble with a backend", "");
}

/* It answers, and what it was asked to do does not come back. */
static void tell_stuck(struct doctor *d, const struct live *l)
{
        doctor_found(d, STEP_HELLO, FOUND_GOOD, l->name, "the plugin answers", "");
        doctor_found(d, STEP_PING, FOUND_WRONG, l->name, arena_printf(d->a, "operations do not come back: %s", l->stuck),
                     arena_printf(d->a, "it is replaced when that takes its hangAfter; at once: dapr plugin restart %s --app-id %s --force", l->name, l->app_id));
}

static void diagnose(struct doctor *d, const struct live *l)
{
        if (*l->stuck) {
                tell_stuck(d, l);
        } else if (strcmp(l->state, "READY") == 0 && strcmp(l->backend, "unreachable") != 0) {
                praise(d, l);
        } else if (strcmp(l->backend, "unreachable") == 0) {
                char fix[200];
                snprintf(fix, sizeof fix, "start the server, or correct host and port of %.100s", l->name);
                doctor_found(d, STEP_HELLO, FOUND_GOOD, l->name, "the plugin answers", "");
                doctor_found(d, STEP_BACKEND, FOUND_WRONG, l->name, *l->last_error ? l->last_error : "the plugin does not reach its backend",
                             arena_strdup(d->a, str_of(fix)));
        } else {
                blame(d, l);
        }
}

static bool on_its_way(const struct lives *all)
{
        static const char *const states[] = {"ABSENT", "STARTING", "HELLO", "INIT"};
        for (size_t i = 0; i < all->n; i++)
                for (size_t k = 0; k < sizeof states / sizeof *states; k++)
                        if (strcmp(all->v[i].state, states[k]) == 0)
                                return true;
        return false;
}

int doctor_ask(struct doctor *d, const struct sidecar *s)
{
        struct lives all = {0};
        double until = loop_now_exact() + SETTLE_S;
        do {
                all = (struct lives){0};
                if (live_list(d->a, s, &all))
                        return 1;
        } while (on_its_way(&all) && loop_now_exact() < until && fiber_sleep(POLL_S) == 0);
        for (size_t i = 0; i < all.n; i++) {
                if (d->is_scratch && strncmp(all.v[i].type, "nameresolution.", 15) == 0)
                        continue;
                for (size_t k = 0; k < d->n_components; k++)
                        if (strcmp(d->components[k].name, all.v[i].name) == 0)
                                d->components[k].seen = true;
                diagnose(d, &all.v[i]);
        }
        for (size_t k = 0; k < d->n_components; k++) {
                const struct doctor_component *c = &d->components[k];
                if (!c->seen && c->in_scope && !c->wrong_file)
                        doctor_found(d, STEP_INIT, FOUND_WRONG, c->name, arena_printf(d->a, "%s:%d: the sidecar of %s has not loaded it", c->file, c->line, d->app_id),
                                     "its log tells why; it came after the start of a sidecar without hot reload, or its document is refused");
        }
        return 0;
}

void doctor_check_app(struct doctor *d, const char *host, int port)
{
        struct conn *c = NULL;
        const char *addr = arena_printf(d->a, "%s:%d", host, port);
        double old = fiber_set_deadline(loop_now_exact() + DIAL_TIMEOUT_S);
        int r = addr ? conn_dial(str_of(addr), &c) : -ENOMEM;
        fiber_restore_deadline(old);
        conn_free(c);
        if (r)
                doctor_found(d, STEP_APP, FOUND_WRONG, d->app_id, arena_printf(d->a, "nothing listens on %s: %s", addr, strerror(-r)),
                             "start the app, or correct --app-port");
        else
                doctor_found(d, STEP_APP, FOUND_GOOD, d->app_id, arena_printf(d->a, "it listens on %s", addr), "");
}
