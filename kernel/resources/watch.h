/*
 * Watches folders for changes of what is in them, and tells once a burst of changes is over. Files that are replaced by rename, and
 * folders whose content is a link that is turned over (as Kubernetes mounts them), are changes too. A folder that goes away is
 * looked for again until it is back, which is a change as well.
 */
#ifndef KERNEL_RESOURCES_WATCH_H
#define KERNEL_RESOURCES_WATCH_H

#include <stddef.h>

enum { WATCH_DEBOUNCE_MS = 200, WATCH_BURST_MAX_MS = 2000, WATCH_AGAIN_MS = 2000 };

struct folder_watch;
/* Calls changed(arg), from the loop's stack, WATCH_DEBOUNCE_MS after the last change of a burst and at the latest WATCH_BURST_MAX_MS
 * after its first. folders is borrowed. 0 or -errno (no inotify to be had). */
int folder_watch_new(struct folder_watch **ret, const char *const *folders, size_t n, void (*changed)(void *arg), void *arg);
void folder_watch_free(struct folder_watch *w); /* NULL is fine */

#endif
