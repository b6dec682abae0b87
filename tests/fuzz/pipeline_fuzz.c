/* Whatever a filter says about a request, what goes on is a request: a method, a path, a query and headers that fit on the wire. */
#include <stdint.h>
#include <stdlib.h>

#include "kernel/pipeline/internal.h"
#include "sdk/base/log.h"
#include "sdk/net/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_headers(const struct http_headers *h)
{
        for (size_t i = 0; i < h->n; i++) {
                must(http1_is_token(h->v[i].name));
                for (size_t k = 0; k < h->v[i].value.n; k++)
                        must(h->v[i].value.p[k] != '\r' && h->v[i].value.p[k] != '\n' && h->v[i].value.p[k] != 0);
        }
}

static void check(const struct way *w, int r)
{
        const struct pipeline_head *h = &w->x.head;

        check_headers(&h->headers);
        check_headers(&w->added);
        if (r == PASSAGE_FAILED) {
                must(w->x.fault && w->x.fault_status >= 500);
                return;
        }
        if (r == PASSAGE_ANSWERED) {
                must(w->x.answer.status >= 200 && w->x.answer.status <= 599);
                check_headers(&w->x.answer.headers);
                return;
        }
        must(http1_is_token(h->method) && h->path.n && h->path.p[0] == '/');
        for (size_t i = 0; i < h->path.n; i++)
                must((unsigned char)h->path.p[i] > ' ' && h->path.p[i] != '?' && h->path.p[i] != '#');
        for (size_t i = 0; i < h->query.n; i++)
                must((unsigned char)h->query.p[i] > ' ' && h->query.p[i] != '#');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        static const struct pipeline_handler handler = {"f", "middleware.http.f", ""};
        struct arena a;
        struct way w = {.arena = &a};
        const PB(HttpDecision) *d;

        log_set_level(LOG_FATAL);
        arena_init(&a, 8 << 20);
        w.x.head = (struct pipeline_head){.method = STR("GET"), .path = STR("/a"), .query = STR("")};
        must(!http_headers_add(&w.x.head.headers, &a, STR("x"), STR("y")));
        d = pb_unpack_borrow(&a, &microdapr__plugin__v1__http_decision__descriptor, str_n(data, n));
        if (d)
                check(&w, pipeline_decide_request(&w, &handler, d, false));
        arena_fini(&a);
        return 0;
}
