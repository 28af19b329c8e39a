// SPDX-License-Identifier: Apache-2.0
/* What an epoch looks like on the wire, besides its pages (checkpoint/codec.h):
 * kinds of records, limits, and the STATE, COMMIT and ACK payloads. Format:
 * docs/epoch-format.md. Used by the engine, the replica, and by the agents for
 * the ACK. Pure; any thread. */
#ifndef CHECKPOINT_EPOCH_H
#define CHECKPOINT_EPOCH_H

#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"

/* The agent maps these to the link's record types. */
enum epoch_record { EPOCH_PAGES = 1, EPOCH_STATE, EPOCH_COMMIT, EPOCH_DISK };

#define EPOCH_MAX_GFN   (1ull << 28)           /* 1 TiB of guest */
#define EPOCH_MAX_STATE (4u << 20)             /* platform state, bytes */
#define EPOCH_MAX_BYTES (EPOCH_MAX_STATE + 64) /* any payload of ours */
#define EPOCH_MAX_DISK  (400u << 10)           /* a DISK payload */

struct epoch_digest {
    uint8_t bytes[16];
};

/* DISK begins with this; what follows is opaque to the engine and the replica
 * (disk-replicate/extents.h). */
struct epoch_disk {
    uint32_t device; /* number of the VM's disk */
    uint32_t flags;
};
enum {
    EPOCH_DISK_LIVE = 1,    /* of the initial copy */
    EPOCH_DISK_BEGIN = 2,   /* live, and the first of this disk: its size */
    EPOCH_DISK_ASK = 4,     /* live: digests of blocks, which differ? */
    EPOCH_DISK_REGIONS = 8, /* live: which may differ at all? */
    EPOCH_DISK_FLAGS = 15,
};

/* What COMMIT says about the other records of its epoch. */
struct epoch_commit {
    uint64_t epoch;  /* from 1, consecutive */
    uint64_t pages;  /* directory entries in all chunks, repeats counted */
    uint32_t chunks; /* PAGES records */
    uint64_t bytes;  /* payload bytes of PAGES, DISK and STATE */
    struct epoch_digest digest;
};

/* The backup's answer: `epoch` is committed; `applied` is the last epoch that
 * is written into the shell, epoch - 1 or epoch; `disks` is one whose disk
 * writes, and all before, are in the images there, and synced; 0: none. */
struct epoch_ack {
    uint64_t epoch, applied, disks;
};

void epoch_commit_put(struct buf *b, const struct epoch_commit *c);
int epoch_commit_read(const void *p, size_t len, struct epoch_commit *c,
                      struct err *e);
void epoch_ack_put(struct buf *b, const struct epoch_ack *a);
int epoch_ack_read(const void *p, size_t len, struct epoch_ack *a,
                   struct err *e);
void epoch_state_put(struct buf *b, uint64_t epoch, const void *state,
                     size_t len);
/* *state points into p. */
int epoch_state_read(const void *p, size_t len, uint64_t *epoch,
                     const uint8_t **state, size_t *state_len, struct err *e);

void epoch_disk_put(struct buf *b, const struct epoch_disk *d);
/* *rest is what follows, of *rest_len bytes, not 0. */
int epoch_disk_read(const void *p, size_t len, struct epoch_disk *d,
                    const uint8_t **rest, size_t *rest_len, struct err *e);

/* The digest over an epoch's payloads, in order. */
struct epoch_hash;
struct epoch_hash *epoch_hash_new(void);
void epoch_hash_free(struct epoch_hash *h);
void epoch_hash_reset(struct epoch_hash *h);
void epoch_hash_add(struct epoch_hash *h, const void *p, size_t len);
struct epoch_digest epoch_hash_value(const struct epoch_hash *h);

#endif
