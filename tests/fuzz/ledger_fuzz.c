/* Any bytes as a ledger, with its frame and without: refused with a text, or read into something that can be written and read again. */
#include <stdint.h>

#include "kernel/super/ledger_file.h"
#include "sdk/base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void framed(struct str bytes, bool good)
{
        struct ledger_head head;
        struct ledger l;
        const char *err = NULL;
        ledger_init(&l);
        int r = ledger_unframe(&l, bytes, &head, &err);
        must(r == 0 || (err && !good));
        ledger_fini(&l);
}

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
                struct buf b = {0};
                if (ledger_frame(&l, &b) == 0)
                        framed(buf_str(&b), true);
                buf_fini(&b);
        }
        framed(str_n((const char *)data, n), false);
        ledger_fini(&l);
        return 0;
}
