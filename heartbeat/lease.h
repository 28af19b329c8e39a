// SPDX-License-Identifier: Apache-2.0
/* Who may run the VM: the generation logic of DESIGN section 5. Pure: no I/O,
 * the clock is an argument, events go in and at most one action comes out. The
 * agents carry the actions out and nothing else decides.
 *
 * One lease a VM and side. Times are monotonic nanoseconds. The caller calls
 * lease_tick() at least every timeout/8; a larger gap between two ticks means
 * that we were stalled ourselves, and silence starts counting again. */
#ifndef HEARTBEAT_LEASE_H
#define HEARTBEAT_LEASE_H

#include <stdbool.h>
#include <stdint.h>

enum lease_state {
    /* primary */
    LEASE_FREE,    /* no replica anywhere: output flows, nothing to ask */
    LEASE_GUARDED, /* a replica exists: output waits for acknowledgements */
    LEASE_ASKING,  /* asked the arbiter, outcome unknown: keep still */
    LEASE_FENCED,  /* lost: the guest stays paused, output is dropped */
    /* backup */
    LEASE_EMPTY,    /* no committed epoch: nothing to take over with */
    LEASE_STANDBY,  /* holds a committed epoch */
    LEASE_CLAIMING, /* asked the arbiter; acknowledges nothing any more */
    LEASE_WON,      /* runs the VM */
    LEASE_LOST,     /* the replica is void */
    LEASE_STATES
};

enum lease_event {
    LEASE_EV_COMMIT,    /* an epoch was acknowledged / committed */
    LEASE_EV_GRANTED,   /* the arbiter gave us generation + 1 */
    LEASE_EV_DENIED,    /* somebody else has it */
    LEASE_EV_DISCARDED, /* primary: the backup says it holds no replica;
                         * backup: our replica is discarded, as told */
    LEASE_EV_FORCED,    /* backup: an operator typed takeover --force */
    LEASE_EVENTS
};

enum lease_action {
    LEASE_DO_NOTHING,
    LEASE_DO_ASK,      /* ask the arbiter for generation + 1 */
    LEASE_DO_RELEASE,  /* primary: release output, run alone */
    LEASE_DO_FENCE,    /* primary: pause the guest, drop output */
    LEASE_DO_TAKEOVER, /* backup: resume the replica */
    LEASE_DO_DISCARD,  /* backup: the replica is void, give it up */
};

struct lease {
    enum lease_state state;
    uint64_t generation;
    uint64_t timeout_ns;
    uint64_t tick_ns;   /* last tick */
    uint64_t commit_ns; /* last commit, or when counting began */
    uint64_t agent_ns;  /* peer's agent last heard, as far as counted */
    uint64_t daemon_ns; /* peer's daemon last heard, likewise */
    uint64_t stalls;    /* own stalls seen; for status */
    uint64_t asked_ns;  /* when the last request went out */
};

/* `state` is LEASE_FREE for a primary, LEASE_EMPTY for a backup. */
void lease_init(struct lease *l, enum lease_state state, uint64_t generation,
                uint64_t timeout_ns, uint64_t now);

/* The peer's agent or daemon was heard at `heard` (monotonic, not after now).
 * Older news than known is ignored. */
void lease_heard_agent(struct lease *l, uint64_t heard);
void lease_heard_daemon(struct lease *l, uint64_t heard);

/* Time passes. A primary without a commit for T asks (0.5 T when the peer is
 * silent for as long); a backup asks after T without agent and daemon. */
enum lease_action lease_tick(struct lease *l, uint64_t now);

/* Something happened. GRANTED raises the generation before it returns. An
 * event that a state has no transition for changes nothing. */
enum lease_action lease_event(struct lease *l, enum lease_event ev,
                              uint64_t now);

/* How long both agent and daemon have been silent, in nanoseconds. */
uint64_t lease_silence(const struct lease *l, uint64_t now);

/* When both sides run the VM, which the arbiter `none` allows: does the side
 * (generation, is_backup) keep it against the other one? The higher
 * generation keeps it, the backup's wins a tie. */
bool lease_keeps(uint64_t mine, bool i_was_backup, uint64_t theirs);

const char *lease_state_name(enum lease_state s);

#endif
