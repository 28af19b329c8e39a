// SPDX-License-Identifier: Apache-2.0
/* Shared by fake.c (the operations), fake_guest.c (who executes a guest) and
 * fake_oracle.c. */
#ifndef HYPERVISOR_FAKE_PRIVATE_H
#define HYPERVISOR_FAKE_PRIVATE_H

#include "hypervisor/fake.h"

#define FAKE_MAGIC         0x66616b65u
#define FAKE_STATE_PAD_MAX (1u << 20)

/* A suspend request; only the toolstack goes 0 -> 1 -> 0, only the guest
 * 1 -> 2, and resuming 2 -> 0. */
enum { FAKE_NO_REQUEST, FAKE_ASKED, FAKE_ACKNOWLEDGED };

/* The file dom-ID, mapped shared. Fields above `word` change under the lock
 * file only; those below are atomic. */
struct fake_dom {
    uint32_t magic, domid;
    struct fake_spec spec;
    bool shell;
    uint64_t end_gfn;
    uint32_t word; /* futex: bumped after every change */
    uint32_t paused, ran, dying, request, logdirty, refuse, stock;
    int32_t shutdown;
    uint32_t runner, parked, delay_us, step_us, state_pad;
    uint64_t pages, max_pages;
    uint64_t steps[FAKE_WRITERS_MAX]; /* the registers */
};

#define load(p)     __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define store(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)

/* A domain's files, mapped. */
struct fake_view {
    struct fake_dom *dom;
    uint64_t *log;
    uint8_t *memory;
    size_t log_bytes, memory_bytes;
};
/* A connection. */
struct fake {
    struct hv hv;
    char dir[200];
    uint32_t domid; /* of `view`; 0: none */
    struct fake_view view;
    bool late; /* the guest has our request still */
};

/* ERR_GONE when there is no such domain. */
int fake_view_open(struct fake_view *v, const char *dir, uint32_t domid,
                   struct err *e);
void fake_view_close(struct fake_view *v);

/* Something of the domain changed: wake all that wait in fake_wait. */
void fake_bump(struct fake_dom *d);
/* Wait until the word is no longer `seen`, at most `us`. */
void fake_wait(struct fake_dom *d, uint32_t seen, uint64_t us);

static inline bool fake_runs(struct fake_dom *d)
{
    return !load(&d->paused) && !load(&d->dying) &&
           load(&d->shutdown) == HV_RUNNING;
}

/* The guest's arithmetic. */
static inline uint64_t fake_mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9ull;
    return x ^ x >> 32;
}
enum fake_step_kind { FAKE_FILL, FAKE_FILL_PLAIN, FAKE_ZERO, FAKE_TOUCH };
struct fake_step {
    uint64_t page; /* index in RAM */
    enum fake_step_kind kind;
};
struct fake_step fake_step(const struct fake_spec *s, uint32_t writer,
                           uint64_t step);
/* The frame of RAM page `page`. */
static inline uint64_t fake_gfn(const struct fake_spec *s, uint64_t page)
{
    return page < s->hole_at || !s->hole_pages ? page : page + s->hole_pages;
}
/* Word `i` (from 4) of a page filled in `step`. */
static inline uint64_t fake_word(const struct fake_spec *s, uint32_t writer,
                                 uint64_t step, enum fake_step_kind kind,
                                 unsigned i)
{
    if (kind == FAKE_FILL_PLAIN)
        return step + i / 16;
    return fake_mix(s->seed + step * 8 + writer + ((uint64_t)i << 48));
}

#endif
