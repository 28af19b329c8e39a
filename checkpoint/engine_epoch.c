// SPDX-License-Identifier: Apache-2.0
/* One epoch of the engine: wait for the interval, capture, encode and send,
 * wait for the acknowledgement, commit. Engine thread.
 *
 * `sent` remembers which pages the backup may or may not have got since the
 * last acknowledged epoch. When the records of an epoch turn out to be void,
 * these pages are dirty again. */
#include "checkpoint/engine_private.h"
#include "checkpoint/harvest.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"

#include <string.h>

#define POLL_MIN_MS       5
#define EPOCH_SLACK_PAGES 8192
#define FULL_TRIES        8 /* captures of one epoch that did not fit */

void engine_epoch_begin(struct engine *eng)
{
    memset(&eng->at, 0, sizeof eng->at);
    memset(&eng->stats, 0, sizeof eng->stats);
    eng->at.epoch = eng->committed + 1;
    eng->epoch_open = true;
    encoder_begin(eng->encoder, eng->at.epoch, false);
    epoch_hash_reset(eng->hash);
}

enum turn engine_record_send(struct engine *eng, enum epoch_record type,
                             const void *p, size_t len)
{
    const struct engine_sink *sink = &eng->config.sink;
    struct err error = ERR_INIT;

    while (sink->send(sink->arg, eng->session, type, p, len, &error)) {
        if (error.kind != ERR_TIMEOUT) {
            log_info("dom=%s epoch=%lu not sent: %s", eng->config.name,
                     eng->at.epoch, error.text);
            return TURN_LOST;
        }
        enum turn turn = engine_check(eng);
        if (turn != TURN_ON)
            return turn;
    }
    pthread_mutex_lock(&eng->lock);
    eng->status.bytes_sent += len;
    pthread_mutex_unlock(&eng->lock);
    return engine_check(eng);
}

void engine_record_account(struct engine *eng, const void *p, size_t len)
{
    epoch_hash_add(eng->hash, p, len);
    eng->at.bytes += len;
}

/* What was put together here. */
static enum turn own_send(struct engine *eng, enum epoch_record type)
{
    return engine_record_send(eng, type, eng->record.data, eng->record.len);
}

static void own_account(struct engine *eng)
{
    engine_record_account(eng, eng->record.data, eng->record.len);
}

/* What was sent in an epoch can't be taken back, and the backup holds one
 * epoch of about the guest's size. */
static enum turn backup_has_room(struct engine *eng)
{
    uint64_t pages = eng->at.pages + eng->capture.staging.count;
    struct err error = ERR_INIT;

    if (pages <= eng->map.ram_pages + EPOCH_SLACK_PAGES)
        return TURN_ON;
    err_set(&error, "the guest writes memory faster than it can be sent");
    err_hint(&error, "give it a faster link or a lower load");
    return engine_over(eng, ENGINE_VOID, &error);
}

enum turn engine_send_pages(struct engine *eng, bool live)
{
    const struct staging *s = &eng->capture.staging;
    enum turn turn = live ? TURN_ON : backup_has_room(eng);

    if (turn != TURN_ON)
        return turn;
    for (size_t i = 0; !live && i < s->count; i++)
        bitmap_set(eng->sent, s->gfns[i]);
    for (size_t i = 0, n; i < s->count && turn == TURN_ON; i += n) {
        n = encoder_chunk(eng->encoder, s->gfns + i, s->pages + i * HV_PAGE,
                          s->count - i, &eng->record);
        if (!live) {
            own_account(eng);
            eng->at.chunks++;
            eng->at.pages += n;
        }
        turn = own_send(eng, EPOCH_PAGES);
    }
    return turn;
}

static enum turn commit_send(struct engine *eng)
{
    eng->at.digest = epoch_hash_value(eng->hash);
    buf_clear(&eng->record);
    epoch_commit_put(&eng->record, &eng->at);
    /* Before it is out: the answer may be faster than our next line. */
    pthread_mutex_lock(&eng->lock);
    eng->commit_sent = eng->at.epoch;
    pthread_mutex_unlock(&eng->lock);
    eng->commit_ns = clock_ns();
    return own_send(eng, EPOCH_COMMIT);
}

static enum turn epoch_send(struct engine *eng)
{
    const struct buf *state = &eng->capture.staging.state;
    uint64_t start = clock_ns();
    enum turn turn = engine_send_pages(eng, false);

    fault_point("engine.before_records");
    if (turn == TURN_ON)
        turn = engine_devices_records(eng);
    if (turn != TURN_ON)
        return turn;
    buf_clear(&eng->record);
    epoch_state_put(&eng->record, eng->at.epoch, state->data, state->len);
    own_account(eng);
    turn = own_send(eng, EPOCH_STATE);
    fault_point("engine.before_commit");
    if (turn == TURN_ON)
        turn = commit_send(eng);
    log_debug("dom=%s epoch=%lu sent", eng->config.name, eng->at.epoch);
    eng->stats.send_us = (uint32_t)((clock_ns() - start) / 1000);
    eng->stats.bytes = eng->at.bytes;
    return turn;
}

/* Output stays held and the guest runs, however long it takes (I1, I4). */
static enum turn ack_wait(struct engine *eng)
{
    for (;;) {
        pthread_mutex_lock(&eng->lock);
        bool acked = eng->in.acked >= eng->at.epoch;
        enum turn turn = acked ? TURN_ON : engine_look(eng);
        if (!acked && turn == TURN_ON)
            engine_wait(eng, clock_ns() + ENGINE_POLL_NS);
        pthread_mutex_unlock(&eng->lock);
        if (acked || turn != TURN_ON)
            return turn;
        turn = engine_check(eng);
        if (turn == TURN_OVER)
            return turn;
    }
}

static void committed_note(struct engine *eng, bool first)
{
    struct engine_event ev = {.type = first ? ENGINE_SYNCED : ENGINE_EPOCH};

    eng->stats.epoch = eng->at.epoch;
    eng->stats.at_ns = clock_ns();
    eng->stats.ack_us = (uint32_t)((eng->stats.at_ns - eng->commit_ns) / 1000);
    pthread_mutex_lock(&eng->lock);
    eng->committed = eng->at.epoch;
    eng->commit_sent = 0;
    eng->status.committed_ns = eng->stats.at_ns;
    eng->status.epochs++;
    eng->status.syncing = false;
    engine_ring_add(eng, &eng->stats);
    pthread_mutex_unlock(&eng->lock);
    ev.epoch = eng->at.epoch;
    ev.stats = eng->stats;
    engine_emit(eng, &ev);
}

enum turn engine_epoch_commit(struct engine *eng)
{
    bool first = eng->committed == 0;
    struct err error = ERR_INIT;

    fault_point("engine.acked");
    pthread_mutex_lock(&eng->lock);
    uint64_t kept = eng->in.kept;
    pthread_mutex_unlock(&eng->lock);
    for (size_t i = 0; i < eng->devices_ready; i++) {
        struct checkpoint_device *d = eng->config.devices[i];
        if (d->ops->kept)
            d->ops->kept(d, kept);
        if (d->ops->commit(d, eng->at.epoch, &error)) {
            err_add(&error, "%s: commit of epoch %lu", d->ops->name,
                    eng->at.epoch);
            return engine_over(eng, ENGINE_FAILED, &error);
        }
    }
    encoder_commit(eng->encoder);
    memset(eng->sent, 0, eng->capture.words * sizeof *eng->sent);
    eng->epoch_open = false;
    committed_note(eng, first);
    return TURN_ON;
}

void engine_epoch_undo(struct engine *eng)
{
    for (size_t i = 0; i < eng->capture.words; i++)
        eng->capture.pending[i] |= eng->sent[i];
    memset(eng->sent, 0, eng->capture.words * sizeof *eng->sent);
    encoder_reset(eng->encoder);
    eng->epoch_open = false;
    pthread_mutex_lock(&eng->lock);
    eng->commit_sent = 0;
    pthread_mutex_unlock(&eng->lock);
}

static void skip_note(struct engine *eng, const struct err *error)
{
    struct engine_event ev = {
        .type = ENGINE_SKIPPED, .epoch = eng->at.epoch, .error = *error};

    pthread_mutex_lock(&eng->lock);
    eng->status.skipped++;
    pthread_mutex_unlock(&eng->lock);
    log_warn("dom=%s epoch=%lu skipped: %s", eng->config.name, eng->at.epoch,
             error->text);
    engine_emit(eng, &ev);
}

/* The guest was found shut down. Suspended by somebody else: wait for that
 * to end. */
static enum turn guest_down(struct engine *eng)
{
    struct err error = ERR_INIT;
    enum turn turn = engine_guest_check(eng);

    if (turn == TURN_ON) {
        err_set(&error, "the guest is suspended, but not by us");
        pace_skipped(&eng->pace, clock_ns());
        skip_note(eng, &error);
    }
    return turn;
}

/* More is dirty than staging holds: live rounds as a part of this epoch, and
 * again; whatever is sent now is overtaken by what the last capture sends. */
static enum turn epoch_capture(struct engine *eng, bool *taken)
{
    struct err error = ERR_INIT;

    for (int tries = 0; tries < FULL_TRIES; tries++) {
        engine_suspend_path(eng);
        uint64_t captured_ns = clock_ns();
        enum capture_result r =
            capture_take(&eng->capture, eng->at.epoch, &eng->stats, &error);
        switch (r) {
        case CAPTURE_TAKEN:
            pace_paused(&eng->pace, captured_ns, clock_ns());
            *taken = true;
            return TURN_ON;
        case CAPTURE_SKIPPED:
            pace_skipped(&eng->pace, clock_ns());
            skip_note(eng, &error);
            return TURN_ON;
        case CAPTURE_LATE:
            pace_late(&eng->pace, clock_ns());
            skip_note(eng, &error);
            return TURN_ON;
        case CAPTURE_DOWN:
            return guest_down(eng);
        case CAPTURE_VOID:
            return engine_over(eng, ENGINE_VOID, &error);
        case CAPTURE_STUCK:
            return engine_over(eng, ENGINE_FAILED, &error);
        case CAPTURE_FULL:
            break;
        }
        enum turn turn = engine_rounds(eng, false);
        if (turn != TURN_ON)
            return turn;
    }
    err_set(&error, "the guest writes memory faster than it can be sent");
    pace_skipped(&eng->pace, clock_ns());
    skip_note(eng, &error);
    return TURN_ON;
}

static enum turn layout_check(struct engine *eng)
{
    struct err error = ERR_INIT;

    if (eng->stale.kind)
        return engine_over(eng, ENGINE_VOID, &eng->stale);
    if (!eng->hv->ops->map_stale(eng->hv, eng->config.domid, &eng->map))
        return TURN_ON;
    enum turn turn = engine_guest_check(eng);
    if (turn != TURN_ON)
        return turn;
    err_set(&error, "the memory size of the guest changed");
    return engine_over(eng, ENGINE_VOID, &error);
}

enum turn engine_epoch_run(struct engine *eng, bool *taken)
{
    *taken = false;
    enum turn turn = layout_check(eng);
    if (turn != TURN_ON)
        return turn;
    if (!eng->epoch_open)
        engine_epoch_begin(eng);
    turn = epoch_capture(eng, taken);
    if (turn != TURN_ON || !*taken)
        return turn;
    /* The layout may have changed until the guest stood still. */
    turn = layout_check(eng);
    if (turn == TURN_ON)
        turn = epoch_send(eng);
    if (turn == TURN_ON)
        turn = ack_wait(eng);
    if (turn == TURN_ON)
        turn = engine_epoch_commit(eng);
    return turn;
}

/* Output that comes from now on is seen within half of what it waits anyway. */
static uint64_t look_again(const struct engine *eng, const struct pace_due *at,
                           uint64_t now, uint64_t due)
{
    uint64_t slice = (at->waiting_ns - eng->pace.captured_ns) / 2;

    if (slice < POLL_MIN_MS * NS_PER_MS)
        slice = POLL_MIN_MS * NS_PER_MS;
    return due < now + slice ? due : now + slice;
}

enum turn engine_interval(struct engine *eng)
{
    for (;;) {
        bool more;
        enum turn turn = engine_devices_idle(eng, &more);
        if (turn != TURN_ON)
            return turn;
        struct engine_wants wants = engine_poll(eng);
        struct pace_due at = pace_due(&eng->pace);
        pthread_mutex_lock(&eng->lock);
        turn = engine_look(eng);
        uint64_t due = at.idle_ns, now = clock_ns();
        if (wants.epoch || eng->in.kick)
            due = at.hurry_ns;
        else if (wants.output)
            due = at.waiting_ns;
        if (now >= due)
            eng->in.kick = false;
        else if (turn == TURN_ON && !more)
            engine_wait(eng, look_again(eng, &at, now, due));
        pthread_mutex_unlock(&eng->lock);
        if (turn != TURN_ON || now >= due)
            return turn;
    }
}
