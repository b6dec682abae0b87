/*
 * The connection string of the reference: a path or "file:" URI with sqlite's own query options plus _txlock and _pragma.
 * Pragmas are taken out and run after opening; the other options stay in the URI for sqlite, percent-encoded anew. The rules
 * (what is refused, what is added for ":memory:", read-only and WAL) are those of components-contrib 1.17.
 */
#include <ctype.h>
#include <dapr/plugin.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "plugins/shared/sqlite/sqlite.h"
#include "sdk/base/buf.h"

/* %XX and '+', as url.ParseQuery; NULL on a bad escape. Heap. */
static char *unescape(struct str s)
{
        char *out = malloc(s.n + 1), *p = out;
        for (size_t i = 0; out && i < s.n; i++) {
                if (s.p[i] != '%') {
                        *p++ = s.p[i] == '+' ? ' ' : s.p[i];
                        continue;
                }
                if (i + 2 >= s.n || !isxdigit((unsigned char)s.p[i + 1]) || !isxdigit((unsigned char)s.p[i + 2])) {
                        free(out);
                        return NULL;
                }
                char hex[3] = {s.p[i + 1], s.p[i + 2], 0};
                *p++ = (char)strtol(hex, NULL, 16);
                i += 2;
        }
        if (out)
                *p = 0;
        return out;
}

static void escape(struct buf *b, const char *s)
{
        for (; *s; s++)
                if (isalnum((unsigned char)*s) || strchr("-_.~", *s))
                        buf_addc(b, *s);
                else
                        buf_printf(b, "%%%02X", (unsigned char)*s);
}

static int add_pragma(struct db_conf *c, const char *text, char err[DB_ERROR_BYTES])
{
        static const struct {
                const char *name, *instead;
        } forbidden[] = {
                {"busy_timeout", "; please use the `busyTimeout` metadata property instead"},
                {"journal_mode", "; please use the `disableWAL` metadata property instead"},
                {"foreign_keys", ""},
        };
        for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
                if (!strncasecmp(text, forbidden[i].name, strlen(forbidden[i].name))) {
                        dapr_log(DAPR_LOG_ERROR, "Cannot set `_pragma=%s` option in the connection string%s", forbidden[i].name,
                                 forbidden[i].instead);
                        snprintf(err, DB_ERROR_BYTES, "found forbidden option '_pragma=%s' in the connection string",
                                 forbidden[i].name);
                        return -1;
                }
        if (c->n_pragmas >= DB_PRAGMAS_MAX - 2) {
                snprintf(err, DB_ERROR_BYTES, "more than %d pragmas in the connection string", DB_PRAGMAS_MAX - 2);
                return -1;
        }
        c->pragmas[c->n_pragmas++] = strdup(text);
        return 0;
}

struct options { /* what the query says, first value of each */
        bool mode, immutable, txlock, cache, read_only;
        struct buf rest; /* for sqlite */
};

static int take_option(struct db_conf *c, struct options *o, const char *k, const char *v, char err[DB_ERROR_BYTES])
{
        if (!strcmp(k, "_pragma"))
                return add_pragma(c, v, err);
        if (!strcmp(k, "_txlock")) {
                if (!o->txlock && strcasecmp(v, "immediate")) {
                        dapr_log(DAPR_LOG_WARN, "Database connection is being created with a _txlock different from the "
                                                "recommended value 'immediate'");
                        if (!strcasecmp(v, "exclusive"))
                                c->begin = "BEGIN EXCLUSIVE";
                }
                o->txlock = true;
                return 0;
        }
        bool *seen = !strcmp(k, "mode") ? &o->mode : !strcmp(k, "immutable") ? &o->immutable : NULL;
        if (seen && *seen)
                return 0;
        if (seen)
                *seen = true;
        if ((seen == &o->mode && !strcmp(v, "ro")) || (seen == &o->immutable && !strcmp(v, "1")))
                o->read_only = true;
        if (!strcmp(k, "cache") && c->memory)
                return 0;
        buf_addc(&o->rest, buf_len(&o->rest) ? '&' : '?');
        escape(&o->rest, k);
        buf_addc(&o->rest, '=');
        escape(&o->rest, v);
        return 0;
}

static int take_query(struct db_conf *c, struct options *o, struct str query, char err[DB_ERROR_BYTES])
{
        int r = 0;
        for (struct str rest = query, pair; !r && rest.p && (pair = str_cut(&rest, '&'), 1);) {
                struct str value = pair, name = str_cut(&value, '=');
                if (!name.n || str_chr(pair, ';') >= 0)
                        continue;
                char *k = unescape(name), *v = unescape(value.p ? value : STR(""));
                if (k && v)
                        r = take_option(c, o, k, v, err);
                free(k);
                free(v);
        }
        return r;
}

int db_conf_parse(struct db_conf *c, const char *cs, int64_t busy_ns, bool disable_wal, char err[DB_ERROR_BYTES])
{
        struct options o = {0};
        struct buf uri = {0};
        const char *mark = strchr(cs, '?');
        int r = 0;
        c->memory = !strncasecmp(cs, ":memory:", 8) || !strncasecmp(cs, "file::memory:", 13);
        c->begin = "BEGIN IMMEDIATE";
        c->busy_ms = busy_ns > 0 ? (int)(busy_ns / 1000000 > INT32_MAX ? INT32_MAX : busy_ns / 1000000) : 0;
        if (mark && mark > cs)
                r = take_query(c, &o, str_of(mark + 1), err);
        if (!r) {
                if (strncasecmp(cs, "file:", 5))
                        buf_addz(&uri, "file:");
                buf_add(&uri, cs, mark && mark > cs ? (size_t)(mark - cs) : strlen(cs));
                if (c->memory)
                        buf_printf(&o.rest, "%ccache=shared", buf_len(&o.rest) ? '&' : '?');
                buf_adds(&uri, buf_str(&o.rest));
                buf_addc(&uri, 0);
                c->pragmas[c->n_pragmas++] = strdup(c->memory                       ? "journal_mode(MEMORY)"
                                                    : disable_wal || o.read_only ? "journal_mode(DELETE)"
                                                                                 : "journal_mode(WAL)");
                c->uri = uri.failed || o.rest.failed ? NULL : strdup(uri.p);
                if (!c->uri)
                        r = -1, snprintf(err, DB_ERROR_BYTES, "out of memory");
        }
        buf_fini(&uri);
        buf_fini(&o.rest);
        return r;
}

void db_conf_fini(struct db_conf *c)
{
        for (size_t i = 0; i < c->n_pragmas; i++)
                free(c->pragmas[i]);
        free(c->uri);
        free(c->table);
        free(c->metadata_table);
        *c = (struct db_conf){0};
}

bool db_valid_identifier(const char *s)
{
        if (!s || !*s)
                return false;
        for (; *s; s++)
                if (!isalnum((unsigned char)*s) && *s != '_')
                        return false;
        return true;
}
