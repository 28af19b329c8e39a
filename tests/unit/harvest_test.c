// SPDX-License-Identifier: Apache-2.0
/* checkpoint/harvest: the word scan against a scan bit by bit. */
#include "checkpoint/harvest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WORDS 75 /* not a multiple of the block */
#define BITS  (WORDS * 64)

static uint64_t seed = 1;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

/* About one bit in `one_in`; whole stretches of words empty. */
static void map_random(uint64_t *map, unsigned one_in)
{
    memset(map, 0, WORDS * 8);
    for (uint64_t bit = 0; bit < BITS; bit++)
        if (rnd() % one_in == 0 && bit / 1024 % 2)
            bitmap_set(map, bit);
    for (int i = 0; i < 3; i++)
        bitmap_set(map, rnd() % BITS);
}

static void merge_equals_the_bit_scan(void **state)
{
    uint64_t pending[WORDS], fresh[WORDS], ram[WORDS], expect[WORDS];
    uint64_t got[BITS + 1], list[BITS];

    (void)state;
    for (int round = 0; round < 300; round++) {
        unsigned density = 1 + (unsigned)(rnd() % 200);
        size_t max = rnd() % 2 ? BITS : rnd() % 300;
        uint64_t n = 0;
        map_random(pending, density);
        map_random(fresh, 1 + (unsigned)(rnd() % 200));
        map_random(ram, 2);
        for (uint64_t b = 0; b < BITS; b++)
            if (bitmap_test(pending, b) ||
                (bitmap_test(fresh, b) && bitmap_test(ram, b)))
                list[n++] = b;
        memset(expect, 0, sizeof expect);
        for (uint64_t i = 0; i < n; i++)
            bitmap_set(expect, list[i]);
        memset(got, 0xee, sizeof got);
        assert_int_equal(harvest_merge(pending, fresh, ram, WORDS, got, max),
                         n);
        assert_memory_equal(pending, expect, sizeof expect);
        assert_int_equal(harvest_count(pending, WORDS), n);
        uint64_t listed = n < max ? n : max;
        assert_memory_equal(got, list, listed * 8);
        assert_int_equal(got[listed], 0xeeeeeeeeeeeeeeee);
    }
}

static void merge_without_a_list_only_counts(void **state)
{
    uint64_t pending[2] = {1, 0}, fresh[2] = {2, 4}, ram[2] = {2, 0};

    (void)state;
    assert_int_equal(harvest_merge(pending, fresh, ram, 2, NULL, 0), 2);
    assert_int_equal(pending[0], 3);
    assert_int_equal(pending[1], 0);
}

static void take_empties_the_map_in_order_in_any_portions(void **state)
{
    uint64_t map[WORDS], copy[WORDS], gfns[BITS];

    (void)state;
    for (int round = 0; round < 100; round++) {
        uint64_t from = 0, last = 0, total = 0;
        size_t portion = 1 + rnd() % 100, n;
        map_random(map, 1 + (unsigned)(rnd() % 100));
        memcpy(copy, map, sizeof map);
        while ((n = harvest_take(map, WORDS, &from, gfns, portion))) {
            assert_true(n <= portion);
            for (size_t i = 0; i < n; i++) {
                assert_true(bitmap_test(copy, gfns[i]));
                assert_true(total == 0 || gfns[i] > last);
                last = gfns[i];
                total++;
            }
        }
        assert_int_equal(total, harvest_count(copy, WORDS));
        assert_int_equal(harvest_count(map, WORDS), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge_equals_the_bit_scan),
        cmocka_unit_test(merge_without_a_list_only_counts),
        cmocka_unit_test(take_empties_the_map_in_order_in_any_portions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
