/* See keys.h. A password is read without echo, from the terminal itself: a pipe on stdin is not it. */
#include "ctl/package/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/package/package_impl.h"

enum { PASSWORD_MAX = 1024 };

const char *key_path(struct arena *a, const char *key)
{
        const char *home = getenv("HOME");
        if (key && *key)
                return key;
        return home && *home ? arena_printf(a, "%s/.dapr/keys/plugin.key", home) : NULL;
}

static struct str ask(struct arena *a, const char *prompt)
{
        struct termios old, quiet;
        char *line = arena_alloc(a, PASSWORD_MAX);
        int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
        ssize_t n = -1;
        if (fd < 0 || !line || tcgetattr(fd, &old) != 0) {
                ui_say(UI_FAILURE, "The key's password is needed, and there is no terminal to ask on: say --password-file");
        } else {
                quiet = old;
                quiet.c_lflag &= ~(tcflag_t)ECHO;
                dprintf(fd, "%s: ", prompt);
                tcsetattr(fd, TCSAFLUSH, &quiet);
                n = read(fd, line, PASSWORD_MAX);
                tcsetattr(fd, TCSAFLUSH, &old);
                dprintf(fd, "\n");
        }
        if (fd >= 0)
                close(fd);
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
                n--;
        return n < 0 ? STR_NULL : str_n(line, (size_t)n);
}

struct str key_password(struct arena *a, const char *password_file, const char *prompt)
{
        struct str text;
        if (!*password_file)
                return ask(a, prompt);
        int r = trust_read_file(a, password_file, PASSWORD_MAX, &text);
        if (r) {
                ui_say(UI_FAILURE, "--password-file %s: %s", password_file, strerror(-r));
                return STR_NULL;
        }
        while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
                text.n--;
        return text;
}

int key_load(struct arena *a, const char *path, const char *password_file, struct minisign_secret *ret)
{
        struct stat st;
        struct str text;
        const char *err = "";
        int r = path ? trust_read_file(a, path, MINISIGN_FILE_MAX, &text) : -ENOENT;
        if (r) {
                ui_say(UI_FAILURE, "The secret key %s: %s (dapr plugin keygen makes one)", path ? path : "", strerror(-r));
                return 1;
        }
        if (stat(path, &st) == 0 && (st.st_mode & 077))
                ui_say(UI_WARNING, "The secret key %s can be read by others: chmod 600 it", path);
        r = minisign_read_secret(text, STR_NULL, ret, &err);
        if (r == -EACCES) {
                struct str password = key_password(a, password_file, "Password of the secret key");
                r = password.p ? minisign_read_secret(text, password, ret, &err) : -ECANCELED;
                if (password.p)
                        explicit_bzero((char *)password.p, password.n);
        }
        explicit_bzero((char *)text.p, text.n);
        if (r && r != -ECANCELED)
                ui_say(UI_FAILURE, "%s: %s", path, err);
        return r ? 1 : 0;
}
