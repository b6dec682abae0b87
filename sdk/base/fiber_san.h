/* What sanitizers want to hear about switches of stacks; nothing in other builds. Private to fiber.c. */
#ifndef SDK_BASE_FIBER_SAN_H
#define SDK_BASE_FIBER_SAN_H

#include <stdbool.h>
#include <stddef.h>

#include "sdk/base/fiber.h"

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define HAVE_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define HAVE_TSAN 1
#endif

/* Of one fiber. stack, bytes: set by the owner. */
struct san {
        char *stack;
        size_t bytes;
        void *fake_stack;
        void *tsan;
};

/* san_enter: on the loop's stack, before the jump; san_entered: on the fiber, after it. san_leave and san_left: the way back.
 * ends: nothing on the fiber's stack is needed any more. */
#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
enum { SAN_FIBERS_MAX = FIBER_MAX };
static const void *loop_stack;
static size_t loop_stack_bytes;
static void *loop_fake_stack;
static inline void san_enter(struct san *s)
{
        __sanitizer_start_switch_fiber(&loop_fake_stack, s->stack, s->bytes);
}
static inline void san_entered(struct san *s)
{
        __sanitizer_finish_switch_fiber(s->fake_stack, &loop_stack, &loop_stack_bytes);
}
static inline void san_leave(struct san *s, bool ends)
{
        if (ends)
                s->fake_stack = NULL;
        __sanitizer_start_switch_fiber(ends ? NULL : &s->fake_stack, loop_stack, loop_stack_bytes);
}
static inline void san_left(void)
{
        __sanitizer_finish_switch_fiber(loop_fake_stack, NULL, NULL);
}
static inline void san_new(struct san *s)
{
}
static inline void san_free(struct san *s)
{
        __asan_unpoison_memory_region(s->stack, s->bytes);
}
#elif defined(HAVE_TSAN)
#include <sanitizer/tsan_interface.h>
enum { SAN_FIBERS_MAX = 5000 }; /* TSan knows 8128 threads and fibers at most */
static void *loop_tsan;
static inline void san_enter(struct san *s)
{
        loop_tsan = __tsan_get_current_fiber();
        __tsan_switch_to_fiber(s->tsan, 0);
}
static inline void san_entered(struct san *s)
{
}
static inline void san_leave(struct san *s, bool ends)
{
        __tsan_switch_to_fiber(loop_tsan, 0);
}
static inline void san_left(void)
{
}
static inline void san_new(struct san *s)
{
        s->tsan = __tsan_create_fiber(0);
}
static inline void san_free(struct san *s)
{
        __tsan_destroy_fiber(s->tsan);
}
#else
enum { SAN_FIBERS_MAX = FIBER_MAX };
static inline void san_enter(struct san *s)
{
}
static inline void san_entered(struct san *s)
{
}
static inline void san_leave(struct san *s, bool ends)
{
}
static inline void san_left(void)
{
}
static inline void san_new(struct san *s)
{
}
static inline void san_free(struct san *s)
{
}
#endif

#endif
