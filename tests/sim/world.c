// SPDX-License-Identifier: Apache-2.0
/* The simulator's time, network, processes and hypervisor; see sim.h. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Chance, clocks, trace ------------------------------------------------ */

/* xorshift64*, Vigna 2016. */
uint32_t rnd(struct world *w, uint32_t below)
{
    w->rng ^= w->rng >> 12;
    w->rng ^= w->rng << 25;
    w->rng ^= w->rng >> 27;
    uint32_t r = (uint32_t)((w->rng * 0x2545f4914f6cdd1dull) >> 32);
    return (uint32_t)(((uint64_t)r * below) >> 32);
}

int host_of(int proc)
{
    static const int hosts[PROCS] = {ALDER, BIRCH, ALDER, BIRCH, WITNESS};

    return hosts[proc];
}

uint64_t host_clock(const struct world *w, int host)
{
    return w->clock0[host] + w->now +
           (uint64_t)((int64_t)(w->now / 10000) * w->drift[host]);
}

static void hash(struct world *w, uint64_t v)
{
    w->hash = (w->hash ^ v) * 0x100000001b3ull;
    w->hash ^= w->hash >> 29;
}

void trace(struct world *w, const char *fmt, ...)
{
    va_list ap;

    if (!w->trace)
        return;
    printf("%10.4f ", (double)w->now / (double)T);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

/* --- Events --------------------------------------------------------------- */

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->seq < b->seq);
}

static void heap_put(struct world *w, const struct event *ev)
{
    if (w->count == w->room) {
        w->room = w->room ? 2 * w->room : 256;
        w->heap = realloc(w->heap, w->room * sizeof *w->heap);
        if (!w->heap)
            abort();
    }
    unsigned i = w->count++;
    while (i && earlier(ev, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = *ev;
}

static struct event heap_take(struct world *w)
{
    struct event first = w->heap[0], last = w->heap[--w->count];
    unsigned i = 0;

    for (;;) {
        unsigned child = 2 * i + 1;
        if (child >= w->count)
            break;
        if (child + 1 < w->count &&
            earlier(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!earlier(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return first;
}

static void at(struct world *w, uint64_t when, int proc, int from,
               enum msg_kind kind, const struct msg *m)
{
    struct event ev = {.at = when,
                       .seq = w->seq++,
                       .kind = kind,
                       .proc = proc,
                       .from = from,
                       .boot = w->proc[proc].boot};

    if (m)
        ev.m = *m;
    heap_put(w, &ev);
}

void after(struct world *w, uint64_t ns, int proc, enum msg_kind kind,
           const struct msg *m)
{
    at(w, w->now + ns, proc, proc, kind, m);
}

/* --- Network -------------------------------------------------------------- */

static uint64_t delay(struct world *w)
{
    uint64_t ns = T / 5000 + rnd(w, T / 1000);

    if (w->slow && rnd(w, 8) == 0)
        ns += (uint64_t)rnd(w, w->slow) * (T / 1000);
    return ns;
}

void datagram(struct world *w, int from, int to, enum msg_kind kind,
              const struct msg *m)
{
    bool cut = w->cut[host_of(from)][host_of(to)];

    if (cut || rnd(w, 1000) < w->lossy)
        return;
    at(w, w->now + delay(w), to, from, kind, m);
    if (w->lossy && rnd(w, 10) == 0)
        at(w, w->now + delay(w) + rnd(w, 3) * T / 2, to, from, kind, m);
}

/* In order, or never: what is lost takes all that follows with it. */
void record(struct world *w, int from, enum msg_kind kind, struct msg *m)
{
    int to = from == ALDER_AGENT ? BIRCH_AGENT : ALDER_AGENT;
    uint64_t when = w->now + delay(w);

    if (!m->session || w->torn[to] == m->session)
        return;
    if (w->cut[host_of(from)][host_of(to)] || rnd(w, 5000) < w->lossy) {
        w->torn[to] = m->session;
        return;
    }
    if (when < w->fifo[to])
        when = w->fifo[to];
    w->fifo[to] = when;
    at(w, when, to, from, kind, m);
}

/* --- Processes and hosts -------------------------------------------------- */

void proc_kill(struct world *w, int proc)
{
    if (!w->proc[proc].up)
        return;
    trace(w, "process %d dies", proc);
    w->proc[proc].up = false;
    w->proc[proc].boot++;
    w->proc[proc].stalled = 0;
    if (w->host_up[host_of(proc)])
        after(w, T / 20 + rnd(w, T / 2), proc, M_BOOT, NULL);
}

void host_kill(struct world *w, int host)
{
    if (!w->host_up[host])
        return;
    trace(w, "host %d dies", host);
    if (host != WITNESS && w->guest[host].there && !w->guest[host].plugged)
        judge_output(w, host, guest_steps(w, &w->guest[host]));
    w->host_up[host] = false;
    if (rnd(w, 2))
        w->unsent = w->sessions; /* what its sockets held goes with it */
    for (int i = 0; i < PROCS; i++) {
        if (host_of(i) == host) {
            w->proc[i].up = false;
            w->proc[i].boot++;
            w->proc[i].stalled = 0;
        }
    }
    if (host != WITNESS)
        memset(&w->guest[host], 0, sizeof w->guest[host]);
    if (host == BIRCH)
        w->shell = false;
}

void host_boot(struct world *w, int host)
{
    if (w->host_up[host])
        return;
    trace(w, "host %d boots", host);
    w->host_up[host] = true;
    for (int i = 0; i < PROCS; i++) {
        if (host_of(i) == host) {
            w->proc[i].boot++;
            after(w, T / 20 + rnd(w, T / 2), i, M_BOOT, NULL);
        }
    }
}

bool moment(struct world *w, int proc)
{
    if (w->calm || !w->crash_odds || rnd(w, w->crash_odds))
        return false;
    if (rnd(w, 3)) {
        proc_kill(w, proc);
    } else {
        host_kill(w, host_of(proc));
    }
    return true;
}

/* --- The witness ---------------------------------------------------------- */

static int witness_save(void *arg, const struct buf *state, struct err *e)
{
    struct world *w = arg;

    (void)e;
    if (moment(w, WITNESS_PROC))
        return -1;
    buf_clear(&w->witness_disk);
    buf_put(&w->witness_disk, state->data, state->len);
    return moment(w, WITNESS_PROC) ? -1 : 0;
}

static void witness_boot(struct world *w)
{
    witness_free(&w->witness);
    memset(&w->witness, 0, sizeof w->witness);
    if (w->witness_disk.len && witness_get(&w->witness, w->witness_disk.data,
                                           w->witness_disk.len, NULL))
        complain(w, "the witness can't read its own state");
    w->witness.save = witness_save;
    w->witness.arg = w;
}

static void host_pin(int host, uint8_t pin[WITNESS_PIN])
{
    memset(pin, host + 1, WITNESS_PIN);
}

static void witness_event(struct world *w, const struct event *ev)
{
    uint8_t pin[WITNESS_PIN];
    struct msg m = {0};
    struct err e = ERR_INIT;

    if (ev->kind == M_BOOT)
        witness_boot(w);
    if (ev->kind != M_ASK)
        return;
    host_pin(host_of(ev->from), pin);
    m.ask = ev->m.ask;
    if (witness_ask(&w->witness, pin, &ev->m.ask, &m.answer, &e))
        return;
    trace(w, "witness: host %d asks %u from %llu, it is %llu%s%s",
          host_of(ev->from), ev->m.ask.op,
          (unsigned long long)ev->m.ask.generation,
          (unsigned long long)m.answer.generation,
          m.answer.mine ? ", its own" : "",
          m.answer.running ? ", running" : "");
    datagram(w, WITNESS_PROC, ev->from, M_ANSWER, &m);
}

bool unwritten(struct world *w)
{
    return w->slow_disk && rnd(w, 4);
}

bool record_of(const struct msg *m, struct lease_record *r)
{
    r->asked = m->ask.nonce;
    r->generation = m->answer.generation;
    r->mine = m->answer.mine;
    r->running = m->answer.running;
    return m->answer.status == WITNESS_RECORD;
}

bool lease_send(struct world *w, int proc, struct lease *l, struct disk *d)
{
    static const uint32_t ops[] = {
        [LEASE_OP_CLAIM] = WITNESS_CLAIM,
        [LEASE_OP_RUNNING] = WITNESS_RUNNING,
        [LEASE_OP_RETURN] = WITNESS_RETURN,
        [LEASE_OP_QUERY] = WITNESS_QUERY,
    };
    struct msg m = {0};

    if (w->cut[host_of(proc)][WITNESS] || !w->host_up[WITNESS])
        return true; /* no connection: it is not sent */
    if (l->request.op == LEASE_OP_CLAIM) {
        d->claim = l->request.nonce;
        d->generation = l->request.generation;
        if (moment(w, proc))
            return false;
    }
    lease_sent(l);
    m.ask.op = ops[l->request.op];
    m.ask.generation = l->request.generation;
    m.ask.nonce = l->request.nonce;
    datagram(w, proc, WITNESS_PROC, M_ASK, &m);
    return !moment(w, proc);
}

/* --- Daemons -------------------------------------------------------------- */

static void daemon_event(struct world *w, const struct event *ev)
{
    int host = host_of(ev->proc);
    int peer = host == ALDER ? BIRCH_DAEMON : ALDER_DAEMON;
    int agent = host == ALDER ? ALDER_AGENT : BIRCH_AGENT;
    struct msg m = {0};

    if (ev->kind == M_BOOT || ev->kind == M_TICK) {
        /* A host that is there without the guest is no reason to wait. */
        m.flag = host != ALDER || w->guest[ALDER].there;
        datagram(w, ev->proc, peer, M_BEAT, &m);
        after(w, T / 5, ev->proc, M_TICK, NULL);
    } else if (ev->kind == M_BEAT && ev->m.flag) {
        m.steps = host_clock(w, host);
        at(w, w->now + T / 10000, agent, ev->proc, M_HEARD, &m);
    }
}

/* --- The hypervisor ------------------------------------------------------- */

uint64_t guest_steps(const struct world *w, const struct guest *g)
{
    if (!g->there || g->paused)
        return g->steps;
    return g->steps + (w->now - g->since) / STEP;
}

void guest_pause(struct world *w, struct guest *g)
{
    g->steps = guest_steps(w, g);
    g->paused = true;
}

void guest_run(struct world *w, struct guest *g)
{
    if (g->there && g->paused)
        g->since = w->now;
    g->paused = false;
}

void guest_release(struct world *w, int host, uint64_t steps)
{
    struct guest *g = &w->guest[host];

    if (!g->there || g->dropped || steps <= g->out)
        return;
    g->out = steps;
    judge_output(w, host, steps);
}

void guest_unplug(struct world *w, int host)
{
    struct guest *g = &w->guest[host];

    guest_release(w, host, guest_steps(w, g));
    g->plugged = false;
}

/* --- Running -------------------------------------------------------------- */

void world_deliver(struct world *w, const struct event *ev)
{
    switch (ev->proc) {
    case ALDER_AGENT:
        alder_event(w, ev);
        break;
    case BIRCH_AGENT:
        birch_event(w, ev);
        break;
    case WITNESS_PROC:
        witness_event(w, ev);
        break;
    default:
        daemon_event(w, ev);
    }
}

bool world_step(struct world *w)
{
    if (!w->count)
        return false;
    struct event ev = heap_take(w);
    struct proc *p = &w->proc[ev.proc];

    w->now = ev.at;
    w->stats->events++;
    hash(w, ev.at * PROCS + (uint64_t)ev.proc);
    hash(w, (uint64_t)ev.kind << 32 ^ ev.m.epoch ^ ev.m.generation << 8);
    if (ev.kind == M_FAULT) {
        fault_strike(w);
    } else if (ev.kind == M_BOOT && ev.boot == p->boot && !p->up) {
        p->up = true;
        world_deliver(w, &ev);
    } else if (ev.m.session && ev.m.session <= w->unsent) {
        trace(w, "lost in a socket");
    } else if (ev.boot == p->boot && p->up && w->now < p->stalled) {
        ev.at = p->stalled; /* it waits in a socket */
        ev.seq = w->seq++;
        heap_put(w, &ev);
    } else if (ev.boot == p->boot && p->up) {
        world_deliver(w, &ev);
    }
    judge_always(w);
    return !w->judge.complaint[0];
}

void world_free(struct world *w)
{
    free(w->heap);
    witness_free(&w->witness);
    buf_free(&w->witness_disk);
}
