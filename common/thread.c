// SPDX-License-Identifier: Apache-2.0
/* Starting threads; see thread.h. */
#include "common/thread.h"

#include <signal.h>
#include <string.h>

int thread_start(pthread_t *thread, size_t stack, void *(*run)(void *),
                 void *arg, const char *what, struct err *e)
{
    pthread_attr_t attr;
    sigset_t all, old;

    pthread_attr_init(&attr);
    if (stack)
        pthread_attr_setstacksize(&attr, stack);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(thread, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return r ? err_set(e, "start %s: %s", what, strerror(r)) : 0;
}
