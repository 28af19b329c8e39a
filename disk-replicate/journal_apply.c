// SPDX-License-Identifier: Apache-2.0
/* From the journal into the image, and recovery, which is the same after a
 * look at what is there; see journal.h and docs/disk.md. */
#include "disk-replicate/journal_private.h"

#include "common/fault.h"
#include "common/log.h"

/* Read and check the record at `at`; 1: it is one, 0: there is none. */
static int record_at(struct journal *j, const struct place *at,
                     struct record *r, struct err *e)
{
    struct store *log = j->c.log;

    if (log->ops->read(log, at->offset, j->record, SECTOR, e))
        return -1;
    if (!record_get(j->record, r) || r->salt != j->slot.salt ||
        r->number != at->number)
        return 0;
    uint64_t size = record_size(r->length);
    if (size > j->c.log_bytes - at->offset)
        return 0;
    if (size > SECTOR &&
        log->ops->read(log, at->offset + SECTOR, j->record + SECTOR,
                       (size_t)size - SECTOR, e))
        return -1;
    r->payload = j->record + RECORD_HEAD;
    return r->sum == XXH3_64bits(r->payload, r->length);
}

/* The same, and move on: *at behind it, *passed by its bytes. */
static int record_next(struct journal *j, struct place *at, struct record *r,
                       uint64_t *passed, struct err *e)
{
    for (;;) {
        if (at->offset == j->c.log_bytes)
            at->offset = JOURNAL_START;
        int found = record_at(j, at, r, e);
        if (found <= 0)
            return found;
        bool pad = r->kind == RECORD_PAD;
        uint64_t takes =
            pad ? j->c.log_bytes - at->offset : record_size(r->length);
        *passed += takes;
        at->offset += takes;
        at->number++;
        if (!pad)
            return 1;
    }
}

/* --- Applying ------------------------------------------------------------- */

/* Nothing of `target` is in the image before this is durable. */
static int apply_begin(struct journal *j, struct err *e)
{
    if (journal_log_sync(j, e))
        return -1;
    j->target = j->committed;
    j->target_wall_ms = j->committed_wall_ms;
    j->slot.applying = j->target;
    if (journal_slot_write(j, e) || journal_log_sync(j, e))
        return -1;
    j->at = j->slot.tail;
    j->passed = 0;
    j->apply = APPLY_RECORDS;
    fault_point("journal.applying");
    return 0;
}

static int data_apply(struct journal *j, const struct record *r, struct err *e)
{
    struct store *image = j->c.image;
    uint64_t next = 0;
    struct extents x;
    struct extent one;

    if (extents_read(r->payload, r->length, j->c.image_bytes / SECTOR, &next,
                     &x, e))
        return -1;
    while (extents_next(&x, &one)) {
        uint64_t at = one.sector * SECTOR, len = (uint64_t)one.sectors * SECTOR;
        if (one.kind == EXTENT_ZERO
                ? image->ops->zero(image, at, len, e)
                : image->ops->write(image, at, one.data, (size_t)len, e))
            return -1;
    }
    return 0;
}

static int apply_record(struct journal *j, struct err *e)
{
    struct record r;
    int found = record_next(j, &j->at, &r, &j->passed, e);

    if (!found)
        err_set(e,
                "record %lu of epoch %lu is damaged: the image is not a "
                "whole epoch any more",
                j->at.number, j->target);
    if (found <= 0)
        return -1;
    if (r.kind == RECORD_DATA)
        return data_apply(j, &r, e);
    if (r.epoch == j->target)
        j->apply = APPLY_SYNC;
    return 0;
}

static int apply_end(struct journal *j, struct err *e)
{
    fault_point("journal.written");
    if (j->c.image->ops->sync(j->c.image, e))
        return -1;
    j->slot.applied = j->target;
    j->slot.wall_ms = j->target_wall_ms;
    j->slot.tail = j->at;
    if (journal_slot_write(j, e))
        return -1;
    j->released += j->passed;
    j->passed = 0;
    j->apply = APPLY_IDLE;
    return 0;
}

static int apply_step(struct journal *j, bool *done, struct err *e)
{
    switch (j->apply) {
    case APPLY_RECORDS:
        return apply_record(j, e);
    case APPLY_SYNC:
        return apply_end(j, e);
    case APPLY_IDLE:
        break;
    }
    if (j->committed > j->slot.applied)
        return apply_begin(j, e);
    *done = true;
    return j->released ? journal_log_sync(j, e) : 0;
}

int journal_apply(struct journal *j, bool *done, struct err *e)
{
    *done = false;
    if (j->broken)
        return err_set(e, "the journal has failed before");
    if (!apply_step(j, done, e))
        return 0;
    err_add(e, "apply epoch %lu", j->target);
    return journal_broken(j);
}

/* --- Recovery ------------------------------------------------------------- */

/* Take the record into the epoch that is being looked at; false: it doesn't
 * belong there, the journal ends before it. */
static bool scan_record(struct journal *j, const struct record *r, bool *whole)
{
    struct commit c;
    struct extents x;

    *whole = false;
    if (r->epoch != j->incoming.epoch)
        return false;
    if (r->kind == RECORD_DATA)
        return !pieces_add(&j->incoming, r->payload, r->length,
                           j->c.image_bytes / SECTOR, &x, NULL);
    if (r->kind != RECORD_COMMIT || !commit_get(r, &c) ||
        !pieces_are(&j->incoming, &c))
        return false;
    *whole = true;
    j->committed_wall_ms = c.wall_ms;
    return true;
}

/* Find the last whole epoch, and the place behind it. */
static int scan(struct journal *j, struct err *e)
{
    struct place at = j->slot.tail;
    uint64_t passed = 0, kept = 0;
    struct record r;
    bool whole;
    int found;

    j->committed = j->slot.applied;
    j->committed_wall_ms = j->slot.wall_ms;
    j->decided = at;
    pieces_begin(&j->incoming, j->committed + 1);
    while ((found = record_next(j, &at, &r, &passed, e)) > 0) {
        if ((j->c.last && j->committed >= j->c.last) ||
            !scan_record(j, &r, &whole))
            break;
        if (!whole)
            continue;
        j->decided = at;
        j->committed++;
        kept = passed;
        pieces_begin(&j->incoming, j->committed + 1);
    }
    if (found < 0)
        return -1;
    j->head = j->decided;
    j->free = j->c.log_bytes - JOURNAL_START - kept;
    pieces_begin(&j->incoming, j->committed + 1);
    return 0;
}

int journal_scan(struct journal *j, struct err *e)
{
    if (j->slot.tail.offset < JOURNAL_START ||
        j->slot.tail.offset > j->c.log_bytes || j->slot.tail.offset % SECTOR)
        return err_set(e, "%s: its tail is outside of it", j->c.log->name);
    if (scan(j, e))
        return -1;
    if (j->slot.applying > j->committed)
        return err_set(e,
                       "epoch %lu was being applied, and is damaged in %s: "
                       "the image is not a whole epoch any more",
                       j->slot.applying, j->c.log->name);
    return 0;
}

int journal_recover(struct journal *j, struct err *e)
{
    bool done = false;
    uint64_t applied = j->slot.applied;

    if (journal_scan(j, e))
        return -1;
    while (!done)
        if (journal_apply(j, &done, e))
            return -1;
    if (applied != j->committed)
        log_info("journal=%s recovered epochs %lu to %lu", j->c.log->name,
                 applied + 1, j->committed);
    return 0;
}
