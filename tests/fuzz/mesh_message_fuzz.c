/* Messages from other sidecars: whatever is read of them can be written and reads the same; what becomes HTTP headers has no line breaks. */
#include <stdlib.h>

#include "kernel/mesh/convert.h"
#include "kernel/mesh/message.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_headers(struct arena *a, const struct http_headers *md)
{
        struct http_headers h = {0};
        struct rpc_mdlist list = {0};

        must_hold(convert_internal_to_http(a, md, &h) == 0 && convert_internal_to_md(a, md, &list) == 0);
        for (size_t i = 0; i < h.n; i++)
                for (size_t j = 0; j < h.v[i].value.n; j++)
                        must_hold(h.v[i].value.p[j] != '\n' && h.v[i].value.p[j] != '\r');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct str msg = str_n(data, n);
        struct mesh_request q = {0}, q2 = {0};
        struct mesh_response r = {0}, r2 = {0};
        struct mesh_payload p, p2;
        const char *err;
        struct arena a;
        bool has_head, has_head2;

        arena_init(&a, 0);
        if (mesh_read_request(&a, msg, &q, &has_head, &p) == 0 && has_head) {
                struct str again = mesh_put_request(&a, &q, p.present ? p.data : STR_NULL);
                must_hold(again.p && mesh_read_request(&a, again, &q2, &has_head2, &p2) == 0 && has_head2);
                must_hold(str_eq(q.method, q2.method) && q.md.n == q2.md.n && str_eq(p.data, p2.data));
                check_headers(&a, &q.md);
                struct str method = convert_method(&a, q.method, &err);
                if (method.p)
                        convert_path(&a, "http://h", method, STR(""), &err);
        }
        if (mesh_read_response(&a, msg, &r, &has_head, &p) == 0 && has_head) {
                struct str again = mesh_put_response(&a, &r, STR_NULL);
                must_hold(again.p && mesh_read_response(&a, again, &r2, &has_head2, &p2) == 0);
                must_hold(r.code == r2.code && r.headers.n == r2.headers.n);
                check_headers(&a, &r.headers);
        }
        arena_fini(&a);
        return 0;
}
