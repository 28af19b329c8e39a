// SPDX-License-Identifier: Apache-2.0
/* The generation logic; see lease.h. Called on the agents' loop thread and by
 * the simulator. */
#include "heartbeat/lease.h"

#include <stddef.h>
#include <string.h>

struct transition {
    enum lease_state from;
    enum lease_event on;
    enum lease_state to;
    enum lease_action action;
};

/* All that can happen besides the timers in lease_tick(). docs/model/check
 * makes the model's from these rows. */
static const struct transition transitions[] = {
    {LEASE_FREE, LEASE_EV_COMMIT, LEASE_GUARDED, LEASE_DO_NOTHING},
    {LEASE_FREE, LEASE_EV_GRANTED, LEASE_FREE, LEASE_DO_RELEASE},
    {LEASE_FREE, LEASE_EV_REFUSED, LEASE_FREE, LEASE_DO_NOTHING},
    {LEASE_FREE, LEASE_EV_DENIED, LEASE_FENCED, LEASE_DO_FENCE},
    {LEASE_GUARDED, LEASE_EV_COMMIT, LEASE_GUARDED, LEASE_DO_NOTHING},
    {LEASE_GUARDED, LEASE_EV_DISCARDED, LEASE_FREE, LEASE_DO_RELEASE},
    {LEASE_GUARDED, LEASE_EV_GRANTED, LEASE_FREE, LEASE_DO_RELEASE},
    {LEASE_GUARDED, LEASE_EV_REFUSED, LEASE_YIELDED, LEASE_DO_PAUSE},
    {LEASE_GUARDED, LEASE_EV_DENIED, LEASE_FENCED, LEASE_DO_FENCE},
    /* A backup that acknowledges has not stopped: protection goes on, whatever
     * becomes of the claim. */
    {LEASE_ASKING, LEASE_EV_COMMIT, LEASE_GUARDED, LEASE_DO_NOTHING},
    {LEASE_ASKING, LEASE_EV_DISCARDED, LEASE_FREE, LEASE_DO_RELEASE},
    {LEASE_ASKING, LEASE_EV_GRANTED, LEASE_FREE, LEASE_DO_RELEASE},
    {LEASE_ASKING, LEASE_EV_REFUSED, LEASE_YIELDED, LEASE_DO_PAUSE},
    {LEASE_ASKING, LEASE_EV_DENIED, LEASE_FENCED, LEASE_DO_FENCE},
    {LEASE_YIELDED, LEASE_EV_GRANTED, LEASE_FREE, LEASE_DO_RELEASE},
    {LEASE_YIELDED, LEASE_EV_DENIED, LEASE_FENCED, LEASE_DO_FENCE},

    {LEASE_EMPTY, LEASE_EV_COMMIT, LEASE_STANDBY, LEASE_DO_NOTHING},
    {LEASE_EMPTY, LEASE_EV_GRANTED, LEASE_RETURNING, LEASE_DO_NOTHING},
    {LEASE_EMPTY, LEASE_EV_REFUSED, LEASE_EMPTY, LEASE_DO_NOTHING},
    {LEASE_EMPTY, LEASE_EV_DENIED, LEASE_EMPTY, LEASE_DO_NOTHING},
    {LEASE_STANDBY, LEASE_EV_COMMIT, LEASE_STANDBY, LEASE_DO_NOTHING},
    {LEASE_STANDBY, LEASE_EV_DISCARDED, LEASE_EMPTY, LEASE_DO_NOTHING},
    {LEASE_STANDBY, LEASE_EV_FORCED, LEASE_CLAIMING, LEASE_DO_ASK},
    {LEASE_STANDBY, LEASE_EV_GRANTED, LEASE_WON, LEASE_DO_TAKEOVER},
    {LEASE_STANDBY, LEASE_EV_REFUSED, LEASE_WAITING, LEASE_DO_NOTHING},
    {LEASE_STANDBY, LEASE_EV_DENIED, LEASE_VOID, LEASE_DO_DISCARD},
    {LEASE_CLAIMING, LEASE_EV_DISCARDED, LEASE_SETTLING, LEASE_DO_NOTHING},
    {LEASE_CLAIMING, LEASE_EV_GRANTED, LEASE_WON, LEASE_DO_TAKEOVER},
    {LEASE_CLAIMING, LEASE_EV_REFUSED, LEASE_WAITING, LEASE_DO_NOTHING},
    {LEASE_CLAIMING, LEASE_EV_DENIED, LEASE_VOID, LEASE_DO_DISCARD},
    {LEASE_WAITING, LEASE_EV_DISCARDED, LEASE_EMPTY, LEASE_DO_NOTHING},
    {LEASE_WAITING, LEASE_EV_GRANTED, LEASE_WON, LEASE_DO_TAKEOVER},
    {LEASE_WAITING, LEASE_EV_DENIED, LEASE_VOID, LEASE_DO_DISCARD},
    {LEASE_WON, LEASE_EV_STARTED, LEASE_WON, LEASE_DO_NOTHING},
    {LEASE_WON, LEASE_EV_FAILED, LEASE_RETURNING, LEASE_DO_NOTHING},
    {LEASE_WON, LEASE_EV_DENIED, LEASE_LOST, LEASE_DO_FENCE},
    {LEASE_VOID, LEASE_EV_DISCARDED, LEASE_EMPTY, LEASE_DO_NOTHING},

    {LEASE_SETTLING, LEASE_EV_GRANTED, LEASE_RETURNING, LEASE_DO_NOTHING},
    {LEASE_SETTLING, LEASE_EV_REFUSED, LEASE_EMPTY, LEASE_DO_NOTHING},
    {LEASE_SETTLING, LEASE_EV_DENIED, LEASE_EMPTY, LEASE_DO_NOTHING},
    {LEASE_RETURNING, LEASE_EV_REFUSED, LEASE_VOID, LEASE_DO_DISCARD},
    {LEASE_RETURNING, LEASE_EV_DENIED, LEASE_VOID, LEASE_DO_DISCARD},
};

static const char *const state_names[LEASE_STATES] = {
    [LEASE_FREE] = "free",         [LEASE_GUARDED] = "guarded",
    [LEASE_ASKING] = "asking",     [LEASE_YIELDED] = "yielded",
    [LEASE_FENCED] = "fenced",     [LEASE_EMPTY] = "empty",
    [LEASE_STANDBY] = "standby",   [LEASE_CLAIMING] = "claiming",
    [LEASE_WAITING] = "waiting",   [LEASE_WON] = "won",
    [LEASE_VOID] = "void",         [LEASE_LOST] = "lost",
    [LEASE_SETTLING] = "settling", [LEASE_RETURNING] = "returning",
};

static const char *const event_names[LEASE_EVENTS] = {
    [LEASE_EV_COMMIT] = "commit",       [LEASE_EV_GRANTED] = "granted",
    [LEASE_EV_REFUSED] = "refused",     [LEASE_EV_DENIED] = "denied",
    [LEASE_EV_DISCARDED] = "discarded", [LEASE_EV_FORCED] = "forced",
    [LEASE_EV_STARTED] = "started",     [LEASE_EV_FAILED] = "failed",
    [LEASE_EV_UNSURE] = "unsure",
};

const char *lease_state_name(enum lease_state s)
{
    return s < LEASE_STATES ? state_names[s] : "?";
}

const char *lease_event_name(enum lease_event ev)
{
    return ev < LEASE_EVENTS ? event_names[ev] : "?";
}

void lease_init(struct lease *l, enum lease_state state, uint64_t generation,
                uint64_t timeout_ns, uint64_t now)
{
    memset(l, 0, sizeof *l);
    l->state = state;
    l->generation = generation;
    l->timeout_ns = timeout_ns;
    l->tick_ns = l->commit_ns = l->agent_ns = l->daemon_ns = now;
}

void lease_heard_agent(struct lease *l, uint64_t heard)
{
    if (heard > l->agent_ns)
        l->agent_ns = heard;
}

void lease_heard_daemon(struct lease *l, uint64_t heard)
{
    if (heard > l->daemon_ns)
        l->daemon_ns = heard;
}

static uint64_t since(uint64_t then, uint64_t now)
{
    return now > then ? now - then : 0;
}

uint64_t lease_silence(const struct lease *l, uint64_t now)
{
    uint64_t agent = since(l->agent_ns, now);
    uint64_t daemon = since(l->daemon_ns, now);

    return agent < daemon ? agent : daemon;
}

/* --- Requests ------------------------------------------------------------- */

static void request_forget(struct lease *l)
{
    l->request.op = LEASE_OP_NONE;
    l->sent = l->forced = false;
}

static void request_set(struct lease *l, enum lease_op op)
{
    l->request.op = op;
    l->request.generation = l->generation;
    l->sent = l->forced = false;
    l->asked_ns = 0;
}

/* A claim that is out already, and whose outcome is unknown, is this one. */
static enum lease_action claim(struct lease *l, enum lease_state to,
                               uint64_t now)
{
    l->state = to;
    if (l->request.op != LEASE_OP_CLAIM) {
        request_set(l, LEASE_OP_CLAIM);
        l->nonce += l->nonce == 0;
        l->request.nonce = l->nonce++;
    }
    l->asked_ns = now;
    return LEASE_DO_ASK;
}

enum lease_action lease_claim_empty(struct lease *l, uint64_t now)
{
    if (l->state != LEASE_EMPTY)
        return LEASE_DO_NOTHING;
    enum lease_action ask = claim(l, LEASE_CLAIMING, now);
    l->forced = true;
    return ask;
}

/* What a state has to know and has not asked for. */
static void request_wanted(struct lease *l)
{
    bool waits = l->state == LEASE_YIELDED || l->state == LEASE_WAITING;

    if (l->state == LEASE_RETURNING && l->request.op != LEASE_OP_RETURN)
        request_set(l, LEASE_OP_RETURN);
    else if (waits && l->request.op == LEASE_OP_NONE)
        request_set(l, LEASE_OP_QUERY);
}

static enum lease_action request_due(struct lease *l, uint64_t now)
{
    if (!l->has_arbiter)
        return LEASE_DO_NOTHING;
    request_wanted(l);
    if (l->request.op == LEASE_OP_NONE ||
        (l->asked_ns && since(l->asked_ns, now) < l->timeout_ns / 2))
        return LEASE_DO_NOTHING;
    l->asked_ns = now;
    return LEASE_DO_ASK;
}

/* A predecessor may have won, and not got round to saying so. */
void lease_use_arbiter(struct lease *l, uint64_t nonce)
{
    l->has_arbiter = true;
    l->nonce = nonce;
    if (l->state == LEASE_FREE)
        request_set(l, LEASE_OP_RUNNING);
}

void lease_resume_claim(struct lease *l, uint64_t nonce)
{
    l->request = (struct lease_request){LEASE_OP_CLAIM, l->generation, nonce};
    l->sent = true;
    l->state = l->state == LEASE_EMPTY ? LEASE_SETTLING : LEASE_ASKING;
}

void lease_sent(struct lease *l)
{
    l->sent = true;
}

/* --- Time ----------------------------------------------------------------- */

/* We did not run for a while: what the peer said meanwhile may still be in
 * our socket buffers, so its silence is not yet known. */
static void stall_forgive(struct lease *l, uint64_t now)
{
    l->stalls++;
    l->commit_ns = l->agent_ns = l->daemon_ns = now;
}

enum lease_action lease_tick(struct lease *l, uint64_t now)
{
    uint64_t t = l->timeout_ns;

    if (since(l->tick_ns, now) > t / 4)
        stall_forgive(l, now);
    l->tick_ns = now;

    uint64_t silent = lease_silence(l, now);
    if (l->state == LEASE_GUARDED) {
        uint64_t uncommitted = since(l->commit_ns, now);
        if (uncommitted >= t || (uncommitted >= t / 2 && silent >= t / 2))
            return claim(l, LEASE_ASKING, now);
    }
    if (l->state == LEASE_STANDBY && silent >= t)
        return claim(l, LEASE_CLAIMING, now);
    if (l->state == LEASE_CLAIMING && l->has_arbiter && !l->sent &&
        !l->forced && silent < t) {
        request_forget(l);
        l->state = LEASE_STANDBY;
    }
    return request_due(l, now);
}

/* --- Events --------------------------------------------------------------- */

static const struct transition *find(enum lease_state from, enum lease_event on)
{
    for (size_t i = 0; i < sizeof transitions / sizeof *transitions; i++) {
        if (transitions[i].from == from && transitions[i].on == on)
            return &transitions[i];
    }
    return NULL;
}

/* What follows for the request. `generation` is already the new one. */
static void request_follow(struct lease *l, enum lease_event ev)
{
    bool outcome = ev == LEASE_EV_GRANTED || ev == LEASE_EV_REFUSED ||
                   ev == LEASE_EV_DENIED;
    bool asks = l->state == LEASE_ASKING || l->state == LEASE_CLAIMING;

    if (outcome || (l->request.op == LEASE_OP_CLAIM && !l->sent && !asks))
        request_forget(l);
    if (l->state == LEASE_SETTLING && l->request.op == LEASE_OP_NONE)
        l->state = LEASE_EMPTY;
    if (!l->has_arbiter)
        return;
    /* The primary's guest runs already. */
    if ((ev == LEASE_EV_GRANTED && l->state == LEASE_FREE) ||
        (ev == LEASE_EV_STARTED && l->state == LEASE_WON))
        request_set(l, LEASE_OP_RUNNING);
    if (ev == LEASE_EV_UNSURE && l->request.op == LEASE_OP_NONE)
        request_set(l, LEASE_OP_QUERY);
}

static enum lease_action transit(struct lease *l, enum lease_event ev,
                                 uint64_t generation, uint64_t now)
{
    const struct transition *t = find(l->state, ev);

    if (!t)
        return LEASE_DO_NOTHING;
    if (ev == LEASE_EV_COMMIT)
        l->commit_ns = now;
    l->generation = generation;
    l->state = t->to;
    if (t->action == LEASE_DO_ASK) {
        enum lease_action ask = claim(l, t->to, now);
        l->forced = true;
        return ask;
    }
    request_follow(l, ev);
    return t->action;
}

enum lease_action lease_event(struct lease *l, enum lease_event ev,
                              uint64_t now)
{
    if (ev == LEASE_EV_UNSURE) {
        request_follow(l, ev);
        return LEASE_DO_NOTHING;
    }
    return transit(l, ev, l->generation + (ev == LEASE_EV_GRANTED), now);
}

/* The record has our number: nothing was decided since. */
static void answer_same(struct lease *l, const struct lease_record *r)
{
    if (l->request.op == LEASE_OP_QUERY)
        request_forget(l);
    if (l->request.op == LEASE_OP_RUNNING && r->running)
        request_forget(l);
}

enum lease_action lease_answer(struct lease *l, const struct lease_record *r,
                               uint64_t now)
{
    uint64_t generation = l->generation;
    enum lease_event ev = LEASE_EV_REFUSED;

    l->answered_ns = now;
    if (r->asked != l->request.nonce)
        return LEASE_DO_NOTHING;
    l->arbiter_behind = r->generation < l->generation;
    if (r->generation <= l->generation) {
        if (!l->arbiter_behind)
            answer_same(l, r);
        return LEASE_DO_NOTHING;
    }
    if (r->mine)
        ev = LEASE_EV_GRANTED;
    else if (r->running)
        ev = LEASE_EV_DENIED;
    /* Who has nothing to run may know the number, and tells it to its peer. */
    bool nothing = l->state == LEASE_EMPTY || l->state == LEASE_SETTLING ||
                   l->state == LEASE_RETURNING;
    if (r->mine || nothing)
        generation = r->generation;
    return transit(l, ev, generation, now);
}

bool lease_keeps(uint64_t mine, bool i_was_backup, uint64_t theirs)
{
    return mine > theirs || (mine == theirs && i_was_backup);
}
