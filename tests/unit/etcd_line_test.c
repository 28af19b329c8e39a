// SPDX-License-Identifier: Apache-2.0
/* The line of the arbiter etcd: what is one, what it means, which two are the
 * same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "heartbeat/arbiter.h"
#include "heartbeat/etcd_line.h"

#define THREE "etcd:https://a:2379,https://b.example.org:1,https://[fd00::1]"

static void a_line_is_taken_apart(void **s)
{
    (void)s;
    struct etcd_line l;

    assert_int_equal(etcd_line_parse(THREE " ca=/c/a prefix=/x/ cert=/c \t"
                                           "key=/k cluster=17",
                                     &l, NULL),
                     0);
    assert_int_equal(l.count, 3);
    assert_string_equal(l.endpoint[0], "https://a:2379");
    assert_string_equal(l.endpoint[1], "https://b.example.org:1");
    assert_string_equal(l.endpoint[2], "https://[fd00::1]:2379");
    assert_string_equal(l.prefix, "/x/");
    assert_string_equal(l.ca, "/c/a");
    assert_string_equal(l.cert, "/c");
    assert_string_equal(l.key, "/k");
    assert_true(l.tls && l.cluster == 17);
    assert_int_equal(etcd_line_parse("etcd:https://A", &l, NULL), 0);
    assert_string_equal(l.endpoint[0], "https://a:2379");
    assert_string_equal(l.prefix, "/understudy/");
    assert_true(!l.cluster && !l.ca[0]);
}

static void what_is_no_line_is_refused(void **s)
{
    (void)s;
    static const char *const bad[] = {
        "etcd:",
        "etcd: https://a",
        "etcd:a:2379",
        "etcd:ftp://a",
        "etcd:https://",
        "etcd:https://a:0",
        "etcd:https://a:65536",
        "etcd:https://a:x",
        "etcd:https://a:",
        "etcd:https://a/v3",
        "etcd:https://u:p@a",
        "etcd:https://[fd00::1",
        "etcd:https://[::g]",
        "etcd:https://a,",
        "etcd:,https://a",
        "etcd:https://a,https://A:2379",
        "etcd:https://a,http://b plain",
        "etcd:https://a prefix=x",
        "etcd:https://a prefix=/x",
        "etcd:https://a prefix=/x/ prefix=/y/",
        "etcd:https://a cluster=0",
        "etcd:https://a cluster=-1",
        "etcd:https://a cluster=18446744073709551616",
        "etcd:https://a cert=/c",
        "etcd:https://a key=/c",
        "etcd:https://a ca=c",
        "etcd:https://a secure",
        "etcd:http://127.0.0.1 cluster=1 ca=/c",
        "etcd:https://a,https://b,https://c,https://d,https://e,https://f,"
        "https://g,https://h,https://i,https://j",
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const struct arbiter_ops *ops;
        struct err e = ERR_INIT;
        if (!arbiter_find(bad[i], &ops, &e))
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(e.kind, ERR_USAGE);
        assert_non_null(strstr(e.hint, "etcd:https://A"));
    }
}

/* Without TLS only where nobody else can send a packet, or on demand; and a
 * loopback address does not say which cluster it is. */
static void bare_http_is_for_loopback(void **s)
{
    (void)s;
    struct etcd_line l;
    struct err e = ERR_INIT;

    assert_int_equal(etcd_line_parse("etcd:http://a:2379", &l, &e), -1);
    assert_non_null(strstr(e.hint, "plain"));
    assert_int_equal(etcd_line_parse("etcd:http://a:2379 plain", &l, NULL), 0);
    assert_int_equal(etcd_line_parse("etcd:http://127.0.0.1", &l, &e), -1);
    assert_int_equal(etcd_line_parse("etcd:https://localhost", &l, NULL), -1);
    assert_int_equal(
        etcd_line_parse("etcd:http://127.0.0.1 cluster=0xff", &l, NULL), 0);
    assert_int_equal(l.cluster, 255);
    assert_int_equal(etcd_line_parse("etcd:http://[::1]:7 cluster=5", &l, NULL),
                     0);
    assert_int_equal(
        etcd_line_parse("etcd:http://127.0.0.1.org cluster=5", &l, NULL), -1);
}

static void the_same_is_one_cluster_and_prefix(void **s)
{
    (void)s;
    static const char *const a = "etcd:https://a,https://b ca=/one";

    assert_true(arbiter_same(a, "etcd:https://b:2379,https://A ca=/other"));
    assert_false(arbiter_same(a, "etcd:https://a,https://c"));
    assert_false(arbiter_same(a, "etcd:https://a"));
    assert_false(arbiter_same("etcd:https://a", a));
    assert_false(arbiter_same(a, "etcd:https://a,https://b prefix=/x/"));
    assert_true(arbiter_same(a, "etcd:https://a,https://b cluster=1"));
    assert_true(
        arbiter_same("etcd:https://a cluster=1", "etcd:https://b cluster=0x1"));
    assert_false(
        arbiter_same("etcd:https://a cluster=1", "etcd:https://a cluster=2"));
    assert_false(arbiter_same(a, "none"));
    assert_false(arbiter_same(a, "etcd:"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_taken_apart),
        cmocka_unit_test(what_is_no_line_is_refused),
        cmocka_unit_test(bare_http_is_for_loopback),
        cmocka_unit_test(the_same_is_one_cluster_and_prefix),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
