// SPDX-License-Identifier: Apache-2.0
/* The agents of this host, as the daemon sees them: one `struct vm` a record.
 * Starts agents, adopts those that a former daemon started, starts dead ones
 * again (0.2 to 10 s later) for as long as their record exists, and talks to
 * them. An agent is a session of its own and outlives the daemon; its death is
 * learnt from a pidfd, whoever its parent is. Loop thread only. */
#ifndef AGENT_SUPERVISE_H
#define AGENT_SUPERVISE_H

#include <sys/types.h>

#include "agent/daemon.h"
#include "common/clock.h"

enum vm_news {
    VM_NEWS_UP,    /* its agent is connected */
    VM_NEWS_STATE, /* vm->state changed; msg is the agent's message */
    VM_NEWS_EVENT, /* the agent reports msg */
    VM_NEWS_DOWN,  /* the agent died; it is started again later */
    VM_NEWS_GONE,  /* the record is deleted: the last news, vm is freed after */
};

/* Embedded by whoever wants to hear of one VM. `news` may unwatch and watch
 * anything. */
struct vm_watch {
    void (*news)(struct vm_watch *w, struct vm *vm, enum vm_news news,
                 const json_t *msg);
    struct vm *vm; /* NULL: not watching */
    struct vm_watch *next;
    bool due;
};

struct vm_call;

/* Longer than a sync of a slow disk, or a start on a loaded host. */
#define HANG_MIN_NS (10 * NS_PER_SEC)

struct vm {
    struct vm *next;
    struct daemon *d;
    struct vm_record rec; /* as last read; the agent is its writer */
    enum vm_state state;  /* as last told */
    char reason[512];
    struct err failure;    /* what a "failed" event said; kind 0: none */
    bool fresh;            /* protected by us and not Protected yet */
    unsigned deaths;       /* of agents since the last quiet half minute */
    bool damaged;          /* its record can't be read: nothing is started */
    struct ipc_conn *conn; /* NULL: not connected */
    pid_t pid;             /* 0: no process */
    int pidfd;
    ev_io exited;
    ev_timer retry; /* connect again, or start again */
    double backoff;
    uint64_t started_ns;
    uint64_t reprotect_ns; /* not again by itself before this */
    uint64_t quiet_ns; /* since its process said anything: supervise_tick() */
    bool asked;        /* for a sign of life, on this connection */
    bool hung;         /* told, and ended if it may be */
    bool writing;      /* supervise_unwant()'s job: start nothing */
    struct vm_watch *watches;
    struct vm_call *calls;
};

/* Read the records; adopt or start their agents. A damaged record is an event
 * and a VM in state Failed that nothing is done for. */
int supervise_start(struct daemon *d, struct err *e);
/* Let go of all agents, which live on. */
void supervise_stop(struct daemon *d);
/* Each beat of the daemon; `pause_ns` is the time that should be between two.
 * An agent that says nothing for three timeouts (and at least HANG_MIN_NS) is
 * killed: its successor puts right what it left (DESIGN I5), and nobody else
 * acts while this daemon is heard. A backup's agent with a replica is spared
 * while its primary is silent: it holds the only copy. When the daemon itself
 * stood still, counting starts again. */
void supervise_tick(struct daemon *d, uint64_t pause_ns);
/* Whoever makes a record, in a job, claims its uuid before: a `protect` typed
 * here and a peer's `prepare` may want the same at the same time. ERR_REFUSED
 * while somebody has it. */
int supervise_claim(struct daemon *d, const char *uuid, struct err *e);
void supervise_unclaim(struct daemon *d, const char *uuid);
/* Start the agent of a record that was just saved; ends the claim. */
struct vm *supervise_add(struct daemon *d, const struct vm_record *r);

/* Its protection is to end: written into the record by a job while no agent
 * runs (else nothing happens), whose successor then finds it. */
void supervise_unwant(struct vm *vm);

/* By name or uuid; NULL when there is none. */
struct vm *vm_find(struct daemon *d, const char *name);
struct vm *vm_find_uuid(struct daemon *d, const char *uuid);
/* The same as an error of kind ERR_GONE. */
struct vm *vm_need(struct daemon *d, const char *name, struct err *e);

void vm_watch(struct vm *vm, struct vm_watch *w);
void vm_unwatch(struct vm_watch *w); /* idempotent */

/* Send a message without an answer; nothing happens when not connected. */
void vm_send(struct vm *vm, const json_t *msg);
/* A request and its reply. Exactly one call of `done` follows, from the loop:
 * with the reply, or with NULL and why. `msg` is stolen and gets an id. */
typedef void vm_done(void *arg, const json_t *reply, const struct err *why);
struct vm_call *vm_ask(struct vm *vm, json_t *msg, double timeout_s,
                       vm_done *done, void *arg);
/* `done` is not called any more. NULL is fine. */
void vm_ask_cancel(struct vm_call *c);

/* A status object from what the daemon itself knows, for an agent that does
 * not answer. */
json_t *vm_status_known(const struct vm *vm);
/* Add to a status what the agent itself can't know: "answers" and
 * "agent_deaths". */
void vm_status_add(const struct vm *vm, json_t *status, bool answers);
/* How often its agents ended, none of them half a minute old. */
unsigned vm_deaths(const struct vm *vm);

#endif
