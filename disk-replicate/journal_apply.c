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

    if (log->ops->read(log, at->offset, j->record_read, SECTOR, e))
        return -1;
    if (!record_get(j->record_read, r) || r->salt != j->slot.salt ||
        r->number != at->number)
        return 0;
    uint64_t size = record_size(r->length);
    if (size > j->c.log_bytes - at->offset)
        return 0;
    if (size > SECTOR &&
        log->ops->read(log, at->offset + SECTOR, j->record_read + SECTOR,
                       (size_t)size - SECTOR, e))
        return -1;
    r->payload = j->record_read + RECORD_HEAD;
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
static int mark_io(struct journal *j, struct err *e)
{
    if (log_sync_io(j, e))
        return -1;
    j->next = j->slot;
    j->next.serial++;
    j->next.applying = j->target;
    if (slot_write(j, &j->next, e) || log_sync_io(j, e))
        return -1;
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

static int record_io(struct journal *j, struct err *e)
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
    j->last = r.epoch == j->target;
    return 0;
}

static int sync_io(struct journal *j, struct err *e)
{
    fault_point("journal.written");
    if (j->c.image->ops->sync(j->c.image, e))
        return -1;
    j->next = j->slot;
    j->next.serial++;
    j->next.applied = j->target;
    j->next.wall_ms = j->target_wall_ms;
    j->next.tail = j->at;
    return slot_write(j, &j->next, e);
}

/* What was released has its slot written, before a sync that begins now. */
bool journal_step_begin(struct journal *j)
{
    if (j->broken)
        return false;
    if (j->apply != APPLY_IDLE)
        return true;
    if (j->committed > j->slot.applied) {
        j->apply = APPLY_MARK;
        j->target = j->committed;
        j->target_wall_ms = j->committed_wall_ms;
    } else if (j->released) {
        j->apply = APPLY_RELEASE;
    } else {
        return false;
    }
    j->releasing = j->released;
    j->released = 0;
    return true;
}

int journal_step_io(struct journal *j, struct err *e)
{
    switch (j->apply) {
    case APPLY_MARK:
        return mark_io(j, e);
    case APPLY_RECORDS:
        return record_io(j, e);
    case APPLY_SYNC:
        return sync_io(j, e);
    default:
        return log_sync_io(j, e);
    }
}

static void released_free(struct journal *j)
{
    j->free += j->releasing;
    j->releasing = 0;
}

static void step_take(struct journal *j)
{
    switch (j->apply) {
    case APPLY_MARK:
        released_free(j);
        j->slot = j->next;
        j->at = j->slot.tail;
        j->passed = 0;
        j->last = false;
        j->apply = APPLY_RECORDS;
        return;
    case APPLY_RECORDS:
        if (j->last)
            j->apply = APPLY_SYNC;
        return;
    case APPLY_SYNC:
        j->slot = j->next;
        j->released += j->passed;
        j->apply = APPLY_IDLE;
        return;
    default:
        released_free(j);
        j->apply = APPLY_IDLE;
    }
}

int journal_step_end(struct journal *j, int io, struct err *e)
{
    if (!io && j->broken)
        err_set(e, "the journal has failed meanwhile");
    if (!io && !j->broken) {
        step_take(j);
        return 0;
    }
    err_add(e, "apply epoch %lu", j->target);
    return journal_broken(j);
}

int journal_apply(struct journal *j, bool *done, struct err *e)
{
    *done = false;
    if (j->broken)
        return err_set(e, "the journal has failed before");
    *done = !journal_step_begin(j);
    return *done ? 0 : journal_step_end(j, journal_step_io(j, e), e);
}

/* --- Recovery ------------------------------------------------------------- */

/* Take the record into the epoch that is being looked at; false: it doesn't
 * belong there, the journal ends before it. */
static bool scan_record(struct journal *j, const struct record *r, bool *whole)
{
    struct commit c;

    *whole = false;
    if (r->epoch != j->incoming.epoch)
        return false;
    if (r->kind == RECORD_DATA)
        return !pieces_add(&j->incoming, r, j->c.image_bytes / SECTOR, NULL);
    if (r->kind != RECORD_COMMIT || !commit_get(r, &c) ||
        !pieces_are(&j->incoming, &c))
        return false;
    *whole = true;
    j->coming = c.coming;
    j->before_wall_ms = j->committed_wall_ms;
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
    j->coming = 0;
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
