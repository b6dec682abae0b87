/* A store whose calls block on threads, one at a time under a mutex and the lock of a file. The key "hang" never lets go of them; "slow"
 * takes a while, and no lock. With WITH_PING a ping takes the mutex as well, with LOCK Init takes the lock: it waits for whoever hangs. */
#include <dapr/plugin.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        int fd = open(dapr_md_string(md, "file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
#ifdef LOCK
        flock(fd, LOCK_EX);
        flock(fd, LOCK_UN);
#endif
        *instance = malloc(sizeof fd);
        memcpy(*instance, &fd, sizeof fd);
        return 0;
}

static void shut(void *instance)
{
        close(*(int *)instance);
        free(instance);
}

static int ping(struct dapr_call *c, void *instance)
{
        pthread_mutex_lock(&one_at_a_time);
        pthread_mutex_unlock(&one_at_a_time);
        return 0;
}

static int get(struct dapr_call *c, void *instance, const struct dapr_get *in, struct dapr_item *out)
{
        if (strcmp(in->key, "slow") == 0)
                return sleep(3), 0;
        pthread_mutex_lock(&one_at_a_time);
        flock(*(int *)instance, LOCK_EX);
        while (strcmp(in->key, "hang") == 0)
                pause();
        flock(*(int *)instance, LOCK_UN);
        pthread_mutex_unlock(&one_at_a_time);
        out->found = true;
        out->value = dapr_copy(c, "1", 1);
        return 0;
}

static int set(struct dapr_call *c, void *instance, const struct dapr_set *in)
{
        return 0;
}

static int del(struct dapr_call *c, void *instance, const struct dapr_delete *in)
{
        return 0;
}

#ifdef WITH_PING
#define PING ping
#else
#define PING (0 ? ping : NULL)
#endif
static const struct dapr_state_ops ops = {.mode = DAPR_WORKER, .init = init, .close = shut, .ping = PING, .get = get, .set = set, .del = del};
static const struct dapr_component_type types[] = {{.type = "state.hanging", .versions = "v1", .state = &ops}};

int main(int argc, char **argv)
{
        static const struct dapr_plugin plugin = {.name = "state.hanging", .version = "1.0.0", .types = types, .n_types = 1};
        return dapr_plugin_main(argc, argv, &plugin);
}
