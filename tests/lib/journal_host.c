// SPDX-License-Identifier: Apache-2.0
/* A backup host for tests of the journal; see journal_host.h. */
#include "tests/lib/journal_host.h"

#include <stdlib.h>
#include <string.h>

void host_open(struct host *h)
{
    memset(h, 0, sizeof *h);
    plug_open(&h->log, &h->line, "journal", LOG);
    plug_open(&h->image, &h->line, "image", BYTES);
    h->c = (struct journal_config){.log = &h->log.store,
                                   .image = &h->image.store,
                                   .log_bytes = LOG,
                                   .image_bytes = BYTES,
                                   .id = "web.img"};
}

void host_close(struct host *h)
{
    plug_close(&h->log);
    plug_close(&h->image);
}

void host_back(struct host *to, const struct host *from,
               enum plug_outcome outcome, size_t torn, uint64_t *seed)
{
    plug_back(&to->log, &from->log, outcome, torn, seed);
    plug_back(&to->image, &from->image, outcome, torn, seed);
}

const struct buf *piece_make(struct extents_builder *b, uint64_t *seed,
                             uint64_t epoch, uint32_t sequence,
                             uint64_t *sector, uint8_t *image)
{
    uint8_t data[8 * SECTOR];

    extents_begin(b, epoch, sequence);
    for (unsigned i = 0; i < 3; i++) {
        struct extent x = {.sector = *sector + plug_random(seed) % 4};
        x.sectors = 1 + (uint32_t)(plug_random(seed) % 4);
        if (x.sector + x.sectors > SECTORS)
            break;
        x.kind = plug_random(seed) % 4 ? EXTENT_DATA : EXTENT_ZERO;
        memset(data, 0, sizeof data);
        if (x.kind == EXTENT_DATA)
            memset(data, (int)(plug_random(seed) | 1), sizeof data);
        x.data = data;
        if (!extents_add(b, &x))
            abort();
        memcpy(image + x.sector * SECTOR, data, x.sectors * SECTOR);
        *sector = x.sector + x.sectors;
    }
    return b->count ? extents_end(b) : NULL;
}
