// SPDX-License-Identifier: Apache-2.0
/* What an etcd is told and what is taken from it: records there and back,
 * replies that are none, and the seal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "heartbeat/etcd_codec.h"

#define UUID "07000000-0000-0000-0000-000000000009"
#define KEY  "/u/" UUID

static const uint8_t vm[16] = {7, [15] = 9};

static struct etcd_record sample(void)
{
    struct etcd_record r = {.r = {.holder = 1,
                                  .running = true,
                                  .generation = 1ull << 62,
                                  .nonce = UINT64_MAX - 1}};

    memcpy(r.r.vm, vm, 16);
    memset(r.r.member[0], 0xa5, WITNESS_PIN);
    memset(r.r.member[1], 0x5a, WITNESS_PIN);
    return r;
}

static int get(const char *text, struct etcd_record *out)
{
    return etcd_record_get(text, strlen(text), vm, out, NULL);
}

static void a_record_comes_back_as_it_was(void **s)
{
    (void)s;
    struct etcd_record r = sample(), back;

    for (int holder = 0; holder <= WITNESS_NOBODY; holder++) {
        for (int bits = 0; bits < 4; bits++) {
            r.r.holder = (uint8_t)holder;
            r.r.running = bits & 1;
            r.sealed = bits & 2;
            char *text = etcd_record_put(&r);
            assert_int_equal(get(text, &back), 0);
            assert_memory_equal(&back.r, &r.r, sizeof r.r);
            assert_int_equal(back.sealed, r.sealed);
            free(text);
        }
    }
}

/* Every prefix of a record, and every single byte of it changed. */
static void what_is_no_record_is_none(void **s)
{
    (void)s;
    struct etcd_record r = sample(), back;
    char *text = etcd_record_put(&r);
    size_t n = strlen(text);
    struct err e = ERR_INIT;

    for (size_t i = 0; i < n; i++)
        assert_int_equal(etcd_record_get(text, i, vm, &back, NULL), -1);
    for (size_t i = 0; i < n; i++) {
        char was = text[i];
        for (int c = 1; c < 256; c++) {
            text[i] = (char)c;
            if (get(text, &back) == 0) { /* then it is a record */
                assert_memory_equal(back.r.vm, vm, 16);
                assert_true(back.r.generation > 0 &&
                            back.r.generation <= 1ull << 62 &&
                            back.r.holder <= WITNESS_NOBODY);
            }
        }
        text[i] = was;
    }
    assert_int_equal(
        etcd_record_get(text, n, (const uint8_t[16]){7}, &back, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    *strchr(text, '1') = '2';
    err_clear(&e);
    assert_int_equal(etcd_record_get(text, n, vm, &back, &e), -1);
    assert_non_null(strstr(e.text, "version 2"));
    free(text);
}

static void a_key_is_prefix_and_uuid(void **s)
{
    (void)s;
    char key[ETCD_KEY_MAX];

    etcd_key("/u/", vm, key);
    assert_string_equal(key, KEY);
}

#define HEAD  "{\"header\":{\"cluster_id\":\"17\",\"revision\":\"4\"}"
#define KEY64 "L3UvMDcwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDA5"

static int range(const char *text, struct etcd_found *f)
{
    return etcd_range_reply(text, strlen(text), KEY, vm, f, NULL);
}

static void the_bodies_are_what_etcd_expects(void **s)
{
    (void)s;
    struct etcd_record r = sample();
    char *text = etcd_range(KEY);

    assert_string_equal(text, "{\"key\":\"" KEY64 "\"}");
    free(text);
    text = etcd_txn(KEY, 12, &r);
    assert_non_null(strstr(
        text, "{\"compare\":[{\"result\":\"EQUAL\",\"target\":\"MOD\",\"key\":"
              "\"" KEY64 "\",\"mod_revision\":\"12\"}],\"success\":[{"
              "\"request_put\":{\"key\":\"" KEY64 "\",\"value\":\""));
    assert_non_null(strstr(text, "}}],\"failure\":[{\"request_range\":{\"key\":"
                                 "\"" KEY64 "\"}}]}"));
    free(text);
}

static void a_reply_is_exactly_one(void **s)
{
    (void)s;
    static const char *const bad[] = {
        "",
        "x",
        "[]",
        "{}",
        "{\"header\":{}}",
        "{\"header\":{\"cluster_id\":17}}",
        "{\"header\":{\"cluster_id\":\"\"}}",
        "{\"header\":{\"cluster_id\":\"0\"}}",
        "{\"header\":{\"cluster_id\":\"1x\"}}",
        "{\"header\":{\"cluster_id\":\"18446744073709551616\"}}",
        HEAD ",\"count\":\"1\"}",
        HEAD ",\"count\":\"2\",\"kvs\":[{},{}]}",
        HEAD ",\"count\":\"1\",\"kvs\":{}}",
        HEAD ",\"count\":\"1\",\"kvs\":[1]}",
        HEAD ",\"count\":\"1\",\"kvs\":[{}]}",
        HEAD ",\"kvs\":[{\"key\":\"" KEY64 "\",\"mod_revision\":\"1\"}]}",
        HEAD ",\"count\":\"1\",\"kvs\":[{\"key\":\"" KEY64 "\"}]}",
        HEAD ",\"count\":\"1\",\"kvs\":[{\"key\":\"" KEY64 "\","
             "\"mod_revision\":\"0\"}]}",
        HEAD ",\"count\":\"1\",\"kvs\":[{\"key\":\"Lw==\","
             "\"mod_revision\":\"1\"}]}",
        /* a key of the right bytes, not as they are written */
        HEAD ",\"count\":\"1\",\"kvs\":[{\"key\":\"" KEY64 "\\n\","
             "\"mod_revision\":\"1\"}]}",
        /* no value, and values that are no records */
        HEAD ",\"count\":\"1\",\"kvs\":[{\"key\":\"" KEY64 "\","
             "\"mod_revision\":\"1\"}]}",
        HEAD ",\"count\":\"1\",\"kvs\":[{\"key\":\"" KEY64 "\","
             "\"mod_revision\":\"1\",\"value\":\"e30=\"}]}",
        HEAD ",\"count\":\"0\",\"count\":\"0\"}",
        HEAD "}x",
    };
    struct etcd_found f;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (!range(bad[i], &f))
            fail_msg("taken: %s", bad[i]);
    }
    assert_int_equal(range(HEAD "}", &f), 0);
    assert_true(!f.there && !f.revision && f.cluster == 17);
    assert_int_equal(range(HEAD ",\"kvs\":[],\"count\":\"0\"}", &f), 0);
    assert_false(f.there);
}

static void a_transaction_took_effect_only_if_it_says_so(void **s)
{
    (void)s;
    static const char *const bad[] = {
        HEAD "}",
        HEAD ",\"succeeded\":true}",
        HEAD ",\"succeeded\":true,\"responses\":[]}",
        HEAD ",\"succeeded\":true,\"responses\":[{\"response_range\":{}}]}",
        HEAD ",\"succeeded\":\"true\",\"responses\":[{\"response_put\":{}}]}",
        HEAD ",\"succeeded\":true,\"responses\":[{\"response_put\":{}},{}]}",
        HEAD ",\"responses\":[{\"response_put\":{}}]}",
        "{\"succeeded\":true,\"responses\":[{\"response_put\":{}}]}",
    };
    static const char yes[] =
        HEAD ",\"succeeded\":true,\"responses\":[{\"response_put\":{}}]}";
    static const char no[] = HEAD ",\"responses\":[{\"response_range\":{}}]}";
    struct etcd_found f;
    bool put;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (!etcd_txn_reply(bad[i], strlen(bad[i]), KEY, vm, &put, &f, NULL))
            fail_msg("taken: %s", bad[i]);
        assert_false(put);
    }
    for (size_t i = 0; i < strlen(yes); i++)
        assert_int_equal(etcd_txn_reply(yes, i, KEY, vm, &put, &f, NULL), -1);
    assert_int_equal(etcd_txn_reply(yes, strlen(yes), KEY, vm, &put, &f, NULL),
                     0);
    assert_true(put);
    assert_int_equal(etcd_txn_reply(no, strlen(no), KEY, vm, &put, &f, NULL),
                     0);
    assert_true(!put && !f.there);
}

static void a_complaint_is_text(void **s)
{
    (void)s;
    static const char said[] = "{\"error\":\"no \\u001b[1mspace\"}";
    char out[20];

    etcd_complaint(said, strlen(said), out, sizeof out);
    assert_string_equal(out, "no ?[1mspace");
    etcd_complaint("<html>", 6, out, sizeof out);
    assert_string_equal(out, "");
    etcd_complaint(NULL, 0, out, sizeof out);
    assert_string_equal(out, "");
}

/* A host that knows a later number: the cluster is older than what it once
 * said. Only one of the record's two hosts can know. */
static void a_record_of_before_is_sealed(void **s)
{
    (void)s;
    struct etcd_record r = sample();
    struct witness_answer a;
    struct witness_ask ask = {.op = WITNESS_QUERY, .generation = 5};
    const uint8_t stranger[WITNESS_PIN] = {1};
    uint8_t asker[WITNESS_PIN];

    memcpy(asker, r.r.member[0], sizeof asker);
    memcpy(ask.vm, vm, 16);
    r.r.generation = 4;
    assert_false(etcd_apply(&r, true, stranger, &ask, &a));
    assert_int_equal(a.status, WITNESS_STRANGER);
    assert_false(r.sealed);
    assert_true(etcd_apply(&r, true, asker, &ask, &a));
    assert_int_equal(a.status, WITNESS_SEALED);
    assert_true(r.sealed);
    ask =
        (struct witness_ask){.op = WITNESS_CLAIM, .generation = 4, .nonce = 9};
    assert_false(etcd_apply(&r, true, asker, &ask, &a));
    assert_int_equal(a.status, WITNESS_SEALED);
    r.sealed = false;
    assert_true(etcd_apply(&r, true, asker, &ask, &a));
    assert_true(a.status == WITNESS_RECORD && a.mine && a.generation == 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_comes_back_as_it_was),
        cmocka_unit_test(what_is_no_record_is_none),
        cmocka_unit_test(a_key_is_prefix_and_uuid),
        cmocka_unit_test(the_bodies_are_what_etcd_expects),
        cmocka_unit_test(a_reply_is_exactly_one),
        cmocka_unit_test(a_transaction_took_effect_only_if_it_says_so),
        cmocka_unit_test(a_complaint_is_text),
        cmocka_unit_test(a_record_of_before_is_sealed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
