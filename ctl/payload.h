/* What commands send: data of a flag, or of a file; metadata as a JSON object. */
#ifndef CTL_PAYLOAD_H
#define CTL_PAYLOAD_H

#include "ctl/ctl.h"

enum { PAYLOAD_MAX_BYTES = 64 << 20 };

/* --data or --data-file ("-": standard input). 0, or 1 after saying what is wrong. Bytes in a, or the flag's own. */
int payload_read(struct arena *a, const char *command, const char *data, const char *file, struct str *ret);
/* Is the text a flat JSON object of texts? Calls fn for each. 0, or 1 after saying what is wrong. "" is fine. */
int payload_metadata(struct arena *a, const char *text, void (*fn)(void *arg, struct str key, struct str value), void *arg);
/* The sidecar of an app; NULL after saying that there is none. A socket folder given by flag wins. Parks. */
struct sidecar *payload_sidecar(struct arena *a, const char *app_id, const char *socket);
/* The "message" of an error answer, or the answer. */
struct str payload_error(struct arena *a, struct str body);

#endif
