// SPDX-License-Identifier: Apache-2.0
/* The apply thread of the replica, and the takeover.
 *
 * The thread takes live pages, disk writes as they come, and complete epochs in
 * turn. An epoch is committed under the lock, in one store, only when the one
 * before is applied and no takeover has begun; then it is acknowledged; then
 * written into the shell. So the shell plus `committed` is always one whole
 * epoch (I2), and every acknowledged one will be applied, since it was checked
 * on arrival. */
#include "checkpoint/replica_private.h"
#include "checkpoint/harvest.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/thread.h"

#include <string.h>

/* An epoch's disk writes are handed over again so often, if who takes them
 * dies. */
#define DISK_TRIES 3

static void chunk_apply(struct replica *rep, const struct chunk *c)
{
    const uint8_t *data = c->data;

    for (uint32_t i = 0; i < c->count; i++) {
        uint64_t gfn = chunk_gfn(c, i);
        enum codec_kind kind = chunk_kind(c, i);
        const uint8_t *page = data;
        if (kind == CODEC_RAW)
            data += HV_PAGE;
        if (gfn >= rep->map.end_gfn || !bitmap_test(rep->map.ram, gfn))
            continue;
        uint8_t *to = rep->map.base + gfn * HV_PAGE;
        if (kind == CODEC_RAW)
            memcpy(to, page, HV_PAGE);
        else if (kind == CODEC_ZERO)
            memset(to, 0, HV_PAGE);
    }
}

static void held_apply(struct replica *rep, struct held *h)
{
    for (const struct chunk *c = h->first; c; c = c->next)
        chunk_apply(rep, c);
}

/* The lock is not held. */
static int disk_give(struct replica *rep, const struct disk_record *r,
                     struct err *e)
{
    struct replica_device *d = rep->config.disks;
    struct buf answer = {0};
    int rc = d->ops->record(d, r->payload, r->len, &answer, e);

    if (!rc && answer.len)
        rep->config.answer(rep->config.ack_arg, answer.data, answer.len);
    buf_free(&answer);
    return rc;
}

static int disks_give(struct replica *rep, const struct disk_records *all,
                      struct err *e)
{
    for (const struct disk_record *r = all->first; r; r = r->next)
        if (disk_give(rep, r, e))
            return -1;
    return 0;
}

/* The lock is not held. Nothing is committed from now on. */
static void disks_failed(struct replica *rep, struct err *e)
{
    pthread_mutex_lock(&rep->lock);
    bool told = rep->failed;
    rep->failed = true;
    pthread_mutex_unlock(&rep->lock);
    err_add(e, "the replica's disks");
    log_error("dom=%s %s", rep->config.name, e->text);
    if (!told && rep->config.failed)
        rep->config.failed(rep->config.ack_arg, e);
}

/* The lock is held, and given up in between. */
static void live_apply(struct replica *rep)
{
    struct held live = rep->live;
    struct disk_records disk = rep->live_disk;
    struct err e = ERR_INIT;

    memset(&rep->live, 0, sizeof rep->live);
    rep->live_disk = (struct disk_records){0};
    pthread_mutex_unlock(&rep->lock);
    held_apply(rep, &live);
    if (disks_give(rep, &disk, &e))
        disks_failed(rep, &e);
    held_clear(&live);
    disk_records_free(&disk);
    pthread_mutex_lock(&rep->lock);
}

/* The lock is not held. What was handed of an epoch that is forgotten is taken
 * back. */
static void handed_begin(struct replica *rep, uint64_t coming)
{
    struct replica_device *d = rep->config.disks;

    if (coming == rep->handed.coming)
        return;
    disk_records_free(&rep->handed.records);
    rep->handed.coming = coming;
    err_clear(&rep->handed.why);
    d->ops->drop(d);
}

/* The lock is held, and given up in between. One record that has arrived of the
 * epoch that is coming goes to its disk, and is kept for a successor. One at a
 * time: a takeover does not wait for what it has no use for. */
static void arrived_hand(struct replica *rep)
{
    struct disk_record *r = disk_records_take(&rep->arriving);
    uint64_t coming = rep->coming;

    pthread_mutex_unlock(&rep->lock);
    handed_begin(rep, coming);
    if (!rep->handed.why.kind)
        (void)disk_give(rep, r, &rep->handed.why);
    disk_records_add(&rep->handed.records, r);
    pthread_mutex_lock(&rep->lock);
}

/* Before an epoch is committed: its disk writes, which were handed over, are in
 * the journals of all disks. The lock is not held. */
static bool disks_prepare(struct replica *rep, uint64_t epoch, uint64_t coming)
{
    struct replica_device *d = rep->config.disks;

    handed_begin(rep, coming);
    struct err e = rep->handed.why;
    for (int again = 0;; again++) {
        if (!e.kind && !d->ops->prepare(d, epoch, coming, &rep->disks_kept, &e))
            return true;
        /* Before the first one there is nothing to go on with. */
        if (e.kind != ERR_GONE || epoch == 1 || again == DISK_TRIES ||
            d->ops->again(d, epoch - 1, &e))
            break;
        err_clear(&e);
        (void)disks_give(rep, &rep->handed.records, &e);
    }
    disks_failed(rep, &e);
    return false;
}

/* The lock is not held. It is committed all the same: its writes are in the
 * journals, and who is lost now has a successor before the next epoch. */
static void disks_decide(struct replica *rep)
{
    struct replica_device *d = rep->config.disks;
    struct err e = ERR_INIT;

    if (d && d->ops->decide(d, &e) && e.kind != ERR_GONE)
        disks_failed(rep, &e);
}

/* The lock is held, and given up in between. From `committed = ...` on the
 * epoch is the replica. */
static void epoch_apply(struct replica *rep)
{
    uint64_t epoch = rep->complete.epoch, applied = rep->status.applied;

    rep->committed = rep->complete;
    memset(&rep->complete, 0, sizeof rep->complete);
    rep->coming++;
    rep->status.committed = epoch;
    rep->status.committed_ns = clock_ns();
    pthread_mutex_unlock(&rep->lock);
    rep->config.ack(rep->config.ack_arg, epoch, applied, rep->disks_kept);
    fault_point("replica.after_ack");
    disks_decide(rep);
    fault_point("replica.applying");
    held_apply(rep, &rep->committed);
    buf_free(&rep->state);
    rep->state = rep->committed.state;
    rep->committed.state = (struct buf){0};
    held_clear(&rep->committed);
    fault_point("replica.applied");
    pthread_mutex_lock(&rep->lock);
    rep->status.applied = epoch;
}

/* Outside of the lock the complete epoch may be forgotten, and come again:
 * what was prepared is then of no use. The lock is held. */
static void complete_take(struct replica *rep)
{
    uint64_t epoch = rep->complete.epoch, coming = rep->coming;

    pthread_mutex_unlock(&rep->lock);
    bool good = !rep->config.disks || disks_prepare(rep, epoch, coming);
    disk_records_free(&rep->handed.records);
    if (good)
        fault_point("replica.before_ack");
    pthread_mutex_lock(&rep->lock);
    if (good && rep->coming == coming && !rep->closing)
        epoch_apply(rep);
}

static bool has_live(const struct replica *rep)
{
    return rep->live.first || rep->live_disk.first;
}

/* One piece of work; the lock is held. `busy` keeps takeover waiting. */
static void work_do(struct replica *rep)
{
    rep->busy = true;
    if (has_live(rep))
        live_apply(rep);
    else if (rep->arriving.first)
        arrived_hand(rep);
    else
        complete_take(rep);
    rep->busy = false;
    pthread_cond_broadcast(&rep->done);
}

static bool has_work(const struct replica *rep)
{
    return !rep->closing && !rep->failed &&
           (has_live(rep) || rep->complete.epoch || rep->arriving.first);
}

static void *apply_main(void *arg)
{
    struct replica *rep = arg;

    pthread_mutex_lock(&rep->lock);
    while (!rep->quit) {
        if (has_work(rep))
            work_do(rep);
        else
            pthread_cond_wait(&rep->work, &rep->lock);
    }
    pthread_mutex_unlock(&rep->lock);
    return NULL;
}

int replica_thread_start(struct replica *rep, struct err *e)
{
    return thread_start(&rep->thread, 0, apply_main, rep, "the apply thread",
                        e);
}

void replica_thread_stop(struct replica *rep)
{
    pthread_mutex_lock(&rep->lock);
    rep->quit = true;
    pthread_cond_signal(&rep->work);
    pthread_mutex_unlock(&rep->lock);
    pthread_join(rep->thread, NULL);
}

int replica_finish(struct replica *rep, const void **state, size_t *len,
                   struct err *e)
{
    pthread_mutex_lock(&rep->lock);
    rep->closing = true;
    while (rep->busy)
        pthread_cond_wait(&rep->done, &rep->lock);
    uint64_t committed = rep->status.committed;
    pthread_mutex_unlock(&rep->lock);
    replica_session_lost(rep);
    if (!committed)
        return err_kind(e, ERR_REFUSED, "no epoch was ever committed here");
    *state = rep->state.data;
    *len = rep->state.len;
    return 0;
}

int replica_takeover(struct replica *rep, struct err *e)
{
    struct replica_device *d = rep->config.disks;
    const void *state;
    size_t len;

    if (replica_finish(rep, &state, &len, e))
        return -1;
    uint64_t committed = replica_committed(rep);
    fault_point("replica.takeover");
    if (d && d->ops->promote(d, committed, e))
        return err_add(e, "the disks of epoch %lu", committed);
    if (rep->hv->ops->set_state(rep->hv, rep->config.domid, state, len, e))
        return err_add(e, "platform state of epoch %lu", committed);
    log_info("dom=%s epoch=%lu is what the replica runs from", rep->config.name,
             committed);
    return 0;
}
