// SPDX-License-Identifier: Apache-2.0
/* What a journal has, and recovery that goes to a given epoch: another disk of
 * the VM may not have the last one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "disk-replicate/cold.h"
#include "tests/lib/plug.h"

#define SECTORS 64u
#define BYTES   (SECTORS * SECTOR)
#define LOG     (JOURNAL_START + 64u * SECTOR)

struct host {
    struct plug_line line;
    struct plug_disk log, image;
    struct journal_config c;
    struct journal *j;
};

static int host_open(void **state)
{
    struct host *h = calloc(1, sizeof *h);

    plug_open(&h->log, &h->line, "journal", LOG);
    plug_open(&h->image, &h->line, "image", BYTES);
    h->c = (struct journal_config){.log = &h->log.store,
                                   .image = &h->image.store,
                                   .log_bytes = LOG,
                                   .image_bytes = BYTES,
                                   .id = "web.img"};
    assert_int_equal(journal_format(&h->c, 1, 0, 0, NULL), 0);
    assert_int_equal(journal_open(&h->j, &h->c, NULL), 0);
    *state = h;
    return 0;
}

static int host_close(void **state)
{
    struct host *h = *state;

    journal_close(h->j);
    plug_close(&h->log);
    plug_close(&h->image);
    free(h);
    return 0;
}

/* An epoch of one sector, prepared at `epoch` * 1000; its coming is `fill`. */
static void prepare(struct host *h, uint64_t epoch, uint64_t sector,
                    uint8_t fill)
{
    struct extents_builder b = {0};
    uint8_t data[SECTOR];
    struct extent x = {sector, 1, EXTENT_DATA, data};

    memset(data, fill, sizeof data);
    extents_begin(&b, epoch, 0);
    extents_add(&b, &x);
    const struct buf *p = extents_end(&b);
    struct journal_totals t = {epoch, 1, p->len, fill};
    assert_int_equal(journal_receive(h->j, p->data, p->len, NULL), 0);
    assert_int_equal(journal_prepare(h->j, &t, epoch * 1000, false, NULL), 0);
    extents_free(&b);
}

static void apply(struct host *h)
{
    bool done = false;

    journal_decide(h->j);
    while (!done)
        assert_int_equal(journal_apply(h->j, &done, NULL), 0);
}

static void open_again(struct host *h, uint64_t last)
{
    h->c.last = last;
    assert_int_equal(journal_open(&h->j, &h->c, NULL), 0);
}

/* Epoch 1 is applied, 2 decided, 3 prepared; nobody has the journal. */
static void three_epochs(struct host *h)
{
    prepare(h, 1, 3, 0x11);
    apply(h);
    prepare(h, 2, 3, 0x22);
    journal_decide(h->j);
    prepare(h, 3, 3, 0x33);
    journal_close(h->j);
    h->j = NULL;
}

static void a_look_finds_what_there_is_and_changes_nothing(void **state)
{
    struct host *h = *state;
    struct journal_config c;
    struct journal_found found;

    three_epochs(h);
    h->line.ops = 0;
    c = h->c;
    c.image = NULL;
    c.image_bytes = 0;
    assert_int_equal(journal_look(&c, &found, NULL), 0);
    assert_int_equal(found.least, 1);
    assert_int_equal(found.last, 3);
    assert_int_equal(found.wall_ms, 3000);
    assert_int_equal(found.coming, 0x33);
    assert_int_equal(found.before_ms, 2000);
    assert_int_equal(h->line.ops, 0);
}

/* What was prepared and dropped is found; of which coming it is, is said. */
static void what_was_dropped_says_what_it_is(void **state)
{
    struct host *h = *state;
    struct journal_found found;

    prepare(h, 1, 3, 0x11);
    apply(h);
    assert_int_equal(journal_look(&h->c, &found, NULL), 0);
    assert_int_equal(found.last, 1);
    assert_int_equal(found.coming, 0);
    prepare(h, 2, 3, 0x22);
    journal_drop(h->j);
    assert_int_equal(journal_look(&h->c, &found, NULL), 0);
    assert_int_equal(found.last, 2);
    assert_int_equal(found.coming, 0x22);
    assert_int_equal(found.before_ms, 1000);
    prepare(h, 2, 3, 0x23);
    assert_int_equal(journal_look(&h->c, &found, NULL), 0);
    assert_int_equal(found.coming, 0x23);
}

static void recovery_goes_no_further_than_it_is_told(void **state)
{
    struct host *h = *state;

    three_epochs(h);
    open_again(h, 2);
    assert_int_equal(journal_status(h->j).committed, 2);
    assert_int_equal(journal_status(h->j).wall_ms, 2000);
    assert_int_equal(h->image.durable[3 * SECTOR], 0x22);
    /* Another third one takes the place of the first. */
    prepare(h, 3, 4, 0x44);
    apply(h);
    assert_int_equal(h->image.durable[3 * SECTOR], 0x22);
    assert_int_equal(h->image.durable[4 * SECTOR], 0x44);
}

/* Applying is begun: only that epoch is whole. */
static void an_epoch_that_is_being_applied_is_the_least(void **state)
{
    struct host *h = *state;
    struct journal_found found;
    bool done = false;

    prepare(h, 1, 3, 0x11);
    journal_decide(h->j);
    assert_int_equal(journal_apply(h->j, &done, NULL), 0);
    assert_int_equal(journal_look(&h->c, &found, NULL), 0);
    assert_int_equal(found.least, 1);
    assert_int_equal(found.last, 1);
}

/* --- Several disks -------------------------------------------------------- */

static uint64_t common(struct journal_found a, struct journal_found b,
                       uint64_t *wall_ms)
{
    struct journal_found f[] = {{1, 9, 9000, 0, 8000}, a, b};

    return cold_common(f, 3, wall_ms);
}

static void disks_become_what_all_can_be(void **state)
{
    struct journal_found two = {1, 2, 2000, 7, 1000},
                         three = {2, 3, 3000, 8, 2000};
    uint64_t ms;

    (void)state;
    assert_int_equal(common(two, three, &ms), 2);
    assert_int_equal(ms, 2000);
    assert_int_equal(common(three, two, &ms), 2);
    three.least = 3;
    assert_int_equal(common(two, three, &ms), 0);
    assert_int_equal(common(three, two, &ms), 0);
}

/* A session ended when both had prepared it; it came again, and one of the two
 * had not prepared that when all was lost. */
static void two_comings_of_an_epoch_are_not_one(void **state)
{
    struct journal_found first = {1, 3, 3000, 7, 2000},
                         again = {1, 3, 3100, 8, 2100},
                         applied = {3, 3, 3000, 0, 0};
    uint64_t ms;

    (void)state;
    assert_int_equal(common(first, first, &ms), 3);
    assert_int_equal(ms, 3000);
    assert_int_equal(common(first, again, &ms), 2);
    assert_int_equal(ms, 2000);
    assert_int_equal(common(again, first, &ms), 2);
    assert_int_equal(common(again, applied, &ms), 3);
    again.least = 3;
    assert_int_equal(common(first, again, &ms), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, host_open, host_close)
    const struct CMUnitTest tests[] = {
        T(a_look_finds_what_there_is_and_changes_nothing),
        T(what_was_dropped_says_what_it_is),
        T(recovery_goes_no_further_than_it_is_told),
        T(an_epoch_that_is_being_applied_is_the_least),
        cmocka_unit_test(disks_become_what_all_can_be),
        cmocka_unit_test(two_comings_of_an_epoch_are_not_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
