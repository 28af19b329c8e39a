// SPDX-License-Identifier: Apache-2.0
/* Ranges of a disk that are being written: who overlaps an earlier one waits
 * for it, first come first served, so overlapping writes reach disk and log in
 * one order. Pure, no locks, no memory of its own; the caller serialises. A
 * wait can't be circular, since one waits for earlier ones only. */
#ifndef DISK_REPLICATE_RANGES_H
#define DISK_REPLICATE_RANGES_H

#include <stdbool.h>
#include <stdint.h>

struct range {
    uint64_t offset, length; /* set by the caller; unchanged until given back */
    bool granted;
    struct range *next; /* the following are the list's */
};

/* Zero-initialise. */
struct ranges {
    struct range *first;
};

/* Queue up. True: granted at once. Else `granted` becomes true in a later
 * ranges_give(). An empty range overlaps nothing. */
bool ranges_take(struct ranges *all, struct range *r);
/* Give back, granted or not. True when others were granted by it. */
bool ranges_give(struct ranges *all, struct range *r);

#endif
