/* Access control: the section of a Configuration, and behind a NUL an operation that a stranger asks for. */
#include "kernel/policy/acl.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A section of every form, so that operations meet a tree also when the input holds none. */
static const char known[] =
        "{\"defaultAction\":\"deny\",\"trustDomain\":\"public\",\"policies\":[{\"appId\":\"a\",\"defaultAction\":\"deny\",\"trustDomain\":\"public\","
        "\"namespace\":\"n\",\"operations\":[{\"name\":\"/x/**\",\"httpVerb\":[\"GET\"],\"action\":\"allow\"},{\"name\":\"/x/*/y\",\"httpVerb\":[\"*\"],"
        "\"action\":\"deny\"},{\"name\":\"/z\",\"action\":\"allow\"}]}]}";

static void ask(struct str section, bool is_http, struct str operation)
{
        static const struct acl_caller callers[] = {{STR("public"), STR("n"), STR("a")}, {STR(""), STR(""), STR("")}};
        const char *err = NULL;
        struct acl *l = NULL;
        struct arena a;

        arena_init(&a, 16 << 20);
        if (acl_new(&l, section, is_http, &a, &err)) {
                must(err && *err);
        } else if (l) {
                for (int i = 0; i < 2; i++) {
                        enum acl_decider by;
                        bool same = acl_allows(l, &callers[i], operation, STR("GET"), &by);
                        must(same == acl_allows(l, &callers[i], operation, STR("GET"), &by));
                        acl_allows(l, &callers[i], operation, STR(""), &by);
                }
        }
        acl_free(l);
        arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str rest = str_n(data, size), section = str_cut(&rest, '\0');

        log_set_level(LOG_FATAL);
        if (!rest.p)
                rest = STR("x/y/z");
        if (json_valid(section)) {
                ask(section, true, rest);
                ask(section, false, rest);
        }
        ask(STR(known), true, rest);
        ask(STR(known), false, rest);
        return 0;
}
