// SPDX-License-Identifier: Apache-2.0
/* The generation logic: who asks when, and what follows from the answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
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

/* --- With an arbiter ------------------------------------------------------ */

#define NONCE 77

static struct lease arbitrated(struct lease l)
{
    lease_use_arbiter(&l, NONCE);
    return l;
}

/* Tick until the request is due again; the time that took. */
static uint64_t until_asked(struct lease *l, uint64_t *now)
{
    uint64_t from = *now;

    assert_int_equal(run_until(l, now, from + 20 * T), LEASE_DO_ASK);
    return *now - from;
}

static enum lease_action answered(struct lease *l, uint64_t generation,
                                  bool mine, bool running, uint64_t now)
{
    const struct lease_record r = {l->request.nonce, generation, mine, running};

    return lease_answer(l, &r, now);
}

static void a_claim_without_an_answer_is_asked_again_with_its_nonce(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = arbitrated(standby_at(now));

    until_asked(&l, &now);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(l.request.op, LEASE_OP_CLAIM);
        assert_int_equal(l.request.generation, 1);
        assert_int_equal(l.request.nonce, NONCE);
        assert_int_equal(l.state, LEASE_CLAIMING);
        lease_sent(&l);
        uint64_t took = until_asked(&l, &now);
        assert_true(took >= T / 2 && took < T * 6 / 10);
    }
    assert_int_equal(answered(&l, 2, true, false, now), LEASE_DO_TAKEOVER);
    assert_int_equal(l.generation, 2);
    assert_int_equal(l.request.op, LEASE_OP_NONE);
    /* The answer again, and an old one: nothing. */
    assert_int_equal(answered(&l, 2, true, false, now), LEASE_DO_NOTHING);
    assert_int_equal(answered(&l, 1, false, true, now), LEASE_DO_NOTHING);
    assert_int_equal(l.state, LEASE_WON);
}

static void a_winner_says_that_it_runs_until_the_arbiter_knows(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = arbitrated(standby_at(now));

    until_asked(&l, &now);
    answered(&l, 2, true, false, now);
    assert_int_equal(run_until(&l, &now, now + 5 * T), LEASE_DO_NOTHING);
    lease_event(&l, LEASE_EV_STARTED, now);
    until_asked(&l, &now);
    assert_int_equal(l.request.op, LEASE_OP_RUNNING);
    assert_int_equal(l.request.generation, 2);
    answered(&l, 2, true, false, now); /* an old answer */
    until_asked(&l, &now);
    assert_int_equal(l.request.op, LEASE_OP_RUNNING);
    answered(&l, 2, true, true, now);
    assert_int_equal(run_until(&l, &now, now + 5 * T), LEASE_DO_NOTHING);

    l = arbitrated(guarded_at(now));
    until_asked(&l, &now);
    assert_int_equal(answered(&l, 2, true, false, now), LEASE_DO_RELEASE);
    until_asked(&l, &now);
    assert_int_equal(l.request.op, LEASE_OP_RUNNING);
}

static void a_refused_primary_keeps_still_until_the_other_one_runs(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = arbitrated(guarded_at(now));

    until_asked(&l, &now);
    assert_int_equal(answered(&l, 2, false, false, now), LEASE_DO_PAUSE);
    assert_int_equal(l.state, LEASE_YIELDED);
    assert_int_equal(lease_event(&l, LEASE_EV_COMMIT, now), LEASE_DO_NOTHING);
    assert_int_equal(lease_event(&l, LEASE_EV_DISCARDED, now),
                     LEASE_DO_NOTHING);
    until_asked(&l, &now);
    assert_int_equal(l.request.op, LEASE_OP_QUERY);
    assert_int_equal(answered(&l, 2, false, false, now), LEASE_DO_NOTHING);
    until_asked(&l, &now);
    assert_int_equal(answered(&l, 2, false, true, now), LEASE_DO_FENCE);
    assert_int_equal(l.state, LEASE_FENCED);
    assert_int_equal(answered(&l, 3, true, false, now), LEASE_DO_NOTHING);
}

static void a_generation_handed_back_lets_the_loser_go_on(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = arbitrated(guarded_at(now));

    until_asked(&l, &now);
    answered(&l, 2, false, false, now);
    assert_int_equal(answered(&l, 3, true, false, now), LEASE_DO_RELEASE);
    assert_int_equal(l.generation, 3);
    assert_int_equal(l.state, LEASE_FREE);

    l = arbitrated(standby_at(now));
    until_asked(&l, &now);
    assert_int_equal(answered(&l, 2, false, false, now), LEASE_DO_NOTHING);
    assert_int_equal(l.state, LEASE_WAITING);
    assert_int_equal(lease_event(&l, LEASE_EV_COMMIT, now), LEASE_DO_NOTHING);
    assert_int_equal(answered(&l, 3, true, false, now), LEASE_DO_TAKEOVER);
    assert_int_equal(l.generation, 3);
}

static void a_winner_that_can_not_start_hands_the_generation_back(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = arbitrated(standby_at(now));

    until_asked(&l, &now);
    answered(&l, 2, true, false, now);
    assert_int_equal(lease_event(&l, LEASE_EV_FAILED, now), LEASE_DO_NOTHING);
    for (int i = 0; i < 3; i++) {
        until_asked(&l, &now);
        assert_int_equal(l.request.op, LEASE_OP_RETURN);
        assert_int_equal(l.request.generation, 2);
        answered(&l, 2, true, false, now); /* an old answer */
    }
    assert_int_equal(answered(&l, 3, false, false, now), LEASE_DO_DISCARD);
    assert_int_equal(l.generation, 3); /* the peer learns it from us */
    lease_event(&l, LEASE_EV_DISCARDED, now);
    assert_int_equal(l.state, LEASE_EMPTY);
    assert_int_equal(run_until(&l, &now, now + 5 * T), LEASE_DO_NOTHING);
}

static void a_beaten_backup_gives_the_replica_up_when_the_winner_runs(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = arbitrated(standby_at(now));

    until_asked(&l, &now);
    answered(&l, 2, false, false, now);
    until_asked(&l, &now);
    assert_int_equal(l.request.op, LEASE_OP_QUERY);
    assert_int_equal(answered(&l, 2, false, true, now), LEASE_DO_DISCARD);
    lease_event(&l, LEASE_EV_DISCARDED, now);
    assert_int_equal(l.state, LEASE_EMPTY);
}

static void a_claim_that_never_left_is_forgotten_when_the_peer_is_back(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = arbitrated(guarded_at(now));

    until_asked(&l, &now);
    until_asked(&l, &now);
    lease_event(&l, LEASE_EV_COMMIT, now);
    assert_int_equal(l.state, LEASE_GUARDED);
    assert_int_equal(l.request.op, LEASE_OP_NONE);

    l = arbitrated(standby_at(now));
    until_asked(&l, &now);
    lease_heard_daemon(&l, now);
    assert_int_equal(lease_tick(&l, now), LEASE_DO_NOTHING);
    assert_int_equal(l.state, LEASE_STANDBY);
    lease_event(&l, LEASE_EV_FORCED, now); /* this one is meant */
    lease_heard_daemon(&l, now);
    assert_int_equal(lease_tick(&l, now), LEASE_DO_NOTHING);
    assert_int_equal(l.state, LEASE_CLAIMING);
}

static void an_operator_can_claim_without_a_replica(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l;

    lease_init(&l, LEASE_EMPTY, 1, T, now);
    l = arbitrated(l);
    assert_int_equal(lease_event(&l, LEASE_EV_FORCED, now), LEASE_DO_NOTHING);
    assert_int_equal(lease_claim_empty(&l, now), LEASE_DO_ASK);
    assert_int_equal(l.request.op, LEASE_OP_CLAIM);
    assert_int_equal(l.request.generation, 1);
    lease_sent(&l);
    assert_int_equal(answered(&l, 2, true, false, now), LEASE_DO_TAKEOVER);
    assert_int_equal(l.state, LEASE_WON);

    l = arbitrated(standby_at(now));
    assert_int_equal(lease_claim_empty(&l, now), LEASE_DO_NOTHING);
    assert_int_equal(l.state, LEASE_STANDBY);
}

static void a_claim_that_is_out_is_settled_though_the_peer_is_back(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = arbitrated(guarded_at(now));

    until_asked(&l, &now);
    lease_sent(&l);
    lease_event(&l, LEASE_EV_COMMIT, now); /* protection goes on */
    assert_int_equal(l.state, LEASE_GUARDED);
    assert_int_equal(run_until(&l, &now, now + T), LEASE_DO_ASK);
    assert_int_equal(l.request.op, LEASE_OP_CLAIM);
    assert_int_equal(l.request.nonce, NONCE);
    assert_int_equal(answered(&l, 2, true, false, now), LEASE_DO_RELEASE);

    l = arbitrated(standby_at(now));
    until_asked(&l, &now);
    lease_sent(&l);
    lease_heard_agent(&l, now);
    assert_int_equal(lease_tick(&l, now), LEASE_DO_NOTHING);
    assert_int_equal(l.state, LEASE_CLAIMING);
}

/* A question from before the claim is answered after it: to that one the new
 * generation is somebody else's. Nobody is paused for it, and who has let its
 * output go meanwhile (the replica was discarded) still knows its claim. */
static void an_answer_to_an_older_question_decides_nothing(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    const struct lease_record late = {.asked = NONCE - 1, .generation = 2};
    struct lease l = arbitrated(guarded_at(now));

    until_asked(&l, &now);
    lease_sent(&l);
    struct lease discarded = l;
    assert_int_equal(lease_answer(&l, &late, now), LEASE_DO_NOTHING);
    assert_int_equal(l.state, LEASE_ASKING);
    assert_int_equal(answered(&l, 2, true, false, now), LEASE_DO_RELEASE);

    lease_event(&discarded, LEASE_EV_DISCARDED, now);
    assert_int_equal(discarded.state, LEASE_FREE);
    assert_int_equal(lease_answer(&discarded, &late, now), LEASE_DO_NOTHING);
    until_asked(&discarded, &now);
    assert_int_equal(discarded.request.op, LEASE_OP_CLAIM);
    assert_int_equal(discarded.request.nonce, NONCE);
    assert_int_equal(answered(&discarded, 2, true, false, now),
                     LEASE_DO_RELEASE);
    assert_int_equal(discarded.generation, 2);
}

static void a_successor_settles_the_claim_of_its_predecessor(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l;

    lease_init(&l, LEASE_EMPTY, 1, T, now);
    lease_use_arbiter(&l, NONCE + 1000);
    lease_resume_claim(&l, NONCE);
    assert_int_equal(lease_event(&l, LEASE_EV_COMMIT, now), LEASE_DO_NOTHING);
    until_asked(&l, &now);
    assert_int_equal(l.state, LEASE_SETTLING);
    assert_int_equal(l.request.nonce, NONCE);
    struct lease granted = l;
    answered(&granted, 2, true, false, now);
    assert_int_equal(granted.state, LEASE_RETURNING);
    until_asked(&granted, &now);
    assert_int_equal(granted.request.op, LEASE_OP_RETURN);
    assert_int_equal(granted.request.nonce, NONCE);
    answered(&l, 2, false, true, now);
    assert_int_equal(l.state, LEASE_EMPTY);

    lease_init(&l, LEASE_FREE, 1, T, now);
    lease_use_arbiter(&l, NONCE + 1000);
    lease_resume_claim(&l, NONCE);
    until_asked(&l, &now);
    assert_int_equal(l.state, LEASE_ASKING);
    assert_int_equal(answered(&l, 2, true, false, now), LEASE_DO_RELEASE);
}

static void a_successor_that_runs_alone_says_so_again(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l;

    lease_init(&l, LEASE_FREE, 2, T, now);
    lease_use_arbiter(&l, NONCE);
    assert_int_equal(run_until(&l, &now, now + T), LEASE_DO_ASK);
    assert_int_equal(l.request.op, LEASE_OP_RUNNING);
    /* Its predecessor's nonce is not known any more. */
    answered(&l, 2, false, true, now);
    assert_int_equal(run_until(&l, &now, now + 5 * T), LEASE_DO_NOTHING);
}

static void a_newer_generation_at_the_peer_is_asked_about(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l = arbitrated(guarded_at(now));

    lease_event(&l, LEASE_EV_UNSURE, now);
    assert_int_equal(lease_tick(&l, now), LEASE_DO_ASK);
    assert_int_equal(l.request.op, LEASE_OP_QUERY);
    struct lease handed = l;
    assert_int_equal(answered(&handed, 3, true, false, now), LEASE_DO_RELEASE);
    assert_int_equal(handed.generation, 3);
    assert_int_equal(answered(&l, 1, true, true, now), LEASE_DO_NOTHING);
    assert_int_equal(l.state, LEASE_GUARDED);
    assert_int_equal(l.request.op, LEASE_OP_NONE);
}

static void an_arbiter_that_is_behind_decides_nothing(void **s)
{
    (void)s;
    uint64_t now = 5 * T;
    struct lease l;

    lease_init(&l, LEASE_FREE, 7, T, now);
    lease_event(&l, LEASE_EV_COMMIT, now);
    lease_use_arbiter(&l, NONCE);
    until_asked(&l, &now);
    assert_int_equal(answered(&l, 6, false, true, now), LEASE_DO_NOTHING);
    assert_true(l.arbiter_behind);
    assert_int_equal(l.state, LEASE_ASKING);
    assert_int_equal(l.request.op, LEASE_OP_CLAIM);
}

/* Whatever is answered, whenever: nobody runs with a number that is not its
 * own, and no answer but one of a newer generation changes anything. */
static void no_answer_makes_a_loser_run(void **s)
{
    (void)s;
    for (int state = 0; state < LEASE_STATES; state++) {
        for (int bits = 0; bits < 16; bits++) {
            struct lease l;
            lease_init(&l, state, 5, T, T);
            lease_use_arbiter(&l, NONCE);
            bool mine = bits & 1;
            uint64_t generation = 4 + (uint64_t)(bits >> 2);
            enum lease_action act = answered(&l, generation, mine, bits & 2, T);
            if (act == LEASE_DO_RELEASE || act == LEASE_DO_TAKEOVER)
                assert_true(mine && l.generation == generation);
            if (generation <= 5) {
                assert_int_equal(act, LEASE_DO_NOTHING);
                assert_int_equal(l.state, state);
            }
        }
    }
}

static void every_state_and_event_has_a_name(void **s)
{
    (void)s;
    for (int i = 0; i < LEASE_STATES; i++)
        assert_non_null(lease_state_name(i));
    for (int i = 0; i < LEASE_EVENTS; i++)
        assert_non_null(lease_event_name(i));
    assert_string_equal(lease_state_name(LEASE_STATES), "?");
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
        cmocka_unit_test(
            a_claim_without_an_answer_is_asked_again_with_its_nonce),
        cmocka_unit_test(a_winner_says_that_it_runs_until_the_arbiter_knows),
        cmocka_unit_test(
            a_refused_primary_keeps_still_until_the_other_one_runs),
        cmocka_unit_test(a_generation_handed_back_lets_the_loser_go_on),
        cmocka_unit_test(a_winner_that_can_not_start_hands_the_generation_back),
        cmocka_unit_test(
            a_beaten_backup_gives_the_replica_up_when_the_winner_runs),
        cmocka_unit_test(
            a_claim_that_never_left_is_forgotten_when_the_peer_is_back),
        cmocka_unit_test(an_operator_can_claim_without_a_replica),
        cmocka_unit_test(
            a_claim_that_is_out_is_settled_though_the_peer_is_back),
        cmocka_unit_test(an_answer_to_an_older_question_decides_nothing),
        cmocka_unit_test(a_successor_settles_the_claim_of_its_predecessor),
        cmocka_unit_test(a_successor_that_runs_alone_says_so_again),
        cmocka_unit_test(a_newer_generation_at_the_peer_is_asked_about),
        cmocka_unit_test(an_arbiter_that_is_behind_decides_nothing),
        cmocka_unit_test(no_answer_makes_a_loser_run),
        cmocka_unit_test(every_state_and_event_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
