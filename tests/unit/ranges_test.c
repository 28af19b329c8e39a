// SPDX-License-Identifier: Apache-2.0
/* Ranges: two that overlap are never granted at once, come in order of their
 * arrival, and everybody's turn comes. All histories of four ranges on a disk
 * of four places. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "disk-replicate/ranges.h"

#define N      4
#define PLACES 4

static bool overlap(const struct range *a, const struct range *b)
{
    for (uint64_t i = a->offset; i < a->offset + a->length; i++)
        if (i >= b->offset && i < b->offset + b->length)
            return true;
    return false;
}

/* What has to hold of x[first..count), which arrived in this order. */
static void check(const struct range *x, const bool *given, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        bool blocked = false;
        for (unsigned j = 0; !given[i] && j < i; j++)
            blocked |= !given[j] && overlap(&x[i], &x[j]);
        if (!given[i])
            assert_int_equal(x[i].granted, !blocked);
    }
}

/* Take all, then give back in the order of `order`, granted ones only. */
static void history(const unsigned *shape, unsigned order)
{
    struct ranges all = {0};
    struct range x[N] = {0};
    bool given[N] = {0};

    for (unsigned i = 0; i < N; i++) {
        x[i].offset = shape[i] % PLACES;
        x[i].length = shape[i] / PLACES % (PLACES - x[i].offset + 1);
        ranges_take(&all, &x[i]);
        check(x, given, i + 1);
    }
    for (unsigned left = N; left > 0; left--, order /= N) {
        unsigned skip = order % left, i = 0;
        for (;; i = (i + 1) % N)
            if (!given[i] && x[i].granted && skip-- == 0)
                break;
        ranges_give(&all, &x[i]);
        given[i] = true;
        check(x, given, N);
    }
    assert_null(all.first);
}

static void overlapping_ranges_take_turns(void **s)
{
    unsigned shapes = PLACES * (PLACES + 1), total = 1;

    (void)s;
    for (unsigned i = 0; i < N; i++)
        total *= shapes;
    for (unsigned t = 0; t < total; t++) {
        unsigned shape[N];
        for (unsigned i = 0, rest = t; i < N; i++, rest /= shapes)
            shape[i] = rest % shapes;
        history(shape, t);
        history(shape, 0);
        history(shape, UINT32_MAX);
    }
}

static void large_offsets_do_not_wrap(void **s)
{
    struct ranges all = {0};
    struct range a = {.offset = UINT64_MAX - 1, .length = 1};
    struct range b = {.offset = 0, .length = UINT64_MAX - 1};
    struct range c = {.offset = UINT64_MAX - 2, .length = 2};

    (void)s;
    assert_true(ranges_take(&all, &a));
    assert_true(ranges_take(&all, &b));
    assert_false(ranges_take(&all, &c));
    assert_false(ranges_give(&all, &a)); /* b is still in c's way */
    assert_true(ranges_give(&all, &b));
    assert_true(c.granted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlapping_ranges_take_turns),
        cmocka_unit_test(large_offsets_do_not_wrap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
