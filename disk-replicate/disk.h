// SPDX-License-Identifier: Apache-2.0
/* One disk's block server, from its image to the kernel's device, and its
 * keeper, which starts it again. Each is a process. Fault point: disk.attached
 * (a connection is up, nothing was received yet). */
#ifndef DISK_REPLICATE_DISK_H
#define DISK_REPLICATE_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "disk-replicate/nbdlink.h"

#define DISK_ID   64 /* bytes of an id, with its NUL: [A-Za-z0-9._-] */
#define DISK_PATH 256

struct disk_config {
    char id[DISK_ID]; /* of this disk on this host */
    char image[DISK_PATH];
    bool read_only;
    unsigned workers;           /* 1 to 64 */
    unsigned request_s, dead_s; /* see nbdlink.h */
    unsigned lock_wait_ms;      /* for a predecessor to be out of the kernel */
    /* A successor: without a device of its name it was disconnected. */
    bool again;
    struct nbdlink *link;
};

/* The name of its device. */
void disk_name(const char *id, char out[NBDLINK_NAME]);

/* Lock memory, be an IO flusher, be the last one to be killed for memory. What
 * doesn't work is logged. Of the whole process. */
void disk_harden(void);

/* Serve: attach a new device, or with `again` the one that is there, until it
 * is disconnected (0) or can't go on. Without `again` a device of that name is
 * ERR_REFUSED. `attached` is called each time a
 * connection is up. A lost connection is replaced. */
int disk_serve(const struct disk_config *c,
               void (*attached)(void *arg, int index), void *arg,
               struct err *e);

/* The keeper: disk_serve() in a child, and then with `again`, until it ends by
 * itself with 0. The first time, what happened is written to `ready_fd`, which
 * is then closed: "/dev/nbdN\n", or "error\n" with two lines, text and hint,
 * and then the keeper ends as well. Returns the exit status of the process. */
int disk_keep(const struct disk_config *c, int ready_fd);

#endif
