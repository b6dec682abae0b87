/*
 * The daprd processes of this machine, as the reference CLI finds them: every process named daprd, its command line, and what
 * its metadata API tells (who started it, the app's command and process).
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "sdk/base/loop.h"
#include "sdk/net/http.h"

enum { CMDLINE_MAX = 64 * 1024, REPLY_MAX = 4 << 20 };
#define METADATA_TIMEOUT_S 2.0

const char *sidecar_host(struct arena *a, const char *listen_addresses)
{
        struct str rest = str_of(listen_addresses), one = rest.p ? str_trim(str_cut(&rest, ',')) : STR_NULL;
        if (!one.n || str_eqz(one, "0.0.0.0"))
                return "127.0.0.1";
        if (str_eqz(one, "::") || str_eqz(one, "[::]"))
                return "[::1]";
        return str_chr(one, ':') >= 0 && one.p[0] != '[' ? arena_printf(a, "[%.*s]", STR_FMT(one)) : arena_strdup(a, one);
}

static int ask(struct arena *a, const char *target, const struct sidecar_request *req, int *status, struct str *ret)
{
        struct http_client_conf conf = {.target = str_of(target), .authority = STR("localhost"), .connect_timeout_s = req->timeout_s};
        struct http_client *c;
        int r = target ? http_client_new(&c, &conf) : -ENOMEM;
        if (r)
                return r;
        const char *token = getenv("DAPR_API_TOKEN");
        struct http_header h[3] = {{STR("user-agent"), STR("daprctl/" CTL_VERSION)}};
        size_t n = 1;
        if (token && *token)
                h[n++] = (struct http_header){STR("dapr-api-token"), str_of(token)};
        if (req->content_type)
                h[n++] = (struct http_header){STR("content-type"), str_of(req->content_type)};
        struct http_exchange *x = NULL;
        double old = fiber_deadline();
        fiber_set_deadline(loop_now_exact() + req->timeout_s);
        r = http_client_start(c, a, str_of(req->method), str_of(req->path), h, n, (int64_t)req->body.n, req->body.p ? req->body : STR(""), &x);
        if (!r)
                r = http_exchange_response(x);
        if (!r)
                r = http_exchange_body(x, a, REPLY_MAX, ret);
        if (!r)
                *status = x->status;
        fiber_restore_deadline(old);
        if (x)
                http_exchange_close(x);
        http_client_free(c);
        return r;
}

int sidecar_send(struct arena *a, const struct sidecar *s, const struct sidecar_request *req, int *status, struct str *ret)
{
        return ask(a, s->socket ? arena_printf(a, "unix:%s/dapr-%s-http.socket", s->socket, s->app_id) : arena_printf(a, "%s:%d", s->host, s->http_port),
                   req, status, ret);
}

int sidecar_http(struct arena *a, const struct sidecar *s, const char *method, const char *path, struct str body, double timeout_s,
                 int *status, struct str *ret)
{
        const struct sidecar_request req = {.method = method, .path = path, .body = body, .timeout_s = timeout_s};
        return sidecar_send(a, s, &req, status, ret);
}

/* ---- the control socket ---- */

/* A variable of a process's environment, when we may read it. */
static const char *environment_of(struct arena *a, int pid, const char *name)
{
        char path[64];
        snprintf(path, sizeof(path), "/proc/%d/environ", pid);
        FILE *f = fopen(path, "re");
        char *line = NULL;
        size_t cap = 0, n = strlen(name);
        const char *found = NULL;
        while (f && !found && getdelim(&line, &cap, '\0', f) > 0)
                if (strncmp(line, name, n) == 0 && line[n] == '=')
                        found = arena_strdup(a, str_of(line + n + 1));
        free(line);
        if (f)
                fclose(f);
        return found;
}

/* As the runtime names it: <base>/dapr-<uid>/<app id>.<pid>.sock, strange characters replaced, 40 of the id at most. */
static const char *control_path(struct arena *a, const struct sidecar *s, const char *base)
{
        char id[41];
        size_t n = 0;
        for (const char *p = s->app_id; *p && n < sizeof(id) - 1; p++) {
                bool plain = (*p >= '0' && *p <= '9') || ((*p | 32) >= 'a' && (*p | 32) <= 'z') || strchr("._-", *p);
                id[n++] = plain ? *p : '_';
        }
        id[n] = '\0';
        return arena_printf(a, "%s/dapr-%d/%s.%d.sock", base, s->uid, id, s->pid);
}

int sidecar_control(struct arena *a, const struct sidecar *s, const char *method, const char *path, double timeout_s, int *status,
                    struct str *ret)
{
        const struct sidecar_request req = {.method = method, .path = path, .timeout_s = timeout_s};
        return sidecar_control_send(a, s, &req, status, ret);
}

int sidecar_control_send(struct arena *a, const struct sidecar *s, const struct sidecar_request *req, int *status, struct str *ret)
{
        const char *bases[] = {environment_of(a, s->pid, "XDG_RUNTIME_DIR"), environment_of(a, s->pid, "TMPDIR"), "/tmp",
                               getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), arena_printf(a, "/run/user/%d", s->uid)};
        int r = -ENOENT;
        for (size_t i = 0; i < sizeof(bases) / sizeof(*bases); i++) {
                const char *file = bases[i] && *bases[i] == '/' ? control_path(a, s, bases[i]) : NULL;
                if (!path_exists(file))
                        continue;
                r = ask(a, arena_printf(a, "unix:%s", file), req, status, ret);
                if (r != -ECONNREFUSED && r != -ENOENT)
                        return r;
        }
        return r == -ECONNREFUSED ? -ENOENT : r;
}

/* ---- what a sidecar says about itself ---- */

static void read_extended(struct arena *a, struct json_reader *r, struct sidecar *s)
{
        struct str name, v;
        if (!json_enter_object(r)) {
                json_skip(r);
                return;
        }
        while (json_next_member(r, a, &name)) {
                if (!json_read_string(r, a, &v)) {
                        json_skip(r);
                        continue;
                }
                const char *z = arena_strdup(a, v);
                if (!z)
                        return;
                if (str_eqz(name, "appCommand"))
                        s->command = z;
                else if (str_eqz(name, "appPID"))
                        s->app_pid = atoi(z);
                else if (str_eqz(name, "cliPID"))
                        s->cli_pid = atoi(z);
                else if (str_eqz(name, "runTemplatePath"))
                        s->template_path = z;
                else if (str_eqz(name, "runTemplateName"))
                        s->template_name = z;
                else if (str_eqz(name, "appLogPath"))
                        s->app_log = z;
                else if (str_eqz(name, "daprdLogPath"))
                        s->daprd_log = z;
        }
}

struct question {
        struct arena *a;
        struct sidecar *s;
};

static void ask_metadata(void *arg)
{
        struct question *q = arg;
        struct arena *a = q->a;
        struct sidecar *s = q->s;
        int status = 0;
        struct str body;
        if (sidecar_http(a, s, "GET", "/v1.0/metadata", STR_NULL, METADATA_TIMEOUT_S, &status, &body) != 0 || status != 200)
                return;
        struct json_reader r;
        struct str name;
        json_read_init(&r, body);
        if (!json_enter_object(&r))
                return;
        while (json_next_member(&r, a, &name)) {
                if (str_eqz(name, "extended"))
                        read_extended(a, &r, s);
                else
                        json_skip(&r);
        }
}

/* Value of a flag in argv (NUL-separated): --name=value or --name value, one dash or two. */
static const char *flag_value(char **argv, int argc, const char *name)
{
        const char *found = NULL;
        size_t n = strlen(name);
        for (int i = 1; i < argc; i++) {
                const char *p = argv[i];
                if (*p++ != '-')
                        continue;
                if (*p == '-')
                        p++;
                if (strncmp(p, name, n) != 0)
                        continue;
                if (p[n] == '=')
                        found = p + n + 1;
                else if (!p[n] && i + 1 < argc)
                        found = argv[i + 1];
        }
        return found;
}

static int flag_int(char **argv, int argc, const char *name, int dflt)
{
        const char *v = flag_value(argv, argc, name);
        return v && *v ? atoi(v) : dflt;
}

static int64_t flag_bytes(char **argv, int argc, const char *name, int64_t dflt)
{
        const char *v = flag_value(argv, argc, name);
        int64_t n;
        return v && parse_quantity(str_of(v), &n) == 0 ? n : dflt;
}

static char **read_cmdline(struct arena *a, int pid, int *argc)
{
        char path[64];
        snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
        FILE *f = fopen(path, "re");
        char *text = arena_alloc(a, CMDLINE_MAX);
        size_t n = f && text ? fread(text, 1, CMDLINE_MAX - 1, f) : 0;
        if (f)
                fclose(f);
        if (n == 0)
                return NULL;
        text[n] = '\0';
        size_t count = 0;
        for (size_t i = 0; i < n; i++)
                count += text[i] == '\0';
        char **argv = arena_alloc(a, (count + 2) * sizeof(*argv));
        if (!argv)
                return NULL;
        *argc = 0;
        for (char *p = text; p < text + n; p += strlen(p) + 1)
                argv[(*argc)++] = p;
        argv[*argc] = NULL;
        return argv;
}

/* Fields of /proc/PID/stat: the parent and the start in clock ticks since boot. */
static bool read_stat(int pid, int *parent, unsigned long long *start)
{
        char path[64], text[512];
        snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        FILE *f = fopen(path, "re");
        size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
        if (f)
                fclose(f);
        text[n] = '\0';
        const char *after = strrchr(text, ')');
        return after && sscanf(after + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", parent, start) == 2;
}

int64_t process_started_s(int pid)
{
        int parent;
        unsigned long long start;
        struct timespec up, now;
        if (!read_stat(pid, &parent, &start))
                return 0;
        clock_gettime(CLOCK_BOOTTIME, &up);
        clock_gettime(CLOCK_REALTIME, &now);
        double booted = (double)(now.tv_sec - up.tv_sec) + (double)(now.tv_nsec - up.tv_nsec) / 1e9;
        return (int64_t)(booted + (double)start / (double)sysconf(_SC_CLK_TCK) + 0.5);
}

bool sidecar_runs(const struct sidecar *s)
{
        int parent;
        unsigned long long start;
        return read_stat(s->pid, &parent, &start) && start == s->start_ticks;
}

static bool read_process(struct arena *a, int pid, struct sidecar *s)
{
        char path[64], comm[32] = "";
        snprintf(path, sizeof(path), "/proc/%d/comm", pid);
        FILE *f = fopen(path, "re");
        bool daprd = f && fgets(comm, sizeof(comm), f) && strcmp(comm, "daprd\n") == 0;
        if (f)
                fclose(f);
        struct stat st;
        int argc;
        char **argv = daprd ? read_cmdline(a, pid, &argc) : NULL;
        snprintf(path, sizeof(path), "/proc/%d", pid);
        unsigned long long start;
        int parent;
        if (!argv || stat(path, &st) != 0 || !read_stat(pid, &parent, &start))
                return false;
        const char *id = flag_value(argv, argc, "app-id"), *metrics = flag_value(argv, argc, "enable-metrics");
        if (!id || !*id)
                return false;
        bool off;
        *s = (struct sidecar){
                .app_id = id, .pid = pid, .parent = parent, .start_ticks = start, .uid = (int)st.st_uid, .created_s = process_started_s(pid),
                .host = sidecar_host(a, flag_value(argv, argc, "dapr-listen-addresses")),
                .http_port = flag_int(argv, argc, "dapr-http-port", 3500), .grpc_port = flag_int(argv, argc, "dapr-grpc-port", 50001),
                .app_port = flag_int(argv, argc, "app-port", 0), .socket = flag_value(argv, argc, "unix-domain-socket"),
                .metrics_enabled = !(metrics && parse_bool(str_of(metrics), &off) == 0 && !off),
                .max_body_size = flag_bytes(argv, argc, "max-body-size", 4 << 20),
                .read_buffer_size = flag_bytes(argv, argc, "read-buffer-size", 4 << 10),
                .command = "", .template_path = "", .template_name = "", .app_log = "", .daprd_log = ""};
        if (s->socket && !*s->socket)
                s->socket = NULL;
        return true;
}

static int find_processes(struct arena *a, struct sidecars *ret)
{
        *ret = (struct sidecars){0};
        DIR *d = opendir("/proc");
        if (!d)
                return -errno;
        size_t cap = 0;
        for (struct dirent *e; (e = readdir(d));) {
                int pid = atoi(e->d_name);
                struct sidecar s;
                if (pid <= 0 || !read_process(a, pid, &s))
                        continue;
                if (ret->n == cap) {
                        size_t more = cap ? cap * 2 : 8;
                        ret->v = arena_grow(a, ret->v, cap * sizeof(s), more * sizeof(s));
                        if (!ret->v) {
                                closedir(d);
                                return -ENOMEM;
                        }
                        cap = more;
                }
                ret->v[ret->n++] = s;
        }
        closedir(d);
        return 0;
}

int sidecars_find(struct arena *a, bool metadata, struct sidecars *ret)
{
        int r = find_processes(a, ret);
        struct question *q = r || !metadata ? NULL : arena_alloc(a, ret->n * sizeof(*q));
        if (r || !q)
                return r;
        struct scope scope;
        scope_init(&scope);
        for (size_t i = 0; i < ret->n; i++) {
                q[i] = (struct question){a, &ret->v[i]};
                fiber_go(&scope, "ask-metadata", ask_metadata, &q[i]);
        }
        scope_join(&scope);
        return 0;
}

struct sidecar *sidecars_get(struct sidecars *s, const char *app_id)
{
        for (size_t i = 0; i < s->n; i++)
                if (strcmp(s->v[i].app_id, app_id) == 0)
                        return &s->v[i];
        return NULL;
}
