// SPDX-License-Identifier: Apache-2.0
/* The configuration file: defaults, every key, and errors that name the line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/config.h"

static char path[64];

static void file_put(const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int path_make(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/understudy-config.%d", (int)getpid());
    return 0;
}

static int path_remove(void **state)
{
    (void)state;
    return unlink(path);
}

static void assert_refused(const char *text, const char *expected)
{
    struct config c;
    struct err e = ERR_INIT;

    file_put(text);
    assert_int_equal(config_load(&c, path, &e), -1);
    if (!strstr(e.text, expected) || !strstr(e.text, path))
        fail_msg("\"%s\" lacks \"%s\" or the file", e.text, expected);
}

static void a_missing_file_means_defaults(void **state)
{
    struct config c;

    (void)state;
    file_put("");
    setenv("UNDERSTUDY_ROOT", "/nonexistent", 1);
    assert_int_equal(config_load(&c, NULL, NULL), 0);
    unsetenv("UNDERSTUDY_ROOT");
    assert_int_equal(c.port, 7788);
    assert_string_equal(c.listen, "::");
    assert_int_equal(c.timeout_ms, 1000);
    assert_int_equal(c.beat_ms, 200);
    assert_int_equal(c.interval_ms, 200);
    assert_int_equal(c.suspend_ms, 1000);
    assert_int_equal(c.suspend_xenstore_ms, 30000);
    assert_int_equal(c.log, LOG_INFO);
}

static void an_arbiter_is_checked(void **state)
{
    struct config c;

    (void)state;
    file_put("arbiter=\"none\"\n");
    assert_int_equal(config_load(&c, path, NULL), 0);
    assert_string_equal(c.arbiter, "none");
    assert_refused("arbiter=\"oracle:x\"\n", "no arbiter");
    assert_refused("arbiter=\"witness:w pin=12\"\n", "64 hex digits");
}

static void a_named_file_must_exist(void **state)
{
    struct config c;
    struct err e = ERR_INIT;

    (void)state;
    file_put("");
    assert_int_equal(config_load(&c, "/nonexistent.conf", &e), -1);
    assert_non_null(strstr(e.text, "/nonexistent.conf"));
}

static void every_key_is_read(void **state)
{
    struct config c;
    struct err e = ERR_INIT;

    (void)state;
    file_put("# comment with key=1\n"
             "port=7000; listen=\"127.0.0.1\"\n"
             "\n"
             "timeout_ms = 2000 # twice\n"
             "interval_ms=50\nsuspend_ms=300\nsuspend_xenstore_ms=4000\n"
             "buffer_mb=8\nstaging_mb=128\n"
             "max_vms=5\nmax_clients=7\nlog='debug'\n"
             "kernel_dirs=\"/boot:/srv/kernels\"\n"
             "durable_ack=1\n"
             "disk_dirs=\"/dev/vg0\"\n");
    if (config_load(&c, path, &e))
        fail_msg("%s", e.text);
    assert_int_equal(c.port, 7000);
    assert_string_equal(c.listen, "127.0.0.1");
    assert_int_equal(c.timeout_ms, 2000);
    assert_int_equal(c.beat_ms, 400);
    assert_int_equal(c.interval_ms, 50);
    assert_int_equal(c.suspend_ms, 300);
    assert_int_equal(c.suspend_xenstore_ms, 4000);
    assert_int_equal(c.buffer_mb, 8);
    assert_int_equal(c.staging_mb, 128);
    assert_int_equal(c.max_vms, 5);
    assert_int_equal(c.max_clients, 7);
    assert_int_equal(c.log, LOG_DEBUG);
    assert_string_equal(c.kernel_dirs, "/boot:/srv/kernels");
    assert_int_equal(c.durable_ack, 1);
    assert_string_equal(c.disk_dirs, "/dev/vg0");
}

static void the_watchdog_is_off_or_has_five_seconds(void **state)
{
    struct config c;

    (void)state;
    file_put("");
    assert_int_equal(config_load(&c, path, NULL), 0);
    assert_int_equal(c.watchdog_s, 0);
    file_put("watchdog_s=5\n");
    assert_int_equal(config_load(&c, path, NULL), 0);
    assert_int_equal(c.watchdog_s, 5);
    assert_refused("watchdog_s=4\n", "is not 0 or 5 to 600");
    assert_refused("watchdog_s=601\n", "watchdog_s");
}

static void an_unknown_key_is_named_with_its_line(void **state)
{
    (void)state;
    assert_refused("port=7000\n\n  timout_ms=3\n", ":3: unknown key timout_ms");
    assert_refused("port=7000; prot=1\n", ":1: unknown key prot");
    assert_refused("listen=\"a;b#c\"\nx=[ \"y\",\n \"z\" ]\n",
                   ":2: unknown key x");
}

static void values_out_of_range_are_refused(void **state)
{
    (void)state;
    assert_refused("port=70000\n", "port");
    assert_refused("timeout_ms=99\n", "timeout_ms");
    assert_refused("suspend_ms=5\n", "suspend_ms");
    assert_refused("interval_ms=\"fast\"\n", "interval_ms");
    assert_refused("log=\"loud\"\n", "loud");
    assert_refused("listen=\"\"\n", "listen");
    assert_refused("port=[7]\n", "port");
    assert_refused("port=\n", "expecting STRING");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, path_make, path_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_missing_file_means_defaults),
        CASE(an_arbiter_is_checked),
        CASE(a_named_file_must_exist),
        CASE(every_key_is_read),
        CASE(an_unknown_key_is_named_with_its_line),
        CASE(the_watchdog_is_off_or_has_five_seconds),
        CASE(values_out_of_range_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
