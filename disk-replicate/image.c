// SPDX-License-Identifier: Apache-2.0
/* A disk's image; see image.h. Called by the block server's workers. */
#include "disk-replicate/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define SECTOR_BYTES 512u
#define RETRY_MS     10

/* --- Opening -------------------------------------------------------------- */

static int lock_try(int fd, bool read_only)
{
    struct flock all = {.l_type = read_only ? F_RDLCK : F_WRLCK,
                        .l_whence = SEEK_SET};

    if (flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB))
        return -1;
    return fcntl(fd, F_OFD_SETLK, &all);
}

static bool is_busy(int error)
{
    return error == EWOULDBLOCK || error == EAGAIN || error == EACCES ||
           error == EBUSY;
}

/* A descriptor with the locks, or -1 with errno. */
static int locked_open(const char *path, int flags, bool read_only)
{
    CLEANUP_CLOSE int fd = open(path, flags);

    if (fd < 0)
        return -1;
    if (!lock_try(fd, read_only))
        return take_fd(&fd);
    int why = errno;
    close(take_fd(&fd));
    errno = why;
    return -1;
}

static int locked_wait(const struct image *im, unsigned wait_ms)
{
    const struct timespec pause = {.tv_nsec = RETRY_MS * (long)NS_PER_MS};
    uint64_t end = clock_ns() + wait_ms * NS_PER_MS;
    int flags = (im->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;

    if (im->device && !im->read_only)
        flags |= O_EXCL;
    for (;;) {
        int fd = locked_open(im->path, flags, im->read_only);
        if (fd >= 0 || !is_busy(errno) || clock_ns() >= end)
            return fd;
        nanosleep(&pause, NULL);
    }
}

static int kind_find(struct image *im, struct err *e)
{
    struct stat st;

    if (stat(im->path, &st))
        return err_sys(e, "disk image %s", im->path);
    im->device = S_ISBLK(st.st_mode);
    if (!im->device && !S_ISREG(st.st_mode))
        return err_kind(e, ERR_REFUSED,
                        "disk image %s is neither a file nor a block device",
                        im->path);
    return 0;
}

/* File systems whose SEEK_DATA finds all that a write(2) which has returned
 * left behind, on the medium or not: in a hole, what waits for its block is
 * data (IOMAP_DELALLOC; fs/ext4/inode.c, ext4_iomap_begin_report;
 * fs/xfs/xfs_iomap.c, xfs_seek_iomap_begin), and of unwritten extents the page
 * cache is looked at (fs/iomap/seek.c; mm/filemap.c, mapping_seek_hole_data,
 * tmpfs's as well). Not all do: FUSE asks its server, which may not have it
 * yet. */
static bool holes_are_right(int fd)
{
    struct statfs fs;

    return !fstatfs(fd, &fs) &&
           (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC ||
            fs.f_type == TMPFS_MAGIC);
}

/* To look for data in unwritten extents is to go through them all, each time:
 * a file that has most of its space is not asked. */
static int size_find(struct image *im, struct err *e)
{
    struct stat st;

    if (im->device) {
        if (ioctl(im->store.fd, BLKGETSIZE64, &im->bytes))
            return err_sys(e, "size of %s", im->path);
    } else if (fstat(im->store.fd, &st)) {
        return err_sys(e, "size of %s", im->path);
    } else {
        im->bytes = (uint64_t)st.st_size;
        im->sparse = (uint64_t)st.st_blocks * SECTOR_BYTES < im->bytes / 2 &&
                     holes_are_right(im->store.fd);
    }
    if (im->bytes && im->bytes % SECTOR_BYTES == 0)
        return 0;
    err_kind(e, ERR_REFUSED, "disk image %s has %lu bytes, no whole sectors",
             im->path, im->bytes);
    return err_hint(e, "only raw images; truncate -s %%512 %s", im->path);
}

int image_open(struct image *im, const char *path, bool read_only,
               unsigned wait_ms, struct err *e)
{
    memset(im, 0, sizeof *im);
    im->store.fd = -1;
    if (strlen(path) >= sizeof im->path)
        return err_kind(e, ERR_USAGE, "the image's path is too long");
    strcpy(im->path, path);
    im->read_only = read_only;
    if (kind_find(im, e))
        return -1;
    im->store =
        (struct store){&store_fd_ops, locked_wait(im, wait_ms), im->path};
    if (im->store.fd < 0 && is_busy(errno)) {
        err_kind(e, ERR_REFUSED, "disk image %s is in use", path);
        return err_hint(e, "fuser -v %s, or lsblk, says by what", path);
    }
    if (im->store.fd < 0)
        return err_sys(e, "open disk image %s", path);
    if (!size_find(im, e))
        return 0;
    image_close(im);
    return -1;
}

void image_close(struct image *im)
{
    if (im->store.fd >= 0)
        close(im->store.fd);
    im->store.fd = -1;
}

/* --- Reading and writing -------------------------------------------------- */

int image_read(struct image *im, uint64_t offset, void *p, uint32_t len)
{
    struct err e = ERR_INIT;

    errno = 0;
    if (!im->store.ops->read(&im->store, offset, p, len, &e))
        return 0;
    return errno ? errno : EIO; /* it has become shorter */
}

bool image_is_hole(const struct image *im, uint64_t offset, uint32_t len)
{
    struct stat st;

    if (!im->sparse)
        return false;
    off_t data = lseek(im->store.fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO && !fstat(im->store.fd, &st))
        data = st.st_size; /* there is none up to the end */
    return data >= (off_t)(offset + len);
}

static int sync_all(struct image *im)
{
    return im->store.ops->sync(&im->store, NULL) ? errno : 0;
}

static uint32_t *unsaid(struct image *im)
{
    return im->unsaid ? im->unsaid : &im->here_unsaid;
}

static void unsaid_note(struct image *im, int error)
{
    if (error)
        __atomic_store_n(unsaid(im), (uint32_t)error, __ATOMIC_SEQ_CST);
}

/* The kernel says an error once; it is the user's until the user has it. */
int image_flush(struct image *im)
{
    unsaid_note(im, sync_all(im));
    return (int)__atomic_load_n(unsaid(im), __ATOMIC_SEQ_CST);
}

void image_said(struct image *im, int error)
{
    uint32_t was = (uint32_t)error;

    __atomic_compare_exchange_n(unsaid(im), &was, 0, false, __ATOMIC_SEQ_CST,
                                __ATOMIC_SEQ_CST);
}

int image_sync(struct image *im)
{
    int error = sync_all(im);

    unsaid_note(im, error);
    return error;
}

int image_write(struct image *im, uint64_t offset, const void *p, uint32_t len,
                bool fua)
{
    if (im->store.ops->write(&im->store, offset, p, len, NULL))
        return errno;
    return fua ? image_flush(im) : 0;
}

/* A hole was asked for and can't be made: zeroes are written instead. */
static int zeroes_write(struct image *im, uint64_t offset, uint32_t len)
{
    static const char zeroes[65536];

    for (uint32_t n; len > 0; offset += n, len -= n) {
        n = len < sizeof zeroes ? len : sizeof zeroes;
        if (im->store.ops->write(&im->store, offset, zeroes, n, NULL))
            return errno;
    }
    return 0;
}

int image_zero(struct image *im, uint64_t offset, uint32_t len, bool hole,
               bool fua)
{
    int error = 0;

    if (!hole)
        error = zeroes_write(im, offset, len);
    else if (im->store.ops->zero(&im->store, offset, len, NULL))
        error = errno;
    return error || !fua ? error : image_flush(im);
}

int image_trim(struct image *im, uint64_t offset, uint32_t len, bool fua)
{
    if (len &&
        fallocate(im->store.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)offset, (off_t)len)) {
        int error = errno;
        return error == EOPNOTSUPP || error == EINVAL || error == ENOSYS
                   ? 0
                   : error;
    }
    return fua ? image_flush(im) : 0;
}
