// SPDX-License-Identifier: Apache-2.0
/* checkpoint/engine and what the devices say to it, over the fake hypervisor.
 */
#include "common/clock.h"
#include "tests/lib/pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define peek(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)

static void a_device_that_is_full_gets_an_early_epoch(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->config.interval_ms = 60000;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    __atomic_store_n(&p->device.want_epoch, true, __ATOMIC_SEQ_CST);
    engine_kick(p->engine); /* to look at it */
    assert_true(pair_wait(p, ENGINE_EPOCH, 5));
    pair_free(p);
}

static bool polls_go_on(struct pair *p)
{
    unsigned before = peek(&p->device.polls);

    for (int i = 0; i < 500; i++) {
        usleep(1000);
        if (peek(&p->device.polls) >= before + 3)
            return true;
    }
    return false;
}

/* An interface that comes meanwhile has to be held. */
static void devices_are_polled_whatever_is_waited_for(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->spec.ram_pages = 30000;
    p->config.staging_pages = 200;
    p->sluggish = p->no_reconnect = true;
    pair_start(p);
    for (int i = 0; i < 5000 && !peek(&p->device.set_up); i++)
        usleep(1000);
    assert_true(polls_go_on(p));
    assert_int_equal(pair_seen(p, ENGINE_SYNCED), 0); /* the initial copy */
    __atomic_store_n(&p->sluggish, false, __ATOMIC_SEQ_CST);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    __atomic_store_n(&p->stuck, true, __ATOMIC_SEQ_CST);
    usleep(50000);
    assert_true(polls_go_on(p)); /* an epoch that can't be sent */
    __atomic_store_n(&p->stuck, false, __ATOMIC_SEQ_CST);
    assert_true(pair_wait(p, ENGINE_EPOCH, 5));
    pair_cut(p);
    usleep(20000);
    assert_true(polls_go_on(p)); /* no session */
    pair_reconnect(p, replica_committed(p->replica), false);
    assert_true(pair_wait(p, ENGINE_VOID, 1));
    assert_true(polls_go_on(p)); /* until it is stopped */
    pair_free(p);
}

static void output_that_waits_shortens_the_interval(void **state)
{
    struct pair *p = pair_new();

    (void)state;
    p->config.interval_ms = 2000;
    p->config.shortest_ms = 1;
    pair_start(p);
    assert_true(pair_wait(p, ENGINE_SYNCED, 1));
    __atomic_store_n(&p->device.held_packets, 3, __ATOMIC_SEQ_CST);
    uint64_t start = clock_ns();
    assert_true(pair_wait(p, ENGINE_EPOCH, 6));
    assert_true(clock_ns() - start < 5ull * 2000 * NS_PER_MS);
    pair_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_that_is_full_gets_an_early_epoch),
        cmocka_unit_test(devices_are_polled_whatever_is_waited_for),
        cmocka_unit_test(output_that_waits_shortens_the_interval),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
