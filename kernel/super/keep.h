/*
 * The ledger on disk, kept as long as this kernel lives: what happened to components and, with lingering, every plugin process that
 * serves. Written by the worker pool whenever something of it changes; the one after a crash begins with it (linger.h).
 */
#ifndef KERNEL_SUPER_KEEP_H
#define KERNEL_SUPER_KEEP_H

struct super;
struct keeper;

void keep_note(struct super *s);  /* something has changed; does not park */
void keep_flush(struct super *s); /* parks until all that was noted stands on disk, or cannot */
void keep_stop(struct super *s);  /* no more writing; what is at it ends by itself, in s->cleanup */
void keep_free(struct super *s);

#endif
