/*
 * The folder of Unix sockets: <base>/dapr-<uid>/ (0700, ours) holds the control sockets of all daprds of this user and one
 * folder k<pid>.<n> a daprd for the sockets of its plugins. base: $XDG_RUNTIME_DIR, $TMPDIR, /tmp; what is too long for a socket
 * path or not writable is passed over. A daprd that was killed leaves its folder; the next one removes it (a lock tells).
 */
#ifndef KERNEL_SUPER_RUNTIME_DIR_H
#define KERNEL_SUPER_RUNTIME_DIR_H

#include <stddef.h>

struct runtime_dir {
        char user[64];  /* <base>/dapr-<uid> */
        char own[80];   /* <user>/k<pid>.<n>; "" = not made yet */
        int lock_fd;
        int temporary;  /* user is a folder of our own with a name nobody can guess */
};
/* Zero value + this = ready to use; makes no folder yet. */
void runtime_dir_init(struct runtime_dir *d);
/* Makes both folders when needed. 0 or -errno. Idempotent. */
int runtime_dir_open(struct runtime_dir *d);
void runtime_dir_close(struct runtime_dir *d); /* removes the own folder */
/* Folders in which daprctl looks for control sockets, most likely first; returns how many (at most 3). */
size_t runtime_dir_candidates(char dirs[3][64]);

#endif
