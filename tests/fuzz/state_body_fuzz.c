/*
 * What clients and stores send to the state API: JSON bodies, query documents, replies of stores, encrypted values. Whatever comes
 * in, nothing breaks; and: valid JSON stays the same value without its white space, and faults are found in invalid texts only.
 */
#include <stdlib.h>

#include "dapr/proto/components/v1/state.pb-c.h"
#include "kernel/front/json_fault.h"
#include "kernel/blocks/state_json.h"
#include "kernel/blocks/state_key.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct encryption encryption(void)
{
        static struct encryption e;
        struct arena a = {0};
        const char *err;
        if (!e.primary)
                must_hold(!encryption_key_new(&e.primary, "k", "000102030405060708090a0b0c0d0e0f", &a, &err));
        arena_fini(&a);
        return e;
}

static void read_json(struct arena *a, struct str s)
{
        struct state_item i;
        struct state_json j;
        bool valid = json_valid(s);
        const char *fault = json_fault(a, s, true);
        must_hold(!valid || !fault);
        must_hold(!fault || !json_fault(a, s, false) || json_fault(a, s, false)[0]);
        if (valid) {
                struct str compact = state_json_compact(a, s);
                must_hold(compact.n <= s.n && json_valid(compact));
                must_hold(state_json_compact(a, compact).p == compact.p);
        }
        state_json_begin(&j, a, s);
        state_json_item(&j, &i);
        must_hold(state_json_error(&j) || i.value.p);
}

static void read_query(struct arena *a, struct str s)
{
        Dapr__Proto__Components__V1__Query q = DAPR__PROTO__COMPONENTS__V1__QUERY__INIT;
        Dapr__Proto__Components__V1__Pagination page = DAPR__PROTO__COMPONENTS__V1__PAGINATION__INIT;
        q.pagination = &page;
        const char *z = arena_strdup(a, s);
        if (z && !state_query_read(a, z, &q))
                must_hold(json_valid(str_of(z)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct arena a;
        struct str s = str_n(data, n), text;
        struct state_value one, *many;
        size_t count;
        const char *err;
        struct encryption e = encryption();
        arena_init(&a, 64 * 1024 * 1024);
        read_json(&a, s);
        read_query(&a, s);
        state_read_get_response(&a, s, &one);
        state_read_bulk_response(&a, s, &many, &count);
        state_key_original(s);
        encryption_decrypt(&e, &a, "store", s, &text, &err);
        arena_fini(&a);
        return 0;
}
