// SPDX-License-Identifier: Apache-2.0
/* What must hold, from what the outside sees: packets, guests, and what the
 * witness has on disk. Knows nothing of leases. See sim.h. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void complain(struct world *w, const char *fmt, ...)
{
    char text[160];
    va_list ap;

    if (w->judge.complaint[0])
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(w->judge.complaint, sizeof w->judge.complaint, "at %.4f: %s",
             (double)w->now / (double)T, text);
    trace(w, "COMPLAINT %s", text);
}

/* I1, and the history after a takeover: what alder has let out is what birch
 * went on from. A late release of what birch has is the same packets. */
void judge_output(struct world *w, int host, uint64_t steps)
{
    struct judge *j = &w->judge;

    if (host != ALDER)
        return;
    if (j->forked && steps > j->fork_steps)
        complain(w, "alder lets out packet %llu, birch went on from %llu",
                 (unsigned long long)steps, (unsigned long long)j->fork_steps);
    if (steps > j->seen)
        j->seen = steps;
}

/* I2, and output commit seen from the other side. */
void judge_takeover(struct world *w, const uint64_t memory[PIECES])
{
    struct judge *j = &w->judge;

    if (w->guest[ALDER].there && !w->guest[ALDER].plugged &&
        !w->guest[ALDER].paused)
        judge_output(w, ALDER, guest_steps(w, &w->guest[ALDER]));
    for (int i = 1; i < PIECES; i++) {
        if (memory[i] != memory[0])
            complain(w, "birch starts a torn epoch");
    }
    if (j->seen > memory[0])
        complain(w, "birch goes on from packet %llu, %llu was seen outside",
                 (unsigned long long)memory[0], (unsigned long long)j->seen);
    j->forked = true;
    j->fork_steps = memory[0];
}

static bool flows(const struct guest *g)
{
    return g->there && !g->paused && !g->plugged;
}

/* I3. */
void judge_always(struct world *w)
{
    if (flows(&w->guest[ALDER]) && flows(&w->guest[BIRCH]))
        complain(w, "alder and birch both run it with their output released");
}

/* --- Progress ------------------------------------------------------------- */

static bool on_disk(const struct world *w, struct witness_record *out)
{
    struct witness disk = {0};

    if (witness_get(&disk, w->witness_disk.data, w->witness_disk.len, NULL) ||
        disk.count != 1)
        return false;
    *out = disk.list[0];
    witness_free(&disk);
    return true;
}

/* Two of alder, birch and the arbiter are up and connected. A side that keeps
 * still because it can't know better is no failure: a claim that is out while
 * the arbiter is lost, or a winner that is lost. */
bool judge_expects(struct world *w)
{
    struct witness_record r;
    bool guest = w->guest[ALDER].there && !w->guest[ALDER].dropped;
    bool replica = w->proc[BIRCH_AGENT].up && w->b.committed &&
                   w->b.memory[0] >= w->judge.seen;
    const struct disk *a = &w->disk[ALDER], *b = &w->disk[BIRCH];

    if (!on_disk(w, &r)) {
        complain(w, "the witness has lost its record");
        return false;
    }
    bool birch_won = r.holder == 1;
    /* It ran there, or may have, and went with its host. */
    if ((w->judge.forked || b->running) && !w->guest[BIRCH].there && !w->shell)
        return false;
    switch (w->lost) {
    case ALDER:
        return w->judge.forked ||
               (replica && (birch_won || r.generation == b->generation));
    case BIRCH:
        return guest && !birch_won;
    case WITNESS:
        return w->judge.forked ||
               (guest && !birch_won && !a->claim && !b->claim && !b->won &&
                a->generation == r.generation && b->generation <= r.generation);
    default:
        return guest || w->judge.forked || (replica && !a->claim);
    }
}

uint64_t judge_mark(const struct world *w)
{
    return w->guest[ALDER].out;
}

/* Alone is not enough when there is somebody to protect it. */
bool judge_runs(const struct world *w, uint64_t mark)
{
    const struct guest *a = &w->guest[ALDER];

    if (flows(&w->guest[BIRCH]) || (flows(a) && w->lost != HOSTS))
        return true;
    return a->there && !a->paused && a->plugged && a->out > mark;
}
