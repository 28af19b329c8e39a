// SPDX-License-Identifier: Apache-2.0
/* Fencing hooks: only status 0 counts, and only in time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "heartbeat/fence.h"

static char dir[64], hook[96], seen[96];

static int dir_make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/fence test.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(hook, sizeof hook, "%s/hook", dir);
    snprintf(seen, sizeof seen, "%s/seen", dir);
    return 0;
}

static int dir_remove(void **state)
{
    (void)state;
    unlink(hook);
    unlink(seen);
    return rmdir(dir);
}

static void hook_is(const char *script)
{
    FILE *f = fopen(hook, "w");

    assert_non_null(f);
    fprintf(f, "#!/bin/sh\n%s\n", script);
    fclose(f);
    assert_int_equal(chmod(hook, 0700), 0);
}

static int run(unsigned timeout_ms, struct err *e)
{
    return fence_run(hook, "alder; x", "we b", timeout_ms, e);
}

static void it_gets_the_hosts_name(void **state)
{
    char text[64] = "";

    (void)state;
    hook_is("printf '%s|%s|%s' \"$1\" \"$2\" $# >\"${0%/*}/seen\"");
    assert_int_equal(run(5000, NULL), 0);
    FILE *f = fopen(seen, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    fclose(f);
    assert_string_equal(text, "alder; x|we b|2");
}

static void another_status_is_a_failure(void **state)
{
    static const char *const bad[] = {"exit 1", "exit 127", "kill -9 $$",
                                      "echo 0; echo 0 >&3; exit 5"};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = ERR_INIT;
        hook_is(bad[i]);
        assert_int_equal(run(5000, &e), -1);
        assert_non_null(strstr(e.text, "alder"));
    }
    unlink(hook);
    assert_int_equal(run(5000, NULL), -1);
}

static void one_that_hangs_is_ended(void **state)
{
    uint64_t since = clock_ns();
    struct err e = ERR_INIT;

    (void)state;
    hook_is("sleep 30 & sleep 30");
    assert_int_equal(run(300, &e), -1);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_true(clock_ns() - since < 5 * NS_PER_SEC);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, dir_make, dir_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(it_gets_the_hosts_name),
        CASE(another_status_is_a_failure),
        CASE(one_that_hangs_is_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
