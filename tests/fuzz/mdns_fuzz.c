/* Multicast DNS packets: any bytes are read to their end or refused; names that were read can be written and compare equal. */
#include <stdlib.h>

#include "plugins/nameresolution.mdns/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const struct mdns_name *name)
{
        struct mdns_writer w;
        struct mdns_reader r;
        struct mdns_record rec;

        mdns_write_init(&w, 0, false);
        mdns_write_question(&w, name, MDNS_PTR);
        if (w.failed || mdns_read_init(&r, str_n(w.b, w.n)) || mdns_read(&r, &rec) != 1 || !mdns_name_eq(name, &rec.name))
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct mdns_reader r;
        struct mdns_record rec;
        uint8_t key[MDNS_NAME_MAX];

        if (mdns_read_init(&r, str_n(data, n)))
                return 0;
        for (int i = 0; mdns_read(&r, &rec) == 1; i++) {
                if (i >= MDNS_RECORDS_MAX)
                        abort();
                check(&rec.name);
                if (rec.target.n)
                        check(&rec.target);
                for (size_t k = 0; k < rec.text.n; k++)
                        key[0] = (uint8_t)rec.text.p[k];
                struct str rest = mdns_name_key(&rec.name, key);
                for (size_t l; (l = mdns_label_bytes(rest));)
                        rest = str_skip(rest, l);
        }
        return 0;
}
