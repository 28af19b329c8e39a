// SPDX-License-Identifier: Apache-2.0
/* The mark of a takeover under way: there or not, whole or refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/mark.h"
#include "agent/paths.h"

#define UUID "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"

static char root[64];

static int root_make(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/understudy-mark.XXXXXX");
    if (!mkdtemp(root))
        return -1;
    setenv("UNDERSTUDY_ROOT", root, 1);
    return paths_setup(NULL);
}

static int root_remove(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void mark_put(bool state_set, const char *platform)
{
    struct takeover_mark m = {.generation = 1ull << 40,
                              .shell = 17,
                              .epoch = 1ull << 41,
                              .state_set = state_set};

    buf_put(&m.state, platform, strlen(platform));
    assert_int_equal(mark_write(UUID, &m, NULL), 0);
    buf_free(&m.state);
}

static void what_is_written_is_read(void **state)
{
    struct takeover_mark m;

    (void)state;
    mark_put(false, "registers");
    assert_int_equal(mark_read(UUID, &m, NULL), 0);
    assert_int_equal(m.generation, 1ull << 40);
    assert_int_equal(m.shell, 17);
    assert_int_equal(m.epoch, 1ull << 41);
    assert_false(m.state_set);
    assert_int_equal(m.state.len, 9);
    assert_memory_equal(m.state.data, "registers", 9);
    buf_free(&m.state);
}

static void a_newer_mark_replaces_it(void **state)
{
    struct takeover_mark m;

    (void)state;
    mark_put(false, "registers");
    mark_put(true, "");
    assert_int_equal(mark_read(UUID, &m, NULL), 0);
    assert_true(m.state_set);
    assert_int_equal(m.state.len, 0);
    buf_free(&m.state);
}

static void none_is_told_from_a_damaged_one(void **state)
{
    struct takeover_mark m;
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(mark_read(UUID, &m, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    mark_put(false, "registers");
    for (int length = 20; length >= 0; length -= 5) {
        err_clear(&e);
        assert_int_equal(truncate(path_takeover(UUID).s, length), 0);
        assert_int_equal(mark_read(UUID, &m, &e), -1);
        assert_int_not_equal(e.kind, ERR_GONE);
        assert_null(m.state.data);
    }
    mark_remove(UUID);
    err_clear(&e);
    assert_int_equal(mark_read(UUID, &m, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    mark_remove(UUID);
}

#define T(f) cmocka_unit_test_setup_teardown(f, root_make, root_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_is_written_is_read),
        T(a_newer_mark_replaces_it),
        T(none_is_told_from_a_damaged_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
