/* The profile port (--enable-profiling): an index of what there is, under the paths of net/http/pprof. Go's own profiles are not there. */
#ifndef KERNEL_FRONT_PROFILE_H
#define KERNEL_FRONT_PROFILE_H

#include "sdk/net/http.h"

void profile_serve(struct http_req *r, void *arg); /* an http_handler; arg is not used */

#endif
