/* See conform_target.h: the kit's result as a table, as JSON, and kept with what was checked. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "ctl/conform_target.h"
#include "ctl/package/package.h"

/* ---- what came out ---- */

static const char *const words[] = {[CONFORM_PASS] = "pass", [CONFORM_FAIL] = "FAIL", [CONFORM_SKIP] = "skip"};

size_t report_count(const struct conform *c, enum conform_status s)
{
        size_t n = 0;
        for (size_t i = 0; i < c->n; i++)
                n += c->v[i].status == s;
        return n;
}

void report_json(const struct conform *c, struct buf *b)
{
        struct json_writer w;
        const struct { const char *key; size_t n; } counts[] = {{"passed", report_count(c, CONFORM_PASS)}, {"failed", report_count(c, CONFORM_FAIL)}, {"skipped", report_count(c, CONFORM_SKIP)}};
        json_write_init(&w, b);
        json_object_begin(&w);
        json_kv_nonempty(&w, "plugin", str_of(c->plugin_name));
        json_kv_nonempty(&w, "version", str_of(c->plugin_version));
        json_kv(&w, "type", str_of(c->type));
        json_key(&w, STR("features"));
        json_array_begin(&w);
        for (size_t i = 0; i < c->n_features; i++)
                json_string(&w, str_of(c->features[i]));
        json_array_end(&w);
        for (size_t i = 0; i < 3; i++) {
                json_key(&w, str_of(counts[i].key));
                json_uint(&w, counts[i].n);
        }
        json_key(&w, STR("checks"));
        json_array_begin(&w);
        for (size_t i = 0; i < c->n; i++) {
                json_object_begin(&w);
                json_kv(&w, "group", str_of(c->v[i].group));
                json_kv(&w, "name", str_of(c->v[i].name));
                json_kv(&w, "result", str_of(c->v[i].status == CONFORM_FAIL ? "fail" : words[c->v[i].status]));
                json_kv_nonempty(&w, "detail", str_of(c->v[i].detail));
                json_object_end(&w);
        }
        json_array_end(&w);
        json_object_end(&w);
}

static const char *color_of(size_t col, const char *text)
{
        if (col != 2)
                return NULL;
        return strcmp(text, "pass") == 0 ? "\033[32m" : strcmp(text, "FAIL") == 0 ? "\033[31m" : "\033[33m";
}

void report_print(const struct conform *c)
{
        static const char *const header[] = {"GROUP", "CHECK", "RESULT", "MS", "DETAIL"};
        struct table t;
        table_init(&t, header, 5);
        t.color = color_of;
        for (size_t i = 0; i < c->n; i++)
                table_add(&t, (const char *[]){c->v[i].group, c->v[i].name, words[c->v[i].status],
                                               c->v[i].status == CONFORM_SKIP ? "" : conform_text((struct conform *)c, "%.0f", c->v[i].ms), c->v[i].detail});
        table_print(&t, stdout);
        table_fini(&t);
        if (c->stopped)
                ui_say(UI_FAILURE, "Without Init nothing else can be checked");
        size_t failed = report_count(c, CONFORM_FAIL);
        ui_say(failed ? UI_FAILURE : UI_SUCCESS, "%s: %zu passed, %zu failed, %zu left out", c->type, report_count(c, CONFORM_PASS), failed, report_count(c, CONFORM_SKIP));
}

/* The package's list changes, so a signature is no more. */
int report_save(struct target *t, const struct conform *c, const struct buf *result)
{
        struct package *p = NULL;
        struct buf b = {0};
        const char *err = NULL, *file = t->folder ? path_join(t->a, t->folder, PACKAGE_CONFORMANCE) : NULL;
        if (!file)
                return target_refuse("--save needs a folder or a package");
        if (report_count(c, CONFORM_FAIL))
                return target_refuse("The result is not kept: --save keeps one in which no check has failed");
        if (path_write(file, buf_str(result), 0644, true))
                return target_refuse(arena_printf(t->a, "%s could not be written", file));
        if (!t->package) {
                ui_say(UI_SUCCESS, "Wrote %s", file);
                return 0;
        }
        const char *temp = arena_printf(t->a, "%s.%d", t->package, (int)getpid());
        bool was_signed = path_exists(path_join(t->a, t->folder, PACKAGE_SIGNATURE));
        int r = package_from_folder(t->folder, &p, t->a, &err);
        if (r == 0)
                r = package_write(p, &b);
        if (r == 0)
                r = path_write(temp, buf_str(&b), 0644, true);
        if (r == 0 && rename(temp, t->package) != 0)
                r = -errno;
        if (r == 0)
                ui_say(UI_SUCCESS, "%s holds the result now: sign it%s (dapr plugin sign %s)", t->package, was_signed ? " again" : "", t->package);
        if (r == 0 && was_signed)
                ui_say(UI_WARNING, "Its signature is gone: it was of the package without the result");
        buf_fini(&b);
        package_free(p);
        return r ? target_refuse(err ? err : arena_printf(t->a, "%s could not be written", t->package)) : 0;
}
