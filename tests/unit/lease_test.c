// SPDX-License-Identifier: Apache-2.0
/* The generation logic: who asks when, and what follows from the answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "heartbeat/lease.h"

#define T 1000000000ull

/* Tick often enough not to look stalled, from *now until `until`; stops at
 * the first action. */
static enum lease_action run_until(struct lease *l, uint64_t *now,
                                   uint64_t until)
{
    enum lease_action act = LEASE_DO_NOTHING;

    while (act == LEASE_DO_NOTHING && *now < until) {
        *now += T / 20;
        act = lease_tick(l, *now);
    }
    return act;
}

static struct lease guarded_at(uint64_t now)
{
    struct lease l;

    lease_init(&l, LEASE_FREE, 1, T, now);
    lease_event(&l, LEASE_EV_COMMIT, now);
    return l;
}

static struct lease standby_at(uint64_t now)
{
    struct lease l;

    lease_init(&l, LEASE_EMPTY, 1, T, now);
    lease_event(&l, LEASE_EV_COMMIT, now);
    return l;
}

static void primary_with_silent_peer_asks_at_half_the_timeout(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = guarded_at(now);

    assert_int_equal(run_until(&l, &now, 20 * T), LEASE_DO_ASK);
    assert_true(now >= 5 * T + T / 2 && now <= 5 * T + T * 6 / 10);
    assert_int_equal(lease_event(&l, LEASE_EV_GRANTED, now), LEASE_DO_RELEASE);
    assert_int_equal(l.generation, 2);
    assert_int_equal(l.state, LEASE_FREE);
}

static void
primary_with_living_peer_that_never_acks_asks_after_timeout(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = guarded_at(now);
    enum lease_action act = LEASE_DO_NOTHING;

    while (act == LEASE_DO_NOTHING && now < 20 * T) {
        now += T / 20;
        lease_heard_daemon(&l, now);
        act = lease_tick(&l, now);
    }
    assert_int_equal(act, LEASE_DO_ASK);
    assert_true(now >= 6 * T && now < 6 * T + T / 10);
}

static void primary_that_commits_never_asks(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = guarded_at(now);

    for (int i = 0; i < 1000; i++) {
        now += T / 8;
        assert_int_equal(lease_tick(&l, now), LEASE_DO_NOTHING);
        lease_event(&l, LEASE_EV_COMMIT, now);
    }
}

static void primary_without_replica_never_asks(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l;

    lease_init(&l, LEASE_FREE, 1, T, now);
    assert_int_equal(run_until(&l, &now, 100 * T), LEASE_DO_NOTHING);
}

static void primary_that_loses_is_fenced_for_good(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = guarded_at(now);

    run_until(&l, &now, 20 * T);
    assert_int_equal(lease_event(&l, LEASE_EV_DENIED, now), LEASE_DO_FENCE);
    for (int ev = 0; ev < LEASE_EVENTS; ev++)
        assert_int_equal(lease_event(&l, ev, now), LEASE_DO_NOTHING);
    assert_int_equal(l.generation, 1);
}

static void discarded_replica_lets_the_output_go(void **s)
{
    (void)s;
    struct lease l = guarded_at(T);

    assert_int_equal(lease_event(&l, LEASE_EV_DISCARDED, T), LEASE_DO_RELEASE);
    assert_int_equal(l.state, LEASE_FREE);
    assert_int_equal(l.generation, 1);
}

static void backup_asks_only_when_agent_and_daemon_are_silent(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = standby_at(now);

    for (int i = 0; i < 400; i++) {
        now += T / 20;
        if (i % 2)
            lease_heard_daemon(&l, now);
        assert_int_equal(lease_tick(&l, now), LEASE_DO_NOTHING);
    }
    for (int i = 0; i < 400; i++) {
        now += T / 20;
        lease_heard_agent(&l, now);
        assert_int_equal(lease_tick(&l, now), LEASE_DO_NOTHING);
    }
    uint64_t from = now;
    assert_int_equal(run_until(&l, &now, from + 20 * T), LEASE_DO_ASK);
    assert_true(now >= from + T && now < from + T + T / 10);
    assert_int_equal(lease_event(&l, LEASE_EV_GRANTED, now), LEASE_DO_TAKEOVER);
    assert_int_equal(l.generation, 2);
}

static void backup_without_a_committed_epoch_never_asks(void **s)
{
    (void)s;
    uint64_t now = T;
    struct lease l;

    lease_init(&l, LEASE_EMPTY, 1, T, now);
    assert_int_equal(run_until(&l, &now, 100 * T), LEASE_DO_NOTHING);
    assert_int_equal(lease_event(&l, LEASE_EV_FORCED, now), LEASE_DO_NOTHING);
}

static void a_stalled_backup_starts_counting_again(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = standby_at(now);

    now += 30 * T; /* it did not run itself */
    assert_int_equal(lease_tick(&l, now), LEASE_DO_NOTHING);
    assert_int_equal(l.stalls, 1);
    uint64_t from = now;
    assert_int_equal(run_until(&l, &now, from + 5 * T), LEASE_DO_ASK);
    assert_true(now >= from + T);
}

static void a_backup_that_asks_does_nothing_until_it_knows(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = standby_at(now);

    run_until(&l, &now, 20 * T);
    assert_int_equal(l.state, LEASE_CLAIMING);
    assert_int_equal(run_until(&l, &now, now + 20 * T), LEASE_DO_NOTHING);
    assert_int_equal(lease_event(&l, LEASE_EV_COMMIT, now), LEASE_DO_NOTHING);
    assert_int_equal(l.state, LEASE_CLAIMING);
    assert_int_equal(lease_event(&l, LEASE_EV_DENIED, now), LEASE_DO_DISCARD);
    assert_int_equal(lease_event(&l, LEASE_EV_GRANTED, now), LEASE_DO_NOTHING);
}

static void of_two_runners_exactly_one_keeps_it(void **s)
{
    (void)s;
    for (uint64_t a = 1; a < 5; a++) {
        for (uint64_t b = 1; b < 5; b++)
            assert_int_not_equal(lease_keeps(a, true, b),
                                 lease_keeps(b, false, a));
    }
    assert_true(lease_keeps(2, true, 2));
    assert_false(lease_keeps(2, true, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(primary_with_silent_peer_asks_at_half_the_timeout),
        cmocka_unit_test(
            primary_with_living_peer_that_never_acks_asks_after_timeout),
        cmocka_unit_test(primary_that_commits_never_asks),
        cmocka_unit_test(primary_without_replica_never_asks),
        cmocka_unit_test(primary_that_loses_is_fenced_for_good),
        cmocka_unit_test(discarded_replica_lets_the_output_go),
        cmocka_unit_test(backup_asks_only_when_agent_and_daemon_are_silent),
        cmocka_unit_test(backup_without_a_committed_epoch_never_asks),
        cmocka_unit_test(a_stalled_backup_starts_counting_again),
        cmocka_unit_test(a_backup_that_asks_does_nothing_until_it_knows),
        cmocka_unit_test(of_two_runners_exactly_one_keeps_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
