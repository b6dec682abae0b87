/* A plugin.yaml from a stranger: it is refused with a text, or what it says can be asked for. */
#include <stdlib.h>

#include "kernel/super/manifest.h"
#include "sdk/base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct manifest *m = NULL;
        const char *err = NULL;
        struct arena a;

        log_set_level(LOG_FATAL);
        arena_init(&a, 16 << 20);
        if (manifest_parse(str_n(data, size), "/p/plugin.yaml", &m, &a, &err) == 0) {
                must(m->name && m->version && m->executable && m->n_types);
                manifest_field(m, "a");
                rights_need_metadata(&m->rights);
                manifest_free(m);
        } else {
                must(err && *err);
        }
        arena_fini(&a);
        return 0;
}
