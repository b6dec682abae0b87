/*
 * Conversation providers that speak OpenAI's chat completions (https://platform.openai.com/docs/api-reference/chat): OpenAI, Azure,
 * and the many servers that are compatible with them. openai.c has the instance, request.c and response.c the two JSON documents.
 */
#ifndef PLUGINS_SHARED_OPENAI_OPENAI_H
#define PLUGINS_SHARED_OPENAI_OPENAI_H

#include <dapr/plugin.h>

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"

struct openai_defaults {
        const char *key;           /* used when none is given; NULL = a key is needed */
        const char *endpoint, *model, *model_env;
        const char *azure_model, *azure_model_env; /* NULL: no Azure */
};
int openai_init(struct dapr_call *c, const struct dapr_metadata *md, const struct openai_defaults *d, void **instance);
void openai_close(void *instance);
int openai_converse(struct dapr_call *c, void *instance, const struct dapr_converse *in, struct dapr_converse_result *out);

/* The request's JSON into *out. 0, -ENOMEM, or what dapr_fail() gave. */
int openai_write(struct dapr_call *c, const char *model, const struct dapr_converse *in, struct buf *out);
/* The answer's. Strings are in the call's memory. */
int openai_read(struct dapr_call *c, struct str json, struct dapr_converse_result *out);
/* The text of an error document; empty when it is none. */
struct str openai_error(struct arena *a, struct str json);

#endif
