// SPDX-License-Identifier: Apache-2.0
/* The table of states and its one setter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/state.h"

struct seen {
    int calls;
    enum vm_state from, to;
    char why[64];
};

static void on_changed(void *arg, enum vm_state from, enum vm_state to,
                       const char *why)
{
    struct seen *s = arg;

    s->calls++;
    s->from = from;
    s->to = to;
    strncpy(s->why, why, sizeof s->why - 1);
}

static void every_name_parses_to_its_state(void **state)
{
    (void)state;
    for (int i = 0; i < VM_STATES; i++) {
        enum vm_state s = VM_STATES;
        assert_true(vm_state_parse(vm_state_name((enum vm_state)i), &s));
        assert_int_equal(s, i);
    }
}

static void names_that_are_no_states_are_refused(void **state)
{
    enum vm_state s;

    (void)state;
    assert_false(vm_state_parse("protected", &s));
    assert_false(vm_state_parse("", &s));
    assert_false(vm_state_parse(NULL, &s));
    assert_string_equal(vm_state_name(VM_STATES), "?");
}

static void every_state_may_end_or_fail_and_stay(void **state)
{
    (void)state;
    for (int i = 0; i < VM_STATES; i++) {
        enum vm_state s = (enum vm_state)i;
        assert_true(vm_state_legal(s, s));
        assert_true(vm_state_legal(s, VM_FAILED));
        assert_true(vm_state_legal(s, VM_UNPROTECTED));
        assert_true(vm_state_legal(s, VM_SYNCING));
    }
}

static void only_a_whole_replica_takes_over(void **state)
{
    (void)state;
    for (int i = 0; i < VM_STATES; i++) {
        enum vm_state s = (enum vm_state)i;
        bool whole =
            s == VM_PROTECTED || s == VM_DEGRADED || s == VM_TAKEN_OVER;
        assert_int_equal(vm_state_legal(s, VM_TAKEN_OVER), whole);
    }
}

static void a_fenced_vm_never_just_goes_on(void **state)
{
    (void)state;
    assert_false(vm_state_legal(VM_FENCED, VM_PROTECTED));
    assert_false(vm_state_legal(VM_FENCED, VM_DEGRADED));
    assert_false(vm_state_legal(VM_FENCED, VM_TAKEN_OVER));
}

static void a_move_is_told_once_with_its_reason(void **state)
{
    struct seen seen = {0};
    struct state s = {.changed = on_changed, .arg = &seen};

    (void)state;
    state_load(&s, VM_SYNCING, 5);
    assert_int_equal(seen.calls, 0);
    assert_int_equal(state_move(&s, VM_PROTECTED, "in sync", 9, NULL), 0);
    assert_int_equal(seen.calls, 1);
    assert_int_equal(seen.from, VM_SYNCING);
    assert_int_equal(seen.to, VM_PROTECTED);
    assert_string_equal(seen.why, "in sync");
    assert_int_equal(s.before, VM_SYNCING);
    assert_int_equal(s.since_ns, 9);
    assert_int_equal(state_move(&s, VM_PROTECTED, NULL, 11, NULL), 0);
    assert_int_equal(seen.calls, 1);
    assert_int_equal(s.since_ns, 9);
}

static void an_illegal_move_changes_nothing(void **state)
{
    struct seen seen = {0};
    struct state s = {.changed = on_changed, .arg = &seen};
    struct err e = ERR_INIT;

    (void)state;
    state_load(&s, VM_SYNCING, 5);
    assert_int_equal(state_move(&s, VM_TAKEN_OVER, "no", 9, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_non_null(strstr(e.text, "Syncing to TakenOver"));
    assert_int_equal(s.now, VM_SYNCING);
    assert_int_equal(s.since_ns, 5);
    assert_int_equal(seen.calls, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_parses_to_its_state),
        cmocka_unit_test(names_that_are_no_states_are_refused),
        cmocka_unit_test(every_state_may_end_or_fail_and_stay),
        cmocka_unit_test(only_a_whole_replica_takes_over),
        cmocka_unit_test(a_fenced_vm_never_just_goes_on),
        cmocka_unit_test(a_move_is_told_once_with_its_reason),
        cmocka_unit_test(an_illegal_move_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
