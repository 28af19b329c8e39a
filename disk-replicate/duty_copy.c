// SPDX-License-Identifier: Apache-2.0
/* The initial copy, at both ends: what an image holds, and which of its blocks
 * differ; and the same while epochs go on, for who wants to see it; see duty.h.
 * The control thread's. */
#include "disk-replicate/duty_private.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#define COPY_STEPS 32 /* of reading, a COPY */

/* Into d->block, or *hole. */
static int still_read(struct duty *d, uint64_t at, uint32_t len, bool *hole,
                      struct err *e)
{
    int error = server_read_still(d->server, at, d->block, len, hole);

    if (!error)
        return 0;
    errno = error;
    return err_sys(e, "read %s at %lu", d->image->path, at);
}

bool duty_is_zero(const uint8_t *p, size_t len)
{
    return !p[0] && !memcmp(p, p + 1, len - 1);
}

/* By blocks, the last one may be short. False: the piece is full. */
static bool blocks_add(struct duty *d, uint64_t offset, uint32_t len, bool hole)
{
    for (uint32_t at = 0, n; at < len; at += n) {
        n = len - at < EPOCHLOG_BLOCK ? len - at : EPOCHLOG_BLOCK;
        const uint8_t *p = d->block + at;
        bool zero = hole || duty_is_zero(p, n);
        struct extent x = {.sector = (offset + at) / SECTOR,
                           .sectors = n / SECTOR,
                           .kind = zero ? EXTENT_ZERO : EXTENT_DATA,
                           .data = zero ? NULL : p};
        if (!extents_add(&d->piece, &x))
            return false;
    }
    return true;
}

/* A piece of the image as it is now, from a sector on: as much as a piece
 * holds, or some megabytes of zeroes. */
int duty_copy(struct duty *d, struct reader *r, struct buf *answer,
              struct err *e)
{
    uint64_t sector = read_u64(r), end = d->image->bytes;
    uint32_t most = read_u32(r);

    if (!reader_done(r) || sector >= end / SECTOR)
        return err_set(e, "malformed request");
    uint64_t at = sector * SECTOR;
    if (most && most < end / SECTOR - sector)
        end = at + most * (uint64_t)SECTOR;
    extents_begin(&d->piece, 1, 0);
    for (int i = 0; i < COPY_STEPS && at < end; i++) {
        uint32_t n = EXTENTS_DATA_MAX - (uint32_t)d->piece.data.len;
        bool hole = false;
        if (end - at < n)
            n = (uint32_t)(end - at);
        if (n && still_read(d, at, n, &hole, e))
            return -1;
        if (!n || !blocks_add(d, at, n, hole))
            break;
        at += n;
    }
    const struct buf *piece = extents_end(&d->piece);
    buf_u64(answer, at / SECTOR);
    buf_put(answer, piece->data, piece->len);
    return 0;
}

/* --- Digests ---------------------------------------------------------------
 */

/* `p` is the block `i` of those that are looked at, as the image has it; NULL:
 * it is in a hole. */
typedef void block_each(void *arg, uint32_t i, uint8_t *p, uint32_t len);

/* Calls `each` with all blocks of `count` from the byte `at` on. */
static int blocks_each(struct duty *d, uint64_t at, uint32_t count,
                       block_each *each, void *arg, struct err *e)
{
    uint64_t end = at + count * (uint64_t)EPOCHLOG_BLOCK;

    if (end > d->image->bytes)
        end = d->image->bytes;
    for (uint32_t i = 0, n; at < end; at += n) {
        n = end - at < EXTENTS_DATA_MAX ? (uint32_t)(end - at)
                                        : EXTENTS_DATA_MAX;
        bool hole;
        if (still_read(d, at, n, &hole, e))
            return -1;
        for (uint32_t k = 0, len; k < n; k += len, i++) {
            len = n - k < EPOCHLOG_BLOCK ? n - k : EPOCHLOG_BLOCK;
            each(arg, i, hole ? NULL : d->block + k, len);
        }
    }
    return 0;
}

static uint32_t blocks_from(uint64_t sector, uint64_t end)
{
    uint64_t n =
        ((end - sector) * SECTOR + EPOCHLOG_BLOCK - 1) / EPOCHLOG_BLOCK;

    return n < DIGEST_BLOCKS ? (uint32_t)n : DIGEST_BLOCKS;
}

static const uint8_t zeroes[EPOCHLOG_BLOCK];

/* Digests with a seed, which an image's many blocks of zeroes have ready. */
struct digester {
    uint64_t seed;
    XXH128_hash_t zero; /* of a whole one */
};

static struct digester digester_of(uint64_t seed)
{
    return (struct digester){
        seed, XXH3_128bits_withSeed(zeroes, sizeof zeroes, seed)};
}

/* To look for zeroes takes a quarter of the time of a digest, and less where
 * there are none. */
static XXH128_hash_t digest_of(const struct digester *g, const uint8_t *p,
                               uint32_t len)
{
    if (len == sizeof zeroes && (!p || duty_is_zero(p, len)))
        return g->zero;
    return XXH3_128bits_withSeed(p ? p : zeroes, len, g->seed);
}

struct digesting {
    struct buf *out;
    struct digester digester;
};

static void digest_add(void *arg, uint32_t i, uint8_t *p, uint32_t len)
{
    struct digesting *g = arg;
    XXH128_hash_t h = digest_of(&g->digester, p, len);

    (void)i;
    buf_u64(g->out, h.low64);
    buf_u64(g->out, h.high64);
}

static void digests_head(struct buf *b, uint64_t sector, uint32_t n,
                         uint64_t seed)
{
    buf_u64(b, sector);
    buf_u32(b, n);
    buf_u32(b, 0);
    buf_u64(b, seed);
}

int duty_digests(struct duty *d, struct reader *r, struct buf *answer,
                 struct err *e)
{
    uint64_t sector = read_u64(r), seed = read_u64(r), end = read_u64(r);

    if (!reader_done(r) || sector >= end || end > d->image->bytes / SECTOR)
        return err_set(e, "malformed request");
    struct digesting g = {answer, digester_of(seed)};
    uint32_t n = blocks_from(sector, end);
    uint64_t next = sector + n * (EPOCHLOG_BLOCK / SECTOR);
    if (next > end)
        next = end;
    buf_u64(answer, next);
    digests_head(answer, sector, n, seed);
    return blocks_each(d, sector * SECTOR, n, digest_add, &g, e);
}

struct comparing {
    const uint8_t *digests;
    struct digester digester;
    uint8_t differs[DIGEST_BLOCKS / 8];
};

static void digest_compare(void *arg, uint32_t i, uint8_t *block, uint32_t len)
{
    struct comparing *c = arg;
    XXH128_hash_t h = digest_of(&c->digester, block, len);
    const uint8_t *p = c->digests + (size_t)i * DIGEST_BYTES;

    if (get_le64(p) != h.low64 || get_le64(p + 8) != h.high64)
        c->differs[i / 8] |= (uint8_t)(1u << i % 8);
}

int duty_compare(struct duty *d, const void *p, size_t len, struct buf *answer,
                 struct err *e)
{
    struct reader r = reader_of(p, len);
    uint64_t sector = read_u64(&r);
    uint32_t n = read_u32(&r), zero = read_u32(&r);
    struct comparing c = {.digester = digester_of(read_u64(&r))};

    if (!n && !sector && !zero && reader_done(&r))
        return replica_duty_sync(d, e);
    if (r.bad || zero || sector >= d->image->bytes / SECTOR || !n ||
        n > blocks_from(sector, d->image->bytes / SECTOR) ||
        reader_left(&r) != (size_t)n * DIGEST_BYTES)
        return err_set(e, "malformed digests");
    c.digests = r.p;
    if (replica_duty_settle(d, e) ||
        blocks_each(d, sector * SECTOR, n, digest_compare, &c, e))
        return -1;
    buf_put(answer, c.differs, (n + 7) / 8);
    if (d->mark == MARK_SYNCING)
        __atomic_store_n(&d->page->copied,
                         sector * SECTOR + n * (uint64_t)EPOCHLOG_BLOCK,
                         __ATOMIC_RELAXED);
    return 0;
}

struct checking {
    struct duty *duty;
    uint64_t first; /* block */
    bool at_cut;
    struct digesting digests;
    uint8_t unknown[DIGEST_BLOCKS / 8];
};

/* What was read is the image between two writes; the log, which is looked at
 * after that, knows of all that were between then and now. */
static void block_check(void *arg, uint32_t i, uint8_t *p, uint32_t len)
{
    struct checking *c = arg;
    struct duty *d = c->duty;

    if (!p)
        p = memset(d->block, 0, len);
    pthread_mutex_lock(&d->lock);
    bool known = c->at_cut ? epochlog_at_cut(d->log, c->first + i, p)
                           : !epochlog_has(d->log, c->first + i);
    pthread_mutex_unlock(&d->lock);
    if (!known)
        c->unknown[i / 8] |= (uint8_t)(1u << i % 8);
    digest_add(&c->digests, i, p, len);
}

int duty_check(struct duty *d, struct reader *r, struct buf *answer,
               struct err *e)
{
    uint64_t sector = read_u64(r);
    uint32_t n = read_u32(r), which = read_u32(r);
    struct checking c = {.duty = d,
                         .first = sector * SECTOR / EPOCHLOG_BLOCK,
                         .at_cut = which,
                         .digests = {answer, digester_of(read_u64(r))}};

    if (!reader_done(r) || which > 1 || sector >= d->image->bytes / SECTOR ||
        sector % (EPOCHLOG_BLOCK / SECTOR) || !n ||
        n > blocks_from(sector, d->image->bytes / SECTOR))
        return err_set(e, "malformed request");
    if (duty_log_usable(d, e))
        return -1;
    digests_head(answer, sector, n, c.digests.digester.seed);
    if (blocks_each(d, sector * SECTOR, n, block_check, &c, e))
        return -1;
    buf_put(answer, c.unknown, (n + 7) / 8);
    /* It may have been lost while we looked. */
    return duty_log_usable(d, e);
}
