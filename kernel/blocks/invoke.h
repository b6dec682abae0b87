/* Service invocation: what the table of answers in kernel/front/unconfigured.c leaves to it. */
#ifndef KERNEL_BLOCKS_INVOKE_H
#define KERNEL_BLOCKS_INVOKE_H

#include "kernel/front/call.h"
#include "kernel/front/target.h"

/* Does this id name the own app, and does the app speak HTTP? */
bool invoke_is_own_app(const struct call *c, struct str id);
/* Answers an HTTP call to the own app. Parks. */
void invoke_http(struct call *c, struct invoke_target *t);

#endif
