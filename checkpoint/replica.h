// SPDX-License-Identifier: Apache-2.0
/* The backup's store: the shell's memory, at every moment exactly the last
 * committed epoch or on its way from the one before to it (I2).
 *
 * The agent's loop thread hands in the records of the session as they come.
 * Each PAGES payload is checked and unpacked on arrival, so a committed epoch
 * can always be applied; each DISK goes to its disk, which keeps it until the
 * epoch is decided. At COMMIT, counts and digest are verified; then an own
 * thread, once the epoch before is applied, commits it, calls ack(), and writes
 * it into the shell.
 *
 * Before the first commit there is no replica: live pages go straight into the
 * shell. A record that the format or the order does not allow is a protocol
 * violation: replica_record fails, and the caller closes the session and calls
 * replica_session_lost.
 *
 * Fault points: replica.before_ack (complete, disks prepared, not committed),
 * .after_ack, .applying, .applied, .takeover. */
#ifndef CHECKPOINT_REPLICA_H
#define CHECKPOINT_REPLICA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/device.h"
#include "checkpoint/epoch.h"
#include "common/err.h"
#include "hypervisor/hv.h"

struct replica;

struct replica_config {
    uint32_t domid; /* of the paused shell */
    char name[64];  /* for the log */
    /* From the blueprint: one past the highest frame of the primary's guest;
     * 0: the shell's own. A frame at or above it is a violation. */
    uint64_t end_gfn;
    /* A frame below end_gfn that the shell has no RAM for (its own special
     * pages) is ignored and counted, up to this many different ones; more is
     * a violation. 0: 64. */
    uint64_t max_lacking;
    /* Memory for one incoming epoch; 0: the shell's RAM, its
     * bookkeeping, and 64 MiB. */
    uint64_t max_bytes;
    /* Epoch n is committed: send ACK(n, applied, disks). Called on the apply
     * thread, no locks held; may come just after replica_session_lost, then it
     * is harmless to send or to drop. Must not call into the replica. */
    void (*ack)(void *arg, uint64_t epoch, uint64_t applied, uint64_t disks);
    /* A device's answer for the primary: DISK_WANT in this session. Same
     * thread and rules. */
    void (*answer)(void *arg, const void *payload, size_t len);
    /* The replica is void: its disks can't follow. Same thread and rules; at
     * most once, and nothing is committed afterwards. */
    void (*failed)(void *arg, const struct err *why);
    void *ack_arg;
    /* The VM's disks, NULL: it has none, and DISK is a violation. Taken over
     * when replica_open() succeeds. */
    struct replica_device *disks;
};

/* Map the shell for writing and start the apply thread. Takes over `hv` on
 * success; from then on only the replica uses it. */
int replica_open(struct replica **rep, struct hv *hv,
                 const struct replica_config *config, struct err *e);

/* --- Loop thread -------------------------------------------------------- */

/* One record of the current session. */
int replica_record(struct replica *rep, enum epoch_record type,
                   const void *payload, size_t len, struct err *e);
/* The session is over: forget the incoming epoch, keep the committed one. A
 * new session's records may follow at once. When this returns,
 * replica_committed() is what the next session must be opened with. */
void replica_session_lost(struct replica *rep);
/* The last committed epoch, 0: none. Any thread. */
uint64_t replica_committed(struct replica *rep);

struct replica_status {
    uint64_t committed, applied;
    uint64_t committed_ns; /* monotonic, 0: never */
    uint64_t live_pages;   /* of the initial copy, received */
    uint64_t pages, bytes; /* received in epochs; payload bytes of all */
    uint64_t lacking;      /* different frames the shell has no RAM for */
    uint64_t held_bytes;   /* memory of the incoming epoch */
};
void replica_status(struct replica *rep, struct replica_status *st);

/* Acknowledge nothing any more, forget the incoming epoch, wait until the
 * committed one is in the shell. The platform state that belongs to it is
 * borrowed until replica_free(). Waits for local memory copies, and for what a
 * disk is just being told. ERR_REFUSED when nothing was ever committed. May be
 * called again. */
int replica_finish(struct replica *rep, const void **state, size_t *len,
                   struct err *e);
/* Become the VM: replica_finish(), promote the disks, and set the platform
 * state. The caller has
 * won the generation; it unpauses the shell next. May be called again. */
int replica_takeover(struct replica *rep, struct err *e);

/* Stop the thread, unmap, close hv. The shell is left as it is: the caller runs
 * or destroys it. NULL is fine. */
void replica_free(struct replica *rep);

#endif
