/* The conversation building block, inside: conversation.c has the operations, conversation_request.c what they ask a plugin. */
#ifndef KERNEL_CONVERSATION_H
#define KERNEL_CONVERSATION_H

#include "dapr/proto/runtime/v1/ai.pb-c.h"
#include "kernel/blocks/pii.h"
#include "kernel/front/call.h"
#include "plugin/v1/conversation.pb-c.h"

typedef Dapr__Proto__Runtime__V1__ConversationRequest alpha1_request;
typedef Dapr__Proto__Runtime__V1__ConversationRequestAlpha2 alpha2_request;
typedef Microdapr__Plugin__V1__ConverseRequest converse_request;
typedef Microdapr__Plugin__V1__ConverseResponse converse_response;

/* Each fills *ask in the call's arena, with personal data scrubbed where the caller wants it; p is made when it is first needed. 0,
 * or call_fail() was called. Park on long texts. */
int conversation_ask_alpha1(struct call *c, const alpha1_request *in, struct pii **p, converse_request *ask);
int conversation_ask_alpha2(struct call *c, const alpha2_request *in, struct pii **p, converse_request *ask);
/* *text without personal data when `scrub`. 0, or call_fail() was called. */
int conversation_scrub(struct call *c, const char *name, bool scrub, struct pii **p, const char **text);

#endif
