/* Pipe to log lines. Reading never blocks and each wake reads a bounded amount, so that a chatty plugin does not hold the loop. */
#include "kernel/super/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sdk/base/utf8.h"

enum { READS_A_WAKE = 8, READS_AT_END = 64 };

/* ---- the last lines ---- */

void log_ring_add(struct log_ring *r, enum log_level level, struct str text)
{
        struct log_ring_line *l = &r->lines[r->next];
        free(l->text);
        l->text = strndup(text.p, text.n < LOG_RING_LINE_BYTES ? text.n : LOG_RING_LINE_BYTES);
        l->level = level;
        l->at_ns = wall_ns();
        r->next = (r->next + 1) % LOG_RING_LINES;
        if (r->count < LOG_RING_LINES)
                r->count++;
}

const struct log_ring_line *log_ring_at(const struct log_ring *r, size_t i)
{
        if (i >= r->count)
                return NULL;
        return &r->lines[(r->next + LOG_RING_LINES - r->count + i) % LOG_RING_LINES];
}

void log_ring_fini(struct log_ring *r)
{
        for (size_t i = 0; i < LOG_RING_LINES; i++)
                free(r->lines[i].text);
        *r = (struct log_ring){0};
}

/* ---- lines ---- */

static enum log_level level_of(struct output *o, struct str *line)
{
        enum log_level level = o->level;
        if (line->n < 3 || line->p[0] != '<' || line->p[2] != '>')
                return level;
        switch (line->p[1]) {
        case '0': case '1': case '2': case '3': level = LOG_ERROR; break;
        case '4': level = LOG_WARN; break;
        case '5': case '6': level = LOG_INFO; break;
        case '7': level = LOG_DEBUG; break;
        default: return level;
        }
        *line = str_skip(*line, 3);
        return level;
}

static bool allowed(struct output *o)
{
        double now = loop_now();
        if (now - o->second >= 1) {
                if (o->dropped)
                        log_warn(o->scope, "%u lines of output were left out", o->dropped);
                o->second = now;
                o->lines = o->dropped = 0;
        }
        if (++o->lines <= OUTPUT_LINES_PER_S)
                return true;
        o->dropped++;
        return false;
}

/* A program that prints something else than text must not fill the log with it. */
static bool is_text(struct str s)
{
        size_t odd = 0;
        for (size_t i = 0; i < s.n; i++)
                odd += (unsigned char)s.p[i] < ' ' && s.p[i] != '\t' && s.p[i] != '\033';
        return odd * 10 <= s.n && utf8_is_valid(s);
}

static void emit(struct output *o, struct str line)
{
        struct log_field f = {"component", str_of(o->component)};
        char note[64];
        while (line.n && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == ' '))
                line.n--;
        enum log_level level = level_of(o, &line);
        if (line.n == 0 || !allowed(o))
                return;
        if (!is_text(line)) {
                int n = snprintf(note, sizeof note, "(%zu bytes of output that are no text)", line.n);
                line = str_n(note, (size_t)n);
        }
        log_ring_add(o->ring, level, line);
        if (log_enabled(level))
                log_write(level, o->scope, line, &f, o->component ? 1 : 0);
}

static void split(struct output *o)
{
        struct str rest = str_n(o->line, o->n);
        ptrdiff_t end;
        while ((end = str_chr(rest, '\n')) >= 0) {
                emit(o, str_n(rest.p, (size_t)end));
                rest = str_skip(rest, (size_t)end + 1);
        }
        if (rest.n == OUTPUT_LINE_BYTES) {
                emit(o, rest);
                rest.n = 0;
        }
        memmove(o->line, rest.p, rest.n);
        o->n = rest.n;
}

/* False at the end of the stream. */
static bool read_some(struct output *o, int reads)
{
        while (reads-- > 0) {
                ssize_t k = read(o->fd, o->line + o->n, OUTPUT_LINE_BYTES - o->n);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return errno == EAGAIN;
                if (k == 0)
                        return false;
                o->n += (size_t)k;
                split(o);
        }
        return true;
}

static void close_now(struct output *o)
{
        if (o->n)
                emit(o, str_n(o->line, o->n)); /* last words without a newline */
        if (o->dropped)
                log_warn(o->scope, "%u lines of output were left out", o->dropped);
        io_watch_stop(&o->watch);
        close(o->fd);
        o->fd = -1;
        free(o->line);
        free(o->scope);
        free(o->component);
        o->line = o->scope = o->component = NULL;
        o->n = o->dropped = 0;
}

static void on_readable(struct io_watch *w, int events)
{
        struct output *o = (struct output *)((char *)w - offsetof(struct output, watch));
        if (!read_some(o, READS_A_WAKE))
                close_now(o);
}

int output_start(struct output *o, int fd, enum log_level level, const char *plugin, const char *component, struct log_ring *ring)
{
        *o = (struct output){.fd = fd, .level = level, .ring = ring, .second = loop_now()};
        o->line = malloc(OUTPUT_LINE_BYTES);
        o->component = component ? strdup(component) : NULL;
        if (!o->line || asprintf(&o->scope, "plugin.%s", plugin) < 0) {
                free(o->line);
                free(o->component);
                close(fd);
                *o = (struct output){.fd = -1};
                return -ENOMEM;
        }
        io_watch_init(&o->watch, fd, on_readable);
        io_watch_set(&o->watch, IO_READ);
        return 0;
}

void output_stop(struct output *o)
{
        if (!o->line)
                return;
        read_some(o, READS_AT_END);
        close_now(o);
}
