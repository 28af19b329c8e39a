// SPDX-License-Identifier: Apache-2.0
/* KEY.epoch: what was a replica's image, and is plain now, is exactly an epoch,
 * as long as nobody writes to it; see duty.h. Whoever has the server write
 * makes it go, durably, before; what writes past us is seen by the file's
 * time, and on a device not at all. A worker calls forget, the control thread
 * the rest; what looks at an image without a server is any thread's. */
#include "disk-replicate/duty_private.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"

#define EXACT_BYTES 64

static void identity_put(struct buf *b, const struct stat *st)
{
    bool file = S_ISREG(st->st_mode);

    buf_u64(b, file ? st->st_ino : st->st_rdev);
    buf_u64(b, file ? (uint64_t)st->st_size : 0);
    buf_u64(b, file ? (uint64_t)st->st_mtim.tv_sec : 0);
    buf_u64(b, file ? (uint64_t)st->st_mtim.tv_nsec : 0);
}

int duty_exact_write(struct duty *d, uint64_t epoch, uint64_t wall_ms,
                     struct err *e)
{
    struct buf b = {0};
    struct stat st;
    char path[512];

    /* Its time, too, has to be there after a power cut. */
    if (fsync(d->image->store.fd) || fstat(d->image->store.fd, &st))
        return err_sys(e, "sync %s", d->image->path);
    buf_u64(&b, epoch);
    buf_u64(&b, wall_ms);
    identity_put(&b, &st);
    duty_path(d, ".epoch", path, sizeof path);
    int rc = file_replace(path, b.data, b.len, true, e);
    buf_free(&b);
    if (!rc)
        __atomic_store_n(&d->exact, true, __ATOMIC_SEQ_CST);
    return rc;
}

void duty_exact_open(struct duty *d)
{
    char path[512];

    duty_path(d, ".epoch", path, sizeof path);
    d->exact = !access(path, F_OK);
}

/* One that can't be removed is found out by the file's time. */
void duty_exact_forget(struct duty *d)
{
    struct err e = ERR_INIT;
    char path[512];

    if (!__atomic_load_n(&d->exact, __ATOMIC_SEQ_CST))
        return;
    pthread_mutex_lock(&d->lock);
    if (d->exact) {
        duty_path(d, ".epoch", path, sizeof path);
        if ((unlink(path) && errno != ENOENT) || file_sync_dir(path, &e))
            log_error("disk=%s %s can't be removed", d->id, path);
        __atomic_store_n(&d->exact, false, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&d->lock);
}

int duty_exact_of(const char *image, struct duty_exact *x, struct err *e)
{
    struct buf b = {0}, now = {0};
    struct err why = ERR_INIT;
    struct stat st;
    char path[512];

    duty_path_of(image, ".epoch", path, sizeof path);
    if (file_load(path, EXACT_BYTES, &b, &why) || stat(image, &st)) {
        buf_free(&b);
        return err_kind(e, ERR_REFUSED,
                        "nothing says of which epoch disk image %s is", image);
    }
    struct reader r = reader_of(b.data, b.len);
    *x = (struct duty_exact){.epoch = read_u64(&r), .wall_ms = read_u64(&r)};
    identity_put(&now, &st);
    bool same =
        !r.bad && reader_left(&r) == now.len && !memcmp(r.p, now.data, now.len);
    buf_free(&b);
    buf_free(&now);
    return same ? 0
                : err_kind(e, ERR_REFUSED,
                           "disk image %s was written to since epoch %lu",
                           image, x->epoch);
}
