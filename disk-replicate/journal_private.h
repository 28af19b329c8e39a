// SPDX-License-Identifier: Apache-2.0
/* Inside of the journal, shared by journal.c (receiving, deciding),
 * journal_apply.c (into the image, recovery) and journal_format.c (bytes). */
#ifndef DISK_REPLICATE_JOURNAL_PRIVATE_H
#define DISK_REPLICATE_JOURNAL_PRIVATE_H

#include <pthread.h>

#include <xxhash.h>

#include "disk-replicate/journal.h"

#define RECORD_HEAD    56u
#define RECORD_BYTES   (RECORD_HEAD + EXTENTS_BYTES_MAX + SECTOR)
#define COMMIT_PAYLOAD 40u
#define SLOT_BYTES     512u

enum record_kind { RECORD_DATA = 1, RECORD_COMMIT, RECORD_PAD };

/* A place in the ring: where, and the number of the record there. */
struct place {
    uint64_t offset, number;
};

struct slot {
    uint8_t id[JOURNAL_ID];
    uint64_t salt, log_bytes, image_bytes, serial;
    uint64_t applied, wall_ms, applying;
    struct place tail;
};

struct record {
    enum record_kind kind;
    uint64_t salt, number, epoch;
    uint32_t length;
    uint64_t sum;           /* XXH3 (64 bits) of the payload */
    const uint8_t *payload; /* in the caller's buffer */
};

struct commit {
    uint32_t pieces;
    uint64_t bytes, digest, wall_ms, coming;
};

/* The pieces of one epoch, as far as they have come. */
struct pieces {
    uint64_t epoch, next_sector, bytes;
    uint64_t digest; /* of their sums, in order */
    uint32_t count;
};

/* What the next step of applying does, or the one under way. */
enum apply_state {
    APPLY_IDLE,
    APPLY_MARK, /* makes durable what is decided, and that it is applied */
    APPLY_RECORDS,
    APPLY_SYNC,
    APPLY_RELEASE, /* makes the slot durable, so that there is room */
};

struct journal {
    struct journal_config c;
    /* While a step does its I/O, all but its own fields are the others'; what
     * is in `slot` changes at its end. */
    struct slot slot; /* as it was written last */
    bool broken, retired;
    pthread_mutex_t syncing;
    bool sync_failed; /* under `syncing` */
    uint8_t *record;  /* RECORD_BYTES, to be written */

    struct pieces incoming;
    uint64_t committed, committed_wall_ms;
    uint64_t coming, before_wall_ms; /* as a scan found it */
    bool prepared;
    uint64_t prepared_wall_ms;
    struct place head;    /* the next record */
    struct place decided; /* behind the committed epoch */
    uint64_t free;        /* bytes of the ring that may be written */
    uint64_t undecided;   /* bytes between `decided` and `head` */
    uint64_t released;    /* free once the slot as written is synced */
    uint64_t releasing;   /* the same, by the step under way */

    /* The step's own. */
    enum apply_state apply;
    struct slot next;     /* what it writes */
    uint8_t *record_read; /* RECORD_BYTES */
    struct place at;      /* of the record to apply next */
    bool last;            /* it was the last one of the target */
    uint64_t target, target_wall_ms;
    uint64_t passed; /* bytes from the slot's tail to `at` */
};

/* journal_format.c */
void slot_put(struct buf *b, const struct slot *s);
bool slot_get(const uint8_t *p, struct slot *s); /* SLOT_BYTES */
/* The whole record, padded to a multiple of 512, into out[RECORD_BYTES];
 * its size. */
size_t journal_record_put(uint8_t *out, const struct record *r);
/* The head only; false: no record of ours. */
bool record_get(const uint8_t *p, struct record *r);
uint64_t record_size(uint32_t length);
void commit_put(uint8_t out[COMMIT_PAYLOAD], const struct commit *c);
bool commit_get(const struct record *r, struct commit *c);
void pieces_begin(struct pieces *p, uint64_t epoch);
/* Check what a record of data holds, and count it. */
int pieces_add(struct pieces *p, const struct record *r, uint64_t sectors,
               struct err *e);
bool pieces_are(const struct pieces *p, const struct commit *c);

/* journal.c */
int journal_broken(struct journal *j); /* returns -1 */
/* Sync the log, and nothing else: any thread. */
int log_sync_io(struct journal *j, struct err *e);
/* Write it to its place, by its serial. */
int slot_write(const struct journal *j, const struct slot *s, struct err *e);

/* journal_apply.c: find the whole epochs behind the slot's tail; apply them. */
int journal_scan(struct journal *j, struct err *e);
int journal_recover(struct journal *j, struct err *e);

#endif
