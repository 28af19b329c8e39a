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
#include <stdint.h>

#include "common/err.h"

/* How much output a device holds back; summed over devices by the engine to
 * decide on early epochs, and shown by `status`. */
struct device_load {
    uint64_t held_bytes;
    uint64_t held_packets;
    uint64_t dropped_packets; /* since setup: overflow */
    bool want_epoch;          /* more than the threshold is held */
    bool stale; /* the VM's devices are not the replica's any more: it is
                 * void, and poll's error says why */
};

struct checkpoint_device;

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
};

/* Embedded first in the implementation's own structure. */
struct checkpoint_device {
    const struct checkpoint_device_ops *ops;
};

#endif
