/* See ctl.h: signs, colours, tables. Colours and signs as the reference CLI prints them, so that people and scripts feel at home. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "ctl/ctl.h"

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
        if (ui.json)
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
        for (size_t i = 0; i < t->cols; i++)
                row[i] = arena_strdup(&t->arena, str_of(cells[i] ? cells[i] : ""));
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

static void print_row(const struct table *t, const char *const *cells, const size_t *w, FILE *to)
{
        for (size_t i = 0; i < t->cols; i++) {
                fputs(cells[i], to);
                for (size_t k = width(cells[i]); i + 1 < t->cols && k < w[i] + 2; k++)
                        fputc(' ', to);
        }
        fputc('\n', to);
}

void table_print(struct table *t, FILE *to)
{
        size_t *w = arena_zalloc(&t->arena, t->cols * sizeof(*w));
        if (!w)
                return;
        for (size_t i = 0; i < t->cols; i++) {
                w[i] = width(t->header[i]);
                for (size_t r = 0; r < t->n; r++)
                        if (width(t->rows[r][i]) > w[i])
                                w[i] = width(t->rows[r][i]);
        }
        bool color = ui_color(fileno(to));
        if (color)
                fputs("\033[1m", to);
        print_row(t, t->header, w, to);
        if (color)
                fputs("\033[0m", to);
        for (size_t r = 0; r < t->n; r++)
                print_row(t, t->rows[r], w, to);
}

void table_fini(struct table *t)
{
        arena_fini(&t->arena);
}
