/* ctl/package/tar.h, minisign.h, package.h: what a package is, and everything that is not one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/package/package_impl.h"
#include "ctl/package/tar.h"
#include "tests/unit/on_loop.h"

static struct arena arena;
static struct buf archive;

static void setup(void)
{
        arena_init(&arena, 0);
        archive = (struct buf){0};
}

static void teardown(void)
{
        buf_fini(&archive);
        arena_fini(&arena);
}

/* ---- tar ---- */

/* The error of reading it all; NULL = fine. */
static const char *read_all(struct str in, size_t *ret_n)
{
        struct tar_reader t;
        struct tar_entry e;
        int r;
        *ret_n = 0;
        tar_read_init(&t, in, &arena);
        while ((r = tar_read_next(&t, &e)) == 1)
                ++*ret_n;
        tar_read_fini(&t);
        return r == 0 ? NULL : t.error;
}

static void refused(const char *because)
{
        size_t n;
        const char *err = read_all(buf_str(&archive), &n);
        ck_assert_msg(err && strstr(err, because), "\"%s\" does not say \"%s\"", err ? err : "taken", because);
}

/* Mends the checksum after a change of the first header. */
static void reseal(void)
{
        unsigned long sum = 0;
        unsigned char *h = (unsigned char *)archive.p;
        memset(h + 148, ' ', 8);
        for (int i = 0; i < TAR_BLOCK; i++)
                sum += h[i];
        snprintf((char *)h + 148, 7, "%06lo", sum);
        h[154] = 0;
        h[155] = ' ';
}

static void one_file(const char *name, const char *text)
{
        buf_clear(&archive);
        ck_assert_int_eq(tar_add(&archive, name, false, str_of(text)), 0);
        ck_assert_int_eq(tar_end(&archive), 0);
}

START_TEST(what_is_written_is_read)
{
        char name[TAR_NAME_MAX + 1];
        memset(name, 'x', sizeof name);
        name[sizeof name - 1] = '\0';
        name[155] = '/';
        size_t n;
        tar_add(&archive, "a", true, STR("hello"));
        tar_add(&archive, "b/c d", false, STR(""));
        ck_assert_int_eq(tar_add(&archive, name, false, STR("long")), 0);
        tar_end(&archive);
        ck_assert_ptr_null(read_all(buf_str(&archive), &n));
        ck_assert_uint_eq(n, 3);
        struct tar_reader t;
        struct tar_entry e;
        tar_read_init(&t, buf_str(&archive), &arena);
        ck_assert_int_eq(tar_read_next(&t, &e), 1);
        ck_assert(e.executable && strcmp(e.name, "a") == 0 && str_eqz(e.data, "hello"));
        tar_read_next(&t, &e);
        tar_read_next(&t, &e);
        ck_assert_str_eq(e.name, name);
        tar_read_fini(&t);
}
END_TEST

START_TEST(names_that_would_leave_the_folder_are_refused)
{
        static const char *const bad[] = {"/etc/passwd", "../x", "a/../../x", "a/..", "./a", "a//b", "a/", "a/./b", "a\\b", "a\nb", ""};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                char block[TAR_BLOCK];
                ck_assert_msg(filelist_name_fault(str_of(bad[i])) != NULL, "%s", bad[i]);
                ck_assert_int_ne(tar_header(block, bad[i], false, 0), 0);
        }
        one_file("xxxx", "1");
        memcpy(archive.p, "../x", 4);
        reseal();
        refused("climbs out");
        memcpy(archive.p, "/etc", 4);
        reseal();
        refused("absolute");
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
        const struct { char type; const char *because; } rows[] = {{'1', "hard link"}, {'2', "symbolic link"}, {'3', "device"}, {'4', "device"},
                {'5', "folder"}, {'6', "pipe"}, {'x', "extended header"}, {'g', "extended header"}, {'L', "extended header"}, {'S', "no regular file"}};
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                one_file("name", "1");
                archive.p[156] = rows[i].type;
                reseal();
                refused(rows[i].because);
        }
}
END_TEST

START_TEST(damaged_archives_are_refused)
{
        one_file("name", "some text");
        for (size_t n = 0; n < archive.len; n++) {
                size_t files;
                const char *err = read_all(str_n(archive.p, n), &files);
                ck_assert_msg(err != NULL, "%zu bytes were taken", n);
        }
        for (size_t i = 0; i < TAR_BLOCK; i++) { /* any byte of the header */
                one_file("name", "some text");
                archive.p[i] ^= 1;
                refused("");
        }
        one_file("name", "some text");
        archive.p[TAR_BLOCK + 9] = 'x';
        refused("behind the file's end");
        one_file("name", "some text");
        buf_addz(&archive, "more");
        refused("follows its end");
        one_file("name", "1");
        memcpy(archive.p + 124, "77777777777", 11);
        reseal();
        refused("too large");
        buf_clear(&archive);
        tar_add(&archive, "a", false, STR("1"));
        tar_add(&archive, "a", false, STR("2"));
        tar_end(&archive);
        refused("twice");
        buf_clear(&archive);
        buf_add(&archive, "PK\3\4", 4);
        for (int i = 0; i < 600; i++)
                buf_addc(&archive, 'x');
        refused("no tar archive");
}
END_TEST

/* ---- keys and signatures ---- */

START_TEST(a_signature_holds_for_its_text_and_key_only)
{
        struct str pub, sec, pub2, sec2;
        struct minisign_public p, p2;
        struct minisign_secret s;
        struct minisign_signature sig;
        const char *err;
        ck_assert_int_eq(minisign_generate(&arena, STR_NULL, &pub, &sec), 0);
        ck_assert_int_eq(minisign_generate(&arena, STR_NULL, &pub2, &sec2), 0);
        ck_assert_int_eq(minisign_read_public(pub, &p, &err), 0);
        ck_assert_int_eq(minisign_read_public(pub2, &p2, &err), 0);
        ck_assert_int_eq(minisign_read_secret(sec, STR_NULL, &s, &err), 0);
        struct str file = minisign_sign(&arena, &s, STR("text"), "trusted words");
        ck_assert_int_eq(minisign_read_signature(file, &sig, &err), 0);
        ck_assert(str_eqz(sig.trusted, "trusted words"));
        ck_assert(minisign_verify(&sig, &p, STR("text")));
        ck_assert(!minisign_verify(&sig, &p, STR("texu")));
        ck_assert(!minisign_verify(&sig, &p2, STR("text")));
        memcpy(p2.id, p.id, sizeof p.id);
        ck_assert(!minisign_verify(&sig, &p2, STR("text")));
        sig.trusted.p = "other words..";
        ck_assert(!minisign_verify(&sig, &p, STR("text")));
        for (size_t n = 0; n + 1 < file.n; n++)
                ck_assert_msg(minisign_read_signature(str_n(file.p, n), &sig, &err) != 0, "%zu bytes", n);
}
END_TEST

START_TEST(a_locked_key_opens_with_its_password_only)
{
        /* minisign's form with scrypt's smallest limits: the usual ones take a GiB */
        struct minisign_secret s;
        const char *err;
        struct str locked = STR("untrusted comment: minisign encrypted secret key\n"
                                "RWRTY0IyAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8AgAAAAAAAAAAAAAEAAAAAXpNgZJbi9d+n9y0ilc8TlBWQVp9/"
                                "/Rh1BUI0eJt0OZmm32uqqaEPPgivHP+phSkhAa9hps45wDTnjbQCZgJBxczevyKV75KR/7ejGLW2DYbGj3KJPGhl2OY0xnUDxSCKmnc2r97poL4=\n");
        ck_assert_int_eq(minisign_read_secret(locked, STR_NULL, &s, &err), -EACCES);
        ck_assert_ptr_nonnull(strstr(err, "locked"));
        ck_assert_int_eq(minisign_read_secret(locked, STR("pW"), &s, &err), -EACCES);
        ck_assert_ptr_nonnull(strstr(err, "wrong"));
        ck_assert_int_eq(minisign_read_secret(locked, STR("pw"), &s, &err), 0);
        ck_assert_str_eq(minisign_id_text(&arena, s.id), "0807060504030201");
        ck_assert_int_eq(minisign_read_secret(STR("nonsense"), STR_NULL, &s, &err), -EINVAL);
}
END_TEST

/* ---- packages ---- */

static const char manifest_text[] = "name: state.x\nversion: 1.2.0\ntypes:\n  - type: state.x\n    versions: [v1]\ntitle: X\n";

static const char *folder(void)
{
        char *dir = arena_strdup(&arena, STR("/tmp/package-test-XXXXXX"));
        ck_assert_ptr_nonnull(mkdtemp(dir));
        return dir;
}

static void put(const char *dir, const char *name, const char *text, int mode)
{
        const char *path = arena_printf(&arena, "%s/%s", dir, name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
        close(fd);
}

static const char *built_folder(void)
{
        const char *dir = folder();
        put(dir, "plugin.yaml", manifest_text, 0644);
        put(dir, "state.x", "#!/bin/sh\n", 0755);
        put(dir, "data", "some data", 0644);
        put(dir, ".hidden", "left out", 0644);
        return dir;
}

static void drop(const char *dir)
{
        char *command = arena_printf(&arena, "rm -rf %s", dir);
        ck_assert_int_eq(system(command), 0);
}

static void pack(struct package **ret)
{
        const char *dir = built_folder(), *err = "";
        int r = package_from_folder(dir, ret, &arena, &err);
        ck_assert_msg(r == 0, "%s", err);
        drop(dir);
}

static const char *open_error(void)
{
        struct package *p = NULL;
        const char *err = "";
        int r = package_parse(buf_str(&archive), "it", &p, &arena, &err);
        package_free(p);
        return r ? err : NULL;
}

static void not_a_package(const char *because)
{
        const char *err = open_error();
        ck_assert_msg(err && strstr(err, because), "\"%s\" does not say \"%s\"", err ? err : "taken", because);
}

START_TEST(the_same_files_make_the_same_package)
{
        struct package *p, *q;
        struct buf again = {0};
        pack(&p);
        pack(&q);
        package_write(p, &archive);
        package_write(q, &again);
        ck_assert(str_eq(buf_str(&archive), buf_str(&again)));
        ck_assert_str_eq(p->platform, "any");
        ck_assert_uint_eq(p->n_files, 3);
        ck_assert_str_eq(package_file_name(p, &arena), "state.x-1.2.0-any.tar");
        ck_assert_ptr_null(open_error());
        buf_fini(&again);
        package_free(p);
        package_free(q);
}
END_TEST

START_TEST(every_changed_byte_of_a_package_is_noticed)
{
        struct package *p;
        pack(&p);
        package_write(p, &archive);
        for (size_t i = 0; i < archive.len; i++) {
                archive.p[i] ^= 1;
                ck_assert_msg(open_error() != NULL, "byte %zu", i);
                archive.p[i] ^= 1;
        }
        for (size_t n = 0; n < archive.len; n += 64) {
                struct package *q = NULL;
                const char *err;
                ck_assert_int_ne(package_parse(str_n(archive.p, n), "it", &q, &arena, &err), 0);
        }
        package_free(p);
}
END_TEST

START_TEST(a_list_that_does_not_fit_is_refused)
{
        struct package *p;
        pack(&p);
        tar_add(&archive, "plugin.yaml", false, STR(manifest_text));
        tar_end(&archive);
        not_a_package("does not begin with .dapr/files");
        buf_clear(&archive);
        tar_add(&archive, PACKAGE_LIST, false, STR("microdapr package 9\n"));
        tar_end(&archive);
        not_a_package("no form");
        buf_clear(&archive);
        tar_add(&archive, PACKAGE_LIST, false, p->list);
        tar_end(&archive);
        not_a_package("are missing");
        buf_clear(&archive);
        tar_add(&archive, PACKAGE_LIST, false, p->list);
        for (size_t i = 0; i < p->n_files; i++)
                tar_add(&archive, p->files[i].name, p->files[i].executable, p->files[i].data);
        tar_add(&archive, "more", false, STR("1"));
        tar_end(&archive);
        not_a_package("not in its list");
        buf_clear(&archive);
        struct str other = str_of(arena_printf(&arena, "microdapr package 1\nname state.y\nversion 1.2.0\nplatform any\n%s",
                                               strstr(arena_strdup(&arena, p->list), "any\n") + 4));
        tar_add(&archive, PACKAGE_LIST, false, other);
        for (size_t i = 0; i < p->n_files; i++)
                tar_add(&archive, p->files[i].name, p->files[i].executable, p->files[i].data);
        tar_end(&archive);
        not_a_package("another plugin or version");
        package_free(p);
}
END_TEST

START_TEST(a_folder_that_is_no_plugin_says_why)
{
        const struct { const char *manifest; const char *because; } rows[] = {
                {"name: ../x\nversion: 1.0.0\n", "'name'"}, {"name: state.x\nversion: '1'\n", "'version'"},
                {"name: state.x\nversion: 1.0.0\n", "'types'"},
                {"name: state.x\nversion: 1.0.0\ntypes: [{type: state.x}]\nexecutable: gone\n", "not there"},
                {"name: state.x\nversion: 1.0.0\ntypes: [{type: state.x}]\nexecutable: data\n", "not executable"}, {"a: [", "plugin.yaml"}};
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                const char *dir = built_folder(), *err = "";
                struct package *p = NULL;
                put(dir, "plugin.yaml", rows[i].manifest, 0644);
                ck_assert_int_ne(package_from_folder(dir, &p, &arena, &err), 0);
                ck_assert_msg(strstr(err, rows[i].because) != NULL, "%s", err);
                drop(dir);
        }
        const char *dir = built_folder(), *err = "";
        struct package *p = NULL;
        ck_assert_int_eq(symlink("/etc/passwd", arena_printf(&arena, "%s/link", dir)), 0);
        ck_assert_int_ne(package_from_folder(dir, &p, &arena, &err), 0);
        ck_assert_msg(strstr(err, "symbolic link") != NULL, "%s", err);
        drop(dir);
}
END_TEST

START_TEST(the_digest_does_not_depend_on_who_signed)
{
        struct package *p, *q;
        struct str pub, sec;
        struct minisign_secret s;
        const char *err;
        pack(&p);
        minisign_generate(&arena, STR_NULL, &pub, &sec);
        minisign_read_secret(sec, STR_NULL, &s, &err);
        ck_assert_int_eq(package_sign(p, &s), 0);
        package_write(p, &archive);
        ck_assert_int_eq(package_parse(buf_str(&archive), "it", &q, &arena, &err), 0);
        ck_assert_str_eq(p->digest, q->digest);
        struct trust_key key = {.name = "ada"};
        struct trust t = {&key, 1};
        const struct trust_key *by = NULL;
        minisign_read_public(pub, &key.key, &err);
        ck_assert_int_eq(package_trust(&t, q, &arena, &by, &err), 0);
        ck_assert_ptr_eq(by, &key);
        key.key.key[0] ^= 1;
        ck_assert_int_eq(package_trust(&t, q, &arena, &by, &err), -EKEYREJECTED);
        ck_assert_int_eq(package_trust(&(struct trust){0}, q, &arena, &by, &err), -ENOKEY);
        q->signature = STR("nonsense");
        ck_assert_int_eq(package_trust(&t, q, &arena, &by, &err), -EKEYREJECTED);
        q->signature = STR_NULL;
        ck_assert_int_eq(package_trust(&t, q, &arena, &by, &err), -ENODATA);
        package_free(p);
        package_free(q);
}
END_TEST

int main(void)
{
        Suite *s = suite_create("package");
        TCase *t = tcase_create("package");
        tcase_add_checked_fixture(t, setup, teardown);
        tcase_set_timeout(t, 60);
        tcase_add_test(t, what_is_written_is_read);
        tcase_add_test(t, names_that_would_leave_the_folder_are_refused);
        tcase_add_test(t, what_is_no_file_is_refused);
        tcase_add_test(t, damaged_archives_are_refused);
        tcase_add_test(t, a_signature_holds_for_its_text_and_key_only);
        tcase_add_test(t, a_locked_key_opens_with_its_password_only);
        tcase_add_test(t, the_same_files_make_the_same_package);
        tcase_add_test(t, every_changed_byte_of_a_package_is_noticed);
        tcase_add_test(t, a_list_that_does_not_fit_is_refused);
        tcase_add_test(t, a_folder_that_is_no_plugin_says_why);
        tcase_add_test(t, the_digest_does_not_depend_on_who_signed);
        suite_add_tcase(s, t);
        return run_suite(s);
}
