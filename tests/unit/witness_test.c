// SPDX-License-Identifier: Apache-2.0
/* The witness's memory: what it grants, to whom, and that it is written down
 * before it is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "heartbeat/witness.h"

static const uint8_t alder[WITNESS_PIN] = {1}, birch[WITNESS_PIN] = {2},
                     stranger[WITNESS_PIN] = {3};

static struct buf disk;
static unsigned saves;
static bool disk_full;

static int disk_save(void *arg, const struct buf *state, struct err *e)
{
    (void)arg;
    if (disk_full)
        return err_set(e, "no space");
    saves++;
    buf_clear(&disk);
    buf_put(&disk, state->data, state->len);
    return 0;
}

static struct witness_answer ask(struct witness *w, const uint8_t *asker,
                                 enum witness_op op, uint64_t generation,
                                 uint64_t nonce)
{
    struct witness_ask a = {
        .op = op, .vm = {7}, .generation = generation, .nonce = nonce};
    struct witness_answer out;

    if (op == WITNESS_REGISTER)
        memcpy(a.other, asker == alder ? birch : alder, WITNESS_PIN);
    assert_int_equal(witness_ask(w, asker, &a, &out, NULL), 0);
    return out;
}

#define assert_record(answer, number, is_mine, is_running)                     \
    do {                                                                       \
        struct witness_answer r_ = (answer);                                   \
        assert_int_equal(r_.status, WITNESS_RECORD);                           \
        assert_int_equal(r_.generation, number);                               \
        assert_int_equal(r_.mine, is_mine);                                    \
        assert_int_equal(r_.running, is_running);                              \
    } while (0)

static void registered(struct witness *w)
{
    memset(w, 0, sizeof *w);
    w->save = disk_save;
    disk_full = false;
    assert_record(ask(w, alder, WITNESS_REGISTER, 1, 0), 1, true, true);
}

/* What a witness that starts again remembers. */
static void again(struct witness *w)
{
    witness_free(w);
    memset(w, 0, sizeof *w);
    w->save = disk_save;
    assert_int_equal(witness_get(w, disk.data, disk.len, NULL), 0);
}

static void one_of_two_claims_is_granted(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 1, 11), 2, true, false);
    assert_record(ask(&w, alder, WITNESS_CLAIM, 1, 12), 2, false, false);
    assert_record(ask(&w, birch, WITNESS_RUNNING, 2, 11), 2, true, true);
    assert_record(ask(&w, alder, WITNESS_QUERY, 1, 12), 2, false, true);
    witness_free(&w);
}

static void the_same_claim_gets_the_same_answer(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    ask(&w, birch, WITNESS_CLAIM, 1, 11);
    unsigned before = saves;
    for (int i = 0; i < 3; i++)
        assert_record(ask(&w, birch, WITNESS_CLAIM, 1, 11), 2, true, false);
    assert_int_equal(saves, before);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 1, 99), 2, false, false);
    witness_free(&w);
}

static void a_stale_generation_wins_nothing(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    ask(&w, alder, WITNESS_CLAIM, 1, 12);
    ask(&w, alder, WITNESS_RUNNING, 2, 12);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 1, 11), 2, false, true);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 2, 11), 3, true, false);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 3, 0), 3, false, false);
    witness_free(&w);
}

static void a_generation_that_is_returned_is_the_other_ones(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    ask(&w, birch, WITNESS_CLAIM, 1, 11);
    assert_record(ask(&w, alder, WITNESS_RETURN, 2, 0), 2, false, false);
    assert_record(ask(&w, birch, WITNESS_RETURN, 2, 11), 3, false, false);
    assert_record(ask(&w, alder, WITNESS_QUERY, 1, 12), 3, true, false);
    /* Again, and the old claim, late. */
    assert_record(ask(&w, birch, WITNESS_RETURN, 2, 11), 3, false, false);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 1, 11), 3, false, false);
    assert_record(ask(&w, alder, WITNESS_RUNNING, 3, 0), 3, true, true);
    assert_record(ask(&w, alder, WITNESS_RETURN, 3, 0), 3, true, true);
    witness_free(&w);
}

static void everything_is_on_disk_before_it_is_said(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    again(&w);
    ask(&w, birch, WITNESS_CLAIM, 1, 11);
    again(&w);
    assert_record(ask(&w, alder, WITNESS_CLAIM, 1, 12), 2, false, false);
    ask(&w, birch, WITNESS_RUNNING, 2, 11);
    again(&w);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 1, 11), 2, true, true);
    witness_free(&w);
}

static void what_can_not_be_written_is_not_answered(void **s)
{
    (void)s;
    struct witness_ask a = {
        .op = WITNESS_CLAIM, .vm = {7}, .generation = 1, .nonce = 11};
    struct witness_answer out;
    struct witness w;

    registered(&w);
    disk_full = true;
    assert_int_equal(witness_ask(&w, birch, &a, &out, NULL), -1);
    disk_full = false;
    assert_int_equal(witness_ask(&w, birch, &a, &out, NULL), -1);
    again(&w);
    assert_record(ask(&w, alder, WITNESS_QUERY, 1, 0), 1, true, true);
    witness_free(&w);
}

static void a_host_that_knows_more_seals_it(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    assert_int_equal(ask(&w, birch, WITNESS_QUERY, 5, 0).status,
                     WITNESS_SEALED);
    again(&w);
    assert_int_equal(ask(&w, birch, WITNESS_CLAIM, 1, 11).status,
                     WITNESS_SEALED);
    assert_int_equal(witness_unseal(&w, NULL), 0);
    again(&w);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 1, 11), 2, true, false);
    witness_free(&w);
}

static void others_get_nothing(void **s)
{
    (void)s;
    struct witness_ask a = {.op = 77, .vm = {7}};
    struct witness_answer out;
    struct witness w;

    registered(&w);
    assert_int_equal(ask(&w, stranger, WITNESS_CLAIM, 1, 13).status,
                     WITNESS_STRANGER);
    assert_int_equal(ask(&w, stranger, WITNESS_REGISTER, 9, 0).status,
                     WITNESS_STRANGER);
    assert_int_equal(witness_ask(&w, alder, &a, &out, NULL), -1);
    assert_int_equal(witness_forget(&w, a.vm, NULL), 0);
    assert_int_equal(ask(&w, alder, WITNESS_CLAIM, 1, 13).status,
                     WITNESS_UNKNOWN);
    witness_free(&w);
}

static struct witness_answer register_at(struct witness *w, uint64_t generation,
                                         const uint8_t *asker,
                                         const uint8_t *other, uint64_t nonce)
{
    struct witness_ask a = {.op = WITNESS_REGISTER,
                            .vm = {7},
                            .generation = generation,
                            .nonce = nonce};
    struct witness_answer out;

    memcpy(a.other, other, WITNESS_PIN);
    assert_int_equal(witness_ask(w, asker, &a, &out, NULL), 0);
    return out;
}

static void the_holder_may_name_another_backup(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    assert_record(register_at(&w, 1, birch, alder, 5), 1, false, true);
    assert_record(register_at(&w, 1, alder, stranger, 6), 2, true, true);
    assert_int_equal(ask(&w, birch, WITNESS_CLAIM, 1, 11).status,
                     WITNESS_STRANGER);
    assert_record(ask(&w, stranger, WITNESS_CLAIM, 2, 13), 3, true, false);
    witness_free(&w);
}

/* No replica of what was before can win; a lost answer is asked for again. */
static void to_register_is_a_new_generation(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    assert_record(register_at(&w, 1, alder, birch, 5), 2, true, true);
    unsigned before = saves;
    assert_record(register_at(&w, 1, alder, birch, 5), 2, true, true);
    assert_int_equal(saves, before);
    again(&w);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 1, 11), 2, false, true);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 2, 11), 3, true, false);
    assert_record(register_at(&w, 3, alder, birch, 6), 3, false, false);
    witness_free(&w);
}

/* It was lost on its way, `protect` was typed again, and the VM has gone on. */
static void a_register_that_is_late_does_nothing(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    assert_record(register_at(&w, 1, alder, birch, 5), 2, true, true);
    assert_record(ask(&w, alder, WITNESS_CLAIM, 2, 12), 3, true, false);
    assert_record(register_at(&w, 1, alder, birch, 4), 3, false, false);
    assert_record(register_at(&w, 1, alder, birch, 5), 3, false, false);
    assert_record(ask(&w, alder, WITNESS_RUNNING, 3, 12), 3, true, true);
    witness_free(&w);
}

/* What was handed over is ours, but was not registered by that. */
static void a_generation_handed_over_is_registered_by_its_number(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 1, 11), 2, true, false);
    assert_record(ask(&w, birch, WITNESS_RETURN, 2, 11), 3, false, false);
    assert_record(register_at(&w, 1, alder, birch, 5), 3, false, false);
    assert_record(register_at(&w, 3, alder, birch, 5), 4, true, true);
    witness_free(&w);
}

static void who_leaves_lets_anybody_register(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    assert_record(ask(&w, birch, WITNESS_LEAVE, 1, 0), 1, false, true);
    assert_record(ask(&w, alder, WITNESS_LEAVE, 1, 0), 2, false, true);
    again(&w);
    /* Again, and claims: it is nobody's. */
    assert_record(ask(&w, alder, WITNESS_LEAVE, 1, 0), 2, false, true);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 1, 11), 2, false, true);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 2, 11), 2, false, true);
    assert_record(ask(&w, alder, WITNESS_RETURN, 2, 0), 2, false, true);
    assert_int_equal(ask(&w, stranger, WITNESS_CLAIM, 2, 11).status,
                     WITNESS_STRANGER);
    assert_record(register_at(&w, 1, stranger, birch, 5), 2, false, true);
    assert_record(register_at(&w, 2, stranger, birch, 5), 3, true, true);
    assert_int_equal(ask(&w, alder, WITNESS_CLAIM, 3, 11).status,
                     WITNESS_STRANGER);
    assert_record(ask(&w, birch, WITNESS_CLAIM, 3, 11), 4, true, false);
    witness_free(&w);
}

static void no_part_of_a_state_is_one(void **s)
{
    (void)s;
    struct witness w;

    registered(&w);
    witness_free(&w);
    for (size_t len = 0; len < disk.len; len++) {
        struct witness part = {0};
        assert_int_equal(witness_get(&part, disk.data, len, NULL), -1);
        witness_free(&part);
    }
    buf_u8(&disk, 0);
    struct witness more = {0};
    assert_int_equal(witness_get(&more, disk.data, disk.len, NULL), -1);
    witness_free(&more);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_two_claims_is_granted),
        cmocka_unit_test(the_same_claim_gets_the_same_answer),
        cmocka_unit_test(a_stale_generation_wins_nothing),
        cmocka_unit_test(a_generation_that_is_returned_is_the_other_ones),
        cmocka_unit_test(everything_is_on_disk_before_it_is_said),
        cmocka_unit_test(what_can_not_be_written_is_not_answered),
        cmocka_unit_test(a_host_that_knows_more_seals_it),
        cmocka_unit_test(others_get_nothing),
        cmocka_unit_test(the_holder_may_name_another_backup),
        cmocka_unit_test(to_register_is_a_new_generation),
        cmocka_unit_test(a_register_that_is_late_does_nothing),
        cmocka_unit_test(a_generation_handed_over_is_registered_by_its_number),
        cmocka_unit_test(who_leaves_lets_anybody_register),
        cmocka_unit_test(no_part_of_a_state_is_one),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    buf_free(&disk);
    return rc;
}
