/* See endpoint_proxy.h. The machine itself is never behind a proxy. */
#include "kernel/mesh/endpoint_proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/mesh/endpoints_internal.h"
#include "sdk/base/json.h"

enum { ADDRESS_BYTES = 16, V4_IN_V6 = 12, TEXT_BYTES = 64 };

static const char *any_of(const char *upper, const char *lower)
{
        const char *v = getenv(upper);

        return v && *v ? v : getenv(lower);
}

struct proxy_settings proxy_settings_read(void)
{
        return (struct proxy_settings){any_of("HTTP_PROXY", "http_proxy"), any_of("HTTPS_PROXY", "https_proxy"), any_of("NO_PROXY", "no_proxy")};
}

/* ---- who is left out ---- */

/* An address, IPv4 as ::ffff:a.b.c.d. False: a name. *ret_v4 may be NULL. */
static bool address_of(struct str text, unsigned char ret[ADDRESS_BYTES], bool *ret_v4)
{
        static const unsigned char head[V4_IN_V6] = {[10] = 0xff, [11] = 0xff};
        char z[TEXT_BYTES];
        bool v4;

        if (text.n >= sizeof z)
                return false;
        snprintf(z, sizeof z, "%.*s", STR_FMT(text));
        memcpy(ret, head, sizeof head);
        v4 = inet_pton(AF_INET, z, ret + V4_IN_V6) == 1;
        if (ret_v4)
                *ret_v4 = v4;
        return v4 || inet_pton(AF_INET6, z, ret) == 1;
}

static bool is_loopback(const unsigned char a[ADDRESS_BYTES])
{
        static const unsigned char v6[ADDRESS_BYTES] = {[15] = 1}, head[V4_IN_V6] = {[10] = 0xff, [11] = 0xff};

        return !memcmp(a, v6, sizeof v6) || (!memcmp(a, head, sizeof head) && a[V4_IN_V6] == 127);
}

static bool is_below(const unsigned char a[ADDRESS_BYTES], const unsigned char net[ADDRESS_BYTES], unsigned bits)
{
        unsigned whole = bits / 8, rest = bits % 8;

        return !memcmp(a, net, whole) && (!rest || (a[whole] ^ net[whole]) >> (8 - rest) == 0);
}

/* "10.0.0.0/8". False: it is none. */
static bool network_of(struct str entry, unsigned char net[ADDRESS_BYTES], unsigned *ret_bits)
{
        struct str bits = entry, address = str_cut(&bits, '/');
        bool v4;
        unsigned n = 0;

        if (!bits.n || bits.n > 3 || !address_of(address, net, &v4))
                return false;
        for (size_t i = 0; i < bits.n; i++) {
                if (bits.p[i] < '0' || bits.p[i] > '9')
                        return false;
                n = n * 10 + (unsigned)(bits.p[i] - '0');
        }
        *ret_bits = v4 ? n + 8 * V4_IN_V6 : n;
        return n <= (v4 ? 32 : 128);
}

/* "name:80" and "[::1]:80" lose their port. */
static struct str cut_port(struct str entry, struct str *ret_port)
{
        struct str host = entry;
        ptrdiff_t i;

        *ret_port = STR("");
        if (entry.n && entry.p[0] == '[') {
                i = str_chr(entry, ']');
                if (i < 0)
                        return entry;
                host = str_n(entry.p + 1, (size_t)i - 1);
                entry = str_skip(entry, (size_t)i + 1);
        } else {
                i = str_chr(entry, ':');
                if (i < 0 || str_chr(str_skip(entry, (size_t)i + 1), ':') >= 0)
                        return entry;
                host = str_n(entry.p, (size_t)i);
                entry = str_skip(entry, (size_t)i);
        }
        if (entry.n && entry.p[0] == ':')
                *ret_port = str_skip(entry, 1);
        return host;
}

static bool name_fits(struct str host, struct str name)
{
        bool only_below = name.p[0] == '.';

        if (str_has_prefix(name, STR("*.")))
                name = str_skip(name, 1), only_below = true;
        if (!only_below && str_ieq(host, name))
                return true;
        if (only_below)
                name = str_skip(name, 1);
        return host.n > name.n + 1 && host.p[host.n - name.n - 1] == '.' && str_ieq(str_skip(host, host.n - name.n), name);
}

static bool entry_fits(struct str entry, struct str host, struct str port)
{
        unsigned char net[ADDRESS_BYTES], address[ADDRESS_BYTES];
        bool is_address = address_of(host, address, NULL);
        struct str its_port, name;
        unsigned bits;

        if (network_of(entry, net, &bits))
                return is_address && is_below(address, net, bits);
        name = cut_port(entry, &its_port);
        if (!name.n || (its_port.n && !str_eq(its_port, port)))
                return false;
        if (address_of(name, net, NULL))
                return is_address && !memcmp(address, net, sizeof net);
        return name_fits(host, name);
}

static struct str trimmed(struct str s)
{
        while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
                s = str_skip(s, 1);
        while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
                s.n--;
        return s;
}

static bool is_left_out(const char *list, struct str host, struct str port)
{
        unsigned char address[ADDRESS_BYTES];

        if (str_eqz(host, "localhost") || (address_of(host, address, NULL) && is_loopback(address)))
                return true;
        for (struct str rest = str_of(list), entry; rest.p && (entry = trimmed(str_cut(&rest, ',')), 1);)
                if (str_eqz(entry, "*") || (entry.n && entry_fits(entry, host, port)))
                        return true;
        return false;
}

/* ---- the proxy ---- */

int endpoint_proxy_find(struct arena *a, const struct proxy_settings *s, bool is_https, struct str host, struct str port, struct endpoint_proxy *ret,
                        const char **ret_err)
{
        const char *name = is_https ? "HTTPS_PROXY" : "HTTP_PROXY", *value = is_https ? s->https : s->http, *text = value;
        struct endpoint_url u;

        if (!value || !*value || is_left_out(s->no_proxy, host, port))
                return 0;
        if (!strstr(value, "://") && !(text = arena_printf(a, "http://%s", value)))
                return -ENOMEM;
        if (endpoint_url_read(a, str_of(text), &u) || u.is_https) {
                *ret_err = arena_printf(a, "%s is not an address like http://proxy:3128 (other kinds of proxies are not spoken to)", name);
                return -EINVAL;
        }
        ret->target = u.target;
        ret->authorization = u.user.n ? endpoint_basic(a, u.user) : STR("");
        return ret->authorization.p ? 1 : -ENOMEM;
}
