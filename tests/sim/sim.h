// SPDX-License-Identifier: Apache-2.0
/* The simulator: the production lease (heartbeat/lease.c) of a primary alder
 * and a backup birch, the production memory of the witness (heartbeat/
 * witness.c), and around them what agents, daemons, hypervisor and network do,
 * on a virtual clock in one thread. A seed decides everything.
 *
 * world.c: time, network, processes, the hypervisor's part. alder.c, birch.c:
 * what the agents do with the lease's actions. faults.c: what goes wrong, and
 * when. judge.c: what must hold; it looks at guests, output and disks only,
 * never at a lease. main.c: seeds. */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "heartbeat/lease.h"
#include "heartbeat/witness.h"

#define T      1000000000ull /* the VM's timeout, ns */
#define STEP   (T / 500)     /* a guest sends a packet that often */
#define PIECES 3             /* of an epoch: pages, pages, commit */

enum { ALDER, BIRCH, WITNESS, HOSTS };
enum {
    ALDER_AGENT,
    BIRCH_AGENT,
    ALDER_DAEMON,
    BIRCH_DAEMON,
    WITNESS_PROC,
    PROCS
};

enum msg_kind {
    M_TICK,
    M_BOOT,
    M_EPOCH_DUE,
    M_CONNECT_DUE,
    M_STARTED, /* the takeover's job is done */
    M_FAULT,
    M_HEARD, /* daemon to its agent: the peer's daemon was heard */
    M_BEAT,  /* daemon to daemon */
    M_CONNECT,
    M_HELLO,
    M_ABEAT, /* agent to agent */
    M_PIECE,
    M_ACK,
    M_DISCARD,
    M_DISCARDED,
    M_ASK,
    M_ANSWER,
    M_KINDS
};

struct msg {
    uint64_t session;     /* of the agents; 0: none */
    uint64_t generation;  /* HELLO, PIECE, DISCARD */
    uint64_t epoch;       /* PIECE, ACK; HELLO: committed */
    uint64_t incarnation; /* of the protection: a full copy starts one */
    uint64_t steps;       /* PIECE: a part of the guest's memory */
    unsigned piece;
    bool flag; /* HELLO: has a replica; BEAT: the guest runs there */
    struct witness_ask ask;
    struct witness_answer answer;
};

struct event {
    uint64_t at, seq;
    enum msg_kind kind;
    int proc, from;
    unsigned boot; /* of the process that it is for */
    struct msg m;
};

struct proc {
    bool up;
    unsigned boot;
    uint64_t stalled; /* until then */
};

/* A domain, in the hypervisor: agents come and go. */
struct guest {
    bool there, paused, plugged;
    uint64_t steps, since; /* what it has done at `since` */
    uint64_t marked, out;  /* packets of the epoch in flight; released */
    bool dropped;          /* what was held is gone */
};

/* What an agent has on disk; written and synced in one go. */
struct disk {
    uint64_t generation;
    uint64_t claim;       /* nonce of a claim that is out; 0: none */
    bool won;             /* granted, not running (yet): handed back */
    bool running;         /* birch: about to be unpaused, or running */
    bool yielded, fenced; /* alder */
};

struct alder {
    struct lease lease;
    uint64_t session;
    bool open;          /* HELLO seen and fitting */
    bool replica_known; /* birch holds what `acked` says */
    bool discarding;
    uint64_t incarnation, epoch, acked, in_flight;
    uint64_t heard, connect_at;
    unsigned ticks; /* it looks at the arbiter's record now and then */
};

struct birch {
    struct lease lease;
    uint64_t session;
    /* The replica: guest memory in pieces; committed 0: none. */
    uint64_t incarnation, committed, memory[PIECES];
    uint64_t in_epoch, in_memory[PIECES]; /* the incoming epoch */
    unsigned in_pieces;
    uint64_t heard;
    unsigned ticks;
    bool starting;
};

struct stats {
    uint64_t epochs, events, runs, takeovers, alone, handed_back, fenced,
        settled, without, stalls;
};

struct world {
    uint64_t now, seq, seed, rng, hash;
    struct event *heap;
    unsigned count, room;
    struct proc proc[PROCS];
    bool host_up[HOSTS];
    bool cut[HOSTS][HOSTS]; /* from, to */
    unsigned lossy;         /* of 1000 datagrams */
    unsigned slow;          /* a delay's most, in T/1000 */
    int64_t drift[HOSTS];   /* in 1/10000 */
    uint64_t clock0[HOSTS];
    uint64_t fifo[2]; /* of the agents' session: last arrival, by end */
    uint64_t torn[2]; /* session whose way to that end is lost */
    uint64_t sessions;
    uint64_t unsent; /* up to this session nothing arrives any more */
    bool slow_disk;
    bool fails_to_start; /* the next takeover */
    bool calm;           /* no more faults; */
    int lost;            /* this host stays lost; HOSTS: none */
    unsigned crash_odds; /* at a moment: one in so many; 0: never */

    struct guest guest[2];
    bool shell; /* birch's paused shell has all it needs: */
    uint64_t shell_memory[PIECES];
    struct disk disk[2];
    struct buf witness_disk;
    struct witness witness;
    struct alder a;
    struct birch b;

    struct judge {
        bool forked;
        uint64_t fork_steps, seen; /* of alder's packets, outside */
        uint64_t taken;            /* steps of the newest epoch taken */
        char complaint[200];
    } judge;
    struct stats *stats;
    bool trace;
    bool only_stalls; /* of at most 0.8 of the timeout */
};

/* --- world.c --- */
uint32_t rnd(struct world *w, uint32_t below);
/* Host's monotonic clock. */
uint64_t host_clock(const struct world *w, int host);
int host_of(int proc);
void after(struct world *w, uint64_t ns, int proc, enum msg_kind kind,
           const struct msg *m);
/* A datagram: lost, late, twice, in any order. */
void datagram(struct world *w, int from, int to, enum msg_kind kind,
              const struct msg *m);
/* A record in the agents' session. */
void record(struct world *w, int from, enum msg_kind kind, struct msg *m);
void proc_kill(struct world *w, int proc);
void host_kill(struct world *w, int host);
void host_boot(struct world *w, int host);
/* A moment at which a process may die: true when it just did. */
bool moment(struct world *w, int proc);
void trace(struct world *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* What no step waits for is not written yet, and goes with the process. */
bool unwritten(struct world *w);
/* What the arbiter's answer means for a lease. */
bool record_of(const struct msg *m, struct lease_record *r);
/* Send lease->request; the claim is on `disk` before. False: we died. */
bool lease_send(struct world *w, int proc, struct lease *l, struct disk *d);
void world_deliver(struct world *w, const struct event *ev);
bool world_step(struct world *w);
void world_free(struct world *w);

uint64_t guest_steps(const struct world *w, const struct guest *g);
void guest_pause(struct world *w, struct guest *g);
void guest_run(struct world *w, struct guest *g);
/* Let out what was sent up to `steps`, or all of it for good. */
void guest_release(struct world *w, int host, uint64_t steps);
void guest_unplug(struct world *w, int host);

/* --- alder.c, birch.c --- */
void alder_boot(struct world *w);
void alder_event(struct world *w, const struct event *ev);
void birch_boot(struct world *w);
void birch_event(struct world *w, const struct event *ev);

/* --- faults.c --- */
void faults_begin(struct world *w);
void fault_strike(struct world *w);
/* No more faults; everybody comes back. */
void faults_end(struct world *w);
/* One of the three is lost for good, or none. */
void faults_lose(struct world *w);

/* --- judge.c --- */
void judge_output(struct world *w, int host, uint64_t steps);
void judge_takeover(struct world *w, const uint64_t memory[PIECES]);
void judge_always(struct world *w);
/* In the calm: must the VM run when it is over? */
bool judge_expects(struct world *w);
/* Output has come out since `mark` was taken. */
uint64_t judge_mark(const struct world *w);
bool judge_runs(const struct world *w, uint64_t mark);
void complain(struct world *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
