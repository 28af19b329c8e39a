// SPDX-License-Identifier: Apache-2.0
/* A backup host for tests of the journal: a journal and an image on one power
 * line (plug.h), small enough that the ring wraps often; and pieces of epochs
 * for it, at random. */
#ifndef TESTS_LIB_JOURNAL_HOST_H
#define TESTS_LIB_JOURNAL_HOST_H

#include "disk-replicate/journal.h"
#include "tests/lib/plug.h"

#define SECTORS 24
#define BYTES   (SECTORS * SECTOR)
#define LOG     (JOURNAL_START + 32 * 1024)

struct host {
    struct plug_line line;
    struct plug_disk log, image;
    struct journal_config c;
};

void host_open(struct host *h);
void host_close(struct host *h);
/* Power is back on `to`, see plug_back(). */
void host_back(struct host *to, const struct host *from,
               enum plug_outcome outcome, size_t torn, uint64_t *seed);

/* Rising extents at random from *sector on; `image` becomes what they make of
 * it. NULL: there is no room behind *sector. Valid until the next. */
const struct buf *piece_make(struct extents_builder *b, uint64_t *seed,
                             uint64_t epoch, uint32_t sequence,
                             uint64_t *sector, uint8_t *image);

#endif
