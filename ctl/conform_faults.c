/* The conformance kit: garbage, callers that go away, deadlines, load and leaks, a stop and a kill. What was sound before must serve after. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/conform.h"

#define SETTLE_S 0.1
#define STOP_S 5.0
enum { LOAD_CALLS = 4000, LOAD_WARM = 1000, LOAD_ROUNDS = 8, LOAD_FIBERS = 16, LEAK_BYTES = 2 * 1024 * 1024, GONE_CALLS = 100 };

static const char *still_serves(struct conform *c, const char *after)
{
        int r = conform_probe(c, &c->call, c->timeout_s);
        return r == 0 || r == RPC_UNIMPLEMENTED || r == RPC_NOT_FOUND ? NULL : conform_wrong(c, conform_text(c, "a call after %s", after));
}

static int raw_connect(const struct conform *c)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        snprintf(sa.sun_path, sizeof sa.sun_path, "%s", c->subject->socket);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) && errno != EAGAIN) {
                close(fd);
                return -1;
        }
        return fd;
}

static const char *garbage_on_the_wire(struct conform *c)
{
        static const char *const texts[] = {"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                                            "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"};
        int fds[4];
        for (int i = 0; i < 4; i++) {
                fds[i] = raw_connect(c);
                if (fds[i] < 0)
                        return "no second connection is taken";
                if (send(fds[i], texts[i], strlen(texts[i]), MSG_NOSIGNAL) < 0)
                        continue;
        }
        fiber_sleep(0.05);
        const char *fault = still_serves(c, "garbage on other connections");
        for (int i = 0; i < 4; i++)
                close(fds[i]);
        return fault ? fault : still_serves(c, "other connections were closed");
}

static const char *callers_that_go_away(struct conform *c)
{
        for (int i = 0; i < GONE_CALLS; i++) {
                struct rpc_call *call;
                struct arena a;
                arena_init(&a, 0);
                const char *m = i % 2 ? conform_method(c, "Ping") : conform_method(c, "Init");
                struct rpc_opts o = {.md = c->md, .n_md = c->n_md};
                if (rpc_open(c->ch, &a, m, &o, &call, &c->status) == 0) {
                        rpc_send(call, i % 2 ? STR("") : c->init);
                        rpc_cancel(call);
                        rpc_finish(call);
                }
                arena_fini(&a);
        }
        const char *fault = conform_init(c);
        return fault ? fault : still_serves(c, "100 callers went away");
}

static const char *short_deadlines(struct conform *c)
{
        for (int i = 0; i < GONE_CALLS; i++)
                conform_probe(c, &c->call, 0.0005);
        return still_serves(c, "100 calls with a deadline of 0.5 ms");
}

/* ---- load and leaks ---- */

struct load {
        struct conform *c;
        int left, failed;
};

static void load_fiber(void *arg)
{
        struct load *l = arg;
        struct arena a;
        arena_init(&a, 0);
        while (l->left > 0) {
                l->left--;
                int r = conform_probe(l->c, &a, l->c->timeout_s);
                l->failed += r != 0 && r != RPC_UNIMPLEMENTED && r != RPC_NOT_FOUND;
                arena_reset(&a);
        }
        arena_fini(&a);
}

static int load(struct conform *c, int calls)
{
        struct load l = {.c = c, .left = calls};
        struct scope s;
        scope_init(&s);
        for (int i = 0; i < LOAD_FIBERS; i++)
                fiber_go_flags(&s, "load", FIBER_BIG, load_fiber, &l);
        scope_join(&s);
        return l.failed;
}

/* What a collector has not swept yet, and connections that are opened when they are first needed, are no leak: it must grow in each of
 * the rounds. */
static const char *leaks_nothing(struct conform *c)
{
        uint64_t first, rss, now, fds, fds_now;
        int failed = load(c, LOAD_WARM);
        if (!subject_usage(c->subject, &first, &fds))
                return conform_skip(c, "its process cannot be looked at");
        rss = first;
        for (int i = 0;; rss = now, fds = fds_now) {
                failed += load(c, LOAD_CALLS);
                for (int k = 0; k < 10; k++) /* connections that come and go */
                        close(raw_connect(c));
                conform_connect(c);
                fiber_sleep(SETTLE_S);
                if (!subject_usage(c->subject, &now, &fds_now))
                        return "its process is gone";
                if (failed)
                        return conform_text(c, "%d calls failed", failed);
                if (fds_now <= fds + 2 && now < rss + LEAK_BYTES)
                        return NULL;
                if (++i == LOAD_ROUNDS)
                        break;
        }
        if (fds_now > fds + 2)
                return conform_text(c, "%d calls and 11 connections later it holds %llu descriptors more", LOAD_CALLS, (unsigned long long)(fds_now - fds));
        return conform_text(c, "it grew in each of %d rounds of %d calls, by %s together", LOAD_ROUNDS, LOAD_CALLS, ui_bytes(c->arena, (int64_t)(now - first)));
}

/* ---- crash and hang ---- */

static const char *stopped_and_continued(struct conform *c)
{
        subject_signal(c->subject, SIGSTOP);
        if (subject_wait_stopped(c->subject, STOP_S))
                return "it could not be stopped";
        int r = conform_probe(c, &c->call, 0.2);
        subject_signal(c->subject, SIGCONT);
        if (r == 0)
                return "a stopped process answered";
        return still_serves(c, "it was stopped and went on");
}

static const char *killed_and_started(struct conform *c)
{
        int code, status;
        subject_signal(c->subject, SIGKILL);
        if (subject_wait(c->subject, 5, &code, &status))
                return "it could not be killed";
        int r = subject_start(c->subject);
        if (r)
                return conform_text(c, "it does not start again: %s", strerror(-r));
        const char *fault = conform_connect(c);
        if (!fault)
                fault = conform_init(c);
        return fault ? fault : still_serves(c, "a crash and a new start");
}

static const struct conform_check wire_faults[] = {
        {"garbage and silence on other connections", garbage_on_the_wire},
        {"callers that go away", callers_that_go_away},
        {"deadlines that pass", short_deadlines},
        {"5,000 calls leak neither memory nor descriptors", leaks_nothing},
};
static const struct conform_check process_faults[] = {
        {"stopped and continued", stopped_and_continued},
        {"killed and started on the same socket", killed_and_started},
};

void conform_faults(struct conform *c)
{
        RUN(c, "faults", wire_faults);
        if (c->subject->program)
                RUN(c, "faults", process_faults);
}
