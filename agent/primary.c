// SPDX-License-Identifier: Apache-2.0
/* The primary's agent: the cycle from cleaning up after a predecessor to
 * Protected, and its ends. Loop thread; see primary.h. */
#include "agent/primary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/turn.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/text.h"

static const char *const phase_names[] = {
    [PH_RECOVER] = "recover", [PH_WAIT] = "wait",
    [PH_PREPARE] = "prepare", [PH_CONNECT] = "connect",
    [PH_DISCARD] = "discard", [PH_DESCRIBE] = "describe",
    [PH_SHELL] = "shell",     [PH_SYNC] = "sync",
    [PH_RUN] = "run",         [PH_REJOIN] = "rejoin",
    [PH_STOP] = "stop",       [PH_ENDING] = "ending",
    [PH_FENCED] = "fenced",   [PH_NO_GUEST] = "no guest",
    [PH_YIELDED] = "yielded",
};

void primary_phase(struct primary *p, enum phase to)
{
    char point[64];

    if (p->phase != to)
        log_debug("dom=%s phase=%s was=%s", p->a->rec.name, phase_names[to],
                  phase_names[p->phase]);
    p->phase = to;
    snprintf(point, sizeof point, "primary.%s", phase_names[to]);
    fault_point(point);
}

void primary_retry(struct primary *p, double seconds)
{
    ev_timer_stop(p->a->loop, &p->retry);
    ev_timer_set(&p->retry, seconds, 0.);
    ev_timer_start(p->a->loop, &p->retry);
}

static double backoff(struct primary *p)
{
    unsigned n = p->tries < 4 ? p->tries : 4;

    p->tries++;
    return 0.2 * (double)(1u << n);
}

/* The first `protect` tells the person and leaves things as they were; later
 * ones try again for as long as it takes. */
static void protect_undo(struct primary *p)
{
    json_t *msg =
        json_pack("{s:s, s:s, s:o, s:o, s:s, s:I}", "event", "failed", "vm",
                  p->a->rec.name, "text", text_json(p->failure.text), "hint",
                  text_json(p->failure.hint), "kind",
                  ipc_kind_name(p->failure.kind ? p->failure.kind : ERR_FAILED),
                  "time_ms", (json_int_t)clock_wall_ms());

    ipc_broadcast(p->a->ipc, msg);
    json_decref(msg);
    log_error("dom=%s not protected: %s", p->a->rec.name, p->failure.text);
    guest_give_back(p);
    if (p->stage_before == STAGE_TAKEN_OVER)
        turn_back(p->a);
    else
        agent_exit(p->a, AGENT_EXIT_DONE);
}

void primary_failed(struct primary *p, const struct err *why)
{
    struct agent *a = p->a;

    agent_session_drop(a);
    if (p->eng) {
        primary_retry(p, 0.5);
        primary_phase(p, PH_REJOIN);
        return;
    }
    p->failure = *why;
    if (!a->rec.wanted) {
        primary_leave(p);
        return;
    }
    /* An agent there that was just leaving, or died: the next one answers. */
    bool again =
        p->phase == PH_CONNECT && why->kind == ERR_GONE && p->tries < 3;
    if (!p->established && !p->left.there && !again) {
        protect_undo(p);
        return;
    }
    if (a->state.now == VM_SYNCING || a->state.now == VM_PROTECTED)
        agent_state(a, VM_DEGRADED, "%s", why->text);
    primary_retry(p, backoff(p));
    primary_phase(p, PH_WAIT);
}

/* --- Ending --- */

void primary_end(struct primary *p, enum engine_stop_how how,
                 enum afterwards then)
{
    p->then = then;
    primary_phase(p, PH_ENDING);
    link_pipe_detach(p->pipe);
    leftovers_end(p, how == ENGINE_RELEASE);
    if (p->eng)
        engine_stop(p->eng, how);
    else
        primary_ended(p);
}

void primary_leave(struct primary *p)
{
    enum lease_state now = p->a->lease.state;

    if (now == LEASE_GUARDED || now == LEASE_ASKING || now == LEASE_YIELDED)
        primary_phase(p, PH_STOP); /* the lease lets go after its timeout */
    else
        primary_end(p, ENGINE_RELEASE, THEN_DONE);
}

static void stop_answer(struct primary *p)
{
    if (p->stopper)
        ipc_reply(p->stopper, p->stop_request, NULL);
    json_decref(p->stop_request);
    p->stopper = NULL;
    p->stop_request = NULL;
}

/* Without an engine and before the next cycle. */
static void try_again(struct primary *p)
{
    struct agent *a = p->a;

    agent_session_drop(a);
    if (!p->failure.text[0])
        err_kind(&p->failure, ERR_TIMEOUT, "%s did not answer in time",
                 a->rec.peer);
    if (!p->established) {
        primary_failed(p, &p->failure);
        return;
    }
    if (a->state.now == VM_SYNCING || a->state.now == VM_PROTECTED)
        agent_state(a, VM_DEGRADED, "%s", p->failure.text);
    primary_retry(p, backoff(p));
    primary_phase(p, PH_WAIT);
}

/* No engine (any more). */
void primary_ended(struct primary *p)
{
    struct agent *a = p->a;

    /* Whatever ended the engine: after `unprotect` nothing begins again. */
    if (!a->rec.wanted)
        p->then = THEN_DONE;
    if (leftovers_wait(p, primary_ended))
        return;
    switch (p->then) {
    case THEN_DONE:
        agent_state(a, VM_UNPROTECTED, "unprotect was asked for");
        guest_give_back(p);
        stop_answer(p);
        agent_exit(a, AGENT_EXIT_DONE);
        break;
    case THEN_FENCED:
        agent_session_drop(a);
        primary_fenced(p);
        break;
    case THEN_GUEST_DOWN:
        agent_session_drop(a);
        guest_down_begin(p);
        break;
    case THEN_RETRY:
        try_again(p);
        break;
    }
}

/* --- Starting --- */

void primary_prepare(struct primary *p)
{
    struct agent *a = p->a;
    char incarnation[33];

    if (!a->daemon) {
        primary_retry(p, 0.1);
        return;
    }
    hex_format(a->rec.incarnation, sizeof a->rec.incarnation, incarnation);
    primary_phase(p, PH_PREPARE);
    primary_retry(p, 30.);
    agent_ask(a,
              json_pack("{s:i, s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:i}", "ask",
                        (int)++p->asked, "op", "prepare", "uuid", a->rec.uuid,
                        "name", a->rec.name, "peer", a->rec.peer, "generation",
                        (json_int_t)a->lease.generation, "incarnation",
                        incarnation, "arbiter", a->rec.arbiter, "timeout_ms",
                        (int)a->rec.timeout_ms));
}

static void on_answer(struct primary *p, const json_t *msg)
{
    struct err e = ERR_INIT;

    if (p->phase != PH_PREPARE ||
        json_number(msg, "answer", -1) != (long long)p->asked)
        return;
    ev_timer_stop(p->a->loop, &p->retry);
    if (ipc_error_of(msg, &e) ||
        pin_parse(json_text(msg, "pin", ""), p->pin, &e)) {
        primary_failed(p, &e);
        return;
    }
    snprintf(p->address, sizeof p->address, "%s",
             json_text(msg, "address", ""));
    p->port = (uint16_t)json_number(msg, "port", WIRE_PORT);
    primary_phase(p, PH_CONNECT);
    primary_connect(p);
}

/* The VM of this record, after a reboot of the guest under a new number. */
static void look_for_guest(struct primary *p)
{
    /* With an arbiter it has to keep still before it has said a word. */
    double pause = p->a->arb && p->a->lease.state == LEASE_EMPTY ? 0.05 : 0.5;

    if (primary_returned(p))
        return;
    switch (guest_look(p)) {
    case GUEST_RUNS:
    case GUEST_TELL:
        primary_prepare(p);
        break;
    case GUEST_LATER:
        primary_retry(p, pause);
        break;
    case GUEST_ENDED:
        break;
    }
}

static void retry_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct primary *p = w->data;
    struct err e = ERR_INIT;

    (void)loop;
    (void)revents;
    switch (p->phase) {
    case PH_RECOVER:
    case PH_WAIT:
    case PH_NO_GUEST:
        look_for_guest(p);
        break;
    case PH_FENCED:
        primary_fenced(p);
        break;
    case PH_PREPARE:
        err_kind(&e, ERR_TIMEOUT, "%s did not answer within 30 s",
                 p->a->rec.peer);
        primary_failed(p, &e);
        break;
    case PH_REJOIN:
        if (!p->a->session)
            primary_connect(p);
        break;
    case PH_STOP:
        /* No replica can exist: the answer is not worth waiting for. */
        if (p->a->lease.state == LEASE_FREE)
            primary_end(p, ENGINE_RELEASE, p->then);
        break;
    default:
        break;
    }
}

void primary_recovered(struct primary *p, const struct err *why)
{
    struct agent *a = p->a;

    if (a->state.now == VM_FENCED) {
        if (why)
            agent_event(a, "error", "%s", why->text);
        primary_fence(p);
        return;
    }
    if (why) {
        agent_give_up(a, why);
        return;
    }
    if (a->state.now == VM_PROTECTED)
        agent_state(a, VM_DEGRADED, "the agent was started again");
    if (p->left.there)
        agent_event(a, "recover",
                    "a predecessor left output held: it stays held until "
                    "%s gives its replica up or %u ms have passed",
                    a->rec.peer, a->rec.timeout_ms);
    /* A claim that is out goes on. */
    if (p->left.there && a->lease.state == LEASE_FREE)
        agent_lease_event(a, LEASE_EV_COMMIT);
    bool still = primary_keeps_still(p);
    if (!still)
        primary_phase(p, PH_WAIT);
    if (a->rec.wanted && !still)
        look_for_guest(p);
    else if (a->rec.wanted)
        log_debug("dom=%s waits for the arbiter", a->rec.name);
    else
        primary_leave(p);
}

/* The domain of the record; its number may be another VM's by now. */
static void sweep(struct primary *p)
{
    struct agent *a = p->a;
    struct hv_domain d;
    struct err e = ERR_INIT;

    if (a->rec.domid > 0 &&
        a->hv->ops->info(a->hv, (uint32_t)a->rec.domid, &d, &e) &&
        e.kind == ERR_GONE)
        leftovers_sweep(p, (uint32_t)a->rec.domid);
}

/* Where a predecessor left it, when that is all there is to do. One that was
 * fencing may have died anywhere in that: paused first, because what it left
 * may be a suspend that is undone. */
static bool resume_at_rest(struct primary *p, bool there)
{
    struct agent *a = p->a;

    if (a->rec.state == VM_FENCED || !strcmp(a->rec.lease, "fenced")) {
        a->lease.state = LEASE_FENCED;
        if (a->state.now != VM_FENCED)
            agent_state(a, VM_FENCED, "%s runs the VM", a->rec.peer);
        if (there) {
            primary_pause(p);
            leftovers_recover(p, (uint32_t)a->rec.domid);
            return true;
        }
        primary_fenced(p);
    } else if (!there) {
        a->rec.domid = -1;
        a->rec.paused = false;
        agent_state(a, VM_UNPROTECTED,
                    "it does not run here; see on %s before you start it",
                    a->rec.peer);
        primary_phase(p, PH_NO_GUEST);
        primary_retry(p, 0.1);
    } else {
        return false;
    }
    if (!a->rec.wanted)
        primary_leave(p);
    return true;
}

static int primary_start(struct agent *a, struct err *e)
{
    struct primary *p = calloc(1, sizeof *p);
    struct hv_domain d;

    if (!p)
        abort();
    a->priv = p;
    p->a = a;
    p->stage_before = a->rec.stage;
    p->established = a->rec.stage == STAGE_ESTABLISHED;
    p->guest.taken = a->rec.state != VM_UNPROTECTED;
    primary_engine_init(p);
    ev_init(&p->retry, retry_cb);
    p->retry.data = p;
    bool there = !a->hv->ops->find_uuid(a->hv, a->uuid, false, &d, e);
    if (!there && e->kind != ERR_GONE)
        return -1;
    err_clear(e);
    sweep(p);
    if (there)
        a->rec.domid = d.domid;
    primary_lease_begin(p, there);
    if (resume_at_rest(p, there))
        return 0;
    p->guest.seen = true;
    leftovers_recover(p, d.domid);
    return 0;
}

/* A peer that hangs before it holds a replica, of which the lease knows
 * nothing: the session ends, and the cycle with it. */
static void primary_tick(struct agent *a, uint64_t now)
{
    uint64_t bound = 5 * a->lease.timeout_ns;
    struct link_stats stats;
    struct err e = ERR_INIT;

    leftovers_tick(a->priv, now);
    primary_fence_tick(a->priv);
    primary_keep_tick(a->priv);
    if (!a->session || !link_is_ready(a->session) ||
        a->lease.state != LEASE_FREE)
        return;
    if (bound < 5 * NS_PER_SEC)
        bound = 5 * NS_PER_SEC;
    /* agent_ns: our own stalls are forgiven there. */
    link_stats(a->session, &stats);
    uint64_t heard =
        stats.heard_ns > stats.ready_ns ? stats.heard_ns : stats.ready_ns;
    if (heard < a->lease.agent_ns)
        heard = a->lease.agent_ns;
    if (now <= heard + bound)
        return;
    err_kind(&e, ERR_TIMEOUT, "%s is silent for %llu s", a->rec.peer,
             (unsigned long long)(bound / NS_PER_SEC));
    link_abort(a->session, &e);
}

/* --- The operator --- */

static void on_stop(struct primary *p, struct ipc_conn *c, json_t *msg)
{
    struct agent *a = p->a;

    /* Asked again: whoever asked before sees the end of the agent. */
    json_decref(p->stop_request);
    p->stopper = c;
    p->stop_request = json_incref(msg);
    a->rec.wanted = false;
    if (!agent_save(a))
        return;
    p->then = THEN_DONE;
    if (p->phase == PH_ENDING || p->phase == PH_RECOVER)
        return; /* the end of that goes on with it */
    if (a->session && a->hello_seen)
        primary_send_stop(p, WIRE_STOP_UNPROTECT);
    else
        primary_leave(p);
}

static void primary_client_gone(struct agent *a, struct ipc_conn *c)
{
    struct primary *p = a->priv;

    if (p->stopper == c)
        p->stopper = NULL;
    /* The answer won't come: ask the next daemon. */
    if (a->daemon == c && p->phase == PH_PREPARE) {
        primary_retry(p, 0.1);
        primary_phase(p, p->eng ? PH_REJOIN : PH_WAIT);
    }
}

static void primary_request(struct agent *a, struct ipc_conn *c, json_t *msg,
                            int fd)
{
    struct primary *p = a->priv;
    const char *op = json_text(msg, "op", "");
    struct err e = ERR_INIT;

    if (fd >= 0)
        close(fd);
    if (json_object_get(msg, "answer")) {
        on_answer(p, msg);
    } else if (!strcmp(op, "stop")) {
        on_stop(p, c, msg);
    } else if (!strcmp(op, "verify")) {
        primary_verify(p, c, msg);
    } else {
        err_kind(&e, ERR_REFUSED, "this host runs %s: nothing to take over",
                 a->rec.name);
        err_hint(&e, "type it on %s", a->rec.peer);
        ipc_reply_error(c, msg, &e);
    }
}

static bool primary_at_rest(struct agent *a)
{
    struct primary *p = a->priv;

    return p->phase != PH_RECOVER && p->phase != PH_ENDING && !p->left.there &&
           !p->old.there;
}

const struct agent_role agent_primary_role = {
    .role = ROLE_PRIMARY,
    .start = primary_start,
    .tick = primary_tick,
    .decided = primary_decided,
    .generation = primary_generation,
    .at_rest = primary_at_rest,
    .session_ready = primary_session_ready,
    .record = primary_record,
    .session_closed = primary_session_closed,
    .hello = primary_hello,
    .request = primary_request,
    .status = primary_status,
    .client_gone = primary_client_gone,
};
