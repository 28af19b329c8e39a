// SPDX-License-Identifier: Apache-2.0
/* What must not be served, before a server is started for it: an image that is
 * in somebody else's hands, or a replica. The locks of image.h hold what is
 * served from then on; this says why, and sees those that take no locks. */
#ifndef DISK_REPLICATE_GUARD_H
#define DISK_REPLICATE_GUARD_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "common/err.h"

/* `image` is a real path. ERR_REFUSED when
 *
 * - a server of this host has it already (two that only read may share it);
 * - it is a replica and `guest`: a VM's own disk is asked for;
 * - it is a file that somebody has open for writing: a mounted loop device, a
 *   swap file, a program;
 * - it is a device that is mounted, swap, or a part of another device; its
 *   partitions count.
 *
 * Blocks on the disk. SIGIO is to be ignored: the file's lease is taken for a
 * moment. */
int guard_check(const char *image, bool read_only, bool guest, struct err *e);

/* Where the device, or a partition of it, is mounted, out of the text of
 * /proc/self/mountinfo: the mount point in out[size], "" for nowhere.
 * `partition_of` is asked for devices with other numbers. */
void guard_mount_find(FILE *mounts, dev_t device,
                      bool (*partition_of)(dev_t part, dev_t device), char *out,
                      size_t size);

#endif
