/* Port of the internal gRPC server when none is given: the same one each time for an app in a folder, if it is free. */
#ifndef KERNEL_FRONT_STABLE_PORT_H
#define KERNEL_FRONT_STABLE_PORT_H

#include <stdint.h>

#include "sdk/base/str.h"

/* 47300 + the first 11 bits or so of SHA-256("appid|cwd|uid|hostname"), as the reference has it. */
int stable_port(const char *app_id, const char *cwd, unsigned uid, const char *hostname);
void sha256(struct str in, uint8_t out[32]);

#endif
