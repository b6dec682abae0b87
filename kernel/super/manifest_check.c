/* A component's metadata against the manifest's table. Text rules are the reference's: see sdk/plugin/metadata.c, which decodes. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/super/manifest.h"
#include "sdk/base/buf.h"
#include "sdk/base/flags.h"
#include "sdk/base/near.h"
#include "sdk/base/runtime_settings.h"

static bool same_version(struct str a, struct str b)
{
        bool first_a = a.n == 0 || str_ieq(a, STR("v0")) || str_ieq(a, STR("v1"));
        bool first_b = b.n == 0 || str_ieq(b, STR("v0")) || str_ieq(b, STR("v1"));
        return (first_a && first_b) || str_ieq(a, b);
}

bool manifest_serves(const struct manifest *m, const char *type, const char *version)
{
        for (size_t i = 0; i < m->n_types; i++)
                for (size_t k = 0; strcasecmp(m->types[i].type, type) == 0 && k < m->types[i].n_versions; k++)
                        if (same_version(str_of(m->types[i].versions[k]), str_of(version)))
                                return true;
        return false;
}

bool manifest_has_type(const struct manifest *m, const char *type)
{
        for (size_t i = 0; i < m->n_types; i++)
                if (strcasecmp(m->types[i].type, type) == 0)
                        return true;
        return false;
}

static bool is_named(const struct manifest_field *f, const char *name)
{
        if (strcasecmp(f->name, name) == 0)
                return true;
        for (size_t i = 0; i < f->n_aliases; i++)
                if (strcasecmp(f->aliases[i], name) == 0)
                        return true;
        return false;
}

const struct manifest_field *manifest_field(const struct manifest *m, const char *name)
{
        for (size_t i = 0; i < m->n_fields; i++)
                if (is_named(&m->fields[i], name))
                        return &m->fields[i];
        return NULL;
}

/* ---- values ---- */

static bool is_bool(struct str s)
{
        static const char *const words[] = {"y", "yes", "true", "t", "on", "1", "n", "no", "false", "f", "off", "0"};
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
                if (str_ieq(s, str_of(words[i])))
                        return true;
        return false;
}

static bool is_float(struct str s)
{
        char z[64], *end;
        if (s.n == 0 || s.n >= sizeof z)
                return false;
        memcpy(z, s.p, s.n);
        z[s.n] = '\0';
        double d = strtod(z, &end);
        return *end == '\0' && isfinite(d);
}

const char *manifest_value_fault(const struct manifest_field *f, struct str value)
{
        struct str s = str_trim(value);
        int64_t n;
        if (s.n == 0)
                return NULL; /* the same as not given */
        switch (f->kind) {
        case FIELD_STRING:
                return NULL;
        case FIELD_BOOL:
                return is_bool(s) ? NULL : "a boolean: true or false";
        case FIELD_INT:
                return parse_int64(s, &n) == 0 ? NULL : "a whole number";
        case FIELD_FLOAT:
                return is_float(s) ? NULL : "a number";
        case FIELD_DURATION:
                return parse_int64(s, &n) == 0 || parse_duration(s, &n) == 0 ? NULL : "a duration such as 30s or 2m, or a number of seconds";
        case FIELD_BYTES:
                return parse_quantity(s, &n) == 0 ? NULL : "a size such as 4Mi or 1048576";
        case FIELD_ENUM:
                for (size_t i = 0; i < f->n_values; i++)
                        if (str_ieq(s, str_of(f->values[i])))
                                return NULL;
                return "one of the values that the plugin knows";
        case FIELD_KINDS:
                break;
        }
        return NULL;
}

static void place(struct buf *out, const struct component_spec *spec, int line)
{
        if (out->len)
                buf_addc(out, '\n');
        if (spec->file && spec->file[0])
                buf_printf(out, "%s:%d: ", spec->file, line ? line : spec->line);
}

static void ill_typed(struct buf *out, const struct manifest_field *f, const struct component_spec *spec,
                      const struct metadata_item *i, const char *expected)
{
        place(out, spec, i->line);
        buf_printf(out, "metadata field '%s' of %s ", i->name, spec->type);
        if (f->sensitive || i->secret_name)
                buf_addz(out, "has a value that");
        else
                buf_printf(out, "is '%.80s', which", i->value);
        buf_printf(out, " is not %s", expected);
        for (size_t k = 0; f->kind == FIELD_ENUM && k < f->n_values; k++)
                buf_printf(out, "%s%s", k ? ", " : ": ", f->values[k]);
}

static bool is_given(const struct component_spec *spec, const struct manifest_field *f)
{
        for (size_t i = 0; i < spec->n_metadata; i++)
                if (spec->metadata[i].name && is_named(f, spec->metadata[i].name) && spec->metadata[i].value && spec->metadata[i].value[0])
                        return true;
        return false;
}

/* A field that the component gives, that nobody knows, and that looks like the one that is missing; NULL = none. */
static const struct metadata_item *misspelt(const struct manifest *m, const struct component_spec *spec, const struct manifest_field *f)
{
        for (size_t i = 0; i < spec->n_metadata; i++) {
                const struct metadata_item *item = &spec->metadata[i];
                if (item->name && !manifest_field(m, item->name) && edit_distance(str_of(item->name), str_of(f->name), 2) <= 2)
                        return item;
        }
        return NULL;
}

int manifest_check(const struct manifest *m, const struct component_spec *spec, struct arena *a, const char **ret_err)
{
        struct buf out = {0};
        for (size_t i = 0; i < spec->n_metadata; i++) {
                const struct metadata_item *item = &spec->metadata[i];
                const struct manifest_field *f = item->name ? manifest_field(m, item->name) : NULL;
                const char *expected = f && item->value ? manifest_value_fault(f, str_of(item->value)) : NULL;
                if (expected)
                        ill_typed(&out, f, spec, item, expected);
        }
        for (size_t i = 0; i < m->n_fields; i++) {
                const struct manifest_field *f = &m->fields[i];
                if (!f->required || is_given(spec, f))
                        continue;
                const struct metadata_item *near = misspelt(m, spec, f);
                if (f->missing) { /* the reference's words come first: its users look for them */
                        buf_printf(&out, "%s%s (metadata field '%s' of %s", out.len ? "\n" : "", f->missing, f->name, spec->type);
                        if (spec->file && spec->file[0])
                                buf_printf(&out, ", %s:%d", spec->file, spec->line);
                        if (near)
                                buf_printf(&out, "; '%.80s' is given, which it does not know", near->name);
                        buf_addc(&out, ')');
                        continue;
                }
                place(&out, spec, near ? near->line : 0);
                buf_printf(&out, "metadata field '%s' of %s is missing", f->name, spec->type);
                if (near)
                        buf_printf(&out, "; '%.80s' is given, which it does not know", near->name);
                if (f->description)
                        buf_printf(&out, ": %s", f->description);
        }
        int r = out.len ? -EINVAL : 0;
        if (r)
                *ret_err = arena_strdup(a, buf_str(&out));
        buf_fini(&out);
        return r;
}

static const char *nearest(const struct manifest *m, struct str name)
{
        const char *best = NULL;
        unsigned least = 3;
        for (size_t i = 0; i < m->n_fields; i++) {
                unsigned d = edit_distance(name, str_of(m->fields[i].name), 2);
                if (d < least) {
                        least = d;
                        best = m->fields[i].name;
                }
        }
        return best;
}

const char *manifest_unknown(const struct manifest *m, const struct component_spec *spec, bool near_only, struct arena *a)
{
        struct buf out = {0};
        const char *text = NULL;
        for (size_t i = 0; i < spec->n_metadata; i++) {
                const struct metadata_item *item = &spec->metadata[i];
                const char *near = item->name ? nearest(m, str_of(item->name)) : NULL;
                if (!item->name || manifest_field(m, item->name) || (near_only && !near) || runtime_setting(str_of(spec->type), str_of(item->name)))
                        continue;
                place(&out, spec, item->line);
                buf_printf(&out, "%s has no field '%.80s'", spec->type, item->name);
                if (near)
                        buf_printf(&out, "; did you mean '%s'?", near);
                else if (m->n_fields == 0)
                        buf_addz(&out, ": it takes no settings");
        }
        if (out.len)
                text = arena_strdup(a, buf_str(&out));
        buf_fini(&out);
        return text;
}

void manifest_defaults(const struct manifest *m, const struct component_spec *spec,
                       void (*fn)(void *arg, const char *name, const char *value), void *arg)
{
        for (size_t i = 0; i < m->n_fields; i++)
                if (m->fields[i].def && !is_given(spec, &m->fields[i]))
                        fn(arg, m->fields[i].name, m->fields[i].def);
}
