/* Any bytes as a ledger: refused with a text, or read into something that can be written and read again. */
#include <stdint.h>

#include "kernel/super/ledger.h"
#include "sdk/base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct ledger l, again;
        const char *err = NULL;
        ledger_init(&l);
        int r = ledger_parse(&l, str_n((const char *)data, n), &err);
        must(r == 0 || err);
        if (r == 0) {
                ledger_init(&again);
                must(ledger_read(&again, ledger_write(&l), &err) == 0 && again.n_plugins == l.n_plugins && again.n_fds == l.n_fds);
                ledger_fini(&again);
        }
        ledger_fini(&l);
        return 0;
}
