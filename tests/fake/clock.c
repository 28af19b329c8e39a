// SPDX-License-Identifier: Apache-2.0
/* A host whose clock is CLOCK_SHIFT_S seconds off: what it is told of the time
 * of day, and nothing else. For LD_PRELOAD, built and used by
 * arbiter-clocks.sh. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *ts)
{
    const char *shift = getenv("CLOCK_SHIFT_S");
    int r = (int)syscall(SYS_clock_gettime, id, ts);

    if (!r && shift && id == CLOCK_REALTIME)
        ts->tv_sec += atol(shift);
    return r;
}

time_t time(time_t *out)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    if (out)
        *out = ts.tv_sec;
    return ts.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}
