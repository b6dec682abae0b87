/* An app's answer to /dapr/subscribe. */
#include <errno.h>

#include "kernel/resources/subscription.h"
#include "sdk/base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct subscription_spec **v = NULL;
        const char *err = NULL;
        struct arena a;
        size_t n = 0;

        log_set_level(LOG_FATAL);
        arena_init(&a, 16 << 20);
        int r = subscription_read_list(&a, str_n(data, size), &v, &n, &err);
        must(r == 0 || r == -ENOMEM || (err && *err));
        for (size_t i = 0; r == 0 && i < n; i++) {
                must(v[i]->pubsub && v[i]->topic && v[i]->dead_letter);
                subscription_metadata(v[i], "rawPayload");
        }
        arena_fini(&a);
        return 0;
}
