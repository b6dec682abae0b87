/* See ledger_file.h. Written beside and renamed: who reads finds the old one or the new one. */
#include "kernel/super/ledger_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "MDLEDGER"
enum { AT_VERSION = 8, AT_LENGTH = 12, AT_CHECKSUM = 16, AT_APP_ID = 24 };

static uint64_t checksum(const char *p, size_t n)
{
        uint64_t h = 14695981039346656037u;
        for (size_t i = 0; i < n; i++)
                h = (h ^ (unsigned char)p[i]) * 1099511628211u;
        return h;
}

static void put_number(char *to, uint64_t v, int bytes)
{
        for (int i = 0; i < bytes; i++)
                to[i] = (char)(v >> (8 * i));
}

static uint64_t get_number(const char *p, int bytes)
{
        uint64_t v = 0;
        for (int i = 0; i < bytes; i++)
                v |= (uint64_t)(unsigned char)p[i] << (8 * i);
        return v;
}

int ledger_frame(const struct ledger *l, struct buf *to)
{
        char head[LEDGER_HEAD_BYTES] = MAGIC;
        size_t start = to->len;
        if (buf_add(to, head, sizeof head) || ledger_pack(l, to))
                return -ENOMEM;
        size_t n = to->len - start - sizeof head;
        if (n + sizeof head > LEDGER_BYTES_MAX)
                return -E2BIG;
        char *p = to->p + start;
        put_number(p + AT_VERSION, LEDGER_VERSION, 4);
        put_number(p + AT_LENGTH, n, 4);
        strncpy(p + AT_APP_ID, l->app_id ? l->app_id : "", LEDGER_APP_ID_BYTES - 1);
        put_number(p + AT_CHECKSUM, checksum(p + AT_APP_ID, LEDGER_APP_ID_BYTES + n), 8);
        return 0;
}

int ledger_unframe(struct ledger *l, struct str in, struct ledger_head *head, const char **ret_err)
{
        if (in.n < LEDGER_HEAD_BYTES || memcmp(in.p, MAGIC, AT_VERSION) != 0) {
                *ret_err = "it is no ledger";
                return -EBADMSG;
        }
        if (get_number(in.p + AT_LENGTH, 4) != in.n - LEDGER_HEAD_BYTES) {
                *ret_err = "it is not as long as it says";
                return -EBADMSG;
        }
        if (get_number(in.p + AT_CHECKSUM, 8) != checksum(in.p + AT_APP_ID, in.n - AT_APP_ID)) {
                *ret_err = "its checksum is wrong";
                return -EBADMSG;
        }
        memcpy(head->app_id, in.p + AT_APP_ID, LEDGER_APP_ID_BYTES);
        head->app_id[LEDGER_APP_ID_BYTES] = '\0';
        head->version = (uint32_t)get_number(in.p + AT_VERSION, 4);
        if (head->version != LEDGER_VERSION) {
                *ret_err = arena_printf(&l->arena, "it is of version %u, this daprd knows version %d", head->version, LEDGER_VERSION);
                return -EPROTO;
        }
        return ledger_parse(l, str_n(in.p + LEDGER_HEAD_BYTES, in.n - LEDGER_HEAD_BYTES), ret_err);
}

static int write_all(int fd, struct str s)
{
        while (s.n) {
                ssize_t n = write(fd, s.p, s.n);
                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n > 0)
                        s = str_n(s.p + n, s.n - (size_t)n);
        }
        return 0;
}

int ledger_file_write(const char *folder, struct str bytes)
{
        char temp[128], name[128];
        snprintf(temp, sizeof temp, "%.100s/" LEDGER_FILE ".new", folder);
        snprintf(name, sizeof name, "%.100s/" LEDGER_FILE, folder);
        int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        int r = write_all(fd, bytes);
        close(fd);
        if (r == 0 && rename(temp, name))
                r = -errno;
        if (r)
                unlink(temp);
        return r;
}

int ledger_file_read(struct ledger *l, int folder_fd, struct ledger_head *head, const char **ret_err)
{
        struct stat st;
        int fd = openat(folder_fd, LEDGER_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0) {
                *ret_err = strerrordesc_np(errno);
                return -errno;
        }
        void *p = MAP_FAILED;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 077) && st.st_size > 0 &&
            st.st_size <= LEDGER_BYTES_MAX)
                p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        close(fd);
        if (p == MAP_FAILED) {
                *ret_err = "it is empty, too large, or not only ours to write";
                return -EBADMSG;
        }
        int r = ledger_unframe(l, str_n(p, (size_t)st.st_size), head, ret_err);
        munmap(p, (size_t)st.st_size);
        return r;
}
