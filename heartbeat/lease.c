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

/* All that can happen besides the two timers in lease_tick(). */
static const struct transition transitions[] = {
    {LEASE_FREE, LEASE_EV_COMMIT, LEASE_GUARDED, LEASE_DO_NOTHING},
    {LEASE_GUARDED, LEASE_EV_COMMIT, LEASE_GUARDED, LEASE_DO_NOTHING},
    {LEASE_GUARDED, LEASE_EV_DISCARDED, LEASE_FREE, LEASE_DO_RELEASE},
    {LEASE_GUARDED, LEASE_EV_DENIED, LEASE_FENCED, LEASE_DO_FENCE},
    {LEASE_ASKING, LEASE_EV_GRANTED, LEASE_FREE, LEASE_DO_RELEASE},
    {LEASE_ASKING, LEASE_EV_DENIED, LEASE_FENCED, LEASE_DO_FENCE},
    {LEASE_FREE, LEASE_EV_DENIED, LEASE_FENCED, LEASE_DO_FENCE},

    {LEASE_EMPTY, LEASE_EV_COMMIT, LEASE_STANDBY, LEASE_DO_NOTHING},
    {LEASE_STANDBY, LEASE_EV_COMMIT, LEASE_STANDBY, LEASE_DO_NOTHING},
    {LEASE_STANDBY, LEASE_EV_DISCARDED, LEASE_EMPTY, LEASE_DO_NOTHING},
    {LEASE_STANDBY, LEASE_EV_FORCED, LEASE_CLAIMING, LEASE_DO_ASK},
    {LEASE_CLAIMING, LEASE_EV_GRANTED, LEASE_WON, LEASE_DO_TAKEOVER},
    {LEASE_CLAIMING, LEASE_EV_DENIED, LEASE_LOST, LEASE_DO_DISCARD},
    {LEASE_WON, LEASE_EV_DENIED, LEASE_LOST, LEASE_DO_FENCE},
};

static const char *const state_names[LEASE_STATES] = {
    [LEASE_FREE] = "free",         [LEASE_GUARDED] = "guarded",
    [LEASE_ASKING] = "asking",     [LEASE_FENCED] = "fenced",
    [LEASE_EMPTY] = "empty",       [LEASE_STANDBY] = "standby",
    [LEASE_CLAIMING] = "claiming", [LEASE_WON] = "won",
    [LEASE_LOST] = "lost",
};

const char *lease_state_name(enum lease_state s)
{
    return s < LEASE_STATES ? state_names[s] : "?";
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

/* We did not run for a while: what the peer said meanwhile may still be in
 * our socket buffers, so its silence is not yet known. */
static void stall_forgive(struct lease *l, uint64_t now)
{
    l->stalls++;
    l->commit_ns = l->agent_ns = l->daemon_ns = now;
}

static enum lease_action ask(struct lease *l, enum lease_state to, uint64_t now)
{
    l->state = to;
    l->asked_ns = now;
    return LEASE_DO_ASK;
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
            return ask(l, LEASE_ASKING, now);
    }
    if (l->state == LEASE_STANDBY && silent >= t)
        return ask(l, LEASE_CLAIMING, now);
    return LEASE_DO_NOTHING;
}

enum lease_action lease_event(struct lease *l, enum lease_event ev,
                              uint64_t now)
{
    for (size_t i = 0; i < sizeof transitions / sizeof *transitions; i++) {
        const struct transition *t = &transitions[i];
        if (t->from != l->state || t->on != ev)
            continue;
        if (ev == LEASE_EV_GRANTED)
            l->generation++;
        if (ev == LEASE_EV_COMMIT)
            l->commit_ns = now;
        l->state = t->to;
        return t->action;
    }
    return LEASE_DO_NOTHING;
}

bool lease_keeps(uint64_t mine, bool i_was_backup, uint64_t theirs)
{
    return mine > theirs || (mine == theirs && i_was_backup);
}
