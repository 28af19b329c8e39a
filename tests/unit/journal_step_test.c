// SPDX-License-Identifier: Apache-2.0
/* The journal while it is applied on a thread of its own: before and behind
 * each operation of a step's I/O, all that may be asked meanwhile is asked, at
 * random; and the plug is pulled at each operation of either. What comes back
 * is a whole epoch, none that was durable is lost, and a takeover at any time
 * has exactly what is decided. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/log.h"
#include "tests/lib/journal_host.h"

#define EPOCHS   10
#define VERSIONS 8 /* of one epoch: prepared, and dropped again */

/* An epoch on its way. */
struct coming {
    struct journal_totals totals;
    unsigned pieces; /* still to come */
    uint64_t sector, floor;
    bool open, prepared;
    uint8_t image[BYTES];
};

struct world {
    struct host h;
    struct store_ops ops, real; /* of both disks */
    struct journal *j;
    struct extents_builder b;
    uint64_t seed;
    struct coming next;
    bool in_io, asking; /* a step's I/O; a request in the middle of it */
    bool lost;          /* a request failed: the power is gone */
    unsigned eager;     /* so many requests at once, about */
    unsigned asked;     /* in the middle of I/O, that did something */
    uint8_t image[EPOCHS + 2][VERSIONS][BYTES];
    unsigned versions[EPOCHS + 2];
    uint8_t now[BYTES]; /* of the committed epoch */
    uint64_t floor, ceiling;
};

static struct world *world; /* that of the stores */

static unsigned coin(struct world *w, unsigned n)
{
    return (unsigned)(plug_random(&w->seed) % n);
}

/* --- What is asked ----------------------------------------------------------
 */

static void coming_begin(struct world *w)
{
    struct coming *c = &w->next;

    c->totals =
        (struct journal_totals){.epoch = journal_status(w->j).committed + 1};
    c->pieces = coin(w, 5);
    c->sector = 0;
    c->open = true;
    c->prepared = false;
    memcpy(c->image, w->now, BYTES);
}

static bool piece_ask(struct world *w)
{
    struct coming *c = &w->next;
    uint64_t seed = w->seed, sector = c->sector;
    uint8_t image[BYTES];

    memcpy(image, c->image, BYTES);
    const struct buf *p = piece_make(&w->b, &w->seed, c->totals.epoch,
                                     c->totals.pieces, &c->sector, c->image);
    c->pieces--;
    if (!p) {
        c->pieces = 0;
        return true;
    }
    enum journal_room room = journal_room(w->j, p->len);
    assert_int_not_equal(room, JOURNAL_NEVER);
    if (room == JOURNAL_FULL) { /* later, the same */
        c->pieces++;
        c->sector = sector;
        w->seed = seed;
        memcpy(c->image, image, BYTES);
        return false;
    }
    w->lost = journal_receive(w->j, p->data, p->len, NULL) != 0;
    c->totals.pieces++;
    c->totals.bytes += p->len;
    return true;
}

static bool prepare_ask(struct world *w)
{
    struct coming *c = &w->next;
    uint64_t n = c->totals.epoch;
    bool durable = !coin(w, 3);

    if (journal_room(w->j, 0) != JOURNAL_FITS)
        return false;
    /* From here on recovery may find it. */
    assert_in_range(w->versions[n], 0, VERSIONS - 1);
    memcpy(w->image[n][w->versions[n]++], c->image, BYTES);
    w->ceiling = n;
    c->floor = w->floor;
    w->lost = journal_prepare(w->j, &c->totals, n * 1000, durable, NULL) != 0;
    c->prepared = true;
    if (durable && !w->lost)
        w->floor = n;
    return true;
}

/* It is no promise any more. */
static void drop_ask(struct world *w)
{
    uint64_t applied = journal_status(w->j).applied;

    if (w->next.prepared)
        w->floor = w->next.floor > applied ? w->next.floor : applied;
    journal_drop(w->j);
    w->next.open = false;
}

static void prepared_ask(struct world *w)
{
    uint64_t n = w->next.totals.epoch;

    switch (coin(w, 4)) {
    case 0:
        w->lost = journal_secure(w->j, NULL) != 0;
        if (!w->lost)
            w->floor = n;
        return;
    case 1:
        if (w->versions[n] < VERSIONS - 1) {
            drop_ask(w);
            return;
        }
        /* fall through */
    default:
        journal_decide(w->j);
        memcpy(w->now, w->next.image, BYTES);
        w->next.open = false;
    }
}

/* False: it has to wait for what is being applied. */
static bool ask(struct world *w)
{
    if (w->lost || journal_status(w->j).committed == EPOCHS)
        return false;
    if (!w->next.open)
        coming_begin(w);
    else if (w->next.prepared)
        prepared_ask(w);
    else if (!coin(w, 16))
        drop_ask(w);
    else
        return w->next.pieces ? piece_ask(w) : prepare_ask(w);
    return true;
}

/* --- A step ------------------------------------------------------------------
 */

static void ask_some(struct world *w)
{
    while (coin(w, w->eager) && ask(w))
        w->asked += w->in_io;
}

static void meanwhile(void)
{
    struct world *w = world;

    if (!w->in_io || w->asking)
        return;
    w->asking = true;
    ask_some(w);
    w->asking = false;
}

static int hook_read(struct store *s, uint64_t at, void *p, size_t len,
                     struct err *e)
{
    meanwhile();
    int rc = world->real.read(s, at, p, len, e);
    meanwhile();
    return rc;
}

static int hook_write(struct store *s, uint64_t at, const void *p, size_t len,
                      struct err *e)
{
    meanwhile();
    int rc = world->real.write(s, at, p, len, e);
    meanwhile();
    return rc;
}

static int hook_zero(struct store *s, uint64_t at, uint64_t len, struct err *e)
{
    meanwhile();
    int rc = world->real.zero(s, at, len, e);
    meanwhile();
    return rc;
}

static int hook_sync(struct store *s, struct err *e)
{
    meanwhile();
    int rc = world->real.sync(s, e);
    meanwhile();
    return rc;
}

/* False: there is nothing to do. */
static bool step(struct world *w)
{
    if (!journal_step_begin(w->j))
        return false;
    ask_some(w);
    w->in_io = true;
    int io = journal_step_io(w->j, NULL);
    w->in_io = false;
    ask_some(w);
    if (journal_step_end(w->j, io, NULL)) {
        w->lost = true;
        return true;
    }
    struct journal_status st = journal_status(w->j);
    uint64_t applied = st.applied;
    assert_int_equal(st.behind != 0, applied != st.committed);
    if (w->floor < applied)
        w->floor = applied;
    if (w->next.floor < applied)
        w->next.floor = applied;
    return true;
}

/* --- The story ---------------------------------------------------------------
 */

static void world_open(struct world *w, uint64_t seed, unsigned pulled_at)
{
    memset(w, 0, sizeof *w);
    world = w;
    host_open(&w->h);
    w->seed = seed;
    w->eager = 2 + seed / 2 % 8;
    w->versions[0] = 1;
    w->real = *w->h.log.store.ops;
    w->ops = (struct store_ops){hook_read, hook_write, hook_zero, hook_sync};
    w->h.log.store.ops = w->h.image.store.ops = &w->ops;
    assert_int_equal(journal_format(&w->h.c, seed, 0, 0, NULL), 0);
    assert_int_equal(journal_open(&w->j, &w->h.c, NULL), 0);
    w->h.line.ops = 0;
    w->h.line.pulled_at = pulled_at;
}

static void world_close(struct world *w)
{
    journal_close(w->j);
    extents_free(&w->b);
    host_close(&w->h);
}

static bool is_whole(const struct world *w, const uint8_t *image, uint64_t n)
{
    for (unsigned v = 0; v < w->versions[n]; v++)
        if (!memcmp(image, w->image[n][v], BYTES))
            return true;
    return false;
}

/* Until the power goes, EPOCHS are committed, or after `turns` a takeover.
 * True: to the end. */
static bool world_run(struct world *w, unsigned turns)
{
    for (unsigned i = 0; i < turns && !w->lost; i++) {
        bool any = coin(w, 2) ? ask(w) || step(w) : step(w) || ask(w);
        if (!any && journal_status(w->j).committed == EPOCHS)
            break;
        assert_true(any || w->lost);
    }
    if (w->lost)
        return false;
    drop_ask(w);
    if (journal_retire(w->j, NULL))
        return false;
    assert_memory_equal(w->h.image.durable, w->now, BYTES);
    return true;
}

static void recover_and_check(const struct world *w, struct host *h)
{
    struct journal *j;
    struct err e = ERR_INIT;

    h->line = (struct plug_line){0};
    if (journal_open(&j, &h->c, &e))
        fail_msg("%s", e.text);
    struct journal_status st = journal_status(j);
    assert_in_range(st.committed, w->floor, w->ceiling);
    assert_int_equal(st.applied, st.committed);
    assert_true(is_whole(w, h->image.durable, st.committed));
    journal_close(j);
}

static unsigned run_everywhere(struct world *w, struct host *h, uint64_t seed)
{
    unsigned asked = 0, turns = seed % 2 ? 10000 : 20 + seed % 97;
    uint64_t coins = seed;

    for (unsigned at = 1;; at++) {
        world_open(w, seed, at);
        bool end = world_run(w, turns);
        for (unsigned i = 0; i < 6; i++) {
            host_back(h, &w->h, i < 2 ? (enum plug_outcome)i : PLUG_SOME,
                      100 * i, &coins);
            recover_and_check(w, h);
        }
        asked += w->asked;
        world_close(w);
        if (end)
            return asked;
        assert_in_range(at, 1, 5000);
    }
}

static void whatever_is_asked_while_it_is_applied_epochs_are_whole(void **state)
{
    struct world *w = malloc(sizeof *w);
    struct host h;
    unsigned asked = 0;

    (void)state;
    host_open(&h);
    for (uint64_t seed = 1; seed <= 40; seed++)
        asked += run_everywhere(w, &h, seed);
    print_message("%u requests in the middle of a step\n", asked);
    assert_in_range(asked, 50000, UINT32_MAX);
    host_close(&h);
    free(w);
}

static void what_a_step_is_about_to_free_will_be_room(void **state)
{
    struct world *w = malloc(sizeof *w);
    struct journal_status st;

    (void)state;
    world_open(w, 3, 0);
    while (journal_status(w->j).committed < 2)
        ask(w);
    while (st = journal_status(w->j), st.applied < st.committed) {
        assert_true(journal_step_begin(w->j));
        assert_int_equal(
            journal_step_end(w->j, journal_step_io(w->j, NULL), NULL), 0);
    }
    size_t too_much = (size_t)(st.bytes - st.used);
    assert_int_equal(journal_room(w->j, too_much), JOURNAL_FULL);
    assert_true(journal_step_begin(w->j));
    assert_int_equal(journal_room(w->j, too_much), JOURNAL_FULL);
    assert_int_equal(journal_step_end(w->j, journal_step_io(w->j, NULL), NULL),
                     0);
    assert_int_equal(journal_status(w->j).used, 0);
    assert_false(journal_step_begin(w->j));
    world_close(w);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            whatever_is_asked_while_it_is_applied_epochs_are_whole),
        cmocka_unit_test(what_a_step_is_about_to_free_will_be_room),
    };

    log_setup("journal", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
