/* Filled in next. */
#include "kernel/super/plugin.h"

int foreign_ping_start(struct life *l)
{
        return 0;
}

struct plugin *foreign_find(struct super *s, const char *type)
{
        return map_get(&s->foreign, str_of(type));
}

int foreign_watch_start(struct super *s)
{
        return 0;
}

void foreign_watch_stop(struct super *s)
{
}

int super_discover(struct super *s)
{
        return 0;
}
