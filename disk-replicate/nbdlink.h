// SPDX-License-Identifier: Apache-2.0
/* The kernel's NBD client: a table of operations, the real ones by generic
 * netlink (linux/nbd-netlink.h, Linux 5.14 or later). A device carries its
 * owner's name as the backend identifier, which the kernel compares at each
 * reconnect, so no device of somebody else is ever taken. Any thread. */
#ifndef DISK_REPLICATE_NBDLINK_H
#define DISK_REPLICATE_NBDLINK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define NBDLINK_NAME 96 /* bytes of a name, with its NUL */

struct nbdlink_params {
    uint64_t bytes;
    bool read_only;
    /* A request that takes longer is sent again on the next connection, which
     * is waited for this long before requests fail. Seconds, not 0. */
    unsigned request_s, dead_s;
};

struct nbdlink;

struct nbdlink_ops {
    /* The device of that name. ERR_GONE: there is none. */
    int (*find)(struct nbdlink *l, const char *name, int *index, struct err *e);
    /* A new one, served at the other end of `fd`; the kernel keeps a
     * reference, the caller closes its own. */
    int (*connect)(struct nbdlink *l, const char *name, int fd,
                   const struct nbdlink_params *p, int *index, struct err *e);
    /* Another socket for it, if the old one is dead. If not yet, 0 as well,
     * and the kernel takes no reference: the other end sees the end. */
    int (*reconnect)(struct nbdlink *l, const char *name, int index, int fd,
                     struct err *e);
    /* The server is told, and the device is free. */
    int (*disconnect)(struct nbdlink *l, const char *name, int index,
                      struct err *e);
};

struct nbdlink {
    const struct nbdlink_ops *ops;
};

extern struct nbdlink nbdlink_kernel;
/* For tests: a socket in the directory that UNDERSTUDY_NBD names. */
extern struct nbdlink nbdlink_fake;

#endif
