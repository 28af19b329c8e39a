// SPDX-License-Identifier: Apache-2.0
/* What a VM wrote to a disk and its backup does not have yet, by cuts: the
 * primary's log. Pure: no I/O, no locks, no clock; memory is allocated when it
 * is opened. The caller serialises all calls, and calls overlapping writes in
 * the order in which they reached the disk. docs/disk.md says why the cut is
 * exact.
 *
 * Cuts are numbers that only rise. A write is labelled with the cut that was
 * open when it was put in. An epoch that ends with cut c takes all labelled c
 * or lower that are not committed. There are two maps from blocks to content:
 * `open` has the newest label, `closed` all before it. When a cut comes while
 * `closed` is not committed, the two are merged: its epoch was given up.
 *
 * A log that begins empty although the backup lacks something (the server was
 * restarted) is told so: nothing can be fetched until all that it lacks has
 * been put in, and a cut has come after that. */
#ifndef DISK_REPLICATE_EPOCHLOG_H
#define DISK_REPLICATE_EPOCHLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "disk-replicate/extents.h"

#define EPOCHLOG_BLOCK 4096u

struct epochlog;

struct epochlog_config {
    uint32_t pages;   /* blocks with data, 4 KiB each; not 0 */
    uint32_t entries; /* blocks in all, with zeroed ones, some 40 bytes each;
                       * at least `pages` */
    bool lacking;     /* begin as a restarted one */
};

int epochlog_open(struct epochlog **log, const struct epochlog_config *config,
                  struct err *e);
void epochlog_free(struct epochlog *log);

/* Put in what was written; `cut` is the open one, never lower than before.
 * sector + sectors must not overflow. `data` NULL: zeroes. False: no room, and
 * nothing was put in. Try again after a commit. */
bool epochlog_write(struct epochlog *log, uint64_t cut, uint64_t sector,
                    uint32_t sectors, const void *data);
/* A write of so many sectors fits into an empty log however it is aligned. */
bool epochlog_fits(const struct epochlog *log, uint32_t sectors);

/* All that the log lacked has been put in, by now: cuts before `cut`, the open
 * one, stay incomplete. */
void epochlog_whole(struct epochlog *log, uint64_t cut);

/* Begin to read the epoch that ends with the cut before `open`, the one that is
 * open now: all that is labelled lower and not committed. False: it can't be
 * had, since the log was lacking something when that cut came; a later one is
 * needed. May begin again at any time. Writes of the open cut do not disturb
 * it; one of a later cut voids it, since then the epoch was given up. */
bool epochlog_fetch(struct epochlog *log, uint64_t open);
/* The next piece of it, left in `b` as a payload of `epoch` for extents_end();
 * false when all is out. */
bool epochlog_next(struct epochlog *log, struct extents_builder *b,
                   uint64_t epoch, uint32_t sequence);

/* The backup has all that was fetched, up to `cut`: forget it. False, and
 * nothing is forgotten: the log holds closed writes of later cuts. */
bool epochlog_commit(struct epochlog *log, uint64_t cut);

/* Something of the block was written and not committed. */
bool epochlog_has(const struct epochlog *log, uint64_t block);
/* What the block held at the cut of the epoch that was fetched last: `data` is
 * what the image holds now, and becomes that. False: it is not known, since
 * sectors were written after the cut that it did not have. */
bool epochlog_at_cut(const struct epochlog *log, uint64_t block, uint8_t *data);

struct epochlog_load {
    uint32_t pages, pages_used;
    uint32_t entries, entries_used;
    bool early; /* more than half of the limit is used: an epoch is wanted */
    /* Of the other half, that is used; over 100 when more is than is to be. */
    unsigned over_percent;
    uint64_t half; /* how much that is, of the pages, in bytes */
};
/* What is to be used of its pages, in bytes; 0: all. They can be, still. */
void epochlog_limit(struct epochlog *log, uint64_t bytes);
struct epochlog_load epochlog_load(const struct epochlog *log);

#endif
