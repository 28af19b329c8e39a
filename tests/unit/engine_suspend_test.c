// SPDX-License-Identifier: Apache-2.0
/* checkpoint/engine and guests that suspend late, never, for somebody else, or
 * while the engine ends; over the fake hypervisor. */
#include "common/clock.h"
#include "tests/lib/pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void deed(struct pair *p, enum fake_deed what, uint64_t value)
{
    assert_int_equal(fake_do(p->primary, p->domid, what, value, NULL), 0);
}

static void a_guest_that_will_not_suspend_skips_epochs_only(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->config.evtchn_deadline_ms = 10;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_EPOCH, 5));
    deed(p, FAKE_REFUSE, 1);
    assert_true(pair_wait(p, ENGINE_SKIPPED, 3));
    assert_true(pair_guest_runs(p, 50));
    deed(p, FAKE_REFUSE, 0);
    unsigned epochs = pair_seen(p, ENGINE_EPOCH);
    assert_true(pair_wait(p, ENGINE_EPOCH, epochs + 10));
    pair_takeover_check(p);
    pair_free(p);
}

static void a_suspend_acknowledged_too_late_is_still_ours(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->config.evtchn_deadline_ms = 1;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    deed(p, FAKE_DELAY_US, 8000);
    unsigned epochs = pair_seen(p, ENGINE_EPOCH);
    assert_true(pair_wait(p, ENGINE_EPOCH, epochs + 3));
    assert_true(pair_guest_runs(p, 50));
    pair_takeover_check(p);
    pair_free(p);
}

/* The agent of a guest that takes long to answer loses its session meanwhile:
 * nobody but us resumes the guest. */
static void a_late_guest_is_resumed_without_a_session(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->config.evtchn_deadline_ms = 1;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    __atomic_store_n(&p->no_reconnect, true, __ATOMIC_SEQ_CST);
    deed(p, FAKE_DELAY_US, 200000);
    unsigned skips = pair_seen(p, ENGINE_SKIPPED);
    assert_true(pair_wait(p, ENGINE_SKIPPED, skips + 3));
    pair_cut(p);
    assert_true(pair_guest_runs(p, 200));
    assert_int_equal(pair_info(p).shutdown, HV_RUNNING);
    pair_free(p);
}

static void a_module_that_was_just_loaded_has_its_own_deadline(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->config.interval_ms = 60000;
    p->config.shortest_ms = 1;
    p->config.xenstore_deadline_ms = 30000;
    p->config.evtchn_deadline_ms = 1000;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    deed(p, FAKE_STOCK, 1);
    engine_kick(p->engine);
    assert_true(pair_wait(p, ENGINE_EPOCH, 1));
    deed(p, FAKE_REFUSE, 1);
    deed(p, FAKE_STOCK, 0);
    uint64_t start = clock_ns();
    engine_kick(p->engine);
    assert_true(pair_wait(p, ENGINE_SKIPPED, 1));
    assert_true(clock_ns() - start < 10 * NS_PER_SEC);
    pair_free(p);
}

static void a_suspend_by_others_is_left_alone(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->config.interval_ms = 60000; /* no suspend of ours is under way then */
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    deed(p, FAKE_SUSPENDED, 0);
    engine_kick(p->engine);
    assert_true(pair_wait(p, ENGINE_SKIPPED, 1));
    assert_int_equal(pair_info(p).shutdown, HV_SUSPEND);
    pair_stop_engine(p, ENGINE_RELEASE);
    assert_int_equal(pair_info(p).shutdown, HV_SUSPEND);
    pair_free(p);
}

static void a_stop_gives_up_the_suspend_under_way(void **state)
{
    struct pair *p = pair_new();
    struct err e = ERR_INIT;

    (void)state;
    p->config.interval_ms = p->config.shortest_ms = 1;
    p->config.xenstore_deadline_ms = p->config.evtchn_deadline_ms = 60000;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    assert_int_equal(fake_do(p->primary, p->domid, FAKE_REFUSE, 1, &e), 0);
    unsigned epochs;
    do { /* the last one is over when none comes for as long as many take */
        epochs = pair_seen(p, ENGINE_EPOCH);
        usleep(100000);
    } while (pair_seen(p, ENGINE_EPOCH) != epochs);
    uint64_t start = clock_ns();
    pair_stop_engine(p, ENGINE_RELEASE);
    assert_true(clock_ns() - start < 20 * NS_PER_SEC);
    assert_int_equal(pair_info(p).shutdown, HV_RUNNING);
    pair_free(p);
}

static void recovery_undoes_only_a_suspend_that_was_noted(void **state)
{
    struct pair *p = pair_new();
    struct err e = ERR_INIT;
    struct hv *hv;

    (void)state;
    p->config.interval_ms = p->config.shortest_ms = 60000;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    pair_stop_engine(p, ENGINE_RELEASE);
    assert_int_equal(hv_fake_open(p->primary, &hv, &e), 0);
    assert_int_equal(hv->ops->suspend(hv, p->domid, 1000, NULL, &e),
                     HV_SUSPENDED);
    /* Not noted: somebody else's. */
    assert_int_equal(engine_recover(hv, p->domid, p->config.suspend_flag, &e),
                     0);
    assert_int_equal(pair_info(p).shutdown, HV_SUSPEND);
    FILE *flag = fopen(p->config.suspend_flag, "r+");
    assert_non_null(flag);
    fputc(1, flag);
    fclose(flag);
    assert_int_equal(engine_recover(hv, p->domid, p->config.suspend_flag, &e),
                     0);
    assert_int_equal(pair_info(p).shutdown, HV_RUNNING);
    assert_true(pair_guest_runs(p, 20));
    /* Again: nothing to do; a domain that is gone is fine too. */
    assert_int_equal(engine_recover(hv, p->domid, p->config.suspend_flag, &e),
                     0);
    assert_int_equal(engine_recover(hv, 999, p->config.suspend_flag, &e), 0);
    hv->ops->close(hv);
    pair_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_that_will_not_suspend_skips_epochs_only),
        cmocka_unit_test(a_suspend_acknowledged_too_late_is_still_ours),
        cmocka_unit_test(a_late_guest_is_resumed_without_a_session),
        cmocka_unit_test(a_module_that_was_just_loaded_has_its_own_deadline),
        cmocka_unit_test(a_suspend_by_others_is_left_alone),
        cmocka_unit_test(a_stop_gives_up_the_suspend_under_way),
        cmocka_unit_test(recovery_undoes_only_a_suspend_that_was_noted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
