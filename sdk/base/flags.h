/*
 * Command-line flags as one table per program: a row gives name, kind, default, help text. `--help`, the man page and shell
 * completion are made from the rows. As the reference: `--flag value`, `--flag=value`, one dash or two; a boolean may stand
 * alone; repeated and comma-separated values for lists; the last value wins for scalars.
 */
#ifndef SDK_BASE_FLAGS_H
#define SDK_BASE_FLAGS_H

#include <stdbool.h>
#include <stdio.h>

#include "sdk/base/str.h"

enum flag_kind {
        FLAG_BOOL,     /* bool *            true/false/1/0/t/f, or alone */
        FLAG_TRISTATE, /* int *             -1 unset, 0, 1 */
        FLAG_STRING,   /* const char ** */
        FLAG_INT,      /* int * */
        FLAG_INT64,    /* int64_t * */
        FLAG_PORT,     /* int *             0..65535; -1 = unset (default "") */
        FLAG_LIST,     /* struct flag_list* comma-separated and repeatable */
        FLAG_ARRAY,    /* struct flag_list* repeatable, commas kept */
        FLAG_DURATION, /* int64_t *         nanoseconds, Go syntax 1h2m3.5s; -1 = unset */
        FLAG_QUANTITY, /* int64_t *         bytes, Kubernetes syntax 4Mi 4Ki 100M 1e3 */
        FLAG_GROUP,    /* a heading in --help; no value */
};
enum flag_attr { FLAG_HIDDEN = 1, FLAG_DEPRECATED = 2, FLAG_LAST = 4 /* of a list given twice the last one counts */ };

struct flag_list {
        const char **v;
        size_t n;
};
struct flag_row {
        const char *name;
        enum flag_kind kind;
        size_t offset;           /* of the field in the program's options struct */
        const char *def;         /* default as text; NULL = kind's zero */
        const char *arg;         /* placeholder for help, e.g. "PORT" */
        const char *help;        /* one sentence */
        int attr;
        const char *note;        /* for FLAG_DEPRECATED: what to use instead */
        char short_name;         /* 'k' allows -k; 0 = none */
        size_t given;            /* offset of a bool that tells whether the flag was given; 0 = not asked for */
};
struct flag_program {
        const char *name, *summary;
        const char *usage;       /* "daprd [flags]" */
        const char *examples;    /* shown at the end of --help */
        const struct flag_row *rows;
        size_t n_rows;
        const char *exits;       /* what the exit code says, as a sentence; NULL = 0 it is done, 1 it is not */
};

/* Fills *opts (defaults first; a string is never NULL). Strings are borrowed from argv and the rows, lists are copies. Returns
 * the number of positional arguments (moved to the front of argv[1..]), or -EINVAL with a sentence in err that names the flag,
 * the value and the fix; -ECANCELED when --help was asked for and printed; -ENOMEM. Nothing is to be freed after a failure.
 * "--" ends flags. A boolean takes its value only by '=': `--flag false` leaves "false" as a positional argument. */
int flags_parse(const struct flag_program *p, void *opts, int argc, char **argv, char *err, size_t err_n);
void flags_free(const struct flag_program *p, void *opts);
void flags_help(const struct flag_program *p, FILE *to, bool color);
void flags_man(const struct flag_program *p, FILE *to);      /* man page, section 1, roff */
void flags_markdown(const struct flag_program *p, FILE *to); /* reference page */
/* A completion script for "bash", "zsh" or "fish"; nothing for another name. */
void flags_completion(const struct flag_program *p, const char *shell, FILE *to);
/* What stands for the value in texts: the row's `arg` or a word for its kind; NULL when it takes none. */
const char *flag_placeholder(const struct flag_row *row);

/* Also used by the YAML readers. 0 or -EINVAL. */
int parse_bool(struct str s, bool *ret);           /* Go strconv.ParseBool */
int parse_duration(struct str s, int64_t *ret_ns); /* Go time.ParseDuration */
int parse_quantity(struct str s, int64_t *ret);    /* Kubernetes resource.Quantity, as bytes */
bool parse_truthy(const char *z);                  /* the reference's toggles: y, yes, true, t, on, 1, any case, blanks around; NULL = no */
int parse_int64(struct str s, int64_t *ret);       /* Go strconv.ParseInt(s, 0, 64): 0x, 0o, 0b, leading 0 = octal; no underscores */

#endif
