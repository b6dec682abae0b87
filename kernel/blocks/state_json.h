/* JSON bodies of the state API: a reader that remembers its first error, and items. See state_json.c for the rules. */
#ifndef KERNEL_STATE_JSON_H
#define KERNEL_STATE_JSON_H

#include "kernel/blocks/state.h"
#include "sdk/base/json.h"

struct state_json {
        struct json_reader r;
        struct arena *a;
        bool whole;        /* the text ends with the value (for the words of an error) */
        const char *error; /* of type; reading went on behind the value */
};
void state_json_begin(struct state_json *j, struct arena *a, struct str body);
/* NULL, or what was wrong; to be asked once at the end. */
const char *state_json_error(struct state_json *j);

/* Each consumes the value that stands next. field, type: for the error, as the reference names them. The containers return
 * true when one was entered, string when there was one (not null). */
bool state_json_array(struct state_json *j, const char *field, const char *type);
bool state_json_object(struct state_json *j, const char *field, const char *type);
bool state_json_string(struct state_json *j, const char *field, struct str *ret);
void state_json_int(struct state_json *j, const char *field, int64_t *ret);
void state_json_map(struct state_json *j, const char *field, struct rpc_mdlist *ret); /* adds to *ret, replacing equal keys */
/* {key, value, etag, metadata, options, contentType} */
void state_json_item(struct state_json *j, struct state_item *i);

void state_item_consistency(struct arena *a, struct state_item *i, struct str text);
void state_item_concurrency(struct arena *a, struct state_item *i, struct str text);
/* Sets or replaces. */
void state_metadata_set(struct arena *a, struct rpc_mdlist *md, struct str key, struct str value);

#endif
