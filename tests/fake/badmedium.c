// SPDX-License-Identifier: Apache-2.0
/* A medium that fails: while the file BADMEDIUM_SWITCH is there, what it names
 * (read, write or sync) of files whose path ends in BADMEDIUM_FILE returns EIO.
 * For LD_PRELOAD, built and used by disk-eio.sh. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

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
    return is_bad(fd, "write") ? -1 : syscall(SYS_pwrite64, fd, p, n, at);
}

int fallocate(int fd, int mode, off_t at, off_t n)
{
    return is_bad(fd, "write") ? -1
                               : (int)syscall(SYS_fallocate, fd, mode, at, n);
}

int fdatasync(int fd)
{
    return is_bad(fd, "sync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}
