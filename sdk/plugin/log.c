/*
 * A plugin's log: one line on stderr, its level in front as <N>, N being syslog's number (3 error, 4 warning, 6 info, 7 debug).
 * The runtime takes the mark off and makes its own log line of it. On a terminal the level is written as a word instead.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "sdk/plugin/runtime.h"

static atomic_int max_level = DAPR_LOG_INFO;
static bool on_terminal;

void sdk_log_setup(void)
{
        on_terminal = isatty(STDERR_FILENO);
}

int sdk_log_set_level(const char *level)
{
        static const struct {
                const char *name;
                enum dapr_log level;
        } names[] = {{"debug", DAPR_LOG_DEBUG}, {"info", DAPR_LOG_INFO},   {"warn", DAPR_LOG_WARN},
                     {"warning", DAPR_LOG_WARN}, {"error", DAPR_LOG_ERROR}, {"fatal", DAPR_LOG_ERROR}};
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (strcasecmp(level, names[i].name) == 0) {
                        max_level = (int)names[i].level;
                        return 0;
                }
        return -EINVAL;
}

static const char *mark(enum dapr_log level)
{
        switch (level) {
        case DAPR_LOG_ERROR: return on_terminal ? "error: " : "<3>";
        case DAPR_LOG_WARN: return on_terminal ? "warning: " : "<4>";
        case DAPR_LOG_INFO: return on_terminal ? "" : "<6>";
        case DAPR_LOG_DEBUG: return on_terminal ? "debug: " : "<7>";
        }
        return "";
}

void sdk_log(enum dapr_log level, const char *fmt, va_list ap)
{
        char line[2048];
        if ((int)level > max_level)
                return;
        int at = snprintf(line, sizeof line, "%s", mark(level));
        int n = vsnprintf(line + at, sizeof line - (size_t)at - 1, fmt, ap);
        size_t len = (size_t)at + (n < 0 ? 0 : (size_t)n);
        if (len > sizeof line - 2)
                len = sizeof line - 2;
        for (size_t i = 0; i < len; i++)
                if (line[i] == '\n') /* one message is one line */
                        line[i] = ' ';
        line[len++] = '\n';
        while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR)
                ;
}

void dapr_log(enum dapr_log level, const char *fmt, ...)
{
        va_list ap;
        va_start(ap, fmt);
        sdk_log(level, fmt, ap);
        va_end(ap);
}
