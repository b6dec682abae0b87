/* One read or one write: such files are whole or not at all. */
#include "sdk/base/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

ssize_t text_file_read(const char *path, char *to, size_t n)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t k = fd >= 0 ? read(fd, to, n - 1) : -1;
        int e = errno;
        if (fd >= 0)
                close(fd);
        to[k > 0 ? k : 0] = '\0';
        return k < 0 ? -e : k;
}

int text_file_write(const char *path, const char *text)
{
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        ssize_t n = write(fd, text, strlen(text));
        int r = n < 0 ? -errno : 0;
        close(fd);
        return r;
}
