/* See package.h: the list of files, and packages from archives. What a reader gives has passed every check but that of the signature. */
#include "ctl/package/package.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/package/package_impl.h"
#include "ctl/package/tar.h"
#include "ctl/plugins.h"
#include "sdk/base/semver.h"

/* ---- platform ---- */

const char *package_machine(struct str file)
{
        const struct { unsigned machine; const char *name; } rows[] = {{EM_X86_64, "linux/amd64"}, {EM_AARCH64, "linux/arm64"}, {EM_386, "linux/386"},
                {EM_ARM, "linux/arm"}, {EM_RISCV, "linux/riscv64"}, {EM_PPC64, "linux/ppc64le"}, {EM_S390, "linux/s390x"}};
        if (file.n < 20 || memcmp(file.p, ELFMAG, SELFMAG) != 0)
                return NULL;
        const unsigned char *h = (const unsigned char *)file.p;
        unsigned machine = h[EI_DATA] == ELFDATA2LSB ? h[18] | (unsigned)h[19] << 8 : h[19] | (unsigned)h[18] << 8;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                if (rows[i].machine == machine)
                        return rows[i].name;
        return "linux/unknown";
}

const char *package_file_name(const struct package *p, struct arena *a)
{
        char *z = arena_printf(a, "%s-%s-%s.tar", p->name, p->version, p->platform);
        for (char *c = z; c && *c; c++)
                if (*c == '/')
                        *c = '-';
        return z;
}

int package_fail(struct package *p, struct arena *a, const char **ret_err, int r, const char *what)
{
        *ret_err = arena_printf(a, "%s: %s", p->source, what);
        if (!*ret_err)
                *ret_err = "out of memory";
        return r;
}

/* ---- the manifest in it ---- */

int package_read_manifest(struct package *p, struct str text, struct arena *a, const char **ret_err)
{
        struct yaml_node *root = NULL;
        const char *err = NULL;
        if (yaml_read(&p->arena, text, PACKAGE_MANIFEST, 1, 0, &root, &err) != 0)
                return package_fail(p, a, ret_err, -EINVAL, err ? err : "plugin.yaml cannot be read");
        const char *name = plugin_text(&p->arena, root, "name"), *version = plugin_text(&p->arena, root, "version");
        const char *exe = plugin_text(&p->arena, root, "executable");
        if (!package_name_ok(name))
                return package_fail(p, a, ret_err, -EINVAL, "plugin.yaml: 'name' is missing or cannot name a folder");
        if (!semver_is_valid(str_of(version)) || version[0] == 'v')
                return package_fail(p, a, ret_err, -EINVAL, "plugin.yaml: 'version' is no version such as 1.2.0 (semver.org)");
        if (p->name && (strcmp(p->name, name) != 0 || strcmp(p->version, version) != 0))
                return package_fail(p, a, ret_err, -EINVAL, "its list of files names another plugin or version than its plugin.yaml");
        p->name = name;
        p->version = version;
        p->title = plugin_text(&p->arena, root, "title");
        p->description = plugin_text(&p->arena, root, "description");
        p->types = "";
        const struct yaml_node *types = yaml_get(root, "types");
        for (const struct yaml_item *i = types && types->kind == YAML_LIST ? types->items : NULL; i; i = i->next)
                p->types = arena_printf(&p->arena, "%s%s%s", p->types, *p->types ? ", " : "", plugin_text(&p->arena, i->value, "type"));
        if (!p->types || !*p->types)
                return package_fail(p, a, ret_err, -EINVAL, "plugin.yaml: 'types' names no component type");
        const struct package_file *x = package_file(p, *exe ? exe : name);
        if (!x || !x->executable)
                return package_fail(p, a, ret_err, -EINVAL,
                                    arena_printf(a, "plugin.yaml names the executable '%s', which is %s", *exe ? exe : name,
                                                 x ? "not executable (chmod +x it)" : "not there: build the plugin first"));
        return 0;
}

struct package_file *package_file(const struct package *p, const char *name)
{
        for (size_t i = 0; i < p->n_files; i++)
                if (strcmp(p->files[i].name, name) == 0)
                        return &p->files[i];
        return NULL;
}

/* ---- the list ---- */

int package_write_list(struct package *p)
{
        struct buf b = {0};
        buf_printf(&b, PACKAGE_FIRST_LINE "\nname %s\nversion %s\nplatform %s\n", p->name, p->version, p->platform);
        for (size_t i = 0; i < p->n_files; i++)
                buf_printf(&b, "%s %s %llu %s\n", p->files[i].digest, p->files[i].executable ? "0755" : "0644",
                           (unsigned long long)p->files[i].size, p->files[i].name);
        p->list = b.failed ? STR_NULL : arena_str(&p->arena, buf_str(&b));
        buf_fini(&b);
        if (!p->list.p)
                return -ENOMEM;
        digest_blake2b(p->list, p->digest);
        return 0;
}

/* Sets name, version, platform and the files, without their data. */
int package_read_list(struct package *p, struct str list, struct arena *a, const char **ret_err)
{
        struct filelist l;
        const char *fault = filelist_read(&p->arena, list, &l);
        if (fault)
                return package_fail(p, a, ret_err, -EINVAL, fault);
        p->name = l.name;
        p->version = l.version;
        p->platform = l.platform;
        memcpy(p->digest, l.digest, sizeof p->digest);
        p->files = arena_zalloc(&p->arena, (l.n + 1) * sizeof *p->files);
        p->list = arena_str(&p->arena, list);
        if (!p->files || !p->list.p)
                return -ENOMEM;
        for (p->n_files = 0; p->n_files < l.n; p->n_files++) {
                const struct filelist_row *row = &l.v[p->n_files];
                struct package_file *f = &p->files[p->n_files];
                *f = (struct package_file){.name = row->name, .size = row->size, .executable = row->executable};
                memcpy(f->digest, row->digest, sizeof f->digest);
        }
        return 0;
}

int package_check_file(struct package *p, struct package_file *f, struct str data, struct arena *a, const char **ret_err)
{
        char digest[DIGEST_HEX + 1];
        digest_blake2b(data, digest);
        if (data.n != f->size || strcmp(digest, f->digest) != 0)
                return package_fail(p, a, ret_err, -EBADMSG, arena_printf(a, "%s is not as its list of files says: it was changed", f->name));
        f->data = data;
        return 0;
}

/* ---- archives ---- */

static int read_archive(struct package *p, struct tar_reader *t, struct arena *a, const char **ret_err)
{
        struct tar_entry e;
        size_t next = 0;
        int r = tar_read_next(t, &e);
        if (r == 1 && strcmp(e.name, PACKAGE_LIST) != 0)
                return package_fail(p, a, ret_err, -EINVAL, "this is no package: it does not begin with " PACKAGE_LIST);
        if (r == 1)
                r = package_read_list(p, e.data, a, ret_err) == 0 ? 1 : -EBADMSG;
        if (r == -EBADMSG)
                return -EINVAL;
        while (r == 1 && (r = tar_read_next(t, &e)) == 1) {
                if (strcmp(e.name, PACKAGE_SIGNATURE) == 0 && !next && !p->signature.p) {
                        p->signature = e.data;
                        continue;
                }
                if (next == p->n_files || strcmp(p->files[next].name, e.name) != 0 || p->files[next].executable != e.executable)
                        return package_fail(p, a, ret_err, -EBADMSG, arena_printf(a, "%s is not in its list of files", e.name));
                if (package_check_file(p, &p->files[next++], e.data, a, ret_err))
                        return -EBADMSG;
        }
        if (r < 0)
                return package_fail(p, a, ret_err, r, t->error ? t->error : "out of memory");
        if (next != p->n_files || !p->list.p)
                return package_fail(p, a, ret_err, -EBADMSG, "files of its list are missing");
        return 0;
}

int package_parse(struct str archive, const char *source, struct package **ret, struct arena *a, const char **ret_err)
{
        struct package *p = calloc(1, sizeof *p);
        struct tar_reader t;
        *ret_err = "out of memory";
        if (!p)
                return -ENOMEM;
        arena_init(&p->arena, 0);
        p->source = arena_strdup(&p->arena, str_of(source));
        tar_read_init(&t, archive, &p->arena);
        int r = read_archive(p, &t, a, ret_err);
        tar_read_fini(&t);
        const struct package_file *m = r == 0 ? package_file(p, PACKAGE_MANIFEST) : NULL;
        if (r == 0)
                r = m ? package_read_manifest(p, m->data, a, ret_err) : package_fail(p, a, ret_err, -EINVAL, "it has no plugin.yaml");
        if (r == 0 && strcmp(p->platform, package_platform_of(p)) != 0)
                r = package_fail(p, a, ret_err, -EINVAL, "its list of files names another platform than its programs are for");
        if (r) {
                package_free(p);
                return r;
        }
        *ret = p;
        return 0;
}

int package_open(const char *path, struct package **ret, struct arena *a, const char **ret_err)
{
        return package_open_as(path, path, ret, a, ret_err);
}

int package_open_as(const char *path, const char *source, struct package **ret, struct arena *a, const char **ret_err)
{
        struct stat st;
        int fd = open(path, O_RDONLY | O_CLOEXEC), e = errno;
        if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) {
                *ret_err = fd < 0 ? arena_printf(a, "%s: %s", path, strerror(e)) : arena_printf(a, "%s: this is no package, but %s", path,
                                                                                               S_ISDIR(st.st_mode) ? "a folder" : "an empty or special file");
                if (fd >= 0)
                        close(fd);
                return fd < 0 ? -e : -EINVAL;
        }
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        close(fd);
        if (map == MAP_FAILED) {
                *ret_err = arena_printf(a, "%s: it cannot be read into memory", path);
                return -ENOMEM;
        }
        int r = package_parse(str_n(map, (size_t)st.st_size), source, ret, a, ret_err);
        if (r) {
                munmap(map, (size_t)st.st_size);
                return r;
        }
        (*ret)->map = map;
        (*ret)->map_n = (size_t)st.st_size;
        return 0;
}

void package_free(struct package *p)
{
        if (!p)
                return;
        if (p->map)
                munmap(p->map, p->map_n);
        buf_fini(&p->text);
        arena_fini(&p->arena);
        free(p);
}

const char *package_platform_of(const struct package *p)
{
        const char *found = "any";
        for (size_t i = 0; i < p->n_files; i++) {
                const char *m = package_machine(p->files[i].data);
                if (m && strcmp(found, "any") != 0 && strcmp(found, m) != 0)
                        return "mixed";
                found = m ? m : found;
        }
        return found;
}

int package_write(const struct package *p, struct buf *to)
{
        int r = tar_add(to, PACKAGE_LIST, false, p->list);
        if (r == 0 && p->signature.p)
                r = tar_add(to, PACKAGE_SIGNATURE, false, p->signature);
        for (size_t i = 0; r == 0 && i < p->n_files; i++)
                r = tar_add(to, p->files[i].name, p->files[i].executable, p->files[i].data);
        return r ? r : tar_end(to);
}

int package_sign(struct package *p, const struct minisign_secret *key)
{
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        const char *trusted = arena_printf(&p->arena, "timestamp:%lld\tplugin:%s %s %s", (long long)ts.tv_sec, p->name, p->version, p->platform);
        if (trusted)
                p->signature = minisign_sign(&p->arena, key, p->list, trusted);
        return p->signature.p ? 0 : -ENOMEM;
}

/* ---- who signed it ---- */

int package_trust(const struct trust *t, const struct package *p, struct arena *a, const struct trust_key **ret, const char **ret_err)
{
        return trust_check(t, p->source, p->list, p->signature, a, ret, ret_err);
}

void package_trust_load(struct arena *a, struct trust *ret)
{
        trust_load(a, ret);
        for (struct str rest = str_of(ret->ignored), line; rest.n && (line = str_cut(&rest, '\n'), 1);)
                ui_say(UI_WARNING, "this key does not count: %.*s", STR_FMT(line));
}
