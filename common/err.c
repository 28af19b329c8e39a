// SPDX-License-Identifier: Apache-2.0
/* Errors as values; see err.h. Any thread, no shared state. */
#include "common/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void text_set(struct err *e, enum err_kind kind, const char *fmt,
                     va_list ap)
{
    e->kind = kind;
    e->hint[0] = '\0';
    vsnprintf(e->text, sizeof e->text, fmt, ap);
}

int err_set(struct err *e, const char *fmt, ...)
{
    if (!e)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    text_set(e, ERR_FAILED, fmt, ap);
    va_end(ap);
    return -1;
}

int err_kind(struct err *e, enum err_kind kind, const char *fmt, ...)
{
    if (!e)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    text_set(e, kind, fmt, ap);
    va_end(ap);
    return -1;
}

int err_sys(struct err *e, const char *fmt, ...)
{
    int saved = errno;

    if (!e)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    text_set(e, ERR_FAILED, fmt, ap);
    va_end(ap);
    size_t used = strlen(e->text);
    snprintf(e->text + used, sizeof e->text - used, ": %s", strerror(saved));
    errno = saved;
    return -1;
}

int err_add(struct err *e, const char *fmt, ...)
{
    if (!e)
        return -1;
    char old[sizeof e->text];
    memcpy(old, e->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    size_t used = strlen(e->text);
    snprintf(e->text + used, sizeof e->text - used, ": %s", old);
    return -1;
}

int err_hint(struct err *e, const char *fmt, ...)
{
    if (!e || e->hint[0])
        return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->hint, sizeof e->hint, fmt, ap);
    va_end(ap);
    return -1;
}

void err_clear(struct err *e)
{
    if (!e)
        return;
    e->kind = 0;
    e->text[0] = '\0';
    e->hint[0] = '\0';
}
