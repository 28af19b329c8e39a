// SPDX-License-Identifier: Apache-2.0
/* One line an event, for operators: `log_info("dom=%s epoch=%lu ...")`.
 * Goes to standard error; with a journal or a file behind it (no terminal)
 * each line starts with the syslog priority as "<6>". Keeps errno. Any thread;
 * a line is written with one write(2). Nothing per page, nothing while a guest
 * is stopped. */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

enum log_level { LOG_ERROR = 3, LOG_WARN = 4, LOG_INFO = 6, LOG_DEBUG = 7 };

/* Name in front of every line ("understudyd", "agent web"); copied, cut at 63
 * characters. Lines above `max` are dropped. Call before threads start. */
void log_setup(const char *name, enum log_level max);
void log_line(enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
