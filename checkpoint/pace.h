// SPDX-License-Identifier: Apache-2.0
/* When the next epoch is taken. Pure: times come from the caller, all of them
 * CLOCK_MONOTONIC nanoseconds. Owned by the engine's thread.
 *
 * A guest that sends nothing needs no more than an epoch every interval. What
 * it sends waits for one, so then the interval shrinks, as far as the guest is
 * not stopped for more than its share of the time: a pause of 2 ms at 10 % is
 * taken every 20 ms. A share that allows no more than one pause an interval
 * does not make the interval longer. */
#ifndef CHECKPOINT_PACE_H
#define CHECKPOINT_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
    unsigned interval_ms;  /* the longest, 1 to 60000 */
    unsigned shortest_ms;  /* the shortest, also between a pause and a next */
    unsigned stop_percent; /* share of time that the guest may be stopped */
    uint64_t captured_ns, resumed_ns; /* the last pause: begin and end */
    uint64_t pause_ns;                /* typical */
    unsigned skips;                   /* epochs given up, one after the other */
    bool late;                        /* the guest may suspend at any time */
};

struct pace_due {
    uint64_t hurry_ns;   /* when a device or the agent asks for an epoch */
    uint64_t waiting_ns; /* when output waits */
    uint64_t idle_ns;    /* otherwise; hurry <= waiting <= idle */
};

/* The guest was stopped. */
void pace_paused(struct pace *p, uint64_t captured_ns, uint64_t resumed_ns);
/* An epoch was given up, just now. */
void pace_skipped(struct pace *p, uint64_t now_ns);
/* The same, but the guest has the request still: the next try is due at once,
 * because a guest that suspends now has to be resumed. */
void pace_late(struct pace *p, uint64_t now_ns);
struct pace_due pace_due(const struct pace *p);

#endif
