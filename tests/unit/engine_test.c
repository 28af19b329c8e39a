// SPDX-License-Identifier: Apache-2.0
/* checkpoint/engine and checkpoint/replica together, over the fake hypervisor:
 * every epoch is a consistent cut, whatever breaks, and the guest runs on. */
#include "common/clock.h"
#include "tests/lib/pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define peek(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)

/* Under a slow checker, TEST_FEW=10 asks for a tenth of the epochs. */
static unsigned many(unsigned n)
{
    const char *few = getenv("TEST_FEW");

    return few ? n / (unsigned)atoi(few) : n;
}

static void deed(struct pair *p, enum fake_deed what, uint64_t value)
{
    assert_int_equal(fake_do(p->primary, p->domid, what, value, NULL), 0);
}

static void every_epoch_is_a_consistent_cut(void **state)
{
    struct pair *p = pair_new();
    struct engine_status st;
    struct replica_status rs;

    (void)state;
    p->spec.lacking = 51;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    assert_true(pair_wait(p, ENGINE_EPOCH, many(1500)));
    assert_true(pair_guest_runs(p, 20));
    engine_status(p->engine, &st);
    replica_status(p->replica, &rs);
    assert_true(st.committed >= many(1500) && st.epochs == st.committed);
    assert_int_equal(st.skipped, 0);
    assert_true(st.pause_us.median > 0 && st.pause_us.max >= st.pause_us.p99);
    assert_true(st.dirty_pages.max > 0 && st.bytes.median > 0);
    assert_int_equal(st.sync_done, 300 * HV_PAGE);
    assert_int_equal(rs.lacking, 1);
    assert_int_equal(peek(&p->device.marks), peek(&p->device.marked));
    pair_takeover_check(p);
    pair_free(p);
}

/* Else most of a large guest would show as never to be copied. */
static void empty_memory_counts_in_the_rate(void **state)
{
    struct pair *p = pair_new();
    struct engine_status st;
    uint64_t bits = 20000ull * HV_PAGE * 8, start = clock_ns();

    (void)state;
    p->spec.ram_pages = 20000;
    p->spec.step_us = 10000;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    uint64_t ms = (clock_ns() - start) / NS_PER_MS + 1;
    engine_status(p->engine, &st);
    assert_true(st.bytes_sent * 8 < bits / 2);
    assert_true(st.sync_rate_bps >= bits * 1000 / ms);
    pair_free(p);
}

static void sessions_cut_anywhere_lose_no_consistency(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->cut_one_in = 15;
    if (getenv("SEED"))
        p->seed += strtoull(getenv("SEED"), NULL, 10);
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, many(1000)));
    pthread_mutex_lock(&p->lock);
    assert_true(p->cuts > many(50));
    pthread_mutex_unlock(&p->lock);
    assert_int_equal(pair_seen(p, ENGINE_VOID) + pair_seen(p, ENGINE_FAILED),
                     0);
    pair_takeover_check(p);
    pair_free(p);
}

static void cuts_during_the_initial_copy_start_it_again(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->spec.ram_pages = 3000;
    p->config.staging_pages = 200;
    p->cut_one_in = 12;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    assert_true(pair_wait(p, ENGINE_EPOCH, 20));
    pair_takeover_check(p);
    pair_free(p);
}

/* Heavy writers, staging for a handful of pages. */
static void dirty_sets_larger_than_staging_go_in_live_rounds(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->spec.ram_pages = 2000;
    p->config.staging_pages = 150;
    p->config.interval_ms = 20;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    for (unsigned n = 1; n <= 10; n++) {
        /* A burst dirties more than fits, then the guest is quiet. */
        deed(p, FAKE_STEP_US, 0);
        assert_true(pair_guest_runs(p, 20000));
        deed(p, FAKE_STEP_US, 500);
        assert_true(pair_wait(p, ENGINE_EPOCH, 5 * n));
    }
    pair_takeover_check(p);
    pair_free(p);
}

/* The guest is faster than any round: what the backup can hold is never
 * exceeded, and the failure has its own name. */
static void a_guest_that_outruns_the_rounds_is_told_of(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->spec.ram_pages = 20000;
    p->spec.writers = 4;
    p->spec.step_us = 1000;
    p->config.staging_pages = 64;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, 2));
    deed(p, FAKE_STEP_US, 0);
    assert_true(pair_wait(p, ENGINE_VOID, 1));
    assert_non_null(
        strstr(p->event[ENGINE_VOID].error.text, "faster than it can be sent"));
    assert_true(peek(&p->most_pages) <= 20000 + 8192);
    assert_true(pair_guest_runs(p, 20));
    pair_free(p);
}

static void with_live_rounds_and_cuts_too(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->spec.ram_pages = 1000;
    p->spec.step_us = 60;
    p->config.staging_pages = 40;
    p->cut_one_in = 25;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, many(200)));
    pair_takeover_check(p);
    pair_free(p);
}

static void a_silent_backup_holds_output_but_not_the_guest(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->config.interval_ms = 5;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, 5));
    pthread_mutex_lock(&p->lock);
    p->swallow_acks = true;
    pthread_mutex_unlock(&p->lock);
    usleep(50000);
    unsigned epochs = pair_seen(p, ENGINE_EPOCH);
    assert_true(pair_guest_runs(p, 500));
    assert_true(peek(&p->device.holding));
    assert_int_equal(pair_seen(p, ENGINE_EPOCH), epochs);
    assert_int_equal(peek(&p->device.released), 0);
    assert_int_equal(peek(&p->device.marked), peek(&p->device.committed) + 1);
    /* The backup has it: a new session says so. */
    pthread_mutex_lock(&p->lock);
    p->swallow_acks = false;
    pthread_mutex_unlock(&p->lock);
    pair_cut(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, epochs + 5));
    pair_takeover_check(p);
    pair_free(p);
}

/* Nothing was ever committed, so nothing can take over. */
static void output_held_for_a_first_epoch_that_failed_is_released(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->deaf_to_commit = p->no_reconnect = true;
    pair_start(p);
    for (int i = 0; i < 5000 && !peek(&p->device.marked); i++)
        usleep(1000);
    usleep(30000); /* COMMIT is out */
    assert_true(peek(&p->device.holding));
    pair_cut(p);
    usleep(30000);
    assert_int_equal(peek(&p->device.released), 0); /* who knows */
    __atomic_store_n(&p->deaf_to_commit, false, __ATOMIC_SEQ_CST);
    pair_reconnect(p, 0, true);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    assert_int_equal(peek(&p->device.released), 1);
    pair_takeover_check(p);
    pair_free(p);
}

static void reboot_poweroff_and_crash_are_told_apart(void **state)
{
    static const enum hv_shutdown reasons[] = {HV_POWEROFF, HV_REBOOT,
                                               HV_CRASH};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct pair *p = pair_new();
        pair_start(p);
        assert_true(pair_wait(p, ENGINE_EPOCH, 5));
        deed(p, FAKE_SHUTDOWN, reasons[i]);
        assert_true(pair_wait(p, ENGINE_GUEST_DOWN, 1));
        assert_int_equal(p->event[ENGINE_GUEST_DOWN].reason, reasons[i]);
        assert_int_equal(peek(&p->device.released), 0);
        pair_free(p);
    }
}

static void a_guest_down_is_seen_while_the_backup_is_away(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, 5));
    __atomic_store_n(&p->no_reconnect, true, __ATOMIC_SEQ_CST);
    pair_cut(p);
    deed(p, FAKE_SHUTDOWN, HV_REBOOT);
    assert_true(pair_wait(p, ENGINE_GUEST_DOWN, 1));
    pair_free(p);
}

static void a_changed_memory_size_voids_the_replica(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, 5));
    deed(p, FAKE_BALLOON, 299);
    assert_true(pair_wait(p, ENGINE_VOID, 1));
    assert_non_null(strstr(p->event[ENGINE_VOID].error.text, "memory size"));
    assert_true(pair_guest_runs(p, 50));
    pair_free(p);
}

/* Frames that came or went between the look before the suspend and the copy. */
static void a_size_that_changed_during_a_capture_is_not_committed(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, 5));
    __atomic_store_n(&p->device.balloon, 299, __ATOMIC_SEQ_CST);
    assert_true(pair_wait(p, ENGINE_VOID, 1));
    assert_non_null(strstr(p->event[ENGINE_VOID].error.text, "memory size"));
    usleep(50000);
    assert_int_equal(replica_committed(p->replica), p->device.marked - 1);
    assert_int_equal(peek(&p->device.committed), p->device.marked - 1);
    assert_true(pair_guest_runs(p, 50));
    pair_free(p);
}

static void log_dirty_turned_off_by_others_voids_the_replica(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, 5));
    deed(p, FAKE_LOG_OFF, 0);
    assert_true(pair_wait(p, ENGINE_VOID, 1));
    assert_non_null(strstr(p->event[ENGINE_VOID].error.text, "log-dirty"));
    assert_true(pair_guest_runs(p, 50));
    pair_free(p);
}

static void a_failed_mark_gives_the_epoch_up(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, 5));
    __atomic_store_n(&p->device.fail_mark, true, __ATOMIC_SEQ_CST);
    assert_true(pair_wait(p, ENGINE_SKIPPED, 1));
    assert_non_null(
        strstr(p->event[ENGINE_SKIPPED].error.text, "told to fail"));
    unsigned epochs = pair_seen(p, ENGINE_EPOCH);
    assert_true(pair_wait(p, ENGINE_EPOCH, epochs + 5));
    pair_takeover_check(p);
    pair_free(p);
}

static void a_state_that_grows_skips_one_epoch(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, 5));
    deed(p, FAKE_STATE_PAD, 200000);
    assert_true(pair_wait(p, ENGINE_SKIPPED, 1));
    unsigned epochs = pair_seen(p, ENGINE_EPOCH);
    assert_true(pair_wait(p, ENGINE_EPOCH, epochs + 5));
    assert_true(pair_seen(p, ENGINE_SKIPPED) <= 2);
    pair_takeover_check(p);
    pair_free(p);
}

static void a_backup_without_the_replica_is_void(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct pair *p = pair_new();
        p->no_reconnect = true;
        pair_start(p);
        assert_true(pair_wait(p, ENGINE_EPOCH, 5));
        pair_cut(p);
        usleep(20000);
        uint64_t committed = replica_committed(p->replica);
        pair_reconnect(p, how == 1 ? committed - 2 : committed + (how == 2) * 2,
                       how != 0);
        assert_true(pair_wait(p, ENGINE_VOID, 1));
        assert_int_equal(peek(&p->device.released), 0);
        assert_true(pair_guest_runs(p, 50));
        pair_free(p);
    }
}

static void an_ack_of_what_was_not_sent_is_refused(void **state)
{
    struct pair *p = pair_new();
    struct err e = ERR_INIT;

    (void)state;
    p->config.interval_ms = 10000;
    p->config.shortest_ms = 10000;
    pair_start(p);
    assert_int_equal(engine_acked(p->engine, 0, 0, &e), -1);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    assert_int_equal(engine_acked(p->engine, 2, 0, &e), -1);
    assert_int_equal(engine_acked(p->engine, 1, 0, &e), 0); /* repeated */
    assert_int_equal(peek(&p->device.committed), 1);
    pair_free(p);
}

static void a_kick_gets_an_early_epoch(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->config.interval_ms = 60000;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    for (unsigned i = 1; i < 4; i++) {
        unsigned epochs = pair_seen(p, ENGINE_EPOCH);
        engine_kick(p->engine);
        assert_true(pair_wait(p, ENGINE_EPOCH, epochs + 1));
    }
    pair_free(p);
}

/* At a random moment, also during the initial copy. */
static void a_stop_at_any_moment_leaves_the_guest_running(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        struct pair *p = pair_new();
        p->spec.seed = i;
        p->cut_one_in = i % 2 ? 20 : 0;
        p->no_reconnect = i % 4 == 3;
        pair_start(p);
        usleep(i * 613 % 12000);
        pair_stop_engine(p, i % 3 ? ENGINE_RELEASE : ENGINE_DROP);
        struct hv_domain d = pair_info(p);
        assert_int_equal(d.shutdown, HV_RUNNING);
        assert_true(pair_guest_runs(p, 20));
        pair_free(p);
    }
}

static void after_a_takeover_the_guest_goes_on_in_the_shell(void **state)
{
    struct pair *p = pair_new();
    struct fake_guest *second;
    struct err e = ERR_INIT;
    struct hv_domain d;

    (void)state;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, 20));
    pair_takeover_check(p);
    struct hv *hv = p->shell_hv;
    assert_int_equal(hv->ops->find(hv, "web--replica", &d, &e), 0);
    assert_int_equal(fake_guest_start(&second, p->backup, p->shell, &e), 0);
    uint64_t steps = fake_steps(p->backup, p->shell);
    assert_true(steps > 0);
    assert_int_equal(hv->ops->unpause(hv, p->shell, &e), 0);
    assert_int_equal(hv->ops->rename(hv, p->shell, "web", &e), 0);
    for (int i = 0; i < 5000 && fake_steps(p->backup, p->shell) < steps + 50;
         i++)
        usleep(1000);
    assert_true(fake_steps(p->backup, p->shell) >= steps + 50);
    assert_int_equal(hv->ops->find(hv, "web", &d, &e), 0);
    assert_int_equal(hv->ops->pause(hv, p->shell, &e), 0);
    assert_true(pair_shell_consistent(p));
    fake_guest_stop(second);
    pair_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_epoch_is_a_consistent_cut),
        cmocka_unit_test(empty_memory_counts_in_the_rate),
        cmocka_unit_test(sessions_cut_anywhere_lose_no_consistency),
        cmocka_unit_test(cuts_during_the_initial_copy_start_it_again),
        cmocka_unit_test(dirty_sets_larger_than_staging_go_in_live_rounds),
        cmocka_unit_test(a_guest_that_outruns_the_rounds_is_told_of),
        cmocka_unit_test(with_live_rounds_and_cuts_too),
        cmocka_unit_test(a_silent_backup_holds_output_but_not_the_guest),
        cmocka_unit_test(output_held_for_a_first_epoch_that_failed_is_released),
        cmocka_unit_test(reboot_poweroff_and_crash_are_told_apart),
        cmocka_unit_test(a_guest_down_is_seen_while_the_backup_is_away),
        cmocka_unit_test(a_changed_memory_size_voids_the_replica),
        cmocka_unit_test(a_size_that_changed_during_a_capture_is_not_committed),
        cmocka_unit_test(log_dirty_turned_off_by_others_voids_the_replica),
        cmocka_unit_test(a_failed_mark_gives_the_epoch_up),
        cmocka_unit_test(a_state_that_grows_skips_one_epoch),
        cmocka_unit_test(a_backup_without_the_replica_is_void),
        cmocka_unit_test(an_ack_of_what_was_not_sent_is_refused),
        cmocka_unit_test(a_kick_gets_an_early_epoch),
        cmocka_unit_test(a_stop_at_any_moment_leaves_the_guest_running),
        cmocka_unit_test(after_a_takeover_the_guest_goes_on_in_the_shell),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
