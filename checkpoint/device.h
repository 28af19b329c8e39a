// SPDX-License-Identifier: Apache-2.0
/* A checkpoint device: anything besides memory that takes part in an epoch.
 * net-buffer and disk-replicate are the two there are. Modelled on the five
 * verbs of libxl's checkpoint devices (tools/libs/light, Xen 4.17).
 *
 * All calls come from the engine's thread, one VM's device is never called
 * from two threads. Order in one epoch: mark (guest stopped), then either
 * commit (the backup acknowledged this epoch) or, when the session is lost,
 * nothing until `abort` or the commit of the same epoch after a reconnect. At
 * most one epoch is marked and not yet committed.
 *
 * An epoch can be given up after its mark: the session broke before the backup
 * had it, or another device's mark failed. Then the same number is captured
 * again and mark(n) comes a second time: what the first mark closed stays
 * uncommitted, and the end of epoch n moves to now. A device that only holds
 * output may keep the earlier end instead: what is released an epoch late is
 * safe, what is released early is not. */
#ifndef CHECKPOINT_DEVICE_H
#define CHECKPOINT_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"

/* How much output a device holds back; summed over devices by the engine to
 * decide on early epochs, and shown by `status`. */
struct device_load {
    uint64_t held_bytes;
    uint64_t held_packets;
    uint64_t dropped_packets; /* since setup: overflow */
    bool want_epoch;          /* more than the threshold is held */
    uint64_t copied_bytes;    /* of its state, in the initial copy: so far, */
    uint64_t copy_bytes;      /* of so many; 0: it has none */
    uint64_t backlog_bytes;   /* of its state, not the backup's yet */
    bool stale; /* the VM's devices are not the replica's any more: it is
                 * void, and poll's error says why */
};

struct checkpoint_device;

/* Where a device's records go: DISK payloads of docs/epoch-format.md. Waits for
 * room; -1: the engine has something else to do, return at once. */
struct device_sink {
    int (*put)(void *arg, const void *payload, size_t len, struct err *e);
    /* During copy() and idle(): the next answer of the backup's side, appended
     * to *out. 1: there was one; 0: none came within some milliseconds, or, in
     * idle(), there is none yet; -1 as above. */
    int (*answer)(void *arg, struct buf *out, struct err *e);
    void *arg;
    uint64_t session; /* with another one, answers are not for what was put */
};

struct checkpoint_device_ops {
    const char *name;
    /* Take hold of the VM's device. Output flows freely until the first mark
     * (nothing is held while the initial copy runs). May be slow. */
    int (*setup)(struct checkpoint_device *d, struct err *e);
    /* The guest is stopped and its state of epoch n is captured: close what
     * belongs to epoch n; whatever comes from now on belongs to n+1. The
     * first mark starts the holding back. Must not block, allocate or fail
     * for a reason that could be known before (I4); an error here makes the
     * engine give up the epoch. */
    int (*mark)(struct checkpoint_device *d, uint64_t epoch, struct err *e);
    /* Epoch n is the backup's: let its output go. */
    int (*commit)(struct checkpoint_device *d, uint64_t epoch, struct err *e);
    /* Protection ended or its replica is void: release everything that is
     * held, if `release`, and from now on hold nothing; or drop it all. The
     * caller has the right to that (I1, I3). Setup state stays. */
    int (*abort)(struct checkpoint_device *d, bool release, struct err *e);
    /* Undo setup, leave nothing behind. Idempotent. What is still held is
     * released if `release`, else dropped. */
    void (*teardown)(struct checkpoint_device *d, bool release);
    /* Cheap, called a few times an epoch. May also look for hot-plugged
     * interfaces. */
    int (*poll)(struct checkpoint_device *d, struct device_load *load,
                struct err *e);
    void (*free)(struct checkpoint_device *d);

    /* The rest is NULL in a device that holds nothing of the VM's state. All
     * are called while the guest runs, and wait for this host only. */

    /* The initial copy, as live records. `begin`: from the start, forgetting
     * what was marked. Returns when all has been put once; called again now
     * and then until the first mark, to put what has changed since if it is
     * much. An error makes the replica void. */
    int (*copy)(struct checkpoint_device *d, bool begin,
                const struct device_sink *sink, struct err *e);
    /* Just before a commit: the backup's side has the records of epoch n, and
     * of all before, on its own disk for good; 0: of none. May be NULL. */
    void (*kept)(struct checkpoint_device *d, uint64_t epoch);
    /* After mark(n): put the records of epoch n; the whole epoch again after
     * each mark(n). ERR_GONE: what was marked can't be had any more, the epoch
     * is given up, with the session. Another error makes the replica void. */
    int (*records)(struct checkpoint_device *d, uint64_t epoch,
                   const struct device_sink *sink, struct err *e);
    /* Between epochs, at least once before each, while none is on its way: a
     * step of some milliseconds of whatever was asked for beside, put as live
     * records. Answers are not waited for. True: call it again at once. */
    bool (*idle)(struct checkpoint_device *d, const struct device_sink *sink);
};

/* Embedded first in the implementation's own structure. */
struct checkpoint_device {
    const struct checkpoint_device_ops *ops;
};

/* --- The backup's side of a device that has state ----------------------------
 * Calls come from the replica's apply thread, and, when that is at rest, from
 * who takes over. They may wait for this host's disk. After an error of any but
 * `promote` the replica is void, unless it is ERR_GONE and again() helps. */

struct replica_device;

struct replica_device_ops {
    /* One DISK payload, live or of the epoch after the last decided one; not
     * checked yet. What is appended to *answer goes to the primary. An error of
     * one of an epoch is none before all of that has come. */
    int (*record)(struct replica_device *d, const void *payload, size_t len,
                  struct buf *answer, struct err *e);
    /* All of epoch n was handed over, in its coming `coming` (an epoch that is
     * not committed may come again, and need not be the same), and only now it
     * is known that its digest is right: make sure that it can be kept whatever
     * happens next. Epochs without records as well. *kept: the last epoch that
     * is on this host's disk for good, with all before it; 0: none. */
    int (*prepare)(struct replica_device *d, uint64_t epoch, uint64_t coming,
                   uint64_t *kept, struct err *e);
    /* Epoch n is committed: it was prepared. May wait for this host's disk. */
    int (*decide)(struct replica_device *d, struct err *e);
    /* Forget all that is not decided. */
    void (*drop)(struct replica_device *d);
    /* Who keeps its state was lost (ERR_GONE of record, prepare or decide),
     * and the replica is `epoch`: go on with a successor, which is waited for,
     * from that epoch; the same as drop() for what was not lost. The records of
     * the next one are handed over again. An error makes the replica void. */
    int (*again)(struct replica_device *d, uint64_t epoch, struct err *e);
    /* The VM runs here from epoch n: have exactly that, durably. Idempotent. */
    int (*promote)(struct replica_device *d, uint64_t epoch, struct err *e);
    void (*free)(struct replica_device *d);
};

/* Embedded first in the implementation's own structure. */
struct replica_device {
    const struct replica_device_ops *ops;
    uint64_t max_bytes; /* DISK payloads an epoch may have */
};

#endif
