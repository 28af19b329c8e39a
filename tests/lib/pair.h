// SPDX-License-Identifier: Apache-2.0
/* A primary and a backup in one process, for tests: two fake hosts in temporary
 * directories, a guest that runs, an engine, a replica, and between them a
 * session in memory that can be cut at any record. A thread plays the loop
 * threads of both agents.
 *
 * An observer checks all the time, apart from what a test asserts: the shell is
 * a consistent cut before each epoch is applied over it (I2), the device sees
 * commits only of epochs that the replica has (I1), nothing is released as
 * long as the backup could take over. Its first complaint is in `complaint`. */
#ifndef TESTS_LIB_PAIR_H
#define TESTS_LIB_PAIR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "checkpoint/engine.h"
#include "checkpoint/replica.h"
#include "hypervisor/fake.h"

struct pair_item;

/* A checkpoint device that only watches. */
struct pair_device {
    struct checkpoint_device device;
    struct pair *pair;
    uint64_t marked, committed, marks;
    unsigned held_packets; /* as the test says */
    unsigned polls;
    uint64_t balloon; /* the next mark finds so many pages; 0: as they are */
    bool holding, set_up, want_epoch, fail_mark;
    unsigned released, dropped; /* aborts */
};

struct pair {
    /* Set before pair_start; the rest has defaults. */
    struct fake_spec spec;
    struct engine_config config;
    struct replica_config replica_config;
    uint64_t seed;
    unsigned cut_one_in; /* cut the session at one of so many records */
    bool no_reconnect, swallow_acks;
    bool deaf_to_commit; /* COMMIT never arrives */
    bool sluggish;       /* each record takes the backup 10 ms */
    bool stuck;          /* there is no room for records */

    char primary[64], backup[64];
    uint32_t domid, shell;
    struct fake_guest *guest;
    struct engine *engine;
    struct replica *replica;
    struct pair_device device;
    struct hv *hv;       /* the observer's, on the primary; don't use */
    struct hv *shell_hv; /* the test's, on the backup */
    struct hv_map shell_map;
    struct fake_oracle *oracle;

    pthread_t loop;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under `lock`. */
    struct pair_item *first, **last;
    size_t queued;
    uint64_t session;
    bool up, quit, replica_closed;
    uint64_t records, cuts, acked;
    uint64_t epoch_pages, most_pages; /* of the epoch under way, of any */
    struct buf states[4];             /* that came, by epoch % 4 */
    char complaint[1200];
    unsigned seen[ENGINE_STOPPED + 1];             /* events by type */
    struct engine_event event[ENGINE_STOPPED + 1]; /* the last of each */
};

/* Everything, up to engine_start_sync. Fails the test on an error. */
struct pair *pair_new(void);
void pair_start(struct pair *p);
/* Wait until `n` events of that type were seen, at most 60 s. False when
 * they did not come or the observer complains. */
bool pair_wait(struct pair *p, enum engine_event_type type, unsigned n);
unsigned pair_seen(struct pair *p, enum engine_event_type type);
/* Cut the session now; reconnects by itself unless no_reconnect. */
void pair_cut(struct pair *p);
/* Open a new session after no_reconnect. */
void pair_reconnect(struct pair *p, uint64_t committed, bool replica_ok);
void pair_stop_engine(struct pair *p, enum engine_stop_how how);
/* Engine stopped if it was not; all freed; asserts that nobody complained. */
void pair_free(struct pair *p);
/* The primary's guest gets on: takes at least `n` more steps within 10 s. */
bool pair_guest_runs(struct pair *p, uint64_t n);
/* What the primary's host says about the guest. */
struct hv_domain pair_info(struct pair *p);
/* After replica_takeover: is the shell, with the state that was set, a
 * consistent cut? */
bool pair_shell_consistent(struct pair *p);
/* Stop the engine, take over, and the shell has to be a consistent cut. */
void pair_takeover_check(struct pair *p);

#endif
