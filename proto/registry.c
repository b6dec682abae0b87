/*
 * Look-ups in the generated tables: binary search, all tables are sorted by bytes. The files are few and searched in line.
 */
#include "proto/registry.h"

#include <stdio.h>

static int compare(struct str a, const char *z)
{
        size_t n = strlen(z), shorter = a.n < n ? a.n : n;
        int c = shorter ? memcmp(a.p, z, shorter) : 0;
        return c ? c : (a.n > n) - (a.n < n);
}

const struct pb_method *pb_method_find(struct str path)
{
        size_t lo = 0, hi = pb_methods_n;
        while (lo < hi) {
                size_t mid = lo + (hi - lo) / 2;
                int c = compare(path, pb_methods[mid].path);
                if (c == 0)
                        return &pb_methods[mid];
                if (c < 0)
                        hi = mid;
                else
                        lo = mid + 1;
        }
        return NULL;
}

const ProtobufCMessageDescriptor *pb_message_find(struct str full_name)
{
        size_t lo = 0, hi = pb_messages_n;
        while (lo < hi) {
                size_t mid = lo + (hi - lo) / 2;
                int c = compare(full_name, pb_messages[mid]->name);
                if (c == 0)
                        return pb_messages[mid];
                if (c < 0)
                        hi = mid;
                else
                        lo = mid + 1;
        }
        return NULL;
}

const struct pb_file *pb_file_find(struct str name)
{
        for (size_t i = 0; i < pb_files_n; i++)
                if (str_eqz(name, pb_files[i].name))
                        return &pb_files[i];
        return NULL;
}

static const struct pb_symbol *symbol_find(struct str name)
{
        size_t lo = 0, hi = pb_symbols_n;
        while (lo < hi) {
                size_t mid = lo + (hi - lo) / 2;
                int c = compare(name, pb_symbols[mid].name);
                if (c == 0)
                        return &pb_symbols[mid];
                if (c < 0)
                        hi = mid;
                else
                        lo = mid + 1;
        }
        return NULL;
}

static bool is_method(struct str service, struct str name)
{
        char path[256];
        int n = snprintf(path, sizeof path, "/%.*s/%.*s", STR_FMT(service), STR_FMT(name));
        return n > 0 && (size_t)n < sizeof path && pb_method_find(str_n(path, (size_t)n));
}

const struct pb_file *pb_file_of_symbol(struct str symbol)
{
        const struct pb_symbol *s = symbol_find(symbol);
        if (!s) { /* a method: its service declares it */
                ptrdiff_t dot = (ptrdiff_t)symbol.n;
                while (dot > 0 && symbol.p[dot - 1] != '.')
                        dot--;
                if (dot > 0 && is_method(str_n(symbol.p, (size_t)dot - 1), str_skip(symbol, (size_t)dot)))
                        s = symbol_find(str_n(symbol.p, (size_t)dot - 1));
        }
        return s ? &pb_files[s->file] : NULL;
}
