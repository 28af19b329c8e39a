// SPDX-License-Identifier: Apache-2.0
/* The primary's disk log against a model that keeps whole copies of the disk:
 * whatever is written, cut, given up, lost with its server and rebuilt, what
 * is fetched turns the backup's copy into the disk as it was at the cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "disk-replicate/epochlog.h"

#define BLOCKS  3
#define SECTORS (BLOCKS * 8 - 3) /* no whole number of blocks */
#define BYTES   (SECTORS * SECTOR)

struct model {
    struct epochlog *log;
    struct extents_builder builder;
    uint8_t disk[BYTES], at_cut[BYTES], backup[BYTES];
    uint64_t cut, epoch;  /* the open cut; the next epoch */
    bool marked;          /* at_cut is that epoch's */
    bool lacks[SECTORS];  /* not in the log, though the backup needs it */
    bool behind[SECTORS]; /* bits of the bitmap: written, not committed */
    bool rebuilding;
    unsigned refused, commits, known, unknown;
    uint8_t fill;
};

static void model_open(struct model *m, uint32_t pages, uint32_t entries)
{
    struct epochlog_config c = {.pages = pages, .entries = entries};

    memset(m, 0, sizeof *m);
    m->cut = m->epoch = 1;
    assert_int_equal(epochlog_open(&m->log, &c, NULL), 0);
}

static void model_close(struct model *m)
{
    epochlog_free(m->log);
    extents_free(&m->builder);
}

/* As the server does it: to the disk, then into the log. */
static void write_at(struct model *m, unsigned sector, unsigned n, bool zero)
{
    uint8_t data[BYTES];
    struct epochlog_load before = epochlog_load(m->log);

    memset(data, zero ? 0 : ++m->fill | 1, n * SECTOR);
    if (!epochlog_write(m->log, m->cut, sector, n, zero ? NULL : data)) {
        /* It waits: neither done nor answered. It may have merged cuts. */
        struct epochlog_load after = epochlog_load(m->log);
        assert_true(after.pages_used <= before.pages_used);
        assert_true(after.entries_used <= before.entries_used);
        m->refused++;
        return;
    }
    memcpy(m->disk + sector * SECTOR, data, n * SECTOR);
    for (unsigned s = sector; s < sector + n; s++)
        m->behind[s] = true;
}

static void mark(struct model *m)
{
    memcpy(m->at_cut, m->disk, BYTES);
    m->cut++;
    m->marked = true;
}

static void apply(struct model *m, const struct buf *payload, uint64_t *next)
{
    struct extents x;
    struct extent one;
    struct err e = ERR_INIT;

    if (extents_read(payload->data, payload->len, SECTORS, next, &x, &e))
        fail_msg("%s", e.text);
    assert_int_equal(x.epoch, m->epoch);
    while (extents_next(&x, &one)) {
        uint8_t *to = m->backup + one.sector * SECTOR;
        if (one.kind == EXTENT_ZERO)
            memset(to, 0, one.sectors * SECTOR);
        else
            memcpy(to, one.data, one.sectors * SECTOR);
    }
}

static unsigned block_bytes(unsigned block)
{
    unsigned left = BYTES - block * EPOCHLOG_BLOCK;

    return left < EPOCHLOG_BLOCK ? left : EPOCHLOG_BLOCK;
}

/* Of the epoch that was fetched, from the disk as it is now. */
static void at_cut_check(struct model *m)
{
    for (unsigned b = 0; b < BLOCKS && !m->rebuilding; b++) {
        uint8_t data[EPOCHLOG_BLOCK];
        memcpy(data, m->disk + b * EPOCHLOG_BLOCK, block_bytes(b));
        bool known = epochlog_at_cut(m->log, b, data);
        if (known)
            assert_memory_equal(data, m->at_cut + b * EPOCHLOG_BLOCK,
                                block_bytes(b));
        m->known += known && memcmp(data, m->disk + b * EPOCHLOG_BLOCK,
                                    block_bytes(b)) != 0;
        m->unknown += !known;
    }
}

/* What the log does not have, the backup has. */
static void committed_check(const struct model *m)
{
    for (unsigned b = 0; b < BLOCKS && !m->rebuilding; b++)
        if (!epochlog_has(m->log, b))
            assert_memory_equal(m->disk + b * EPOCHLOG_BLOCK,
                                m->backup + b * EPOCHLOG_BLOCK, block_bytes(b));
}

/* Fetch, send, commit. False when this epoch can't be had. */
static bool commit(struct model *m)
{
    uint64_t next = 0;

    if (!m->marked || !epochlog_fetch(m->log, m->cut))
        return false;
    for (uint32_t i = 0; epochlog_next(m->log, &m->builder, m->epoch, i); i++)
        apply(m, extents_end(&m->builder), &next);
    at_cut_check(m);
    assert_true(epochlog_commit(m->log, m->cut - 1));
    assert_memory_equal(m->backup, m->at_cut, BYTES);
    for (unsigned s = 0; s < SECTORS; s++)
        m->behind[s] =
            memcmp(m->disk + s * SECTOR, m->backup + s * SECTOR, SECTOR) != 0;
    m->epoch++;
    m->commits++;
    m->marked = false;
    return true;
}

/* kill -9, and the successor that knows only the bitmap. */
static void crash(struct model *m, uint32_t pages, uint32_t entries)
{
    struct epochlog_config c = {pages, entries, true};

    epochlog_free(m->log);
    assert_int_equal(epochlog_open(&m->log, &c, NULL), 0);
    memcpy(m->lacks, m->behind, sizeof m->lacks);
    m->rebuilding = true;
}

/* It does not fit: nothing can be committed any more, a sync begins. */
static void sync_anew(struct model *m)
{
    struct epochlog_load l = epochlog_load(m->log);
    struct epochlog_config c = {.pages = l.pages, .entries = l.entries};

    epochlog_free(m->log);
    assert_int_equal(epochlog_open(&m->log, &c, NULL), 0);
    memcpy(m->backup, m->disk, BYTES);
    memset(m->behind, 0, sizeof m->behind);
    m->rebuilding = m->marked = false;
}

/* One sector of what is lacking is read from the disk into the log. */
static void rebuild_step(struct model *m)
{
    unsigned s = 0;

    if (!m->rebuilding)
        return;
    while (s < SECTORS && !m->lacks[s])
        s++;
    if (s == SECTORS) {
        epochlog_whole(m->log, m->cut);
        m->rebuilding = false;
    } else if (s < SECTORS) {
        m->lacks[s] =
            !epochlog_write(m->log, m->cut, s, 1, m->disk + s * SECTOR);
        if (!m->lacks[s])
            m->behind[s] = true;
        else
            sync_anew(m);
    }
}

/* --- All short histories -------------------------------------------------- */

#define STEPS 10
#define DEPTH 5

static void step_do(struct model *m, unsigned step)
{
    switch (step) {
    case 0:
        write_at(m, 0, 8, false);
        break;
    case 1:
        write_at(m, 2, 3, false);
        break;
    case 2:
        write_at(m, 3, 9, false); /* over two blocks */
        break;
    case 3:
        write_at(m, 1, 4, true);
        break;
    case 4:
        write_at(m, 0, SECTORS, true);
        break;
    case 5:
        mark(m);
        break;
    case 6:
        commit(m);
        break;
    case 7:
        crash(m, 16, 16);
        break;
    case 8:
        rebuild_step(m);
        break;
    default:
        write_at(m, SECTORS - 1, 1, false);
    }
}

/* What is left must come over in the end. */
static void settle(struct model *m)
{
    for (unsigned i = 0; m->rebuilding; i++) {
        assert_in_range(i, 0, SECTORS + 1);
        rebuild_step(m);
    }
    mark(m);
    assert_true(commit(m));
    assert_memory_equal(m->backup, m->disk, BYTES);
    assert_int_equal(epochlog_load(m->log).pages_used, 0);
    assert_int_equal(epochlog_load(m->log).entries_used, 0);
}

static void every_short_history_gives_the_disk_at_the_cut(void **s)
{
    unsigned total = 1;
    struct model *m = malloc(sizeof *m);

    (void)s;
    for (unsigned i = 0; i < DEPTH; i++)
        total *= STEPS;
    for (unsigned h = 0; h < total; h++) {
        model_open(m, 16, 16);
        for (unsigned i = 0, rest = h; i < DEPTH; i++, rest /= STEPS) {
            step_do(m, rest % STEPS);
            committed_check(m);
        }
        settle(m);
        model_close(m);
    }
    free(m);
}

/* --- Long ones, and little room ------------------------------------------- */

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return *seed >> 33;
}

static void random_step(struct model *m, uint64_t *seed, uint32_t pages)
{
    unsigned kind = (unsigned)(next_random(seed) % 100);
    unsigned sector = (unsigned)(next_random(seed) % SECTORS);
    unsigned n = 1 + (unsigned)(next_random(seed) % 12);

    if (n > SECTORS - sector)
        n = SECTORS - sector;
    if (kind < 60)
        write_at(m, sector, n, kind < 12);
    else if (kind < 75)
        mark(m);
    else if (kind < 90)
        commit(m);
    else if (kind < 91)
        crash(m, pages, pages + 2);
    else
        rebuild_step(m);
}

static void random_history(uint64_t seed, uint32_t pages, struct model *m)
{
    model_open(m, pages, pages + 2);
    for (unsigned i = 0; i < 3000; i++) {
        random_step(m, &seed, pages);
        committed_check(m);
    }
    if (!m->rebuilding) {
        mark(m);
        assert_true(commit(m));
    }
    model_close(m);
}

static void long_histories_too(void **s)
{
    struct model *m = malloc(sizeof *m);
    unsigned refused = 0, commits = 0, known = 0, unknown = 0;

    (void)s;
    for (unsigned seed = 0; seed < 200; seed++) {
        /* From hardly any room to enough for two copies. */
        random_history(seed, 2 + seed % (2 * BLOCKS), m);
        refused += m->refused;
        commits += m->commits;
        known += m->known;
        unknown += m->unknown;
    }
    assert_in_range(refused, 1000, UINT32_MAX);
    assert_in_range(commits, 10000, UINT32_MAX);
    assert_in_range(known, 1000, UINT32_MAX); /* and written since */
    assert_in_range(unknown, 1000, UINT32_MAX);
    free(m);
}

/* --- Single rules ----------------------------------------------------------*/

static void a_block_is_sent_once_an_epoch(void **s)
{
    struct model m;
    uint64_t next = 0;

    (void)s;
    model_open(&m, 16, 16);
    for (unsigned i = 0; i < 100; i++)
        write_at(&m, 8, 8, false);
    assert_int_equal(epochlog_load(m.log).pages_used, 1);
    mark(&m);
    write_at(&m, 8, 8, false); /* of the next one */
    assert_true(epochlog_fetch(m.log, m.cut));
    assert_true(epochlog_next(m.log, &m.builder, 1, 0));
    const struct buf *p = extents_end(&m.builder);
    assert_int_equal(p->len, EXTENTS_HEAD + EXTENTS_ENTRY + EPOCHLOG_BLOCK);
    apply(&m, p, &next);
    assert_false(epochlog_next(m.log, &m.builder, 1, 1));
    assert_memory_equal(m.backup, m.at_cut, BYTES);
    model_close(&m);
}

static void what_was_closed_later_is_not_forgotten(void **s)
{
    struct model m;

    (void)s;
    model_open(&m, 16, 16);
    write_at(&m, 0, 8, false);
    mark(&m); /* cut 1 ends */
    assert_true(epochlog_fetch(m.log, 2));
    write_at(&m, 8, 8, false);
    mark(&m); /* given up, cut 2 ends */
    write_at(&m, 16, 4, false);
    assert_false(epochlog_next(m.log, &m.builder, 1, 0));
    assert_false(epochlog_commit(m.log, 1));
    assert_true(commit(&m));
    model_close(&m);
}

static void the_second_half_counts_in_percent(void **s)
{
    struct epochlog *log;
    struct epochlog_config c = {.pages = 200, .entries = 400};
    uint8_t data[EPOCHLOG_BLOCK] = {1};

    (void)s;
    assert_int_equal(epochlog_open(&log, &c, NULL), 0);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(epochlog_load(log).over_percent,
                         i > 100 ? i - 100 : 0);
        assert_true(epochlog_write(log, 1, i * 8, 8, data));
    }
    assert_int_equal(epochlog_load(log).over_percent, 100);
    assert_true(epochlog_fetch(log, 2));
    assert_true(epochlog_commit(log, 1));
    assert_int_equal(epochlog_load(log).over_percent, 0);
    assert_true(epochlog_write(log, 2, 0, 300 * 8, NULL)); /* no pages */
    assert_int_equal(epochlog_load(log).over_percent, 50);
    epochlog_free(log);
}

static void a_limit_counts_instead_of_what_there_is(void **s)
{
    struct epochlog *log;
    struct epochlog_config c = {.pages = 200, .entries = 400};
    uint8_t data[EPOCHLOG_BLOCK] = {1};

    (void)s;
    assert_int_equal(epochlog_open(&log, &c, NULL), 0);
    epochlog_limit(log, 40 * EPOCHLOG_BLOCK);
    for (unsigned i = 0; i < 80; i++) {
        assert_int_equal(epochlog_load(log).early, i > 20);
        assert_int_equal(epochlog_load(log).over_percent,
                         i > 20 ? (i - 20) * 5 : 0);
        assert_true(epochlog_write(log, 1, i * 8, 8, data));
    }
    epochlog_limit(log, 0);
    assert_false(epochlog_load(log).early);
    epochlog_limit(log, 1ull << 60);
    assert_false(epochlog_load(log).early);
    epochlog_free(log);
}

static void a_large_epoch_comes_in_pieces(void **s)
{
    struct epochlog *log;
    struct epochlog_config c = {.pages = 300, .entries = 300};
    struct extents_builder b = {0};
    uint8_t data[EPOCHLOG_BLOCK] = {1};
    uint64_t next = 0, bytes = 0;
    uint32_t n = 0;

    (void)s;
    assert_int_equal(epochlog_open(&log, &c, NULL), 0);
    for (unsigned i = 0; i < 300; i++)
        assert_true(epochlog_write(log, 1, (299 - i) * 8, 8, data));
    assert_false(epochlog_write(log, 1, 300 * 8, 1, data));
    assert_true(epochlog_load(log).early);
    assert_true(epochlog_fetch(log, 2));
    for (; epochlog_next(log, &b, 7, n); n++) {
        struct extents x;
        struct extent one;
        const struct buf *p = extents_end(&b);
        assert_int_equal(extents_read(p->data, p->len, 2400, &next, &x, NULL),
                         0);
        assert_int_equal(x.sequence, n);
        while (extents_next(&x, &one))
            bytes += one.sectors * SECTOR;
    }
    assert_int_equal(bytes, 300 * EPOCHLOG_BLOCK);
    assert_int_equal(n, (bytes + EXTENTS_DATA_MAX - 1) / EXTENTS_DATA_MAX);
    extents_free(&b);
    epochlog_free(log);
}

/* --- Payloads from a hostile peer ----------------------------------------- */

static int payload_read(const struct buf *p, uint64_t next)
{
    struct extents x;

    return extents_read(p->data, p->len, SECTORS, &next, &x, NULL);
}

static void payload_make(struct buf *p, uint64_t sector, uint32_t sectors,
                         uint32_t kind, size_t data)
{
    buf_clear(p);
    buf_u64(p, 1);
    buf_u32(p, 0);
    buf_u32(p, 1);
    buf_u64(p, sector);
    buf_u32(p, sectors);
    buf_u32(p, kind);
    for (size_t i = 0; i < data; i++)
        buf_u8(p, 7);
}

static void payloads_are_checked(void **s)
{
    struct buf p = {0};

    (void)s;
    payload_make(&p, 4, 2, EXTENT_DATA, 2 * SECTOR);
    assert_int_equal(payload_read(&p, 4), 0);
    assert_int_equal(payload_read(&p, 5), -1); /* does not rise */
    for (size_t len = p.len; len-- > 0;) {
        p.len = len;
        assert_int_equal(payload_read(&p, 0), -1);
    }
    payload_make(&p, 4, 2, EXTENT_DATA, 2 * SECTOR + 1);
    assert_int_equal(payload_read(&p, 0), -1);
    payload_make(&p, 4, 2, 3, 0);
    assert_int_equal(payload_read(&p, 0), -1);
    payload_make(&p, 4, 0, EXTENT_ZERO, 0);
    assert_int_equal(payload_read(&p, 0), -1);
    payload_make(&p, SECTORS - 1, 2, EXTENT_ZERO, 0);
    assert_int_equal(payload_read(&p, 0), -1);
    payload_make(&p, UINT64_MAX, 2, EXTENT_ZERO, 0);
    assert_int_equal(payload_read(&p, 0), -1);
    payload_make(&p, 0, UINT32_MAX, EXTENT_DATA, 0);
    assert_int_equal(payload_read(&p, 0), -1);
    buf_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_short_history_gives_the_disk_at_the_cut),
        cmocka_unit_test(long_histories_too),
        cmocka_unit_test(a_block_is_sent_once_an_epoch),
        cmocka_unit_test(what_was_closed_later_is_not_forgotten),
        cmocka_unit_test(the_second_half_counts_in_percent),
        cmocka_unit_test(a_limit_counts_instead_of_what_there_is),
        cmocka_unit_test(a_large_epoch_comes_in_pieces),
        cmocka_unit_test(payloads_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
