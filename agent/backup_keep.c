// SPDX-License-Identifier: Apache-2.0
/* The backup's agent with an arbiter: which sessions go on, and what a
 * successor starts from. Loop thread; see backup.h. */
#include "agent/backup.h"

#include <stdio.h>
#include <string.h>

#include "agent/cold.h"
#include "common/clock.h"

/* Won, and surely not run: the record says that it runs before it does. */
void backup_lease_begin(struct backup *b)
{
    struct agent *a = b->a;
    bool won =
        !strcmp(a->rec.lease, "won") || !strcmp(a->rec.lease, "returning");
    uint64_t claim = a->rec.claim;

    if (!a->arb)
        return;
    a->stood_by = !strcmp(a->rec.lease, "standby");
    agent_lease_begin(a, won ? LEASE_RETURNING : LEASE_EMPTY);
    if (won) {
        agent_event(a, "generation",
                    "a predecessor won generation %llu and lost the replica: "
                    "handing it back",
                    (unsigned long long)a->rec.generation);
    } else if (claim) {
        lease_resume_claim(&a->lease, claim);
        agent_event(a, "generation",
                    "a predecessor asked for generation %llu and did not say "
                    "what came of it: asking again",
                    (unsigned long long)a->rec.generation + 1);
    }
}

void backup_generation(struct agent *a)
{
    struct backup *b = a->priv;

    agent_session_drop(a);
    a->stood_by = false;
    if (b->rep)
        replica_session_lost(b->rep);
    b->idle_ns = clock_ns();
}

bool backup_follows(const struct backup *b)
{
    enum lease_state s = b->a->lease.state;

    return s == LEASE_EMPTY || s == LEASE_STANDBY;
}

/* It hears why, and tries again. */
static bool not_now(struct backup *b, const char *what)
{
    struct err e = ERR_INIT;

    err_kind(&e, ERR_GONE, "%s %s", b->a->rec.name, what);
    link_fail(b->a->session, &e);
    return false;
}

bool backup_generation_fits(struct backup *b, const struct wire_hello *h)
{
    struct agent *a = b->a;
    bool higher = h->generation > a->lease.generation;

    if (higher && a->lease.state == LEASE_EMPTY) {
        a->lease.generation = h->generation;
        agent_save_later(a);
        higher = false;
    }
    if (higher) {
        agent_lease_event(a, LEASE_EV_UNSURE);
        return not_now(b, "is of an older generation here: the arbiter is "
                          "asked");
    }
    /* It sees our number, and asks. */
    if (h->generation < a->lease.generation)
        return not_now(b, "is of a newer generation here");
    switch (a->lease.state) {
    case LEASE_EMPTY:
    case LEASE_STANDBY:
    case LEASE_CLAIMING: /* it may have something to discard */
    case LEASE_WAITING:
    case LEASE_SETTLING:
        return true;
    default:
        return not_now(b, "is being settled with the arbiter here");
    }
}

/* A replica that is kept, and neither follows nor may run. */
static void waits_say(struct backup *b, uint64_t now)
{
    struct agent *a = b->a;
    bool waits = a->lease.state == LEASE_WAITING;
    struct arbiter_health h;

    if (!waits && a->lease.state != LEASE_CLAIMING) {
        b->waits_ns = 0;
        return;
    }
    if (!b->waits_ns)
        b->waits_ns = now;
    if (a->state.now != VM_PROTECTED ||
        now - b->waits_ns < a->lease.timeout_ns / 2)
        return;
    a->arb->ops->health(a->arb, &h);
    if (waits)
        agent_state(a, VM_DEGRADED,
                    "%s has won generation %llu, and has not said yet that it "
                    "runs the VM: the replica is kept until it does",
                    a->rec.peer, (unsigned long long)a->lease.generation + 1);
    else
        agent_state(a, VM_DEGRADED,
                    "%s is silent, and the arbiter does not answer: nothing is "
                    "taken over before it does; %s",
                    a->rec.peer,
                    h.why.kind ? h.why.text : "it has not decided");
}

bool backup_greets(struct backup *b)
{
    struct agent *a = b->a;
    bool stood_by = a->stood_by;
    struct err e = ERR_INIT;

    if (backup_cold_claims(b)) {
        err_kind(&e, ERR_GONE, "%s is being started from its disks here",
                 a->rec.name);
        link_fail(a->session, &e);
        return false;
    }
    /* It hears that there is no replica: from then on it may run alone. */
    a->stood_by = false;
    return !stood_by || agent_save(a);
}

void backup_silence_say(struct backup *b, uint64_t now)
{
    struct agent *a = b->a;
    char offer[160] = "";

    if (b->told_silent || lease_silence(&a->lease, now) <= a->lease.timeout_ns)
        return;
    b->told_silent = true;
    if (cold_is(a->rec.uuid))
        snprintf(offer, sizeof offer,
                 "; `understudy takeover %s --from-disk` starts it without its "
                 "memory",
                 a->rec.name);
    agent_event(a, "silent",
                "%s is silent, and no whole epoch is here: nothing to take "
                "over with, nothing is started%s",
                a->rec.peer, offer);
}

void backup_keep_tick(struct backup *b, uint64_t now)
{
    struct agent *a = b->a;
    struct err e = ERR_INIT;

    if (!a->arb)
        return;
    waits_say(b, now);
    /* A claim that was taken back: what came meanwhile is acknowledged. */
    if (backup_follows(b) && b->rep &&
        __atomic_load_n(&b->ack_epoch, __ATOMIC_ACQUIRE) > b->ack_sent)
        ev_async_send(a->loop, &b->acked);
    if (!b->take_request || a->lease.state == LEASE_CLAIMING ||
        a->lease.state == LEASE_WON || backup_cold_waits(b))
        return;
    err_kind(&e, ERR_REFUSED, "the arbiter has given %s to %s", a->rec.name,
             a->rec.peer);
    err_hint(&e, "see `understudy status %s` on both hosts", a->rec.name);
    backup_taker_answer(b, &e);
    if (!b->cold)
        return;
    backup_cold_end(b);
    agent_lease_event(a, LEASE_EV_DISCARDED); /* there is nothing to keep */
}
