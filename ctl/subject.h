/*
 * The process that is checked: started as the runtime starts plugins (listening socket on 3, control socket on 4, empty environment),
 * or somebody's pluggable component that listens already.
 */
#ifndef CTL_SUBJECT_H
#define CTL_SUBJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sdk/base/arena.h"
#include "sdk/base/str.h"

struct subject {
        const char *program;      /* NULL: not ours, it listens on socket */
        const char *launcher;     /* daprd, which puts the manifest's walls around the program; NULL = none stand */
        struct str launch;        /* what it reads: see kernel/super/confine_run.h */
        const char *const *environment; /* names of variables that it gets */
        size_t n_environment;
        const char *socket, *dir; /* dir: temporary, with its socket and its output */
        int listen_fd, control_fd, pidfd;
        pid_t pid;                /* of another's process: who listens, 0 = unknown */
};
/* 0 or -errno. */
int subject_open(struct subject *s, struct arena *a);
int subject_start(struct subject *s);   /* also again, after its end: the socket stays */
/* Waits for its end: 0 and *ret_status as waitid tells (code, status), or -ETIMEDOUT. Parks. */
int subject_wait(struct subject *s, double timeout_s, int *ret_code, int *ret_status);
int subject_wait_stopped(struct subject *s, double timeout_s); /* after SIGSTOP: 0 or -ETIMEDOUT. Parks. */
void subject_signal(struct subject *s, int signo);
void subject_release(struct subject *s); /* closes the control socket: the runtime is gone */
bool subject_is_alive(const struct subject *s);
void subject_close(struct subject *s);  /* kills what is left; removes dir */
/* Resident bytes and open descriptors; false = not known. */
bool subject_usage(const struct subject *s, uint64_t *rss, uint64_t *fds);
/* The last lines that it has written. */
const char *subject_output(const struct subject *s, struct arena *a);

#endif
