/* Cron expressions and time zone files: a good expression has moments that go up. */
#include <stdlib.h>

#include "sdk/base/cron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void walk(struct cron *c)
{
        int64_t at = 1767225600000000000, next;

        for (int i = 0; i < 4 && cron_next(c, at, &next); i++) {
                if (next <= at)
                        abort();
                at = next;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct cron c;
        struct tz *zone;
        char err[64];

        if (n < 1)
                return 0;
        if (data[0] & 1) {
                if (tz_parse(&zone, str_n(data + 1, n - 1)) == 0) {
                        for (int64_t t = -4000000000; t < 8000000000; t += 500000001)
                                tz_offset(zone, t);
                        c = (struct cron){.second = 1, .minute = 1, .hour = 4, .day = ~UINT64_C(0), .month = ~UINT64_C(0),
                                          .weekday = ~UINT64_C(0), .zone = zone};
                        walk(&c);
                        tz_free(zone);
                }
        } else if (cron_parse(&c, str_n(data + 1, n - 1), CRON_SECONDS_OPTIONAL, err, sizeof err) == 0) {
                walk(&c);
                cron_fini(&c);
        }
        return 0;
}
