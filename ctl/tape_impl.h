/* What tape.c and tape_redact.c share. */
#ifndef CTL_TAPE_IMPL_H
#define CTL_TAPE_IMPL_H

#include <msgpack.h>

#include "sdk/base/str.h"

enum { TAPE_KEY_BYTES = 32 };

void tape_pack_text(msgpack_packer *p, struct str s);
/* The message of a method's request or response without its values. */
void tape_pack_redacted(msgpack_packer *p, const unsigned char key[TAPE_KEY_BYTES], struct str method, bool is_response, struct str bytes);

#endif
