/*
 * What the profile port tells, as text: fibers, memory of the allocator, the command line. CPU profiles of this process are taken by
 * perf, from outside. Anything else is 404, so that nobody takes one text for another.
 */
#include "kernel/front/profile.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#include "sdk/base/buf.h"
#include "sdk/base/fiber.h"

#define ROOT "/debug/pprof/"
#define TEXT STR("text/plain; charset=utf-8")
#define HTML STR("text/html; charset=utf-8")

enum { CMDLINE_MAX = 2048 };

static void fibers(struct buf *b)
{
        buf_printf(b, "fibers %zu\n", fiber_count());
}

static void heap(struct buf *b)
{
        struct mallinfo2 m = mallinfo2();

        buf_printf(b, "in use %zu\nfree %zu\nmapped %zu\nfrom the system %zu\n", m.uordblks, m.fordblks, m.hblkhd, m.arena + m.hblkhd);
}

static void cmdline(struct buf *b)
{
        char text[CMDLINE_MAX];
        int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text);

        if (fd >= 0)
                close(fd);
        if (n > 0)
                buf_add(b, text, (size_t)n - 1); /* without the last NUL */
}

static const struct {
        const char *name, *what;
        void (*tell)(struct buf *b);
} rows[] = {
        {"cmdline", "the command line, its words divided by NUL", cmdline},
        {"goroutine", "fibers that live", fibers},
        {"heap", "bytes of the allocator", heap},
};

static void index_of(struct buf *b)
{
        buf_printf(b, "<html>\n<head><title>%s</title></head>\n<body>\n<table>\n", ROOT);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                buf_printf(b, "<tr><td><a href='%s'>%s</a></td><td>%s</td></tr>\n", rows[i].name, rows[i].name, rows[i].what);
        buf_printf(b, "</table>\n</body>\n</html>\n");
}

static void answer(struct http_req *r, int status, struct str type, struct buf *b)
{
        const struct http_header h[] = {{STR("Content-Type"), type}, {STR("X-Content-Type-Options"), STR("nosniff")}};

        http_resp_send(r, status, h, 2, buf_str(b));
        buf_fini(b);
}

void profile_serve(struct http_req *r, void *arg)
{
        const struct http_header to[] = {{STR("Location"), STR(ROOT)}, {STR("Content-Type"), HTML}};
        struct buf b = {0};

        if (str_eq(r->path, STR("/debug/pprof"))) {
                http_resp_send(r, 307, to, 2, STR("<a href=\"" ROOT "\">Temporary Redirect</a>.\n"));
                return;
        }
        if (str_eq(r->path, STR(ROOT))) {
                index_of(&b);
                answer(r, 200, HTML, &b);
                return;
        }
        for (size_t i = 0; i < sizeof rows / sizeof *rows && str_has_prefix(r->path, STR(ROOT)); i++) {
                if (!str_eqz(str_n(r->path.p + sizeof ROOT - 1, r->path.n - sizeof ROOT + 1), rows[i].name))
                        continue;
                rows[i].tell(&b);
                answer(r, 200, TEXT, &b);
                return;
        }
        buf_printf(&b, "Unknown profile: %s lists what there is\n", ROOT);
        answer(r, 404, TEXT, &b);
}
