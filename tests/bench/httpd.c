/*
 * A server for load generators and protocol testers (wrk, h2load, h2spec, curl). Prints its port.
 *   httpd_bench [addr] [cert.pem key.pem]
 *   GET /            13 bytes        GET /big?n=BYTES   so many bytes     GET /sleep?ms=N    answers later
 *   POST /echo       the body        GET /stream?n=N    N chunks, trailer
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sdk/base/loop.h"
#include "sdk/net/http.h"
#include "sdk/net/tls.h"

static const struct http_header plain[] = {{STR("Content-Type"), STR("text/plain; charset=utf-8")}};

static int64_t query_number(struct http_req *r, const char *name, int64_t def)
{
        struct str rest = r->query, k, v;
        while (query_next(r->arena, &rest, &k, &v))
                if (str_eqz(k, name))
                        def = strtoll(arena_strdup(r->arena, v), NULL, 10);
        return def;
}

static void echo(struct http_req *r)
{
        struct str body;
        int e = http_req_body(r, &body);
        if (e)
                http_resp_send(r, e == -EMSGSIZE ? 413 : 400, plain, 1, STR("bad body"));
        else
                http_resp_send(r, 200, plain, 1, body);
}

static void stream(struct http_req *r)
{
        const struct http_header trailer = {STR("X-Chunks"), STR("done")};
        int64_t n = query_number(r, "n", 10);
        int e = http_resp_begin(r, 200, plain, 1, -1);
        for (int64_t i = 0; i < n && !e; i++)
                e = http_resp_write(r, STR("a line of the stream\n"));
        if (!e)
                http_resp_end(r, &trailer, 1);
}

static void big(struct http_req *r)
{
        static char block[65536];
        int64_t n = query_number(r, "n", 1 << 20);
        memset(block, 'b', sizeof(block));
        int e = http_resp_begin(r, 200, plain, 1, n);
        for (; n > 0 && !e; n -= (int64_t)sizeof(block))
                e = http_resp_write(r, str_n(block, n < (int64_t)sizeof(block) ? (size_t)n : sizeof(block)));
        if (!e)
                http_resp_end(r, NULL, 0);
}

static void handle(struct http_req *r, void *arg)
{
        struct str body;
        if (str_eq(r->path, STR("/"))) {
                /* h2spec looks at streams that the client has not ended yet: read to the end first. */
                if (r->content_length != 0 && http_req_body(r, &body))
                        return;
                http_resp_send(r, 200, plain, 1, STR("Hello, world!"));
        } else if (str_eq(r->path, STR("/echo"))) {
                echo(r);
        } else if (str_eq(r->path, STR("/stream"))) {
                stream(r);
        } else if (str_eq(r->path, STR("/big"))) {
                big(r);
        } else if (str_eq(r->path, STR("/sleep"))) {
                if (fiber_sleep((double)query_number(r, "ms", 100) / 1000) == 0)
                        http_resp_send(r, 200, plain, 1, STR("slept"));
        } else {
                http_resp_send(r, 404, plain, 1, STR("not found"));
        }
}

static struct str read_file(const char *path)
{
        static char text[2][65536];
        static int next;
        char *to = text[next++ % 2];
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, to, sizeof(text[0]));
        if (n < 0) {
                perror(path);
                exit(1);
        }
        close(fd);
        return str_n(to, (size_t)n);
}

static struct http_server *server;

static void stop_fiber(void *arg)
{
        http_server_stop(server, 2);
        loop_stop();
}

static void on_signal(struct sig_watch *w, int signo)
{
        static struct scope s = SCOPE_INIT(s);
        fiber_go(&s, "stop", stop_fiber, NULL);
}

int main(int argc, char **argv)
{
        static const char *const alpn[] = {"h2", "http/1.1", NULL};
        struct http_server_conf conf = {.name = "bench", .handler = handle, .max_body_bytes = 64 << 20};
        struct sig_watch term = {0}, intr = {0};
        char err[256];
        loop_init();
        if (argc > 3) {
                struct tls_options o = {.server = true, .cert_pem = read_file(argv[2]), .key_pem = read_file(argv[3]), .alpn = alpn};
                if (tls_context_new(&conf.tls, &o, err, sizeof(err))) {
                        fprintf(stderr, "%s\n", err);
                        return 1;
                }
        }
        int r = http_server_new(&server, &conf);
        if (!r)
                r = http_server_listen(server, str_of(argc > 1 ? argv[1] : "127.0.0.1:0"));
        if (r) {
                fprintf(stderr, "listen: %s\n", strerror(-r));
                return 1;
        }
        printf("%d\n", http_server_port(server));
        fflush(stdout);
        sig_watch_start(&term, SIGTERM, on_signal);
        sig_watch_start(&intr, SIGINT, on_signal);
        loop_run();
        http_server_free(server);
        tls_context_unref(conf.tls);
        loop_fini();
        return 0;
}
