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
 * when there are none. log_mb: 1 to DISK_LOG_MB_MAX. */
int disk_device_new(struct checkpoint_device **d, uint32_t domid,
                    unsigned log_mb, struct err *e);
int disk_replica_new(struct replica_device **d, uint32_t domid, struct err *e);

/* For a takeover whose agent died: the images of the domain's disks are exactly
 * `epoch`, or become it. Fine where that was done, and where there are none. */
int disk_replica_promote(uint32_t domid, uint64_t epoch, struct err *e);

#endif
