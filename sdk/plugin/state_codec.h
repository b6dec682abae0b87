/* Requests and replies of state stores, between wire bytes and the structs of <dapr/plugin.h>. */
#ifndef SDK_PLUGIN_STATE_CODEC_H
#define SDK_PLUGIN_STATE_CODEC_H

#include "sdk/plugin/runtime.h"

/* Each reads one message. Strings are copied into the call's arena, values are borrowed from the bytes. 0, -EBADMSG, -ENOMEM. */
int state_read_get(struct dapr_call *dc, struct str msg, struct dapr_get *ret);
int state_read_set(struct dapr_call *dc, struct str msg, struct dapr_set *ret);
int state_read_delete(struct dapr_call *dc, struct str msg, struct dapr_delete *ret);
int state_read_op(struct dapr_call *dc, struct str msg, struct dapr_op *ret);
/* The bytes of each occurrence of field `number`. *ret in the arena. */
int state_read_repeated(struct dapr_call *dc, struct str msg, uint32_t number, struct str **ret, size_t *ret_n);
/* The entries of a map<string, string> in field `number`. */
int state_read_map(struct dapr_call *dc, struct str msg, uint32_t number, struct dapr_kvs *ret);
/* ttlInSeconds of set.metadata into set.ttl_s. 0, or -EINVAL with the text set by dapr_fail(). */
int state_read_ttl(struct dapr_call *dc, struct dapr_set *set);

/* Packs into the call's arena; p == NULL when it does not fit. error != NULL: the item failed. */
struct str state_pack_get(struct dapr_call *dc, const struct dapr_item *item);
struct str state_pack_bulk_get(struct dapr_call *dc, const char *const *keys, const struct dapr_item *items,
                               const char *const *errors, size_t n);

#endif
