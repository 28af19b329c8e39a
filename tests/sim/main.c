// SPDX-License-Identifier: Apache-2.0
/* The simulator's program: `sim [--epochs N | --stalls N] [--trace] [SEED
 * [COUNT]]`. Runs seed after seed until COUNT were run, or N epochs were taken;
 * one in eight is run again and has to give the same trace. Exit status 1 with
 * the seed and what did not hold. --stalls: until N processes or hosts have
 * stood still; nothing else goes wrong, each is at most 0.8 of the timeout, and
 * nobody may take over. See sim.h. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    bool trace, stalls;
} options;

/* Alder's VM is registered, and runs without a replica. */
static void world_begin(struct world *w, uint64_t seed, struct stats *stats)
{
    struct witness_ask ask = {.op = WITNESS_REGISTER};
    struct witness_answer answer;
    uint8_t pin[WITNESS_PIN];

    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->rng = seed * 0x9e3779b97f4a7c15ull + 0x2545f491;
    w->lost = HOSTS;
    w->stats = stats;
    w->only_stalls = options.stalls;
    w->trace = options.trace;
    for (int i = 0; i < 8; i++)
        rnd(w, 2);
    memset(pin, ALDER + 1, sizeof pin);
    memset(ask.other, BIRCH + 1, sizeof ask.other);
    for (int i = 0; i < HOSTS; i++)
        host_boot(w, i);
    w->guest[ALDER].there = true;
    w->disk[ALDER].generation = w->disk[BIRCH].generation = 1;
    /* Its process boots later; this is what it finds. */
    struct event boot = {.kind = M_BOOT, .proc = WITNESS_PROC};
    world_deliver(w, &boot);
    if (witness_ask(&w->witness, pin, &ask, &answer, NULL))
        abort();
    faults_begin(w);
}

static bool run_until(struct world *w, uint64_t when)
{
    while (w->now < when) {
        if (!world_step(w))
            return false;
    }
    return true;
}

/* Nothing more goes wrong; in the end the VM runs, and when nobody is lost it
 * is protected again, unless there is a reason. */
static bool calm(struct world *w, uint64_t length)
{
    uint64_t end = w->now + length;
    bool expected = judge_expects(w);

    if (!run_until(w, end - 3 * T))
        return false;
    uint64_t mark = judge_mark(w);
    if (!run_until(w, end))
        return false;
    if (judge_runs(w, mark))
        return true;
    w->stats->without++;
    if (!expected || !judge_expects(w))
        return true;
    complain(w, "nobody runs the VM as it should be, with %d lost", w->lost);
    return false;
}

static void run(struct world *w)
{
    if (!run_until(w, 5 * T + (uint64_t)rnd(w, 30) * T))
        return;
    if (w->only_stalls) {
        if (w->judge.forked)
            complain(w, "birch took over because of a stall");
        return;
    }
    faults_end(w);
    if (rnd(w, 3) && !calm(w, 20 * T))
        return;
    faults_lose(w);
    calm(w, 20 * T);
}

static bool seed_run(uint64_t seed, struct stats *stats, uint64_t *hash)
{
    struct world *w = malloc(sizeof *w);

    if (!w)
        abort();
    world_begin(w, seed, stats);
    run(w);
    *hash = w->hash;
    stats->runs++;
    trace(w, "alder: %s, birch: %s", lease_state_name(w->a.lease.state),
          lease_state_name(w->b.lease.state));
    bool good = !w->judge.complaint[0];
    if (!good)
        printf("seed %llu: %s\n", (unsigned long long)seed, w->judge.complaint);
    world_free(w);
    free(w);
    return good;
}

static void report(const struct stats *s, uint64_t hash)
{
    const struct {
        const char *what;
        uint64_t n;
    } list[] = {
        {"epochs", s->epochs},
        {"runs", s->runs},
        {"events", s->events},
        {"stalls", s->stalls},
        {"takeovers", s->takeovers},
        {"times alone", s->alone},
        {"times fenced", s->fenced},
        {"generations handed back", s->handed_back},
        {"claims settled by a successor", s->settled},
        {"times nobody could run it, for a reason", s->without},
    };

    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        printf("%12llu %s\n", (unsigned long long)list[i].n, list[i].what);
    printf("trace %016llx\n", (unsigned long long)hash);
}

static bool replays(uint64_t seed, uint64_t hash)
{
    struct stats again = {0};
    uint64_t other;

    if (seed % 8)
        return true;
    seed_run(seed, &again, &other);
    if (other == hash)
        return true;
    printf("seed %llu: two traces, %016llx and %016llx\n",
           (unsigned long long)seed, (unsigned long long)hash,
           (unsigned long long)other);
    return false;
}

int main(int argc, char **argv)
{
    uint64_t epochs = 0, stalls = 0, seed = 1, count = 1, all = 0, hash;
    struct stats stats = {0};
    int i = 1;

    for (; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "--trace"))
            options.trace = true;
        else if (!strcmp(argv[i], "--stalls") && i + 1 < argc)
            stalls = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--epochs") && i + 1 < argc)
            epochs = strtoull(argv[++i], NULL, 10);
        else
            return fprintf(stderr, "sim: %s?\n", argv[i]), 2;
    }
    if (i < argc)
        seed = strtoull(argv[i++], NULL, 10);
    if (i < argc)
        count = strtoull(argv[i], NULL, 10);
    options.stalls = stalls;
    for (; stalls   ? stats.stalls < stalls
           : epochs ? stats.epochs < epochs
                    : count--;
         seed++) {
        if (!seed_run(seed, &stats, &hash) || !replays(seed, hash))
            return 1;
        all = (all ^ hash) * 0x100000001b3ull;
    }
    report(&stats, all);
    return 0;
}
