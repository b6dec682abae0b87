/*
 * Hot reload: with feature HotReload the resources folders are watched, and read again every 60 s; SIGHUP reads them at any time.
 * Components and Subscriptions that have come begin, those that have gone end, changed ones are exchanged under running calls.
 *
 * As the reference does it, but make before break: a component that cannot be had with its new settings stays as it was, with a line
 * in the log that says why. Only a change of its spec.type is a new component under an old name: when that one fails, the old one
 * goes, and the process ends unless spec.ignoreErrors (so does it when one name is defined twice).
 *
 * Other kinds (Resiliency, HTTPEndpoint, Configuration), and with SIGHUP the --config files, are read by many parts when they start: when
 * one has changed and can be read, the program starts again in place (upgrade.h), which no caller notices.
 */
#ifndef KERNEL_RELOAD_H
#define KERNEL_RELOAD_H

#include "kernel/kernel.h"

enum { RELOAD_EVERY_S = 60 };

/* The health targets, once the Configuration is known. */
void reload_targets(struct kernel *k, int targets[2]);
/* After everything has started. failed(arg, text): the process has to end. 0 or -ENOMEM. */
int reload_start(struct kernel *k, const int targets[2], void (*failed)(void *arg, const char *text), void *arg);
/* Reads the resources soon, whatever the features say. force: tries again what was refused before. */
void reload_ask(struct kernel *k, bool force);
void reload_stop(struct kernel *k); /* parks until what is under way is done */

#endif
