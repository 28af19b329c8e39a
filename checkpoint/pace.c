// SPDX-License-Identifier: Apache-2.0
/* When the next epoch is taken; see pace.h. Pure. */
#include "checkpoint/pace.h"
#include "common/clock.h"

#define BACKOFF_MAX_MS 5000

void pace_paused(struct pace *p, uint64_t captured_ns, uint64_t resumed_ns)
{
    uint64_t ns = resumed_ns - captured_ns;

    p->captured_ns = captured_ns;
    p->resumed_ns = resumed_ns;
    p->skips = 0;
    p->late = false;
    p->pause_ns = p->pause_ns ? (3 * p->pause_ns + ns) / 4 : ns;
}

void pace_skipped(struct pace *p, uint64_t now_ns)
{
    p->captured_ns = p->resumed_ns = now_ns;
    p->skips++;
    p->late = false;
}

void pace_late(struct pace *p, uint64_t now_ns)
{
    p->captured_ns = p->resumed_ns = now_ns;
    p->late = true;
}

static uint64_t at_least(uint64_t a, uint64_t b)
{
    return a < b ? b : a;
}

/* A guest that can't be stopped is asked less and less often. */
static struct pace_due backed_off(const struct pace *p)
{
    uint64_t ms = (uint64_t)p->interval_ms << (p->skips < 8 ? p->skips - 1 : 7);

    if (ms > BACKOFF_MAX_MS)
        ms = at_least(BACKOFF_MAX_MS, p->interval_ms);
    uint64_t at = p->resumed_ns + ms * NS_PER_MS;
    return (struct pace_due){at, at, at};
}

struct pace_due pace_due(const struct pace *p)
{
    uint64_t shortest = p->shortest_ms * NS_PER_MS;
    uint64_t longest = p->interval_ms * NS_PER_MS;
    uint64_t spacing = at_least(p->pause_ns * 100 / p->stop_percent, shortest);
    struct pace_due d;

    if (p->late)
        return (struct pace_due){p->resumed_ns, p->resumed_ns, p->resumed_ns};
    if (p->skips)
        return backed_off(p);
    if (spacing > longest)
        spacing = longest;
    /* A guest that suspends slowly runs at least as long as it was stopped. */
    d.hurry_ns = p->resumed_ns + at_least(p->pause_ns, shortest);
    d.waiting_ns = at_least(p->captured_ns + spacing, d.hurry_ns);
    d.idle_ns = at_least(p->captured_ns + longest, d.waiting_ns);
    return d;
}
