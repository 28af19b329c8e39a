// SPDX-License-Identifier: Apache-2.0
/* Inside of the replica, shared by replica.c (records, on the loop thread) and
 * replica_apply.c (the apply thread, takeover). */
#ifndef CHECKPOINT_REPLICA_PRIVATE_H
#define CHECKPOINT_REPLICA_PRIVATE_H

#include <pthread.h>

#include "checkpoint/codec.h"
#include "checkpoint/replica.h"

/* A DISK payload on its way to the disks. */
struct disk_record {
    struct disk_record *next;
    size_t len;
    uint8_t payload[];
};
struct disk_records {
    struct disk_record *first, **last;
    size_t bytes; /* of payloads */
};

/* An epoch in memory, without its disk writes. */
struct held {
    uint64_t epoch;
    struct chunk *first, **last;
    struct buf state;
    bool has_state;
    size_t bytes; /* of memory */
};

void held_clear(struct held *h);
void held_add(struct held *h, struct chunk *c);
void disk_records_add(struct disk_records *all, struct disk_record *r);
/* The first one, which there is. */
struct disk_record *disk_records_take(struct disk_records *all);
void disk_records_free(struct disk_records *all);

struct replica {
    struct hv *hv;
    struct replica_config config;
    struct hv_map map;
    pthread_t thread;

    /* The loop thread's own. */
    struct decoder *decoder;
    struct epoch_hash *hash;
    struct held incoming;
    struct epoch_commit got; /* counts of `incoming` */
    uint64_t got_disk_bytes;
    uint32_t live_sequence;
    uint64_t *seen;    /* bitmap: frames of the incoming epoch */
    uint64_t *lacking; /* bitmap: frames the shell has no RAM for */

    pthread_mutex_t lock;
    pthread_cond_t work; /* for the apply thread */
    pthread_cond_t done; /* it has done something */
    /* Under `lock`. */
    struct held live;     /* pages of the initial copy, to be written */
    struct held complete; /* verified, not yet committed; epoch 0: none */
    /* For the disks: of the initial copy, and questions; of the epoch that is
     * incoming or complete, as far as the apply thread has not got it. */
    struct disk_records live_disk, arriving;
    uint64_t coming; /* counts epochs that were begun: that one's */
    bool failed;     /* the disks can't follow: commit nothing */
    bool busy;       /* the apply thread is writing */
    bool closing;    /* commit nothing any more */
    bool quit;
    struct replica_status status;

    /* The apply thread's own; after it went idle, the takeover's. */
    struct held committed;
    /* What the disks have been given of the epoch that is coming. What was
     * wrong with that counts only when all of the epoch is here. */
    struct {
        struct disk_records records;
        uint64_t coming; /* whose they are */
        struct err why;  /* kind 0: nothing */
    } handed;
    struct buf state;    /* of the last applied epoch */
    uint64_t disks_kept; /* as a device's prepare says it */
};

/* replica_apply.c */
int replica_thread_start(struct replica *rep, struct err *e);
void replica_thread_stop(struct replica *rep);

#endif
