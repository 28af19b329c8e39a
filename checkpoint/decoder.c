// SPDX-License-Identifier: Apache-2.0
/* The decoder of PAGES payloads; see codec.h and docs/epoch-format.md. Called
 * by the replica with bytes of the peer: nothing is used before it is checked.
 */
#include "checkpoint/codec.h"
#include "checkpoint/epoch.h"
#include "common/cleanup.h"
#include "hypervisor/hv.h"

#include <string.h>
#include <zstd.h>

struct decoder {
    ZSTD_DCtx *zstd;
};

struct header {
    uint64_t epoch;
    uint32_t sequence, entries, directory, raw, packed;
    uint8_t live, packing;
};

int decoder_open(struct decoder **out, struct err *e)
{
    struct decoder *dec = calloc(1, sizeof *dec);

    if (!dec || !(dec->zstd = ZSTD_createDCtx())) {
        free(dec);
        return err_sys(e, "decoder");
    }
    *out = dec;
    return 0;
}

void decoder_free(struct decoder *dec)
{
    if (dec)
        ZSTD_freeDCtx(dec->zstd);
    free(dec);
}

static bool packing_valid(const struct header *h)
{
    size_t raw = (size_t)h->raw * HV_PAGE;

    if (h->packing == 0)
        return h->packed == raw;
    return h->packing == 1 && h->packed > 0 && h->packed < raw;
}

static int header_read(struct reader *r, struct header *h, struct err *e)
{
    h->epoch = read_u64(r);
    h->sequence = read_u32(r);
    h->live = read_u8(r);
    h->packing = read_u8(r);
    uint16_t zero = read_u16(r);
    h->entries = read_u32(r);
    h->directory = read_u32(r);
    h->raw = read_u32(r);
    h->packed = read_u32(r);
    if (r->bad || zero || h->live > 1 || h->live != (h->epoch == 0))
        return err_set(e, "malformed PAGES header");
    if (!h->entries || h->entries > CODEC_PAGES_MAX || h->raw > h->entries ||
        h->raw > CODEC_RAW_MAX / HV_PAGE || !packing_valid(h) ||
        reader_left(r) != (size_t)h->directory + h->packed)
        return err_set(e,
                       "PAGES sizes don't fit: %u entries, %u raw, "
                       "%u packed, %zu left",
                       h->entries, h->raw, h->packed, reader_left(r));
    return 0;
}

static int directory_read(struct reader r, const struct header *h,
                          uint64_t end_gfn, uint64_t *entries, struct err *e)
{
    uint64_t next = 0;
    uint32_t raw = 0;

    for (uint32_t i = 0; i < h->entries; i++) {
        uint64_t v = read_varint(&r), gap = v >> 2;
        if (r.bad || next >= end_gfn || gap >= end_gfn - next)
            return err_set(e, "PAGES names a frame beyond %#lx", end_gfn);
        if ((v & 3) > CODEC_RAW)
            return err_set(e, "PAGES has an unknown kind of page");
        raw += (v & 3) == CODEC_RAW;
        entries[i] = (next + gap) << 2 | (v & 3);
        next += gap + 1;
    }
    if (!reader_done(&r) || raw != h->raw)
        return err_set(e, "PAGES directory does not match its header");
    return 0;
}

static int raw_read(struct decoder *dec, const struct header *h,
                    const uint8_t *packed, uint8_t *to, struct err *e)
{
    size_t len = (size_t)h->raw * HV_PAGE;

    if (!h->packing) {
        memcpy(to, packed, len);
        return 0;
    }
    /* One frame and nothing behind it: ZSTD_decompress would go on. */
    if (ZSTD_findFrameCompressedSize(packed, h->packed) != h->packed ||
        ZSTD_decompressDCtx(dec->zstd, to, len, packed, h->packed) != len)
        return err_set(e, "PAGES does not decompress to %u pages", h->raw);
    return 0;
}

struct chunk *decoder_chunk(struct decoder *dec, const void *payload,
                            size_t len, uint64_t end_gfn, struct err *e)
{
    struct reader r = reader_of(payload, len);
    struct header h;

    if (end_gfn > EPOCH_MAX_GFN) {
        err_set(e, "a guest of %#lx frames is too large", end_gfn);
        return NULL;
    }
    if (header_read(&r, &h, e))
        return NULL;
    size_t size = sizeof(struct chunk) + h.entries * sizeof(uint64_t);
    CLEANUP_FREE struct chunk *c = malloc(size + (size_t)h.raw * HV_PAGE);
    if (!c)
        abort();
    uint8_t *raw = (uint8_t *)c + size;
    const uint8_t *directory = read_bytes(&r, h.directory);
    const uint8_t *packed = read_bytes(&r, h.packed);
    if (directory_read(reader_of(directory, h.directory), &h, end_gfn,
                       c->entries, e) ||
        (h.raw && raw_read(dec, &h, packed, raw, e)))
        return NULL;
    c->next = NULL;
    c->epoch = h.epoch;
    c->sequence = h.sequence;
    c->live = h.live;
    c->count = h.entries;
    c->raw = h.raw;
    c->size = size + (size_t)h.raw * HV_PAGE;
    c->data = raw;
    return take_ptr(c);
}
