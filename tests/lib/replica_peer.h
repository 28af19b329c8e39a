// SPDX-License-Identifier: Apache-2.0
/* For tests of checkpoint/replica: a replica over a shell on the fake
 * hypervisor, and what a primary sends to it, a record at a time. One at a
 * time. What returns int is what replica_record() returned, with its error in
 * peer.e. */
#ifndef TESTS_LIB_REPLICA_PEER_H
#define TESTS_LIB_REPLICA_PEER_H

#include "checkpoint/codec.h"
#include "checkpoint/replica.h"

#define PAGES 60
#define HOLE  20 /* a frame without RAM */

struct replica_peer {
    struct replica *rep;
    struct hv_map map; /* the shell's */
    struct encoder *enc;
    struct epoch_hash *hash;
    struct epoch_commit commit; /* of the epoch that is being sent */
    struct buf out;             /* the last record */
    struct err e;
};
extern struct replica_peer peer;

/* cmocka's setups and teardown; the first is for others. */
int peer_start_with(uint64_t end_gfn, uint64_t max_lacking, uint64_t max_bytes,
                    struct replica_device *disks);
int peer_start(void **state);
int peer_end(void **state);

/* Acknowledgements wait at the gate while it is closed. */
void peer_gate_set(bool closed);
bool peer_acked_soon(uint64_t epoch);
/* After long enough for the apply thread to do what it must not. */
bool peer_acked_after_all(uint64_t epoch);
bool peer_applied_soon(uint64_t epoch);
/* What the owner was told that the replica is void of; "": nothing. */
const char *peer_failure(void);

/* What is in peer.out; put: it is counted for the COMMIT. */
int peer_record(enum epoch_record type);
int peer_put(enum epoch_record type);
void peer_epoch_begin(uint64_t epoch);
int peer_page_put(uint64_t gfn, uint8_t value);
int peer_state_put(void);
int peer_commit_put(void);
/* A whole epoch with one page. */
void peer_epoch_put(uint64_t epoch, uint64_t gfn, uint8_t value);
uint8_t peer_shell_byte(uint64_t gfn);

#endif
