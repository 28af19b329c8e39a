// SPDX-License-Identifier: Apache-2.0
/* Errors as values. A fallible function returns 0 or -1 and takes a
 * `struct err *` last; the caller adds context going up and reports it once,
 * at the top. Nothing here allocates, so an error can be built anywhere. */
#ifndef COMMON_ERR_H
#define COMMON_ERR_H

#include <stdarg.h>

/* What kind of end a failure is; the CLI turns it into an exit status and the
 * link into a refusal that the other side can tell apart. */
enum err_kind {
    ERR_FAILED = 1, /* it was tried and did not work */
    ERR_USAGE,      /* the request itself makes no sense */
    ERR_REFUSED,    /* it was understood, and must not be done */
    ERR_TIMEOUT,    /* it did not happen in time */
    ERR_GONE,       /* what it was about is not there (any more) */
};

/* Fields are written by the functions below only. `text` is a whole sentence
 * part, context first, deepest cause last, joined by ": ". `hint` says what
 * to do next; empty when nobody knew. */
struct err {
    enum err_kind kind;
    char text[768];
    char hint[256];
};

#define ERR_INIT                                                               \
    {                                                                          \
        0, "", ""                                                              \
    }

/* Set *e; returns -1, so that `return err_set(...)` reads well. A NULL e is
 * allowed everywhere: the failure is then only the return value. */
int err_set(struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The same with a kind. */
int err_kind(struct err *e, enum err_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with ": " and the text of errno appended. */
int err_sys(struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Put context in front of what is there: "CONTEXT: OLD". Returns -1. */
int err_add(struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Say what to do next; the first (deepest) hint stays. Returns -1. */
int err_hint(struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Forget the error, for a second try with the same variable. */
void err_clear(struct err *e);

#endif
