// SPDX-License-Identifier: Apache-2.0
/* A piece of an epoch's disk writes, as it is sent and journalled: which
 * sectors, and what they hold at the end of the epoch. Pure; any thread.
 *
 *     8  epoch, not 0
 *     4  sequence: counts the pieces of this epoch from 0
 *     4  extents, 1 to EXTENTS_MAX
 *        per extent:  8  first sector;  4  sectors, not 0;  4  kind
 *        data of the extents of kind 1, in their order
 *
 * Little-endian, no padding. A sector is 512 bytes. Kind 1: data, 2: zeroes.
 * Sectors rise strictly over all pieces of an epoch, so each is there at most
 * once. The payload ends exactly behind the data. */
#ifndef DISK_REPLICATE_EXTENTS_H
#define DISK_REPLICATE_EXTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"

#define SECTOR           512u
#define EXTENTS_MAX      4096
#define EXTENTS_DATA_MAX (256u << 10) /* bytes of data a piece */
#define EXTENTS_HEAD     16u
#define EXTENTS_ENTRY    16u
#define EXTENTS_BYTES_MAX                                                      \
    (EXTENTS_HEAD + EXTENTS_MAX * EXTENTS_ENTRY + EXTENTS_DATA_MAX)

enum extent_kind { EXTENT_DATA = 1, EXTENT_ZERO = 2 };

struct extent {
    uint64_t sector;
    uint32_t sectors;
    enum extent_kind kind;
    const uint8_t *data; /* points into the payload; NULL for zeroes */
};

/* A payload that was checked: read its extents with extents_next(). */
struct extents {
    uint64_t epoch;
    uint32_t sequence, count;
    const uint8_t *entry, *data; /* of the next one */
    uint32_t left;
};

/* Check all of it against an image of `sectors`. *next_sector is where the
 * epoch's pieces have got to (0 at first) and moves on when all is right. */
int extents_read(const void *p, size_t len, uint64_t sectors,
                 uint64_t *next_sector, struct extents *x, struct err *e);
bool extents_next(struct extents *x, struct extent *out);

/* Building: begin, add rising extents, end. */
struct extents_builder {
    struct buf head, data;
    uint32_t count;
};
void extents_begin(struct extents_builder *b, uint64_t epoch,
                   uint32_t sequence);
/* False when the piece is full and has to be ended first. An extent that goes
 * on where the last one ends, with the same kind, becomes part of it. `data`
 * is copied; at most EXTENTS_DATA_MAX bytes. */
bool extents_add(struct extents_builder *b, const struct extent *x);
/* The payload: valid until the next begin. */
const struct buf *extents_end(struct extents_builder *b);
void extents_free(struct extents_builder *b);

#endif
