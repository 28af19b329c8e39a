// SPDX-License-Identifier: Apache-2.0
/* The fake's watchdog: as Xen, two timers a host. The file `watchdog` in its
 * directory has when each fires (monotonic nanoseconds; 0: not in use), and
 * whether one has: a host of which that is true was reset. Any process. */
#include "hypervisor/fake_host.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"

struct timers {
    uint64_t at[FAKE_WATCHDOGS];
    bool fired;
};

static int timers_open(const char *dir, struct timers *t, struct err *e)
{
    char path[300];
    uint64_t now = clock_ns();

    snprintf(path, sizeof path, "%s/watchdog", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "open %s", path);
    memset(t, 0, sizeof *t);
    (void)!pread(fd, t, sizeof *t, 0);
    for (unsigned i = 0; i < FAKE_WATCHDOGS; i++)
        t->fired |= t->at[i] && t->at[i] < now;
    return fd;
}

int fake_watchdog(struct hv *hv, unsigned *id, unsigned seconds, struct err *e)
{
    const char *dir = ((struct fake *)(void *)hv)->dir;
    CLEANUP_CLOSE int lock = fake_lock(dir, e);
    struct timers t;
    unsigned i = *id ? *id - 1 : 0;

    if (lock < 0)
        return -1;
    CLEANUP_CLOSE int fd = timers_open(dir, &t, e);
    if (fd < 0)
        return -1;
    while (!*id && i < FAKE_WATCHDOGS && t.at[i])
        i++;
    if (i >= FAKE_WATCHDOGS)
        return err_set(e, "both watchdog timers are in use");
    if (*id && !t.at[i])
        return err_kind(e, ERR_GONE, "watchdog timer %u is not in use", *id);
    t.at[i] = seconds ? clock_ns() + seconds * NS_PER_SEC : 0;
    if (pwrite(fd, &t, sizeof t, 0) != sizeof t)
        return err_sys(e, "write the watchdog");
    *id = i + 1;
    return 0;
}

int fake_watchdog_look(const char *dir, long long left_ms[FAKE_WATCHDOGS],
                       bool *fired, struct err *e)
{
    CLEANUP_CLOSE int lock = fake_lock(dir, e);
    uint64_t now = clock_ns();
    struct timers t;

    if (lock < 0)
        return -1;
    CLEANUP_CLOSE int fd = timers_open(dir, &t, e);
    if (fd < 0)
        return -1;
    for (unsigned i = 0; i < FAKE_WATCHDOGS; i++)
        left_ms[i] = !t.at[i]        ? -1
                     : t.at[i] > now ? (long long)((t.at[i] - now) / NS_PER_MS)
                                     : 0;
    *fired = t.fired;
    return 0;
}
