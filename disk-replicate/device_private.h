// SPDX-License-Identifier: Apache-2.0
/* Inside of the primary's disks: device.c has log, copy and epochs,
 * device_verify.c the comparing of both sides. */
#ifndef DISK_REPLICATE_DEVICE_PRIVATE_H
#define DISK_REPLICATE_DEVICE_PRIVATE_H

#include "disk-replicate/device.h"
#include "disk-replicate/disk_control.h"
#include "disk-replicate/epochlog.h"
#include "disk-replicate/rate.h"

#define BLOCK_SECTORS (EPOCHLOG_BLOCK / SECTOR)

struct disk {
    struct diskctl server;
    struct disk_page *page;
    uint32_t device;
    uint64_t sectors;
    /* Of them: asked for what differs; copied, where it did. */
    uint64_t asked, copied;
    uint64_t differed;
    bool logging; /* its server was asked to log */
};

struct verify;

struct disks {
    struct checkpoint_device dev; /* first */
    struct disk disk[DISKS_MAX];
    int n;
    unsigned log_mb;
    uint64_t cut;      /* the open one, of all disks */
    struct buf out;    /* a payload */
    struct buf piece;  /* a server's answer */
    struct buf answer; /* the backup's */
    uint64_t seed;     /* of the digests */
    struct rate rate;  /* of what is looked at */
    struct verify *verify;
};

/* device.c: a payload of the disk `d` to the backup. */
int disks_payload_put(struct disks *all, const struct disk *d, uint32_t flags,
                      const void *p, size_t len, const struct device_sink *sink,
                      struct err *e);

/* device_verify.c; engine thread, except new and free. */
struct verify *verify_new(void);
void verify_free(struct verify *v);
/* Between epochs. True: there is more to do at once. */
bool verify_step(struct disks *all, const struct device_sink *sink);
/* Epoch n was marked, and what its cut closed is fetched: of blocks that are
 * written again and again, look at what they hold in it. */
void verify_marked(struct disks *all, uint64_t epoch);
void verify_committed(struct disks *all, uint64_t epoch);
/* The log ends. */
void verify_abort(struct disks *all);

#endif
