/* See tar.h. Numbers are octal text, NUL-terminated; a header whose every byte is not as our writer would set it is refused. */
#include "ctl/package/tar.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { NAME_AT = 0, NAME_LEN = 100, MODE_AT = 100, SIZE_AT = 124, SIZE_LEN = 12, SUM_AT = 148, SUM_LEN = 8, TYPE_AT = 156, LINK_AT = 157,
       MAGIC_AT = 257, PREFIX_AT = 345, PREFIX_LEN = 155 };

/* ---- writing ---- */

static unsigned long sum_of(const char *block)
{
        unsigned long sum = 0;
        for (int i = 0; i < TAR_BLOCK; i++)
                sum += i >= SUM_AT && i < SUM_AT + SUM_LEN ? ' ' : (unsigned char)block[i];
        return sum;
}

/* Where a long name is split: prefix / name. 0 = it fits whole, -1 = it does not fit. */
static ptrdiff_t split_at(struct str name)
{
        if (name.n <= NAME_LEN)
                return 0;
        for (size_t i = name.n - NAME_LEN - 1; i < name.n && i <= PREFIX_LEN; i++)
                if (name.p[i] == '/' && i > 0 && i + 1 < name.n)
                        return (ptrdiff_t)i;
        return -1;
}

int tar_header(char block[TAR_BLOCK], const char *z, bool executable, uint64_t size)
{
        struct str name = str_of(z);
        ptrdiff_t cut = split_at(name);
        if (filelist_name_fault(name))
                return name.n > TAR_NAME_MAX ? -ENAMETOOLONG : -EINVAL;
        if (cut < 0)
                return -ENAMETOOLONG;
        if (size > TAR_FILE_BYTES_MAX)
                return -EFBIG;
        memset(block, 0, TAR_BLOCK);
        if (cut) {
                memcpy(block + PREFIX_AT, name.p, (size_t)cut);
                name = str_skip(name, (size_t)cut + 1);
        }
        memcpy(block + NAME_AT, name.p, name.n);
        memcpy(block + MODE_AT, executable ? "0000755" : "0000644", 8);
        memcpy(block + 108, "0000000\0000000000", 16);
        snprintf(block + SIZE_AT, SIZE_LEN, "%011llo", (unsigned long long)size);
        memcpy(block + 136, "00000000000", 12);
        block[TYPE_AT] = '0';
        memcpy(block + MAGIC_AT, "ustar\00000", 8);
        snprintf(block + SUM_AT, SUM_LEN - 1, "%06lo", sum_of(block));
        block[SUM_AT + 7] = ' ';
        return 0;
}

static int pad(struct buf *to, uint64_t size)
{
        static const char zero[TAR_BLOCK];
        size_t rest = (size_t)(size % TAR_BLOCK);
        return rest ? buf_add(to, zero, TAR_BLOCK - rest) : 0;
}

int tar_add(struct buf *to, const char *name, bool executable, struct str data)
{
        char block[TAR_BLOCK];
        int r = tar_header(block, name, executable, data.n);
        if (r == 0)
                r = buf_add(to, block, TAR_BLOCK);
        if (r == 0)
                r = buf_adds(to, data);
        return r ? r : pad(to, data.n);
}

int tar_end(struct buf *to)
{
        static const char zero[2 * TAR_BLOCK];
        return buf_add(to, zero, sizeof zero);
}

/* ---- reading ---- */

void tar_read_init(struct tar_reader *t, struct str archive, struct arena *a)
{
        *t = (struct tar_reader){.in = archive, .arena = a};
}

void tar_read_fini(struct tar_reader *t)
{
        map_fini(&t->seen);
}

static int wrong(struct tar_reader *t, const char *what, const char *name)
{
        t->error = name ? arena_printf(t->arena, "%s: %s", name, what) : arena_printf(t->arena, "%s (at byte %zu)", what, t->pos);
        if (!t->error)
                t->error = what;
        return -EINVAL;
}

static bool all_zero(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i])
                        return false;
        return true;
}

static const char *type_text(char type)
{
        switch (type) {
        case '1': return "a hard link, which no package may hold";
        case '2': return "a symbolic link, which no package may hold";
        case '3':
        case '4': return "a device, which no package may hold";
        case '5': return "a folder: packages hold files only; build it with dapr plugin build";
        case '6': return "a pipe, which no package may hold";
        case 'x':
        case 'g':
        case 'L':
        case 'K': return "an extended header: build the package with dapr plugin build";
        default: return "an entry that is no regular file";
        }
}

static bool read_octal(const char *p, size_t n, uint64_t *ret)
{
        *ret = 0;
        for (size_t i = 0; i + 1 < n; i++) {
                if (p[i] < '0' || p[i] > '7')
                        return false;
                *ret = *ret * 8 + (uint64_t)(p[i] - '0');
        }
        return p[n - 1] == '\0';
}

static const char *read_name(struct tar_reader *t, const char *block)
{
        size_t prefix = strnlen(block + PREFIX_AT, PREFIX_LEN), n = strnlen(block + NAME_AT, NAME_LEN);
        return prefix ? arena_printf(t->arena, "%.*s/%.*s", (int)prefix, block + PREFIX_AT, (int)n, block)
                      : arena_printf(t->arena, "%.*s", (int)n, block);
}

/* What a header must be, beyond its type: checked by writing it again. */
static int check_header(struct tar_reader *t, const char *block, struct tar_entry *e, uint64_t *size)
{
        char again[TAR_BLOCK];
        bool is_tar = memcmp(block + MAGIC_AT, "ustar", 5) == 0;
        if (!is_tar)
                return wrong(t, "this is no tar archive", NULL);
        e->name = read_name(t, block);
        if (!e->name)
                return -ENOMEM;
        const char *fault = filelist_name_fault(str_of(e->name)), *shown = e->name;
        for (const char *c = e->name; *c; c++)
                if ((unsigned char)*c < ' ' || *c == 127)
                        shown = "(a name that cannot be shown)";
        if (block[TYPE_AT] != '0')
                return wrong(t, type_text(block[TYPE_AT]), shown);
        if (fault)
                return wrong(t, fault, shown);
        if (!read_octal(block + SIZE_AT, SIZE_LEN, size))
                return wrong(t, "its size is no number", e->name);
        if (*size > TAR_FILE_BYTES_MAX || t->total + *size > TAR_TOTAL_BYTES_MAX)
                return wrong(t, "it is too large: a file may have 1 GiB, a package 2 GiB", e->name);
        e->executable = memcmp(block + MODE_AT, "0000755", 8) == 0;
        if (tar_header(again, e->name, e->executable, *size) || memcmp(again, block, TAR_BLOCK) != 0)
                return wrong(t, "its header is not as dapr plugin build writes it: another tool has added or changed it; build the package again", e->name);
        return 0;
}

static int check_end(struct tar_reader *t)
{
        if (t->in.n - t->pos != 2 * TAR_BLOCK || !all_zero(str_skip(t->in, t->pos)))
                return wrong(t, "the archive is cut off, or something follows its end", NULL);
        t->ended = true;
        return 0;
}

int tar_read_next(struct tar_reader *t, struct tar_entry *e)
{
        const char *block = t->in.p + t->pos;
        uint64_t size;
        if (t->error)
                return -EINVAL;
        if (t->ended)
                return 0;
        if (t->in.n - t->pos < TAR_BLOCK)
                return wrong(t, "the archive is cut off", NULL);
        if (block[0] == '\0' && all_zero(str_n(block, TAR_BLOCK)))
                return check_end(t);
        if (t->n_entries++ == TAR_ENTRIES_MAX)
                return wrong(t, "the archive holds too many files (20,000 at most)", NULL);
        int r = check_header(t, block, e, &size);
        if (r)
                return r;
        uint64_t padded = (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
        size_t at = t->pos + TAR_BLOCK;
        if (t->in.n - at < padded)
                return wrong(t, "the archive is cut off in this file", e->name);
        if (!all_zero(str_n(t->in.p + at + size, (size_t)(padded - size))))
                return wrong(t, "there are bytes behind the file's end", e->name);
        if (map_get(&t->seen, str_of(e->name)))
                return wrong(t, "the name stands twice", e->name);
        if (map_set(&t->seen, str_of(e->name), t))
                return -ENOMEM;
        e->data = str_n(t->in.p + at, (size_t)size);
        t->total += size;
        t->pos = at + (size_t)padded;
        return 1;
}
