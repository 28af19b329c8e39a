// SPDX-License-Identifier: Apache-2.0
/* Two hosts and a disk: log, journal and bitmaps together as docs/disk.md has
 * them. alder writes, loses its server, loses the link, and then its power;
 * birch takes over with a whole acknowledged epoch, and writes on. What differs
 * between the two images then has a bit in one of the two bitmaps, so that a
 * resync by them makes the images the same, alder's unacknowledged writes
 * rolled back (the Protocol D rule). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/log.h"
#include "disk-replicate/epochlog.h"
#include "disk-replicate/intent.h"
#include "disk-replicate/journal.h"
#include "tests/lib/plug.h"

#define REGIONS 4
#define BYTES   (REGIONS * INTENT_REGION)
#define SECTORS (BYTES / SECTOR)
#define LOG     (JOURNAL_START + (1u << 20))
#define PAGES   (2 * BYTES / EPOCHLOG_BLOCK)
#define EPOCHS  64

struct host {
    struct plug_line line;
    struct plug_disk image, bitmap, log;
    struct intent_config ic;
    struct journal_config jc;
    struct intent *intent;
    struct journal *journal;
};

struct pair {
    struct host alder, birch;
    struct epochlog *log;
    struct extents_builder b;
    uint64_t seed, cut;
    uint64_t ends[EPOCHS]; /* epoch n ended with this cut */
    uint8_t *at[EPOCHS];   /* and the disk was this */
    uint64_t marked;       /* the epoch of at[] being sent, 0: none */
    uint8_t fill;
};

static void host_open(struct host *h)
{
    memset(h, 0, sizeof *h);
    plug_open(&h->image, &h->line, "image", BYTES);
    plug_open(&h->bitmap, &h->line, "bitmap", intent_file_bytes(BYTES));
    plug_open(&h->log, &h->line, "journal", LOG);
    h->ic = (struct intent_config){&h->bitmap.store, BYTES, "web", "base"};
    h->jc = (struct journal_config){.log = &h->log.store,
                                    .image = &h->image.store,
                                    .log_bytes = LOG,
                                    .image_bytes = BYTES,
                                    .id = "web"};
    assert_int_equal(intent_format(&h->ic, false, NULL), 0);
    assert_int_equal(intent_open(&h->intent, &h->ic, NULL), 0);
}

static void host_close(struct host *h)
{
    intent_close(h->intent);
    journal_close(h->journal);
    plug_close(&h->image);
    plug_close(&h->bitmap);
    plug_close(&h->log);
}

static void log_new(struct pair *p, bool lacking)
{
    struct epochlog_config c = {PAGES, PAGES, lacking};

    epochlog_free(p->log);
    assert_int_equal(epochlog_open(&p->log, &c, NULL), 0);
}

static void pair_open(struct pair *p, uint64_t seed)
{
    memset(p, 0, sizeof *p);
    p->seed = seed;
    p->cut = 1;
    host_open(&p->alder);
    host_open(&p->birch);
    assert_int_equal(journal_format(&p->birch.jc, seed, 0, 0, NULL), 0);
    assert_int_equal(journal_open(&p->birch.journal, &p->birch.jc, NULL), 0);
    p->at[0] = calloc(1, BYTES);
    log_new(p, false);
    intent_period(p->alder.intent, p->cut);
}

static void pair_close(struct pair *p)
{
    host_close(&p->alder);
    host_close(&p->birch);
    epochlog_free(p->log);
    extents_free(&p->b);
    for (unsigned i = 0; i < EPOCHS; i++)
        free(p->at[i]);
}

/* --- alder, the primary. False: its power is gone. ------------------------ */

static bool image_write(struct host *h, uint64_t at, uint32_t len, uint8_t fill)
{
    uint8_t data[8192];

    memset(data, fill, len);
    if (!intent_write(h->intent, at, len)) {
        intent_flush_begin(h->intent);
        if (intent_flush_io(h->intent, NULL))
            return false;
        intent_flush_end(h->intent, true);
        assert_true(intent_write(h->intent, at, len));
    }
    return !h->image.store.ops->write(&h->image.store, at, data, len, NULL);
}

static bool guest_writes(struct pair *p, struct host *h)
{
    uint32_t len = (1 + (uint32_t)(plug_random(&p->seed) % 16)) * SECTOR;
    uint64_t at = plug_random(&p->seed) % (SECTORS - 16) * SECTOR;
    uint8_t data[8192];

    memset(data, ++p->fill, len);
    if (!image_write(h, at, len, p->fill))
        return false;
    if (h == &p->alder)
        assert_true(
            epochlog_write(p->log, p->cut, at / SECTOR, len / SECTOR, data));
    return true;
}

/* kill -9: the successor reads what has a bit. */
static bool server_dies(struct pair *p)
{
    struct host *h = &p->alder;
    uint64_t region = 0;

    intent_close(h->intent);
    h->intent = NULL;
    if (intent_open(&h->intent, &h->ic, NULL))
        return false;
    log_new(p, true);
    for (; intent_next(h->intent, &region); region++)
        assert_true(epochlog_write(
            p->log, p->cut, region * INTENT_REGION / SECTOR,
            INTENT_REGION / SECTOR, h->image.now + region * INTENT_REGION));
    epochlog_whole(p->log, p->cut);
    intent_period(h->intent, p->cut);
    return true;
}

static void mark(struct pair *p)
{
    uint64_t n = journal_status(p->birch.journal).committed + 1;

    assert_in_range(n, 1, EPOCHS - 1);
    if (!p->at[n])
        p->at[n] = malloc(BYTES);
    memcpy(p->at[n], p->alder.image.now, BYTES);
    p->ends[n] = p->cut++;
    p->marked = n;
}

/* Send epoch n up to `pieces` pieces; the link may break there. */
static void send(struct pair *p, unsigned pieces)
{
    struct journal *j = p->birch.journal;
    struct journal_totals t = {.epoch = p->marked};
    bool whole = false;

    if (!p->marked || !epochlog_fetch(p->log, p->cut))
        pieces = 0;
    while (t.pieces < pieces && !whole) {
        whole = !epochlog_next(p->log, &p->b, p->marked, t.pieces);
        if (whole)
            break;
        const struct buf *b = extents_end(&p->b);
        for (bool done = false; !done && journal_room(j, b->len);)
            assert_int_equal(journal_apply(j, &done, NULL), 0);
        assert_int_equal(journal_receive(j, b->data, b->len, NULL), 0);
        t.pieces++;
        t.bytes += b->len;
    }
    if (!whole) {
        journal_drop(j);
        p->marked = 0; /* given up */
        return;
    }
    assert_int_equal(journal_prepare(j, &t, 0, false, NULL), 0);
    journal_decide(j);
    /* The acknowledgement arrives. */
    assert_true(epochlog_commit(p->log, p->ends[p->marked]));
    p->marked = 0;
}

static void birch_applies(struct pair *p)
{
    bool done;

    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(journal_apply(p->birch.journal, &done, NULL), 0);
}

/* birch says what it has applied and synced. */
static bool bits_clear(struct pair *p)
{
    struct host *h = &p->alder;
    uint64_t n = journal_status(p->birch.journal).applied;

    if (h->image.store.ops->sync(&h->image.store, NULL))
        return false;
    if (n)
        intent_clear(h->intent, p->ends[n]);
    if (plug_random(&p->seed) % 2)
        intent_period(h->intent, p->cut);
    return true;
}

static bool step(struct pair *p)
{
    switch (plug_random(&p->seed) % 12) {
    case 0:
        return plug_random(&p->seed) % 4 ? true : server_dies(p);
    case 1:
    case 2:
        mark(p);
        return true;
    case 3:
    case 4:
        send(p, 1000);
        return true;
    case 5:
        send(p, 1);
        return true;
    case 6:
        birch_applies(p);
        return true;
    case 7:
        return bits_clear(p);
    default:
        return guest_writes(p, &p->alder);
    }
}

/* --- Afterwards ----------------------------------------------------------- */

static void birch_takes_over(struct pair *p)
{
    uint64_t n = journal_status(p->birch.journal).committed;

    assert_int_equal(journal_retire(p->birch.journal, NULL), 0);
    assert_memory_equal(p->birch.image.durable, p->at[n], BYTES);
}

static void alder_is_back(struct pair *p, unsigned outcome)
{
    struct host *h = &p->alder;
    enum plug_outcome o = (enum plug_outcome)(outcome % 3);

    intent_close(h->intent);
    h->intent = NULL;
    plug_back(&h->image, &h->image, o, 256, &p->seed);
    plug_back(&h->bitmap, &h->bitmap, (enum plug_outcome)(outcome / 3 % 3), 256,
              &p->seed);
    h->line = (struct plug_line){0};
    assert_int_equal(intent_open(&h->intent, &h->ic, NULL), 0);
}

static bool region_set(const struct intent *i, uint64_t region)
{
    uint64_t found = region;

    return intent_next(i, &found) && found == region;
}

/* Copy what differs in the union of both bitmaps; how many blocks. */
static unsigned resync(struct pair *p)
{
    unsigned copied = 0;

    for (uint64_t at = 0; at < BYTES; at += EPOCHLOG_BLOCK) {
        uint64_t region = at / INTENT_REGION;
        uint8_t *to = p->alder.image.now + at;
        const uint8_t *from = p->birch.image.now + at;
        if (!region_set(p->alder.intent, region) &&
            !region_set(p->birch.intent, region))
            continue;
        copied += memcmp(to, from, EPOCHLOG_BLOCK) != 0;
        memcpy(to, from, EPOCHLOG_BLOCK);
    }
    return copied;
}

/* Returns how many of alder's blocks were copied without birch's writing. */
static unsigned life(struct pair *p, uint64_t seed, unsigned pulled_at)
{
    bool power = true;

    pair_open(p, seed);
    p->alder.line.ops = 0;
    p->alder.line.pulled_at = pulled_at;
    for (unsigned i = 0; i < 150 && power; i++)
        power = step(p);
    birch_takes_over(p);
    alder_is_back(p, (unsigned)seed);
    unsigned writes = (unsigned)(plug_random(&p->seed) % 6);
    for (unsigned i = 0; i < writes; i++)
        assert_true(guest_writes(p, &p->birch));
    unsigned copied = resync(p);
    assert_memory_equal(p->alder.image.now, p->birch.image.now, BYTES);
    pair_close(p);
    return writes ? 0 : copied;
}

static void after_any_power_cut_the_bitmaps_cover_all_differences(void **s)
{
    struct pair *p = malloc(sizeof *p);
    unsigned rolled_back = 0;

    (void)s;
    for (uint64_t seed = 1; seed <= 2000; seed++)
        rolled_back += life(p, seed, 1 + (unsigned)(seed * 7 % 120)) > 0;
    /* alder had written what was never acknowledged. */
    assert_in_range(rolled_back, 50, UINT32_MAX);
    free(p);
}

/* One such write, by hand. */
static void an_unacknowledged_write_is_rolled_back(void **s)
{
    struct pair p;

    (void)s;
    pair_open(&p, 1);
    assert_true(image_write(&p.alder, 4096, 4096, 0x11));
    uint8_t data[4096];
    memset(data, 0x11, sizeof data);
    assert_true(epochlog_write(p.log, p.cut, 8, 8, data));
    mark(&p);
    send(&p, 1000);
    /* Of the next epoch, and on alder's disk. */
    assert_true(image_write(&p.alder, 4096, 4096, 0x22));
    assert_int_equal(p.alder.image.store.ops->sync(&p.alder.image.store, NULL),
                     0);
    birch_takes_over(&p);
    alder_is_back(&p, 0);
    assert_int_equal(p.alder.image.now[4096], 0x22);
    assert_int_equal(p.birch.image.now[4096], 0x11);
    assert_int_equal(resync(&p), 1);
    assert_int_equal(p.alder.image.now[4096], 0x11);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_any_power_cut_the_bitmaps_cover_all_differences),
        cmocka_unit_test(an_unacknowledged_write_is_rolled_back),
    };

    log_setup("disk_pair", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
