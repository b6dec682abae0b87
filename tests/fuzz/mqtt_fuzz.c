/* What a broker sends: packets one after the other; each that is taken lies within the input. */
#include "plugins/shared/mqtt/packet.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void within(struct str part, struct str all)
{
        if (part.n && (part.p < all.p || part.p + part.n > all.p + all.n))
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = str_n(data, size), filter = in, topic = str_cut(&filter, '\0');
        struct mqtt_packet p;
        size_t used;

        while (mqtt_packet_get(in, &p, &used) == 1) {
                struct mqtt_publish m;
                if (!used || used > in.n)
                        abort();
                within(p.body, in);
                mqtt_id_get(&p);
                if (mqtt_publish_get(&p, &m) == 0) {
                        within(m.topic, p.body);
                        within(m.payload, p.body);
                        mqtt_topic_fits(STR("a/+/#"), m.topic);
                }
                in = str_skip(in, used);
        }
        if (filter.p)
                mqtt_topic_fits(filter, topic);
        return 0;
}
