/* See near.h. */
#include "sdk/base/near.h"

#include <strings.h>

unsigned edit_distance(struct str a, struct str b, unsigned max)
{
        unsigned row[65];
        if (a.n > 64 || b.n > 64)
                return str_ieq(a, b) ? 0 : max + 1;
        for (unsigned j = 0; j <= b.n; j++)
                row[j] = j;
        for (unsigned i = 1; i <= a.n; i++) {
                unsigned diagonal = row[0]++;
                for (unsigned j = 1; j <= b.n; j++) {
                        bool same = strncasecmp(a.p + i - 1, b.p + j - 1, 1) == 0;
                        unsigned best = diagonal + !same;
                        if (row[j] + 1 < best)
                                best = row[j] + 1;
                        if (row[j - 1] + 1 < best)
                                best = row[j - 1] + 1;
                        diagonal = row[j];
                        row[j] = best;
                }
        }
        return row[b.n] > max ? max + 1 : row[b.n];
}
