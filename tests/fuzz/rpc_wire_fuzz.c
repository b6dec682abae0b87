/*
 * gRPC's wire forms: whatever comes in is refused or read; what was read is written as the same thing again. The input is one
 * value for each reader in turn; as a gzip stream it is bounded by a limit.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sdk/net/rpc_wire.h"

#define must_hold(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void frames(struct str s)
{
        struct rpc_frame f;
        char head[RPC_FRAME_HEAD];
        while (rpc_frame_get(s, &f) == 1) {
                rpc_frame_put(head, f.compressed, f.n);
                must_hold(memcmp(head, s.p, sizeof(head)) == 0);
                s = str_skip(s, RPC_FRAME_HEAD);
                s = str_skip(s, f.n < s.n ? f.n : s.n);
        }
}

static void timeout(struct str s)
{
        char out[RPC_TIMEOUT_BYTES];
        double t, back;
        if (rpc_timeout_parse(s, &t))
                return;
        size_t n = rpc_timeout_format(out, t);
        must_hold(n >= 2 && n <= 9 && rpc_timeout_parse(str_n(out, n), &back) == 0);
        must_hold(t <= 0 || back >= t * (1 - 1e-6) || t > 99999999.0 * 3600);
}

static void metadata(struct arena *a, struct str s)
{
        const struct rpc_md md[] = {{s, s}, {STR("a-bin"), s}, {STR("a"), s}};
        struct http_header h[3];
        size_t n = 0;
        struct rpc_mdlist back = {0};
        must_hold(rpc_md_to_headers(a, md, 3, h, &n) == 0 && n >= 1 && n <= 3);
        const struct http_headers l = {h, n, n};
        must_hold(rpc_md_from_headers(a, &l, true, &back) == 0 && back.n == n);
        must_hold(str_eq(rpc_md_get(&back, "a-bin"), s) || str_eqz(s, "a-bin"));
        const struct http_headers raw = {&(struct http_header){STR("x-bin"), s}, 1, 1};
        must_hold(rpc_md_from_headers(a, &raw, false, &back) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct arena a = {0};
        struct str s = {(const char *)data, n}, out;
        frames(s);
        timeout(s);
        struct str decoded = rpc_percent_decode(&a, s);
        must_hold(decoded.p && decoded.n <= s.n);
        must_hold(str_eq(rpc_percent_decode(&a, rpc_percent_encode(&a, s)), s));
        metadata(&a, s);
        int r = rpc_gunzip(&a, s, 10000, &out);
        must_hold(r == 0 || r == -EBADMSG || r == -EMSGSIZE);
        must_hold(r || out.n <= 10000);
        struct str z = rpc_gzip(&a, s);
        must_hold(rpc_gunzip(&a, z, (int64_t)n, &out) == 0 && str_eq(out, s));
        rpc_is_grpc_content(s);
        arena_fini(&a);
        return 0;
}
