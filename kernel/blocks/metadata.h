/* What the sidecar says of itself: the GetMetadata message, made for both doors. */
#ifndef KERNEL_METADATA_H
#define KERNEL_METADATA_H

#include "dapr/proto/runtime/v1/metadata.pb-c.h"
#include "kernel/front/call.h"

typedef Dapr__Proto__Runtime__V1__GetMetadataResponse metadata_message;

/* Fills the message, everything in a. 0 or -ENOMEM. */
int metadata_fill(struct kernel *k, struct arena *a, metadata_message *m);
/* Declarative subscriptions among the loaded resources. */
int metadata_fill_subscriptions(struct kernel *k, struct arena *a, metadata_message *m);
/* Writes the HTTP form: the reference's fields in its order, and for each component its plugin's state as "microdapr". */
void metadata_json(struct kernel *k, struct arena *a, const metadata_message *m, struct buf *out);

#endif
