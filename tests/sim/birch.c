// SPDX-License-Identifier: Apache-2.0
/* The backup's agent in the simulator: the replica, the session, and what the
 * lease decides. See sim.h. */
#include "tests/sim/sim.h"

#include <string.h>

static uint64_t clock_now(struct world *w)
{
    return host_clock(w, BIRCH);
}

static void hang_up(struct world *w)
{
    w->b.session = 0;
    w->b.in_pieces = 0;
}

static void send(struct world *w, enum msg_kind kind, struct msg *m)
{
    m->session = w->b.session;
    m->generation = w->b.lease.generation;
    record(w, BIRCH_AGENT, kind, m);
}

/* --- The lease ------------------------------------------------------------ */

static void replica_drop(struct world *w)
{
    w->b.committed = 0;
    w->b.in_pieces = 0;
}

static void takeover_begin(struct world *w)
{
    hang_up(w);
    w->b.starting = true;
    after(w, T / 50 + rnd(w, T / 5), BIRCH_AGENT, M_STARTED, NULL);
}

/* What is decided, as a successor has to find it. */
static void save(struct world *w)
{
    struct disk *d = &w->disk[BIRCH];
    const struct lease *l = &w->b.lease;

    d->generation = l->generation;
    d->claim =
        l->request.op == LEASE_OP_CLAIM && l->sent ? l->request.nonce : 0;
    d->won = l->state == LEASE_WON || l->state == LEASE_RETURNING;
}

static void act(struct world *w, enum lease_action action)
{
    struct lease *l = &w->b.lease;

    if (action == LEASE_DO_ASK) {
        lease_send(w, BIRCH_AGENT, l, &w->disk[BIRCH]);
        return;
    }
    if (action == LEASE_DO_NOTHING && unwritten(w))
        return;
    save(w);
    if (action == LEASE_DO_NOTHING || moment(w, BIRCH_AGENT))
        return;
    trace(w, "birch: %s, generation %llu, action %d",
          lease_state_name(l->state), (unsigned long long)l->generation,
          action);
    if (action == LEASE_DO_TAKEOVER) {
        takeover_begin(w);
    } else if (action == LEASE_DO_DISCARD) {
        replica_drop(w);
        lease_event(l, LEASE_EV_DISCARDED, clock_now(w));
        save(w);
    }
}

static void tell(struct world *w, enum lease_event ev)
{
    act(w, lease_event(&w->b.lease, ev, clock_now(w)));
}

static void answered(struct world *w, const struct msg *m)
{
    struct lease_record r;
    uint64_t before = w->b.lease.generation;
    enum lease_state was = w->b.lease.state;

    if (!record_of(m, &r))
        return;
    enum lease_action action = lease_answer(&w->b.lease, &r, clock_now(w));
    if (w->b.lease.generation != before)
        hang_up(w);
    w->stats->handed_back += was == LEASE_RETURNING && w->b.lease.state != was;
    w->stats->settled += was == LEASE_SETTLING && w->b.lease.state != was;
    act(w, action);
}

/* --- Taking over ---------------------------------------------------------- */

static void unpause(struct world *w)
{
    struct guest *g = &w->guest[BIRCH];

    judge_takeover(w, w->shell_memory);
    memset(g, 0, sizeof *g);
    g->there = true;
    g->steps = w->shell_memory[0];
    g->since = w->now;
    w->stats->takeovers++;
    trace(w, "birch runs the VM");
}

static void started(struct world *w)
{
    if (w->b.lease.state != LEASE_WON)
        return;
    w->b.starting = false;
    if (w->fails_to_start) {
        w->fails_to_start = false;
        replica_drop(w);
        tell(w, LEASE_EV_FAILED);
        return;
    }
    memcpy(w->shell_memory, w->b.memory, sizeof w->shell_memory);
    w->shell = true;
    w->disk[BIRCH].running = true;
    if (moment(w, BIRCH_AGENT))
        return;
    unpause(w);
    tell(w, LEASE_EV_STARTED);
}

/* --- Epochs --------------------------------------------------------------- */

static bool follows(const struct birch *b)
{
    return b->lease.state == LEASE_EMPTY || b->lease.state == LEASE_STANDBY;
}

static void commit(struct world *w, const struct msg *m)
{
    struct birch *b = &w->b;
    struct msg ack = {.epoch = m->epoch};

    memcpy(b->memory, b->in_memory, sizeof b->memory);
    b->incarnation = m->incarnation;
    b->committed = m->epoch;
    tell(w, LEASE_EV_COMMIT);
    if (!w->proc[BIRCH_AGENT].up)
        return;
    send(w, M_ACK, &ack);
}

static void on_piece(struct world *w, const struct msg *m)
{
    struct birch *b = &w->b;

    /* Alder learns from the next HELLO what is committed. */
    if (!follows(b)) {
        hang_up(w);
        return;
    }
    if (m->piece == 0) {
        b->in_epoch = m->epoch;
        b->in_pieces = 0;
    }
    if (m->piece != b->in_pieces || m->epoch != b->in_epoch) {
        hang_up(w);
        return;
    }
    b->in_memory[b->in_pieces++] = m->steps;
    if (b->in_pieces == PIECES)
        commit(w, m);
}

/* --- The session ---------------------------------------------------------- */

static void on_connect(struct world *w, const struct msg *m)
{
    struct birch *b = &w->b;
    struct msg hello = {0};

    hang_up(w);
    b->session = m->session;
    if (m->generation > b->lease.generation) {
        if (b->lease.state == LEASE_EMPTY) {
            b->lease.generation = m->generation;
            save(w);
        } else {
            tell(w, LEASE_EV_UNSURE);
        }
    }
    hello.flag = b->committed > 0;
    hello.epoch = b->committed;
    hello.incarnation = b->incarnation;
    send(w, M_HELLO, &hello);
    if (m->generation != b->lease.generation)
        hang_up(w);
}

static void on_discard(struct world *w)
{
    struct birch *b = &w->b;
    struct msg m = {0};

    if (!follows(b) && b->lease.state != LEASE_CLAIMING &&
        b->lease.state != LEASE_WAITING && b->lease.state != LEASE_SETTLING)
        return;
    replica_drop(w);
    tell(w, LEASE_EV_DISCARDED);
    if (w->proc[BIRCH_AGENT].up)
        send(w, M_DISCARDED, &m);
}

static void tick(struct world *w)
{
    struct birch *b = &w->b;
    struct msg m = {0};

    after(w, T / 20, BIRCH_AGENT, M_TICK, NULL);
    if (b->session && w->now - b->heard > T)
        hang_up(w);
    if (++b->ticks % 80 == 0 && b->lease.state == LEASE_STANDBY)
        tell(w, LEASE_EV_UNSURE);
    act(w, lease_tick(&b->lease, clock_now(w)));
    if (w->proc[BIRCH_AGENT].up && b->session)
        send(w, M_ABEAT, &m);
}

void birch_boot(struct world *w)
{
    struct birch *b = &w->b;
    struct disk *d = &w->disk[BIRCH];
    bool there = w->guest[BIRCH].there;

    memset(b, 0, sizeof *b);
    lease_init(&b->lease, d->won ? LEASE_RETURNING : LEASE_EMPTY, d->generation,
               T, clock_now(w));
    lease_use_arbiter(&b->lease, (uint64_t)rnd(w, 1u << 31) << 20 | 2);
    after(w, T / 100, BIRCH_AGENT, M_TICK, NULL);
    if (d->running && (there || w->shell)) {
        b->lease.state = LEASE_WON;
        if (!there)
            unpause(w);
        tell(w, LEASE_EV_STARTED);
    } else if (d->running) {
        b->lease.state = LEASE_LOST; /* it ran, and went with its host */
    } else if (!d->won && d->claim) {
        lease_resume_claim(&b->lease, d->claim);
    }
}

void birch_event(struct world *w, const struct event *ev)
{
    struct birch *b = &w->b;
    bool session = ev->kind > M_CONNECT && ev->kind <= M_DISCARDED;

    if (ev->kind == M_CONNECT && ev->m.session <= b->session)
        return;
    if (session && ev->m.session != b->session)
        return;
    if (session || ev->kind == M_CONNECT) {
        b->heard = w->now;
        lease_heard_agent(&b->lease, clock_now(w));
    }
    switch (ev->kind) {
    case M_BOOT:
        birch_boot(w);
        break;
    case M_TICK:
        tick(w);
        break;
    case M_STARTED:
        started(w);
        break;
    case M_HEARD:
        lease_heard_daemon(&b->lease, ev->m.steps);
        break;
    case M_CONNECT:
        on_connect(w, &ev->m);
        break;
    case M_PIECE:
        on_piece(w, &ev->m);
        break;
    case M_DISCARD:
        on_discard(w);
        break;
    case M_ANSWER:
        answered(w, &ev->m);
        break;
    default:
        break;
    }
}
