/* A package from a stranger: whatever it is, it is refused or can be written again to the same bytes. */
#include <stdlib.h>

#include "ctl/package/package_impl.h"
#include "ctl/package/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Half of the inputs are archives, half are the list of files of an archive that fits otherwise. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct arena a;
        struct package *p = NULL;
        struct buf archive = {0}, again = {0};
        const char *err;
        if (size == 0)
                return 0;
        arena_init(&a, 64 * 1024 * 1024);
        if (data[0] & 1) {
                buf_add(&archive, data + 1, size - 1);
        } else {
                tar_add(&archive, PACKAGE_LIST, false, str_n(data + 1, size - 1));
                tar_add(&archive, PACKAGE_MANIFEST, false, STR("name: a\nversion: 1.0.0\ntypes: [{type: a}]\n"));
                tar_add(&archive, "a", true, STR("#!/bin/sh\n"));
                tar_end(&archive);
        }
        if (package_parse(buf_str(&archive), "fuzz", &p, &a, &err) == 0) {
                if (package_write(p, &again) || !str_eq(buf_str(&archive), buf_str(&again)))
                        abort();
                package_free(p);
        }
        struct minisign_signature s;
        struct minisign_public key;
        struct minisign_secret secret;
        minisign_read_signature(str_n(data, size), &s, &err);
        minisign_read_public(str_n(data, size), &key, &err);
        minisign_read_secret(str_n(data, size), STR_NULL, &secret, &err);
        buf_fini(&archive);
        buf_fini(&again);
        arena_fini(&a);
        return 0;
}
