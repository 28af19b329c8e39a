// SPDX-License-Identifier: Apache-2.0
/* STATE, COMMIT and ACK payloads and the digest; see epoch.h and
 * docs/epoch-format.md. Called by engine, replica and agents; pure. */
#include "checkpoint/epoch.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void epoch_commit_put(struct buf *b, const struct epoch_commit *c)
{
    buf_u64(b, c->epoch);
    buf_u64(b, c->pages);
    buf_u32(b, c->chunks);
    buf_u32(b, 0);
    buf_u64(b, c->bytes);
    buf_put(b, c->digest.bytes, sizeof c->digest.bytes);
}

int epoch_commit_read(const void *p, size_t len, struct epoch_commit *c,
                      struct err *e)
{
    struct reader r = reader_of(p, len);

    c->epoch = read_u64(&r);
    c->pages = read_u64(&r);
    c->chunks = read_u32(&r);
    uint32_t zero = read_u32(&r);
    c->bytes = read_u64(&r);
    const uint8_t *digest = read_bytes(&r, sizeof c->digest.bytes);
    if (!reader_done(&r) || zero || !c->epoch)
        return err_set(e, "malformed COMMIT of %zu bytes", len);
    memcpy(c->digest.bytes, digest, sizeof c->digest.bytes);
    return 0;
}

void epoch_ack_put(struct buf *b, const struct epoch_ack *a)
{
    buf_u64(b, a->epoch);
    buf_u64(b, a->applied);
    buf_u64(b, a->disks);
}

int epoch_ack_read(const void *p, size_t len, struct epoch_ack *a,
                   struct err *e)
{
    struct reader r = reader_of(p, len);

    a->epoch = read_u64(&r);
    a->applied = read_u64(&r);
    a->disks = read_u64(&r);
    if (!reader_done(&r) || !a->epoch || a->applied > a->epoch ||
        a->epoch - a->applied > 1 || a->disks > a->epoch)
        return err_set(e, "malformed ACK of %zu bytes", len);
    return 0;
}

void epoch_state_put(struct buf *b, uint64_t epoch, const void *state,
                     size_t len)
{
    buf_u64(b, epoch);
    buf_put(b, state, len);
}

int epoch_state_read(const void *p, size_t len, uint64_t *epoch,
                     const uint8_t **state, size_t *state_len, struct err *e)
{
    struct reader r = reader_of(p, len);

    *epoch = read_u64(&r);
    *state_len = reader_left(&r);
    *state = read_bytes(&r, *state_len);
    if (!reader_done(&r) || !*epoch || !*state_len ||
        *state_len > EPOCH_MAX_STATE)
        return err_set(e, "malformed STATE of %zu bytes", len);
    return 0;
}

void epoch_disk_put(struct buf *b, const struct epoch_disk *d)
{
    buf_u32(b, d->device);
    buf_u32(b, d->flags);
}

int epoch_disk_read(const void *p, size_t len, struct epoch_disk *d,
                    const uint8_t **rest, size_t *rest_len, struct err *e)
{
    struct reader r = reader_of(p, len);

    d->device = read_u32(&r);
    d->flags = read_u32(&r);
    bool live = d->flags & EPOCH_DISK_LIVE;
    uint32_t special =
        d->flags & (EPOCH_DISK_BEGIN | EPOCH_DISK_ASK | EPOCH_DISK_REGIONS);
    if (r.bad || !reader_left(&r) || len > EPOCH_MAX_DISK ||
        d->flags & ~(uint32_t)EPOCH_DISK_FLAGS ||
        (special && (!live || special & (special - 1))))
        return err_set(e, "malformed DISK of %zu bytes", len);
    *rest = r.p;
    *rest_len = reader_left(&r);
    return 0;
}

struct epoch_hash {
    XXH3_state_t *state;
};

struct epoch_hash *epoch_hash_new(void)
{
    struct epoch_hash *h = calloc(1, sizeof *h);

    if (!h || !(h->state = XXH3_createState()))
        abort();
    epoch_hash_reset(h);
    return h;
}

void epoch_hash_free(struct epoch_hash *h)
{
    if (h)
        XXH3_freeState(h->state);
    free(h);
}

void epoch_hash_reset(struct epoch_hash *h)
{
    XXH3_128bits_reset(h->state);
}

void epoch_hash_add(struct epoch_hash *h, const void *p, size_t len)
{
    XXH3_128bits_update(h->state, p, len);
}

struct epoch_digest epoch_hash_value(const struct epoch_hash *h)
{
    XXH128_hash_t v = XXH3_128bits_digest(h->state);
    struct epoch_digest d;

    put_le64(d.bytes, v.low64);
    put_le64(d.bytes + 8, v.high64);
    return d;
}
