// SPDX-License-Identifier: Apache-2.0
/* One capture: stop the guest, take its dirty pages and platform state into
 * staging, let the devices mark, let the guest run on. Between stop and resume
 * there is no network, no disk, no allocation and no page fault (I4), and every
 * way out resumes a guest that was stopped (I5). Engine thread only.
 *
 * Dirty bits live in `pending` from the moment they are read out of the
 * hypervisor until their pages were taken by a successful capture or batch, so
 * an epoch that is given up loses none. */
#ifndef CHECKPOINT_CAPTURE_H
#define CHECKPOINT_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/device.h"
#include "checkpoint/engine.h"
#include "checkpoint/staging.h"
#include "hypervisor/hv.h"

/* The file on a tmpfs that says "a suspend of this guest was asked for by us
 * and is not yet undone". A page mapped for writing: setting it is one store,
 * which survives the death of the process, as the guest does. */
struct suspend_flag {
    volatile uint32_t *word;
};

/* Create if missing, keep what it says. */
int suspend_flag_open(struct suspend_flag *f, const char *path, struct err *e);
static inline bool suspend_flag_get(const struct suspend_flag *f)
{
    return *f->word != 0;
}
void suspend_flag_set(struct suspend_flag *f, bool asked);
void suspend_flag_close(struct suspend_flag *f);

struct capture {
    struct hv *hv;
    uint32_t domid;
    const struct hv_map *map;
    struct suspend_flag flag;
    struct checkpoint_device *const *devices;
    size_t device_count;
    unsigned deadline_ms;
    const bool *over; /* set by another thread: no suspend is wanted now */
    struct staging staging;
    uint64_t *fresh, *pending; /* bitmaps of `words` words */
    size_t words;
    uint64_t from; /* where capture_batch goes on */
};

enum capture_result {
    CAPTURE_TAKEN,   /* epoch in staging, devices marked, guest runs */
    CAPTURE_SKIPPED, /* given up, guest runs, *e says why; try again later */
    CAPTURE_LATE, /* the same, but it may suspend at any time, and nobody else
                     would resume it: try again at once. The flag is set */
    CAPTURE_FULL, /* more dirty pages than staging holds; guest runs */
    CAPTURE_DOWN, /* the guest has shut down by itself: see hv info() */
    CAPTURE_VOID, /* guest runs, but dirty bits are lost: *e says why */
    CAPTURE_STUCK /* the guest could not be resumed: *e; flag is still set */
};

/* Fill in hv, domid, map, flag, devices, deadline_ms first. Allocates all that
 * a capture needs, and lets get_state() size its buffer. The guest runs. */
int capture_open(struct capture *c, size_t staging_pages, struct err *e);
/* Idempotent. Does not close the flag, the devices or the map. */
void capture_close(struct capture *c);

/* Take epoch `epoch`. Fills the capture's part of *stats. Fault points:
 * capture.before, .suspended, .copied, .marked, .resumed; `fail` gives the
 * epoch up there. */
enum capture_result capture_take(struct capture *c, uint64_t epoch,
                                 struct engine_epoch *stats, struct err *e);

/* All of RAM is dirty: before the initial copy, which then starts at the
 * front. */
void capture_all_dirty(struct capture *c);
/* Read the dirty bitmap of the running guest into pending; *count is how many
 * pages are pending then. An error means that bits are lost. */
int capture_refresh(struct capture *c, uint64_t *count, struct err *e);
/* Copy the next pending pages of the running guest to staging, as many as fit,
 * in rising order from where the last batch stopped; their pending bits are
 * cleared. False when the end of the guest was reached with nothing copied;
 * the next batch starts at the front. Pages may be torn: what is written
 * meanwhile is dirty again. */
bool capture_batch(struct capture *c);

#endif
