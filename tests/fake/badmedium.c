// SPDX-License-Identifier: Apache-2.0
/* A medium that is bad: while the file BADMEDIUM_SWITCH is there, what it names
 * (read, write or sync) of files whose path ends in BADMEDIUM_FILE returns EIO;
 * or, with `slow`, their sync takes BADMEDIUM_MS for each MiB that was written
 * since the last one. For LD_PRELOAD, built and used by disk-eio.sh and
 * disk-slow.sh. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long written;

static int is_on(const char *what)
{
    const char *path = getenv("BADMEDIUM_SWITCH");
    char text[16] = "";
    int fd = path ? (int)syscall(SYS_open, path, O_RDONLY, 0) : -1;

    if (fd < 0)
        return 0;
    ssize_t n = syscall(SYS_read, fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && !strncmp(text, what, strlen(what));
}

static int is_bad(int fd, const char *what)
{
    const char *end = getenv("BADMEDIUM_FILE");
    char link[64], path[4096];

    if (!end || !is_on(what))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path);
    size_t len = strlen(end);
    if (n < (ssize_t)len || memcmp(path + n - len, end, len) != 0)
        return 0;
    errno = EIO;
    return 1;
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
    return is_bad(fd, "read") ? -1 : syscall(SYS_pread64, fd, p, n, at);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (is_bad(fd, "slow"))
        __atomic_add_fetch(&written, (long)n, __ATOMIC_RELAXED);
    return is_bad(fd, "write") ? -1 : syscall(SYS_pwrite64, fd, p, n, at);
}

int fallocate(int fd, int mode, off_t at, off_t n)
{
    return is_bad(fd, "write") ? -1
                               : (int)syscall(SYS_fallocate, fd, mode, at, n);
}

int fdatasync(int fd)
{
    const char *text = getenv("BADMEDIUM_MS");

    if (is_bad(fd, "slow") && text) {
        long bytes = __atomic_exchange_n(&written, 0, __ATOMIC_RELAXED);
        long ms = (bytes >> 10) * atol(text) >> 10;
        struct timespec t = {ms / 1000, ms % 1000 * 1000000};
        nanosleep(&t, NULL);
    }
    return is_bad(fd, "sync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}
