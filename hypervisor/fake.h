// SPDX-License-Identifier: Apache-2.0
/* The fake hypervisor's other side: making guests, letting them run in threads
 * of a test, telling them to misbehave, and checking an image of one.
 *
 * A directory is a host. A domain is three files in it: dom-ID (state, shared
 * by mapping), mem-ID (memory) and log-ID (dirty bits). Several processes may
 * use the same directory.
 *
 * The guest. Its RAM is `ram_pages` pages with a hole in the frame numbers.
 * Page 0 is the board: written without a dirty bit, as the hypervisor writes
 * shared pages; only a `final` harvest reports it. The others are dealt out to
 * the writers (page i to writer i % writers). A writer takes steps, numbered
 * from 1: a step picks a page by a hash of (seed, writer, step) and fills it
 * with a pattern, or with zeroes, or writes what is there already; notes in the
 * page what step the next writer has reached; puts its own step on the board
 * and into its register. The registers are the platform state. A writer stops
 * only between steps. So registers and memory of a consistent cut determine
 * each other exactly, and the oracle replays the steps apart from the memory.
 */
#ifndef HYPERVISOR_FAKE_H
#define HYPERVISOR_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/hv.h"

#define FAKE_WRITERS_MAX 8

struct fake_spec {
    char name[64];
    uint8_t uuid[16];
    uint64_t seed;
    uint64_t ram_pages;           /* at least 2 + writers */
    uint64_t hole_at, hole_pages; /* no RAM in [hole_at, +hole_pages) */
    /* Plus one; the shell has no RAM at this frame. 0: it has all. The guest
     * does not use it. */
    uint64_t lacking;
    uint32_t writers; /* 1 to FAKE_WRITERS_MAX */
    uint32_t step_us; /* pause between steps, 0: none */
};

/* A running domain, without anybody who executes it: it stands still, suspends
 * at once when asked, and its memory may be written through a map. */
int fake_create(const char *dir, const struct fake_spec *spec, uint32_t *domid,
                struct err *e);

/* Execute the domain in threads of this process until fake_guest_stop. It runs
 * while it is not paused, suspended or shut down. */
struct fake_guest;
int fake_guest_start(struct fake_guest **g, const char *dir, uint32_t domid,
                     struct err *e);
void fake_guest_stop(struct fake_guest *g);
/* The same, with a disk: before each step of writer 0 that is on the disk.
 * False: the guest was told to stop meanwhile, and takes no step. */
struct fake_disk {
    bool (*write)(void *arg, uint64_t step);
    void *arg;
};
int fake_guest_start_disk(struct fake_guest **g, const char *dir,
                          uint32_t domid, const struct fake_disk *disk,
                          struct err *e);

/* What a test makes the guest or the host do; any process. */
enum fake_deed {
    FAKE_REFUSE,    /* value: suspend requests are ignored (1) or not (0) */
    FAKE_STOCK,     /* value: it has no suspend event channel (1) */
    FAKE_DELAY_US,  /* value: between acknowledging and suspending */
    FAKE_SHUTDOWN,  /* value: enum hv_shutdown; the guest shuts down */
    FAKE_SUSPENDED, /* somebody else suspended it */
    FAKE_BALLOON,   /* value: pages populated now */
    FAKE_LOG_OFF,   /* somebody else turned log-dirty mode off */
    FAKE_STEP_US,   /* value */
    FAKE_STATE_PAD, /* value: bytes behind the platform state */
};
int fake_do(const char *dir, uint32_t domid, enum fake_deed deed,
            uint64_t value, struct err *e);
/* Steps taken by all writers together. 0 when there is no such domain. */
uint64_t fake_steps(const char *dir, uint32_t domid);

/* The oracle: is (memory, platform state) a consistent cut, and not older than
 * the one it saw before? It knows the spec only. */
struct fake_oracle;
struct fake_oracle *fake_oracle_new(const struct fake_spec *spec);
void fake_oracle_free(struct fake_oracle *o);
int fake_oracle_check(struct fake_oracle *o, const struct hv_map *map,
                      const void *state, size_t len, struct err *e);

#endif
