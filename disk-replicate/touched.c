// SPDX-License-Identifier: Apache-2.0
/* What the primary's log may have; see touched.h. Called by the block server
 * under its log lock, and by tests. Each step leaves too much rather than too
 * little, wherever the server is killed. */
#include "disk-replicate/touched.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

#define WORD_BITS 64u
#define LACKING   UINT64_MAX /* as a cut: none comes behind it */

static size_t map_bytes(const struct touched *t)
{
    return t->words * sizeof *t->map;
}

static uint64_t *open_map(const struct touched *t)
{
    return t->map;
}

static uint64_t *closed_map(const struct touched *t)
{
    return t->map + t->words;
}

/* What is there is of use if it is of an image of this size. With its space, so
 * that no store fails. */
static int size_make(struct touched *t, int fd)
{
    off_t bytes = (off_t)(2 * map_bytes(t));
    struct stat st;

    if (fstat(fd, &st))
        return -1;
    t->kept = st.st_size == bytes;
    if (!t->kept && (ftruncate(fd, 0) || ftruncate(fd, bytes)))
        return -1;
    errno = posix_fallocate(fd, 0, bytes);
    return errno ? -1 : 0;
}

int touched_open(struct touched *t, const char *path, uint64_t image_bytes,
                 struct err *e)
{
    *t = (struct touched){.cut = LACKING};
    t->regions = (image_bytes + TOUCHED_REGION - 1) / TOUCHED_REGION;
    t->words = (t->regions + WORD_BITS - 1) / WORD_BITS;
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || size_make(t, fd))
        return err_sys(e, "make %s", path);
    void *p = mmap(NULL, 2 * map_bytes(t), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED)
        return err_sys(e, "map %s", path);
    t->map = p;
    return 0;
}

void touched_close(struct touched *t)
{
    if (t->map)
        munmap(t->map, 2 * map_bytes(t));
    t->map = NULL;
}

void touched_begin(struct touched *t, uint64_t cut)
{
    memset(t->map, 0, 2 * map_bytes(t));
    t->kept = true;
    t->cut = cut;
    t->closed_last = 0;
}

bool touched_again(struct touched *t)
{
    t->cut = LACKING;
    return t->kept;
}

/* What the predecessor had closed is in the log at labels up to this one. */
void touched_whole(struct touched *t, uint64_t cut)
{
    t->cut = t->closed_last = cut;
}

void touched_set(struct touched *t, uint64_t offset, uint64_t len)
{
    if (!len)
        return;
    for (uint64_t r = offset / TOUCHED_REGION;
         r <= (offset + len - 1) / TOUCHED_REGION; r++)
        open_map(t)[r / WORD_BITS] |= 1ull << r % WORD_BITS;
}

bool touched_roll(struct touched *t, uint64_t cut)
{
    if (cut <= t->cut)
        return false;
    for (size_t i = 0; i < t->words; i++) {
        if (!open_map(t)[i])
            continue;
        t->closed_last = t->cut;
        closed_map(t)[i] |= open_map(t)[i];
        __atomic_signal_fence(__ATOMIC_SEQ_CST); /* killed here */
        open_map(t)[i] = 0;
    }
    t->cut = cut;
    return true;
}

void touched_commit(struct touched *t, uint64_t cut)
{
    if (t->cut != LACKING && t->closed_last <= cut)
        memset(closed_map(t), 0, map_bytes(t));
}

bool touched_next(const struct touched *t, uint64_t *region)
{
    for (; *region < t->regions; ++*region) {
        size_t i = *region / WORD_BITS;
        uint64_t word = open_map(t)[i] | closed_map(t)[i];
        word >>= *region % WORD_BITS;
        if (word & 1)
            return true;
        if (!word)
            *region |= WORD_BITS - 1;
    }
    return false;
}
