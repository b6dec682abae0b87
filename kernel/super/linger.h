/*
 * What a daprd that was killed left behind: its plugins go on for a while (--plugin-linger) and wait for the next one of the same
 * app id. Whoever holds the lock of the dead one's folder may take them, so there is only one. A process is taken over when it is
 * proven to be the one of the ledger, its program and manifest are the same, and it lets itself be attached; each instance in it when its
 * Init would be the same. All else that is proven to be the dead one's is stopped and started anew, with a line that says why.
 */
#ifndef KERNEL_SUPER_LINGER_H
#define KERNEL_SUPER_LINGER_H

struct super;

/* Before anything is started: takes over a dead daprd's folder, history and plugins when there are any. Parks. */
void linger_begin(struct super *s);
void linger_started(struct super *s); /* everything has started: what is not needed ends, soon */
void linger_end(struct super *s); /* what was known of the dead one is not needed any more */

#endif
