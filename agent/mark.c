// SPDX-License-Identifier: Apache-2.0
/* The mark of a takeover under way; see mark.h. Magic, generation, shell, a
 * flag, the platform state, all little-endian. */
#include "agent/mark.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/paths.h"
#include "common/cleanup.h"
#include "hypervisor/hv.h"

#define MARK_MAGIC 0x4b4d4f54u /* "TOMK" */
#define MARK_MAX   (HV_STATE_MAX + 64)

static int bytes_write(const char *path, const struct buf *b, struct err *e)
{
    CLEANUP_CLOSE int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return err_sys(e, "create %s", path);
    for (size_t at = 0; at < b->len;) {
        ssize_t r = write(fd, b->data + at, b->len - at);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(e, "write %s", path);
        at += (size_t)r;
    }
    return 0;
}

int mark_write(const char *uuid, const struct takeover_mark *m, struct err *e)
{
    struct path path = path_takeover(uuid);
    char temporary[sizeof path + 8];
    struct buf b = {0};

    buf_u32(&b, MARK_MAGIC);
    buf_u64(&b, m->generation);
    buf_u32(&b, m->shell);
    buf_u8(&b, m->state_set);
    buf_blob(&b, m->state.data, m->state.len);
    snprintf(temporary, sizeof temporary, "%s.tmp", path.s);
    int rc = bytes_write(temporary, &b, e);
    buf_free(&b);
    if (!rc && rename(temporary, path.s))
        rc = err_sys(e, "rename %s", temporary);
    if (rc)
        unlink(temporary);
    return rc;
}

static int bytes_read(const char *path, struct buf *b, struct err *e)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd < 0 && errno == ENOENT)
        return err_kind(e, ERR_GONE, "no %s", path);
    if (fd < 0 || fstat(fd, &st))
        return err_sys(e, "open %s", path);
    if (st.st_size > MARK_MAX)
        return err_set(e, "%s is too large", path);
    uint8_t *to = buf_extend(b, (size_t)st.st_size);
    ssize_t n = read(fd, to, (size_t)st.st_size);
    if (n != st.st_size)
        return err_set(e, "%s can't be read", path);
    return 0;
}

int mark_read(const char *uuid, struct takeover_mark *m, struct err *e)
{
    struct path path = path_takeover(uuid);
    struct buf b = {0};
    size_t n = 0;

    *m = (struct takeover_mark){0};
    if (bytes_read(path.s, &b, e)) {
        buf_free(&b);
        return -1;
    }
    struct reader r = reader_of(b.data, b.len);
    bool good = read_u32(&r) == MARK_MAGIC;
    m->generation = read_u64(&r);
    m->shell = read_u32(&r);
    m->state_set = read_u8(&r);
    const uint8_t *state = read_blob(&r, HV_STATE_MAX, &n);
    if (good && reader_done(&r))
        buf_put(&m->state, state, n);
    else
        good = false;
    buf_free(&b);
    return good ? 0 : err_set(e, "%s is damaged", path.s);
}

void mark_remove(const char *uuid)
{
    unlink(path_takeover(uuid).s);
}
