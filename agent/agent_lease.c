// SPDX-License-Identifier: Apache-2.0
/* The agent and its lease: what the lease wants is written down and carried
 * out, what it asks goes to the arbiter. With `none` everything is granted at
 * once: both sides go on after their timers, as `protect` says when it is
 * typed. Loop thread. See agent_core.h. */
#include "agent/agent_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/save.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"

#define CHECK_NS (10 * NS_PER_SEC)

/* --- What is written down ---------------------------------------------------
 */

/* What a successor has to know of a lease's state. */
static const char *word(const struct agent *a)
{
    enum lease_state s = a->lease.state;

    switch (s) {
    case LEASE_GUARDED:
    case LEASE_ASKING:
        return "guarded";
    case LEASE_STANDBY:
    case LEASE_CLAIMING:
    case LEASE_WAITING:
        return "standby";
    case LEASE_YIELDED:
    case LEASE_FENCED:
    case LEASE_WON:
    case LEASE_RETURNING:
    case LEASE_LOST:
        return lease_state_name(s);
    default:
        return a->stood_by ? "standby" : "";
    }
}

static uint64_t claim_out(const struct lease *l)
{
    return l->request.op == LEASE_OP_CLAIM && l->sent ? l->request.nonce : 0;
}

void agent_lease_record(struct agent *a)
{
    a->rec.generation = a->lease.generation;
    if (!a->arb)
        return;
    a->rec.claim = claim_out(&a->lease);
    snprintf(a->rec.lease, sizeof a->rec.lease, "%s", word(a));
}

static bool unwritten(const struct agent *a)
{
    return a->arb && (a->rec.generation != a->lease.generation ||
                      a->rec.claim != claim_out(&a->lease) ||
                      strcmp(a->rec.lease, word(a)) != 0);
}

/* A claim is on the disk before it is sent. When it can't be, it is not sent:
 * we keep still, and try again when it is due again. */
static bool claim_write(struct agent *a)
{
    struct vm_record r = a->rec;
    struct err e = ERR_INIT;

    r.state = a->state.now;
    r.generation = a->lease.generation;
    r.claim = a->lease.request.nonce;
    snprintf(r.lease, sizeof r.lease, "%s", word(a));
    if (save_now(&r, &e)) {
        if (a->told_unwritten != r.claim)
            agent_event(a, "error",
                        "%s; nothing is asked for before it is written",
                        e.text);
        a->told_unwritten = r.claim;
        return false;
    }
    a->rec = r;
    return true;
}

/* --- Asking -------------------------------------------------------------- */

static void answered(void *arg, const struct lease_record *r,
                     const struct err *why)
{
    struct agent *a = arg;
    uint64_t before = a->lease.generation;

    if (!r) {
        log_debug("dom=%s no answer: %s", a->rec.name, why->text);
        if (why->kind == ERR_REFUSED &&
            strncmp(a->arb_refusal, why->text, sizeof a->arb_refusal - 1)) {
            snprintf(a->arb_refusal, sizeof a->arb_refusal, "%.255s",
                     why->text);
            agent_event(a, "arbiter", "%s", why->text);
        }
        return;
    }
    if (a->lease.request.op == LEASE_OP_CLAIM)
        fault_point("lease.answered");
    a->arb_refusal[0] = '\0';
    log_debug("dom=%s lease=%s arbiter says generation %llu%s%s", a->rec.name,
              lease_state_name(a->lease.state),
              (unsigned long long)r->generation, r->mine ? ", ours" : "",
              r->running ? ", running" : "");
    /* A takeover without a claim of ours is one as of now. */
    if (a->lease.request.op != LEASE_OP_CLAIM)
        a->claim_heard_ns = clock_ns() - lease_silence(&a->lease, clock_ns());
    enum lease_action action = lease_answer(&a->lease, r, clock_ns());
    if (a->lease.generation != before)
        a->role->generation(a);
    agent_lease_action(a, action);
}

static void ask(struct agent *a, bool first)
{
    const struct lease_request *r = &a->lease.request;
    bool claim = r->op == LEASE_OP_CLAIM;
    struct arbiter_health health;
    struct witness_ask w;
    struct err e = ERR_INIT;

    a->arb->ops->health(a->arb, &health);
    if (first)
        agent_event(a, "generation", "asking for generation %llu%s%s",
                    (unsigned long long)r->generation + 1,
                    health.up ? "" : ", as soon as the arbiter can be: ",
                    health.why.text);
    if (!health.up)
        return;
    if (claim) {
        fault_point("lease.ask");
        if (!a->lease.sent && !claim_write(a))
            return;
        fault_point("lease.written");
    }
    lease_sent(&a->lease);
    arbiter_ask_of(r, a->uuid, &w);
    unsigned deadline_ms = a->rec.timeout_ms < 1000 ? 1000 : a->rec.timeout_ms;
    if (a->arb->ops->submit(a->arb, &w,
                            deadline_ms > 60000 ? 60000 : deadline_ms, answered,
                            a, NULL, &e))
        log_warn("dom=%s %s", a->rec.name, e.text);
    if (claim)
        fault_point("lease.sent");
}

static void granted_by_none(struct agent *a)
{
    fault_point("lease.ask");
    agent_event(a, "generation",
                "asking for generation %llu (arbiter none grants it)",
                (unsigned long long)a->lease.generation + 1);
    agent_lease_action(a, lease_event(&a->lease, LEASE_EV_GRANTED, clock_ns()));
}

/* Before the answer comes a stall of ours may have been forgiven: that is no
 * word from the peer. */
static bool claim_is_new(struct agent *a)
{
    const struct lease_request *r = &a->lease.request;
    uint64_t now = clock_ns();

    if (r->op != LEASE_OP_CLAIM || a->told_claim == r->nonce)
        return false;
    a->told_claim = r->nonce;
    a->claim_heard_ns = now - lease_silence(&a->lease, now);
    return true;
}

void agent_lease_action(struct agent *a, enum lease_action action)
{
    bool still = action == LEASE_DO_FENCE || action == LEASE_DO_PAUSE;

    if (action == LEASE_DO_ASK) {
        bool first = claim_is_new(a);
        if (a->arb)
            ask(a, first);
        else
            granted_by_none(a);
        return;
    }
    /* No step waits for it, and a successor that does not know it asks. */
    if (action == LEASE_DO_NOTHING && unwritten(a))
        agent_save_later(a);
    if (action == LEASE_DO_NOTHING)
        return;
    if (still && a->arb)
        a->rec.paused = true;
    /* To keep still is right whether it can be written down or not. */
    if (!agent_save(a) && !still)
        return;
    fault_point("lease.decided");
    a->role->decided(a, action);
}

void agent_lease_event(struct agent *a, enum lease_event ev)
{
    enum lease_action action = lease_event(&a->lease, ev, clock_ns());

    if (ev != LEASE_EV_DISCARDED || action != LEASE_DO_RELEASE) {
        agent_lease_action(a, action);
        return;
    }
    /* Nobody else can run it any more: a successor that does not know it asks,
     * and gets it. */
    agent_save_later(a);
    fault_point("lease.decided");
    a->role->decided(a, action);
}

/* A record that is lost, or somebody else's, is found out before it is needed;
 * and so is an operator who took a primary that runs alone for dead. */
void agent_lease_check(struct agent *a, uint64_t now)
{
    uint64_t pause =
        CHECK_NS > 4 * a->lease.timeout_ns ? CHECK_NS : 4 * a->lease.timeout_ns;
    bool looks = a->lease.state == LEASE_GUARDED ||
                 a->lease.state == LEASE_STANDBY ||
                 a->lease.state == LEASE_FREE;

    if (!a->arb || !looks || now - a->arb_check_ns < pause)
        return;
    a->arb_check_ns = now;
    agent_lease_event(a, LEASE_EV_UNSURE);
}

/* --- The arbiter's life -------------------------------------------------- */

static void on_changed(void *arg, struct arbiter *arb)
{
    struct agent *a = arg;
    struct arbiter_health h;

    arb->ops->health(arb, &h);
    if (h.up)
        a->lease.asked_ns = 0; /* what waits is due */
    if (h.up && a->arb_lost)
        agent_event(a, "arbiter", "the arbiter answers again");
    else if (!h.up)
        agent_event(a, "arbiter",
                    "the arbiter is lost: %s; until it is back nobody can go "
                    "on alone or take %s over",
                    h.why.text, a->rec.name);
    a->arb_lost = !h.up;
}

static int arbiter_open(struct agent *a, struct ev_loop *loop,
                        void (*changed)(void *arg, struct arbiter *arb),
                        void *arg, struct arbiter **out, struct err *e)
{
    const struct arbiter_ops *ops;
    struct arbiter_host host = {
        .loop = loop, .tls = a->tls, .changed = changed, .arg = arg};

    memcpy(host.pin, link_key_pin(a->key), sizeof host.pin);
    snprintf(host.name, sizeof host.name, "%.63s", a->rec.name);
    *out = NULL;
    if (arbiter_find(a->rec.arbiter, &ops, e))
        return -1;
    return ops ? ops->open(a->rec.arbiter, &host, out, e) : 0;
}

int agent_lease_open(struct agent *a, struct err *e)
{
    return arbiter_open(a, a->loop, on_changed, a, &a->arb, e);
}

void agent_lease_close(struct agent *a)
{
    if (a->arb)
        a->arb->ops->close(a->arb);
    a->arb = NULL;
}

void agent_lease_begin(struct agent *a, enum lease_state state)
{
    uint64_t nonce;

    lease_init(&a->lease, state, a->rec.generation,
               a->rec.timeout_ms * NS_PER_MS, clock_ns());
    if (!a->arb)
        return;
    if (getrandom(&nonce, sizeof nonce, 0) != sizeof nonce)
        abort();
    lease_use_arbiter(&a->lease, nonce >> 2);
}

/* --- Leaving ------------------------------------------------------------- */

struct leave {
    struct ev_loop *loop;
    struct witness_ask ask;
};

static void leave_done(void *arg, const struct lease_record *r,
                       const struct err *why)
{
    struct leave *l = arg;

    if (!r)
        log_info("the arbiter was not told that protection ended: %s",
                 why->text);
    ev_break(l->loop, EVBREAK_ALL);
}

static void leave_up(void *arg, struct arbiter *arb)
{
    struct leave *l = arg;
    struct arbiter_health h;

    arb->ops->health(arb, &h);
    if (h.up)
        arb->ops->submit(arb, &l->ask, 1000, leave_done, l, NULL, NULL);
}

static void leave_late(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)w, (void)events;
    ev_break(loop, EVBREAK_ALL);
}

/* On a loop of its own: nothing else of the agent is to happen any more. */
void agent_lease_leave(struct agent *a)
{
    struct leave l = {.ask = {.op = WITNESS_LEAVE}};
    struct arbiter_health h;
    struct arbiter *arb;
    ev_timer late;

    if (!a->arb ||
        (a->lease.state != LEASE_FREE && a->lease.state != LEASE_WON))
        return;
    a->arb->ops->health(a->arb, &h);
    l.loop = h.up ? ev_loop_new(EVFLAG_AUTO) : NULL;
    if (!l.loop)
        return;
    memcpy(l.ask.vm, a->uuid, sizeof l.ask.vm);
    l.ask.generation = a->lease.generation;
    if (!arbiter_open(a, l.loop, leave_up, &l, &arb, NULL)) {
        ev_timer_init(&late, leave_late, 1., 0.);
        ev_timer_start(l.loop, &late);
        ev_run(l.loop, 0);
        arb->ops->close(arb);
    }
    ev_loop_destroy(l.loop);
}

/* --- For status ---------------------------------------------------------- */

/* Whom the record names, as far as we know. */
static const char *holder(const struct agent *a)
{
    switch (a->lease.state) {
    case LEASE_FREE:
    case LEASE_GUARDED:
    case LEASE_WON:
    case LEASE_RETURNING:
        return "this host";
    case LEASE_EMPTY:
    case LEASE_STANDBY:
    case LEASE_FENCED:
    case LEASE_LOST:
    case LEASE_VOID:
    case LEASE_YIELDED:
    case LEASE_WAITING:
        return a->rec.peer;
    default:
        return "unknown";
    }
}

static json_t *path_json(const char *name, bool up, long long heard_ms,
                         const char *why)
{
    return json_pack("{ss sb sI so}", "path", name, "up", up, "heard_ms",
                     (json_int_t)heard_ms, "reason", text_json(why));
}

static long long ago_ms(uint64_t then, uint64_t now)
{
    return !then ? -1 : now > then ? (long long)((now - then) / NS_PER_MS) : 0;
}

void agent_lease_status(struct agent *a, json_t *out)
{
    uint64_t now = clock_ns();
    struct arbiter_health h;
    struct link_stats s = {0};
    json_t *paths = json_array();
    bool open = a->session && a->hello_seen, up;

    json_object_set_new(out, "lease",
                        json_string(lease_state_name(a->lease.state)));
    json_object_set_new(out, "holder", json_string(holder(a)));
    if (a->session)
        link_stats(a->session, &s);
    up = open && now < s.heard_ns + a->lease.timeout_ns;
    json_array_append_new(paths,
                          path_json("replication", up, ago_ms(s.heard_ns, now),
                                    up     ? ""
                                    : open ? "silent"
                                           : "no session"));
    up = ago_ms(a->daemon_heard_ns, now) >= 0 &&
         now - a->daemon_heard_ns < a->lease.timeout_ns;
    json_array_append_new(paths, path_json("daemons", up,
                                           ago_ms(a->daemon_heard_ns, now),
                                           up ? "" : "silent"));
    if (a->arb) {
        a->arb->ops->health(a->arb, &h);
        if (h.up && a->arb_refusal[0])
            err_kind(&h.why, ERR_REFUSED, "%s", a->arb_refusal);
        up = !h.why.kind;
        json_array_append_new(
            paths,
            path_json("arbiter", up, ago_ms(h.heard_ns, now), h.why.text));
        json_object_set_new(out, "arbiter_up", json_boolean(up));
        json_object_set_new(out, "arbiter_behind",
                            json_boolean(a->lease.arbiter_behind));
    }
    json_object_set_new(out, "paths", paths);
}
