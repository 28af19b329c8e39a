// SPDX-License-Identifier: Apache-2.0
/* Disks that lose power, for tests: stores (disk-replicate/store.h) in memory
 * that know what was synced. The plug is pulled at one operation of all disks
 * on one power line; afterwards the test chooses what of the unsynced survived,
 * sector by sector, as often as it likes. */
#ifndef TESTS_LIB_PLUG_H
#define TESTS_LIB_PLUG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk-replicate/store.h"

#define PLUG_SECTOR 512u

struct plug_write {
    uint64_t offset;
    size_t len;
    uint8_t *data;
    struct plug_write *next;
};

struct plug_line {
    unsigned ops;       /* writes, zeroes and syncs so far */
    unsigned pulled_at; /* nothing of this one has happened; 0: never */
    bool off;
};

struct plug_disk {
    struct store store; /* first: operations get it */
    struct plug_line *line;
    size_t bytes;
    uint8_t *now, *durable;
    struct plug_write *pending, **last;
    struct plug_write *cut; /* the write at which the plug was pulled */
    bool fail_sync;         /* EIO instead */
};

void plug_open(struct plug_disk *d, struct plug_line *line, const char *name,
               size_t bytes);
void plug_close(struct plug_disk *d);

/* What survives of what was not synced. */
enum plug_outcome {
    PLUG_NOTHING,
    PLUG_ALL, /* and `torn` bytes of the write that was cut */
    PLUG_SOME /* each sector by a coin, of the cut write too */
};
/* Power is back on `to`, a disk of the same size, as `from` would be with this
 * outcome. */
void plug_back(struct plug_disk *to, const struct plug_disk *from,
               enum plug_outcome outcome, size_t torn, uint64_t *seed);

uint64_t plug_random(uint64_t *seed);

#endif
