/* See ctl.h: signs, colours, tables. Colours and signs as the reference CLI prints them, so that people and scripts feel at home. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "ctl/ctl.h"

enum { SAY_TIMEOUT_MS = 1000, LAST_COLUMN_MIN = 20, COLUMN_MIN = 12 };

static struct {
        bool json;
} ui;

void ui_setup(bool log_as_json)
{
        ui.json = log_as_json;
}

bool ui_is_json_log(void)
{
        return ui.json;
}

bool ui_color(int fd)
{
        const char *no = getenv("NO_COLOR");
        return isatty(fd) && !(no && *no);
}

bool ui_can_write(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        return poll(&p, 1, 0) != 0; /* an error, too, is for the write to find */
}

static bool is_taken(FILE *to)
{
        struct pollfd p = {.fd = fileno(to), .events = POLLOUT};
        return poll(&p, 1, SAY_TIMEOUT_MS) != 0;
}

static void say_json(FILE *to, const char *status, struct str text)
{
        struct buf b = {0};
        struct json_writer w;
        char when[64];
        struct timespec ts;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &ts);
        gmtime_r(&ts.tv_sec, &tm);
        strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
        json_write_init(&w, &b);
        json_object_begin(&w);
        json_kv(&w, "msg", text);
        json_kv(&w, "status", str_of(status));
        json_kv(&w, "time", str_of(when));
        json_object_end(&w);
        fprintf(to, "%.*s\n", STR_FMT(buf_str(&b)));
        buf_fini(&b);
}

void ui_say(enum ui_status s, const char *fmt, ...)
{
        static const struct { const char *sign, *word; bool err; } row[] = {
                [UI_SUCCESS] = {"✅", "success", false}, [UI_FAILURE] = {"❌", "failure", true}, [UI_WARNING] = {"⚠", "warning", true},
                [UI_INFO] = {"ℹ️", "info", false},        [UI_PENDING] = {"⌛", "pending", false}};
        FILE *to = row[s].err ? stderr : stdout;
        struct buf b = {0};
        va_list ap;
        va_start(ap, fmt);
        buf_vprintf(&b, fmt, ap);
        va_end(ap);
        if (!is_taken(to))
                ; /* see ctl.h */
        else if (ui.json)
                say_json(to, row[s].word, buf_str(&b));
        else
                fprintf(to, "%s  %.*s\n", row[s].sign, STR_FMT(buf_str(&b)));
        fflush(to);
        buf_fini(&b);
}

bool ui_output_ok(const char *o, bool yaml)
{
        if (!o || !*o || strcmp(o, "table") == 0 || strcmp(o, "json") == 0 || (yaml && strcmp(o, "yaml") == 0))
                return true;
        ui_say(UI_FAILURE, "An invalid output format was specified: \"%s\". Valid values are: json, %stable.", o, yaml ? "yaml, " : "");
        return false;
}

bool ui_is_json(const char *o)
{
        return o && strcmp(o, "json") == 0;
}

const char *ui_age(struct arena *a, int64_t s)
{
        if (s <= 60)
                return arena_printf(a, "%llds", (long long)(s < 0 ? 0 : s));
        if (s <= 3600)
                return arena_printf(a, "%lldm", (long long)(s / 60));
        return s <= 86400 ? arena_printf(a, "%lldh", (long long)(s / 3600)) : arena_printf(a, "%lldd", (long long)(s / 86400));
}

const char *ui_bytes(struct arena *a, int64_t bytes)
{
        static const char *const unit[] = {"KiB", "MiB", "GiB"};
        double v = (double)bytes / 1024;
        size_t i = 0;
        if (bytes < 0)
                return "";
        for (; v >= 1000 && i < 2; i++)
                v /= 1024;
        return arena_printf(a, v < 10 ? "%.1f %s" : "%.0f %s", v, unit[i]);
}

void ui_print_json(const struct buf *b)
{
        printf("%.*s\n", STR_FMT(buf_str(b)));
}

/* ---- tables ---- */

void table_init(struct table *t, const char *const *header, size_t cols)
{
        *t = (struct table){.header = header, .cols = cols};
        arena_init(&t->arena, 0);
}

void table_add(struct table *t, const char *const *cells)
{
        if (t->n == t->cap) {
                size_t cap = t->cap ? t->cap * 2 : 16;
                const char ***rows = arena_grow(&t->arena, t->rows, t->cap * sizeof(*rows), cap * sizeof(*rows));
                if (!rows)
                        return;
                t->rows = rows;
                t->cap = cap;
        }
        const char **row = arena_alloc(&t->arena, t->cols * sizeof(*row));
        if (!row)
                return;
        for (size_t i = 0; i < t->cols; i++) {
                char *cell = arena_strdup(&t->arena, str_of(cells[i] ? cells[i] : ""));
                for (char *p = cell; p && *p; p++)
                        if ((unsigned char)*p < ' ' || *p == 127) /* one line, and nothing that a terminal obeys */
                                *p = ' ';
                row[i] = cell ? cell : "";
        }
        t->rows[t->n++] = row;
}

/* Columns that a terminal shows: one a code point, enough for names and numbers. */
static size_t width(const char *s)
{
        size_t n = 0;
        for (; *s; s++)
                n += ((unsigned char)*s & 0xc0) != 0x80;
        return n;
}

/* Length of the first code points. */
static size_t bytes_of(const char *s, size_t columns)
{
        size_t i = 0;
        for (; s[i] && columns; columns--)
                for (i++; ((unsigned char)s[i] & 0xc0) == 0x80;)
                        i++;
        return i;
}

struct layout {
        size_t *width;      /* 0 = the column is left out */
        size_t last, limit; /* last column, and what a terminal leaves for it */
        bool color;
};

static void print_cell(const struct table *t, const struct layout *l, size_t col, const char *text, bool is_header, FILE *to)
{
        const char *color = !l->color ? NULL : is_header ? "\033[1m" : t->color ? t->color(col, text) : NULL;
        size_t w = width(text);
        size_t room = col == l->last ? l->limit : l->width[col];
        bool is_cut = w > room;
        size_t cut = is_cut ? bytes_of(text, room - 1) : strlen(text);
        w = is_cut ? room : w;
        fprintf(to, "%s%.*s%s%s", color ? color : "", (int)cut, text, is_cut ? "…" : "", color ? "\033[0m" : "");
        for (; col != l->last && w < l->width[col] + 2; w++)
                fputc(' ', to);
}

static void print_row(const struct table *t, const struct layout *l, const char *const *cells, bool is_header, FILE *to)
{
        for (size_t i = 0; i < t->cols; i++)
                if (l->width[i])
                        print_cell(t, l, i, cells[i], is_header, to);
        fputc('\n', to);
}

/* Takes from the widest columns until the last one has room, too. Returns what they use then. */
static size_t shrink(const struct table *t, struct layout *l, size_t used, size_t columns)
{
        while (used + LAST_COLUMN_MIN > columns) {
                size_t widest = l->last;
                for (size_t i = 0; i < l->last; i++)
                        if (l->width[i] > COLUMN_MIN && l->width[i] > width(t->header[i]) && (widest == l->last || l->width[i] > l->width[widest]))
                                widest = i;
                if (widest == l->last)
                        break;
                l->width[widest]--;
                used--;
        }
        return used;
}

static void measure(struct table *t, struct layout *l, FILE *to)
{
        struct winsize size;
        size_t used = 0;
        for (size_t i = 0; i < t->cols; i++) {
                for (size_t r = 0; r < t->n; r++)
                        if (width(t->rows[r][i]) > l->width[i])
                                l->width[i] = width(t->rows[r][i]);
                if (l->width[i] && l->width[i] < width(t->header[i]))
                        l->width[i] = width(t->header[i]);
                if (l->width[i])
                        l->last = i;
        }
        for (size_t i = 0; i < l->last; i++)
                used += l->width[i] ? l->width[i] + 2 : 0;
        l->limit = SIZE_MAX;
        if (!isatty(fileno(to)) || ioctl(fileno(to), TIOCGWINSZ, &size) != 0 || !size.ws_col)
                return;
        used = shrink(t, l, used, size.ws_col);
        l->limit = size.ws_col > used + LAST_COLUMN_MIN ? size.ws_col - used : LAST_COLUMN_MIN;
}

void table_print(struct table *t, FILE *to)
{
        struct layout l = {.width = arena_zalloc(&t->arena, t->cols * sizeof(size_t)), .color = ui_color(fileno(to))};
        if (!l.width)
                return;
        measure(t, &l, to);
        print_row(t, &l, t->header, true, to);
        for (size_t r = 0; r < t->n; r++)
                print_row(t, &l, t->rows[r], false, to);
}

void table_fini(struct table *t)
{
        arena_fini(&t->arena);
}
