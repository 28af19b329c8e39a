// SPDX-License-Identifier: Apache-2.0
/* When the next epoch is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/pace.h"
#include "common/clock.h"

#define MS NS_PER_MS
#define AT (1000 * MS) /* when the last pause began */

static struct pace paced(uint64_t pause_ms)
{
    struct pace p = {.interval_ms = 200, .shortest_ms = 20, .stop_percent = 10};

    pace_paused(&p, AT, AT + pause_ms * MS);
    return p;
}

static void an_idle_guest_gets_an_epoch_an_interval(void **state)
{
    struct pace p = paced(1);

    (void)state;
    assert_int_equal(pace_due(&p).idle_ns, AT + 200 * MS);
}

static void output_waits_as_long_as_the_share_demands(void **state)
{
    (void)state;
    for (uint64_t ms = 3; ms <= 20; ms++) {
        struct pace p = paced(ms);
        assert_int_equal(pace_due(&p).waiting_ns, AT + 10 * ms * MS);
    }
    struct pace p = paced(4);
    p.stop_percent = 50;
    assert_int_equal(pace_due(&p).waiting_ns, AT + 24 * MS);
}

static void no_pause_is_short_enough_for_less_than_the_shortest(void **state)
{
    struct pace p = paced(0);

    (void)state;
    assert_int_equal(pace_due(&p).waiting_ns, AT + 20 * MS);
    assert_int_equal(pace_due(&p).hurry_ns, AT + 20 * MS);
}

static void
a_slow_suspend_keeps_the_interval_but_lets_the_guest_run(void **state)
{
    struct pace p = paced(90);

    (void)state;
    assert_int_equal(pace_due(&p).waiting_ns, AT + 200 * MS);
    assert_int_equal(pace_due(&p).idle_ns, AT + 200 * MS);
    p = paced(300);
    assert_int_equal(pace_due(&p).hurry_ns, AT + 600 * MS);
    assert_int_equal(pace_due(&p).waiting_ns, AT + 600 * MS);
    assert_int_equal(pace_due(&p).idle_ns, AT + 600 * MS);
}

/* Whatever the pauses are, the guest is stopped for its share at most, when
 * the interval allows it. */
static void the_share_holds_over_many_pauses(void **state)
{
    struct pace p = paced(5);
    uint64_t now = AT, stopped = 0;

    (void)state;
    srand(1);
    for (int i = 0; i < 20000; i++) {
        uint64_t pause = (1 + (uint64_t)rand() % 10) * MS;
        now = pace_due(&p).waiting_ns;
        pace_paused(&p, now, now + pause);
        stopped += pause;
    }
    double share = (double)stopped / (double)(now - AT);
    assert_true(share > 0.08 && share < 0.11);
}

static void a_guest_that_can_not_be_stopped_is_asked_less_often(void **state)
{
    static const unsigned ms[] = {200, 400, 800, 1600, 3200, 5000, 5000};
    struct pace p = paced(2);
    uint64_t now = AT;

    (void)state;
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++) {
        pace_skipped(&p, now);
        assert_int_equal(pace_due(&p).hurry_ns, now + ms[i] * MS);
        assert_int_equal(pace_due(&p).idle_ns, now + ms[i] * MS);
        now += ms[i] * MS;
    }
    p.skips = 200;
    assert_int_equal(pace_due(&p).idle_ns, p.resumed_ns + 5000 * MS);
    pace_paused(&p, now, now + 2 * MS);
    assert_int_equal(pace_due(&p).idle_ns, now + 200 * MS);
}

/* Were it left to itself, a guest that suspends now would stay suspended. */
static void a_guest_that_has_the_request_is_not_left_to_itself(void **state)
{
    struct pace p = paced(2);

    (void)state;
    pace_skipped(&p, AT);
    pace_late(&p, AT + 7 * MS);
    assert_int_equal(pace_due(&p).hurry_ns, AT + 7 * MS);
    assert_int_equal(pace_due(&p).idle_ns, AT + 7 * MS);
    pace_skipped(&p, AT + 9 * MS);
    assert_int_equal(pace_due(&p).idle_ns, AT + 9 * MS + 400 * MS);
    pace_late(&p, AT + 700 * MS);
    pace_paused(&p, AT + 701 * MS, AT + 703 * MS);
    assert_int_equal(pace_due(&p).idle_ns, AT + 901 * MS);
}

static void a_long_interval_is_not_shortened_by_skips(void **state)
{
    struct pace p = paced(2);

    (void)state;
    p.interval_ms = 60000;
    pace_skipped(&p, AT);
    assert_int_equal(pace_due(&p).idle_ns, AT + 60000 * MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_guest_gets_an_epoch_an_interval),
        cmocka_unit_test(output_waits_as_long_as_the_share_demands),
        cmocka_unit_test(no_pause_is_short_enough_for_less_than_the_shortest),
        cmocka_unit_test(
            a_slow_suspend_keeps_the_interval_but_lets_the_guest_run),
        cmocka_unit_test(the_share_holds_over_many_pauses),
        cmocka_unit_test(a_guest_that_can_not_be_stopped_is_asked_less_often),
        cmocka_unit_test(a_guest_that_has_the_request_is_not_left_to_itself),
        cmocka_unit_test(a_long_interval_is_not_shortened_by_skips),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
