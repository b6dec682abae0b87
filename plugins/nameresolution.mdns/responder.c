/*
 * The own sidecar as other sidecars look for it: PTR <app id>.local. -> <host>:<pid>.<app id>.local., whose SRV and TXT records and
 * the host's address are in the same packet. Answers go to the group, on the interface where the question came in.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "plugins/nameresolution.mdns/mdns.h"
#include "sdk/base/list.h"

enum { LEGACY_TTL_S = 10 };

/* <host>:<pid>.<service>; a host's last label may be too long for that. */
static int instance_name(struct responder *r, const char *host, const char *app_id)
{
        char pid[16], text[512];
        const char *dot = strrchr(host, '.');
        size_t head = dot ? (size_t)(dot + 1 - host) : 0, last = strlen(host) - head;

        snprintf(pid, sizeof pid, ":%d", (int)getpid());
        if (last + strlen(pid) > MDNS_LABEL_MAX)
                last = MDNS_LABEL_MAX - strlen(pid);
        snprintf(text, sizeof text, "%.*s%s.%s.local.", (int)(head + last), host, pid, app_id);
        return mdns_name_set(&r->instance, str_of(text));
}

static int set_names(struct responder *r, const char *app_id)
{
        char host[256] = "", text[512];

        if (gethostname(host, sizeof host - 1) || !host[0])
                snprintf(host, sizeof host, "localhost");
        snprintf(text, sizeof text, "%s.local.", app_id);
        if (mdns_name_set(&r->service, str_of(text)) || instance_name(r, host, app_id))
                return -EINVAL;
        bool is_local = str_has_suffix(str_of(host), STR(".local"));
        snprintf(text, sizeof text, is_local ? "%s." : "%s.local.", host);
        return mdns_name_set(&r->host, str_of(text)) || mdns_name_set(&r->enumeration, STR("_services._dns-sd._udp.local.")) ? -EINVAL : 0;
}

static int set_address(struct responder *r, const char *address)
{
        if (strcmp(address, "localhost") == 0)
                address = "127.0.0.1";
        r->addr_n = inet_pton(AF_INET, address, r->addr) == 1 ? 4 : inet_pton(AF_INET6, address, r->addr) == 1 ? 16 : 0;
        return r->addr_n ? 0 : -EINVAL;
}

static void on_announce(struct timer *t);

int responder_init(struct responder *r, struct mdns_net *net, const char *app_id, const char *address, int port, char *why, size_t why_n)
{
        *r = (struct responder){.net = net, .port = (uint16_t)port, .allowance = MDNS_ANSWERS_PER_S_MAX, .allowance_at = loop_now()};
        timer_init(&r->announce, on_announce);
        if (!*app_id)
                snprintf(why, why_n, "name is missing");
        else if (!*address)
                snprintf(why, why_n, "address is missing");
        else if (port <= 0 || port > 65535)
                snprintf(why, why_n, "port is missing or invalid");
        else if (strlen(app_id) >= sizeof r->app_id || set_names(r, app_id))
                snprintf(why, why_n, "the app id '%.80s' has no form as a DNS name: at most 63 characters, no empty part between dots", app_id);
        else if (set_address(r, address))
                snprintf(why, why_n, "failed to parse given IP: %s", address);
        else
                return snprintf(r->app_id, sizeof r->app_id, "%s", app_id) < 0 ? -EINVAL : 0;
        return -EINVAL;
}

/* ---- packets ---- */

static void write_address(const struct responder *r, struct mdns_writer *w, enum mdns_section s, uint32_t ttl, bool flush)
{
        mdns_write_addr(w, s, &r->host, ttl > MDNS_ADDRESS_TTL_S ? MDNS_ADDRESS_TTL_S : ttl, flush, r->addr, r->addr_n);
}

/* To who browses. */
static void write_browsed(const struct responder *r, struct mdns_writer *w, uint32_t ttl)
{
        mdns_write_ptr(w, MDNS_ANSWER, &r->service, ttl, &r->instance);
        mdns_write_srv(w, MDNS_ADDITIONAL, &r->instance, ttl, false, r->port, &r->host);
        mdns_write_txt(w, MDNS_ADDITIONAL, &r->instance, ttl, false, str_of(r->app_id));
        write_address(r, w, MDNS_ADDITIONAL, ttl, false);
}

/* All there is, to who asks for this instance or to all. */
static void write_everything(const struct responder *r, struct mdns_writer *w, uint32_t ttl, bool flush)
{
        mdns_write_srv(w, MDNS_ANSWER, &r->instance, ttl, flush, r->port, &r->host);
        mdns_write_txt(w, MDNS_ANSWER, &r->instance, ttl, flush, str_of(r->app_id));
        mdns_write_ptr(w, MDNS_ANSWER, &r->service, ttl, &r->instance);
        mdns_write_ptr(w, MDNS_ANSWER, &r->enumeration, ttl, &r->service);
        write_address(r, w, MDNS_ANSWER, ttl, false);
}

static void tell_all(struct responder *r, uint32_t ttl)
{
        struct mdns_writer *w = &r->out;
        mdns_write_init(w, 0, true);
        write_everything(r, w, ttl, true);
        if (!w->failed)
                mdns_net_send(r->net, w->b, w->n, 0);
}

static void on_announce(struct timer *t)
{
        responder_announce(container_of(t, struct responder, announce));
}

void responder_announce(struct responder *r)
{
        tell_all(r, MDNS_TTL_S);
        if (++r->announced < MDNS_ANNOUNCEMENTS)
                timer_start(&r->announce, r->announced, 0);
}

void responder_fini(struct responder *r)
{
        timer_stop(&r->announce);
        if (r->announced)
                tell_all(r, 0);
}

/* ---- questions ---- */

static bool may_answer(struct responder *r)
{
        r->allowance += (loop_now() - r->allowance_at) * MDNS_ANSWERS_PER_S_MAX;
        r->allowance_at = loop_now();
        if (r->allowance > MDNS_ANSWERS_PER_S_MAX)
                r->allowance = MDNS_ANSWERS_PER_S_MAX;
        if (r->allowance < 1)
                return false;
        r->allowance -= 1;
        return true;
}

/* RFC 6762 section 7.1: who asks knows the answer already. */
static bool is_known(const struct responder *r, struct str packet)
{
        struct mdns_reader in;
        struct mdns_record rec;

        if (mdns_read_init(&in, packet))
                return false;
        while (mdns_read(&in, &rec) == 1)
                if (rec.section == MDNS_ANSWER && rec.type == MDNS_PTR && rec.ttl >= MDNS_TTL_S / 2 && mdns_name_eq(&rec.name, &r->service) &&
                    mdns_name_eq(&rec.target, &r->instance))
                        return true;
        return false;
}

/* False: not about us. */
static bool write_answer(const struct responder *r, const struct mdns_record *q, struct str packet, struct mdns_writer *w, uint32_t ttl)
{
        bool ptr = q->type == MDNS_PTR || q->type == MDNS_ANY;

        if (ptr && mdns_name_eq(&q->name, &r->service)) {
                if (is_known(r, packet))
                        return false;
                write_browsed(r, w, ttl);
        } else if (ptr && mdns_name_eq(&q->name, &r->enumeration)) {
                mdns_write_ptr(w, MDNS_ANSWER, &r->enumeration, ttl, &r->service);
        } else if (mdns_name_eq(&q->name, &r->instance)) {
                write_everything(r, w, ttl, false);
        } else {
                return false;
        }
        return true;
}

static int port_of(const struct mdns_from *from)
{
        return ntohs(from->ss.ss_family == AF_INET ? ((const struct sockaddr_in *)(const void *)&from->ss)->sin_port
                                                   : ((const struct sockaddr_in6 *)(const void *)&from->ss)->sin6_port);
}

void responder_on_query(struct responder *r, struct str packet, const struct mdns_from *from)
{
        struct mdns_reader in;
        struct mdns_record q;
        struct mdns_writer *w = &r->out;
        bool legacy = port_of(from) != MDNS_PORT; /* RFC 6762 section 6.7: a plain resolver */

        if (mdns_read_init(&in, packet) || in.left[MDNS_AUTHORITY]) /* a probe of somebody else's names */
                return;
        while (mdns_read(&in, &q) == 1 && q.section == MDNS_QUESTION) {
                mdns_write_init(w, legacy ? in.id : 0, true);
                if (legacy)
                        mdns_write_question(w, &q.name, q.type);
                if (!write_answer(r, &q, packet, w, legacy ? LEGACY_TTL_S : MDNS_TTL_S) || w->failed || !may_answer(r))
                        continue;
                if (legacy || q.top_bit)
                        mdns_net_reply(r->net, w->b, w->n, from);
                else
                        mdns_net_send(r->net, w->b, w->n, from->interface);
        }
}
