/* One pass; nothing is compiled: a template is as long as an address. There are no data, so a field of them has no value. */
#include "plugins/nameresolution.kubernetes/template.h"

#include <errno.h>

static bool is_space(char c)
{
        return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void trim_end(struct buf *out)
{
        while (out->len > out->off && is_space(out->p[out->len - 1]))
                out->len--;
}

/* False: no such action. */
static bool action(struct buf *out, struct str what, const struct address_values *v)
{
        if (str_has_prefix(what, STR("/*")))
                return what.n >= 4 && str_has_suffix(what, STR("*/"));
        if (str_eqz(what, ".ID"))
                buf_adds(out, v->id);
        else if (str_eqz(what, ".Namespace"))
                buf_adds(out, v->namespace_);
        else if (str_eqz(what, ".Port"))
                buf_printf(out, "%d", v->port);
        else if (str_has_prefix(what, STR(".Data.")) && what.n > 6)
                buf_addz(out, "<no value>");
        else
                return false;
        return true;
}

int address_template(struct buf *out, struct str text, const struct address_values *v, struct str *ret_bad)
{
        struct str rest = text;

        for (ptrdiff_t at; (at = str_find(rest, STR("{{"))) >= 0;) {
                struct str from = str_skip(rest, (size_t)at), body = str_skip(from, 2);
                ptrdiff_t end = str_find(body, STR("}}"));

                buf_add(out, rest.p, (size_t)at);
                *ret_bad = end < 0 ? from : str_n(from.p, (size_t)end + 4);
                if (end < 0)
                        return -EINVAL;
                struct str what = str_n(body.p, (size_t)end);
                rest = str_skip(body, (size_t)end + 2);
                if (what.n > 1 && what.p[0] == '-' && is_space(what.p[1])) {
                        trim_end(out);
                        what = str_skip(what, 1);
                }
                if (what.n > 1 && what.p[what.n - 1] == '-' && is_space(what.p[what.n - 2])) {
                        what.n--;
                        while (rest.n && is_space(rest.p[0]))
                                rest = str_skip(rest, 1);
                }
                if (!action(out, str_trim(what), v))
                        return -EINVAL;
        }
        buf_adds(out, rest);
        return out->failed ? -ENOMEM : 0;
}
