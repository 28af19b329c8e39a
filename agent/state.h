// SPDX-License-Identifier: Apache-2.0
/* The states of a protected VM: one table of names and legal transitions, one
 * function that makes them. The same words are used by the CLI, JSON, logs and
 * the documentation. Both roles use the same table: a backup is Syncing until
 * its replica is complete, Protected while it follows, Degraded while it has a
 * whole replica and no session. Pure, no I/O. */
#ifndef AGENT_STATE_H
#define AGENT_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum vm_state {
    VM_UNPROTECTED, /* no replica, output flows */
    VM_SYNCING,     /* the first (or a new) whole copy is on its way */
    VM_PROTECTED,   /* epochs are committed, a takeover loses nothing */
    VM_DEGRADED,    /* runs on without a backup; tries to get it back */
    VM_MIGRATING,   /* a planned handover is under way */
    VM_TAKEN_OVER,  /* this host was the backup and runs the VM now */
    VM_FENCED,      /* the other host won: our copy keeps still */
    VM_FAILED,      /* gave up; `reason` says why */
};
#define VM_STATES 8

/* "Syncing", ...; "?" for a number that is no state. */
const char *vm_state_name(enum vm_state s);
/* The other way round, exact spelling. False when it is no state's name. */
bool vm_state_parse(const char *name, enum vm_state *s);
/* What the table says. Staying is always legal. */
bool vm_state_legal(enum vm_state from, enum vm_state to);

/* A state and whom to tell. Zero-initialised it is Unprotected and tells
 * nobody. `now`, `before` and `since_ns` are written by state_move() only. */
struct state {
    enum vm_state now, before;
    uint64_t since_ns; /* monotonic, of the last real change */
    /* Called after each real change; may be NULL. `why` is never NULL. */
    void (*changed)(void *arg, enum vm_state from, enum vm_state to,
                    const char *why);
    void *arg;
};

/* Start from a record: no check, nobody is told. */
void state_load(struct state *s, enum vm_state now, uint64_t now_ns);
/* The one setter. Moving to the same state does nothing. An illegal move
 * changes nothing and fails with ERR_REFUSED: the caller's logic is wrong, it
 * logs and ends itself rather than go on. */
int state_move(struct state *s, enum vm_state to, const char *why,
               uint64_t now_ns, struct err *e);

#endif
