/* lock.cstore: locks in memory, in a list. Put your server in their place. */
#include <dapr/plugin.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct held {
        struct held *next;
        char *resource, *owner;
        time_t end;
};
struct locks {
        struct held *first;
};

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        (void)c, (void)md; /* read settings: dapr_md_string(md, "url") */
        *instance = calloc(1, sizeof(struct locks));
        return *instance ? 0 : -ENOMEM;
}

static void drop(struct held **at)
{
        struct held *gone = *at;
        *at = gone->next;
        free(gone->resource);
        free(gone->owner);
        free(gone);
}

static void shut(void *instance)
{
        struct locks *l = instance;
        while (l->first)
                drop(&l->first);
        free(l);
}

/* Where the resource's lock stands, or the end of the list. Those whose time is over go on the way. */
static struct held **find(struct locks *l, const char *resource)
{
        struct held **at = &l->first;
        while (*at) {
                if ((*at)->end <= time(NULL))
                        drop(at);
                else if (strcmp((*at)->resource, resource) == 0)
                        break;
                else
                        at = &(*at)->next;
        }
        return at;
}

static int try_lock(struct dapr_call *c, void *instance, const struct dapr_lock *in, bool *taken)
{
        (void)c;
        struct held **at = find(instance, in->resource);
        *taken = *at == NULL;
        if (!*taken)
                return 0;
        struct held *h = calloc(1, sizeof(*h));
        if (!h || !(h->resource = strdup(in->resource)) || !(h->owner = strdup(in->owner))) {
                free(h ? h->resource : NULL);
                free(h);
                return -ENOMEM;
        }
        h->end = time(NULL) + in->expiry_s;
        *at = h;
        return 0;
}

static int unlock(struct dapr_call *c, void *instance, const struct dapr_lock *in, enum dapr_unlock *out)
{
        (void)c;
        struct held **at = find(instance, in->resource);
        *out = !*at ? DAPR_LOCK_MISSING : strcmp((*at)->owner, in->owner) != 0 ? DAPR_LOCK_OF_OTHERS : DAPR_UNLOCKED;
        if (*out == DAPR_UNLOCKED)
                drop(at);
        return 0;
}

static const struct dapr_lock_ops ops = {.mode = DAPR_INLINE, .init = init, .close = shut, .try_lock = try_lock, .unlock = unlock};
static const struct dapr_component_type types[] = {{.type = "lock.cstore", .versions = "v1", .lock = &ops}};
/* PLUGIN_VERSION: that of plugin.yaml, from the Makefile. */
static const struct dapr_plugin plugin = {.name = "lock.cstore", .version = PLUGIN_VERSION, .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
