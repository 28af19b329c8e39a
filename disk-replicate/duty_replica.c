// SPDX-License-Identifier: Apache-2.0
/* The duty of a backup's server; see duty.h. The control thread's, with the
 * lock of duty_apply.c held. */
#include "disk-replicate/duty_private.h"

#include <string.h>
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "disk-replicate/medium.h"

static int is_replica(const struct duty *d, struct err *e)
{
    if (d->mode != DUTY_REPLICA)
        return err_kind(e, ERR_REFUSED, "it is no replica's");
    return d->broken.kind ? err_set(e, "%s", d->broken.text) : 0;
}

static void journal_end(struct duty *d)
{
    journal_close(d->journal);
    d->journal = NULL;
}

static int begin_check(const struct duty *d, uint64_t bytes, struct err *e)
{
    if (d->mode == DUTY_LOG)
        return err_kind(e, ERR_REFUSED, "it is a protected VM's");
    if (d->image->read_only)
        return err_kind(e, ERR_REFUSED, "%s is read-only here", d->image->path);
    if (bytes != d->image->bytes) {
        err_kind(e, ERR_REFUSED, "%s has %lu bytes here, and %lu there",
                 d->image->path, d->image->bytes, bytes);
        return err_hint(e, "truncate -s %lu %s, on this host", bytes,
                        d->image->path);
    }
    return 0;
}

/* What is written here would be written there. */
static int medium_check(const struct duty *d, const uint8_t *theirs, size_t len,
                        struct err *e)
{
    char ours[MEDIUM_MAX];

    medium_name(d->image->path, ours);
    if (!ours[0] || strlen(ours) != len || memcmp(ours, theirs, len) != 0)
        return 0;
    err_kind(e, ERR_REFUSED, "%s is the primary's own disk: both are on %s",
             d->image->path, ours);
    return err_hint(e, "disks are copied, not shared: name an image of this "
                       "host's own as its target here");
}

/* A bitmap of another base says nothing of what comes now. */
static int base_find(struct duty *d, const uint8_t *theirs, const uint8_t *next,
                     struct err *e)
{
    static const uint8_t none[INTENT_ID];
    uint8_t ours[INTENT_ID];

    intent_duty_base(d, ours);
    d->same = memcmp(ours, none, sizeof ours) != 0 &&
              !memcmp(ours, theirs, sizeof ours);
    memcpy(d->next_base, d->same ? ours : next, sizeof d->next_base);
    return d->same ? 0 : intent_duty_remove(d, e);
}

/* The mark is there before the first byte is overwritten. */
int replica_duty_begin(struct duty *d, struct reader *r, struct err *e)
{
    uint64_t bytes = read_u64(r), salt;
    const uint8_t *base = read_bytes(r, INTENT_ID),
                  *next = read_bytes(r, INTENT_ID);
    struct journal_config c;

    if (r->bad || reader_left(r) >= MEDIUM_MAX)
        return err_set(e, "malformed DISK");
    if (begin_check(d, bytes, e) || medium_check(d, r->p, reader_left(r), e))
        return -1;
    if (getrandom(&salt, sizeof salt, 0) != sizeof salt)
        return err_sys(e, "random bytes");
    apply_duty_hold(d);
    journal_end(d);
    err_clear(&d->broken);
    __atomic_store_n(&d->page->copied, 0, __ATOMIC_RELAXED);
    duty_mode_set(d, DUTY_REPLICA);
    if (duty_mark_write(d, MARK_SYNCING, e))
        return -1;
    duty_exact_forget(d);
    if (base_find(d, base, next, e) || duty_journal_file(d, true, e))
        return -1;
    duty_journal_config(d, &c);
    if (journal_format(&c, salt, 0, clock_wall_ms(), e))
        return -1;
    return journal_open(&d->journal, &c, e);
}

int replica_duty_live(struct duty *d, const void *p, size_t len, struct err *e)
{
    struct store *image = &d->image->store;
    uint64_t next = 0;
    struct extents x;
    struct extent one;

    if (is_replica(d, e))
        return -1;
    if (d->mark != MARK_SYNCING)
        return err_set(e, "a piece of the initial copy, and it is over");
    if (extents_read(p, len, d->image->bytes / SECTOR, &next, &x, e))
        return -1;
    while (extents_next(&x, &one)) {
        uint64_t at = one.sector * SECTOR,
                 bytes = one.sectors * (uint64_t)SECTOR;
        if (one.kind == EXTENT_DATA
                ? image->ops->write(image, at, one.data, bytes, e)
                : image->ops->zero(image, at, bytes, e))
            return -1;
        /* Begin to write it, so that the sync at the end is a short one. */
        if (one.kind == EXTENT_DATA)
            (void)sync_file_range(image->fd, (off_t)at, (off_t)bytes,
                                  SYNC_FILE_RANGE_WRITE);
    }
    return 0;
}

int replica_duty_sync(struct duty *d, struct err *e)
{
    if (is_replica(d, e))
        return -1;
    return d->image->store.ops->sync(&d->image->store, e);
}

int replica_duty_piece(struct duty *d, const void *p, size_t len, struct err *e)
{
    bool done = false;

    if (is_replica(d, e))
        return -1;
    if (!d->journal)
        return err_set(e, "there is no journal");
    if (journal_room(d->journal, len) == JOURNAL_FULL)
        apply_duty_hold(d);
    while (journal_room(d->journal, len) == JOURNAL_FULL && !done)
        if (journal_apply(d->journal, &done, e))
            return -1;
    return journal_receive(d->journal, p, len, e);
}

/* The image, with the journal, is of use from now on, and nothing is in it that
 * the primary does not have; the bitmap says that before the mark does. Without
 * one, the next copy is a whole one. */
static int first_prepared(struct duty *d, struct err *e)
{
    struct err why = ERR_INIT;

    if (intent_duty_rebase(d, d->next_base, false, &why))
        log_warn("disk=%s no bitmap: %s", d->id, why.text);
    return duty_mark_write(d, MARK_WHOLE, e);
}

int replica_duty_prepare(struct duty *d, const struct journal_totals *t,
                         bool durable, struct buf *answer, struct err *e)
{
    struct store *image = &d->image->store;
    bool first = d->mark == MARK_SYNCING;

    apply_duty_pace(d);
    if (is_replica(d, e))
        return -1;
    if (!d->journal)
        return err_set(e, "there is no journal");
    if ((first && image->ops->sync(image, e)) ||
        journal_prepare(d->journal, t, clock_wall_ms(), first || durable, e) ||
        (first && first_prepared(d, e)))
        return -1;
    buf_u64(answer, journal_status(d->journal).applied);
    fault_point("duty.prepared");
    return 0;
}

int replica_duty_secure(struct duty *d, struct err *e)
{
    if (is_replica(d, e))
        return -1;
    fault_point("duty.secure");
    return d->journal ? journal_secure(d->journal, e)
                      : err_set(e, "there is no journal");
}

int replica_duty_decide(struct duty *d, struct err *e)
{
    if (is_replica(d, e))
        return -1;
    if (!d->journal || !journal_status(d->journal).prepared)
        return err_set(e, "nothing is prepared");
    journal_decide(d->journal);
    return 0;
}

void replica_duty_drop(struct duty *d)
{
    if (d->mode == DUTY_REPLICA && d->journal)
        journal_drop(d->journal);
}

/* What is prepared may have been decided, and we not told. */
void replica_duty_hangup(struct duty *d)
{
    if (d->journal && !journal_status(d->journal).prepared)
        replica_duty_drop(d);
}

/* A successor of the server that had the replica: what is whole in the journal,
 * up to `epoch`, is applied when it is opened. */
static int journal_again(struct duty *d, uint64_t epoch, struct err *e)
{
    struct journal_config c;

    if (d->mark != MARK_WHOLE)
        return err_kind(e, ERR_REFUSED, "%s was not copied to the end",
                        d->image->path);
    if (d->journal)
        return 0;
    if (duty_journal_file(d, false, e))
        return -1;
    duty_journal_config(d, &c);
    c.last = epoch;
    return journal_open(&d->journal, &c, e);
}

/* What is decided is `epoch`, from now on if it was prepared. */
static int journal_is_at(struct duty *d, uint64_t epoch, struct err *e)
{
    if (d->broken.kind)
        return err_set(e, "%s", d->broken.text);
    if (journal_again(d, epoch, e))
        return -1;
    struct journal_status s = journal_status(d->journal);
    if (s.prepared && epoch == s.committed + 1) {
        journal_decide(d->journal);
        s.committed++;
    }
    return s.committed == epoch
               ? 0
               : err_kind(e, ERR_REFUSED, "%s is of epoch %lu, not %lu",
                          d->image->path, s.committed, epoch);
}

/* The mark goes last: until then it is done again. `remember`: of which epoch
 * the image is, until somebody writes to it. */
static int plain_become(struct duty *d, bool remember, struct err *e)
{
    if (journal_retire(d->journal, e))
        return -1;
    struct journal_status s = journal_status(d->journal);
    if ((remember && duty_exact_write(d, s.applied, s.wall_ms, e)) ||
        duty_mark_write(d, MARK_NONE, e))
        return -1;
    journal_end(d);
    duty_journal_remove(d);
    duty_mode_set(d, DUTY_PLAIN);
    return 0;
}

static int promote(struct duty *d, uint64_t epoch, bool remember, struct err *e)
{
    if (d->mode == DUTY_LOG)
        return err_kind(e, ERR_REFUSED, "it is a protected VM's");
    apply_duty_hold(d);
    if (journal_is_at(d, epoch, e) || plain_become(d, remember, e))
        return -1;
    log_info("disk=%s epoch=%lu is what the image holds", d->id, epoch);
    return 0;
}

int replica_duty_promote(struct duty *d, uint64_t epoch, struct err *e)
{
    return d->mode == DUTY_PLAIN ? 0 : promote(d, epoch, false, e);
}

int replica_duty_start(struct duty *d, uint64_t epoch, struct err *e)
{
    struct duty_exact x;

    if (d->mode != DUTY_PLAIN)
        return promote(d, epoch, true, e);
    if (duty_exact_of(d->image->path, &x, e))
        return -1;
    return x.epoch == epoch
               ? 0
               : err_kind(e, ERR_REFUSED, "%s is of epoch %lu, not %lu",
                          d->image->path, x.epoch, epoch);
}

int replica_duty_again(struct duty *d, uint64_t epoch, struct err *e)
{
    if (d->mode != DUTY_REPLICA && d->mode != DUTY_HELD)
        return err_kind(e, ERR_REFUSED, "it is no replica's");
    apply_duty_hold(d);
    if (journal_is_at(d, epoch, e))
        return -1;
    journal_drop(d->journal);
    duty_mode_set(d, DUTY_REPLICA);
    return 0;
}

int replica_duty_settle(struct duty *d, struct err *e)
{
    apply_duty_wait(d);
    if (d->journal && journal_status(d->journal).broken && !d->broken.kind)
        return err_set(e, "its journal is broken");
    return d->broken.kind ? err_set(e, "%s", d->broken.text) : 0;
}

/* One that is whole becomes a plain image of its last epoch; any other stays
 * what its mark says. So does one with an epoch that nobody has decided: what
 * its other disks have of that has to be seen first. */
void replica_duty_end(struct duty *d, bool end)
{
    struct err e = ERR_INIT;

    if (end && d->mode == DUTY_REPLICA && d->journal && d->mark == MARK_WHOLE &&
        !journal_status(d->journal).prepared && plain_become(d, true, &e))
        log_error("disk=%s its last epoch: %s", d->id, e.text);
    journal_end(d);
    if (d->journal_file.fd >= 0)
        close(d->journal_file.fd);
    d->journal_file.fd = -1;
}
