/* How freed memory goes back to the system: by the allocator of the C library, or by the one of a sanitizer. Private to spare.c. */
#ifndef SDK_BASE_SPARE_GIVE_H
#define SDK_BASE_SPARE_GIVE_H

#if defined(__SANITIZE_ADDRESS__)
#define SPARE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SPARE_ASAN 1
#endif
#endif

#ifdef SPARE_ASAN
void __sanitizer_purge_allocator(void); /* of the runtime; GCC has no header for it */
static inline void spare_give(void)
{
        __sanitizer_purge_allocator();
}
#else
#include <malloc.h>
static inline void spare_give(void)
{
        malloc_trim(0);
}
#endif

#endif
