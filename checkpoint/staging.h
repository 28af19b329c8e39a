// SPDX-License-Identifier: Apache-2.0
/* Where a stopped guest's dirty pages are copied to: memory that is mapped,
 * touched and locked beforehand, so that the copy takes no page fault and no
 * allocation (I4). One owner, the engine thread. */
#ifndef CHECKPOINT_STAGING_H
#define CHECKPOINT_STAGING_H

#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"

struct staging {
    uint8_t *pages; /* capacity * 4096, page i belongs to gfns[i] */
    uint64_t *gfns;
    size_t capacity, count;
    struct buf state; /* platform state of the epoch; `fixed` */
    void *area;       /* what was mapped */
    size_t area_bytes;
};

/* Room for `capacity` pages. A failed mlock is logged, not an error: on a host
 * that swaps its dom0 the pauses get longer. */
int staging_open(struct staging *s, size_t capacity, struct err *e);
/* Room for `bytes` of platform state. Not while the guest is stopped. */
void staging_state_reserve(struct staging *s, size_t bytes);
/* Idempotent, also after a failed open. */
void staging_close(struct staging *s);

#endif
