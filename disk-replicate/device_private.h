// SPDX-License-Identifier: Apache-2.0
/* Inside of the primary's disks: device.c has log and epochs,
 * device_copy.c the initial copy, device_verify.c the comparing of both sides.
 */
#ifndef DISK_REPLICATE_DEVICE_PRIVATE_H
#define DISK_REPLICATE_DEVICE_PRIVATE_H

#include "disk-replicate/device.h"
#include "disk-replicate/disk_control.h"
#include "disk-replicate/epochlog.h"
#include "disk-replicate/intent.h"
#include "disk-replicate/rate.h"

#define BLOCK_SECTORS (EPOCHLOG_BLOCK / SECTOR)

struct disk {
    struct diskctl server;
    struct disk_page *page;
    uint32_t device;
    uint64_t sectors;
    /* Of them: asked for what differs; copied, where it did. */
    uint64_t asked, copied;
    uint64_t compared, differed;
    bool logging;     /* its server was asked to log */
    bool doubted;     /* its bitmap was, and is gone */
    uint64_t lost_ns; /* its server died then, and has no successor yet; or 0 */
    /* Which regions may differ over there: a bit each of `regions` from
     * `first` on. `whole`: all of the image may. */
    uint64_t first;
    uint32_t regions;
    uint8_t bits[REGIONS_MAX / 8];
    bool whole;
    uint8_t base[INTENT_ID], next_base[INTENT_ID];
};

/* An epoch ended with a cut. */
struct ended {
    uint64_t epoch, cut;
};
#define ENDED_MAX 64

struct verify;

struct disks {
    struct checkpoint_device dev; /* first */
    struct disk disk[DISKS_MAX];
    int n;
    unsigned log_mb;
    bool follows; /* an epoch was marked: the copy is over */
    /* Something is being read from the servers, by several calls: a successor
     * would answer the next one. */
    bool busy;
    uint64_t cut;  /* the open one, of all disks */
    uint64_t kept; /* the backup's disks have all up to that cut; 0: no */
    struct ended ended[ENDED_MAX]; /* by epoch % ENDED_MAX */
    struct buf out;                /* a payload */
    struct buf piece;              /* a server's answer */
    struct buf answer;             /* the backup's */
    uint64_t seed;                 /* of the digests */
    struct rate rate;              /* of what is looked at */
    /* The epoch that is on its way: since when, and its bytes; and how many a
     * second get across, 0: not known. */
    uint64_t sent_ns, sent_bytes, bytes_s;
    struct verify *verify;
};

/* device.c: a payload of the disk `d` to the backup. */
int disks_payload_put(struct disks *all, const struct disk *d, uint32_t flags,
                      const void *p, size_t len, const struct device_sink *sink,
                      struct err *e);
/* A server wants an epoch soon. */
bool disks_early(const struct disks *all);
/* What was written since goes after what was read before: so the last thing
 * sent of a sector is always its newest content. */
int disks_changes_put(struct disks *all, const struct device_sink *sink,
                      struct err *e);

/* device_again.c: servers that died. All are there, and their logs whole. */
bool disks_whole(const struct disks *all);
/* Look for successors. -1: the replica is void. */
int disks_again(struct disks *all, struct err *e);

/* device_copy.c: all of `d` that differs over there. */
int disks_image_put(struct disks *all, struct disk *d,
                    const struct device_sink *sink, struct err *e);

/* What was sent is on the media over there, so that the first epoch, which is
 * waited for as all others are, does not wait for that. */
int disks_settle(struct disks *all, const struct device_sink *sink,
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
