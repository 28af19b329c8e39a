// SPDX-License-Identifier: Apache-2.0
/* Which regions of 64 KiB the log of a primary (epochlog.h) may have something
 * of, where it outlives the server: in a file under /run, mapped. A server that
 * is killed leaves the image, with all that the log had in it, and this; so its
 * successor reads these regions and no others, and has the log again. Nothing
 * of it is on a disk: after a crash of the host no log goes on.
 *
 * Two maps, as the log has: `closed` of what has been cut and is not
 * committed, `open` of what came since. A write touches before the image has
 * it, and is touched again whenever a cut comes while it is under way.
 *
 * The caller serialises all calls. */
#ifndef DISK_REPLICATE_TOUCHED_H
#define DISK_REPLICATE_TOUCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define TOUCHED_REGION 65536u

struct touched {
    uint64_t *map; /* `open`, then `closed`; NULL: there is none */
    size_t words;  /* of each */
    bool kept;     /* it has all that a log had since it began */
    uint64_t regions;
    uint64_t cut;         /* label of `open` */
    uint64_t closed_last; /* highest label in `closed` */
};

/* The file is made for an image of so many bytes; what is in it stays, if it is
 * of one of that size. */
int touched_open(struct touched *t, const char *path, uint64_t image_bytes,
                 struct err *e);
/* The file stays. */
void touched_close(struct touched *t);

/* A log begins, empty, at the open cut. */
void touched_begin(struct touched *t, uint64_t cut);
/* The log of a predecessor is made again: nothing is forgotten until it is
 * whole, at the open cut then. False: what it had is not known. */
bool touched_again(struct touched *t);
void touched_whole(struct touched *t, uint64_t cut);

void touched_set(struct touched *t, uint64_t offset, uint64_t len);
/* `cut` is the open one now. True: it came just now; touched_set() for each
 * write that is under way. */
bool touched_roll(struct touched *t, uint64_t cut);
/* All up to `cut` is committed: `closed` is forgotten, if that is all of it. */
void touched_commit(struct touched *t, uint64_t cut);
/* The first region at or behind *region; false: none. */
bool touched_next(const struct touched *t, uint64_t *region);

#endif
