// SPDX-License-Identifier: Apache-2.0
/* Receiving and deciding epochs of disk writes; see journal.h. Called by the
 * replica's block server under one lock, and by tests. */
#include "disk-replicate/journal_private.h"

#include <stdlib.h>
#include <string.h>

int journal_broken(struct journal *j)
{
    j->broken = true;
    return -1;
}

static int usable(const struct journal *j, struct err *e)
{
    if (j->broken)
        return err_set(e, "the journal has failed before");
    if (j->retired)
        return err_kind(e, ERR_REFUSED, "the journal is retired");
    return 0;
}

int slot_write(const struct journal *j, const struct slot *s, struct err *e)
{
    struct buf b = {0};

    slot_put(&b, s);
    int rc =
        j->c.log->ops->write(j->c.log, s->serial % 2 * 4096, b.data, b.len, e);
    buf_free(&b);
    return rc;
}

/* One at a time: an error is said to one of those who sync, and is of all. */
int log_sync_io(struct journal *j, struct err *e)
{
    pthread_mutex_lock(&j->syncing);
    int rc = j->sync_failed
                 ? err_set(e, "the journal could not be synced before")
                 : j->c.log->ops->sync(j->c.log, e);
    j->sync_failed |= rc != 0;
    pthread_mutex_unlock(&j->syncing);
    return rc;
}

/* What was released becomes free. */
static int log_sync(struct journal *j, struct err *e)
{
    if (log_sync_io(j, e))
        return journal_broken(j);
    j->free += j->released;
    j->released = 0;
    return 0;
}

/* --- Appending ------------------------------------------------------------ */

/* Bytes that a record takes at the head, with the pad before it. */
static uint64_t record_cost(const struct journal *j, uint64_t size)
{
    uint64_t to_end = j->c.log_bytes - j->head.offset;

    return size > to_end ? size + to_end : size;
}

static struct record record_of(enum record_kind kind, const void *payload,
                               size_t len)
{
    return (struct record){.kind = kind,
                           .length = (uint32_t)len,
                           .payload = payload,
                           .sum = XXH3_64bits(payload, len)};
}

static int record_write(struct journal *j, struct record r, uint64_t takes,
                        struct err *e)
{
    r.salt = j->slot.salt;
    r.number = j->head.number;
    r.epoch = j->incoming.epoch;
    size_t size = journal_record_put(j->record, &r);

    if (j->c.log->ops->write(j->c.log, j->head.offset, j->record, size, e)) {
        err_add(e, "journal");
        return journal_broken(j);
    }
    j->head.offset += takes;
    j->head.number++;
    j->free -= takes;
    j->undecided += takes;
    return 0;
}

/* There is room. */
static int append(struct journal *j, const struct record *r, struct err *e)
{
    uint64_t size = record_size(r->length);
    uint64_t to_end = j->c.log_bytes - j->head.offset;
    struct record pad = record_of(RECORD_PAD, NULL, 0);

    if (size > to_end) {
        if (to_end && record_write(j, pad, to_end, e))
            return -1;
        j->head.offset = JOURNAL_START;
    }
    return record_write(j, *r, size, e);
}

/* A commit record always has its place kept: it is as small as a pad, so it
 * fits where anything fits. */
enum journal_room journal_room(const struct journal *j, size_t payload_bytes)
{
    if (payload_bytes > EXTENTS_BYTES_MAX)
        return JOURNAL_NEVER;
    uint64_t cost = record_cost(j, record_size((uint32_t)payload_bytes));
    if (cost + SECTOR <= j->free)
        return JOURNAL_FITS;
    if (j->released || j->releasing || j->committed > j->slot.applied)
        return JOURNAL_FULL;
    return JOURNAL_NEVER;
}

int journal_receive(struct journal *j, const void *payload, size_t len,
                    struct err *e)
{
    if (usable(j, e))
        return -1;
    if (j->prepared)
        return err_set(e, "disk writes, and epoch %lu is not decided",
                       j->committed + 1);
    if (journal_room(j, len) != JOURNAL_FITS)
        return err_kind(e, ERR_REFUSED, "no room in the journal");
    struct record r = record_of(RECORD_DATA, payload, len);
    if (pieces_add(&j->incoming, &r, j->c.image_bytes / SECTOR, e))
        return -1;
    return append(j, &r, e);
}

static int totals_check(const struct journal *j, const struct journal_totals *t,
                        struct err *e)
{
    const struct pieces *in = &j->incoming;

    if (j->prepared || t->epoch != j->committed + 1)
        return err_set(e, "disks of epoch %lu, expected %lu", t->epoch,
                       j->committed + 1);
    if (in->count != t->pieces || in->bytes != t->bytes)
        return err_set(e,
                       "disks of epoch %lu: %u pieces, %lu bytes came; "
                       "said were %u, %lu",
                       t->epoch, in->count, in->bytes, t->pieces, t->bytes);
    return 0;
}

int journal_prepare(struct journal *j, const struct journal_totals *t,
                    uint64_t wall_ms, bool durable, struct err *e)
{
    struct commit c = {t->pieces, t->bytes, j->incoming.digest, wall_ms,
                       t->coming};
    uint8_t payload[COMMIT_PAYLOAD];

    if (usable(j, e) || totals_check(j, t, e))
        return -1;
    if (j->free < SECTOR)
        return err_kind(e, ERR_REFUSED, "no room in the journal");
    commit_put(payload, &c);
    struct record r = record_of(RECORD_COMMIT, payload, sizeof payload);
    if (append(j, &r, e) || (durable && log_sync(j, e)))
        return -1;
    j->prepared = true;
    j->prepared_wall_ms = wall_ms;
    return 0;
}

int journal_secure(struct journal *j, struct err *e)
{
    return usable(j, e) ? -1 : log_sync(j, e);
}

void journal_decide(struct journal *j)
{
    if (!j->prepared)
        abort();
    j->prepared = false;
    j->committed++;
    j->committed_wall_ms = j->prepared_wall_ms;
    j->decided = j->head;
    j->undecided = 0;
    pieces_begin(&j->incoming, j->committed + 1);
}

void journal_drop(struct journal *j)
{
    j->prepared = false;
    j->head = j->decided;
    j->free += j->undecided;
    j->undecided = 0;
    pieces_begin(&j->incoming, j->committed + 1);
}

/* What was prepared and dropped may be whole behind the tail: another salt
 * makes it nothing. */
int journal_retire(struct journal *j, struct err *e)
{
    bool done = false;

    if (usable(j, e))
        return -1;
    journal_drop(j);
    while (!done)
        if (journal_apply(j, &done, e))
            return -1;
    j->slot.salt++;
    j->slot.tail = j->head;
    j->slot.serial++;
    if (slot_write(j, &j->slot, e))
        return journal_broken(j);
    if (log_sync(j, e))
        return -1;
    j->retired = true;
    return 0;
}

struct journal_status journal_status(const struct journal *j)
{
    uint64_t ring = j->c.log_bytes - JOURNAL_START, used = ring - j->free;

    return (struct journal_status){
        .applied = j->slot.applied,
        .committed = j->committed,
        .wall_ms = j->committed_wall_ms,
        .bytes = ring,
        .used = used,
        .behind = used - j->undecided - j->released - j->releasing,
        .prepared = j->prepared,
        .broken = j->broken,
    };
}

/* --- Life ----------------------------------------------------------------- */

static int config_check(const struct journal_config *c, struct err *e)
{
    if (c->log_bytes < JOURNAL_MIN || c->log_bytes % SECTOR ||
        !c->image_bytes || c->image_bytes % SECTOR)
        return err_kind(e, ERR_USAGE,
                        "a journal of %lu bytes for an image of %lu",
                        c->log_bytes, c->image_bytes);
    return 0;
}

int journal_format(const struct journal_config *c, uint64_t salt,
                   uint64_t epoch, uint64_t wall_ms, struct err *e)
{
    uint8_t none[SLOT_BYTES] = {0};
    struct journal j = {.c = *c};

    if (config_check(c, e))
        return -1;
    memcpy(j.slot.id, c->id, sizeof j.slot.id);
    j.slot.salt = salt;
    j.slot.log_bytes = c->log_bytes;
    j.slot.image_bytes = c->image_bytes;
    j.slot.applied = j.slot.applying = epoch;
    j.slot.wall_ms = wall_ms;
    j.slot.tail = (struct place){JOURNAL_START, 1};
    j.slot.serial = 1;
    /* Neither slot of an older journal may win, whenever the power goes. */
    if (c->log->ops->write(c->log, 0, none, sizeof none, e) ||
        c->log->ops->write(c->log, 4096, none, sizeof none, e) ||
        c->log->ops->sync(c->log, e) || slot_write(&j, &j.slot, e))
        return -1;
    return c->log->ops->sync(c->log, e);
}

static int slots_read(struct journal *j, struct err *e)
{
    uint8_t p[SLOT_BYTES];
    struct slot s;
    bool any = false;

    for (unsigned i = 0; i < 2; i++) {
        if (j->c.log->ops->read(j->c.log, i * 4096u, p, sizeof p, e))
            return -1;
        if (!slot_get(p, &s) || (any && s.serial < j->slot.serial))
            continue;
        j->slot = s;
        any = true;
    }
    if (!any)
        return err_kind(e, ERR_GONE, "there is no journal in %s",
                        j->c.log->name);
    if (memcmp(j->slot.id, j->c.id, sizeof j->c.id) != 0 ||
        j->slot.log_bytes != j->c.log_bytes)
        return err_kind(e, ERR_REFUSED, "%s is the journal of another image",
                        j->c.log->name);
    return 0;
}

static int image_is_it(const struct journal *j, struct err *e)
{
    return j->slot.image_bytes == j->c.image_bytes
               ? 0
               : err_kind(e, ERR_REFUSED, "%s is the journal of another image",
                          j->c.log->name);
}

/* Recursive for tests, which ask in the middle of a sync. */
static void syncing_init(struct journal *j)
{
    pthread_mutexattr_t attr;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&j->syncing, &attr);
    pthread_mutexattr_destroy(&attr);
}

static struct journal *journal_new(const struct journal_config *c,
                                   struct err *e)
{
    struct journal *j = calloc(1, sizeof *j);

    if (j) {
        j->c = *c;
        syncing_init(j);
        j->record = malloc(RECORD_BYTES);
        j->record_read = malloc(RECORD_BYTES);
    }
    if (j && j->record && j->record_read)
        return j;
    journal_close(j);
    err_set(e, "no memory for a journal");
    return NULL;
}

int journal_open(struct journal **out, const struct journal_config *c,
                 struct err *e)
{
    struct journal *j = config_check(c, e) ? NULL : journal_new(c, e);

    if (!j)
        return -1;
    if (slots_read(j, e) || image_is_it(j, e) || journal_recover(j, e)) {
        journal_close(j);
        return -1;
    }
    *out = j;
    return 0;
}

int journal_look(const struct journal_config *c, struct journal_found *found,
                 struct err *e)
{
    struct journal *j = journal_new(c, e);
    int rc = -1;

    if (!j)
        return -1;
    if (!slots_read(j, e)) {
        j->c.image_bytes = j->slot.image_bytes;
        rc = journal_scan(j, e);
    }
    if (!rc)
        *found = (struct journal_found){.least = j->slot.applying,
                                        .last = j->committed,
                                        .wall_ms = j->committed_wall_ms,
                                        .coming = j->coming,
                                        .before_ms = j->before_wall_ms};
    if (!rc && found->least < j->slot.applied)
        found->least = j->slot.applied;
    journal_close(j);
    return rc;
}

void journal_close(struct journal *j)
{
    if (!j)
        return;
    pthread_mutex_destroy(&j->syncing);
    free(j->record);
    free(j->record_read);
    free(j);
}
