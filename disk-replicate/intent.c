// SPDX-License-Identifier: Apache-2.0
/* The write-intent bitmap; see intent.h. Called by the block server, and by
 * tests. */
#include "disk-replicate/intent.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/bytes.h"

#define MAGIC          "UNDRINTN"
#define VERSION        1
#define START          4096u
#define BASE_AT        (8 + 4 + 4 + INTENT_ID)
#define SECTOR_BYTES   512u
#define SECTOR_BITS    504u /* bytes of bits in a sector */
#define SECTOR_REGIONS (SECTOR_BITS * 8)

struct intent {
    struct intent_config c;
    uint64_t regions, sectors;
    /* SECTOR_BITS a sector each. */
    uint8_t *bits;    /* as they are to be */
    uint8_t *durable; /* set for sure, whatever happens */
    uint8_t *noted;   /* written in this period */
    bool *dirty;      /* sectors: bits are not as in the file */
    uint64_t period_cut;
    bool broken;
    /* The flush under way. */
    uint8_t *image; /* sectors as they are written */
    bool *writing;
};

/* --- Bits ----------------------------------------------------------------- */

static bool bit_get(const uint8_t *bits, uint64_t region)
{
    return bits[region / 8] & 1u << region % 8;
}

static void bit_set(uint8_t *bits, uint64_t region)
{
    bits[region / 8] |= (uint8_t)(1u << region % 8);
}

bool intent_write(struct intent *i, uint64_t offset, uint64_t len)
{
    bool ready = !i->broken;

    if (!len)
        return true;
    for (uint64_t r = offset / INTENT_REGION;
         r <= (offset + len - 1) / INTENT_REGION; r++) {
        bit_set(i->noted, r);
        ready &= bit_get(i->durable, r);
        if (bit_get(i->bits, r))
            continue;
        bit_set(i->bits, r);
        i->dirty[r / SECTOR_REGIONS] = true;
    }
    return ready;
}

void intent_period(struct intent *i, uint64_t open)
{
    i->period_cut = open;
    memset(i->noted, 0, i->sectors * SECTOR_BITS);
}

/* A cleared bit is no longer durable: the next write of its sector takes it
 * away, whenever that is on disk. */
void intent_clear(struct intent *i, uint64_t cut)
{
    if (cut < i->period_cut)
        return;
    for (uint64_t b = 0; b < i->sectors * SECTOR_BITS; b++) {
        uint8_t kept = i->bits[b] & i->noted[b];
        if (kept == i->bits[b])
            continue;
        i->bits[b] = kept;
        i->durable[b] &= kept;
        i->dirty[b / SECTOR_BITS] = true;
    }
}

uint64_t intent_count(const struct intent *i)
{
    uint64_t n = 0;

    for (uint64_t b = 0; b < i->sectors * SECTOR_BITS; b++)
        n += (uint64_t)__builtin_popcount(i->bits[b]);
    return n;
}

bool intent_next(const struct intent *i, uint64_t *region)
{
    for (; *region < i->regions; ++*region) {
        if (*region % 8 == 0 && !i->bits[*region / 8])
            *region += 7; /* none in these eight */
        else if (bit_get(i->bits, *region))
            return true;
    }
    return false;
}

/* --- The file ------------------------------------------------------------- */

static void sector_put(uint8_t *out, const uint8_t *bits, uint64_t sector)
{
    memcpy(out, bits + sector * SECTOR_BITS, SECTOR_BITS);
    put_le64(out + SECTOR_BITS, XXH3_64bits_withSeed(out, SECTOR_BITS, sector));
}

void intent_flush_begin(struct intent *i)
{
    for (uint64_t s = 0; s < i->sectors; s++) {
        i->writing[s] = i->dirty[s];
        i->dirty[s] = false;
        if (i->writing[s])
            sector_put(i->image + s * SECTOR_BYTES, i->bits, s);
    }
}

int intent_flush_io(struct intent *i, struct err *e)
{
    struct store *f = i->c.file;

    if (i->broken)
        return err_set(e, "%s has failed before", f->name);
    for (uint64_t s = 0; s < i->sectors; s++)
        if (i->writing[s] &&
            f->ops->write(f, START + s * SECTOR_BYTES,
                          i->image + s * SECTOR_BYTES, SECTOR_BYTES, e))
            return -1;
    return f->ops->sync(f, e);
}

/* What was cleared meanwhile is not durable, though it was written. */
void intent_flush_end(struct intent *i, bool ok)
{
    if (!ok)
        i->broken = true;
    for (uint64_t s = 0; ok && s < i->sectors; s++) {
        if (!i->writing[s])
            continue;
        for (uint64_t b = 0; b < SECTOR_BITS; b++) {
            uint64_t at = s * SECTOR_BITS + b;
            i->durable[at] = i->image[s * SECTOR_BYTES + b] & i->bits[at];
        }
    }
}

static uint64_t sectors_of(uint64_t image_bytes)
{
    uint64_t regions = (image_bytes + INTENT_REGION - 1) / INTENT_REGION;

    return (regions + SECTOR_REGIONS - 1) / SECTOR_REGIONS;
}

uint64_t intent_file_bytes(uint64_t image_bytes)
{
    return START + sectors_of(image_bytes) * SECTOR_BYTES;
}

static int config_check(const struct intent_config *c, struct err *e)
{
    if (!c->image_bytes || c->image_bytes > 1ull << 50)
        return err_kind(e, ERR_USAGE, "a bitmap for an image of %lu bytes",
                        c->image_bytes);
    return 0;
}

/* Bits behind the last region stay zero. */
static void regions_fill(uint8_t *bits, uint64_t from, uint64_t regions)
{
    for (uint64_t r = from; r < from + SECTOR_REGIONS && r < regions; r++)
        bit_set(bits, r);
}

static void header_put(struct buf *b, const struct intent_config *c)
{
    buf_put(b, MAGIC, 8);
    buf_u32(b, VERSION);
    buf_u32(b, INTENT_REGION);
    buf_put(b, c->id, INTENT_ID);
    buf_put(b, c->base, INTENT_ID);
    buf_u64(b, c->image_bytes);
    buf_u64(b, XXH3_64bits(b->data, b->len));
    size_t rest = SECTOR_BYTES - b->len;
    memset(buf_extend(b, rest), 0, rest);
}

static int header_write(const struct intent_config *c, struct err *e)
{
    struct buf b = {0};

    header_put(&b, c);
    int rc = c->file->ops->write(c->file, 0, b.data, b.len, e);
    buf_free(&b);
    return rc ? -1 : c->file->ops->sync(c->file, e);
}

/* The header comes last: before it there is no bitmap. */
int intent_format(const struct intent_config *c, bool all, struct err *e)
{
    uint8_t sector[SECTOR_BYTES] = {0};
    uint8_t bits[SECTOR_BITS];
    uint64_t regions = 0;

    if (config_check(c, e) ||
        c->file->ops->write(c->file, 0, sector, sizeof sector, e) ||
        c->file->ops->sync(c->file, e))
        return -1;
    regions = (c->image_bytes + INTENT_REGION - 1) / INTENT_REGION;
    for (uint64_t s = 0; s < sectors_of(c->image_bytes); s++) {
        memset(bits, 0, sizeof bits);
        if (all)
            regions_fill(bits, 0, regions - s * SECTOR_REGIONS);
        memcpy(sector, bits, sizeof bits);
        put_le64(sector + SECTOR_BITS,
                 XXH3_64bits_withSeed(sector, SECTOR_BITS, s));
        if (c->file->ops->write(c->file, START + s * SECTOR_BYTES, sector,
                                sizeof sector, e))
            return -1;
    }
    if (c->file->ops->sync(c->file, e))
        return -1;
    return header_write(c, e);
}

static int header_check(const struct intent_config *c, struct err *e)
{
    uint8_t found[SECTOR_BYTES];
    struct buf expected = {0};

    if (c->file->ops->read(c->file, 0, found, sizeof found, e))
        return -1;
    header_put(&expected, c);
    bool same = !memcmp(found, expected.data, sizeof found);
    size_t summed = 8 + 4 + 4 + INTENT_ID + INTENT_ID + 8;
    bool is_one = !memcmp(found, MAGIC, 8) &&
                  get_le64(found + summed) == XXH3_64bits(found, summed);
    buf_free(&expected);
    if (same)
        return 0;
    if (!is_one)
        return err_kind(e, ERR_GONE, "there is no bitmap in %s", c->file->name);
    return err_kind(e, ERR_REFUSED, "%s is the bitmap of another image or base",
                    c->file->name);
}

int intent_base(const struct intent_config *c, uint8_t base[INTENT_ID],
                struct err *e)
{
    struct intent_config found = *c;
    uint8_t head[SECTOR_BYTES];

    if (config_check(c, e) ||
        c->file->ops->read(c->file, 0, head, sizeof head, e))
        return -1;
    memcpy(found.base, head + BASE_AT, INTENT_ID);
    if (header_check(&found, NULL))
        return err_kind(e, ERR_GONE, "%s is no bitmap of this image",
                        c->file->name);
    memcpy(base, found.base, INTENT_ID);
    return 0;
}

static int bits_read(struct intent *i, struct err *e)
{
    uint8_t p[SECTOR_BYTES];

    for (uint64_t s = 0; s < i->sectors; s++) {
        if (i->c.file->ops->read(i->c.file, START + s * SECTOR_BYTES, p,
                                 sizeof p, e))
            return -1;
        if (get_le64(p + SECTOR_BITS) ==
            XXH3_64bits_withSeed(p, SECTOR_BITS, s)) {
            memcpy(i->bits + s * SECTOR_BITS, p, SECTOR_BITS);
            memcpy(i->durable + s * SECTOR_BITS, p, SECTOR_BITS);
            continue;
        }
        regions_fill(i->bits, s * SECTOR_REGIONS, i->regions);
        i->dirty[s] = true;
    }
    /* A predecessor that was killed may have written without a sync. */
    return i->c.file->ops->sync(i->c.file, e);
}

/* --- Life ----------------------------------------------------------------- */

static bool memory_get(struct intent *i)
{
    size_t bits = (size_t)(i->sectors * SECTOR_BITS);

    i->bits = calloc(1, bits);
    i->durable = calloc(1, bits);
    i->noted = calloc(1, bits);
    i->image = calloc(i->sectors, SECTOR_BYTES);
    i->dirty = calloc(i->sectors, sizeof *i->dirty);
    i->writing = calloc(i->sectors, sizeof *i->writing);
    return i->bits && i->durable && i->noted && i->image && i->dirty &&
           i->writing;
}

int intent_open(struct intent **out, const struct intent_config *c,
                struct err *e)
{
    if (config_check(c, e) || header_check(c, e))
        return -1;
    struct intent *i = calloc(1, sizeof *i);
    if (!i)
        return err_sys(e, "bitmap");
    i->c = *c;
    i->regions = (c->image_bytes + INTENT_REGION - 1) / INTENT_REGION;
    i->sectors = sectors_of(c->image_bytes);
    i->period_cut = UINT64_MAX;
    if (!memory_get(i)) {
        intent_close(i);
        return err_set(e, "no memory for a bitmap of %lu regions", i->regions);
    }
    if (bits_read(i, e)) {
        intent_close(i);
        return -1;
    }
    *out = i;
    return 0;
}

void intent_close(struct intent *i)
{
    if (!i)
        return;
    free(i->bits);
    free(i->durable);
    free(i->noted);
    free(i->image);
    free(i->dirty);
    free(i->writing);
    free(i);
}
