/*
 * All matches of all patterns, sorted by where they begin (the longer first), are joined so that none overlaps; those that touch a
 * link are dropped; the rest is replaced. Where the reference leaves a byte between two matches that touch, or stops replacing behind
 * a match within another one, everything that was recognised is replaced here.
 */
#include "kernel/blocks/pii.h"

#include <errno.h>
#include <stdlib.h>

#include "sdk/base/regex_find.h"
#include "sdk/base/buf.h"
#include "sdk/base/fiber.h"
#include "sdk/base/work.h"

/* ---- patterns ---- */

#define OCTET "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
#define IPV4 "(?:" OCTET "\\.){3}" OCTET
#define OCTET6 "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define DOTTED "(?:" OCTET6 "(?:\\." OCTET6 "){3})" /* at the end of an IPv6 address */
#define GROUP "[0-9A-Fa-f]{1,4}"
/* `lead` groups, then at most `more` further ones behind a gap, or a dotted address */
#define IPV6_GAP(lead, more, dotted) \
        "(?:(?:" GROUP ":){" #lead "}(?:(?:(?::" GROUP "){1," #more "})|(?:(?::" GROUP "){0," #dotted "}:" DOTTED ")|:))"
#define IPV6                                                                                                              \
        "(?:(?:(?:" GROUP ":){7}(?:" GROUP "|:))|(?:(?:" GROUP ":){6}(?::" GROUP "|" DOTTED "|:))|"                        \
        "(?:(?:" GROUP ":){5}(?:(?:(?::" GROUP "){1,2})|:" DOTTED "|:))|"                                                  \
        "(?:(?:" GROUP ":){4}(?:(?:(?::" GROUP "){1,3})|(?:(?::" GROUP ")?:" DOTTED ")|:))|"                               \
        IPV6_GAP(3, 4, 2) "|" IPV6_GAP(2, 5, 3) "|" IPV6_GAP(1, 6, 4) "|"                                                 \
        "(?::(?:(?:(?::" GROUP "){1,7})|(?:(?::" GROUP "){0,5}:" DOTTED ")|:)))(?:%.+)?\\s*"

#define STREETS \
        "street|st|avenue|ave|road|rd|highway|hwy|square|sq|trail|trl|drive|dr|court|ct|park|parkway|pkwy|circle|cir|boulevard|blvd"
#define AREA "(?:[2-9]1[02-9]|[2-9][02-8]1|[2-9][02-8][02-9])"
#define PHONE_WITH_EXTENSION                                                                                               \
        "(?i)(?:(?:\\+?1\\s*(?:[.-]\\s*)?)?(?:\\(\\s*" AREA "\\s*\\)|" AREA ")\\s*(?:[.-]\\s*)?)?"                          \
        "(?:[2-9]1[02-9]|[2-9][02-9]1|[2-9][02-9]{2})\\s*(?:[.-]\\s*)?[0-9]{4}(?:\\s*(?:#|x\\.?|ext\\.?|extension)\\s*(?:\\d+)?)"
#define COUNTRY "(?:\\+?\\d{1,3}[-.\\s*]?)?"
/* Slashes of another regular expression language stand in the reference's pattern, so they are part of what is matched. */
#define PHONE                                                                                     \
        "/(?:" COUNTRY "(?:\\d\\s?){8,11})|(?:" COUNTRY "(?:\\(?\\d{2,3}\\)?[-.\\s*]?)?\\d{2,3}[-.\\s*]?\\d{2,6})|" \
        "(?:(?:(?:\\(\\+?\\d{1,2}\\))|(?:\\+?\\d{1,2}))\\s*\\d{2}\\s*\\d{3}\\s*\\d{4})/gm"
#define LABEL "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
#define EMAIL "(?i)([A-Za-z0-9!#$%&'*+\\/=?^_{|.}~-]+@(?:" LABEL "\\.)+" LABEL ")"
#define IN_BRACKETS "\\((?:[^\\s()<>]+|(?:\\([^\\s()<>]+\\)))*\\)"
#define LINK                                                                                        \
        "(?:(?:https?:\\/\\/)(?:[a-z0-9.\\-]+|www|[a-z0-9.\\-])[.](?:[^\\s()<>]+|" IN_BRACKETS ")+(?:" \
        IN_BRACKETS "|[^\\s!()\\[\\]{};:'\".,<>?]))"
#define GIT "((git|ssh|http(s)?)|(git@[\\w\\.]+))(:(\\/\\/)?)([\\w\\.@\\:/\\-~]+)(\\.git)(\\/)?"

static const struct {
        const char *instead; /* NULL = what it matches is left alone */
        const char *pattern;
} kinds[] = { /* of two that match the same, the later one counts */
        {"<STREET_ADDRESS>", "(?i)\\d{1,4} [\\w\\s]{1,20}(?:" STREETS ")\\W?"},
        {"<CREDIT_CARD>", "(?:(?:(?:\\d{4}[- ]?){3}\\d{4}|\\d{15,16}))"},
        {"<PHONE_NUMBER>", PHONE_WITH_EXTENSION},
        {"<PHONE_NUMBER>", PHONE},
        {"<EMAIL_ADDRESS>", EMAIL},
        {"<IP>", IPV4 "|" IPV6},
        {"<ZIP_CODE>", "\\b\\d{5}(?:[-\\s]\\d{4})?\\b"},
        {"<PO_BOX>", "(?i)P\\.? ?O\\.? Box \\d+"},
        {"<US_SSN>", "(?:\\d{3}-\\d{2}-\\d{4})"},
        {"<ISBN>", "(?:[\\d]-?){9}[\\dxX]"},
        {"<ISBN>", "(?:[\\d]-?){12}[\\dxX]"},
        {"<MAC_ADDRESS>", "(([a-fA-F0-9]{2}[:-]){5}([a-fA-F0-9]{2}))"},
        {"<IBAN>", "[A-Z]{2}\\d{2}[A-Z0-9]{4}\\d{7}([A-Z\\d]?){0,16}"},
        {NULL, LINK},
        {NULL, GIT},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct pii {
        struct arena arena; /* the patterns */
        struct regex *re[KINDS];
};

int pii_new(struct pii **ret)
{
        struct pii *p = calloc(1, sizeof *p);
        const char *err;
        int r = p ? 0 : -ENOMEM;
        for (size_t i = 0; !r && i < KINDS; i++)
                r = regex_compile(&p->re[i], str_of(kinds[i].pattern), &p->arena, &err);
        if (r)
                pii_free(p);
        else
                *ret = p;
        return r;
}

void pii_free(struct pii *p)
{
        if (p)
                arena_fini(&p->arena);
        free(p);
}

/* ---- matches ---- */

struct span {
        size_t start, end;
        uint32_t kind;
        bool cut;              /* its beginning belongs to the one before */
};
struct spans {
        struct span *v;
        size_t n, cap;
};
struct job {
        const struct pii *p;
        struct str text;
        struct arena scratch;
        struct spans found, kept_as_is;
        struct buf out;
};

static int add(struct arena *a, struct spans *s, struct span one)
{
        if (s->n == s->cap) {
                size_t cap = s->cap ? s->cap * 2 : 16;
                struct span *v = arena_grow(a, s->v, s->cap * sizeof *v, cap * sizeof *v);
                if (!v)
                        return -ENOMEM;
                s->v = v;
                s->cap = cap;
        }
        s->v[s->n++] = one;
        return 0;
}

static int by_place(const void *a, const void *b)
{
        const struct span *x = a, *y = b;
        if (x->start != y->start)
                return x->start < y->start ? -1 : 1;
        if (x->end != y->end)
                return x->end > y->end ? -1 : 1;
        return x->kind > y->kind ? -1 : x->kind < y->kind;
}

static int find_all(struct job *j)
{
        for (uint32_t i = 0; i < KINDS; i++) {
                struct spans *to = kinds[i].instead ? &j->found : &j->kept_as_is;
                struct regex_finder f;
                size_t start, end = 0;
                int r = regex_finder_init(&f, j->p->re[i], &j->scratch);
                while (!r && regex_find(&f, j->text, end, &start, &end) && end > start)
                        r = add(&j->scratch, to, (struct span){start, end, i, false});
                if (r)
                        return r;
        }
        if (j->found.n)
                qsort(j->found.v, j->found.n, sizeof *j->found.v, by_place);
        if (j->kept_as_is.n)
                qsort(j->kept_as_is.v, j->kept_as_is.n, sizeof *j->kept_as_is.v, by_place);
        return 0;
}

static void join(struct spans *s)
{
        size_t n = 0, end = 0;
        for (size_t i = 0; i < s->n; i++) {
                struct span one = s->v[i];
                if (one.end <= end)
                        continue;
                one.cut = n && one.start <= end;
                if (one.start < end)
                        one.start = end;
                end = one.end;
                s->v[n++] = one;
        }
        s->n = n;
}

/* Drops what touches one of the others; a span that was cut begins a byte later for this, as in the reference. Both are sorted. */
static void drop_touching(struct spans *s, const struct spans *others)
{
        size_t n = 0, i = 0;
        for (size_t k = 0; i < s->n && k < others->n; k++) {
                while (i < s->n && s->v[i].end < others->v[k].start)
                        s->v[n++] = s->v[i++];
                while (i < s->n && s->v[i].start + s->v[i].cut <= others->v[k].end)
                        i++;
        }
        while (i < s->n)
                s->v[n++] = s->v[i++];
        s->n = n;
}

static int scrub(void *arg)
{
        struct job *j = arg;
        size_t at = 0;
        int r = find_all(j);
        if (r)
                return r;
        join(&j->found);
        drop_touching(&j->found, &j->kept_as_is);
        for (size_t i = 0; i < j->found.n; i++) {
                const struct span *s = &j->found.v[i];
                buf_add(&j->out, j->text.p + at, s->start - at);
                buf_addz(&j->out, kinds[s->kind].instead);
                at = s->end;
        }
        if (j->found.n)
                buf_add(&j->out, j->text.p + at, j->text.n - at);
        return j->out.failed ? -ENOMEM : 0;
}

int pii_scrub(struct pii *p, struct str text, struct arena *a, struct str *ret)
{
        struct job j = {.p = p, .text = text};
        int r = text.n > PII_INLINE_BYTES && fiber_self() ? work_run(scrub, &j) : scrub(&j);
        if (!r) {
                char *copy = j.found.n ? arena_strdup(a, buf_str(&j.out)) : NULL;
                if (j.found.n && !copy)
                        r = -ENOMEM;
                else
                        *ret = copy ? str_n(copy, buf_len(&j.out)) : text;
        }
        buf_fini(&j.out);
        arena_fini(&j.scratch);
        return r;
}
