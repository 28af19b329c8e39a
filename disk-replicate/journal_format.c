// SPDX-License-Identifier: Apache-2.0
/* The journal's bytes; see journal.h. Pure. */
#include "disk-replicate/journal_private.h"

#include <string.h>

#define SLOT_MAGIC   "UNDRJRNL"
#define RECORD_MAGIC 0x524a4455u /* "UDJR" */
#define VERSION      2

void slot_put(struct buf *b, const struct slot *s)
{
    buf_put(b, SLOT_MAGIC, 8);
    buf_u32(b, VERSION);
    buf_u32(b, 0);
    buf_put(b, s->id, sizeof s->id);
    buf_u64(b, s->salt);
    buf_u64(b, s->log_bytes);
    buf_u64(b, s->image_bytes);
    buf_u64(b, s->serial);
    buf_u64(b, s->applied);
    buf_u64(b, s->wall_ms);
    buf_u64(b, s->applying);
    buf_u64(b, s->tail.offset);
    buf_u64(b, s->tail.number);
    buf_u64(b, XXH3_64bits(b->data, b->len));
    size_t rest = SLOT_BYTES - b->len;
    memset(buf_extend(b, rest), 0, rest);
}

bool slot_get(const uint8_t *p, struct slot *s)
{
    struct reader r = reader_of(p, SLOT_BYTES);
    const uint8_t *magic = read_bytes(&r, 8);
    uint32_t version = read_u32(&r), zero = read_u32(&r);

    memcpy(s->id, read_bytes(&r, sizeof s->id), sizeof s->id);
    s->salt = read_u64(&r);
    s->log_bytes = read_u64(&r);
    s->image_bytes = read_u64(&r);
    s->serial = read_u64(&r);
    s->applied = read_u64(&r);
    s->wall_ms = read_u64(&r);
    s->applying = read_u64(&r);
    s->tail.offset = read_u64(&r);
    s->tail.number = read_u64(&r);
    size_t len = (size_t)(r.p - p);
    return read_u64(&r) == XXH3_64bits(p, len) && version == VERSION && !zero &&
           memcmp(magic, SLOT_MAGIC, 8) == 0;
}

uint64_t record_size(uint32_t length)
{
    return (RECORD_HEAD + (uint64_t)length + SECTOR - 1) / SECTOR * SECTOR;
}

size_t journal_record_put(uint8_t *out, const struct record *r)
{
    size_t size = (size_t)record_size(r->length);

    put_le32(out, RECORD_MAGIC);
    put_le32(out + 4, r->kind);
    put_le64(out + 8, r->salt);
    put_le64(out + 16, r->number);
    put_le64(out + 24, r->epoch);
    put_le32(out + 32, r->length);
    put_le32(out + 36, 0);
    put_le64(out + 40, r->sum);
    put_le64(out + 48, XXH3_64bits(out, 48));
    if (r->length)
        memcpy(out + RECORD_HEAD, r->payload, r->length);
    memset(out + RECORD_HEAD + r->length, 0, size - RECORD_HEAD - r->length);
    return size;
}

bool record_get(const uint8_t *p, struct record *r)
{
    r->kind = (enum record_kind)get_le32(p + 4);
    r->salt = get_le64(p + 8);
    r->number = get_le64(p + 16);
    r->epoch = get_le64(p + 24);
    r->length = get_le32(p + 32);
    r->sum = get_le64(p + 40);
    return get_le32(p) == RECORD_MAGIC && !get_le32(p + 36) &&
           get_le64(p + 48) == XXH3_64bits(p, 48) &&
           r->length <= EXTENTS_BYTES_MAX;
}

void commit_put(uint8_t out[COMMIT_PAYLOAD], const struct commit *c)
{
    put_le32(out, c->pieces);
    put_le32(out + 4, 0);
    put_le64(out + 8, c->bytes);
    put_le64(out + 16, c->digest);
    put_le64(out + 24, c->wall_ms);
    put_le64(out + 32, c->coming);
}

bool commit_get(const struct record *r, struct commit *c)
{
    if (r->length != COMMIT_PAYLOAD || get_le32(r->payload + 4))
        return false;
    c->pieces = get_le32(r->payload);
    c->bytes = get_le64(r->payload + 8);
    c->digest = get_le64(r->payload + 16);
    c->wall_ms = get_le64(r->payload + 24);
    c->coming = get_le64(r->payload + 32);
    return true;
}

void pieces_begin(struct pieces *p, uint64_t epoch)
{
    p->epoch = epoch;
    p->next_sector = p->bytes = p->digest = 0;
    p->count = 0;
}

int pieces_add(struct pieces *p, const struct record *r, uint64_t sectors,
               struct err *e)
{
    uint64_t next = p->next_sector;
    struct extents x;
    uint8_t sum[8];

    if (extents_read(r->payload, r->length, sectors, &next, &x, e))
        return -1;
    if (x.epoch != p->epoch || x.sequence != p->count)
        return err_set(e, "piece %u of epoch %lu, expected %u of %lu",
                       x.sequence, x.epoch, p->count, p->epoch);
    put_le64(sum, r->sum);
    p->digest = XXH3_64bits_withSeed(sum, sizeof sum, p->digest);
    p->next_sector = next;
    p->bytes += r->length;
    p->count++;
    return 0;
}

bool pieces_are(const struct pieces *p, const struct commit *c)
{
    return p->count == c->pieces && p->bytes == c->bytes &&
           p->digest == c->digest;
}
