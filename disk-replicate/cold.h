// SPDX-License-Identifier: Apache-2.0
/* A VM's disks on a backup that has lost the memory of its replica: which epoch
 * they can all be, and making them that, for a start of the VM from its disks
 * alone. Calls wait for this host's disk. Any thread. */
#ifndef DISK_REPLICATE_COLD_H
#define DISK_REPLICATE_COLD_H

#include <stdint.h>

#include "common/err.h"
#include "disk-replicate/disk_control.h"
#include "disk-replicate/journal.h"

/* Which images the VM's disks are, on this host. */
struct cold_disks {
    int n;
    struct cold_disk {
        uint32_t device;
        char image[DISK_PATH];
    } disk[DISKS_MAX];
};

/* Of a domain whose disks are being served. n is 0 when there are none of ours.
 */
int cold_list(struct cold_disks *all, uint32_t domid, struct err *e);

/* The newest epoch that all of them can be, and when it was prepared here. With
 * nobody serving them, and nothing changed. ERR_REFUSED: there is none, and
 * why. */
int cold_look(const struct cold_disks *all, uint64_t *epoch, uint64_t *wall_ms,
              struct err *e);

/* The same of what the journals have, n of them, at least 1; 0: there is none.
 * Pure. */
uint64_t cold_common(const struct journal_found *f, int n, uint64_t *wall_ms);

/* The disks of the domain, which are those, become exactly that epoch, durably.
 * Fine where it was done. */
int cold_start(const struct cold_disks *all, uint32_t domid, uint64_t epoch,
               struct err *e);

#endif
