// SPDX-License-Identifier: Apache-2.0
/* The arbiter that is a witness, against the witness's own server, in one
 * loop: what it answers, who is let in, and what is never an answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "heartbeat/arbiter.h"
#include "heartbeat/witness_service.h"
#include "tests/lib/link_pair.h"

static const uint8_t vm[16] = {7};

/* A witness in a directory of its own, and two hosts that it knows. */
struct scene {
    struct witness_service s;
    char dir[64];
    uint16_t port;
    struct host alder, birch;
    struct arbiter *a, *b;
    unsigned changes;
};

/* One question and what came of it. */
struct question {
    struct arbiter_call *call;
    unsigned done;
    bool record;
    struct lease_record r;
    struct err why;
    struct arbiter **close; /* in `done` */
};

static void serve(struct scene *c)
{
    assert_int_equal(witness_service_open(&c->s, c->dir, NULL), 0);
    c->s.loop = EV_DEFAULT;
    assert_int_equal(witness_server_start(&c->s, "127.0.0.1", c->port, NULL),
                     0);
    c->port = link_listener_port(c->s.listener);
}

static void serve_no_more(struct scene *c)
{
    witness_server_stop(&c->s);
    witness_service_close(&c->s);
    memset(&c->s, 0, sizeof c->s);
}

static void verb(struct scene *c, int argc, const char *const *words)
{
    char *argv[8];
    struct buf out = {0};

    for (int i = 0; i < argc; i++)
        argv[i] = strdup(words[i]);
    assert_int_equal(witness_verb(&c->s, argc, argv, &out, NULL), 0);
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    buf_free(&out);
}

static void pin_add(struct scene *c, const char *name, const struct host *h)
{
    char pin[PIN_TEXT];

    pin_format(link_key_pin(h->key), pin);
    verb(c, 4, (const char *[]){"pin", "add", name, pin});
}

static void on_changed(void *arg, struct arbiter *a)
{
    (void)a;
    ((struct scene *)arg)->changes++;
}

static struct arbiter *arbiter_at(struct scene *c, struct host *h,
                                  const uint8_t *pin)
{
    struct arbiter_host host = {.loop = EV_DEFAULT,
                                .tls = h->tls,
                                .name = "host",
                                .changed = on_changed,
                                .arg = c};
    const struct arbiter_ops *ops;
    char line[ARBITER_LINE_MAX], text[PIN_TEXT];
    struct arbiter *a;

    memcpy(host.pin, link_key_pin(h->key), sizeof host.pin);
    pin_format(pin, text);
    snprintf(line, sizeof line, "witness:127.0.0.1:%u pin=%s", c->port, text);
    assert_int_equal(arbiter_find(line, &ops, NULL), 0);
    assert_int_equal(ops->open(line, &host, &a, NULL), 0);
    return a;
}

static bool up(void *arg)
{
    struct arbiter_health h;
    struct arbiter *a = arg;

    a->ops->health(a, &h);
    assert_true(h.up == !h.why.kind);
    return h.up;
}

static bool down(void *arg)
{
    return !up(arg);
}

static void scene_make(struct scene *c)
{
    memset(c, 0, sizeof *c);
    strcpy(c->dir, "/tmp/witness-test.XXXXXX");
    assert_non_null(mkdtemp(c->dir));
    assert_int_equal(witness_service_init(&c->s, c->dir, NULL), 0);
    witness_service_close(&c->s);
    host_make(&c->alder);
    host_make(&c->birch);
    serve(c);
    pin_add(c, "alder", &c->alder);
    pin_add(c, "birch", &c->birch);
    c->a = arbiter_at(c, &c->alder, link_key_pin(c->s.key));
    c->b = arbiter_at(c, &c->birch, link_key_pin(c->s.key));
    assert_true(run_until(up, c->a));
    assert_true(run_until(up, c->b));
}

static void scene_free(struct scene *c)
{
    char command[128];

    if (c->a)
        c->a->ops->close(c->a);
    if (c->b)
        c->b->ops->close(c->b);
    serve_no_more(c);
    host_free(&c->alder);
    host_free(&c->birch);
    snprintf(command, sizeof command, "rm -r %s", c->dir);
    assert_int_equal(system(command), 0);
}

static void on_done(void *arg, const struct lease_record *r,
                    const struct err *why)
{
    struct question *q = arg;

    assert_true(!r == !!why);
    q->done++;
    q->record = r;
    if (r)
        q->r = *r;
    if (why)
        q->why = *why;
    if (q->close) {
        (*q->close)->ops->close(*q->close);
        *q->close = NULL;
    }
}

static bool is_done(void *arg)
{
    return ((struct question *)arg)->done;
}

static unsigned deadline_ms = 10000;

static void ask(struct arbiter *a, struct question *q, enum witness_op op,
                uint64_t generation, uint64_t nonce, const struct host *other)
{
    struct witness_ask w = {.op = op, .generation = generation, .nonce = nonce};

    memset(q, 0, sizeof *q);
    memcpy(w.vm, vm, sizeof vm);
    if (other)
        memcpy(w.other, link_key_pin(other->key), WITNESS_PIN);
    assert_int_equal(
        a->ops->submit(a, &w, deadline_ms, on_done, q, &q->call, NULL), 0);
    assert_int_equal(q->done, 0);
}

static struct lease_record answer(struct arbiter *a, enum witness_op op,
                                  uint64_t generation, uint64_t nonce,
                                  const struct host *other)
{
    struct question q;

    ask(a, &q, op, generation, nonce, other);
    assert_true(run_until(is_done, &q));
    assert_true(q.record);
    assert_int_equal(q.r.asked, nonce);
    return q.r;
}

static void one_of_two_hosts_wins(void **state)
{
    (void)state;
    struct scene c;
    struct lease_record r;

    scene_make(&c);
    r = answer(c.a, WITNESS_REGISTER, 1, 5, &c.birch);
    assert_true(r.generation == 1 && r.mine && r.running);
    r = answer(c.b, WITNESS_CLAIM, 1, 11, NULL);
    assert_true(r.generation == 2 && r.mine && !r.running);
    r = answer(c.a, WITNESS_CLAIM, 1, 12, NULL);
    assert_true(r.generation == 2 && !r.mine && !r.running);
    r = answer(c.b, WITNESS_RUNNING, 2, 11, NULL);
    assert_true(r.mine && r.running);
    scene_free(&c);
}

/* The answer is on the disk: a witness that starts again knows it. */
static void it_comes_back_and_knows(void **state)
{
    (void)state;
    struct scene c;
    struct question q;
    struct lease_record r;

    scene_make(&c);
    answer(c.a, WITNESS_REGISTER, 1, 5, &c.birch);
    answer(c.b, WITNESS_CLAIM, 1, 11, NULL);
    serve_no_more(&c);
    assert_true(run_until(down, c.a));
    ask(c.a, &q, WITNESS_CLAIM, 1, 12, NULL);
    assert_true(run_until(is_done, &q));
    assert_false(q.record);
    assert_int_equal(q.why.kind, ERR_GONE);
    serve(&c);
    assert_true(run_until(up, c.a));
    r = answer(c.a, WITNESS_CLAIM, 1, 12, NULL);
    assert_true(r.generation == 2 && !r.mine);
    assert_true(c.changes >= 4);
    scene_free(&c);
}

static void what_is_no_record_is_refused(void **state)
{
    (void)state;
    struct scene c;
    struct question q;

    scene_make(&c);
    ask(c.a, &q, WITNESS_CLAIM, 1, 12, NULL);
    assert_true(run_until(is_done, &q));
    assert_false(q.record);
    assert_int_equal(q.why.kind, ERR_REFUSED);
    assert_non_null(strstr(q.why.text, "127.0.0.1"));
    scene_free(&c);
}

static void a_sealed_one_is_not_up(void **state)
{
    (void)state;
    struct scene c;
    struct arbiter_health h;
    struct question q;

    scene_make(&c);
    verb(&c, 3, (const char *[]){"seal", "for", "fun"});
    assert_true(run_until(down, c.a));
    c.a->ops->health(c.a, &h);
    assert_non_null(strstr(h.why.text, "sealed: for fun"));
    ask(c.a, &q, WITNESS_REGISTER, 1, 5, &c.birch);
    assert_true(run_until(is_done, &q));
    assert_false(q.record);
    assert_int_equal(c.s.w.count, 0);
    verb(&c, 1, (const char *[]){"unseal"});
    assert_true(run_until(up, c.a));
    /* A host that knows more. */
    answer(c.a, WITNESS_REGISTER, 1, 5, &c.birch);
    ask(c.b, &q, WITNESS_QUERY, 9, 0, NULL);
    assert_true(run_until(is_done, &q));
    assert_int_equal(q.why.kind, ERR_REFUSED);
    assert_true(run_until(down, c.a));
    scene_free(&c);
}

static bool says_wrong_key(void *arg)
{
    struct arbiter_health h;
    struct arbiter *a = arg;

    a->ops->health(a, &h);
    return !h.up && h.why.kind == ERR_REFUSED;
}

static void another_key_is_named(void **state)
{
    (void)state;
    struct scene c;
    struct arbiter_health h;

    scene_make(&c);
    struct arbiter *a = arbiter_at(&c, &c.alder, link_key_pin(c.birch.key));
    assert_true(run_until(says_wrong_key, a));
    a->ops->health(a, &h);
    assert_non_null(strstr(h.why.text, "presented the key"));
    assert_non_null(strstr(h.why.hint, "understudy arbiter set"));
    a->ops->close(a);
    scene_free(&c);
}

/* Also one that was known until now. */
static void an_unknown_host_is_not_let_in(void **state)
{
    (void)state;
    struct scene c;
    struct arbiter_health h;

    scene_make(&c);
    verb(&c, 3, (const char *[]){"pin", "remove", "alder"});
    assert_true(run_until(down, c.a));
    assert_true(run_until(says_wrong_key, c.a));
    run_for(0.3);
    c.a->ops->health(c.a, &h);
    assert_false(h.up);
    assert_true(up(c.b));
    scene_free(&c);
}

static void what_is_given_up_is_not_heard_of(void **state)
{
    (void)state;
    struct scene c;
    struct question q, other;

    scene_make(&c);
    ask(c.a, &q, WITNESS_REGISTER, 1, 5, &c.birch);
    c.a->ops->cancel(q.call);
    answer(c.a, WITNESS_QUERY, 1, 5, NULL);
    assert_int_equal(q.done, 0);
    /* Closed from inside, with another one under way. */
    ask(c.a, &q, WITNESS_QUERY, 1, 5, NULL);
    ask(c.a, &other, WITNESS_QUERY, 1, 5, NULL);
    q.close = &c.a;
    assert_true(run_until(is_done, &q));
    run_for(0.1);
    assert_int_equal(other.done, 0);
    scene_free(&c);
}

static void questions_are_bounded(void **state)
{
    (void)state;
    struct scene c;
    struct question q[ARBITER_CALLS_MAX];
    struct witness_ask w = {.op = WITNESS_QUERY, .vm = {1}};
    struct err e = ERR_INIT;

    scene_make(&c);
    for (unsigned i = 0; i < ARBITER_CALLS_MAX; i++)
        ask(c.a, &q[i], WITNESS_QUERY, 1, 0, NULL);
    assert_int_equal(c.a->ops->submit(c.a, &w, 1000, on_done, &q[0], NULL, &e),
                     -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    for (unsigned i = 0; i < ARBITER_CALLS_MAX; i++) {
        assert_true(run_until(is_done, &q[i]));
        assert_int_equal(q[i].done, 1);
    }
    scene_free(&c);
}

/* --- One that says nothing ----------------------------------------------- */

struct mute {
    struct host host;
    struct link_listener *l;
    struct side side;
    const uint8_t *pin;
};

static void mute_ready(struct side *me)
{
    struct wire_hello h = {.protocol = WIRE_VERSION,
                           .kind = WIRE_ARBITER,
                           .beat_ms = 1000,
                           .version = "0",
                           .name = "mute"};
    struct wire_seal seal = {0};
    struct buf b = {0};

    hello_put(&b, &h);
    link_send(me->s, WIRE_HELLO, b.data, b.len);
    buf_clear(&b);
    seal_put(&b, &seal);
    link_send(me->s, WIRE_SEAL, b.data, b.len);
    buf_free(&b);
}

static void mute_arrival(void *arg, const struct wire_preamble *p, int fd,
                         const char *from)
{
    struct mute *m = arg;

    (void)from;
    assert_int_equal(p->kind, WIRE_ARBITER);
    side_free(&m->side);
    memset(&m->side, 0, sizeof m->side);
    m->side.on_ready = mute_ready;
    assert_int_equal(link_accept(EV_DEFAULT, m->host.tls, fd, WIRE_ARBITER,
                                 lookup_one, (void *)(uintptr_t)m->pin,
                                 &side_callbacks, &m->side, &m->side.s, NULL),
                     0);
}

static void no_answer_is_no_answer(void **state)
{
    (void)state;
    struct scene c;
    struct mute m = {0};
    struct question q;

    scene_make(&c);
    host_make(&m.host);
    m.pin = link_key_pin(c.alder.key);
    assert_int_equal(
        link_listen(EV_DEFAULT, "127.0.0.1", 0, mute_arrival, &m, &m.l, NULL),
        0);
    uint16_t port = c.port;
    c.port = link_listener_port(m.l);
    struct arbiter *a = arbiter_at(&c, &c.alder, link_key_pin(m.host.key));
    assert_true(run_until(up, a));
    uint64_t since = clock_ns();
    deadline_ms = 1000;
    ask(a, &q, WITNESS_CLAIM, 1, 5, NULL);
    deadline_ms = 10000;
    assert_true(run_until(is_done, &q));
    assert_int_equal(q.why.kind, ERR_TIMEOUT);
    assert_true(clock_ns() - since >= 900 * NS_PER_MS);
    /* The session is doubted, and made again. */
    assert_true(run_until(down, a));
    assert_true(run_until(up, a));
    /* Silent: not up any more after 3 s, whether it is asked or not. */
    assert_true(run_until(down, a));
    a->ops->close(a);
    run_for(0.05);
    side_free(&m.side);
    link_listener_free(m.l);
    host_free(&m.host);
    c.port = port;
    scene_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_two_hosts_wins),
        cmocka_unit_test(it_comes_back_and_knows),
        cmocka_unit_test(what_is_no_record_is_refused),
        cmocka_unit_test(a_sealed_one_is_not_up),
        cmocka_unit_test(another_key_is_named),
        cmocka_unit_test(an_unknown_host_is_not_let_in),
        cmocka_unit_test(what_is_given_up_is_not_heard_of),
        cmocka_unit_test(questions_are_bounded),
        cmocka_unit_test(no_answer_is_no_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
