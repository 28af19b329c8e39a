// SPDX-License-Identifier: Apache-2.0
/* The primary's agent and what its lease decided; with an arbiter also when the
 * guest here keeps still, and when it may go on. Loop thread; see primary.h. */
#include "agent/primary.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "agent/paths.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"

/* Less than a guest needs to come as far as its network. */
#define FENCED_LOOK_S 0.1

/* --- The guest ----------------------------------------------------------- */

/* -1: it may be running. */
static int guest_stop(struct primary *p, struct err *e)
{
    struct agent *a = p->a;
    struct hv_domain d;

    if (a->rec.domid < 0)
        return 0;
    if (fault_point("primary.pause"))
        return err_set(e, "fault point primary.pause");
    if (a->hv->ops->info(a->hv, (uint32_t)a->rec.domid, &d, e))
        return e->kind == ERR_GONE ? 0 : -1;
    return d.paused ? 0 : a->hv->ops->pause(a->hv, d.domid, e);
}

void primary_pause(struct primary *p)
{
    struct err e = ERR_INIT;

    if (guest_stop(p, &e))
        log_error("dom=%s pause: %s", p->a->rec.name, e.text);
}

/* Only what we have paused. */
void primary_unpause(struct primary *p)
{
    struct agent *a = p->a;
    struct hv_domain d;
    struct err e = ERR_INIT;

    if (!a->rec.paused)
        return;
    if (!a->hv->ops->info(a->hv, (uint32_t)a->rec.domid, &d, &e) && d.paused &&
        a->hv->ops->unpause(a->hv, d.domid, &e)) {
        agent_give_up(a, &e);
        return;
    }
    a->rec.paused = false;
    agent_save(a);
}

/* --- At the start -------------------------------------------------------- */

/* Paused until it is known that nobody else runs it. */
static void hold_back(struct primary *p)
{
    struct agent *a = p->a;

    if (!a->rec.paused) {
        a->rec.paused = true;
        /* To keep still is right whether it can be written down or not. */
        if (agent_save(a))
            agent_event(a, "paused",
                        "%s was started here, and the arbiter may have given "
                        "it to %s: it is paused until the arbiter says that "
                        "it may run",
                        a->rec.name, a->rec.peer);
    }
    primary_pause(p);
}

void primary_here(struct primary *p)
{
    int fd = open(path_here(p->a->rec.uuid).s,
                  O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd >= 0)
        close(fd);
}

/* The host was booted since: nobody holds what the guest sends, and it may be
 * a guest that was started anew. */
static bool booted_since(const struct agent *a)
{
    return a->rec.stage == STAGE_ESTABLISHED &&
           access(path_here(a->rec.uuid).s, F_OK) != 0;
}

void primary_lease_begin(struct primary *p, bool there)
{
    struct agent *a = p->a;
    uint64_t claim = a->rec.claim;
    bool yielded = !strcmp(a->rec.lease, "yielded");
    bool returning = !strcmp(a->rec.lease, "returning");

    if (!a->arb)
        return;
    if (there && booted_since(a)) {
        there = false;
        hold_back(p);
    }
    agent_lease_begin(a, returning ? LEASE_RETURNING
                         : !there  ? LEASE_EMPTY
                         : yielded ? LEASE_YIELDED
                                   : LEASE_FREE);
    if (returning)
        return;
    if (there && !strcmp(a->rec.lease, "guarded"))
        lease_event(&a->lease, LEASE_EV_COMMIT, clock_ns());
    if (claim && !(there && yielded))
        lease_resume_claim(&a->lease, claim);
    if (claim)
        agent_event(a, "generation",
                    "a predecessor asked for generation %llu and did not say "
                    "what came of it: asking again",
                    (unsigned long long)a->rec.generation + 1);
}

bool primary_keeps_still(struct primary *p)
{
    struct agent *a = p->a;

    if (!a->arb)
        return false;
    bool asks =
        a->lease.state == LEASE_GUARDED || a->lease.state == LEASE_ASKING;
    if (a->lease.state == LEASE_YIELDED || (asks && a->rec.paused)) {
        a->rec.paused = true;
        primary_pause(p);
        if (a->state.now == VM_UNPROTECTED)
            agent_state(a, VM_SYNCING,
                        "paused, the arbiter is asked whether it may run");
        primary_phase(p, PH_YIELDED);
        return true;
    }
    /* Granted, and died before it did it. */
    if (a->lease.state == LEASE_FREE)
        primary_unpause(p);
    return false;
}

/* --- While it runs ------------------------------------------------------- */

static void yield(struct primary *p)
{
    struct agent *a = p->a;

    primary_pause(p);
    fault_point("primary.yielded");
    agent_session_drop(a);
    if (p->eng)
        engine_session_lost(p->eng);
    link_pipe_detach(p->pipe);
    if (p->phase != PH_STOP)
        primary_phase(p, PH_YIELDED);
    agent_state(a, VM_DEGRADED,
                "%s has won generation %llu, and has not said yet that it runs "
                "the VM: the guest here is paused, its output held",
                a->rec.peer, (unsigned long long)a->lease.generation + 1);
}

/* A domain of the VM, where none was: another life of it. */
static bool appeared(struct primary *p)
{
    struct agent *a = p->a;
    struct hv_domain d;
    struct err e = ERR_INIT;

    if (a->hv->ops->find_uuid(a->hv, a->uuid, false, &d, &e))
        return false;
    if (a->rec.domid != (int64_t)d.domid &&
        getrandom(a->rec.incarnation, sizeof a->rec.incarnation, 0) < 0)
        abort();
    a->rec.domid = d.domid;
    return true;
}

void primary_fenced(struct primary *p)
{
    struct agent *a = p->a;
    struct hv_domain d;

    if (p->phase != PH_FENCED)
        primary_phase(p, PH_FENCED);
    if (!a->arb)
        return;
    primary_retry(p, FENCED_LOOK_S);
    if (a->hv->ops->find_uuid(a->hv, a->uuid, false, &d, NULL) || d.paused ||
        d.shutdown != HV_RUNNING)
        return;
    a->rec.domid = d.domid;
    primary_pause(p);
    agent_event(a, "paused", "%s was started here, and %s runs it: paused",
                a->rec.name, a->rec.peer);
}

bool primary_returned(struct primary *p)
{
    struct agent *a = p->a;

    if (!a->arb)
        return false;
    switch (a->lease.state) {
    case LEASE_EMPTY:
        if (!appeared(p))
            return false;
        /* In one record with `paused`: a successor has to keep it so. */
        agent_lease_begin(a, LEASE_FREE);
        lease_event(&a->lease, LEASE_EV_COMMIT, clock_ns());
        hold_back(p);
        agent_state(a, VM_SYNCING,
                    "paused, the arbiter is asked whether it may run");
        fault_point("primary.held_back");
        primary_phase(p, PH_YIELDED);
        return true;
    case LEASE_SETTLING:
    case LEASE_RETURNING:
    case LEASE_VOID:
        if (!appeared(p))
            return false;
        hold_back(p); /* what was asked before comes first */
        primary_retry(p, 0.5);
        return true;
    case LEASE_YIELDED:
        primary_phase(p, PH_YIELDED);
        return true;
    default:
        return false;
    }
}

bool primary_other_generation(struct primary *p, const struct wire_hello *h)
{
    struct agent *a = p->a;
    uint64_t ours = a->lease.generation;
    bool empty = !h->running && !h->has_replica;
    struct err e = ERR_INIT;

    /* One that holds nothing takes our number when it reads our HELLO. */
    if (!a->arb || (h->generation == ours && !h->running) ||
        (h->generation < ours && empty))
        return false;
    if (h->generation >= ours)
        agent_lease_event(a, LEASE_EV_UNSURE);
    err_kind(&e, ERR_GONE,
             "%s is at generation %llu, this host at %llu: the arbiter has to "
             "say what is so",
             a->rec.peer, (unsigned long long)h->generation,
             (unsigned long long)ours);
    primary_failed(p, &e);
    return true;
}

void primary_generation(struct agent *a)
{
    struct err e = ERR_INIT;

    if (!a->session)
        return;
    agent_session_drop(a);
    err_kind(&e, ERR_GONE, "the generation is %llu now",
             (unsigned long long)a->lease.generation);
    primary_session_closed(a, &e);
}

void primary_keep_tick(struct primary *p)
{
    struct agent *a = p->a;
    struct arbiter_health h;
    uint64_t now = clock_ns();

    if (!a->arb)
        return;
    if (a->lease.state != LEASE_ASKING) {
        p->asking_ns = 0;
        return;
    }
    if (!p->asking_ns)
        p->asking_ns = now;
    if (a->state.now != VM_PROTECTED ||
        now - p->asking_ns < a->lease.timeout_ns / 2)
        return;
    a->arb->ops->health(a->arb, &h);
    agent_state(a, VM_DEGRADED,
                "neither %s nor the arbiter answers: the guest runs, and its "
                "output is held until one of them does; %s",
                a->rec.peer,
                h.why.kind          ? h.why.text
                : a->arb_refusal[0] ? a->arb_refusal
                                    : "the arbiter has not decided");
}

/* --- What the lease decided ---------------------------------------------- */

static void fence_end(struct primary *p)
{
    agent_state(p->a, VM_FENCED, "%s runs the VM now; the copy here is paused",
                p->a->rec.peer);
    primary_end(p, ENGINE_DROP, THEN_FENCED);
}

/* What holds its output stays as long as the guest may run. */
static void fence_unpaused(struct primary *p, const struct err *why)
{
    struct agent *a = p->a;

    agent_event(a, "error",
                "%s can't be paused here, though %s runs it: %s; its output "
                "stays held, and it is tried again",
                a->rec.name, a->rec.peer, why->text);
    agent_state(a, VM_FENCED,
                "%s runs the VM now; the copy here can't be paused, its output "
                "is held: %s",
                a->rec.peer, why->text);
    agent_session_drop(a);
    link_pipe_detach(p->pipe);
    if (p->eng)
        engine_session_lost(p->eng);
    primary_phase(p, PH_ENDING);
}

void primary_fence(struct primary *p)
{
    struct err e = ERR_INIT;

    p->a->rec.running = false;
    p->unpaused = guest_stop(p, &e);
    p->pause_ns = clock_ns();
    if (p->unpaused)
        fence_unpaused(p, &e);
    else
        fence_end(p);
}

void primary_fence_tick(struct primary *p)
{
    struct err e = ERR_INIT;

    if (!p->unpaused || clock_ns() - p->pause_ns < NS_PER_SEC)
        return;
    p->pause_ns = clock_ns();
    p->unpaused = guest_stop(p, &e);
    if (!p->unpaused)
        fence_end(p);
}

/* Going on alone. */
static void degraded(struct primary *p)
{
    struct agent *a = p->a;
    unsigned long long generation = a->lease.generation;

    if (p->skipped.text[0])
        agent_state(a, VM_DEGRADED, "running alone, generation %llu: %s",
                    generation, p->skipped.text);
    else
        agent_state(a, VM_DEGRADED,
                    "running alone, generation %llu: no epoch got to %s for "
                    "%u ms",
                    generation, a->rec.peer, a->rec.timeout_ms);
}

/* What the lease decided. */
void primary_decided(struct agent *a, enum lease_action action)
{
    struct primary *p = a->priv;

    if (action == LEASE_DO_FENCE)
        primary_fence(p);
    else if (action == LEASE_DO_PAUSE)
        yield(p);
    else if (action == LEASE_DO_DISCARD)
        agent_lease_event(a, LEASE_EV_DISCARDED); /* there is none here */
    if (action != LEASE_DO_RELEASE)
        return;
    if (a->arb)
        primary_unpause(p);
    leftovers_end(p, true);
    bool told = p->phase == PH_DISCARD || p->phase == PH_STOP;
    bool held =
        a->state.now == VM_PROTECTED || (a->arb && a->state.now == VM_DEGRADED);
    if (!told && !p->voided && held)
        degraded(p);
    if (p->phase == PH_YIELDED && !p->eng) {
        primary_phase(p, PH_WAIT);
        primary_retry(p, 0.);
    }
    if (p->eng && p->phase != PH_ENDING)
        primary_end(p, ENGINE_RELEASE, p->then);
    else if (!p->eng && p->phase == PH_STOP)
        primary_end(p, ENGINE_RELEASE, p->then);
}
