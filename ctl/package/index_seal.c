/*
 * See index_seal.h. What was seen is a file each, named after a digest of what it is about; its text is "KEY ISSUED NAME". A file is
 * written beside its place and renamed, and only ever replaced by a later time.
 */
#include "ctl/package/index_seal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "ctl/plugins.h"
#include "sdk/base/loop.h"
#include "sdk/base/rfc3339.h"

enum { SEEN_MAX = 1024 };

/* ---- what was seen ---- */

static const char *seen_file(struct arena *a, const char *kind, const char *what)
{
        char digest[DIGEST_HEX + 1];
        const char *home = getenv("HOME"), *text = arena_printf(a, "%s %s", kind, what);
        if (!home || !*home || !text)
                return NULL;
        digest_blake2b(str_of(text), digest);
        return arena_printf(a, "%s/.dapr/indexes/%.32s", home, digest);
}

/* When the last one was issued; "" = none was seen. */
static const char *seen(struct arena *a, const char *file)
{
        struct str text;
        if (!file || trust_read_file(a, file, SEEN_MAX, &text))
                return "";
        str_cut(&text, ' ');
        return arena_strdup(a, str_cut(&text, ' '));
}

static void remember(struct arena *a, const char *file, const char *key, const struct index_seal *s)
{
        const char *temp = file ? arena_printf(a, "%s.%d", file, (int)getpid()) : NULL, *slash = file ? strrchr(file, '/') : NULL;
        if (!temp)
                return;
        int r = path_mkdirs(arena_strdup(a, str_n(file, (size_t)(slash - file))));
        if (r == 0)
                r = path_write(temp, str_of(arena_printf(a, "%s %s %s\n", key, s->issued, s->name)), 0600, true);
        if (r == 0 && rename(temp, file) != 0)
                r = -errno;
        if (r)
                ui_say(UI_WARNING, "What was seen of the index cannot be remembered: %s: %s", file, strerror(-r));
}

/* ---- the check ---- */

static bool seconds_of(const char *text, int64_t *ret)
{
        int32_t nanos;
        return rfc3339_parse(str_of(text), ret, &nanos);
}

static int fail(const char **ret_err, int r, const char *text)
{
        *ret_err = text ? text : "out of memory";
        return r;
}

static int check_unsigned(const struct seal_ask *q, struct arena *a, const char **ret_err)
{
        const char *file = q->place ? seen_file(a, "place", q->place) : NULL, *issued = seen(a, file);
        if (!*issued)
                return 0;
        return fail(ret_err, -EKEYREJECTED, arena_printf(a, "%s: the index is not signed, but was when it was last used (issued %s): its signature was taken away. "
                                                            "If its owner did that: rm %s", q->where, issued, file));
}

static int check_times(const struct seal_ask *q, const char *file, const struct index_seal *s, struct arena *a, const char **ret_err)
{
        int64_t issued, expires = INT64_MAX, last;
        const char *before = seen(a, file);
        if (!*s->name || !seconds_of(s->issued, &issued) || (*s->expires && !seconds_of(s->expires, &expires)))
                return fail(ret_err, -EINVAL, arena_printf(a, "%s: the index is signed but lacks 'name', or 'issued' and 'expires' are no times: sign it with dapr plugin index sign",
                                                           q->where));
        if (q->allow_old)
                return 0;
        if (wall_ns() / 1000000000 > expires)
                return fail(ret_err, -ESTALE, arena_printf(a, "%s: the index has expired on %s: get a newer one, or say --allow-old-index", q->where, s->expires));
        if (seconds_of(before, &last) && issued < last)
                return fail(ret_err, -ESTALE, arena_printf(a, "%s: this index (%s) was issued %s, but one of %s was seen already: it was set back. If that is right, say --allow-old-index",
                                                           q->where, s->name, s->issued, before));
        return 0;
}

static bool is_later(struct arena *a, const char *file, const char *issued)
{
        int64_t now, last;
        return !seconds_of(seen(a, file), &last) || (seconds_of(issued, &now) && now > last);
}

int seal_check(const struct seal_ask *q, struct arena *a, struct index_seal *ret, const char **ret_err)
{
        struct trust t;
        const struct trust_key *key = NULL;
        *ret = (struct index_seal){.name = "", .issued = "", .expires = ""};
        if (!q->signature.p)
                return check_unsigned(q, a, ret_err);
        package_trust_load(a, &t);
        int r = trust_check(&t, arena_printf(a, "%s: the index", q->where), q->document, q->signature, a, &key, ret_err);
        if (r)
                return r;
        struct index_seal s = {.name = plugin_text(a, q->root, "name"), .issued = plugin_text(a, q->root, "issued"),
                               .expires = plugin_text(a, q->root, "expires"), .signed_by = key->name, .document = arena_str(a, q->document),
                               .signature = arena_str(a, q->signature)};
        const char *id = minisign_id_text(a, key->key.id), *file = seen_file(a, "name", arena_printf(a, "%s %s", id, s.name));
        const char *place = q->place ? seen_file(a, "place", q->place) : NULL;
        r = check_times(q, file, &s, a, ret_err);
        if (r)
                return r;
        if (is_later(a, file, s.issued))
                remember(a, file, id, &s);
        if (place && is_later(a, place, s.issued))
                remember(a, place, id, &s);
        *ret = s;
        return 0;
}

int seal_next(const struct yaml_node *last, const char *name, int64_t lasts_s, struct arena *a, struct index_seal *ret)
{
        char issued[RFC3339_BYTES], expires[RFC3339_BYTES] = "";
        int64_t now = wall_ns() / 1000000000, before;
        if (last && seconds_of(plugin_text(a, last, "issued"), &before) && before >= now)
                now = before + 1;
        rfc3339_format(issued, now, 0);
        if (lasts_s)
                rfc3339_format(expires, now + lasts_s, 0);
        *ret = (struct index_seal){.name = arena_strdup(a, str_of(name)), .issued = arena_strdup(a, str_of(issued)),
                                   .expires = arena_strdup(a, str_of(expires))};
        return ret->name && ret->issued && ret->expires ? 0 : -ENOMEM;
}
