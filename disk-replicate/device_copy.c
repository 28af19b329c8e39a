// SPDX-License-Identifier: Apache-2.0
/* The initial copy of a disk, the primary's side: of the regions that may
 * differ over there, by both sides' write-intent bitmaps, the blocks that do,
 * by their digests; see device.h and docs/disk.md. Engine thread. */
#include "disk-replicate/device_private.h"

#include <string.h>

#include "checkpoint/epoch.h"
#include "common/clock.h"
#include "common/log.h"

#define REGION_SECTORS (INTENT_REGION / SECTOR)
#define WINDOW_SECTORS (16u << 20 >> 9) /* that are asked for at once */
#define ANSWER_NS      (60 * NS_PER_SEC)
#define SETTLED_NS     (120 * NS_PER_SEC)

/* --- Regions: of the part of the image that is looked at --------------------
 */

static uint64_t part_end(const struct disk *d)
{
    uint64_t end = (d->first + d->regions) * REGION_SECTORS;

    return end < d->sectors ? end : d->sectors;
}

static bool is_set(const struct disk *d, uint64_t sector)
{
    uint64_t r = sector / REGION_SECTORS - d->first;

    return d->bits[r / 8] & 1u << r % 8;
}

static uint64_t region_end(const struct disk *d, uint64_t sector)
{
    uint64_t next = (sector / REGION_SECTORS + 1) * REGION_SECTORS;

    return next < part_end(d) ? next : part_end(d);
}

/* The first sector from `sector` on that is in a set region, or the end. */
static uint64_t set_next(const struct disk *d, uint64_t sector)
{
    while (sector < part_end(d) && !is_set(d, sector))
        sector = region_end(d, sector);
    return sector;
}

/* `sector` is in a set region: where the run of them ends. */
static uint64_t set_end(const struct disk *d, uint64_t sector)
{
    while (sector < part_end(d) && is_set(d, sector))
        sector = region_end(d, sector);
    return sector;
}

static void copied_tell(struct disk *d)
{
    __atomic_store_n(&d->page->copied, d->copied * SECTOR, __ATOMIC_RELAXED);
}

/* --- Copying -----------------------------------------------------------------
 */

/* Sectors that differ over there, in pieces. */
static int range_put(struct disks *all, struct disk *d, uint64_t at,
                     uint64_t end, const struct device_sink *sink,
                     struct err *e)
{
    uint8_t p[12];

    while (at < end) {
        put_le64(p, at);
        put_le32(p + 8, (uint32_t)(end - at));
        buf_clear(&all->piece);
        if (diskctl_call(&d->server, DISKCTL_COPY, p, sizeof p, &all->piece, e))
            return -1;
        uint64_t next = all->piece.len > 8 ? get_le64(all->piece.data) : 0;
        if (next <= at)
            return err_set(e, "disk %s: malformed answer", d->server.id);
        if (disks_payload_put(all, d, EPOCH_DISK_LIVE, all->piece.data + 8,
                              all->piece.len - 8, sink, e))
            return -1;
        at = next;
    }
    return 0;
}

/* Digests of the next blocks. */
static int ask(struct disks *all, struct disk *d,
               const struct device_sink *sink, struct err *e)
{
    uint64_t from = d->asked;
    uint8_t p[24];

    put_le64(p, from);
    put_le64(p + 8, all->seed);
    put_le64(p + 16, set_end(d, from));
    buf_clear(&all->piece);
    if (diskctl_call(&d->server, DISKCTL_DIGESTS, p, sizeof p, &all->piece, e))
        return -1;
    uint64_t next = all->piece.len > 8 ? get_le64(all->piece.data) : 0;
    if (next <= d->asked)
        return err_set(e, "disk %s: malformed answer", d->server.id);
    d->asked = next;
    d->compared += next - from;
    return disks_payload_put(all, d, EPOCH_DISK_LIVE | EPOCH_DISK_ASK,
                             all->piece.data + 8, all->piece.len - 8, sink, e);
}

/* The blocks of an answer, which come in the order of the questions. */
static int answer_put(struct disks *all, struct disk *d,
                      const struct device_sink *sink, struct err *e)
{
    struct reader r = reader_of(all->answer.data, all->answer.len);
    uint32_t device = read_u32(&r), n = read_u32(&r);
    uint64_t sector = read_u64(&r);
    const uint8_t *bits = r.p;

    if (r.bad || device != d->device || sector != d->copied || !n ||
        n > DIGEST_BLOCKS || reader_left(&r) != (n + 7) / 8)
        return err_set(e, "an answer that was not asked for");
    for (uint32_t i = 0, k; i < n; i = k + 1) {
        for (k = i; k < n && bits[k / 8] & 1u << k % 8; k++)
            ;
        uint64_t from = sector + i * BLOCK_SECTORS;
        uint64_t end = sector + k * BLOCK_SECTORS;
        if (end > d->sectors)
            end = d->sectors;
        if (from >= end)
            continue;
        d->differed += end - from;
        if (range_put(all, d, from, end, sink, e))
            return -1;
    }
    d->copied = sector + n * BLOCK_SECTORS;
    if (d->copied > d->sectors)
        d->copied = d->sectors;
    d->copied = set_next(d, d->copied);
    copied_tell(d);
    return 0;
}

/* Wait for the backup's next answer, since `heard` at most for some time. 1:
 * it is in all->answer. */
static int answer_wait(struct disks *all, const struct disk *d, uint64_t heard,
                       const struct device_sink *sink, struct err *e)
{
    buf_clear(&all->answer);
    int r = sink->answer(sink->arg, &all->answer, e);
    if (!r && clock_ns() - heard > ANSWER_NS)
        return err_kind(e, ERR_TIMEOUT,
                        "disk %s: the backup does not say what it lacks",
                        d->server.id);
    return r;
}

static bool may_ask(struct disks *all, const struct disk *d, uint64_t end)
{
    if (d->asked >= end || d->asked - d->copied >= WINDOW_SECTORS)
        return false;
    uint64_t bytes = (set_end(d, d->asked) - d->asked) * SECTOR;
    if (bytes > DIGEST_BLOCKS * EPOCHLOG_BLOCK)
        bytes = DIGEST_BLOCKS * EPOCHLOG_BLOCK;
    return rate_take(&all->rate, bytes, clock_ns());
}

/* What is set of a part of the image. Some questions are always on their way:
 * neither side waits for the other's disk. */
static int regions_compare(struct disks *all, struct disk *d,
                           const struct device_sink *sink, struct err *e)
{
    uint64_t heard = clock_ns(), end = part_end(d);

    d->asked = d->copied = set_next(d, d->first * REGION_SECTORS);
    copied_tell(d);
    while (d->copied < end) {
        if (disks_early(all) && disks_changes_put(all, sink, e))
            return -1;
        if (may_ask(all, d, end)) {
            if (d->asked == d->copied)
                heard = clock_ns();
            if (ask(all, d, sink, e))
                return -1;
            d->asked = set_next(d, d->asked);
            continue;
        }
        if (d->asked == d->copied) /* held by the rate */
            heard = clock_ns();
        int r = answer_wait(all, d, heard, sink, e);
        if (r < 0 || (r && answer_put(all, d, sink, e)))
            return -1;
        if (r)
            heard = clock_ns();
    }
    return 0;
}

/* Both sides' bits, or'ed. No bits: the other side's bitmap is of another base,
 * so from now on both have a new one. */
static int regions_join(struct disks *all, struct disk *d, const uint8_t p[16],
                        struct err *e)
{
    struct reader r = reader_of(all->answer.data, all->answer.len);
    uint32_t device = read_u32(&r), n = read_u32(&r);
    uint64_t first = read_u64(&r);
    size_t bytes = (d->regions + 7) / 8, len = reader_left(&r);

    if (r.bad || device != d->device || n != d->regions || first != d->first ||
        (len && len != bytes))
        return err_set(e, "an answer that was not asked for");
    memset(d->bits, 0xff, bytes);
    if (!len) {
        d->whole = true;
        return 0;
    }
    buf_clear(&all->piece);
    if (diskctl_call(&d->server, DISKCTL_REGIONS, p, 16, &all->piece, e))
        return -1;
    if (all->piece.len != bytes) {
        d->whole = true;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++)
        d->bits[i] = r.p[i] | all->piece.data[i];
    return 0;
}

static int regions_ask(struct disks *all, struct disk *d,
                       const struct device_sink *sink, struct err *e)
{
    uint64_t heard = clock_ns();
    uint8_t p[16] = {0};
    int r = 0;

    if (d->whole) {
        memset(d->bits, 0xff, sizeof d->bits);
        return 0;
    }
    put_le64(p, d->first);
    put_le32(p + 8, d->regions);
    if (disks_payload_put(all, d, EPOCH_DISK_LIVE | EPOCH_DISK_REGIONS, p,
                          sizeof p, sink, e))
        return -1;
    while (!r)
        if ((r = answer_wait(all, d, heard, sink, e)) < 0)
            return -1;
    return regions_join(all, d, p, e);
}

/* Without a bitmap it goes on: the next copy will be a whole one, too. */
static void base_take(struct disk *d)
{
    struct err e = ERR_INIT;

    if (diskctl_call(&d->server, DISKCTL_REBASE, d->next_base, INTENT_ID, NULL,
                     &e))
        log_warn("disk=%s %s", d->server.id, e.text);
}

int disks_image_put(struct disks *all, struct disk *d,
                    const struct device_sink *sink, struct err *e)
{
    uint64_t all_regions = (d->sectors + REGION_SECTORS - 1) / REGION_SECTORS;

    for (d->first = 0; d->first < all_regions; d->first += d->regions) {
        uint64_t left = all_regions - d->first;
        d->regions = left < REGIONS_MAX ? (uint32_t)left : REGIONS_MAX;
        if (regions_ask(all, d, sink, e))
            return -1;
        if (d->whole && !d->first)
            base_take(d);
        if (regions_compare(all, d, sink, e))
            return -1;
    }
    log_info("disk=%s copied=%lu KiB compared=%lu KiB of=%lu KiB", d->server.id,
             d->differed * SECTOR >> 10, d->compared * SECTOR >> 10,
             d->sectors * SECTOR >> 10);
    return 0;
}

static int settled_ask(struct disks *all, struct disk *d,
                       const struct device_sink *sink, struct err *e)
{
    uint8_t p[DIGEST_HEAD] = {0};

    put_le64(p + 16, all->seed);
    return disks_payload_put(all, d, EPOCH_DISK_LIVE | EPOCH_DISK_ASK, p,
                             sizeof p, sink, e);
}

static int settled_read(const struct disks *all, const struct disk *d,
                        struct err *e)
{
    struct reader r = reader_of(all->answer.data, all->answer.len);
    bool fits = read_u32(&r) == d->device && !read_u32(&r) && !read_u64(&r) &&
                reader_done(&r);

    return fits ? 0 : err_set(e, "an answer that was not asked for");
}

int disks_settle(struct disks *all, const struct device_sink *sink,
                 struct err *e)
{
    for (int i = 0; i < all->n; i++) {
        struct disk *d = &all->disk[i];
        uint64_t asked = clock_ns();
        int r = settled_ask(all, d, sink, e);
        while (!r) {
            if (disks_early(all) && disks_changes_put(all, sink, e))
                return -1;
            buf_clear(&all->answer);
            r = sink->answer(sink->arg, &all->answer, e);
            if (!r && clock_ns() - asked > SETTLED_NS)
                return err_kind(e, ERR_TIMEOUT,
                                "disk %s: the backup's medium takes too long",
                                d->server.id);
        }
        if (r < 0 || settled_read(all, d, e))
            return -1;
    }
    return 0;
}
