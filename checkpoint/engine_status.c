// SPDX-License-Identifier: Apache-2.0
/* Numbers of the engine: a ring of the last epochs, medians made on request
 * (any thread), and what the devices hold (engine thread). */
#include "checkpoint/engine_private.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdlib.h>
#include <string.h>

void engine_ring_add(struct engine *eng, const struct engine_epoch *s)
{
    eng->ring[eng->ring_next] = *s;
    eng->ring_next = (eng->ring_next + 1) % ENGINE_RING;
    if (eng->ring_count < ENGINE_RING)
        eng->ring_count++;
}

struct engine_wants engine_poll(struct engine *eng)
{
    struct device_load sum = {0};
    struct pace_due at = pace_due(&eng->pace);
    bool failed = false;

    eng->polled_ns = clock_ns();
    for (size_t i = 0; i < eng->devices_ready; i++) {
        struct checkpoint_device *d = eng->config.devices[i];
        struct device_load load = {0};
        struct err error = ERR_INIT;
        if (d->ops->poll(d, &load, &error)) {
            if (load.stale) {
                eng->stale = error;
                sum.want_epoch = true;
            } else if (!eng->poll_failed)
                log_warn("dom=%s %s: %s", eng->config.name, d->ops->name,
                         error.text);
            failed = true;
            continue;
        }
        sum.held_bytes += load.held_bytes;
        sum.held_packets += load.held_packets;
        sum.dropped_packets += load.dropped_packets;
        sum.want_epoch |= load.want_epoch;
        sum.copied_bytes += load.copied_bytes;
        sum.copy_bytes += load.copy_bytes;
        sum.backlog_bytes += load.backlog_bytes;
    }
    eng->poll_failed = failed;
    pthread_mutex_lock(&eng->lock);
    eng->status.load = sum;
    eng->status.interval_now_ms =
        (unsigned)((at.waiting_ns - eng->pace.captured_ns) / NS_PER_MS);
    pthread_mutex_unlock(&eng->lock);
    return (struct engine_wants){.epoch = sum.want_epoch,
                                 .output = sum.held_packets > 0};
}

static int u64_compare(const void *a, const void *b)
{
    uint64_t x, y;

    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static struct engine_stat stat_of(uint64_t *v, size_t n, uint64_t last)
{
    struct engine_stat s = {0};

    if (!n)
        return s;
    qsort(v, n, sizeof *v, u64_compare);
    s.median = v[n / 2];
    s.p99 = v[(n * 99) / 100];
    s.max = v[n - 1];
    s.last = last;
    return s;
}

#define STAT(field)                                                            \
    do {                                                                       \
        for (size_t i_ = 0; i_ < n; i_++)                                      \
            v[i_] = ring[i_].field;                                            \
        st->field = stat_of(v, n, n ? ring[last].field : 0);                   \
    } while (0)

static void stats_fill(struct engine_status *st,
                       const struct engine_epoch *ring, size_t n, size_t last)
{
    uint64_t v[ENGINE_RING];

    STAT(pause_us);
    STAT(suspend_us);
    STAT(copy_us);
    STAT(state_us);
    STAT(mark_us);
    STAT(resume_us);
    STAT(send_us);
    STAT(ack_us);
    STAT(dirty_pages);
    STAT(bytes);
}

void engine_status(struct engine *eng, struct engine_status *st)
{
    CLEANUP_FREE struct engine_epoch *ring = malloc(sizeof eng->ring);

    if (!ring)
        abort();
    /* Copy under the lock, sort without it: the engine takes it often. */
    pthread_mutex_lock(&eng->lock);
    *st = eng->status;
    st->committed = eng->committed;
    st->interval_ms = eng->config.interval_ms;
    memcpy(ring, eng->ring, sizeof eng->ring);
    size_t n = eng->ring_count;
    size_t last = (eng->ring_next + ENGINE_RING - 1) % ENGINE_RING;
    pthread_mutex_unlock(&eng->lock);
    stats_fill(st, ring, n, last);
}
