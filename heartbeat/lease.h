// SPDX-License-Identifier: Apache-2.0
/* Who may run the VM: the generation logic of DESIGN section 5. Pure: no I/O,
 * the clock is an argument, events go in and at most one action comes out. The
 * agents carry the actions out and nothing else decides. docs/model/ is a
 * model of it with both sides and an arbiter.
 *
 * One lease a VM and side. Times are monotonic nanoseconds. The caller calls
 * lease_tick() at least every timeout/8; a larger gap between two ticks means
 * that we were stalled ourselves, and silence starts counting again.
 *
 * Without lease_use_arbiter() the lease is one of the arbiter `none`: the only
 * request is a claim, and the caller answers it at once by LEASE_EV_GRANTED.
 * With it, LEASE_DO_ASK means: send lease->request to the arbiter, after what
 * has to survive us is written down (see lease_sent()). Any number of answers,
 * late, twice or never, come back by lease_answer(); a request that is not
 * answered is asked for again, a claim with the same nonce. */
#ifndef HEARTBEAT_LEASE_H
#define HEARTBEAT_LEASE_H

#include <stdbool.h>
#include <stdint.h>

enum lease_state {
    /* primary */
    LEASE_FREE,    /* no replica that could win: output flows */
    LEASE_GUARDED, /* a replica exists: output waits for acknowledgements */
    LEASE_ASKING,  /* asked the arbiter, outcome unknown: keep still */
    LEASE_YIELDED, /* the other one won, but is not known to run: the guest is
                    * paused, its output held */
    LEASE_FENCED,  /* lost: the guest stays paused, output is dropped */
    /* backup */
    LEASE_EMPTY,    /* no committed epoch: nothing to take over with */
    LEASE_STANDBY,  /* holds a committed epoch */
    LEASE_CLAIMING, /* asked the arbiter; acknowledges nothing any more */
    LEASE_WAITING,  /* the other one won, but is not known to run: the replica
                     * is kept, nothing is acknowledged */
    LEASE_WON,      /* runs the VM, or is about to */
    LEASE_VOID,     /* the replica is void and is being given up */
    LEASE_LOST,     /* ran it, and the other one keeps it */
    /* either, with nothing that could run */
    LEASE_SETTLING,  /* a claim is out whose replica or guest is gone */
    LEASE_RETURNING, /* hands the generation back that it can't use */
    LEASE_STATES
};

enum lease_event {
    LEASE_EV_COMMIT,    /* an epoch was acknowledged / committed */
    LEASE_EV_GRANTED,   /* the arbiter gave us a newer generation */
    LEASE_EV_REFUSED,   /* it gave it to the other one */
    LEASE_EV_DENIED,    /* the other one runs the VM with a newer generation */
    LEASE_EV_DISCARDED, /* primary: the backup says it holds no replica;
                         * backup: our replica is discarded, as told */
    LEASE_EV_FORCED,    /* backup: an operator typed takeover --force */
    LEASE_EV_STARTED,   /* backup: the VM that we won runs */
    LEASE_EV_FAILED,    /* backup: it can't be started, and never ran */
    LEASE_EV_UNSURE,    /* the peer names a newer generation than ours */
    LEASE_EVENTS
};

enum lease_action {
    LEASE_DO_NOTHING,
    LEASE_DO_ASK,      /* send lease->request to the arbiter */
    LEASE_DO_RELEASE,  /* primary: (unpause,) release output, run alone */
    LEASE_DO_PAUSE,    /* primary: pause the guest, go on holding output */
    LEASE_DO_FENCE,    /* pause the guest for good, drop output */
    LEASE_DO_TAKEOVER, /* backup: resume the replica */
    LEASE_DO_DISCARD,  /* backup: the replica is void, give it up; then
                        * LEASE_EV_DISCARDED */
    LEASE_ACTIONS
};

enum lease_op {
    LEASE_OP_NONE,
    LEASE_OP_CLAIM,   /* generation + 1, if the arbiter is at `generation` */
    LEASE_OP_RUNNING, /* record that the holder of `generation` runs the VM */
    LEASE_OP_RETURN,  /* the holder of `generation` can't run it: the other
                       * one gets `generation` + 1 */
    LEASE_OP_QUERY,   /* what does the record say? */
};

/* Every answer is the arbiter's record, after what was asked for was done or
 * not done. */
struct lease_request {
    enum lease_op op;
    uint64_t generation;
    uint64_t nonce; /* of our claim of this or an earlier generation; 0: none */
};

/* The arbiter's record as one side sees it. */
struct lease_record {
    uint64_t asked; /* nonce of the request that this is the answer to */
    uint64_t generation;
    bool mine;    /* ours: claimed with the nonce that was asked with, or handed
                   * to us by the other one */
    bool running; /* the holder said that it runs the VM */
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

    struct lease_request request; /* what is outstanding */
    bool sent;                    /* it may have reached the arbiter */
    bool forced;                  /* the claim was typed by an operator */
    uint64_t asked_ns;            /* when the last request went out */
    uint64_t answered_ns;         /* arbiter last heard; for status */
    bool arbiter_behind; /* the arbiter's number is below ours: it has lost its
                          * memory. For status; nothing is decided by it */
    bool has_arbiter;
    uint64_t nonce; /* the next claim's */
};

/* `state` is LEASE_FREE for a primary, LEASE_EMPTY for a backup;
 * LEASE_RETURNING for a successor that finds that `generation` was won here,
 * and surely never ran. */
void lease_init(struct lease *l, enum lease_state state, uint64_t generation,
                uint64_t timeout_ns, uint64_t now);
/* There is a real arbiter: right after lease_init(). A primary that is
 * LEASE_FREE then says that it runs. `nonce` is random, different in every
 * process. */
void lease_use_arbiter(struct lease *l, uint64_t nonce);
/* A predecessor wrote down that it was about to send a claim of generation
 * l->generation + 1 with this nonce, and no outcome. A primary whose guest is
 * here goes on asking (LEASE_FREE before); a backup, or a primary without its
 * guest (LEASE_EMPTY before), has to settle it before it may hold a replica. */
void lease_resume_claim(struct lease *l, uint64_t nonce);

/* The peer's agent or daemon was heard at `heard` (monotonic, not after now).
 * Older news than known is ignored. */
void lease_heard_agent(struct lease *l, uint64_t heard);
void lease_heard_daemon(struct lease *l, uint64_t heard);

/* Time passes. A primary without a commit for T asks (0.5 T when the peer is
 * silent for as long); a backup asks after T without agent and daemon. A
 * request that is outstanding is due again every T/2. */
enum lease_action lease_tick(struct lease *l, uint64_t now);

/* LEASE_EMPTY only: an operator wants the VM started here from what is on the
 * disk. A claim, as if there were a replica; what comes of it likewise. Outside
 * of what the table allows by itself, so the caller knows that the primary
 * holds its output for a replica of this generation, or a person vouches that
 * it is off. */
enum lease_action lease_claim_empty(struct lease *l, uint64_t now);

/* Something happened. GRANTED raises the generation before it returns. An
 * event that a state has no transition for changes nothing. */
enum lease_action lease_event(struct lease *l, enum lease_event ev,
                              uint64_t now);

/* l->request is about to be put on the wire, and a claim's generation and nonce
 * are durable. Not called when there is no way to the arbiter: a claim that
 * was never sent is forgotten when the peer is back. */
void lease_sent(struct lease *l);

/* The arbiter answered. An answer that says nothing new is ignored, and so is
 * one to a question with another nonce than the request's: to it a generation
 * that our claim won is somebody else's. When this changes l->generation the
 * caller ends the VM session: an epoch on its way was made in another
 * generation, and must not become a replica of this one. */
enum lease_action lease_answer(struct lease *l, const struct lease_record *r,
                               uint64_t now);

/* How long both agent and daemon have been silent, in nanoseconds. */
uint64_t lease_silence(const struct lease *l, uint64_t now);

/* When both sides run the VM, which the arbiter `none` allows: does the side
 * (generation, is_backup) keep it against the other one? The higher
 * generation keeps it, the backup's wins a tie. */
bool lease_keeps(uint64_t mine, bool i_was_backup, uint64_t theirs);

const char *lease_state_name(enum lease_state s);
const char *lease_event_name(enum lease_event ev);

#endif
