// SPDX-License-Identifier: Apache-2.0
/* The backup's journal of one disk: epochs of disk writes on their way from
 * the link to the image. docs/disk.md says what is durable when, and why the
 * image and the journal together are always one whole epoch.
 *
 *     receive -> prepare -> decide -> apply          (drop, up to decide)
 *
 * The caller serialises all calls of one journal. After an error of `log` or
 * `image` the journal is broken: everything fails until it is opened again.
 *
 * The file, little-endian: at 0 and 4096 two header slots, of which the valid
 * one with the higher serial counts; from 8192 on a ring of records.
 *
 *     slot    8 "UNDRJRNL"  4 version, 2  4 zero  16 id of the image  8 salt
 *             8 bytes of the file  8 bytes of the image  8 serial
 *             8 applied epoch  8 its wall time, ms  8 applying: epoch
 *             8 tail: offset of the first record to apply  8 its number
 *             8 XXH3 (64 bits) of all before
 *     record  4 "UDJR"  4 kind: 1 data, 2 commit, 3 pad  8 salt  8 number
 *             8 epoch  4 length of the payload  4 zero  8 XXH3 of the payload
 *             8 XXH3 of the header before
 *             payload: data: extents.h; commit: 4 pieces, 4 zero, 8 bytes of
 *             the pieces, 8 digest of their sums: XXH3 (64 bits) of the sum of
 *             each, the digest before it as seed, 0 first; 8 wall time, ms,
 *             8 coming
 *
 * Records begin at multiples of 512 and are numbered; a pad says that the next
 * one is at the ring's start.
 *
 * Fault points: journal.applying (marked, nothing is in the image),
 * journal.written (all is, not synced). */
#ifndef DISK_REPLICATE_JOURNAL_H
#define DISK_REPLICATE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "disk-replicate/extents.h"
#include "disk-replicate/store.h"

#define JOURNAL_ID    16
#define JOURNAL_START 8192u
#define JOURNAL_MIN                                                            \
    (JOURNAL_START + 8192u) /* of use: some EXTENTS_BYTES_MAX                  \
                             */

struct journal;

struct journal_config {
    struct store *log, *image; /* the caller's */
    uint64_t log_bytes;        /* at least JOURNAL_MIN, a multiple of 512 */
    uint64_t image_bytes;      /* a multiple of 512 */
    uint64_t last; /* recover no epoch behind it, whole or not; 0: all */
    uint8_t id[JOURNAL_ID];
};

/* A new journal, durable, over whatever is there: the image is `epoch`, whole,
 * and synced. `salt` is random, or of a clock: no older journal had it. */
int journal_format(const struct journal_config *c, uint64_t salt,
                   uint64_t epoch, uint64_t wall_ms, struct err *e);

/* What recovery would find. The image can become any epoch from `least` on, up
 * to `last`, which was prepared at `wall_ms`. */
struct journal_found {
    uint64_t least, last, wall_ms;
    uint64_t coming;    /* of `last`; 0: it is committed */
    uint64_t before_ms; /* when last - 1 was prepared, if there is `coming` */
};
/* Look, and change nothing. `image` and `image_bytes` of the configuration are
 * not used. Errors as those of journal_open(). */
int journal_look(const struct journal_config *c, struct journal_found *found,
                 struct err *e);

/* Open and recover: all whole epochs are applied and synced when it returns.
 * ERR_GONE: there is no journal; ERR_REFUSED: it is another image's, or of
 * another size; ERR_FAILED: the image is inconsistent, or can't be read. */
int journal_open(struct journal **j, const struct journal_config *c,
                 struct err *e);
void journal_close(struct journal *j);

enum journal_room {
    JOURNAL_FITS,
    JOURNAL_FULL, /* after the next apply it may */
    JOURNAL_NEVER /* the epoch is larger than the journal */
};
/* Room for a payload, or for an epoch without one (0 bytes). */
enum journal_room journal_room(const struct journal *j, size_t payload_bytes);

/* A piece of epoch `committed + 1`, in order, while none is prepared. A piece
 * that is not as extents.h says is an error of the peer: nothing is kept. */
int journal_receive(struct journal *j, const void *payload, size_t len,
                    struct err *e);

/* What the peer says that it sent. */
struct journal_totals {
    uint64_t epoch;
    uint32_t pieces;
    uint64_t bytes; /* of payloads */
    /* An epoch that was not committed comes again, and need not be the same
     * then. Of all disks of a VM this one counts the same. Not 0. */
    uint64_t coming;
};
/* All of the epoch is here: its commit record is written. `durable`: and
 * synced. An epoch without disk writes has no pieces. */
int journal_prepare(struct journal *j, const struct journal_totals *t,
                    uint64_t wall_ms, bool durable, struct err *e);
/* What is prepared is on the disk for good. */
int journal_secure(struct journal *j, struct err *e);
/* The prepared epoch is committed. No I/O. */
void journal_decide(struct journal *j);
/* Forget what was received or prepared, and not decided. No I/O. */
void journal_drop(struct journal *j);

/* One step of applying what is decided; *done when there is nothing left. */
int journal_apply(struct journal *j, bool *done, struct err *e);
/* The same in parts, so that who serialises the calls need not do so for the
 * one that takes its time: begin; io, with any of room, receive, prepare,
 * secure, decide, drop and status at the same time; end, with what io returned
 * and its error, in any case. A step that has begun applies nothing that is
 * decided later. begin: false: there is nothing to do, or the journal is
 * broken. */
bool journal_step_begin(struct journal *j);
int journal_step_io(struct journal *j, struct err *e);
int journal_step_end(struct journal *j, int io, struct err *e);
/* The image is to be the VM's disk from now on: drop, apply all, sync; no
 * later recovery applies anything again. The end: only close follows. */
int journal_retire(struct journal *j, struct err *e);

struct journal_status {
    uint64_t applied, committed;
    uint64_t wall_ms; /* of the committed epoch */
    uint64_t bytes;   /* of the ring */
    uint64_t used;    /* of them, until they are applied and synced */
    uint64_t behind;  /* of those, what is decided and not applied */
    bool prepared;    /* committed + 1 waits for its decision */
    bool broken;
};
struct journal_status journal_status(const struct journal *j);

#endif
