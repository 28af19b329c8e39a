// SPDX-License-Identifier: Apache-2.0
/* The write-intent bitmap of one disk: regions of 64 KiB of which the other
 * side may lack something. Durable before a region is written, cleared when it
 * is durable on both sides. docs/disk.md says how it is used.
 *
 * The file, little-endian: at 0 a header of 512 bytes, never written again; at
 * 4096 sectors of 512 bytes: 504 bytes of bits, region 0 in the lowest bit of
 * the first, and XXH3 (64 bits, the sector's number as seed) over them. A
 * sector that does not check is taken for all ones.
 *
 *     header  8 "UNDRINTN"  4 version, 1  4 bytes of a region
 *             16 id of the image  16 base  8 bytes of the image
 *             8 XXH3 (64 bits) of all before
 *
 * The caller serialises all calls, except intent_flush_io(). */
#ifndef DISK_REPLICATE_INTENT_H
#define DISK_REPLICATE_INTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "disk-replicate/store.h"

#define INTENT_REGION 65536u
#define INTENT_ID     16

struct intent;

struct intent_config {
    struct store *file;   /* the caller's */
    uint64_t image_bytes; /* not 0, at most 2^50 */
    uint8_t id[INTENT_ID];
    /* Made at the end of each full sync: bitmaps of one base can be joined. */
    uint8_t base[INTENT_ID];
};

/* Bytes that the file has for such an image. */
uint64_t intent_file_bytes(uint64_t image_bytes);
/* A new bitmap, durable: all regions set, or none. */
int intent_format(const struct intent_config *c, bool all, struct err *e);
/* The base of the bitmap that is there; c->base does not matter. ERR_GONE:
 * there is none of that image and size. */
int intent_base(const struct intent_config *c, uint8_t base[INTENT_ID],
                struct err *e);
/* What it holds. ERR_GONE: there is none; ERR_REFUSED: it is another image's,
 * of another size, or of another base. */
int intent_open(struct intent **i, const struct intent_config *c,
                struct err *e);
void intent_close(struct intent *i);

/* A write begins. True: all its bits are durable, go on. Else they will be
 * after the next whole flush that begins from now on. The range is within the
 * image. */
bool intent_write(struct intent *i, uint64_t offset, uint64_t len);

/* A flush: begin, io without the caller's lock, end. One at a time. After an
 * error of io the bitmap is broken: nothing is durable any more. */
void intent_flush_begin(struct intent *i);
int intent_flush_io(struct intent *i, struct err *e);
void intent_flush_end(struct intent *i, bool ok);

/* A period begins; `open` is the open cut, so that no write so far has a
 * higher label. Call intent_write() again for all that are under way. The first
 * period after opening begins when all that was set has been put into the log
 * (epochlog.h), or was synced: nobody knows their labels. */
void intent_period(struct intent *i, uint64_t open);
/* The other side has applied and synced all up to `cut`, and this side's image
 * was synced since the period began (else a power cut could take back here what
 * is there): if `cut` covers the period's beginning, what was not written since
 * is cleared. */
void intent_clear(struct intent *i, uint64_t cut);

/* Set regions. */
uint64_t intent_count(const struct intent *i);
/* The first one at or behind *region; false: none. */
bool intent_next(const struct intent *i, uint64_t *region);

#endif
