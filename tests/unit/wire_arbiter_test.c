// SPDX-License-Identifier: Apache-2.0
/* What hosts and their witness say to each other, as bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "link/wire.h"

static void its_types_are_its_own(void **state)
{
    (void)state;
    for (uint32_t type = WIRE_ASK; type <= WIRE_SEAL; type++) {
        assert_true(wire_type_legal(WIRE_ARBITER, type));
        assert_false(wire_type_legal(WIRE_HOST, type));
        assert_false(wire_type_legal(WIRE_VM, type));
    }
    assert_false(wire_type_legal(WIRE_ARBITER, WIRE_REQUEST));
    assert_false(wire_type_legal(WIRE_ARBITER, WIRE_PAGES));
}

static void what_is_said_to_a_witness_survives_the_wire(void **state)
{
    struct wire_ask ask = {9, 2, {1}, 5, 6, {7}}, ask_out;
    struct wire_answer answer = {9, 1, 6, true, false}, answer_out;
    struct wire_seal seal = {true, "why"}, seal_out;
    struct buf b = {0};

    (void)state;
    ask_put(&b, &ask);
    assert_int_equal(b.len, 72);
    assert_int_equal(ask_get(&ask_out, b.data, b.len, NULL), 0);
    assert_int_equal(ask_out.generation, 5);
    assert_memory_equal(ask_out.other, ask.other, 32);
    assert_int_equal(ask_get(&ask_out, b.data, b.len - 1, NULL), -1);
    buf_clear(&b);
    answer_put(&b, &answer);
    assert_int_equal(answer_get(&answer_out, b.data, b.len, NULL), 0);
    assert_true(answer_out.mine && !answer_out.running);
    assert_int_equal(answer_out.generation, 6);
    b.data[b.len - 1] = 2;
    assert_int_equal(answer_get(&answer_out, b.data, b.len, NULL), -1);
    buf_clear(&b);
    seal_put(&b, &seal);
    assert_int_equal(seal_get(&seal_out, b.data, b.len, NULL), 0);
    assert_true(seal_out.sealed);
    assert_string_equal(seal_out.why, "why");
    buf_free(&b);
}

static void an_ask_that_can_not_be_meant_is_refused(void **state)
{
    const struct wire_ask bad[] = {
        {1, 0, {1}, 1, 1, {0}},
        {1, 7, {1}, 1, 1, {0}},
        {1, 2, {0}, 1, 1, {0}},
        {1, 2, {1}, 1ull << 63, 1, {0}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct wire_ask out;
        struct buf b = {0};
        ask_put(&b, &bad[i]);
        assert_int_equal(ask_get(&out, b.data, b.len, NULL), -1);
        buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_types_are_its_own),
        cmocka_unit_test(what_is_said_to_a_witness_survives_the_wire),
        cmocka_unit_test(an_ask_that_can_not_be_meant_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
