// SPDX-License-Identifier: Apache-2.0
/* The witness's state on disk; see witness_file.h. */
#include "heartbeat/witness_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/cleanup.h"

#define MAGIC        "UNDRWTNS"
#define FILE_VERSION 1
#define FILE_MAX     (1u << 20)

/* --- The real directory --------------------------------------------------- */

/* Zeroes where the file system keeps no birth times. */
static int identify(int fd, struct file_id *id, struct err *e)
{
    struct statx st;

    memset(id, 0, sizeof *id);
    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &st))
        return err_sys(e, "statx");
    id->inode = st.stx_ino;
    if (st.stx_mask & STATX_BTIME) {
        id->birth_s = (uint64_t)st.stx_btime.tv_sec;
        id->birth_ns = st.stx_btime.tv_nsec;
    }
    return 0;
}

static int dir_create(struct witness_dir *d, struct file_id *id, struct err *e)
{
    if (unlinkat(d->dir, "state.new", 0) && errno != ENOENT)
        return err_sys(e, "remove state.new");
    d->fd = openat(d->dir, "state.new", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                   0600);
    if (d->fd < 0)
        return err_sys(e, "create state.new");
    return identify(d->fd, id, e);
}

static int dir_write(struct witness_dir *d, const void *data, size_t len,
                     struct err *e)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t r = write(d->fd, p, len);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(e, "write state.new");
        p += r;
        len -= (size_t)r;
    }
    return 0;
}

static int dir_sync(struct witness_dir *d, struct err *e)
{
    int r = fsync(d->fd);

    if (r)
        err_sys(e, "sync state.new");
    close(take_fd(&d->fd));
    return r ? -1 : 0;
}

static int dir_rename(struct witness_dir *d, struct err *e)
{
    if (renameat(d->dir, "state.new", d->dir, "state"))
        return err_sys(e, "rename state.new");
    return 0;
}

static int dir_sync_dir(struct witness_dir *d, struct err *e)
{
    return fsync(d->dir) ? err_sys(e, "sync the directory") : 0;
}

static int dir_load(struct witness_dir *d, struct buf *out, struct file_id *id,
                    struct err *e)
{
    CLEANUP_CLOSE int fd = openat(d->dir, "state", O_RDONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return err_kind(e, ERR_GONE, "there is no state");
    if (fd < 0)
        return err_sys(e, "open state");
    for (;;) {
        buf_reserve(out, 65536);
        ssize_t r = read(fd, out->data + out->len, 65536);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(e, "read state");
        if (r == 0)
            break;
        out->len += (size_t)r;
        if (out->len > FILE_MAX)
            break; /* longer than any of ours: the checksum will not fit */
    }
    return identify(fd, id, e);
}

static const struct witness_dir_ops real_ops = {
    dir_create, dir_write, dir_sync, dir_rename, dir_sync_dir, dir_load,
};

int witness_dir_open(struct witness_dir *d, const char *path, struct err *e)
{
    d->ops = &real_ops;
    d->fd = -1;
    d->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->dir < 0)
        return err_sys(e, "open %s", path);
    if (!flock(d->dir, LOCK_EX | LOCK_NB))
        return 0;
    int why = errno;
    witness_dir_close(d);
    errno = why;
    if (why == EWOULDBLOCK)
        return err_kind(e, ERR_REFUSED, "another witness uses %s", path);
    return err_sys(e, "lock %s", path);
}

void witness_dir_close(struct witness_dir *d)
{
    if (d->fd >= 0)
        close(take_fd(&d->fd));
    if (d->dir >= 0)
        close(take_fd(&d->dir));
}

/* --- The file ------------------------------------------------------------- */

static void file_put(struct buf *b, const struct file_id *id,
                     const struct buf *state)
{
    buf_put(b, MAGIC, 8);
    buf_u32(b, FILE_VERSION);
    buf_u64(b, id->inode);
    buf_u64(b, id->birth_s);
    buf_u32(b, id->birth_ns);
    buf_blob(b, state->data, state->len);
    buf_u64(b, XXH3_64bits(b->data, b->len));
}

int witness_file_save(void *arg, const struct buf *state, struct err *e)
{
    struct witness_dir *d = arg;
    const struct witness_dir_ops *ops = d->ops;
    struct file_id id;
    struct buf b = {0};

    if (ops->create(d, &id, e))
        return -1;
    file_put(&b, &id, state);
    int rc = ops->write(d, b.data, b.len, e);
    buf_free(&b);
    if (rc || ops->sync(d, e) || ops->rename(d, e))
        return -1;
    return ops->sync_dir(d, e);
}

/* The records, and whose file it says that it is. */
static int file_get(const struct buf *b, struct witness *w, struct file_id *id,
                    struct err *e)
{
    struct reader r = reader_of(b->data, b->len);
    const uint8_t *magic = read_bytes(&r, 8);
    uint32_t version = read_u32(&r);
    size_t len;

    id->inode = read_u64(&r);
    id->birth_s = read_u64(&r);
    id->birth_ns = read_u32(&r);
    const uint8_t *state = read_blob(&r, FILE_MAX, &len);
    uint64_t sum = read_u64(&r);
    if (!reader_done(&r) || memcmp(magic, MAGIC, 8) ||
        sum != XXH3_64bits(b->data, b->len - 8))
        return err_set(e, "it is cut off or damaged");
    if (version != FILE_VERSION)
        return err_set(e, "it is of version %u, not %u", version, FILE_VERSION);
    return witness_get(w, state, len, e);
}

static bool same_file(const struct file_id *a, const struct file_id *b)
{
    return a->inode == b->inode && a->birth_s == b->birth_s &&
           a->birth_ns == b->birth_ns;
}

int witness_file_load(struct witness_dir *d, struct witness *w, struct err *e)
{
    struct file_id is, says;
    struct buf b = {0};
    struct err why = ERR_INIT;

    memset(w, 0, sizeof *w);
    w->save = witness_file_save;
    w->arg = d;
    if (d->ops->load(d, &b, &is, e)) {
        buf_free(&b);
        return -1;
    }
    int damaged = file_get(&b, w, &says, &why);
    buf_free(&b);
    if (damaged) {
        w->sealed = true;
        snprintf(w->why, sizeof w->why, "the state can't be used: %.200s",
                 why.text);
        return 0;
    }
    if (same_file(&is, &says))
        return 0;
    return witness_seal(w,
                        "the state is a copy, or was put back from one: it may "
                        "be older than what was answered since",
                        e);
}

int witness_file_init(struct witness_dir *d, struct witness *w, struct err *e)
{
    struct file_id id;
    struct buf b = {0};
    struct err why = ERR_INIT;

    memset(w, 0, sizeof *w);
    w->save = witness_file_save;
    w->arg = d;
    int there = d->ops->load(d, &b, &id, &why);
    buf_free(&b);
    if (!there)
        return err_kind(e, ERR_REFUSED, "there is a state already");
    if (why.kind != ERR_GONE) {
        *e = why;
        return -1;
    }
    return witness_unseal(w, e); /* writes it */
}
