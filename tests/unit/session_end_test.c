// SPDX-License-Identifier: Apache-2.0
/* How sessions end: by what the peer does wrong, by wish, by loss; `closed`
 * is called exactly once in any case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "link/session_priv.h"
#include "tests/lib/link_pair.h"

static struct pair p;

static int set_up(void **state)
{
    (void)state;
    pair_init(&p);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    link_pair_free(&p);
    return 0;
}

/* --- Violations -------------------------------------------------------------
 */

/* Send bytes from a that its own encoder would never make. */
static void send_raw(struct side *from, uint32_t type, uint32_t length,
                     uint64_t reserved, size_t payload)
{
    static uint8_t zeroes[1024];
    struct chunk *c = chunk_new(type, zeroes, payload);

    put_le32(c->data + 4, length);
    put_le64(c->data + 8, reserved);
    from->s->queued += c->len;
    queue_put(&from->s->bulk, c);
    session_output_due(from->s);
}

static void expect_violation(const char *sentence)
{
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.a.closed, 1);
    assert_int_equal(p.b.closed, 1);
    assert_int_equal(p.b.why.kind, ERR_FAILED);
    assert_non_null(strstr(p.b.why.text, "alder"));
    assert_non_null(strstr(p.b.why.text, "broke the protocol"));
    assert_non_null(strstr(p.b.why.text, sentence));
    /* the one who did it is told */
    assert_non_null(strstr(p.a.why.text, "refused"));
    assert_non_null(strstr(p.a.why.text, sentence));
}

static void an_oversized_record_ends_the_session(void **state)
{
    (void)state;
    pair_open(&p);
    send_raw(&p.a, WIRE_PAGES, WIRE_PAYLOAD_MAX + 1, 0, 100);
    expect_violation("more than");
    assert_int_equal(p.b.records, 1);
}

static void an_oversized_control_record_ends_the_session(void **state)
{
    (void)state;
    pair_open(&p);
    send_raw(&p.a, WIRE_BEAT, 0xffffffff, 0, 0);
    expect_violation("BEAT");
}

static void an_unknown_type_ends_the_session(void **state)
{
    (void)state;
    pair_open(&p);
    send_raw(&p.a, 99, 0, 0, 0);
    expect_violation("unknown type 99");
}

static void reserved_bits_end_the_session(void **state)
{
    (void)state;
    pair_open(&p);
    send_raw(&p.a, WIRE_COMMIT, 0, 1, 0);
    expect_violation("reserved");
}

static void a_type_of_the_other_kind_ends_the_session(void **state)
{
    (void)state;
    pair_open(&p);
    send_raw(&p.a, WIRE_REQUEST, 4, 0, 4);
    expect_violation("REQUEST");
}

static void a_record_before_hello_ends_the_session(void **state)
{
    (void)state;
    pair_connect(&p);
    while (!p.a.ready || !p.b.ready)
        ev_run(EV_DEFAULT, EVRUN_ONCE);
    link_send(p.a.s, WIRE_COMMIT, NULL, 0);
    expect_violation("before HELLO");
    assert_int_equal(p.b.records, 0);
}

static void a_second_hello_ends_the_session(void **state)
{
    (void)state;
    pair_open(&p);
    send_hello(&p.a, WIRE_PRIMARY);
    expect_violation("second HELLO");
}

static void a_flood_behind_a_violation_does_not_hide_the_reason(void **state)
{
    static uint8_t bulk[1 << 20];

    (void)state;
    pair_open(&p);
    send_raw(&p.a, 99, 0, 0, 0);
    for (int i = 0; i < 20; i++)
        link_send(p.a.s, WIRE_PAGES, bulk, sizeof bulk);
    expect_violation("unknown type 99");
}

static void a_refusal_reaches_the_other_side_as_its_error(void **state)
{
    struct err why = {ERR_REFUSED, "no room for the VM", "add memory"};

    (void)state;
    pair_open(&p);
    link_fail(p.b.s, &why);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.a.why.kind, ERR_REFUSED);
    assert_non_null(strstr(p.a.why.text, "no room for the VM"));
    assert_non_null(strstr(p.a.why.text, "birch"));
    assert_string_equal(p.a.why.hint, "add memory");
    assert_string_equal(p.b.why.text, "no room for the VM");
    assert_int_equal(p.a.records, 1); /* not delivered as a record */
}

static void sending_an_illegal_record_ends_the_own_session(void **state)
{
    (void)state;
    pair_open(&p);
    link_send(p.a.s, WIRE_REQUEST, "{}", 2);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.a.why.kind, ERR_FAILED);
    assert_int_equal(p.b.why.kind, ERR_GONE);
}

/* --- Ends -------------------------------------------------------------------
 */

static void closing_delivers_all_that_was_queued(void **state)
{
    static uint8_t bulk[1 << 20];

    (void)state;
    pair_open(&p);
    for (int i = 0; i < 20; i++)
        link_send(p.a.s, WIRE_PAGES, bulk, sizeof bulk);
    link_close(p.a.s, 5000);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.b.records, 21);
    assert_int_equal(p.a.why.kind, 0);
    assert_int_equal(p.b.why.kind, ERR_GONE);
    assert_non_null(strstr(p.b.why.text, "closed the session"));
}

static void both_may_close_at_once(void **state)
{
    (void)state;
    pair_open(&p);
    link_close(p.a.s, 1000);
    link_close(p.b.s, 1000);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.a.why.kind, 0);
    assert_int_equal(p.b.why.kind, 0);
}

static void closing_gives_up_when_the_peer_does_not_read(void **state)
{
    static uint8_t bulk[1 << 20];
    uint64_t start = clock_ns();

    (void)state;
    pair_open(&p);
    link_hold(p.b.s, true);
    for (int i = 0; i < 60; i++)
        link_send(p.a.s, WIRE_PAGES, bulk, sizeof bulk);
    link_close(p.a.s, 100);
    assert_true(run_until(a_closed, &p));
    assert_int_equal(p.a.why.kind, ERR_TIMEOUT);
    assert_true(clock_ns() - start < 5 * NS_PER_SEC);
}

static void a_goodbye_is_reported_with_its_text(void **state)
{
    struct buf b = {0};

    (void)state;
    pair_open(&p);
    bye_put(&b, "the host shuts down");
    link_send(p.a.s, WIRE_BYE, b.data, b.len);
    link_close(p.a.s, 1000);
    buf_free(&b);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.b.why.kind, ERR_GONE);
    assert_non_null(strstr(p.b.why.text, "the host shuts down"));
    assert_int_equal(p.a.why.kind, 0);
}

static void an_end_without_goodbye_is_a_loss(void **state)
{
    (void)state;
    pair_open(&p);
    shutdown(p.a.s->fd, SHUT_WR);
    assert_true(run_until(b_closed, &p));
    assert_int_equal(p.b.why.kind, ERR_GONE);
    assert_non_null(strstr(p.b.why.text, "lost"));
    assert_non_null(strstr(p.b.why.text, "alder"));
}

static void a_loss_is_noticed_by_writing_alone(void **state)
{
    (void)state;
    pair_open(&p);
    link_hold(p.a.s, true); /* so that reading does not tell */
    link_drop(p.b.s);
    p.b.s = NULL;
    for (int i = 0; i < 1000 && !p.a.closed; i++) {
        link_send(p.a.s, WIRE_COMMIT, NULL, 0);
        ev_run(EV_DEFAULT, EVRUN_NOWAIT);
    }
    assert_int_equal(p.a.closed, 1); /* and SIGPIPE killed nobody */
    assert_int_equal(p.a.why.kind, ERR_GONE);
}

static void a_record_cut_by_the_end_is_not_delivered(void **state)
{
    (void)state;
    pair_open(&p);
    send_raw(&p.a, WIRE_PAGES, 2000, 0, 1000);
    link_close(p.a.s, 1000);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.b.records, 1);
    assert_int_equal(p.b.closed, 1);
    assert_int_equal(p.b.why.kind, ERR_GONE);
}

static void aborting_reports_the_given_reason_once(void **state)
{
    struct err why = {ERR_TIMEOUT, "nothing heard for a second", ""};

    (void)state;
    pair_open(&p);
    link_abort(p.a.s, &why);
    link_abort(p.a.s, NULL);
    assert_int_equal(p.a.closed, 0); /* never from inside the call */
    link_send(p.a.s, WIRE_COMMIT, NULL, 0);
    assert_true(run_until(both_closed, &p));
    run_for(0.05);
    assert_int_equal(p.a.closed, 1);
    assert_int_equal(p.b.closed, 1);
    assert_string_equal(p.a.why.text, "nothing heard for a second");
}

static void abort_me(struct side *me, uint32_t type)
{
    if (type == WIRE_PAGES)
        link_abort(me->s, NULL);
}

static void aborting_inside_a_callback_stops_delivery(void **state)
{
    (void)state;
    pair_open(&p);
    p.b.on_record = abort_me;
    for (int i = 0; i < 5; i++)
        link_send(p.a.s, WIRE_PAGES, "x", 1);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.b.records, 2);
    assert_int_equal(p.b.closed, 1);
}

static void drop_me(struct side *me, uint32_t type)
{
    if (type != WIRE_PAGES)
        return;
    link_drop(me->s);
    me->s = NULL;
}

static void dropping_inside_a_callback_is_the_last_word(void **state)
{
    (void)state;
    pair_open(&p);
    p.b.on_record = drop_me;
    for (int i = 0; i < 5; i++)
        link_send(p.a.s, WIRE_PAGES, "x", 1);
    assert_true(run_until(a_closed, &p));
    run_for(0.05);
    assert_int_equal(p.b.records, 2);
    assert_int_equal(p.b.closed, 0);
}

static void drop_me_when_ready(struct side *me)
{
    link_drop(me->s);
    me->s = NULL;
}

static void dropping_when_ready_is_safe(void **state)
{
    (void)state;
    p.b.on_ready = drop_me_when_ready;
    pair_connect(&p);
    assert_true(run_until(a_closed, &p));
    assert_int_equal(p.b.ready, 1);
    assert_int_equal(p.b.closed, 0);
}

static void drop_me_when_closed(struct side *me)
{
    link_drop(me->s); /* harmless: it is on its way out */
    link_abort(me->s, NULL);
}

static void all_calls_are_allowed_inside_closed(void **state)
{
    (void)state;
    pair_open(&p);
    p.a.on_closed = drop_me_when_closed;
    link_abort(p.a.s, NULL);
    assert_true(run_until(a_closed, &p));
    assert_int_equal(p.a.closed, 1);
}

static void too_much_queued_ends_the_session(void **state)
{
    static uint8_t bulk[1 << 20];

    (void)state;
    pair_open(&p);
    link_hold(p.b.s, true);
    for (unsigned i = 0; i < LINK_QUEUE_MAX / sizeof bulk + 1; i++)
        link_send(p.a.s, WIRE_PAGES, bulk, sizeof bulk);
    assert_true(run_until(a_closed, &p));
    assert_non_null(strstr(p.a.why.text, "wait to be sent"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_oversized_record_ends_the_session),
        T(an_oversized_control_record_ends_the_session),
        T(an_unknown_type_ends_the_session),
        T(reserved_bits_end_the_session),
        T(a_type_of_the_other_kind_ends_the_session),
        T(a_record_before_hello_ends_the_session),
        T(a_second_hello_ends_the_session),
        T(a_flood_behind_a_violation_does_not_hide_the_reason),
        T(a_refusal_reaches_the_other_side_as_its_error),
        T(sending_an_illegal_record_ends_the_own_session),
        T(closing_delivers_all_that_was_queued),
        T(both_may_close_at_once),
        T(closing_gives_up_when_the_peer_does_not_read),
        T(a_goodbye_is_reported_with_its_text),
        T(an_end_without_goodbye_is_a_loss),
        T(a_loss_is_noticed_by_writing_alone),
        T(a_record_cut_by_the_end_is_not_delivered),
        T(aborting_reports_the_given_reason_once),
        T(aborting_inside_a_callback_stops_delivery),
        T(dropping_inside_a_callback_is_the_last_word),
        T(dropping_when_ready_is_safe),
        T(all_calls_are_allowed_inside_closed),
        T(too_much_queued_ends_the_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
