/* pubsub.cstore: a broker. This one keeps messages in memory, in a list; put yours in its place. */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { POLL_MS = 5 };

struct message {
        struct message *next;
        char *topic, *content_type;
        void *data;
        size_t n;
        bool waiting; /* for a subscriber */
        bool gone;
};
struct broker {
        struct message *first, **end;
};

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        (void)c, (void)md; /* read settings: dapr_md_string(md, "url") */
        struct broker *b = calloc(1, sizeof(*b));
        if (!b)
                return -ENOMEM;
        b->end = &b->first;
        *instance = b;
        return 0;
}

static void drop(struct broker *b, struct message **at)
{
        struct message *m = *at;
        *at = m->next;
        if (b->end == &m->next)
                b->end = at;
        free(m->topic);
        free(m->content_type);
        free(m->data);
        free(m);
}

static void shut(void *instance)
{
        struct broker *b = instance;
        while (b->first)
                drop(b, &b->first);
        free(b);
}

static int publish(struct dapr_call *c, void *instance, const struct dapr_publish *in)
{
        (void)c;
        struct broker *b = instance;
        struct message *m = calloc(1, sizeof(*m));
        if (!m || !(m->topic = strdup(in->topic)) || !(m->content_type = strdup(in->content_type)) || !(m->data = malloc(in->data.n + 1))) {
                if (m) {
                        free(m->topic);
                        free(m->content_type);
                }
                free(m);
                return -ENOMEM;
        }
        if (in->data.n)
                memcpy(m->data, in->data.p, in->data.n);
        m->n = in->data.n;
        m->waiting = true;
        *b->end = m;
        b->end = &m->next;
        return 0;
}

/* What became of a message: failed ones and those that nobody answered come again. */
static void done(void *arg, enum dapr_outcome outcome)
{
        struct message *m = arg;
        m->gone = outcome == DAPR_ACKED;
        m->waiting = !m->gone;
}

static struct message *next(struct broker *b, const char *topic)
{
        for (struct message **at = &b->first; *at;) {
                if ((*at)->gone)
                        drop(b, at);
                else if ((*at)->waiting && strcmp((*at)->topic, topic) == 0)
                        return *at;
                else
                        at = &(*at)->next;
        }
        return NULL;
}

static int subscribe(struct dapr_call *c, void *instance, struct dapr_subscription *s, const struct dapr_topic *topic)
{
        (void)c;
        int r = 0;
        dapr_subscribed(s);
        while (r == 0) {
                struct message *m = next(instance, topic->name);
                if (!m) {
                        r = dapr_sleep(POLL_MS / 1e3);
                        continue;
                }
                m->waiting = false;
                r = dapr_deliver(s, &(struct dapr_message){.data = {m->data, m->n}, .content_type = m->content_type}, done, m);
                if (r)
                        m->waiting = true;
        }
        return dapr_subscription_wait(s);
}

static const struct dapr_pubsub_ops ops = {.mode = DAPR_FIBER, .init = init, .close = shut, .publish = publish, .subscribe = subscribe};
static const struct dapr_component_type types[] = {{.type = "pubsub.cstore", .versions = "v1", .pubsub = &ops}};
/* PLUGIN_VERSION: that of plugin.yaml, from the Makefile. */
static const struct dapr_plugin plugin = {.name = "pubsub.cstore", .version = PLUGIN_VERSION, .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
