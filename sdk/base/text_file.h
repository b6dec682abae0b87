/* Small files that the machine makes up: /proc, /sys, cgroups. */
#ifndef SDK_BASE_TEXT_FILE_H
#define SDK_BASE_TEXT_FILE_H

#include <sys/types.h>

/* The first n - 1 bytes at most, in one read. Bytes read, or -errno; to is ended by a NUL in any case. */
ssize_t text_file_read(const char *path, char *to, size_t n);
/* In one write, into a file that is there: 0 or -errno. */
int text_file_write(const char *path, const char *text);

#endif
