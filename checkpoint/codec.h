// SPDX-License-Identifier: Apache-2.0
/* Pages to bytes and back: the PAGES payload (docs/epoch-format.md).
 *
 * The encoder keeps 16 bytes a page: a hash of the content that the replica is
 * known to hold. A page whose hash did not change is sent as `unchanged`, one
 * or two bytes. The hash is XXH3-128 under a random 192-byte secret made at
 * encoder_open, so that a guest cannot make two pages that collide.
 *
 * What is sent in an epoch is known to the replica only when the epoch is
 * acknowledged: until encoder_commit() the new hashes are kept apart, and a
 * page that occurs a second time in one epoch is never sent as `unchanged`.
 * Live pages (before the first epoch) count as known at once, because a lost
 * session voids them all (encoder_reset).
 *
 * The decoder trusts nothing: counts, sizes and frame numbers are checked
 * before anything is used, memory is bounded by CODEC_RAW_MAX a chunk.
 *
 * An encoder belongs to one thread, a decoder to another. */
#ifndef CHECKPOINT_CODEC_H
#define CHECKPOINT_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"

#define CODEC_RAW_MAX   (1u << 20) /* raw page bytes in one chunk */
#define CODEC_PAGES_MAX 16384u     /* directory entries in one chunk */
/* The longest PAGES payload there can be. */
#define CODEC_PAYLOAD_MAX (32u + CODEC_PAGES_MAX * 5u + CODEC_RAW_MAX)

enum codec_kind { CODEC_UNCHANGED = 0, CODEC_ZERO = 1, CODEC_RAW = 2 };

/* --- Encoder (primary, engine thread) ----------------------------------- */

struct encoder;

struct encoder_count { /* since encoder_open */
    uint64_t unchanged, zero, raw;
    uint64_t raw_bytes, packed_bytes; /* before and after compression */
};

/* For a guest whose frame numbers are below end_gfn; `compress` turns zstd on
 * for raw pages. 17 bytes a page of memory. */
int encoder_open(struct encoder **enc, uint64_t end_gfn, bool compress,
                 struct err *e);
void encoder_free(struct encoder *enc);
/* Start the records of one epoch, or of live rounds (live: epoch is 0). */
void encoder_begin(struct encoder *enc, uint64_t epoch, bool live);
/* Encode the first pages of gfns[n] (strictly ascending; page i's content is at
 * pages + i * 4096) into one payload, which replaces what is in `out`. Returns
 * how many pages went in, at least 1; n is at least 1. */
size_t encoder_chunk(struct encoder *enc, const uint64_t *gfns,
                     const uint8_t *pages, size_t n, struct buf *out);
/* The epoch is acknowledged: what was sent in it is known. */
void encoder_commit(struct encoder *enc);
/* The epoch will not be acknowledged, or the session was lost: nothing is known
 * about any page any more. */
void encoder_reset(struct encoder *enc);
struct encoder_count encoder_count(const struct encoder *enc);

/* --- Decoder (backup) --------------------------------------------------- */

struct decoder;

int decoder_open(struct decoder **dec, struct err *e);
void decoder_free(struct decoder *dec);

/* A PAGES payload, checked and unpacked: it can be applied without any
 * further error. One allocation, given back with free(). */
struct chunk {
    struct chunk *next; /* the owner's list */
    uint64_t epoch;     /* 0 when live */
    uint32_t sequence;
    bool live;
    uint32_t count; /* of entries */
    uint32_t raw;   /* of raw pages */
    size_t size;    /* bytes of this allocation */
    const uint8_t *data;
    uint64_t entries[]; /* gfn << 2 | kind, gfn ascending */
};

static inline uint64_t chunk_gfn(const struct chunk *c, uint32_t i)
{
    return c->entries[i] >> 2;
}
static inline enum codec_kind chunk_kind(const struct chunk *c, uint32_t i)
{
    return (enum codec_kind)(c->entries[i] & 3);
}

/* Check and unpack one payload; all frame numbers must be below end_gfn. NULL
 * and *e on anything that the format does not allow. */
struct chunk *decoder_chunk(struct decoder *dec, const void *payload,
                            size_t len, uint64_t end_gfn, struct err *e);

#endif
