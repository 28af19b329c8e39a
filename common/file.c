// SPDX-License-Identifier: Apache-2.0
/* Small files as a whole; see file.h. */
#include "common/file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"

#define SUFFIX ".tmp"
#define RANDOM 7 /* ".XXXXXX" */

int file_sync_dir(const char *path, struct err *e)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (!slash)
        snprintf(dir, sizeof dir, ".");
    else
        snprintf(dir, sizeof dir, "%.*s",
                 (int)(slash == path ? 1 : slash - path), path);
    CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd))
        return err_sys(e, "sync directory %s", dir);
    return 0;
}

static int write_fully(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t r = write(fd, p, n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -1;
        p += r;
        n -= (size_t)r;
    }
    return 0;
}

int file_replace(const char *path, const void *data, size_t len, bool durable,
                 struct err *e)
{
    char tmp[PATH_MAX];

    if (snprintf(tmp, sizeof tmp, "%s.%d.XXXXXX" SUFFIX, path, (int)getpid()) >=
        (int)sizeof tmp)
        return err_set(e, "path too long: %s", path);
    CLEANUP_CLOSE int fd =
        mkostemps(tmp, sizeof SUFFIX - 1, O_CLOEXEC); /* mode 0600 */
    if (fd < 0)
        return err_sys(e, "create %s", tmp);
    int rc = 0;
    if (write_fully(fd, data, len))
        rc = err_sys(e, "write %s", tmp);
    else if (durable && fsync(fd))
        rc = err_sys(e, "sync %s", tmp);
    else if (rename(tmp, path))
        rc = err_sys(e, "rename %s to %s", tmp, path);
    if (rc) {
        unlink(tmp);
        return rc;
    }
    return durable ? file_sync_dir(path, e) : 0;
}

int file_read(int fd, const char *path, size_t max, struct buf *out,
              struct err *e)
{
    char chunk[4096];
    ssize_t r;

    while ((r = read(fd, chunk, sizeof chunk)) != 0) {
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(e, "read %s", path);
        if (out->len + (size_t)r > max)
            return err_set(e, "%s is larger than %zu bytes", path, max);
        buf_put(out, chunk, (size_t)r);
    }
    explicit_bzero(chunk, sizeof chunk); /* it may have been a key */
    return 0;
}

int file_load(const char *path, size_t max, struct buf *out, struct err *e)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 && errno == ENOENT)
        return err_kind(e, ERR_GONE, "no %s", path);
    if (fd < 0)
        return err_sys(e, "open %s", path);
    return file_read(fd, path, max, out, e);
}

bool file_is_temporary(const char *name, bool *dead)
{
    size_t n = strlen(name), suffix = sizeof SUFFIX - 1;
    char proc[48];

    *dead = false;
    if (n <= suffix + RANDOM || strcmp(name + n - suffix, SUFFIX))
        return false;
    const char *end = name + n - suffix - RANDOM, *p = end;
    while (p > name && isdigit((unsigned char)p[-1]))
        p--;
    if (p == end || p == name || p[-1] != '.' || *end != '.')
        return false;
    snprintf(proc, sizeof proc, "/proc/%.*s", (int)(end - p), p);
    *dead = access(proc, F_OK) != 0;
    return true;
}
