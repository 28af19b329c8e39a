// SPDX-License-Identifier: Apache-2.0
/* The write-intent bitmap: whenever the power goes, every region in which the
 * two sides differ has its bit; and bits do not stay for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "disk-replicate/intent.h"
#include "tests/lib/plug.h"

#define IMAGE   (600ull << 20) /* three sectors of bits */
#define PLACES  8
#define WRITERS 3
#define STEPS   400

/* At the edges of bytes, sectors and the image. */
static const uint64_t place[PLACES] = {
    0, 7, 8, 4031, 4032, 8063, 8064, IMAGE / INTENT_REGION - 1};

enum writer_state { IDLE, WANTS, MAY, WROTE };

struct writer {
    enum writer_state state;
    unsigned place;
};

struct model {
    struct plug_line line;
    struct plug_disk file;
    struct intent_config c;
    struct intent *i;
    uint64_t seed, cut;
    struct writer writer[WRITERS];
    unsigned here[PLACES], logged[PLACES]; /* versions */
    unsigned cut_has[PLACES], there[PLACES];
    uint64_t cut_closed; /* cut_has is of this one */
    bool flushing;
};

static void model_open(struct model *m, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    plug_open(&m->file, &m->line, "bitmap", intent_file_bytes(IMAGE));
    m->c = (struct intent_config){&m->file.store, IMAGE, "web.img", "base"};
    m->seed = seed;
    m->cut = 1;
    assert_int_equal(intent_format(&m->c, false, NULL), 0);
    assert_int_equal(intent_open(&m->i, &m->c, NULL), 0);
    intent_period(m->i, m->cut);
}

static bool asks(struct model *m, const struct writer *w)
{
    uint64_t at = place[w->place] * INTENT_REGION;

    return intent_write(m->i, at + w->place * 512, 512);
}

/* The steps of a write as docs/disk.md has them. */
static void writer_step(struct model *m, struct writer *w)
{
    switch (w->state) {
    case IDLE:
        w->place = (unsigned)(plug_random(&m->seed) % PLACES);
        w->state = WANTS;
        break;
    case WANTS:
        if (asks(m, w))
            w->state = MAY;
        break;
    case MAY:
        m->here[w->place]++; /* on disk at once, in the worst case */
        w->state = WROTE;
        break;
    case WROTE:
        m->logged[w->place] = m->here[w->place];
        w->state = IDLE;
        break;
    }
}

static void period_begin(struct model *m)
{
    intent_period(m->i, m->cut);
    for (unsigned i = 0; i < WRITERS; i++)
        if (m->writer[i].state != IDLE)
            asks(m, &m->writer[i]);
}

static void cut_and_send(struct model *m)
{
    m->cut_closed = m->cut++;
    memcpy(m->cut_has, m->logged, sizeof m->logged);
}

static void other_side_synced(struct model *m)
{
    memcpy(m->there, m->cut_has, sizeof m->there);
    intent_clear(m->i, m->cut_closed);
}

/* False: the power went. */
static bool flush_step(struct model *m)
{
    if (!m->flushing) {
        intent_flush_begin(m->i);
        m->flushing = true;
        return true;
    }
    m->flushing = false;
    if (intent_flush_io(m->i, NULL))
        return false;
    intent_flush_end(m->i, true);
    return true;
}

static bool model_step(struct model *m)
{
    unsigned kind = (unsigned)(plug_random(&m->seed) % 16);

    if (kind < 9)
        writer_step(m, &m->writer[kind % WRITERS]);
    else if (kind == 9)
        period_begin(m);
    else if (kind == 10)
        cut_and_send(m);
    else if (kind < 13)
        other_side_synced(m);
    else
        return flush_step(m);
    return true;
}

/* Every difference has its bit after any outcome of the cut. */
static void bits_check(const struct model *m, struct model *after,
                       enum plug_outcome outcome, size_t torn, uint64_t *seed)
{
    struct intent *i;

    after->line = (struct plug_line){0};
    plug_back(&after->file, &m->file, outcome, torn, seed);
    assert_int_equal(intent_open(&i, &after->c, NULL), 0);
    for (unsigned p = 0; p < PLACES; p++) {
        uint64_t region = place[p];
        if (m->here[p] != m->there[p]) {
            assert_true(intent_next(i, &region));
            assert_int_equal(region, place[p]);
        }
    }
    intent_close(i);
}

static bool run_until(struct model *m, uint64_t seed, unsigned pulled_at)
{
    model_open(m, seed);
    m->line = (struct plug_line){.pulled_at = pulled_at};
    for (unsigned i = 0; i < STEPS; i++)
        if (!model_step(m))
            return false;
    return true;
}

static void model_close(struct model *m)
{
    intent_close(m->i);
    plug_close(&m->file);
}

static void whenever_the_power_goes_no_difference_is_without_its_bit(void **s)
{
    struct model m, after;
    uint64_t coin = 1;
    unsigned cuts = 0;

    (void)s;
    model_open(&after, 0);
    for (uint64_t seed = 1; seed <= 60; seed++) {
        bool end = false;
        for (unsigned at = 1; !end; at++, cuts++) {
            end = run_until(&m, seed, at);
            for (size_t torn = 0; torn <= 512; torn += 37)
                bits_check(&m, &after, PLUG_ALL, torn, &coin);
            for (unsigned i = 0; i < 8; i++)
                bits_check(&m, &after, i ? PLUG_SOME : PLUG_NOTHING, 512,
                           &coin);
            model_close(&m);
        }
    }
    assert_in_range(cuts, 2000, UINT32_MAX);
    model_close(&after);
}

/* The power goes between two operations, at any step. */
static void nor_at_any_other_moment(void **s)
{
    struct model m, after;
    uint64_t coin = 1;

    (void)s;
    model_open(&after, 0);
    for (uint64_t seed = 1; seed <= 200; seed++) {
        model_open(&m, seed);
        for (unsigned i = 0; i < STEPS; i++) {
            assert_true(model_step(&m));
            bits_check(&m, &after, (enum plug_outcome)(i % 3), 0, &coin);
        }
        model_close(&m);
    }
    model_close(&after);
}

static void bits_go_when_both_sides_are_the_same(void **s)
{
    struct model m;

    (void)s;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        run_until(&m, seed, 0);
        for (unsigned i = 0; i < 100 * WRITERS; i++)
            if (m.writer[i % WRITERS].state != IDLE) {
                writer_step(&m, &m.writer[i % WRITERS]);
                flush_step(&m);
            }
        period_begin(&m);
        cut_and_send(&m);
        other_side_synced(&m);
        assert_int_equal(intent_count(m.i), 0);
        m.flushing = false;
        flush_step(&m);
        flush_step(&m);
        intent_close(m.i);
        assert_int_equal(intent_open(&m.i, &m.c, NULL), 0);
        assert_int_equal(intent_count(m.i), 0);
        model_close(&m);
    }
}

/* After the rest of a flush, all is durable that was wanted before it began:
 * a bit that was cleared on the way is asked for again. */
static void a_bit_cleared_during_a_flush_is_not_durable(void **s)
{
    struct model m;

    (void)s;
    model_open(&m, 1);
    assert_false(intent_write(m.i, 0, 1));
    intent_flush_begin(m.i);
    intent_period(m.i, 1);
    intent_clear(m.i, 1);
    assert_int_equal(intent_flush_io(m.i, NULL), 0);
    intent_flush_end(m.i, true);
    assert_false(intent_write(m.i, 0, 1));
    intent_flush_begin(m.i);
    assert_int_equal(intent_flush_io(m.i, NULL), 0);
    intent_flush_end(m.i, true);
    assert_true(intent_write(m.i, 0, 1));
    assert_false(intent_write(m.i, 0, INTENT_REGION + 1));
    model_close(&m);
}

static void bits_of_a_predecessor_stay_until_a_period_began(void **s)
{
    struct model m;
    uint64_t region = 0;

    (void)s;
    model_open(&m, 1);
    intent_write(m.i, 9 * INTENT_REGION, 1);
    intent_flush_begin(m.i);
    assert_int_equal(intent_flush_io(m.i, NULL), 0);
    intent_close(m.i);
    assert_int_equal(intent_open(&m.i, &m.c, NULL), 0);
    intent_clear(m.i, 100);
    assert_true(intent_next(m.i, &region));
    assert_int_equal(region, 9);
    assert_true(intent_write(m.i, 9 * INTENT_REGION, 1));
    model_close(&m);
}

/* kill -9 between write and sync: what the successor reads may be in memory
 * only, until it syncs. */
static void what_a_predecessor_did_not_sync_is_synced(void **s)
{
    struct model m, after;
    uint64_t coin = 1;

    (void)s;
    model_open(&after, 0);
    model_open(&m, 1);
    intent_write(m.i, 0, 1);
    intent_flush_begin(m.i);
    m.line.pulled_at = m.line.ops + 2;
    assert_int_equal(intent_flush_io(m.i, NULL), -1);
    m.line = (struct plug_line){0};
    intent_close(m.i);
    assert_int_equal(intent_open(&m.i, &m.c, NULL), 0);
    assert_true(intent_write(m.i, 0, 1));
    m.here[0]++;
    bits_check(&m, &after, PLUG_NOTHING, 0, &coin);
    model_close(&m);
    model_close(&after);
}

static void all_set_regions_are_found(void **s)
{
    struct model m;
    uint64_t region = 0;

    (void)s;
    model_open(&m, 1);
    for (unsigned p = 0; p < PLACES; p++)
        intent_write(m.i, place[p] * INTENT_REGION, 1);
    for (unsigned p = 0; p < PLACES; p++, region++) {
        assert_true(intent_next(m.i, &region));
        assert_int_equal(region, place[p]);
    }
    assert_false(intent_next(m.i, &region));
    region = 1;
    assert_true(intent_next(m.i, &region));
    assert_int_equal(region, 7);
    intent_write(m.i, 24 * INTENT_REGION, 1);
    region = 16;
    assert_true(intent_next(m.i, &region));
    assert_int_equal(region, 24);
    intent_clear(m.i, 1); /* all of them were written in this period */
    assert_int_equal(intent_count(m.i), PLACES + 1);
    model_close(&m);
}

static void damage_reads_as_set(void **s)
{
    struct model m;

    (void)s;
    model_open(&m, 1);
    intent_close(m.i);
    m.file.now[4096 + 512 + 100] ^= 4; /* the second sector */
    assert_int_equal(intent_open(&m.i, &m.c, NULL), 0);
    assert_int_equal(intent_count(m.i), 4032);
    intent_close(m.i);
    m.file.now[4096 + 1024 + 100] ^= 4; /* the last one: not full */
    assert_int_equal(intent_open(&m.i, &m.c, NULL), 0);
    assert_int_equal(intent_count(m.i), IMAGE / INTENT_REGION - 4032);
    model_close(&m);
}

static void a_bitmap_can_begin_full(void **s)
{
    struct model m;

    (void)s;
    model_open(&m, 1);
    intent_close(m.i);
    assert_int_equal(intent_format(&m.c, true, NULL), 0);
    assert_int_equal(intent_open(&m.i, &m.c, NULL), 0);
    assert_int_equal(intent_count(m.i), IMAGE / INTENT_REGION);
    model_close(&m);
}

static void anothers_is_refused(void **s)
{
    struct model m;
    struct intent *i;
    struct err e = ERR_INIT;

    (void)s;
    model_open(&m, 1);
    m.c.base[0] ^= 1;
    assert_int_equal(intent_open(&i, &m.c, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    memset(m.file.now, 0, 512);
    assert_int_equal(intent_open(&i, &m.c, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    model_close(&m);
}

static void after_a_failed_sync_nothing_may_be_written(void **s)
{
    struct model m;

    (void)s;
    model_open(&m, 1);
    m.file.fail_sync = true;
    assert_false(intent_write(m.i, 0, 1));
    intent_flush_begin(m.i);
    assert_int_equal(intent_flush_io(m.i, NULL), -1);
    intent_flush_end(m.i, false);
    m.file.fail_sync = false;
    intent_flush_begin(m.i);
    assert_int_equal(intent_flush_io(m.i, NULL), -1);
    assert_false(intent_write(m.i, 0, 1));
    model_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            whenever_the_power_goes_no_difference_is_without_its_bit),
        cmocka_unit_test(nor_at_any_other_moment),
        cmocka_unit_test(bits_go_when_both_sides_are_the_same),
        cmocka_unit_test(a_bit_cleared_during_a_flush_is_not_durable),
        cmocka_unit_test(bits_of_a_predecessor_stay_until_a_period_began),
        cmocka_unit_test(what_a_predecessor_did_not_sync_is_synced),
        cmocka_unit_test(all_set_regions_are_found),
        cmocka_unit_test(damage_reads_as_set),
        cmocka_unit_test(a_bitmap_can_begin_full),
        cmocka_unit_test(anothers_is_refused),
        cmocka_unit_test(after_a_failed_sync_nothing_may_be_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
