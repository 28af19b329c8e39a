// SPDX-License-Identifier: Apache-2.0
/* The kinds of arbiters: their lines, and what an answer says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "heartbeat/arbiter.h"

static void none_is_the_absence_of_one(void **s)
{
    (void)s;
    const struct arbiter_ops *ops = (void *)s;

    assert_int_equal(arbiter_find("none", &ops, NULL), 0);
    assert_null(ops);
    assert_true(arbiter_same("none", "none"));
}

static void what_is_no_arbiter_is_named(void **s)
{
    (void)s;
    static const char *const bad[] = {"", "nothing", "none:", ":", "oracle:a"};
    const struct arbiter_ops *ops;
    char line[ARBITER_LINE_MAX + 1];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = ERR_INIT;
        assert_int_equal(arbiter_find(bad[i], &ops, &e), -1);
        assert_int_equal(e.kind, ERR_USAGE);
        assert_non_null(strstr(e.hint, "witness:HOST:PORT"));
        assert_false(arbiter_same(bad[i], bad[i]));
    }
    memset(line, 'x', sizeof line);
    line[ARBITER_LINE_MAX] = '\0';
    assert_int_equal(arbiter_find(line, &ops, NULL), -1);
}

#define PIN "5cc48851db60391622e089f614dc8e21737b3887f1861c4ce57cc07f3ff848b7"

static void a_witness_is_its_key(void **s)
{
    (void)s;
    static const char *const good[] = {"witness:w.example.org pin=" PIN,
                                       "witness:10.0.0.1:77  pin=" PIN,
                                       "witness:[fd00::1]:77 pin=" PIN};
    static const char *const bad[] = {"witness:",
                                      "witness:w pin=12",
                                      "witness:w pin=" PIN " x",
                                      "witness:w",
                                      "witness:w:0 pin=" PIN,
                                      "witness: pin=" PIN,
                                      "witness pin=" PIN,
                                      "witness:fd00::1 pin=" PIN};
    const struct arbiter_ops *ops;

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(arbiter_find(good[i], &ops, NULL), 0);
        assert_string_equal(ops->kind, "witness");
        assert_true(arbiter_same(good[0], good[i]));
        assert_false(arbiter_same(good[i], "none"));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = ERR_INIT;
        assert_int_equal(arbiter_find(bad[i], &ops, &e), -1);
        assert_int_equal(e.kind, ERR_USAGE);
        assert_true(strstr(e.hint, "witness:HOST:PORT pin=PIN") ||
                    strstr(e.hint, "in brackets"));
    }
    assert_false(arbiter_same(good[0], "witness:w pin=00" PIN));
    char other[] = "witness:w.example.org pin=" PIN;
    other[sizeof other - 2] = 'a';
    assert_false(arbiter_same(good[0], other));
}

static void a_request_of_the_lease_is_asked(void **s)
{
    (void)s;
    struct lease_request r = {LEASE_OP_CLAIM, 4, 99};
    uint8_t vm[16] = {7};
    struct witness_ask ask;

    arbiter_ask_of(&r, vm, &ask);
    assert_int_equal(ask.op, WITNESS_CLAIM);
    assert_int_equal(ask.generation, 4);
    assert_int_equal(ask.nonce, 99);
    assert_memory_equal(ask.vm, vm, 16);
}

/* All but a record is a refusal with the arbiter's name. */
static void only_a_record_is_an_answer(void **s)
{
    (void)s;
    struct witness_answer in = {WITNESS_RECORD, 3, true, false};
    struct lease_record r;

    assert_int_equal(arbiter_answer_of(&in, 9, "w", &r, NULL), 0);
    assert_int_equal(r.asked, 9);
    assert_int_equal(r.generation, 3);
    assert_true(r.mine && !r.running);
    for (in.status = 0; in.status < 9; in.status++) {
        struct err e = ERR_INIT;
        if (in.status == WITNESS_RECORD)
            continue;
        assert_int_equal(arbiter_answer_of(&in, 9, "w1", &r, &e), -1);
        assert_non_null(strstr(e.text, "w1"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none_is_the_absence_of_one),
        cmocka_unit_test(what_is_no_arbiter_is_named),
        cmocka_unit_test(a_witness_is_its_key),
        cmocka_unit_test(a_request_of_the_lease_is_asked),
        cmocka_unit_test(only_a_record_is_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
