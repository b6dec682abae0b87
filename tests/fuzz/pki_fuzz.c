/* Certificates that a peer shows: DER, and PEM from an authority. */
#include "sdk/net/pki.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char uri[300];
        int64_t from, to;

        if (pki_uri(str_n(data, size), uri, sizeof uri) == 0 && strlen(uri) >= sizeof uri)
                abort();
        pki_has_uri(str_n(data, size), STR("spiffe://public/ns/default/a"));
        pki_validity(str_n(data, size), &from, &to);
        return 0;
}
