/*
 * Command lines: the input is split at zero bytes into argv. Whatever comes in, a parse ends with a count, -EINVAL and a
 * sentence, or help; positional arguments stay within argv; the value parsers agree with themselves.
 */
#include <errno.h>
#include <stdlib.h>

#include "sdk/base/flags.h"
#include "sdk/base/log.h"

struct opts {
        bool b;
        int t, i, port;
        const char *s;
        int64_t n, d, q;
        struct flag_list l, a;
};

#define AT(f) offsetof(struct opts, f)
static const struct flag_row rows[] = {
        {"Group", FLAG_GROUP},
        {"bool", FLAG_BOOL, AT(b), .short_name = 'b'},
        {"tri", FLAG_TRISTATE, AT(t)},
        {"string", FLAG_STRING, AT(s), "x", .short_name = 's'},
        {"int", FLAG_INT, AT(i), .short_name = 'i'},
        {"number", FLAG_INT64, AT(n)},
        {"port", FLAG_PORT, AT(port), .short_name = 'p'},
        {"list", FLAG_LIST, AT(l), "a,b", .short_name = 'l'},
        {"array", FLAG_ARRAY, AT(a)},
        {"duration", FLAG_DURATION, AT(d)},
        {"quantity", FLAG_QUANTITY, AT(q)},
        {"help", FLAG_BOOL, AT(b)},
};
static const struct flag_program program = {"fuzz", "", "", NULL, rows, sizeof(rows) / sizeof(*rows)};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void values(struct str s)
{
        int64_t v;
        bool b;
        (void)parse_bool(s, &b);
        (void)parse_duration(s, &v);
        (void)parse_quantity(s, &v);
        if (parse_int64(s, &v) == 0) {
                char text[32];
                int64_t again = 0;
                snprintf(text, sizeof(text), "%lld", (long long)v);
                must(parse_int64(str_of(text), &again) == 0 && again == v);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        enum { ARGS_MAX = 64 };
        char *text = malloc(n + 1), *argv[ARGS_MAX + 1] = {"fuzz"}, err[128];
        int argc = 1;
        struct opts o;
        memcpy(text, data, n);
        text[n] = '\0';
        for (size_t i = 0; i < n && argc < ARGS_MAX; i += strlen(text + i) + 1) {
                if (strcmp(text + i, "-h") != 0)
                        argv[argc++] = text + i;
                values(str_of(text + i));
        }
        int r = flags_parse(&program, &o, argc, argv, err, sizeof(err));
        must(r >= 0 ? r < argc : r == -EINVAL && *err);
        if (r >= 0) {
                must(o.port >= -1 && o.port <= 65535 && o.s);
                flags_free(&program, &o);
        }
        free(text);
        return 0;
}
