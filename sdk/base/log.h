/*
 * Log lines in the reference's schema, text (logfmt as logrus writes it) or JSON, on stdout, one write per line.
 * Fields: time (RFC 3339, nanoseconds), level, type=log, msg, scope, instance (host name), app_id (when set), ver.
 * Text form, in this order:
 *   time="2026-01-02T03:04:05.123456789Z" level=info msg="..." app_id=x instance=h scope=dapr.runtime type=log ver=1.17.9
 * On a terminal the text form is the coloured one of logrus. The one that decides about an error logs it, once; lower layers return it. Never log a secret.
 */
#ifndef SDK_BASE_LOG_H
#define SDK_BASE_LOG_H

#include <stdbool.h>

#include "sdk/base/str.h"

enum log_level { LOG_FATAL, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log_field {
        const char *key;
        struct str value;
        bool is_number; /* written without quotes in the JSON form */
};

void log_setup(const char *app_id, const char *version, bool as_json); /* strings are kept by reference */
int log_to_file(const char *path); /* appends there from now on, instead of stdout (as the reference); 0 or -errno */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
int log_level_parse(struct str s, enum log_level *ret); /* debug info warn(ing) error fatal; -EINVAL */
const char *log_level_name(enum log_level level);       /* as printed: debug info warning error fatal */
bool log_enabled(enum log_level level);

/* Thread-safe. A fatal line does not exit by itself. */
void log_write(enum log_level level, const char *scope, struct str msg, const struct log_field *fields, size_t n);
/* The same whatever the level is set to: for logs that have their own switch. */
void log_write_always(enum log_level level, const char *scope, struct str msg, const struct log_field *fields, size_t n);
void log_printf(enum log_level level, const char *scope, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define LOG_AT(level, scope, ...) (log_enabled(level) ? log_printf(level, scope, __VA_ARGS__) : (void)0)
#define log_debug(scope, ...) LOG_AT(LOG_DEBUG, scope, __VA_ARGS__)
#define log_info(scope, ...) LOG_AT(LOG_INFO, scope, __VA_ARGS__)
#define log_warn(scope, ...) LOG_AT(LOG_WARN, scope, __VA_ARGS__)
#define log_error(scope, ...) LOG_AT(LOG_ERROR, scope, __VA_ARGS__)
#define log_fatal(scope, ...) LOG_AT(LOG_FATAL, scope, __VA_ARGS__)

/* Bugs only, always on: prints the expression and aborts. */
#define must(x) ((x) ? (void)0 : must_failed(#x, __FILE__, __LINE__))
_Noreturn void must_failed(const char *expr, const char *file, int line);

#endif
