// SPDX-License-Identifier: Apache-2.0
/* The primary's agent in the simulator: the engine, the session, and what the
 * lease decides. See sim.h. */
#include "tests/sim/sim.h"

#include <string.h>

static struct guest *guest(struct world *w)
{
    return &w->guest[ALDER];
}

static uint64_t clock_now(struct world *w)
{
    return host_clock(w, ALDER);
}

static void hang_up(struct world *w)
{
    w->a.session = 0;
    w->a.open = w->a.discarding = false;
    w->a.in_flight = 0;
    w->a.connect_at = w->now + T / 10 + rnd(w, T / 5);
    /* No commit was sent: no replica can exist. */
    if (w->a.lease.state == LEASE_FREE && guest(w)->there)
        guest_unplug(w, ALDER);
}

static void send(struct world *w, enum msg_kind kind, struct msg *m)
{
    m->session = w->a.session;
    m->generation = w->a.lease.generation;
    m->incarnation = w->a.incarnation;
    record(w, ALDER_AGENT, kind, m);
}

/* --- The lease ------------------------------------------------------------ */

static void release(struct world *w)
{
    w->a.replica_known = false;
    hang_up(w);
    guest_run(w, guest(w));
    w->stats->alone++;
}

static void act(struct world *w, enum lease_action action)
{
    struct disk *d = &w->disk[ALDER];
    struct lease *l = &w->a.lease;

    if (action == LEASE_DO_ASK) {
        lease_send(w, ALDER_AGENT, l, d);
        return;
    }
    /* Decided is written down before it is done. */
    if (action == LEASE_DO_NOTHING && unwritten(w))
        return;
    d->generation = l->generation;
    d->claim =
        l->request.op == LEASE_OP_CLAIM && l->sent ? l->request.nonce : 0;
    d->won = l->state == LEASE_RETURNING;
    d->yielded = l->state == LEASE_YIELDED;
    d->fenced = l->state == LEASE_FENCED;
    if (action == LEASE_DO_NOTHING || moment(w, ALDER_AGENT))
        return;
    trace(w, "alder: %s, generation %llu, action %d",
          lease_state_name(l->state), (unsigned long long)l->generation,
          action);
    if (action == LEASE_DO_RELEASE) {
        release(w);
    } else if (action == LEASE_DO_PAUSE) {
        guest_pause(w, guest(w));
        hang_up(w);
    } else if (action == LEASE_DO_FENCE) {
        guest_pause(w, guest(w));
        guest(w)->dropped = true;
        w->stats->fenced++;
        hang_up(w);
    } else if (action == LEASE_DO_DISCARD) {
        lease_event(l, LEASE_EV_DISCARDED, clock_now(w));
    }
}

static void tell(struct world *w, enum lease_event ev)
{
    act(w, lease_event(&w->a.lease, ev, clock_now(w)));
}

static void answered(struct world *w, const struct msg *m)
{
    struct lease_record r;
    uint64_t before = w->a.lease.generation;

    if (!record_of(m, &r))
        return;
    enum lease_action action = lease_answer(&w->a.lease, &r, clock_now(w));
    if (w->a.lease.generation != before)
        hang_up(w);
    act(w, action);
}

/* --- Epochs --------------------------------------------------------------- */

static void epoch_send(struct world *w)
{
    struct alder *a = &w->a;
    struct msg m = {.epoch = a->in_flight};

    for (m.piece = 0; m.piece < PIECES; m.piece++) {
        m.steps = guest(w)->marked;
        /* From here on there may be a replica. */
        if (m.piece == PIECES - 1 && a->lease.state == LEASE_FREE) {
            tell(w, LEASE_EV_COMMIT);
            if (!w->proc[ALDER_AGENT].up || !a->open)
                return;
        }
        send(w, M_PIECE, &m);
        if (moment(w, ALDER_AGENT))
            return;
    }
}

/* The plug is closed while the guest stands still. */
static void epoch_take(struct world *w)
{
    struct alder *a = &w->a;
    struct guest *g = guest(w);

    if (!a->open || a->discarding || a->in_flight || !g->there || g->paused)
        return;
    if (!g->plugged)
        guest_release(w, ALDER, guest_steps(w, g));
    g->plugged = true;
    g->marked = guest_steps(w, g);
    w->judge.taken = g->marked;
    if (!a->replica_known)
        a->incarnation++;
    a->in_flight = ++a->epoch;
    w->stats->epochs++;
    epoch_send(w);
}

static void acked(struct world *w, uint64_t epoch)
{
    struct alder *a = &w->a;

    if (!a->in_flight || epoch != a->in_flight)
        return;
    a->acked = epoch;
    a->in_flight = 0;
    a->replica_known = true;
    guest_release(w, ALDER, guest(w)->marked);
    tell(w, LEASE_EV_COMMIT);
}

/* --- The session ---------------------------------------------------------- */

static void connect(struct world *w)
{
    struct alder *a = &w->a;
    bool may = a->lease.state == LEASE_FREE ||
               a->lease.state == LEASE_GUARDED ||
               a->lease.state == LEASE_ASKING;
    struct msg m = {0};

    if (a->session || w->now < a->connect_at || !may || !guest(w)->there)
        return;
    a->session = ++w->sessions;
    a->heard = w->now;
    w->fifo[ALDER_AGENT] = w->fifo[BIRCH_AGENT] = w->now;
    m.epoch = a->acked;
    send(w, M_CONNECT, &m);
}

static void discard(struct world *w)
{
    struct msg m = {0};

    w->a.discarding = true;
    w->a.replica_known = false;
    send(w, M_DISCARD, &m);
    moment(w, ALDER_AGENT);
}

static void on_hello(struct world *w, const struct msg *m)
{
    struct alder *a = &w->a;

    if (m->generation > a->lease.generation)
        tell(w, LEASE_EV_UNSURE);
    if (m->generation != a->lease.generation) {
        hang_up(w);
        return;
    }
    bool same = m->flag && a->replica_known &&
                m->incarnation == a->incarnation &&
                (m->epoch == a->acked || m->epoch == a->epoch);
    a->open = true;
    if (!m->flag) {
        a->replica_known = false;
        tell(w, LEASE_EV_DISCARDED);
    } else if (same) {
        a->in_flight = m->epoch != a->acked ? m->epoch : 0;
        acked(w, m->epoch);
    } else {
        discard(w);
    }
}

static void tick(struct world *w)
{
    struct alder *a = &w->a;
    struct msg m = {0};

    after(w, T / 20, ALDER_AGENT, M_TICK, NULL);
    if (a->session && w->now - a->heard > T)
        hang_up(w);
    if (++a->ticks % 80 == 0 && a->lease.state == LEASE_GUARDED)
        tell(w, LEASE_EV_UNSURE);
    act(w, lease_tick(&a->lease, clock_now(w)));
    if (!w->proc[ALDER_AGENT].up)
        return;
    if (!guest(w)->plugged && guest(w)->there)
        guest_release(w, ALDER, guest_steps(w, guest(w)));
    connect(w);
    if (a->open)
        send(w, M_ABEAT, &m);
}

void alder_boot(struct world *w)
{
    struct alder *a = &w->a;
    struct disk *d = &w->disk[ALDER];
    uint64_t incarnation = a->incarnation, epoch = a->epoch;
    bool there = guest(w)->there;

    memset(a, 0, sizeof *a);
    a->incarnation = incarnation; /* random in life: never one again */
    a->epoch = epoch;
    lease_init(&a->lease,
               d->won  ? LEASE_RETURNING
               : there ? LEASE_FREE
                       : LEASE_EMPTY,
               d->generation, T, clock_now(w));
    lease_use_arbiter(&a->lease, (uint64_t)rnd(w, 1u << 31) << 20 | 1);
    if (d->fenced)
        a->lease.state = LEASE_FENCED;
    else if (d->yielded && there)
        a->lease.state = LEASE_YIELDED;
    else if (d->claim && !d->won)
        lease_resume_claim(&a->lease, d->claim);
    else if (there && guest(w)->plugged)
        lease_event(&a->lease, LEASE_EV_COMMIT, clock_now(w));
    if (d->fenced || d->yielded)
        guest_pause(w, guest(w));
    after(w, T / 100, ALDER_AGENT, M_TICK, NULL);
    after(w, T / 20, ALDER_AGENT, M_EPOCH_DUE, NULL);
}

void alder_event(struct world *w, const struct event *ev)
{
    struct alder *a = &w->a;
    bool session = ev->kind >= M_CONNECT && ev->kind <= M_DISCARDED;

    if (session && ev->m.session != a->session)
        return;
    if (session) {
        a->heard = w->now;
        lease_heard_agent(&a->lease, clock_now(w));
    }
    switch (ev->kind) {
    case M_BOOT:
        alder_boot(w);
        break;
    case M_TICK:
        tick(w);
        break;
    case M_EPOCH_DUE:
        after(w, T / 40 + rnd(w, T / 20), ALDER_AGENT, M_EPOCH_DUE, NULL);
        epoch_take(w);
        break;
    case M_HEARD:
        lease_heard_daemon(&a->lease, ev->m.steps);
        break;
    case M_HELLO:
        on_hello(w, &ev->m);
        break;
    case M_ACK:
        acked(w, ev->m.epoch);
        break;
    case M_DISCARDED:
        if (a->discarding)
            tell(w, LEASE_EV_DISCARDED);
        a->discarding = false;
        break;
    case M_ANSWER:
        answered(w, &ev->m);
        break;
    default:
        break;
    }
}
