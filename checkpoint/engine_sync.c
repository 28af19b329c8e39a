// SPDX-License-Identifier: Apache-2.0
/* The initial copy: everything in live rounds while the guest runs and its
 * output flows, then the first epoch. Live rounds also serve epochs that have
 * more dirty pages than staging holds. Engine thread. */
#include "checkpoint/engine_private.h"
#include "checkpoint/harvest.h"
#include "common/clock.h"
#include "common/log.h"

#include <string.h>

#define ROUNDS_MAX      5
#define PROGRESS_EVERY  (100 * NS_PER_MS)
#define ENOUGH_MIN      64  /* dirty pages that are always few enough */
#define ENOUGH_FRACTION 256 /* of the guest */

/* Disks as far as the last poll knows. */
void engine_sync_note(struct engine *eng, bool last)
{
    uint64_t now = clock_ns();
    struct engine_event ev = {.type = ENGINE_SYNC_PROGRESS};

    pthread_mutex_lock(&eng->lock);
    struct engine_status *st = &eng->status;
    ev.done = eng->sync_memory + st->load.copied_bytes;
    ev.total = eng->map.ram_pages * HV_PAGE + st->load.copy_bytes;
    st->sync_done = ev.done;
    st->sync_total = ev.total;
    uint64_t ms = (now - eng->sync_start_ns) / NS_PER_MS;
    st->sync_rate_bps = ev.done * 8 * 1000 / (ms ? ms : 1);
    pthread_mutex_unlock(&eng->lock);
    if (!last && now - eng->progress_ns < PROGRESS_EVERY)
        return;
    eng->progress_ns = now;
    engine_emit(eng, &ev);
}

/* All that is pending, once, front to end. */
static enum turn round_run(struct engine *eng, bool live, bool progress)
{
    eng->capture.from = 0;
    while (capture_batch(&eng->capture)) {
        enum turn turn = engine_send_pages(eng, live);
        if (turn == TURN_ON && live)
            turn = engine_devices_copy(eng, false);
        if (turn != TURN_ON)
            return turn;
        if (!progress)
            continue;
        eng->sync_memory += eng->capture.staging.count * HV_PAGE;
        engine_sync_note(eng, false);
    }
    if (progress)
        engine_sync_note(eng, true);
    return TURN_ON;
}

/* So few that the pause of the next capture is short. */
static uint64_t dirty_enough(const struct engine *eng)
{
    uint64_t few = eng->map.ram_pages / ENOUGH_FRACTION;

    if (few < ENOUGH_MIN)
        few = ENOUGH_MIN;
    if (few > eng->capture.staging.capacity / 2)
        few = eng->capture.staging.capacity / 2;
    return few;
}

enum turn engine_rounds(struct engine *eng, bool live)
{
    uint64_t dirty, before = UINT64_MAX;
    struct err error = ERR_INIT;

    for (int round = 0; round < ROUNDS_MAX; round++) {
        enum turn turn = round_run(eng, live, live && round == 0);
        if (turn != TURN_ON)
            return turn;
        if (capture_refresh(&eng->capture, &dirty, &error))
            return engine_over(eng, ENGINE_VOID, &error);
        if (dirty <= dirty_enough(eng) || dirty > before / 4 * 3)
            break;
        before = dirty;
    }
    return TURN_ON;
}

static void sync_begin(struct engine *eng)
{
    eng->sync_start_ns = clock_ns();
    eng->progress_ns = 0;
    eng->sync_memory = 0;
    eng->epoch_open = false;
    memset(eng->sent, 0, eng->capture.words * sizeof *eng->sent);
    encoder_reset(eng->encoder);
    encoder_begin(eng->encoder, 0, true);
    capture_all_dirty(&eng->capture);
    pthread_mutex_lock(&eng->lock);
    eng->status.syncing = true;
    pthread_mutex_unlock(&eng->lock);
    engine_sync_note(eng, true);
}

enum turn engine_sync(struct engine *eng)
{
    bool taken = false;

    sync_begin(eng);
    enum turn turn = engine_devices_copy(eng, true);
    if (turn == TURN_ON)
        turn = engine_rounds(eng, true);
    while (turn == TURN_ON && !taken) {
        turn = engine_epoch_run(eng, &taken);
        if (turn == TURN_ON && !taken)
            turn = engine_interval(eng);
    }
    if (turn == TURN_ON)
        log_info("dom=%s protected: %lu MiB in %llu ms", eng->config.name,
                 eng->map.ram_pages * HV_PAGE >> 20,
                 (clock_ns() - eng->sync_start_ns) / NS_PER_MS);
    return turn;
}
