/* See filelist.h. What the reader takes can be joined to a folder's name without further looks. */
#include "sdk/trust/filelist.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "sdk/base/semver.h"

/* ---- names ---- */

const char *filelist_name_fault(struct str name)
{
        if (name.n == 0)
                return "a file without a name";
        if (name.n > PACKAGE_NAME_MAX)
                return "a name of more than 255 bytes";
        if (name.p[0] == '/')
                return "an absolute name";
        for (size_t i = 0; i < name.n; i++)
                if ((unsigned char)name.p[i] < ' ' || name.p[i] == 127 || name.p[i] == '\\')
                        return "a name with a character that no file of a package may have";
        for (struct str rest = name, part; rest.p && (part = str_cut(&rest, '/'), 1);) {
                if (str_eqz(part, ".."))
                        return "a name that climbs out of the package";
                if (part.n == 0 || str_eqz(part, "."))
                        return "a name with an empty part";
        }
        return NULL;
}

bool package_name_ok(const char *s)
{
        size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
        return n > 0 && !s[n] && n <= 100 && s[0] != '.' && s[0] != '-';
}

const char *package_platform(void)
{
        static _Thread_local char name[80];
        const struct { const char *kernel, *name; } rows[] = {{"x86_64", "amd64"}, {"aarch64", "arm64"}, {"i686", "386"}, {"armv7l", "arm"}};
        struct utsname u;
        if (uname(&u) != 0)
                return "linux/unknown";
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                if (strcmp(u.machine, rows[i].kernel) == 0)
                        snprintf(u.machine, sizeof u.machine, "%s", rows[i].name);
        snprintf(name, sizeof name, "linux/%s", u.machine);
        return name;
}

bool package_fits(const char *platform)
{
        return strcmp(platform, "any") == 0 || strcmp(platform, package_platform()) == 0;
}

/* ---- reading ---- */

static const char *head_value(struct arena *a, struct str *rest, const char *key)
{
        struct str line = str_cut(rest, '\n'), k = str_cut(&line, ' ');
        return str_eqz(k, key) && line.p && rest->p ? arena_strdup(a, line) : NULL;
}

static bool read_row(struct arena *a, struct str line, struct filelist_row *f)
{
        struct str digest = str_cut(&line, ' '), mode = str_cut(&line, ' '), size = str_cut(&line, ' ');
        char *end = NULL;
        if (digest.n != DIGEST_HEX || !line.p || size.n == 0 || size.n > 12 || size.p[0] < '0' || size.p[0] > '9')
                return false;
        memcpy(f->digest, digest.p, DIGEST_HEX);
        f->digest[DIGEST_HEX] = '\0';
        f->executable = str_eqz(mode, "0755");
        f->size = strtoull(size.p, &end, 10);
        f->name = arena_strdup(a, line);
        return f->name && (f->executable || str_eqz(mode, "0644")) && end == size.p + size.n && !filelist_name_fault(line);
}

const char *filelist_read(struct arena *a, struct str text, struct filelist *ret)
{
        struct str rest = text;
        size_t lines = 0;
        *ret = (struct filelist){0};
        if (text.n > PACKAGE_LIST_MAX || text.n == 0 || text.p[text.n - 1] != '\n' || !str_eqz(str_cut(&rest, '\n'), PACKAGE_FIRST_LINE))
                return "its list of files (" PACKAGE_LIST ") is of no form that is known here";
        ret->name = head_value(a, &rest, "name");
        ret->version = ret->name ? head_value(a, &rest, "version") : NULL;
        ret->platform = ret->version ? head_value(a, &rest, "platform") : NULL;
        if (!ret->platform || !package_name_ok(ret->name) || !semver_is_valid(str_of(ret->version)))
                return "its list of files lacks name, version or platform";
        for (size_t i = 0; i < rest.n; i++)
                lines += rest.p[i] == '\n';
        ret->v = arena_zalloc(a, (lines + 1) * sizeof *ret->v);
        if (!ret->v)
                return "out of memory";
        while (rest.p && rest.n) {
                struct str line = str_cut(&rest, '\n');
                if (ret->n == lines || !read_row(a, line, &ret->v[ret->n]))
                        return "a row of its list of files is damaged";
                if (ret->n && strcmp(ret->v[ret->n - 1].name, ret->v[ret->n].name) >= 0)
                        return "the rows of its list of files are not in order";
                ret->n++;
        }
        digest_blake2b(text, ret->digest);
        return NULL;
}

static int by_name(const void *key, const void *row)
{
        const struct str *a = key, b = str_of(((const struct filelist_row *)row)->name);
        int c = memcmp(a->p, b.p, a->n < b.n ? a->n : b.n);
        return c ? c : a->n < b.n ? -1 : a->n > b.n;
}

const struct filelist_row *filelist_find(const struct filelist *l, struct str name)
{
        return l->n ? bsearch(&name, l->v, l->n, sizeof *l->v, by_name) : NULL;
}
