/*
 * `daprd --wait`: waits until another daprd on this machine can serve outbound calls. It runs before there is a loop, so it
 * uses plain blocking sockets with time-outs; it holds nothing between two tries.
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "kernel/opts.h"

enum { TRY_TIMEOUT_MS = 500, TRY_PERIOD_MS = 100, STATUS_READY = 204, COMPLAIN_EVERY_MS = 1000 };

static int64_t now_ms(void)
{
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int connect_to(const struct addrinfo *a)
{
        const struct timeval limit = {.tv_usec = TRY_TIMEOUT_MS * 1000};
        int saved, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -errno;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
                return fd;
        saved = errno;
        close(fd);
        return -saved;
}

static int connect_localhost(int port)
{
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
        struct addrinfo *list = NULL;
        char service[16];
        int fd = -ECONNREFUSED;

        snprintf(service, sizeof service, "%d", port);
        if (getaddrinfo("localhost", service, &hints, &list) != 0)
                return -EADDRNOTAVAIL;
        for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
                fd = connect_to(a);
        freeaddrinfo(list);
        return fd;
}

/* The HTTP status of one try, or -errno. */
static int try_once(int port)
{
        static const char request[] = "GET /v1.0/healthz/outbound HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        char reply[256];
        size_t n = 0;
        int fd = connect_localhost(port), status;

        if (fd < 0)
                return fd;
        if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == (ssize_t)(sizeof request - 1)) {
                ssize_t got;
                while (n < sizeof reply - 1 && (got = recv(fd, reply + n, sizeof reply - 1 - n, 0)) > 0)
                        n += (size_t)got;
        }
        close(fd);
        reply[n] = 0;
        return sscanf(reply, "HTTP/1.%*d %3d", &status) == 1 ? status : -ECONNRESET;
}

static void describe(char *to, size_t n, int result)
{
        if (result < 0)
                snprintf(to, n, "%s", strerror(-result));
        else
                snprintf(to, n, "HTTP status code %d", result);
}

bool wait_outbound_ready(int http_port, int timeout_s)
{
        const struct timespec pause = {.tv_nsec = TRY_PERIOD_MS * 1000000L};
        int64_t end = now_ms() + timeout_s * INT64_C(1000), complain_at = now_ms();
        char why[128] = "no try was made";

        fprintf(stderr, "Waiting for Dapr to be outbound ready (timeout: %d seconds): url=http://localhost:%d/v1.0/healthz/outbound\n\n",
                timeout_s, http_port);
        while (now_ms() < end) {
                int result = try_once(http_port);
                if (result == STATUS_READY) {
                        fprintf(stderr, "Dapr is outbound ready!\n");
                        return true;
                }
                describe(why, sizeof why, result);
                if (now_ms() >= complain_at) {
                        fprintf(stderr, "Dapr outbound NOT ready yet: %s\n", why);
                        complain_at = now_ms() + COMPLAIN_EVERY_MS;
                }
                nanosleep(&pause, NULL);
        }
        fprintf(stderr, "timeout waiting for Dapr to become outbound ready. Last error: %s\n", why);
        return false;
}
