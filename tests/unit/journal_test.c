// SPDX-License-Identifier: Apache-2.0
/* The backup's journal: the plug is pulled at every operation of the journal
 * and the image, after every byte of the journal, with many outcomes of what
 * was not synced, and again while recovery runs. What comes back is always one
 * whole epoch, and none that was durable is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/log.h"
#include "tests/lib/journal_host.h"

#define EPOCHS   14
#define VERSIONS 8 /* of one epoch: prepared, and dropped again */

/* What happened there, as the test knows it. */
struct story {
    struct host h;
    struct journal *j;
    struct extents_builder b;
    uint64_t seed;
    /* Images that epoch n may have, in the order they were prepared. */
    uint8_t image[EPOCHS + 2][VERSIONS][BYTES];
    unsigned versions[EPOCHS + 2];
    uint8_t now[BYTES]; /* of the committed epoch */
    uint64_t floor;     /* must come back at least */
    uint64_t ceiling;   /* and this at most */
};

/* --- An epoch ------------------------------------------------------------- */

static bool apply_all(struct story *s)
{
    bool done = false;

    while (!done)
        if (journal_apply(s->j, &done, NULL))
            return false;
    s->floor = journal_status(s->j).committed;
    return true;
}

static bool piece_receive(struct story *s, const struct buf *p,
                          struct journal_totals *sent)
{
    if (journal_room(s->j, p->len) != JOURNAL_FITS) {
        assert_int_equal(journal_room(s->j, p->len), JOURNAL_FULL);
        if (!apply_all(s))
            return false;
    }
    if (journal_receive(s->j, p->data, p->len, NULL))
        return false;
    sent->pieces++;
    sent->bytes += p->len;
    return true;
}

/* Receive up to `pieces` pieces and prepare; false: the power went. */
static bool epoch_prepare(struct story *s, unsigned pieces, uint8_t *image)
{
    uint64_t epoch = journal_status(s->j).committed + 1, sector = 0;
    struct journal_totals sent = {.epoch = epoch};
    bool ok = true, durable = plug_random(&s->seed) % 3 == 0;

    memcpy(image, s->now, BYTES);
    for (unsigned i = 0; i < pieces && ok; i++) {
        const struct buf *p =
            piece_make(&s->b, &s->seed, epoch, i, &sector, image);
        if (!p)
            break;
        ok = piece_receive(s, p, &sent);
    }
    if (!ok)
        return false;
    /* From here on recovery may find it. */
    assert_in_range(s->versions[epoch], 0, VERSIONS - 1);
    memcpy(s->image[epoch][s->versions[epoch]++], image, BYTES);
    s->ceiling = epoch;
    if (journal_room(s->j, 0) != JOURNAL_FITS && !apply_all(s))
        return false;
    if (journal_prepare(s->j, &sent, epoch * 1000, durable, NULL))
        return false;
    if (durable)
        s->floor = epoch;
    return true;
}

static bool epoch_run(struct story *s)
{
    uint8_t image[BYTES];
    unsigned kind = (unsigned)(plug_random(&s->seed) % 8);

    if (kind == 0) { /* the session breaks in the middle */
        uint64_t sector = 0;
        uint64_t epoch = journal_status(s->j).committed + 1;
        memcpy(image, s->now, BYTES);
        const struct buf *p =
            piece_make(&s->b, &s->seed, epoch, 0, &sector, image);
        if (p && journal_room(s->j, p->len) == JOURNAL_FITS &&
            journal_receive(s->j, p->data, p->len, NULL))
            return false;
        journal_drop(s->j);
    }
    uint64_t floor = s->floor;
    if (!epoch_prepare(s, kind, image))
        return false;
    if (kind == 1 && s->versions[s->ceiling] < VERSIONS - 1) {
        /* Decided against; it is whole all the same, until it is written over,
         * and no promise any more. */
        uint64_t applied = journal_status(s->j).applied;
        s->floor = floor > applied ? floor : applied;
        journal_drop(s->j);
        return true;
    }
    journal_decide(s->j);
    memcpy(s->now, image, BYTES);
    return kind % 2 || apply_all(s);
}

/* Until the plug is pulled, or EPOCHS are committed. True: the end. */
static bool story_run(struct story *s, uint64_t seed, unsigned pulled_at)
{
    memset(s, 0, sizeof *s);
    host_open(&s->h);
    s->seed = seed;
    s->versions[0] = 1;
    assert_int_equal(journal_format(&s->h.c, seed, 0, 0, NULL), 0);
    assert_int_equal(journal_open(&s->j, &s->h.c, NULL), 0);
    s->h.line.ops = 0;
    s->h.line.pulled_at = pulled_at;
    while (journal_status(s->j).committed < EPOCHS)
        if (!epoch_run(s))
            return false;
    return apply_all(s);
}

static void story_end(struct story *s)
{
    journal_close(s->j);
    extents_free(&s->b);
    host_close(&s->h);
}

/* --- Small epochs --------------------------------------------------------- */

static const struct buf *small_piece(struct extents_builder *b, uint64_t epoch,
                                     uint32_t sequence, uint64_t sector,
                                     uint8_t fill)
{
    uint8_t data[SECTOR];
    struct extent x = {sector, 1, EXTENT_DATA, data};

    memset(data, fill, sizeof data);
    extents_begin(b, epoch, sequence);
    extents_add(b, &x);
    return extents_end(b);
}

/* One epoch with one sector of `fill`; returns 0 when it is prepared. */
static int small_epoch(struct journal *j, uint64_t epoch, uint64_t sector,
                       uint8_t fill, struct err *e)
{
    struct extents_builder b = {0};
    const struct buf *p = small_piece(&b, epoch, 0, sector, fill);
    struct journal_totals t = {epoch, 1, p->len, 1};
    int rc = journal_receive(j, p->data, p->len, e) ||
             journal_prepare(j, &t, 7, false, e);
    extents_free(&b);
    return rc;
}

/* --- Power is back -------------------------------------------------------- */

static void image_check(const struct story *s, const struct host *h,
                        struct journal *j)
{
    struct journal_status st = journal_status(j);
    bool any = false;

    assert_in_range(st.committed, s->floor, s->ceiling);
    assert_int_equal(st.applied, st.committed);
    assert_int_equal(st.used, 0);
    assert_int_equal(st.wall_ms, st.committed * 1000);
    for (unsigned v = 0; v < s->versions[st.committed]; v++)
        any |= !memcmp(h->image.durable, s->image[st.committed][v], BYTES);
    assert_true(any);
}

/* What is recovered is as good as new: the next epoch, and another cut. */
static void one_more(struct host *h, struct journal *j)
{
    uint64_t epoch = journal_status(j).committed + 1;

    assert_int_equal(small_epoch(j, epoch, 5, 0xee, NULL), 0);
    journal_decide(j);
    assert_int_equal(h->log.store.ops->sync(&h->log.store, NULL), 0);
    journal_close(j);
    host_back(h, h, PLUG_NOTHING, 0, NULL);
    assert_int_equal(journal_open(&j, &h->c, NULL), 0);
    assert_int_equal(journal_status(j).applied, epoch);
    assert_int_equal(h->image.durable[5 * SECTOR], 0xee);
    journal_close(j);
}

static void recover_and_check(const struct story *s, struct host *h,
                              bool goes_on)
{
    struct journal *j;
    struct journal_found found;
    struct err e = ERR_INIT;

    h->line = (struct plug_line){0};
    if (journal_look(&h->c, &found, &e) || journal_open(&j, &h->c, &e))
        fail_msg("%s", e.text);
    assert_int_equal(found.last, journal_status(j).committed);
    assert_int_equal(found.wall_ms, found.last * 1000);
    assert_in_range(found.least, 0, found.last);
    image_check(s, h, j);
    if (goes_on)
        one_more(h, j);
    else
        journal_close(j);
}

/* Recovery loses power too, at each of its operations. */
static void recover_in_steps(const struct story *s, struct host *h,
                             uint64_t *seed)
{
    struct host again;
    struct journal *j;

    host_open(&again);
    for (unsigned at = 1; at < 1000; at++) {
        host_back(h, &s->h, PLUG_ALL, 0, seed);
        h->line = (struct plug_line){.pulled_at = at};
        if (!journal_open(&j, &h->c, NULL)) {
            journal_close(j);
            break;
        }
        for (unsigned i = 0; i < 3; i++) {
            host_back(&again, h, (enum plug_outcome)i, 100, seed);
            recover_and_check(s, &again, true);
        }
    }
    host_close(&again);
}

static unsigned cut_everywhere(struct story *s, struct host *h, uint64_t seed)
{
    unsigned recoveries = 0;
    uint64_t coin = seed;

    for (unsigned at = 1;; at++) {
        bool end = story_run(s, seed, at);
        const struct plug_write *cut = s->h.log.cut;
        /* In the journal after each byte, else at some places. */
        for (size_t torn = 0; cut && torn <= cut->len; torn++, recoveries++) {
            host_back(h, &s->h, PLUG_ALL, torn, &coin);
            recover_and_check(s, h, torn % 16 == 0);
        }
        for (unsigned i = 0; i < 24; i++, recoveries++) {
            host_back(h, &s->h, i ? PLUG_SOME : PLUG_NOTHING, 300 * i, &coin);
            recover_and_check(s, h, true);
        }
        if (at % 7 == seed % 7)
            recover_in_steps(s, h, &coin);
        story_end(s);
        if (end)
            return recoveries;
        assert_in_range(at, 1, 5000);
    }
}

static void a_power_cut_anywhere_leaves_a_whole_epoch(void **state)
{
    struct story *s = malloc(sizeof *s);
    struct host h;
    unsigned recoveries = 0;

    (void)state;
    host_open(&h);
    for (uint64_t seed = 1; seed <= 4; seed++)
        recoveries += cut_everywhere(s, &h, seed);
    print_message("%u recoveries\n", recoveries);
    assert_in_range(recoveries, 50000, UINT32_MAX);
    host_close(&h);
    free(s);
}

/* --- Single rules --------------------------------------------------------- */

static struct journal *fresh(struct host *h)
{
    struct journal *j;

    host_open(h);
    assert_int_equal(journal_format(&h->c, 1, 0, 0, NULL), 0);
    assert_int_equal(journal_open(&j, &h->c, NULL), 0);
    return j;
}

static void what_is_decided_is_applied_and_what_is_not_is_not(void **s)
{
    struct host h;
    struct journal *j = fresh(&h);
    bool done = false;

    (void)s;
    assert_int_equal(small_epoch(j, 1, 3, 0x11, NULL), 0);
    assert_int_equal(journal_apply(j, &done, NULL), 0);
    assert_true(done);
    assert_int_equal(h.image.now[3 * SECTOR], 0);
    journal_decide(j);
    for (done = false; !done;)
        assert_int_equal(journal_apply(j, &done, NULL), 0);
    assert_int_equal(h.image.durable[3 * SECTOR], 0x11);
    assert_int_equal(journal_status(j).applied, 1);
    journal_close(j);
    host_close(&h);
}

static void after_retiring_nothing_is_applied(void **s)
{
    struct host h;
    struct journal *j = fresh(&h);

    (void)s;
    assert_int_equal(small_epoch(j, 1, 3, 0x11, NULL), 0);
    journal_decide(j);
    assert_int_equal(small_epoch(j, 2, 4, 0x22, NULL), 0); /* undecided */
    assert_int_equal(journal_retire(j, NULL), 0);
    assert_int_equal(h.image.durable[3 * SECTOR], 0x11);
    assert_int_equal(small_epoch(j, 2, 4, 0x22, NULL), 1);
    journal_close(j);
    h.image.now[3 * SECTOR] = 0x33; /* the guest's own writes */
    h.image.now[4 * SECTOR] = 0x44;
    assert_int_equal(journal_open(&j, &h.c, NULL), 0);
    assert_int_equal(journal_status(j).committed, 1);
    assert_int_equal(h.image.now[3 * SECTOR], 0x33);
    assert_int_equal(h.image.now[4 * SECTOR], 0x44);
    journal_close(j);
    host_close(&h);
}

/* Every record byte of an epoch that was being applied: the image can't be
 * completed, and nobody pretends that it can. */
static void damage_of_a_half_applied_epoch_is_told(void **s)
{
    struct host h;
    struct journal *j = fresh(&h);
    bool done;
    struct err e = ERR_INIT;

    (void)s;
    assert_int_equal(small_epoch(j, 1, 3, 0x11, NULL), 0);
    journal_decide(j);
    assert_int_equal(journal_apply(j, &done, NULL), 0); /* is marked now */
    journal_close(j);
    size_t used = 56 + 32 + SECTOR;
    for (size_t i = 0; i < used; i++) {
        h.log.now[JOURNAL_START + i] ^= 0x10;
        assert_int_equal(journal_open(&j, &h.c, &e), -1);
        assert_int_equal(e.kind, ERR_FAILED);
        assert_non_null(strstr(e.text, "not a whole epoch"));
        h.log.now[JOURNAL_START + i] ^= 0x10;
    }
    assert_int_equal(journal_open(&j, &h.c, NULL), 0);
    assert_int_equal(h.image.durable[3 * SECTOR], 0x11);
    journal_close(j);
    host_close(&h);
}

static void what_the_peer_says_is_checked(void **s)
{
    struct host h;
    struct journal *j = fresh(&h);
    struct extents_builder b = {0};
    struct journal_totals t = {1, 0, 0, 1};
    struct journal_totals wrong[] = {
        {2, 0, 0, 1}, {1, 1, 0, 1}, {1, 0, 1, 1}, {0}};

    (void)s;
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(journal_prepare(j, &wrong[i], 0, false, NULL), -1);
    assert_int_equal(small_epoch(j, 2, 0, 1, NULL), 1);       /* not the next */
    assert_int_equal(small_epoch(j, 1, SECTORS, 1, NULL), 1); /* outside */
    assert_int_equal(journal_prepare(j, &t, 0, false, NULL), 0); /* empty */
    const struct buf *p = small_piece(&b, 1, 0, 0, 1);
    assert_int_equal(journal_receive(j, p->data, p->len, NULL), -1);
    journal_decide(j);
    assert_int_equal(small_epoch(j, 2, 0, 1, NULL), 0);
    assert_false(journal_status(j).broken);
    extents_free(&b);
    journal_close(j);
    host_close(&h);
}

static void an_epoch_that_never_fits_is_told_apart(void **s)
{
    struct host h;
    struct journal *j = fresh(&h);
    bool done = false;

    (void)s;
    assert_int_equal(journal_room(j, 31 * 1024), JOURNAL_FITS);
    assert_int_equal(journal_room(j, 32 * 1024), JOURNAL_NEVER);
    assert_int_equal(journal_room(j, EXTENTS_BYTES_MAX + 1), JOURNAL_NEVER);
    assert_int_equal(small_epoch(j, 1, 0, 1, NULL), 0);
    journal_decide(j);
    assert_int_equal(journal_room(j, 31 * 1024), JOURNAL_FULL);
    while (!done)
        assert_int_equal(journal_apply(j, &done, NULL), 0);
    assert_int_equal(journal_status(j).used, 0);
    journal_close(j);
    host_close(&h);
}

static void a_commit_record_has_its_place_kept(void **s)
{
    struct host h;
    struct journal *j = fresh(&h);
    struct extents_builder b = {0};
    struct journal_totals t = {.epoch = 1};

    (void)s;
    for (; t.pieces < SECTORS; t.pieces++) {
        /* Two sectors of the ring each, 24 of them: not all of it. */
        const struct buf *p = small_piece(&b, 1, t.pieces, t.pieces, 1);
        assert_int_equal(journal_receive(j, p->data, p->len, NULL), 0);
        t.bytes += p->len;
    }
    /* A payload that leaves room for less than a commit record. */
    uint64_t left = journal_status(j).bytes - journal_status(j).used;
    assert_int_equal(journal_room(j, left - 56), JOURNAL_NEVER);
    assert_int_equal(journal_room(j, left - 56 - SECTOR), JOURNAL_FITS);
    assert_int_equal(journal_prepare(j, &t, 0, false, NULL), 0);
    extents_free(&b);
    journal_close(j);
    host_close(&h);
}

static void after_a_failed_sync_it_is_broken(void **s)
{
    struct host h;
    struct journal *j = fresh(&h);
    bool done = false;

    (void)s;
    assert_int_equal(small_epoch(j, 1, 0, 1, NULL), 0);
    journal_decide(j);
    h.image.fail_sync = true;
    while (!done)
        if (journal_apply(j, &done, NULL))
            break;
    assert_false(done);
    assert_true(journal_status(j).broken);
    assert_int_equal(journal_status(j).applied, 0);
    h.image.fail_sync = false;
    assert_int_equal(journal_apply(j, &done, NULL), -1);
    assert_int_equal(journal_retire(j, NULL), -1);
    journal_close(j);
    assert_int_equal(journal_open(&j, &h.c, NULL), 0);
    assert_int_equal(journal_status(j).applied, 1);
    journal_close(j);
    host_close(&h);
}

static void another_images_journal_is_refused(void **s)
{
    struct host h;
    struct journal *j = fresh(&h);
    struct err e = ERR_INIT;

    (void)s;
    journal_close(j);
    h.c.id[0] ^= 1;
    assert_int_equal(journal_open(&j, &h.c, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    h.c.id[0] ^= 1;
    h.c.image_bytes -= SECTOR;
    assert_int_equal(journal_open(&j, &h.c, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    memset(h.log.now, 0, LOG);
    assert_int_equal(journal_open(&j, &h.c, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    host_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_anywhere_leaves_a_whole_epoch),
        cmocka_unit_test(what_is_decided_is_applied_and_what_is_not_is_not),
        cmocka_unit_test(after_retiring_nothing_is_applied),
        cmocka_unit_test(damage_of_a_half_applied_epoch_is_told),
        cmocka_unit_test(what_the_peer_says_is_checked),
        cmocka_unit_test(an_epoch_that_never_fits_is_told_apart),
        cmocka_unit_test(a_commit_record_has_its_place_kept),
        cmocka_unit_test(after_a_failed_sync_it_is_broken),
        cmocka_unit_test(another_images_journal_is_refused),
    };

    log_setup("journal", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
