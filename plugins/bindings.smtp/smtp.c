/*
 * bindings.smtp: an output binding that sends mails, by libcurl on worker threads. A password goes over an encrypted connection only,
 * except to this machine itself.
 */
#include <curl/curl.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dapr/plugin.h"
#include "plugins/bindings.smtp/message.h"
#include "sdk/base/arena.h"
#include "sdk/base/flags.h"
#include "sdk/base/json.h"

enum { PORT_TLS = 465, PRIORITY_MIN = 1, PRIORITY_MAX = 5, CONNECT_MS = 10000, RECIPIENTS_MAX = 1000, BODY_MAX = 64 << 20 };
#define SEND_S 60.0

static const char *const operations[] = {"create", NULL};
/* What a request may replace. */
enum field { FROM, TO, CC, BCC, SUBJECT, FIELDS };
static const char *const field_names[FIELDS] = {"emailFrom", "emailTo", "emailCC", "emailBCC", "subject"};

struct mailer { /* one component */
        char *url, *user, *password, *fields[FIELDS];
        bool skip_verify, must_encrypt;
        int priority;
};

/* ---- settings ---- */

static int read_priority(struct dapr_call *c, const char *text, int *ret)
{
        int64_t n;
        if (!text || !*text)
                return 0;
        if (parse_int64(str_of(text), &n))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "smtp binding error: priority is %s: write a number", text);
        if (n < PRIORITY_MIN || n > PRIORITY_MAX)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "smtp binding error:  priority value must be between %d (highest) and %d (lowest)",
                                 PRIORITY_MIN, PRIORITY_MAX);
        *ret = (int)n;
        return 0;
}

static bool is_local(const char *host)
{
        return strcasecmp(host, "localhost") == 0 || strcmp(host, "127.0.0.1") == 0 || strcmp(host, "::1") == 0;
}

static int copy(const struct dapr_metadata *md, const char *field, char **ret)
{
        const char *v = dapr_md_string(md, field);
        if (!v || !*v)
                return 0;
        *ret = strdup(v);
        return *ret ? 0 : -ENOMEM;
}

static int read_server(struct dapr_call *c, const struct dapr_metadata *md, struct mailer *m)
{
        const char *host = dapr_md_string(md, "host");
        int64_t port = dapr_md_has(md, "port") ? dapr_md_int(md, "port") : 587;
        if (!host || !*host || !port)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "smtp binding error: host and port fields are required in metadata");
        if (port < 1 || port > 65535 || strpbrk(host, "/@ \t\r\n?#"))
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "smtp binding error: %s:%lld is no host and port", host, (long long)port);
        int r = copy(md, "user", &m->user);
        if (!r)
                r = copy(md, "password", &m->password);
        if (!r && !m->user != !m->password)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "smtp binding error: both user and password fields are required in metadata");
        m->must_encrypt = m->user && !is_local(host);
        bool v6 = strchr(host, ':') && host[0] != '[';
        if (!r && asprintf(&m->url, "%s://%s%s%s:%lld/localhost", port == PORT_TLS ? "smtps" : "smtp", v6 ? "[" : "", host, v6 ? "]" : "",
                           (long long)port) < 0)
                m->url = NULL, r = -ENOMEM;
        return r;
}

static void mailer_close(void *instance)
{
        struct mailer *m = instance;
        free(m->url);
        free(m->user);
        if (m->password)
                explicit_bzero(m->password, strlen(m->password));
        free(m->password);
        for (size_t i = 0; i < FIELDS; i++)
                free(m->fields[i]);
        free(m);
}

static int mailer_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        struct mailer *m = calloc(1, sizeof *m);
        if (!m)
                return -ENOMEM;
        m->priority = 3;
        m->skip_verify = dapr_md_bool(md, "skipTLSVerify");
        int r = read_server(c, md, m);
        for (size_t i = 0; !r && i < FIELDS; i++)
                r = copy(md, field_names[i], &m->fields[i]);
        if (!r)
                r = read_priority(c, dapr_md_string(md, "priority"), &m->priority);
        if (r) {
                mailer_close(m);
                return r;
        }
        if (!m->user)
                dapr_log(DAPR_LOG_WARN, "smtp binding warn: User and password are empty");
        if (m->skip_verify)
                dapr_log(DAPR_LOG_WARN, "smtp binding warn: Skip TLS Verification is enabled. This is insecure and is NOT recommended for "
                                        "production scenarios.");
        *instance = m;
        return 0;
}

/* ---- the mail ---- */

/* Data over HTTP are a JSON value: a string is what it says. */
static struct str body_of(struct arena *a, struct dapr_bytes data)
{
        struct json_reader r;
        struct str text, all = str_n(data.p, data.n);
        json_read_init(&r, all);
        return json_read_string(&r, a, &text) && json_at_end(&r) ? text : all;
}

static int add_recipients(struct dapr_call *c, struct str list, const char *field, struct curl_slist **to, size_t *count)
{
        struct str one, address;
        while (mail_next(&list, &one)) {
                const char *fault = mail_address(one, &address);
                if (fault)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "smtp binding error: %s: '%.*s' %s", field, STR_FMT(one), fault);
                if (++*count > RECIPIENTS_MAX)
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT, "smtp binding error: more than %d recipients", RECIPIENTS_MAX);
                char *text = dapr_printf(c, "%.*s", STR_FMT(address));
                struct curl_slist *more = text ? curl_slist_append(*to, text) : NULL;
                if (!more)
                        return -ENOMEM;
                *to = more;
        }
        return 0;
}

static int compose(struct dapr_call *c, const struct mailer *m, const struct dapr_invoke *in, struct mail *ret)
{
        struct str v[FIELDS];
        for (size_t i = 0; i < FIELDS; i++) {
                const char *wish = dapr_kvs_get(in->metadata, field_names[i]);
                v[i] = str_of(wish && *wish ? wish : m->fields[i]);
                if (!v[i].n && (i == FROM || i == TO || i == SUBJECT))
                        return dapr_fail(c, DAPR_INVALID_ARGUMENT,
                                         "smtp binding error: %s property not supplied in configuration- or request-metadata", field_names[i]);
        }
        *ret = (struct mail){.from = v[FROM], .to = v[TO], .cc = v[CC], .bcc = v[BCC], .subject = v[SUBJECT], .priority = m->priority, .date = time(NULL)};
        return read_priority(c, dapr_kvs_get(in->metadata, "priority"), &ret->priority);
}

/* ---- sending ---- */

static size_t give_bytes(char *to, size_t size, size_t n, void *arg)
{
        struct str *rest = arg;
        size_t part = rest->n < size * n ? rest->n : size * n;
        memcpy(to, rest->p, part);
        *rest = str_skip(*rest, part);
        return part;
}

static int transfer(struct dapr_call *c, const struct mailer *m, const char *from, struct curl_slist *to, struct str text)
{
        char err[CURL_ERROR_SIZE] = "";
        CURL *h = curl_easy_init();
        double limit = fmin(SEND_S, dapr_deadline_s(c));
        long code = 0;
        if (!h)
                return -ENOMEM;
        curl_easy_setopt(h, CURLOPT_URL, m->url);
        curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(h, CURLOPT_PROXY, "");
        curl_easy_setopt(h, CURLOPT_ERRORBUFFER, err);
        curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
        curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, limit > 0.001 ? (long)(limit * 1000) : 1L);
        curl_easy_setopt(h, CURLOPT_USE_SSL, (long)(m->must_encrypt ? CURLUSESSL_ALL : CURLUSESSL_TRY));
        if (m->skip_verify) {
                curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 0L);
                curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 0L);
        }
        if (m->user) {
                curl_easy_setopt(h, CURLOPT_USERNAME, m->user);
                curl_easy_setopt(h, CURLOPT_PASSWORD, m->password);
        }
        curl_easy_setopt(h, CURLOPT_MAIL_FROM, from);
        curl_easy_setopt(h, CURLOPT_MAIL_RCPT, to);
        curl_easy_setopt(h, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(h, CURLOPT_INFILESIZE_LARGE, (curl_off_t)text.n);
        curl_easy_setopt(h, CURLOPT_READFUNCTION, give_bytes);
        curl_easy_setopt(h, CURLOPT_READDATA, &text);
        CURLcode r = curl_easy_perform(h);
        curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &code);
        curl_easy_cleanup(h);
        if (r == CURLE_OK)
                return 0;
        if (r == CURLE_OUT_OF_MEMORY)
                return -ENOMEM;
        bool refused = code >= 500 || r == CURLE_LOGIN_DENIED;
        return dapr_fail(c, refused ? DAPR_FAILED_PRECONDITION : DAPR_UNAVAILABLE, "error from smtp binding, sending email failed: %s",
                         *err ? err : curl_easy_strerror(r));
}

static int mailer_invoke(struct dapr_call *c, void *instance, const struct dapr_invoke *in, struct dapr_invoke_result *out)
{
        struct mailer *m = instance;
        struct curl_slist *to = NULL, *from = NULL;
        struct buf text = {0};
        struct arena a;
        struct mail mail;
        size_t senders = 0, count = 0;
        if (strcmp(in->operation, "create") != 0)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "invalid operation type: %s. Expected create", in->operation);
        if (in->data.n > BODY_MAX)
                return dapr_fail(c, DAPR_INVALID_ARGUMENT, "smtp binding error: the mail is longer than %d MiB", BODY_MAX >> 20);
        int r = compose(c, m, in, &mail);
        if (!r)
                r = add_recipients(c, mail.from, "emailFrom", &from, &senders);
        if (!r && senders != 1)
                r = dapr_fail(c, DAPR_INVALID_ARGUMENT, "smtp binding error: emailFrom names %zu addresses: write one", senders);
        if (!r)
                r = add_recipients(c, mail.to, "emailTo", &to, &count);
        if (!r)
                r = add_recipients(c, mail.cc, "emailCC", &to, &count);
        if (!r)
                r = add_recipients(c, mail.bcc, "emailBCC", &to, &count);
        if (!r) {
                arena_init(&a, 0);
                mail.body = body_of(&a, in->data);
                r = mail_write(&text, &mail);
                arena_fini(&a);
        }
        if (!r)
                r = transfer(c, m, from->data, to, buf_str(&text));
        curl_slist_free_all(to);
        curl_slist_free_all(from);
        buf_fini(&text);
        return r;
}

static int start(void)
{
        return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -ENOMEM;
}

static const struct dapr_binding_ops ops = {
        .mode = DAPR_WORKER,
        .init = mailer_init,
        .close = mailer_close,
        .operations = operations,
        .invoke = mailer_invoke,
};
static const struct dapr_component_type types[] = {{.type = "bindings.smtp", .versions = "v1", .binding = &ops}};
static const struct dapr_plugin plugin = {.name = "bindings.smtp", .version = "1.0.0", .types = types, .n_types = 1, .start = start,
                                          .stop = curl_global_cleanup};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
