// SPDX-License-Identifier: Apache-2.0
/* Pieces of an epoch's disk writes; see extents.h. No shared state. */
#include "disk-replicate/extents.h"

/* --- Reading -------------------------------------------------------------- */

static void entry_read(const uint8_t *p, struct extent *x)
{
    x->sector = get_le64(p);
    x->sectors = get_le32(p + 8);
    x->kind = (enum extent_kind)get_le32(p + 12);
    x->data = NULL;
}

static int entry_check(const struct extent *x, uint64_t sectors, uint64_t next,
                       struct err *e)
{
    if (x->kind != EXTENT_DATA && x->kind != EXTENT_ZERO)
        return err_set(e, "disk extent of unknown kind %u", (unsigned)x->kind);
    if (!x->sectors)
        return err_set(e, "empty disk extent");
    if (x->sector < next)
        return err_set(e, "disk sector %lu after %lu", x->sector, next);
    if (x->sector >= sectors || x->sectors > sectors - x->sector)
        return err_set(e, "disk sectors %lu+%u, the image has %lu", x->sector,
                       x->sectors, sectors);
    return 0;
}

int extents_read(const void *p, size_t len, uint64_t sectors,
                 uint64_t *next_sector, struct extents *x, struct err *e)
{
    struct reader r = reader_of(p, len);
    uint64_t next = *next_sector, data = 0;

    x->epoch = read_u64(&r);
    x->sequence = read_u32(&r);
    x->count = x->left = read_u32(&r);
    if (r.bad || !x->epoch || !x->count || x->count > EXTENTS_MAX)
        return err_set(e, "disk record: wrong header");
    x->entry = read_bytes(&r, (size_t)x->count * EXTENTS_ENTRY);
    if (!x->entry)
        return err_set(e, "disk record: cut off in its extents");
    for (uint32_t i = 0; i < x->count; i++) {
        struct extent one;
        entry_read(x->entry + (size_t)i * EXTENTS_ENTRY, &one);
        if (entry_check(&one, sectors, next, e))
            return -1;
        next = one.sector + one.sectors;
        if (one.kind == EXTENT_DATA)
            data += (uint64_t)one.sectors * SECTOR;
    }
    if (data > EXTENTS_DATA_MAX || data != reader_left(&r))
        return err_set(e, "disk record: %lu bytes of data, %zu came", data,
                       reader_left(&r));
    x->data = r.p;
    *next_sector = next;
    return 0;
}

bool extents_next(struct extents *x, struct extent *out)
{
    if (!x->left)
        return false;
    entry_read(x->entry, out);
    x->entry += EXTENTS_ENTRY;
    x->left--;
    if (out->kind == EXTENT_DATA) {
        out->data = x->data;
        x->data += (size_t)out->sectors * SECTOR;
    }
    return true;
}

/* --- Building ------------------------------------------------------------- */

void extents_begin(struct extents_builder *b, uint64_t epoch, uint32_t sequence)
{
    buf_clear(&b->head);
    buf_clear(&b->data);
    buf_u64(&b->head, epoch);
    buf_u32(&b->head, sequence);
    buf_u32(&b->head, 0);
    b->count = 0;
}

/* Lengthen the last extent by x, if x continues it. */
static bool entry_extend(struct extents_builder *b, const struct extent *x)
{
    struct extent last;

    if (!b->count)
        return false;
    uint8_t *p = b->head.data + b->head.len - EXTENTS_ENTRY;
    entry_read(p, &last);
    if (last.kind != x->kind || last.sector + last.sectors != x->sector ||
        x->sectors > UINT32_MAX - last.sectors)
        return false;
    put_le32(p + 8, last.sectors + x->sectors);
    return true;
}

bool extents_add(struct extents_builder *b, const struct extent *x)
{
    size_t bytes = x->kind == EXTENT_DATA ? (size_t)x->sectors * SECTOR : 0;

    if (b->data.len + bytes > EXTENTS_DATA_MAX)
        return false;
    if (!entry_extend(b, x)) {
        if (b->count == EXTENTS_MAX)
            return false;
        buf_u64(&b->head, x->sector);
        buf_u32(&b->head, x->sectors);
        buf_u32(&b->head, x->kind);
        b->count++;
    }
    buf_put(&b->data, x->data, bytes);
    return true;
}

const struct buf *extents_end(struct extents_builder *b)
{
    put_le32(b->head.data + 12, b->count);
    buf_put(&b->head, b->data.data, b->data.len);
    return &b->head;
}

void extents_free(struct extents_builder *b)
{
    buf_free(&b->head);
    buf_free(&b->data);
}
