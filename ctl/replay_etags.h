/* Another store gives other ETags: those of a recording are exchanged for those that the same reads gave in the replay. */
#ifndef CTL_REPLAY_ETAGS_H
#define CTL_REPLAY_ETAGS_H

#include "sdk/base/arena.h"
#include "sdk/base/map.h"
#include "sdk/base/str.h"

struct replay_etags {
        struct arena arena;
        struct map now; /* recorded -> of the replay, NUL-terminated */
};
void replay_etags_init(struct replay_etags *e);
void replay_etags_fini(struct replay_etags *e);
/* Two good answers to one call: what ETag of the first is which of the second. */
void replay_etags_learn(struct replay_etags *e, struct str method, struct str recorded, struct str now);
/* The request with the ETags of the replay; itself when it holds none that is known. In a, or borrowed. */
struct str replay_etags_apply(const struct replay_etags *e, struct arena *a, struct str method, struct str request);

#endif
