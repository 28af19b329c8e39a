// SPDX-License-Identifier: Apache-2.0
/* What the log may have: whenever the server is killed, each region of which
 * the image has something that is not committed is touched; and what is
 * committed does not stay touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "disk-replicate/touched.h"

#define REGIONS 200u
#define IMAGE   ((uint64_t)REGIONS * TOUCHED_REGION - 512)
#define PLACES  6
#define WRITERS 3
#define STEPS   3000

/* At the edges of words and of the image. */
static const uint64_t place[PLACES] = {0, 1, 63, 64, 127, REGIONS - 1};

enum writer_state { IDLE, BEGUN, WRITTEN, LOGGED };

struct writer {
    enum writer_state state;
    unsigned place;
};

struct model {
    char path[64];
    struct touched t, seen; /* the server's; whoever looks after its death */
    uint64_t seed, cut;
    bool fetched; /* what `cut - 1` ended is on its way */
    bool lacking;
    struct writer writer[WRITERS];
    unsigned image[PLACES], committed[PLACES];
    unsigned open[PLACES],
        closed[PLACES];    /* newest version that it has; 0: none */
    unsigned sent[PLACES]; /* what was cut, and is on its way */
    uint64_t log_cut;
};

static unsigned roll(struct model *m, unsigned n)
{
    m->seed = m->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(m->seed >> 33) % n;
}

static void model_open(struct model *m, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->seed = seed;
    m->cut = m->log_cut = 1;
    snprintf(m->path, sizeof m->path, "/tmp/understudy-touched.%d",
             (int)getpid());
    unlink(m->path);
    assert_int_equal(touched_open(&m->t, m->path, IMAGE, NULL), 0);
    assert_int_equal(touched_open(&m->seen, m->path, IMAGE, NULL), 0);
    touched_begin(&m->t, m->cut);
}

static void model_close(struct model *m)
{
    touched_close(&m->t);
    touched_close(&m->seen);
    unlink(m->path);
}

static void touch(struct model *m, unsigned at)
{
    uint64_t offset = place[at] * TOUCHED_REGION;

    touched_set(&m->t, offset, 512);
}

static void log_look(struct model *m)
{
    if (m->cut == m->log_cut)
        return;
    for (unsigned p = 0; p < PLACES; p++) {
        if (m->open[p])
            m->closed[p] = m->open[p];
        m->open[p] = 0;
    }
    m->log_cut = m->cut;
}

static void cut_look(struct model *m)
{
    if (!touched_roll(&m->t, m->cut))
        return;
    for (unsigned i = 0; i < WRITERS; i++)
        if (m->writer[i].state != IDLE)
            touch(m, m->writer[i].place);
}

static bool place_is_free(const struct model *m, unsigned at)
{
    for (unsigned i = 0; i < WRITERS; i++)
        if (m->writer[i].state != IDLE && m->writer[i].place == at)
            return false;
    return true;
}

static void writer_step(struct model *m, struct writer *w)
{
    switch (w->state) {
    case IDLE:
        w->place = roll(m, PLACES);
        if (!place_is_free(m, w->place))
            return;
        w->state = BEGUN;
        cut_look(m);
        touch(m, w->place);
        return;
    case BEGUN:
        m->image[w->place]++;
        w->state = WRITTEN;
        return;
    case WRITTEN:
        cut_look(m);
        log_look(m);
        m->open[w->place] = m->image[w->place];
        w->state = LOGGED;
        return;
    case LOGGED:
        w->state = IDLE;
    }
}

/* The agent: marks and fetches, or commits or gives up. What is given up is
 * committed with the next cut. No cut comes while a log is made again, but what
 * was sent before may be committed then. */
static void agent_step(struct model *m)
{
    if (!m->fetched && m->lacking)
        return;
    if (!m->fetched) {
        m->cut++;
        cut_look(m);
        log_look(m);
        memcpy(m->sent, m->closed, sizeof m->sent);
        m->fetched = true;
        return;
    }
    m->fetched = false;
    if (!roll(m, 3))
        return;
    for (unsigned p = 0; p < PLACES; p++)
        if (m->sent[p])
            m->committed[p] = m->sent[p];
    memset(m->closed, 0, sizeof m->closed);
    touched_commit(&m->t, m->cut - 1);
}

/* Killed, and its successor reads region by region. Requests under way are sent
 * to it again. */
static void server_dies(struct model *m)
{
    touched_close(&m->t);
    assert_int_equal(touched_open(&m->t, m->path, IMAGE, NULL), 0);
    memset(m->open, 0, sizeof m->open);
    memset(m->closed, 0, sizeof m->closed);
    for (unsigned i = 0; i < WRITERS; i++)
        m->writer[i].state = IDLE;
    m->lacking = true;
    assert_true(touched_again(&m->t));
}

static void rebuild_step(struct model *m)
{
    uint64_t region = 0;

    log_look(m);
    while (touched_next(&m->t, &region)) {
        for (unsigned p = 0; p < PLACES; p++)
            if (place[p] == region && place_is_free(m, p))
                m->open[p] = m->image[p];
        region++;
    }
    for (unsigned p = 0; p < PLACES; p++)
        if (!place_is_free(m, p))
            return;
    m->lacking = false;
    touched_whole(&m->t, m->cut);
}

static bool is_touched(const struct model *m, uint64_t region)
{
    uint64_t r = region;

    return touched_next(&m->seen, &r) && r == region;
}

static void all_is_touched(const struct model *m)
{
    for (unsigned p = 0; p < PLACES; p++)
        if (m->image[p] != m->committed[p])
            assert_true(is_touched(m, place[p]));
}

static void whenever_it_is_killed(void **s)
{
    struct model m;

    (void)s;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        model_open(&m, seed);
        for (unsigned i = 0; i < STEPS; i++) {
            unsigned what = roll(&m, 40);
            if (!what)
                server_dies(&m);
            else if (m.lacking && what < 10)
                rebuild_step(&m);
            else if (what < 12)
                agent_step(&m);
            else
                writer_step(&m, &m.writer[roll(&m, WRITERS)]);
            all_is_touched(&m);
        }
        model_close(&m);
    }
}

static void what_is_committed_is_forgotten(void **s)
{
    struct model m;
    uint64_t region = 0;

    (void)s;
    model_open(&m, 1);
    touched_begin(&m.t, 5);
    touched_set(&m.t, IMAGE - 512, 512);
    assert_true(touched_next(&m.t, &region));
    assert_int_equal(region, REGIONS - 1);
    assert_true(touched_roll(&m.t, 6));
    assert_false(touched_roll(&m.t, 6));
    touched_set(&m.t, 0, 1);
    touched_commit(&m.t, 4); /* an earlier one */
    region = 1;
    assert_true(touched_next(&m.t, &region));
    touched_commit(&m.t, 5);
    region = 1;
    assert_false(touched_next(&m.t, &region));
    region = 0;
    assert_true(touched_next(&m.t, &region));
    assert_int_equal(region, 0);
    model_close(&m);
}

static void a_new_log_forgets_all(void **s)
{
    struct model m;
    uint64_t region = 0;

    (void)s;
    model_open(&m, 1);
    touched_set(&m.t, 0, IMAGE);
    for (uint64_t r = 0; r < REGIONS; r++)
        assert_true(is_touched(&m, r));
    touched_begin(&m.t, 1);
    assert_false(touched_next(&m.t, &region));
    model_close(&m);
}

/* No log of this image, or of one of this size, was there. */
static void what_is_not_known_is_said(void **s)
{
    char path[64];
    struct touched t;
    uint64_t region = 0;

    (void)s;
    snprintf(path, sizeof path, "/tmp/understudy-touched.%d", (int)getpid());
    assert_int_equal(touched_open(&t, path, IMAGE, NULL), 0);
    assert_false(touched_again(&t));
    touched_begin(&t, 1);
    touched_set(&t, 0, IMAGE);
    touched_close(&t);
    assert_int_equal(touched_open(&t, path, IMAGE, NULL), 0);
    assert_true(touched_again(&t));
    touched_close(&t);
    assert_int_equal(touched_open(&t, path, 2 * IMAGE, NULL), 0);
    assert_false(touched_again(&t));
    assert_false(touched_next(&t, &region));
    touched_close(&t);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whenever_it_is_killed),
        cmocka_unit_test(what_is_committed_is_forgotten),
        cmocka_unit_test(a_new_log_forgets_all),
        cmocka_unit_test(what_is_not_known_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
