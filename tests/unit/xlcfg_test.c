// SPDX-License-Identifier: Apache-2.0
/* Configuration files: values, defaults, and errors that name the line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "hypervisor/xlcfg.h"

static char path[] = "/tmp/xlcfg_test.XXXXXX";
static struct err e;

static struct xlcfg *cfg_of(const char *text)
{
    struct xlcfg *cfg = NULL;
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    err_clear(&e);
    xlcfg_open(path, &cfg, &e);
    return cfg;
}

static void values_and_defaults_are_given(void **unused)
{
    struct xlcfg *cfg = cfg_of("# a comment\nname = \"birch\"\nport = 7788\n");
    char s[16];
    long n;

    (void)unused;
    assert_non_null(cfg);
    assert_int_equal(xlcfg_string(cfg, "name", "x", s, sizeof s, &e), 0);
    assert_string_equal(s, "birch");
    assert_int_equal(xlcfg_string(cfg, "other", "def", s, sizeof s, &e), 0);
    assert_string_equal(s, "def");
    assert_int_equal(xlcfg_long(cfg, "port", 1, 1, 65535, &n, &e), 0);
    assert_int_equal(n, 7788);
    assert_int_equal(xlcfg_long(cfg, "other", 42, 1, 100, &n, &e), 0);
    assert_int_equal(n, 42);
    xlcfg_close(cfg);
}

static void without_a_file_there_are_defaults(void **unused)
{
    struct xlcfg *cfg;
    char s[16];
    long n;

    (void)unused;
    assert_int_equal(xlcfg_open("/nonexistent/x.conf", &cfg, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    assert_null(cfg);
    assert_int_equal(xlcfg_string(NULL, "name", "def", s, sizeof s, &e), 0);
    assert_string_equal(s, "def");
    assert_int_equal(xlcfg_long(NULL, "n", 7, 1, 9, &n, &e), 0);
    assert_int_equal(n, 7);
    xlcfg_close(NULL);
}

static void a_syntax_error_names_file_and_line(void **unused)
{
    (void)unused;
    assert_null(cfg_of("a = 1\nb = = 2\n"));
    assert_int_equal(e.kind, ERR_USAGE);
    assert_non_null(strstr(e.text, path));
    assert_non_null(strstr(e.text, ":2:"));
}

static void a_value_of_the_wrong_kind_names_its_line(void **unused)
{
    struct xlcfg *cfg = cfg_of("a = 1\n\nport = \"many\"\nl = [\"x\"]\n");
    char s[16];
    long n;

    (void)unused;
    assert_non_null(cfg);
    assert_int_equal(xlcfg_long(cfg, "port", 1, 1, 9, &n, &e), -1);
    assert_int_equal(e.kind, ERR_USAGE);
    assert_non_null(strstr(e.text, ":3:"));
    assert_int_equal(xlcfg_string(cfg, "l", "", s, sizeof s, &e), -1);
    assert_non_null(strstr(e.text, ":4:"));
    xlcfg_close(cfg);
}

static void values_out_of_bounds_are_refused(void **unused)
{
    struct xlcfg *cfg = cfg_of("port = 70000\nname = \"0123456789\"\n");
    char s[8];
    long n;

    (void)unused;
    assert_non_null(cfg);
    assert_int_equal(xlcfg_long(cfg, "port", 1, 1, 65535, &n, &e), -1);
    assert_non_null(strstr(e.text, "70000"));
    assert_int_equal(xlcfg_string(cfg, "name", "", s, sizeof s, &e), -1);
    assert_int_equal(e.kind, ERR_USAGE);
    xlcfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_defaults_are_given),
        cmocka_unit_test(without_a_file_there_are_defaults),
        cmocka_unit_test(a_syntax_error_names_file_and_line),
        cmocka_unit_test(a_value_of_the_wrong_kind_names_its_line),
        cmocka_unit_test(values_out_of_bounds_are_refused),
    };
    int fd = mkstemp(path);

    if (fd < 0)
        return 1;
    close(fd);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}
