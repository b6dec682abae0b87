/*
 * The folder of Unix sockets: <base>/dapr-<uid>/ (0700, ours) holds the control sockets of all daprds of this user and one
 * folder k<pid>.<n> a daprd for the sockets of its plugins. base: $XDG_RUNTIME_DIR, $TMPDIR, /tmp; what is too long for a socket
 * path or not writable is passed over. A daprd that was killed leaves its folder; the next one removes it (a lock tells), or takes it
 * over with what is in it.
 */
#ifndef KERNEL_SUPER_RUNTIME_DIR_H
#define KERNEL_SUPER_RUNTIME_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct runtime_dir {
        char user[64];  /* <base>/dapr-<uid> */
        char own[80];   /* <user>/k<pid>.<n>; "" = not made yet */
        int lock_fd;
        int temporary;  /* user is a folder of our own with a name nobody can guess */
        /* Shall a dead daprd's folder stay for now? NULL = none stays. May block. */
        bool (*spared)(void *arg, int folder_fd);
        void *spared_arg;
};
/* Zero value + this = ready to use; makes no folder yet. */
void runtime_dir_init(struct runtime_dir *d);
/* Makes both folders when needed. 0 or -errno. Idempotent. */
int runtime_dir_open(struct runtime_dir *d);
/* Takes over a dead daprd's folder: of those for which worth() is >= 0 the one with the highest; it becomes the own folder, under
 * this process's name, and its lock is held. Nobody else can take it too. 0; -ENOENT: there is none; -errno. Before runtime_dir_open. */
int runtime_dir_take(struct runtime_dir *d, int64_t (*worth)(void *arg, int folder_fd), void *arg);
void runtime_dir_close(struct runtime_dir *d); /* removes the own folder */
/* Folders in which daprctl looks for control sockets, most likely first; returns how many (at most 3). */
size_t runtime_dir_candidates(char dirs[3][64]);

#endif
