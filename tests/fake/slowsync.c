// SPDX-License-Identifier: Apache-2.0
/* A disk that takes its time: fsync(2) waits SLOWSYNC_MS first. For LD_PRELOAD,
 * built and used by slow-disk.sh. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fsync(int fd)
{
    const char *text = getenv("SLOWSYNC_MS");
    long ms = text ? atol(text) : 0;
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&t, NULL);
    return (int)syscall(SYS_fsync, fd);
}
