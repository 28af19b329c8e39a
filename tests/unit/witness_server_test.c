// SPDX-License-Identifier: Apache-2.0
/* The witness's server and hosts that do not keep to the protocol: their
 * session ends, with a sentence, and nothing else; what an operator may say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "heartbeat/witness_service.h"
#include "tests/lib/link_pair.h"

struct scene {
    struct witness_service s;
    char dir[64];
    uint16_t port;
    struct host alder;
    struct side side;
};

static int say(struct scene *c, struct err *e, struct buf *out, int argc,
               const char *const *words)
{
    char *argv[8];

    for (int i = 0; i < argc; i++)
        argv[i] = strdup(words[i]);
    int rc = witness_verb(&c->s, argc, argv, out, e);
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    return rc;
}
#define SAY(c, e, out, ...)                                                    \
    say(c, e, out, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *),     \
        (const char *[]){__VA_ARGS__})

static void scene_make(struct scene *c)
{
    struct buf out = {0};
    char pin[PIN_TEXT];

    memset(c, 0, sizeof *c);
    strcpy(c->dir, "/tmp/witness-test.XXXXXX");
    assert_non_null(mkdtemp(c->dir));
    assert_int_equal(witness_service_init(&c->s, c->dir, NULL), 0);
    c->s.loop = EV_DEFAULT;
    assert_int_equal(witness_server_start(&c->s, "127.0.0.1", 0, NULL), 0);
    c->port = link_listener_port(c->s.listener);
    host_make(&c->alder);
    pin_format(link_key_pin(c->alder.key), pin);
    assert_int_equal(SAY(c, NULL, &out, "pin", "add", "alder", pin), 0);
    buf_free(&out);
}

static void scene_free(struct scene *c)
{
    char command[128];

    side_free(&c->side);
    run_for(0.02);
    witness_server_stop(&c->s);
    witness_service_close(&c->s);
    host_free(&c->alder);
    snprintf(command, sizeof command, "rm -r %s", c->dir);
    assert_int_equal(system(command), 0);
}

static void connect_side(struct scene *c, struct side *side)
{
    struct link_target t = {.peer = "witness",
                            .address = "127.0.0.1",
                            .port = c->port,
                            .pin = link_key_pin(c->s.key),
                            .kind = WIRE_ARBITER};

    memset(side, 0, sizeof *side);
    assert_int_equal(link_connect(EV_DEFAULT, c->alder.tls, &t, &side_callbacks,
                                  side, &side->s, NULL),
                     0);
}

static bool is_told(void *arg)
{
    return ((struct side *)arg)->records >= 2;
}

static bool is_closed(void *arg)
{
    return ((struct side *)arg)->closed;
}

static void hello(struct side *side, enum wire_kind kind)
{
    struct wire_hello h = {.protocol = WIRE_VERSION,
                           .kind = (uint16_t)kind,
                           .beat_ms = 1000,
                           .version = "0",
                           .name = "alder"};
    struct buf b = {0};

    hello_put(&b, &h);
    link_send(side->s, WIRE_HELLO, b.data, b.len);
    buf_free(&b);
}

/* HELLO and SEAL have come. */
static void open_side(struct scene *c)
{
    connect_side(c, &c->side);
    assert_true(run_until(is_told, &c->side));
    assert_int_equal(c->side.types[0], WIRE_HELLO);
    assert_int_equal(c->side.types[1], WIRE_SEAL);
}

static void send_bytes(struct side *side, uint32_t type, size_t len)
{
    uint8_t bytes[256];

    memset(bytes, 0xa5, sizeof bytes);
    link_send(side->s, type, bytes, len);
}

static void what_is_no_question_ends_the_session(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        size_t len;
        bool greets;
    } bad[] = {
        {WIRE_ASK, 72, false},  {WIRE_ASK, 72, true}, {WIRE_ASK, 3, true},
        {WIRE_ASK, 100, true},  {WIRE_ASK, 0, true},  {WIRE_ANSWER, 18, true},
        {WIRE_SEAL, 5, true},   {WIRE_BEAT, 7, true}, {WIRE_HELLO, 100, true},
        {WIRE_HELLO, 9, false},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct scene c;
        scene_make(&c);
        open_side(&c);
        if (bad[i].greets)
            hello(&c.side, WIRE_ARBITER);
        send_bytes(&c.side, bad[i].type, bad[i].len);
        assert_true(run_until(is_closed, &c.side));
        assert_true(c.side.why.kind != 0);
        assert_int_equal(c.s.w.count, 0);
        assert_false(c.s.failure.kind != 0);
        scene_free(&c);
    }
}

static void a_host_session_is_none(void **state)
{
    (void)state;
    struct scene c;

    scene_make(&c);
    open_side(&c);
    hello(&c.side, WIRE_HOST);
    assert_true(run_until(is_closed, &c.side));
    assert_int_equal(c.side.why.kind, ERR_REFUSED);
    scene_free(&c);
}

/* It can't make us hold what it does not read. */
static void answers_that_nobody_reads_end_it(void **state)
{
    (void)state;
    struct scene c;
    struct wire_ask ask = {.op = WITNESS_QUERY, .vm = {1}};
    struct buf b = {0};

    scene_make(&c);
    open_side(&c);
    hello(&c.side, WIRE_ARBITER);
    link_hold(c.side.s, true);
    ask_put(&b, &ask);
    for (int round = 0; round < 400 && c.s.client_count; round++) {
        for (int i = 0; i < 1000; i++)
            link_send(c.side.s, WIRE_ASK, b.data, b.len);
        run_for(0.01);
    }
    assert_int_equal(c.s.client_count, 0);
    buf_free(&b);
    scene_free(&c);
}

static void verbs_refuse_what_they_do_not_know(void **state)
{
    (void)state;
    struct scene c;
    struct buf out = {0};
    struct err e = ERR_INIT;

    scene_make(&c);
    assert_int_equal(SAY(&c, &e, &out, "dance"), -1);
    assert_int_equal(e.kind, ERR_USAGE);
    assert_int_equal(SAY(&c, &e, &out, "unseal", "now"), -1);
    assert_int_equal(SAY(&c, &e, &out, "pin", "add", "birch", "12"), -1);
    assert_int_equal(SAY(&c, &e, &out, "pin", "add", "birch"), -1);
    assert_int_equal(SAY(&c, &e, &out, "pin", "remove", "cedar"), -1);
    assert_int_equal(e.kind, ERR_GONE);
    assert_int_equal(SAY(&c, &e, &out, "forget", "x"), -1);
    assert_int_equal(e.kind, ERR_USAGE);
    assert_int_equal(
        SAY(&c, &e, &out, "forget", "77656200-0000-0000-0000-000000000001"),
        -1);
    assert_int_equal(e.kind, ERR_GONE);
    assert_int_equal(out.len, 0);
    scene_free(&c);
}

static void what_is_said_is_there_after_a_start(void **state)
{
    (void)state;
    struct scene c;
    struct buf out = {0};

    scene_make(&c);
    assert_int_equal(SAY(&c, NULL, &out, "seal", "until", "monday"), 0);
    witness_server_stop(&c.s);
    witness_service_close(&c.s);
    assert_int_equal(witness_service_open(&c.s, c.dir, NULL), 0);
    assert_true(c.s.w.sealed);
    assert_string_equal(c.s.w.why, "until monday");
    assert_int_equal(c.s.hosts.count, 1);
    assert_int_equal(SAY(&c, NULL, &out, "status"), 0);
    buf_u8(&out, 0);
    assert_non_null(strstr((char *)out.data, "until monday"));
    buf_free(&out);
    scene_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_question_ends_the_session),
        cmocka_unit_test(a_host_session_is_none),
        cmocka_unit_test(answers_that_nobody_reads_end_it),
        cmocka_unit_test(verbs_refuse_what_they_do_not_know),
        cmocka_unit_test(what_is_said_is_there_after_a_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
