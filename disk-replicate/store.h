// SPDX-License-Identifier: Apache-2.0
/* A file or block device as the journal, the bitmap and the image use it: a
 * table of operations, so that a test can pull the plug at each of them. What
 * was written is durable after the next successful sync; before that, any part
 * of it may be, in any order. After a failed sync nothing is known: the owner
 * gives up and starts again from what is on disk. */
#ifndef DISK_REPLICATE_STORE_H
#define DISK_REPLICATE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct store;

struct store_ops {
    /* All of it; the end of the file is an error. */
    int (*read)(struct store *s, uint64_t offset, void *p, size_t len,
                struct err *e);
    int (*write)(struct store *s, uint64_t offset, const void *p, size_t len,
                 struct err *e);
    /* Reads as zeroes afterwards; may give the space back. */
    int (*zero)(struct store *s, uint64_t offset, uint64_t len, struct err *e);
    int (*sync)(struct store *s, struct err *e);
};

struct store {
    const struct store_ops *ops;
    int fd;           /* of the real one; the caller's to close */
    const char *name; /* for errors */
};

/* The real operations on an open descriptor. */
extern const struct store_ops store_fd_ops;

#endif
