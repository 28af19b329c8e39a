// SPDX-License-Identifier: Apache-2.0
/* What goes wrong in a simulated run, and when; see sim.h. */
#include "tests/sim/sim.h"

static void cut(struct world *w, int from, int to, bool on)
{
    w->cut[from][to] = on;
    trace(w, "%s from %d to %d", on ? "cut" : "mended", from, to);
}

static void cut_some(struct world *w)
{
    int from = (int)rnd(w, HOSTS), to = (from + 1 + (int)rnd(w, 2)) % HOSTS;
    bool on = rnd(w, 5) < 3;

    cut(w, from, to, on);
    if (rnd(w, 3))
        cut(w, to, from, on);
}

static void mend(struct world *w)
{
    for (int from = 0; from < HOSTS; from++) {
        for (int to = 0; to < HOSTS; to++)
            w->cut[from][to] = false;
    }
    trace(w, "all mended");
}

/* Up to twice the timeout, most of them less than 0.8 of it. */
static void stall(struct world *w)
{
    bool longer = !w->only_stalls && rnd(w, 4) == 0;
    uint64_t ns = (uint64_t)rnd(w, longer ? 2000 : 800) * (T / 1000);
    int proc = (int)rnd(w, PROCS);
    bool host = rnd(w, 4) == 0;

    for (int i = 0; i < PROCS; i++) {
        if (i == proc || (host && host_of(i) == host_of(proc)))
            w->proc[i].stalled = w->now + ns;
    }
    w->stats->stalls++;
    trace(w, "process %d%s stalls for %.3f", proc, host ? " and its host" : "",
          (double)ns / (double)T);
}

void fault_strike(struct world *w)
{
    if (w->calm)
        return;
    switch (w->only_stalls ? 11 : rnd(w, 12)) {
    case 0:
    case 1:
    case 2:
        cut_some(w);
        break;
    case 3:
    case 4:
        mend(w);
        break;
    case 5:
        proc_kill(w, (int)rnd(w, PROCS));
        break;
    case 6:
        if (rnd(w, 3) == 0)
            host_kill(w, (int)rnd(w, HOSTS));
        break;
    case 7:
        host_boot(w, (int)rnd(w, HOSTS));
        break;
    case 8:
        w->lossy = rnd(w, 2) ? rnd(w, 300) : 0;
        break;
    case 9:
        w->slow_disk = rnd(w, 2);
        w->slow = rnd(w, 2) ? 1 + rnd(w, 700) : 0;
        break;
    case 10:
        w->fails_to_start = !w->fails_to_start;
        break;
    default:
        stall(w);
    }
    /* One stall at a time: two in a row are a longer one. */
    after(w,
          (w->only_stalls ? T + T / 4 : T / 50) +
              rnd(w, rnd(w, 3) ? T / 2 : 3 * T),
          WITNESS_PROC, M_FAULT, NULL);
}

/* A third of the runs see few faults, and many epochs. */
void faults_begin(struct world *w)
{
    w->crash_odds =
        rnd(w, 3) && !w->only_stalls ? 10 + rnd(w, rnd(w, 2) ? 100 : 4000) : 0;
    for (int i = 0; i < HOSTS; i++) {
        w->drift[i] = (int64_t)rnd(w, 201) - 100;
        w->clock0[i] = T + (uint64_t)rnd(w, 1000) * T;
    }
    after(w, 2 * T + rnd(w, rnd(w, 3) ? T : 20 * T), WITNESS_PROC, M_FAULT,
          NULL);
}

void faults_end(struct world *w)
{
    w->calm = true;
    w->lossy = w->slow = 0;
    w->slow_disk = w->fails_to_start = false;
    mend(w);
    for (int i = 0; i < PROCS; i++) {
        if (w->proc[i].stalled > w->now)
            w->proc[i].stalled = w->now;
    }
    trace(w, "calm");
    for (int i = 0; i < HOSTS; i++)
        host_boot(w, i);
}

void faults_lose(struct world *w)
{
    w->lost = (int)rnd(w, HOSTS + 2);
    if (w->lost >= HOSTS)
        w->lost = HOSTS;
    else
        host_kill(w, w->lost);
}
