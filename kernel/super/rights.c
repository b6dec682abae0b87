/*
 * The rights of a plugin: read from its manifest with a fault's place, put together with a component's metadata before a process is
 * started. Ports are read out of whatever form an address has in metadata; where no port can be found, the right's own counts.
 */
#include "kernel/super/rights.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernel/super/manifest_keys.h"
#include "sdk/base/flags.h"
#include "sdk/base/yaml.h"

#define MEMORY_DEFAULT (2ULL << 30)
enum { PROCESSES_DEFAULT = 512, RIGHTS_MAX = 64, PORT_MAX = 65535 };

struct reader {
        struct arena *a, *errors;
        struct rights *out;
        const char *err;
        int r;
};

/* ---- the manifest ---- */

#define fault(rd, node, ...) fault_text((rd), yaml_error((rd)->errors, (node), __VA_ARGS__))
static void fault_text(struct reader *rd, const char *text)
{
        if (rd->r)
                return;
        rd->err = text;
        rd->r = -EINVAL;
}

static void check_keys(struct reader *rd, const struct yaml_node *map, const char *which)
{
        for (const struct yaml_item *i = map->items; i; i = i->next) {
                const char *near;
                if (!manifest_key_known(which, i->key->text, &near))
                        fault(rd, i->key, "unknown key '%.*s' in '%s'%s%s%s", STR_FMT(i->key->text), which, near ? "; did you mean '" : "",
                              near ? near : "", near ? "'?" : "");
        }
}

static const char *text(struct reader *rd, const struct yaml_node *map, const char *key)
{
        struct yaml_node *n = yaml_get(map, key);
        struct str s;
        if (!n || yaml_is_null(n))
                return NULL;
        if (yaml_string(rd->a, n, YAML_V3, &s) || !s.p || !s.n) {
                fault(rd, n, "'%s' must be text", key);
                return NULL;
        }
        return arena_strdup(rd->a, s);
}

static int64_t number(struct reader *rd, const struct yaml_node *map, const char *key, int64_t max)
{
        const char *z = text(rd, map, key);
        int64_t n = 0;
        if (z && (parse_int64(str_of(z), &n) || n < 1 || n > max))
                fault(rd, yaml_get(map, key), "'%s' must be a number from 1 to %lld", key, (long long)max);
        return n;
}

static bool flag(struct reader *rd, const struct yaml_node *map, const char *key)
{
        const char *z = text(rd, map, key);
        if (z && strcmp(z, "true") && strcmp(z, "false"))
                fault(rd, yaml_get(map, key), "'%s' must be true or false", key);
        return z && !strcmp(z, "true");
}

static struct right *add(struct reader *rd, const struct yaml_node *n, enum right_kind kind, const char *what)
{
        struct rights *r = rd->out;
        struct right *x;
        if (!what || r->n == RIGHTS_MAX) {
                if (r->n == RIGHTS_MAX)
                        fault(rd, n, "more than %d rights", RIGHTS_MAX);
                return NULL;
        }
        x = &r->v[r->n++];
        *x = (struct right){.kind = kind, .what = what, .when = text(rd, n, "when")};
        x->reason = text(rd, n, "reason");
        if (!x->reason)
                x->reason = "";
        return x;
}

static void read_file(struct reader *rd, const struct yaml_node *n)
{
        check_keys(rd, n, "files");
        const char *path = text(rd, n, "path"), *access = text(rd, n, "access");
        bool writes = access && !strcmp(access, "write");
        if (!path)
                fault(rd, n, "'path' is missing");
        if (access && !writes && strcmp(access, "read"))
                fault(rd, yaml_get(n, "access"), "'access' must be read or write");
        struct right *x = add(rd, n, writes ? RIGHT_WRITE : RIGHT_READ, path);
        if (x)
                x->beside = flag(rd, n, "beside");
}

static void read_network(struct reader *rd, const struct yaml_node *n)
{
        check_keys(rd, n, "network");
        const char *connect = text(rd, n, "connect"), *listen = text(rd, n, "listen");
        if (!connect == !listen) {
                fault(rd, n, "each entry of 'network' has either 'connect' or 'listen'");
                return;
        }
        if (listen && *listen != '$')
                number(rd, n, "listen", PORT_MAX);
        struct right *x = add(rd, n, connect ? RIGHT_CONNECT : RIGHT_LISTEN, connect ? connect : listen);
        if (x)
                x->port = (int)number(rd, n, "port", PORT_MAX);
}

static void read_program(struct reader *rd, const struct yaml_node *n)
{
        check_keys(rd, n, "programs");
        const char *path = text(rd, n, "path");
        if (!path)
                fault(rd, n, "'path' is missing");
        add(rd, n, RIGHT_PROGRAM, path);
}

static void read_list(struct reader *rd, const struct yaml_node *map, const char *key, void (*fn)(struct reader *, const struct yaml_node *))
{
        struct yaml_node *n = yaml_get(map, key);
        if (!n || yaml_is_null(n))
                return;
        if (n->kind != YAML_LIST) {
                fault(rd, n, "'%s' must be a list", key);
                return;
        }
        for (const struct yaml_item *i = n->items; i; i = i->next) {
                if (i->value->kind == YAML_MAP)
                        fn(rd, i->value);
                else
                        fault(rd, i->value, "each entry of '%s' must be a map", key);
        }
}

static void read_limits(struct reader *rd, const struct yaml_node *map)
{
        struct yaml_node *n = yaml_get(map, "limits");
        int64_t bytes;
        if (!n || yaml_is_null(n))
                return;
        if (n->kind != YAML_MAP) {
                fault(rd, n, "'limits' must be a map");
                return;
        }
        check_keys(rd, n, "limits");
        const char *memory = text(rd, n, "memory");
        if (memory && (parse_quantity(str_of(memory), &bytes) || bytes < 1 << 20))
                fault(rd, yaml_get(n, "memory"), "'memory' must be a quantity of at least 1Mi, such as 512Mi");
        else if (memory)
                rd->out->memory_bytes = (uint64_t)bytes;
        int64_t processes = number(rd, n, "processes", 1 << 20);
        if (processes)
                rd->out->processes = (unsigned)processes;
        const char *cpu = text(rd, n, "cpu");
        char *end = NULL;
        double cpus = cpu ? strtod(cpu, &end) : 0;
        if (cpu && (!*cpu || *end || !(cpus >= 0.01 && cpus <= 1024)))
                fault(rd, yaml_get(n, "cpu"), "'cpu' must be a number of CPUs from 0.01 to 1024, such as 0.5");
        else if (cpu)
                rd->out->cpu_percent = (unsigned)(cpus * 100 + 0.5);
}

int rights_read(struct arena *a, const struct yaml_node *node, struct rights *ret, struct arena *errors, const char **ret_err)
{
        struct reader rd = {.a = a, .errors = errors, .out = ret};
        *ret = (struct rights){.memory_bytes = MEMORY_DEFAULT, .processes = PROCESSES_DEFAULT};
        if (!node || yaml_is_null(node))
                return 0;
        ret->confined = true;
        ret->v = arena_zalloc(a, RIGHTS_MAX * sizeof *ret->v);
        if (!ret->v)
                return -ENOMEM;
        if (node->kind != YAML_MAP) {
                fault(&rd, node, "'sandbox' must be a map");
        } else {
                check_keys(&rd, node, "sandbox");
                read_list(&rd, node, "files", read_file);
                read_list(&rd, node, "network", read_network);
                read_list(&rd, node, "programs", read_program);
                read_limits(&rd, node);
        }
        *ret_err = rd.err;
        return rd.r;
}

static bool is_field(const char *z)
{
        return z && strncmp(z, "${", 2) == 0;
}

bool rights_need_metadata(const struct rights *r)
{
        for (size_t i = 0; i < r->n; i++)
                if (is_field(r->v[i].what) || r->v[i].when)
                        return true;
        return false;
}

/* ---- ports ---- */

static int scheme_port(struct str s)
{
        static const struct { const char *name; int port; } known[] = {
                {"http", 80}, {"https", 443}, {"redis", 6379}, {"rediss", 6379}, {"amqp", 5672}, {"amqps", 5671}, {"mqtt", 1883}, {"tcp", 1883},
                {"mqtts", 8883}, {"ssl", 8883}, {"tls", 8883}, {"postgres", 5432}, {"postgresql", 5432}, {"nats", 4222}, {"smtp", 25}};
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
                if (str_ieq(s, str_of(known[i].name)))
                        return known[i].port;
        return 0;
}

static int port_of(struct str digits)
{
        int n = 0;
        size_t i = 0;
        while (i < digits.n && digits.p[i] >= '0' && digits.p[i] <= '9' && n <= PORT_MAX)
                n = n * 10 + (digits.p[i++] - '0');
        return i && n <= PORT_MAX ? n : 0;
}

/* One host, with what stands before and behind it: scheme, user, path. */
static int host_port(struct str h, int port)
{
        bool digits = h.n > 0;
        for (size_t i = 0; i < h.n; i++)
                digits &= h.p[i] >= '0' && h.p[i] <= '9';
        if (digits)
                return port_of(h);
        ptrdiff_t at = str_find(h, STR("://"));
        if (at >= 0) {
                int by_scheme = scheme_port(str_n(h.p, (size_t)at));
                port = by_scheme ? by_scheme : port;
                h = str_skip(h, (size_t)at + 3);
        }
        for (size_t i = 0; i < h.n; i++)
                if (h.p[i] == '/' || h.p[i] == '?' || h.p[i] == '#')
                        h.n = i;
        for (size_t i = h.n; i-- > 0;)
                if (h.p[i] == '@') {
                        h = str_skip(h, i + 1);
                        break;
                }
        for (size_t i = h.n; i-- > 0 && h.p[i] != ']';)
                if (h.p[i] == ':') {
                        int n = port_of(str_skip(h, i + 1));
                        return n ? n : port;
                }
        return port;
}

static int add_port(int *v, int n, int max, int port)
{
        for (int i = 0; i < n; i++)
                if (v[i] == port)
                        return n;
        if (port <= 0)
                return n;
        if (n == max)
                return -1;
        v[n] = port;
        return n + 1;
}

static bool is_word(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Ports that are named: port=5432, port = '5432', ?port=5432 of libpq. How many ports there are then, -1: more than max. */
static int named_ports(struct str v, int *ret, int n, int max)
{
        for (size_t i = 0; i + 4 < v.n && n >= 0; i++) {
                if (strncasecmp(v.p + i, "port", 4) || (i && is_word(v.p[i - 1])))
                        continue;
                size_t k = i + 4;
                while (k < v.n && strchr(" \t='", v.p[k]) && v.p[k])
                        k++;
                if (k > i + 4)
                        n = add_port(ret, n, max, port_of(str_skip(v, k)));
        }
        return n;
}

int rights_ports(struct str value, int port, int *ret, int max)
{
        bool pairs = str_find(value, STR("://")) < 0 && str_chr(value, '=') >= 0;
        int n = named_ports(value, ret, 0, max);
        if (pairs)
                return n ? n : add_port(ret, n, max, port);
        while (value.n && n >= 0) {
                size_t i = 0;
                while (i < value.n && !strchr(", \t\r\n;", value.p[i]))
                        i++;
                struct str word = str_n(value.p, i);
                value = str_skip(value, i < value.n ? i + 1 : i);
                if (word.n)
                        n = add_port(ret, n, max, host_port(word, port));
        }
        return n;
}

/* ---- a component's rights ---- */

struct granting {
        rights_value_fn value;
        void *arg;
        struct arena *a;
        struct grant *g;
};

static const char *put_in(struct granting *x, const char *what)
{
        if (!is_field(what))
                return what;
        const char *field = arena_printf(x->a, "%.*s", (int)strcspn(what + 2, "}"), what + 2);
        const char *v = field ? x->value(x->arg, field) : NULL;
        return v ? v : "";
}

static bool applies(struct granting *x, const char *when)
{
        if (!when)
                return true;
        if (is_field(when))
                return *put_in(x, when);
        const char *eq = strchr(when, '=');
        const char *field = arena_printf(x->a, "%.*s", eq ? (int)(eq - when) : (int)strlen(when), when);
        const char *v = field ? x->value(x->arg, field) : NULL;
        return v && eq && !strcasecmp(v, eq + 1);
}

/* The path itself; for what shall be written and is not there yet, the nearest folder that is. */
static const char *existing(struct granting *x, const char *path, bool writes)
{
        struct stat st;
        char *p = arena_strdup(x->a, str_of(path));
        while (p && stat(p, &st)) {
                if (!writes || !strcmp(p, ".") || !strcmp(p, "/"))
                        return NULL;
                p = dirname(p);
        }
        return p;
}

static int add_file(struct granting *x, const char *path, enum right_kind kind)
{
        if (x->g->n_files == RIGHTS_FILES_MAX)
                return -ENOSPC;
        x->g->files[x->g->n_files++] = (struct granted_file){path, kind};
        x->g->writes |= kind == RIGHT_WRITE;
        return 0;
}

/* Paths in a list of settings: sslrootcert=/etc/x.pem. How many, or -errno. */
static int grant_settings(struct granting *x, struct str v, enum right_kind kind)
{
        int n = 0;
        while (v.n) {
                size_t i = 0;
                while (i < v.n && !strchr(" ?&;,\t\r\n", v.p[i]))
                        i++;
                struct str word = str_n(v.p, i);
                ptrdiff_t at = str_find(word, STR("=/"));
                v = str_skip(v, i < v.n ? i + 1 : i);
                const char *path = at >= 0 ? arena_strdup(x->a, str_skip(word, (size_t)at + 1)) : NULL;
                if (at < 0)
                        continue;
                int r = path ? add_file(x, path, kind) : -ENOMEM;
                if (r)
                        return r;
                n++;
        }
        return n;
}

static int grant_file(struct granting *x, const struct right *r)
{
        if (r->kind == RIGHT_PROGRAM && !strcmp(r->what, "self")) {
                x->g->forks = true;
                return 0;
        }
        struct str v = str_of(put_in(x, r->what));
        if (is_field(r->what) && !r->beside) {
                int n = grant_settings(x, v, r->kind);
                if (n)
                        return n < 0 ? n : 0;
        }
        ptrdiff_t query = str_chr(v, '?');
        if (query >= 0 && is_field(r->what))
                v.n = (size_t)query;
        if (str_has_prefix(v, STR("file:")))
                v = str_skip(v, str_has_prefix(v, STR("file:///")) ? 7 : 5);
        if (!v.n || str_eqz(v, ":memory:"))
                return 0;
        char *path = arena_strdup(x->a, v);
        if (path && r->beside && (r->kind == RIGHT_WRITE || existing(x, path, false)))
                path = dirname(path);
        const char *there = path ? existing(x, path, r->kind == RIGHT_WRITE) : NULL;
        if (!there)
                return path ? 0 : -ENOMEM;
        return add_file(x, there, r->kind);
}

static int grant_network(struct granting *x, const struct right *r)
{
        struct grant *g = x->g;
        const char *v = put_in(x, r->what);
        int ports[RIGHTS_PORTS_MAX];
        bool listens = r->kind == RIGHT_LISTEN;
        if (!*v)
                return 0;
        if (!listens && !strcmp(v, "unix")) {
                g->unix_sockets = true;
                return 0;
        }
        if (!listens && !strcmp(v, "udp")) {
                g->udp = true;
                return 0;
        }
        g->tcp = g->udp = true; /* names are looked up by datagrams */
        if (!listens && !strcmp(v, "*")) {
                g->any_port = true;
                return 0;
        }
        int n = listens ? (ports[0] = port_of(str_of(v)), 1) : rights_ports(str_of(v), r->port, ports, RIGHTS_PORTS_MAX);
        size_t *have = listens ? &g->n_listen : &g->n_connect;
        int *to = listens ? g->listen_ports : g->connect_ports;
        for (int i = 0; i < n; i++) {
                int k = add_port(to, (int)*have, RIGHTS_PORTS_MAX, ports[i]);
                if (k < 0)
                        return -ENOSPC;
                *have = (size_t)k;
        }
        return n < 0 ? -ENOSPC : 0;
}

int rights_grant(const struct rights *r, rights_value_fn value, void *arg, struct arena *a, struct grant *g)
{
        struct granting x = {value, arg, a, g};
        int err = 0;
        for (size_t i = 0; i < r->n && !err; i++) {
                const struct right *one = &r->v[i];
                if (applies(&x, one->when))
                        err = one->kind == RIGHT_CONNECT || one->kind == RIGHT_LISTEN ? grant_network(&x, one) : grant_file(&x, one);
        }
        return err;
}
