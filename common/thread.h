// SPDX-License-Identifier: Apache-2.0
/* Threads of this program: signals are for those that asked for them, so a new
 * one gets none. */
#ifndef COMMON_THREAD_H
#define COMMON_THREAD_H

#include <pthread.h>
#include <stddef.h>

#include "common/err.h"

/* `stack`: bytes, or 0: the usual. `what` it is, for the error. */
int thread_start(pthread_t *thread, size_t stack, void *(*run)(void *),
                 void *arg, const char *what, struct err *e);

#endif
