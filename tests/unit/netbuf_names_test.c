// SPDX-License-Identifier: Apache-2.0
/* net-buffer/names: what we write is read again, what others write is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "net-buffer/kernel.h"
#include "net-buffer/names.h"

static void names_are_read_as_they_are_written(void **state)
{
    char name[NETBUF_NAME_MAX], tag[NETBUF_TAG_MAX + 1];
    int slot, bank;

    (void)state;
    for (int s = 0; s < NETBUF_VIFS_MAX; s++)
        for (int b = 0; b < 2; b++) {
            netbuf_bank_name(name, "u32751x", s, b);
            assert_true(netbuf_bank_parse(name, tag, &slot, &bank));
            assert_string_equal(tag, "u32751x");
            assert_int_equal(slot, s);
            assert_int_equal(bank, b);
        }
}

static void other_peoples_names_are_not_ours(void **state)
{
    static const char *const bad[] = {
        "",       "ifb0",   "-0a",    "u3-0c",  "u3-0",       "u3-0a1",
        "u3-a",   "u3-32a", "u3-00a", "U3-0a",  "u3_-0a",     "vif3.0",
        "u3-+1a", "u3- 1a", "u3--1a", "eth0-1", "abcdefgh-0a"};
    char tag[NETBUF_TAG_MAX + 1];
    int slot, bank;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(netbuf_bank_parse(bad[i], tag, &slot, &bank));
    assert_false(netbuf_tag_valid(""));
    assert_false(netbuf_tag_valid("12345678"));
    assert_true(netbuf_tag_valid("u0"));
}

static void cookies_are_read_as_they_are_written(void **state)
{
    struct netbuf_cookie c = {true, 0x1122334455667788}, r;
    uint8_t b[NETBUF_COOKIE_SIZE];

    (void)state;
    netbuf_cookie_write(b, &c);
    assert_true(netbuf_cookie_read(b, sizeof b, &r));
    assert_true(r.holding && r.epoch == c.epoch);
    assert_false(netbuf_cookie_read(b, sizeof b - 1, &r));
    b[4]++;
    assert_false(netbuf_cookie_read(b, sizeof b, &r));
}

static void a_check_of_a_dead_process_is_told(void **state)
{
    char tag[NETBUF_TAG_MAX + 1], dead[NETBUF_TAG_MAX + 1];
    pid_t pid = fork();

    (void)state;
    netbuf_check_tag(tag);
    if (!pid)
        _exit(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    snprintf(dead, sizeof dead, "c%x", (unsigned)pid & 0xffffff);
    assert_true(netbuf_check_is_dead(dead));
    assert_false(netbuf_check_is_dead(tag));
    assert_false(netbuf_check_is_dead("u3"));
    assert_false(netbuf_check_is_dead("c"));
    assert_false(netbuf_check_is_dead("cx"));
}

static void no_free(struct nb_kernel *k)
{
    (void)k;
}

static void a_bad_tag_is_refused(void **state)
{
    static const struct nb_kernel_ops ops = {.free = no_free};
    struct nb_kernel k = {&ops};
    struct checkpoint_device *d;
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(netbuf_open_on(&k, "Web-1", NULL, &d, &e), -1);
    assert_int_equal(e.kind, ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_read_as_they_are_written),
        cmocka_unit_test(other_peoples_names_are_not_ours),
        cmocka_unit_test(cookies_are_read_as_they_are_written),
        cmocka_unit_test(a_check_of_a_dead_process_is_told),
        cmocka_unit_test(a_bad_tag_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
