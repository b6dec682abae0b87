/* Files about packages that came with a repository or from a server: plugins.lock, index.json, an OCI image layout. Whatever they are, they are
 * refused with a sentence or give entries that are whole. The first byte chooses. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/package/index.h"
#include "sdk/base/log.h"
#include "sdk/trust/lockfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64];

static void put(const char *name, const void *data, size_t n)
{
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        must(fd >= 0 && write(fd, data, n) == (ssize_t)n);
        close(fd);
}

static void drop(const char *name)
{
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, name);
        unlink(path);
}

static void gone(void)
{
        drop("plugins.lock");
        drop(INDEX_FILE);
        drop("oci-layout");
        rmdir(folder);
}

static void read_lock(struct arena *a)
{
        struct lockfile l = {0};
        const char *err = NULL;
        char path[128];

        snprintf(path, sizeof path, "%s/plugins.lock", folder);
        if (lock_read(a, path, &l, &err)) {
                must(err && *err);
                return;
        }
        must(l.n <= LOCK_MAX);
        for (size_t i = 0; i < l.n; i++) {
                must(l.v[i].name && l.v[i].version && l.v[i].platform && l.v[i].digest);
                const struct lock_entry *e = lock_find(&l, l.v[i].name);
                if (e)
                        lock_pins(e, l.v[i].digest);
        }
}

static void read_index(struct arena *a)
{
        struct index x = {0};
        const char *err = NULL;

        if (index_open(a, &(struct index_ask){.where = folder, .ca_file = ""}, &x, &err)) {
                must(err && *err);
                return;
        }
        must(x.n <= INDEX_ENTRIES_MAX);
        for (size_t i = 0; i < x.n; i++)
                must(x.v[i].name && x.v[i].version);
        if (x.n)
                index_pick(&x, x.v[0].name, ">=1", a, &err);
        index_close(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct arena a;

        if (!folder[0]) {
                log_set_level(LOG_FATAL);
                snprintf(folder, sizeof folder, "/dev/shm/package-files-%d", (int)getpid());
                must(mkdir(folder, 0700) == 0);
                atexit(gone);
        }
        if (!size)
                return 0;
        arena_init(&a, 64 << 20);
        if (data[0] % 3 == 0) {
                put("plugins.lock", data + 1, size - 1);
                read_lock(&a);
        } else {
                if (data[0] % 3 == 1)
                        put("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}", 30);
                else
                        drop("oci-layout");
                put(INDEX_FILE, data + 1, size - 1);
                read_index(&a);
        }
        arena_fini(&a);
        return 0;
}
