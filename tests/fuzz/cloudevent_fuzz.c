/*
 * CloudEvents: any bytes as a message that a broker delivers, as an event that an app publishes, and as data to be wrapped. What is
 * read or made must be valid JSON and read again to the same.
 */
#include <stdlib.h>

#include "kernel/blocks/pubsub/event.h"
#include "sdk/base/json.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_delivered(struct arena *a, struct str in)
{
        struct event_add add[] = {{"traceid", STR("t"), false}, {"topic", STR("\"x"), true}};
        const char *err = NULL;
        struct event e;

        if (event_read(a, in, &e, &err)) {
                must_hold(err && *err);
                return;
        }
        must_hold(json_valid(e.json));
        for (int i = 0; i < EVENT_FIELDS; i++) {
                must_hold(!e.raw[i].p || json_valid(e.raw[i]));
                event_text(a, &e, (enum event_field)i);
                event_show(a, &e, (enum event_field)i);
        }
        event_has_expired(a, &e);
        event_trace(a, &e);
        event_path(a, &e, STR("data.a.b"));
        must_hold(json_valid(event_extensions(a, &e)));
        must_hold(event_extend(a, &e, add, 2) == 0 && json_valid(e.json));
        must_hold(str_eq(event_text(a, &e, EVENT_TOPIC), STR("\"x")));
}

static void check_published(struct arena *a, struct str in, const char *content_type)
{
        struct event_new p = {.topic = STR("t"), .pubsub = STR("p"), .content_type = str_of(content_type), .data = in, .has_ttl = true,
                              .ttl_ns = INT64_C(3600) * 1000000000};
        const char *err = NULL;
        struct buf b = {0};
        struct event e;

        if (event_write(&b, a, &p, &err) == 0) {
                must_hold(json_valid(buf_str(&b)) && event_read(a, buf_str(&b), &e, &err) == 0);
                must_hold(str_eq(event_text(a, &e, EVENT_TOPIC), STR("t")) && !event_has_expired(a, &e));
        } else {
                must_hold(err && *err && content_is_event(p.content_type));
        }
        buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        static const char *const types[] = {"application/cloudevents+json", "application/json", "text/plain", "application/octet-stream",
                                            "application/x-protobuf"};
        struct arena a = {0};

        check_delivered(&a, str_n(data, n));
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
                check_published(&a, str_n(data, n), types[i]);
        arena_fini(&a);
        return 0;
}
