// SPDX-License-Identifier: Apache-2.0
/* Reading and writing a file or block device; see store.h. Any thread. */
#include "disk-replicate/store.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static int fd_read(struct store *s, uint64_t offset, void *p, size_t len,
                   struct err *e)
{
    char *to = p;

    while (len > 0) {
        ssize_t r = pread(s->fd, to, len, (off_t)offset);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(e, "read %s at %lu", s->name, offset);
        if (!r)
            return err_set(e, "read %s at %lu: it ends there", s->name, offset);
        to += r;
        offset += (uint64_t)r;
        len -= (size_t)r;
    }
    return 0;
}

static int fd_write(struct store *s, uint64_t offset, const void *p, size_t len,
                    struct err *e)
{
    const char *from = p;

    while (len > 0) {
        ssize_t r = pwrite(s->fd, from, len, (off_t)offset);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(e, "write %s at %lu", s->name, offset);
        from += r;
        offset += (uint64_t)r;
        len -= (size_t)r;
    }
    return 0;
}

static int zeroes_write(struct store *s, uint64_t offset, uint64_t len,
                        struct err *e)
{
    static const char zeroes[65536];

    while (len > 0) {
        size_t n = len < sizeof zeroes ? (size_t)len : sizeof zeroes;
        if (fd_write(s, offset, zeroes, n, e))
            return -1;
        offset += n;
        len -= n;
    }
    return 0;
}

/* Files get a hole; block devices discard where that reads as zeroes, and
 * write zeroes elsewhere (block/fops.c, blkdev_fallocate). */
static int fd_zero(struct store *s, uint64_t offset, uint64_t len,
                   struct err *e)
{
    int r;

    if (!len)
        return 0;
    do
        r = fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)offset, (off_t)len);
    while (r && errno == EINTR);
    if (r && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL ||
              errno == ENODEV))
        return zeroes_write(s, offset, len, e);
    return r ? err_sys(e, "zero %s at %lu", s->name, offset) : 0;
}

/* Blocks that could not be written are in the page cache still, as if they had
 * been (fsync(2)): nobody shall read what the medium does not hold. */
static int fd_sync(struct store *s, struct err *e)
{
    if (!fdatasync(s->fd))
        return 0;
    int why = errno;
    (void)posix_fadvise(s->fd, 0, 0, POSIX_FADV_DONTNEED);
    errno = why;
    return err_sys(e, "sync %s", s->name);
}

const struct store_ops store_fd_ops = {fd_read, fd_write, fd_zero, fd_sync};
