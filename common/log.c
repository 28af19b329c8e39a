// SPDX-License-Identifier: Apache-2.0
/* The log; see log.h. */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char log_name[64] = "understudy";
static enum log_level log_max = LOG_INFO;

void log_setup(const char *name, enum log_level max)
{
    snprintf(log_name, sizeof log_name, "%s", name);
    log_max = max;
}

static size_t prefix_write(char *out, size_t size, enum log_level level)
{
    struct timespec ts;
    struct tm tm;
    char when[32];

    clock_gettime(CLOCK_REALTIME, &ts);
    localtime_r(&ts.tv_sec, &tm);
    strftime(when, sizeof when, "%H:%M:%S", &tm);
    char priority[8] = "";
    if (!isatty(STDERR_FILENO))
        snprintf(priority, sizeof priority, "<%d>", (int)level);
    int n = snprintf(out, size, "%s%s.%03ld %s: ", priority, when,
                     ts.tv_nsec / 1000000, log_name);
    return n < 0 ? 0 : (size_t)n;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    int saved = errno;
    char line[1400];
    va_list ap;

    if (level > log_max)
        return;
    size_t used = prefix_write(line, sizeof line - 1, level);
    errno = saved; /* for %m */
    va_start(ap, fmt);
    int n = vsnprintf(line + used, sizeof line - 1 - used, fmt, ap);
    va_end(ap);
    if (n > 0)
        used += (size_t)n;
    if (used > sizeof line - 2)
        used = sizeof line - 2;
    line[used++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, used);
    (void)ignored;
    errno = saved;
}
