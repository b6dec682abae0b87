/* Descendants of this process as /proc shows them: to reach what an app has started, whatever has become of the links between. */
#ifndef CTL_TREE_H
#define CTL_TREE_H

#include <stddef.h>
#include <sys/types.h>

/* Sends signo (0 = only count) to root and its descendants that are in our session or in root's. root 0: to our own descendants without
 * those of `without`. Returns how many there are (zombies do not count). */
size_t tree_signal(pid_t root, int signo, const pid_t *without, size_t n_without);

#endif
