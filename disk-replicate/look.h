// SPDX-License-Identifier: Apache-2.0
/* What can be seen of this host's disks without asking their servers, which
 * talk to one agent each: their records and their shared pages. Reads small
 * files; any thread. */
#ifndef DISK_REPLICATE_LOOK_H
#define DISK_REPLICATE_LOOK_H

#include "disk-replicate/disk_control.h"

#define DISK_VDEV 16

struct disk_view {
    char id[DISK_ID];
    char image[DISK_PATH];
    bool read_only;
    long server; /* its process; 0: none lives */
    bool of_vm;  /* an id of block-understudy: the next three are known */
    uint32_t domid, device;
    char vdev[DISK_VDEV];
    struct disk_page page; /* zeroes without a server */
};

/* Calls `each` with all disks that are served; returns their number or -1. */
int disk_look(void (*each)(void *arg, const struct disk_view *v), void *arg,
              struct err *e);

/* "xvda", "hdb", "sdc1" of a device's number (Xen's docs/misc/vbd-interface);
 * others as the number. */
void disk_vdev(uint32_t device, char out[DISK_VDEV]);

#endif
