// SPDX-License-Identifier: Apache-2.0
/* A disk's image: a raw file or a block device, opened by one server only.
 * Every call may come from any thread. */
#ifndef DISK_REPLICATE_IMAGE_H
#define DISK_REPLICATE_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "disk-replicate/store.h"

struct image {
    struct store store;
    uint64_t bytes; /* a multiple of 512, not 0 */
    bool read_only, device;
    bool sparse; /* where it has holes can be asked, cheaply */
    char path[256];
    /* Atomic: the errno of a sync that the user has to hear of. `unsaid` may
     * point to where it outlives the server; NULL: here. */
    uint32_t here_unsaid, *unsaid;
};

/* Open and lock. Who has the lock already is waited for, `wait_ms` at most: a
 * predecessor that was killed has it until the kernel is done with its last
 * write. Locks: flock() against another server of ours; an OFD lock, which
 * QEMU's tools respect; O_EXCL on a device, against mounts. A read-only image
 * may be shared with others that only read. ERR_REFUSED: it is in use, or no
 * disk. */
int image_open(struct image *im, const char *path, bool read_only,
               unsigned wait_ms, struct err *e);
void image_close(struct image *im);

/* All but image_is_hole() return 0 or an errno. */
int image_read(struct image *im, uint64_t offset, void *p, uint32_t len);
/* Nobody writes there: true: it reads as zeroes, and need not be read for that.
 * False: who knows. */
bool image_is_hole(const struct image *im, uint64_t offset, uint32_t len);
int image_write(struct image *im, uint64_t offset, const void *p, uint32_t len,
                bool fua);
/* Reads as zeroes afterwards; `hole`: without taking space, if possible. */
int image_zero(struct image *im, uint64_t offset, uint32_t len, bool hole,
               bool fua);
/* A hint: where a hole can't be made, nothing is done. */
int image_trim(struct image *im, uint64_t offset, uint32_t len, bool fua);
/* An error stays, for each flush from now on and each write that is to be on
 * the medium, until image_said(). */
int image_flush(struct image *im);
/* The user has an answer with that error of image_flush(). */
void image_said(struct image *im, int error);
/* A sync for who is not the image's user: what fails, the next flush of the
 * user fails with as well (the kernel says it once). */
int image_sync(struct image *im);

#endif
