/*
 * Is a MessagePack text as long as it says? To be asked before msgpack-c reads a text from elsewhere: that allocates what an array or
 * a map claims to hold (4 billion entries in five bytes) before it looks whether it is there.
 */
#ifndef SDK_BASE_MSGPACK_SIZE_H
#define SDK_BASE_MSGPACK_SIZE_H

#include "sdk/base/str.h"

/* Bytes of the value that begins the text; 0: it is cut off, or none, or says to hold more than there is. Allocates nothing. */
size_t msgpack_value_bytes(struct str in);

#endif
