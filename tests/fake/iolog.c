// SPDX-License-Identifier: Apache-2.0
/* Notes each write and sync of a file below /var/lib, for LD_PRELOAD: lines
 * "write PATH THREAD OFFSET" and "sync PATH THREAD" in IOLOG. Built and used by
 * disk-durable-ack.sh. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void note(const char *what, int fd, const char *where)
{
    char link[64], path[512], line[700];
    const char *log = getenv("IOLOG");

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = '\0';
    if (!log || !strstr(path, "/var/lib/"))
        return;
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int len = snprintf(line, sizeof line, "%s %s %d%s\n", what, path, gettid(),
                       where);
    if (out >= 0 && write(out, line, (size_t)len) != len)
        abort();
    close(out);
}

ssize_t pwrite64(int fd, const void *p, size_t len, off_t at);
ssize_t pwrite(int fd, const void *p, size_t len, off_t at)
{
    char where[32];

    snprintf(where, sizeof where, " %lld", (long long)at);
    note("write", fd, where);
    return syscall(SYS_pwrite64, fd, p, len, at);
}

ssize_t pwrite64(int fd, const void *p, size_t len, off_t at)
{
    return pwrite(fd, p, len, at);
}

int fdatasync(int fd)
{
    int r = (int)syscall(SYS_fdatasync, fd);

    note("sync", fd, "");
    return r;
}
