// SPDX-License-Identifier: Apache-2.0
/* The pipe: records from another thread, bounded, through lost sessions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <cmocka.h>

#include "common/clock.h"
#include "tests/lib/link_pair.h"

#define LIMIT (1u << 20)

static struct pair p;
static struct link_pipe *pipe_;

/* The other thread: sends `count` records of `size` bytes, the first four of
 * which are a number. */
static struct sender {
    uint64_t ticket;
    unsigned count;
    size_t size;
    uint32_t type;
    atomic_uint sent;
    atomic_int rc;
    atomic_bool done;
    struct err e;
    size_t most_queued;
    pthread_t thread;
} sender;

static void *send_records(void *arg)
{
    static uint8_t data[4 << 20];
    struct sender *t = arg;
    int rc = link_pipe_begin(pipe_, t->ticket, &t->e);

    for (unsigned i = 0; i < t->count && rc == 0; i++) {
        put_le32(data, i);
        rc = link_pipe_send(pipe_, t->type, data, t->size, &t->e);
        if (rc == 0)
            atomic_fetch_add(&t->sent, 1);
        size_t queued = link_pipe_queued(pipe_);
        if (queued > t->most_queued)
            t->most_queued = queued;
    }
    atomic_store(&t->rc, rc);
    atomic_store(&t->done, true);
    return NULL;
}

static void sender_start(uint64_t ticket, unsigned count, size_t size)
{
    memset(&sender, 0, sizeof sender);
    sender.ticket = ticket;
    sender.count = count;
    sender.size = size;
    sender.type = WIRE_PAGES;
    assert_int_equal(
        pthread_create(&sender.thread, NULL, send_records, &sender), 0);
}

static bool sender_done(void *arg)
{
    (void)arg;
    return atomic_load(&sender.done);
}

static void sender_join(void)
{
    assert_true(run_until(sender_done, NULL));
    pthread_join(sender.thread, NULL);
}

static int set_up(void **state)
{
    (void)state;
    pair_init(&p);
    pipe_ = link_pipe_new(EV_DEFAULT, LIMIT);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    link_pipe_free(pipe_);
    link_pair_free(&p);
    return 0;
}

static uint32_t expected;

static void check_order(struct side *me, uint32_t type)
{
    if (type != WIRE_PAGES)
        return;
    assert_int_equal(get_le32(me->last.data), expected);
    expected++;
}

static bool b_has_records(void *want)
{
    return p.b.records >= *(unsigned *)want || p.b.closed;
}

static void records_of_another_thread_arrive_in_order(void **state)
{
    unsigned want = 1 + 2000;

    (void)state;
    pair_open(&p);
    expected = 0;
    p.b.on_record = check_order;
    sender_start(link_pipe_attach(pipe_, p.a.s), 2000, 10000);
    assert_true(run_until(b_has_records, &want));
    sender_join();
    assert_int_equal(sender.rc, 0);
    assert_int_equal(p.b.records, want);
    assert_int_equal(link_pipe_queued(pipe_), 0);
}

static bool sender_stuck(void *arg)
{
    unsigned *last = arg;
    unsigned now = atomic_load(&sender.sent);
    bool stuck = now && now == *last && link_pipe_queued(pipe_) > LIMIT / 2;

    *last = now;
    return stuck;
}

static void a_slow_peer_holds_the_sender_back(void **state)
{
    unsigned want = 1 + 400, last = 0;

    (void)state;
    pair_open(&p);
    link_hold(p.b.s, true);
    sender_start(link_pipe_attach(pipe_, p.a.s), 400, 100000); /* 40 MB */
    assert_true(run_until(sender_stuck, &last));
    run_for(0.1);
    assert_false(sender_done(NULL));
    assert_true(atomic_load(&sender.sent) < 300);
    link_hold(p.b.s, false);
    assert_true(run_until(b_has_records, &want));
    sender_join();
    assert_int_equal(sender.rc, 0);
    assert_int_equal(p.b.records, want);
    assert_true(sender.most_queued <= LIMIT);
}

static void a_record_above_the_limit_passes_alone(void **state)
{
    unsigned want = 4;

    (void)state;
    pair_open(&p);
    sender_start(link_pipe_attach(pipe_, p.a.s), 3, 4 * LIMIT);
    assert_true(run_until(b_has_records, &want));
    sender_join();
    assert_int_equal(sender.rc, 0);
    assert_true(sender.most_queued <= 4 * LIMIT);
}

static void a_lost_session_lets_a_blocked_sender_go(void **state)
{
    unsigned last = 0;

    (void)state;
    pair_open(&p);
    link_hold(p.b.s, true);
    sender_start(link_pipe_attach(pipe_, p.a.s), 1000, 100000);
    assert_true(run_until(sender_stuck, &last));
    link_drop(p.b.s);
    p.b.s = NULL;
    assert_true(run_until(a_closed, &p));
    sender_join();
    assert_int_equal(sender.rc, -1);
    assert_int_equal(sender.e.kind, ERR_GONE);
    assert_int_equal(link_pipe_queued(pipe_), 0);
}

static void detaching_lets_a_blocked_sender_go(void **state)
{
    unsigned last = 0;

    (void)state;
    pair_open(&p);
    link_hold(p.b.s, true);
    sender_start(link_pipe_attach(pipe_, p.a.s), 1000, 100000);
    assert_true(run_until(sender_stuck, &last));
    link_pipe_detach(pipe_);
    sender_join();
    assert_int_equal(sender.e.kind, ERR_GONE);
    assert_int_equal(p.a.closed, 0); /* the session goes on */
    link_hold(p.b.s, false);
    run_for(0.05);
    unsigned want = p.b.records + 1;
    link_send(p.a.s, WIRE_COMMIT, NULL, 0);
    assert_true(run_until(b_has_records, &want));
    assert_int_equal(p.b.closed, 0);
}

static void nothing_is_sent_before_begin_or_with_an_old_ticket(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    pair_open(&p);
    assert_int_equal(link_pipe_begin(pipe_, 0, &e), -1);
    uint64_t first = link_pipe_attach(pipe_, p.a.s);
    assert_int_equal(link_pipe_send(pipe_, WIRE_PAGES, "x", 1, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    assert_int_equal(link_pipe_begin(pipe_, first, NULL), 0);
    assert_int_equal(link_pipe_send(pipe_, WIRE_PAGES, "x", 1, NULL), 0);
    uint64_t second = link_pipe_attach(pipe_, p.a.s);
    assert_true(second != first);
    assert_int_equal(link_pipe_queued(pipe_), 0);
    assert_int_equal(link_pipe_send(pipe_, WIRE_PAGES, "x", 1, NULL), -1);
    assert_int_equal(link_pipe_begin(pipe_, first, NULL), -1);
    assert_int_equal(link_pipe_begin(pipe_, second, NULL), 0);
    assert_int_equal(link_pipe_send(pipe_, WIRE_PAGES, "x", 1, NULL), 0);
}

static void a_full_pipe_has_no_room_for_a_while(void **state)
{
    static const uint8_t page[4096];
    struct err e = ERR_INIT;
    int rc = 0;

    (void)state;
    pair_open(&p);
    link_hold(p.b.s, true);
    link_pipe_begin(pipe_, link_pipe_attach(pipe_, p.a.s), NULL);
    for (int i = 0; i < 100000 && !rc; i++) {
        rc = link_pipe_room(pipe_, sizeof page, 20 * NS_PER_MS, &e);
        if (!rc)
            assert_int_equal(
                link_pipe_send(pipe_, WIRE_PAGES, page, sizeof page, NULL), 0);
    }
    assert_int_equal(rc, -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    link_pipe_detach(pipe_);
    assert_int_equal(link_pipe_room(pipe_, 1, NS_PER_SEC, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
}

static void a_pipe_serves_the_next_session(void **state)
{
    unsigned want = 11;

    (void)state;
    pair_open(&p);
    sender_start(link_pipe_attach(pipe_, p.a.s), 10, 100);
    assert_true(run_until(b_has_records, &want));
    sender_join();
    link_abort(p.a.s, NULL);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(link_pipe_send(pipe_, WIRE_PAGES, "x", 1, NULL), -1);

    memset(&p.a, 0, offsetof(struct side, last));
    memset(&p.b, 0, offsetof(struct side, last));
    pair_open(&p);
    expected = 0;
    p.b.on_record = check_order;
    sender_start(link_pipe_attach(pipe_, p.a.s), 10, 100);
    assert_true(run_until(b_has_records, &want));
    sender_join();
    assert_int_equal(sender.rc, 0);
    assert_int_equal(p.b.records, 11);
}

static void attaching_to_an_ending_session_is_gone_at_once(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    pair_open(&p);
    link_abort(p.a.s, NULL);
    uint64_t ticket = link_pipe_attach(pipe_, p.a.s);
    assert_int_equal(link_pipe_begin(pipe_, ticket, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    assert_true(run_until(both_closed, &p));
}

static void closing_sends_what_waits_in_the_pipe(void **state)
{
    unsigned last = 0;

    (void)state;
    pair_open(&p);
    link_hold(p.b.s, true);
    sender_start(link_pipe_attach(pipe_, p.a.s), 400, 100000);
    assert_true(run_until(sender_stuck, &last));
    link_close(p.a.s, 5000);
    link_hold(p.b.s, false);
    assert_true(run_until(both_closed, &p));
    sender_join();
    /* all that the sender was told is queued was delivered */
    assert_int_equal(p.b.records, 1 + atomic_load(&sender.sent));
    assert_int_equal(p.a.why.kind, 0);
}

static void a_closing_session_takes_nothing_more(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    pair_open(&p);
    link_pipe_begin(pipe_, link_pipe_attach(pipe_, p.a.s), NULL);
    assert_int_equal(link_pipe_send(pipe_, WIRE_PAGES, "x", 1, NULL), 0);
    link_close(p.a.s, 5000);
    assert_int_equal(link_pipe_send(pipe_, WIRE_PAGES, "x", 1, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.b.records, 2); /* HELLO and what was accepted */
}

static unsigned beat_at; /* how many records came before it; 0: not yet */

static void note_beat(struct side *me, uint32_t type)
{
    if (type == WIRE_BEAT)
        beat_at = me->records - 1;
}

static void a_beat_overtakes_the_pipe(void **state)
{
    struct wire_beat beat = {.seq = 1};
    struct buf b = {0};
    unsigned last = 0, want = 401;

    (void)state;
    pair_open(&p);
    beat_put(&b, &beat);
    beat_at = 0;
    p.b.on_record = note_beat;
    link_hold(p.b.s, true);
    sender_start(link_pipe_attach(pipe_, p.a.s), 400, 100000);
    assert_true(run_until(sender_stuck, &last));
    unsigned before = atomic_load(&sender.sent);
    link_send_urgent(p.a.s, WIRE_BEAT, b.data, b.len);
    link_hold(p.b.s, false);
    want++;
    assert_true(run_until(b_has_records, &want));
    /* what waited in the pipe, 10 records of 100 kB, came later */
    assert_true(beat_at && beat_at <= before - 5);
    sender_join();
    buf_free(&b);
}

static void a_record_that_no_vm_session_knows_is_refused(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    pair_open(&p);
    link_pipe_begin(pipe_, link_pipe_attach(pipe_, p.a.s), NULL);
    assert_int_equal(link_pipe_send(pipe_, 99, "x", 1, &e), -1);
    assert_int_equal(e.kind, ERR_USAGE);
    assert_int_equal(link_pipe_send(pipe_, WIRE_ACK, p.b.last.data,
                                    WIRE_CONTROL_MAX + 1, &e),
                     -1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(records_of_another_thread_arrive_in_order),
        T(a_slow_peer_holds_the_sender_back),
        T(a_record_above_the_limit_passes_alone),
        T(a_lost_session_lets_a_blocked_sender_go),
        T(detaching_lets_a_blocked_sender_go),
        T(nothing_is_sent_before_begin_or_with_an_old_ticket),
        T(a_full_pipe_has_no_room_for_a_while),
        T(a_pipe_serves_the_next_session),
        T(attaching_to_an_ending_session_is_gone_at_once),
        T(closing_sends_what_waits_in_the_pipe),
        T(a_closing_session_takes_nothing_more),
        T(a_beat_overtakes_the_pipe),
        T(a_record_that_no_vm_session_knows_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
