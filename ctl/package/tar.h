/*
 * The tar archives of packages: regular files only, ustar headers, in the writer's form to the byte. Two writers of the same files
 * make the same archive: no times, no owners, modes 0644 or 0755. The reader takes nothing else: no links, devices, folders,
 * extended headers, absolute or climbing names, no name twice; so what it accepts can be unpacked without further looks.
 */
#ifndef CTL_PACKAGE_TAR_H
#define CTL_PACKAGE_TAR_H

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/map.h"
#include "sdk/trust/filelist.h"

enum { TAR_BLOCK = 512, TAR_NAME_MAX = PACKAGE_NAME_MAX, TAR_ENTRIES_MAX = 20000 };
#define TAR_FILE_BYTES_MAX PACKAGE_FILE_BYTES_MAX
#define TAR_TOTAL_BYTES_MAX ((uint64_t)2 << 30)

struct tar_entry {
        const char *name;       /* in the reader's arena */
        bool executable;
        struct str data;        /* borrowed from the archive */
};
struct tar_reader {
        struct str in;
        size_t pos, n_entries;
        uint64_t total;
        bool ended;
        struct map seen;
        struct arena *arena;
        const char *error;      /* a sentence; NULL = none */
};
void tar_read_init(struct tar_reader *t, struct str archive, struct arena *a);
/* 1 and *ret; 0 at the end (nothing may follow it); -EINVAL or -ENOMEM with t->error. */
int tar_read_next(struct tar_reader *t, struct tar_entry *ret);
void tar_read_fini(struct tar_reader *t);

/* Fills a header block; 0 or -ENAMETOOLONG, -EINVAL (name), -EFBIG. */
int tar_header(char block[TAR_BLOCK], const char *name, bool executable, uint64_t size);
/* Appends a whole entry; errors as above, -ENOMEM. tar_end: the end of the archive. */
int tar_add(struct buf *to, const char *name, bool executable, struct str data);
int tar_end(struct buf *to);

#endif
