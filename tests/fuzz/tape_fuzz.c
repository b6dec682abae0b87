/* A recording from a stranger: it is refused, or what it gives lies within the arena's means. */
#include <stdlib.h>

#include "ctl/tape.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct arena a;
        struct tape_head h;
        struct tape_call *calls = NULL;
        size_t n = 0;
        const char *err = NULL;
        arena_init(&a, 64 * 1024 * 1024);
        int r = tape_parse(&a, str_n(data, size), "fuzz", &h, &calls, &n, &err);
        if (r && !err)
                abort();
        for (size_t i = 0; !r && i < n; i++)
                if (calls[i].method.n > size || calls[i].request.n > size || calls[i].response.n > size)
                        abort();
        arena_fini(&a);
        return 0;
}
