// SPDX-License-Identifier: Apache-2.0
/* A VM's disks as a checkpoint device, on the primary, and as what a replica
 * has of them, on the backup: both speak to the block servers of the VM's
 * disks through disk_control.h. The payloads are DISK of docs/epoch-format.md.
 *
 * mark() is a store to the shared page of each disk. A server that is lost, or
 * whose log overflowed, makes the replica void: poll() says so. */
#ifndef DISK_REPLICATE_DEVICE_H
#define DISK_REPLICATE_DEVICE_H

#include "checkpoint/device.h"

/* A server's log: data of so many MiB at most, written and zeroed blocks of 4
 * KiB together. What an epoch sends of a disk is not more than fits. */
#define DISK_LOG_MB_MAX  64u
#define DISK_LOG_ENTRIES 262144u
#define DISK_EPOCH_BYTES                                                       \
    ((DISK_LOG_MB_MAX + 1) * (1ull << 20) + DISK_LOG_ENTRIES * 16ull)

/* Of the disks of `domid` that are served by us and may be written. *d is NULL
 * when there are none. ERR_REFUSED: there are fewer than `expected`. log_mb: 1
 * to DISK_LOG_MB_MAX. copy_mb_s: so many MiB of the images a second are looked
 * at by an initial copy, or by comparing both sides; 0: as fast as can be. */
int disk_device_new(struct checkpoint_device **d, uint32_t domid, int expected,
                    unsigned log_mb, unsigned copy_mb_s, struct err *e);
/* `durable`: what is prepared is on this host's disk. */
int disk_replica_new(struct replica_device **d, uint32_t domid, bool durable,
                     struct err *e);

/* --- Comparing both sides while the guest runs and epochs go on --------------
 *
 * Each block is compared as it was at the end of some epoch, on both hosts, so
 * a difference is one: no write in between can make it. Blocks that are written
 * all the time and are not known at the end of any of many epochs are counted
 * and not compared. */

enum disk_verify_state {
    DISK_VERIFY_NONE,
    DISK_VERIFY_RUNS,
    DISK_VERIFY_DONE,
    DISK_VERIFY_FAILED, /* `why` */
};

#define DISK_VERIFY_RANGES 4096u

struct disk_range {
    uint32_t device;
    uint64_t offset, bytes;
};

struct disk_verify {
    enum disk_verify_state state;
    uint64_t total, done; /* bytes of all disks */
    uint64_t differing, unknown;
    /* Of what differs, in order: so many at most. */
    struct disk_range *ranges;
    size_t count;
    struct err why;
};

/* Both: any thread, as long as *d lives. Begin, unless it is under way. */
void disk_verify_begin(struct checkpoint_device *d);
/* The last one, as far as it is; out->ranges is to be freed. */
void disk_verify_look(struct checkpoint_device *d, struct disk_verify *out);

/* For a takeover whose agent died: the images of the domain's disks are exactly
 * `epoch`, or become it. Fine where that was done, and where there are none. */
int disk_replica_promote(uint32_t domid, uint64_t epoch, struct err *e);

#endif
