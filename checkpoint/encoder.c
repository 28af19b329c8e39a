// SPDX-License-Identifier: Apache-2.0
/* The encoder of PAGES payloads; see codec.h and docs/epoch-format.md. Called
 * by the engine thread while the guest runs. */
#include "checkpoint/codec.h"
#include "checkpoint/harvest.h"
#include "common/cleanup.h"
#include "hypervisor/hv.h"

#include <string.h>
#include <sys/random.h>
#include <xxhash.h>
#include <zstd.h>

#define RAW_PAGES  (CODEC_RAW_MAX / HV_PAGE)
#define ZSTD_LEVEL 1

struct page_hash {
    uint64_t low, high; /* both 0: unknown */
};

struct tentative {
    uint64_t gfn;
    struct page_hash hash;
};

struct encoder {
    uint64_t end_gfn;
    struct page_hash *known; /* [end_gfn], what the replica holds */
    uint64_t *sent;          /* bitmap: was in this epoch already */
    struct tentative *news;  /* hashes of this epoch, in order */
    size_t news_count, news_cap;
    uint64_t epoch;
    uint32_t sequence;
    bool live;
    ZSTD_CCtx *zstd; /* NULL: no compression */
    struct buf directory, raw;
    struct encoder_count count;
    uint8_t secret[192];    /* XXH3's default length */
    struct page_hash empty; /* of a page of zeroes */
};

static const uint8_t zeroes[HV_PAGE];

static struct page_hash page_hash(const struct encoder *enc,
                                  const uint8_t *page)
{
    XXH128_hash_t v =
        XXH3_128bits_withSecret(page, HV_PAGE, enc->secret, sizeof enc->secret);
    struct page_hash h = {v.low64, v.high64};

    if (!h.low && !h.high)
        h.low = 1;
    return h;
}

int encoder_open(struct encoder **out, uint64_t end_gfn, bool compress,
                 struct err *e)
{
    struct encoder *enc = calloc(1, sizeof *enc);

    if (!enc)
        return err_sys(e, "encoder");
    enc->end_gfn = end_gfn;
    enc->known = calloc(end_gfn, sizeof *enc->known);
    enc->sent = calloc(bitmap_words(end_gfn), sizeof *enc->sent);
    enc->zstd = compress ? ZSTD_createCCtx() : NULL;
    ssize_t got = getrandom(enc->secret, sizeof enc->secret, 0);
    if (!enc->known || !enc->sent || (compress && !enc->zstd) ||
        got != sizeof enc->secret) {
        err_sys(e, "page hashes for %lu frames", end_gfn);
        encoder_free(enc);
        return -1;
    }
    enc->empty = page_hash(enc, zeroes);
    if (compress)
        ZSTD_CCtx_setParameter(enc->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
    buf_reserve(&enc->raw, CODEC_RAW_MAX);
    *out = enc;
    return 0;
}

void encoder_free(struct encoder *enc)
{
    if (!enc)
        return;
    free(enc->known);
    free(enc->sent);
    free(enc->news);
    ZSTD_freeCCtx(enc->zstd);
    buf_free(&enc->directory);
    buf_free(&enc->raw);
    free(enc);
}

static void epoch_forget(struct encoder *enc)
{
    enc->news_count = 0;
    memset(enc->sent, 0, bitmap_words(enc->end_gfn) * sizeof *enc->sent);
}

void encoder_begin(struct encoder *enc, uint64_t epoch, bool live)
{
    enc->epoch = epoch;
    enc->live = live;
    enc->sequence = 0;
    epoch_forget(enc);
}

void encoder_commit(struct encoder *enc)
{
    for (size_t i = 0; i < enc->news_count; i++)
        enc->known[enc->news[i].gfn] = enc->news[i].hash;
    epoch_forget(enc);
}

void encoder_reset(struct encoder *enc)
{
    memset(enc->known, 0, enc->end_gfn * sizeof *enc->known);
    epoch_forget(enc);
}

struct encoder_count encoder_count(const struct encoder *enc)
{
    return enc->count;
}

static bool page_is_zero(const uint8_t *page)
{
    uint64_t first;

    memcpy(&first, page, sizeof first);
    return !first && !memcmp(page, page + 8, HV_PAGE - 8);
}

static void news_add(struct encoder *enc, uint64_t gfn, struct page_hash hash)
{
    if (enc->news_count == enc->news_cap) {
        enc->news_cap = enc->news_cap ? enc->news_cap * 2 : 4096;
        enc->news = reallocarray(enc->news, enc->news_cap, sizeof *enc->news);
        if (!enc->news)
            abort();
    }
    enc->news[enc->news_count++] = (struct tentative){gfn, hash};
}

/* What to say about a page, and remember that it was said. */
static enum codec_kind page_kind(struct encoder *enc, uint64_t gfn,
                                 const uint8_t *page)
{
    bool zero = page_is_zero(page);
    struct page_hash hash = zero ? enc->empty : page_hash(enc, page);
    struct page_hash *known = &enc->known[gfn];
    bool repeat = bitmap_test(enc->sent, gfn);

    if (!repeat && known->low == hash.low && known->high == hash.high)
        return CODEC_UNCHANGED;
    if (enc->live) {
        *known = hash;
    } else {
        bitmap_set(enc->sent, gfn);
        news_add(enc, gfn, hash);
    }
    return zero ? CODEC_ZERO : CODEC_RAW;
}

static void header_put(const struct encoder *enc, struct buf *out,
                       uint32_t entries, uint32_t raw)
{
    buf_clear(out);
    buf_u64(out, enc->epoch);
    buf_u32(out, enc->sequence);
    buf_u8(out, enc->live);
    buf_u8(out, 0); /* packing, known later */
    buf_u16(out, 0);
    buf_u32(out, entries);
    buf_u32(out, (uint32_t)enc->directory.len);
    buf_u32(out, raw);
    buf_u32(out, 0); /* packed length, known later */
    buf_put(out, enc->directory.data, enc->directory.len);
}

/* The raw pages behind header and directory, compressed if that helps. */
static void raw_put(struct encoder *enc, struct buf *out)
{
    size_t len = enc->raw.len, packed = 0;

    if (!len)
        return;
    buf_reserve(out, len);
    uint8_t *to = out->data + out->len;
    if (enc->zstd)
        packed = ZSTD_compress2(enc->zstd, to, len - 1, enc->raw.data, len);
    if (!packed || ZSTD_isError(packed)) {
        memcpy(to, enc->raw.data, len);
        packed = len;
    }
    out->len += packed;
    out->data[13] = packed < len;
    put_le32(out->data + 28, (uint32_t)packed);
    enc->count.raw_bytes += len;
    enc->count.packed_bytes += packed;
}

size_t encoder_chunk(struct encoder *enc, const uint64_t *gfns,
                     const uint8_t *pages, size_t n, struct buf *out)
{
    uint64_t next = 0;
    size_t i, raw = 0;

    buf_clear(&enc->directory);
    buf_clear(&enc->raw);
    for (i = 0; i < n && i < CODEC_PAGES_MAX && raw < RAW_PAGES; i++) {
        const uint8_t *page = pages + i * HV_PAGE;
        enum codec_kind kind = page_kind(enc, gfns[i], page);
        buf_varint(&enc->directory, (gfns[i] - next) << 2 | kind);
        next = gfns[i] + 1;
        if (kind == CODEC_RAW) {
            buf_put(&enc->raw, page, HV_PAGE);
            raw++;
        }
        enc->count.unchanged += kind == CODEC_UNCHANGED;
        enc->count.zero += kind == CODEC_ZERO;
    }
    enc->count.raw += raw;
    header_put(enc, out, (uint32_t)i, (uint32_t)raw);
    raw_put(enc, out);
    enc->sequence++;
    return i;
}
