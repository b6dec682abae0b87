/* Streamed gzip (RFC 1952), one or more members, for bodies that a client unpacks as they come. Memory: about 40 KiB, whatever the size. */
#ifndef SDK_NET_GUNZIP_H
#define SDK_NET_GUNZIP_H

#include <sys/types.h>

#include "sdk/base/str.h"

struct gunzip;
int gunzip_new(struct gunzip **ret); /* 0, -ENOMEM */
void gunzip_free(struct gunzip *g);  /* NULL is fine */
/* Unpacks from *in, which moves on, at most n > 0 bytes to p. > 0; 0 = more input is needed; -EBADMSG: that is no gzip; -ENOMEM. */
ssize_t gunzip_read(struct gunzip *g, struct str *in, void *p, size_t n);
bool gunzip_is_whole(const struct gunzip *g); /* the input may end here */

#endif
