// SPDX-License-Identifier: Apache-2.0
/* A limit of bytes a second holds, however often and whenever it is asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/clock.h"
#include "disk-replicate/rate.h"

#define STEP (1u << 18)

static void without_a_limit_all_is_granted(void **state)
{
    struct rate r = {0};

    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_true(rate_take(&r, STEP, NS_PER_SEC));
}

/* Asked every `every_ns` for ten seconds: what is granted. */
static uint64_t granted(uint64_t bytes_s, uint64_t every_ns)
{
    struct rate r = {.bytes_s = bytes_s};
    uint64_t start = 77 * NS_PER_SEC, sum = 0;

    for (uint64_t t = start; t < start + 10 * NS_PER_SEC; t += every_ns)
        while (rate_take(&r, STEP, t))
            sum += STEP;
    return sum;
}

static void no_more_than_the_rate_is_granted(void **state)
{
    static const uint64_t rates[] = {1u << 20, 10u << 20, 1u << 30};
    static const uint64_t every[] = {333, 20 * NS_PER_MS + 1, 99 * NS_PER_MS};

    (void)state;
    for (unsigned i = 0; i < 9; i++) {
        uint64_t rate = rates[i / 3];
        if (every[i % 3] == 333 && rate > 1u << 20)
            continue; /* it takes long, and shows nothing new */
        uint64_t sum = granted(rate, every[i % 3]);
        assert_in_range(sum, rate * 95 / 10, rate * 101 / 10 + STEP);
    }
}

static void time_that_passed_is_not_saved_up(void **state)
{
    struct rate r = {.bytes_s = 10 << 20};
    unsigned n = 0;

    (void)state;
    while (rate_take(&r, STEP, NS_PER_SEC))
        n++;
    assert_in_range(n, 4, 5);
    for (n = 0; rate_take(&r, STEP, 1000 * NS_PER_SEC); n++)
        ;
    assert_in_range(n, 4, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_limit_all_is_granted),
        cmocka_unit_test(no_more_than_the_rate_is_granted),
        cmocka_unit_test(time_that_passed_is_not_saved_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
