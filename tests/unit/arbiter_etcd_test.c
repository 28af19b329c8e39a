// SPDX-License-Identifier: Apache-2.0
/* The arbiter that is an etcd, against something that speaks as one, and as
 * none should: what is an answer, what never is, and which endpoint is asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "heartbeat/arbiter.h"
#include "tests/lib/fake_etcd.h"
#include "tests/lib/link_pair.h"

static unsigned deadline_ms = 1000;
static const uint8_t vm[16] = {7};
static const uint8_t alder[WITNESS_PIN] = {0xa1};
static const uint8_t birch[WITNESS_PIN] = {0xb1};

/* Two members of a cluster, and two hosts that ask them. */
struct scene {
    struct fake_store store;
    struct fake_etcd m[2];
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

static void on_changed(void *arg, struct arbiter *a)
{
    (void)a;
    ((struct scene *)arg)->changes++;
}

static struct arbiter *arbiter_open(struct scene *c, const char *line,
                                    const uint8_t *pin)
{
    struct arbiter_host host = {
        .loop = EV_DEFAULT, .name = "host", .changed = on_changed, .arg = c};
    const struct arbiter_ops *ops;
    struct arbiter *a;

    memcpy(host.pin, pin, sizeof host.pin);
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
    char line[ARBITER_LINE_MAX];

    memset(c, 0, sizeof *c);
    for (int i = 0; i < 2; i++)
        fake_etcd_start(&c->m[i], &c->store);
    snprintf(line, sizeof line,
             "etcd:http://127.0.0.1:%u,http://127.0.0.1:%u cluster=17",
             c->m[0].port, c->m[1].port);
    c->a = arbiter_open(c, line, alder);
    c->b = arbiter_open(c, line, birch);
    assert_true(run_until(up, c->a));
    assert_true(run_until(up, c->b));
}

static void scene_free(struct scene *c)
{
    if (c->a)
        c->a->ops->close(c->a);
    if (c->b)
        c->b->ops->close(c->b);
    for (int i = 0; i < 2; i++)
        fake_etcd_stop(&c->m[i]);
    fake_store_free(&c->store);
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

static void ask(struct arbiter *a, struct question *q, enum witness_op op,
                uint64_t generation, uint64_t nonce)
{
    struct witness_ask w = {.op = op, .generation = generation, .nonce = nonce};

    memset(q, 0, sizeof *q);
    memcpy(w.vm, vm, sizeof vm);
    if (op == WITNESS_REGISTER)
        memcpy(w.other, birch, sizeof w.other);
    assert_int_equal(
        a->ops->submit(a, &w, deadline_ms, on_done, q, &q->call, NULL), 0);
    assert_int_equal(q->done, 0);
}

static struct lease_record answer(struct arbiter *a, enum witness_op op,
                                  uint64_t generation, uint64_t nonce)
{
    struct question q;

    ask(a, &q, op, generation, nonce);
    assert_true(run_until(is_done, &q));
    if (!q.record)
        fail_msg("%s", q.why.text);
    assert_int_equal(q.r.asked, nonce);
    return q.r;
}

static void one_of_two_hosts_wins(void **state)
{
    (void)state;
    struct scene c;
    struct lease_record r;

    scene_make(&c);
    r = answer(c.a, WITNESS_REGISTER, 1, 5);
    assert_true(r.generation == 1 && r.mine && r.running);
    r = answer(c.b, WITNESS_CLAIM, 1, 11);
    assert_true(r.generation == 2 && r.mine && !r.running);
    r = answer(c.a, WITNESS_CLAIM, 1, 12);
    assert_true(r.generation == 2 && !r.mine && !r.running);
    r = answer(c.b, WITNESS_RUNNING, 2, 11);
    assert_true(r.mine && r.running);
    assert_int_equal(c.store.puts, 3);
    scene_free(&c);
}

/* Both read the same record: the transaction of one of them is too late, and it
 * learns so. */
static void two_at_once_are_one_after_the_other(void **state)
{
    (void)state;
    struct scene c;
    struct question p, q;

    scene_make(&c);
    answer(c.a, WITNESS_REGISTER, 1, 5);
    ask(c.a, &p, WITNESS_CLAIM, 1, 21);
    ask(c.b, &q, WITNESS_CLAIM, 1, 22);
    assert_true(run_until(is_done, &p) && run_until(is_done, &q));
    assert_true(p.record && q.record);
    assert_int_equal(p.r.mine + q.r.mine, 1);
    assert_true(p.r.generation == 2 && q.r.generation == 2);
    assert_int_equal(c.store.puts, 2);
    scene_free(&c);
}

/* The answer is lost after the transaction took effect: the same question goes
 * on at the other member and gets its answer; and so it does a call later. */
static void a_lost_answer_is_asked_for_again(void **state)
{
    (void)state;
    struct scene c;
    struct lease_record r;

    scene_make(&c);
    answer(c.a, WITNESS_REGISTER, 1, 5);
    c.m[0].mood = c.m[1].mood = FAKE_LOSES_TXN;
    r = answer(c.b, WITNESS_CLAIM, 1, 11);
    assert_true(r.generation == 2 && r.mine);
    assert_int_equal(c.store.puts, 2);
    r = answer(c.b, WITNESS_CLAIM, 1, 11);
    assert_true(r.generation == 2 && r.mine);
    assert_int_equal(c.store.puts, 2);
    r = answer(c.b, WITNESS_CLAIM, 1, 12);
    assert_true(r.generation == 2 && !r.mine);
    scene_free(&c);
}

/* One member does what none should: the other one answers, in time. */
static void one_strange_member_is_passed_by(void **state)
{
    (void)state;
    struct scene c;

    scene_make(&c);
    answer(c.a, WITNESS_REGISTER, 1, 5);
    for (int mood = FAKE_SILENT; mood < FAKE_MOODS; mood++) {
        if (mood == FAKE_GARBAGE || mood == FAKE_RACES)
            continue; /* what a whole cluster would say */
        for (int i = 0; i < 2; i++) {
            c.m[i].mood = (enum fake_mood)mood;
            answer(c.a, WITNESS_QUERY, 1, 5);
            c.m[i].mood = FAKE_GOOD;
        }
    }
    assert_true(up(c.a));
    scene_free(&c);
}

/* All of them do: no answer, whatever they say, and a word why. */
static void nothing_strange_is_an_answer(void **state)
{
    (void)state;
    struct scene c;
    struct question q;

    scene_make(&c);
    answer(c.a, WITNESS_REGISTER, 1, 5);
    deadline_ms = 400;
    for (int mood = FAKE_SILENT; mood < FAKE_MOODS; mood++) {
        if (mood == FAKE_LOSES_TXN)
            continue;
        c.m[0].mood = c.m[1].mood = (enum fake_mood)mood;
        ask(c.a, &q, WITNESS_CLAIM, 1, 12);
        uint64_t begin = clock_ns();
        assert_true(run_until(is_done, &q));
        if (q.record)
            fail_msg("mood %d is an answer", mood);
        assert_true(q.why.text[0]);
        assert_true(clock_ns() - begin < 1500 * NS_PER_MS);
        c.m[0].mood = c.m[1].mood = FAKE_GOOD;
        assert_true(run_until(up, c.a));
    }
    deadline_ms = 1000;
    assert_int_equal(c.store.puts, 1);
    assert_true(answer(c.a, WITNESS_CLAIM, 1, 12).mine);
    scene_free(&c);
}

/* No connection or silence: not up within 3 s, never asked then; and found
 * again within 2 s. */
static void health_is_looked_for(void **state)
{
    (void)state;
    struct scene c;
    struct question q;
    struct arbiter_health h;

    scene_make(&c);
    unsigned before = c.changes;
    fake_etcd_stop(&c.m[0]);
    run_for(3.5);
    assert_true(up(c.a)); /* one is enough */
    c.m[1].mood = FAKE_SILENT;
    uint64_t begin = clock_ns();
    assert_true(run_until(down, c.a));
    assert_true(clock_ns() - begin < 4 * NS_PER_SEC);
    c.a->ops->health(c.a, &h);
    assert_true(h.heard_ns && h.why.text[0] && h.why.hint[0]);
    ask(c.a, &q, WITNESS_QUERY, 1, 0);
    assert_true(run_until(is_done, &q));
    assert_true(!q.record && q.why.kind == ERR_GONE);
    assert_int_equal(c.store.puts, 0);
    fake_etcd_start(&c.m[0], &c.store);
    begin = clock_ns();
    assert_true(run_until(up, c.a));
    assert_true(clock_ns() - begin < 3 * NS_PER_SEC);
    run_for(1.5);
    assert_true(c.changes >= before + 2);
    scene_free(&c);
}

static void what_was_given_up_is_not_told(void **state)
{
    (void)state;
    struct scene c;
    struct question q, last;
    struct err e = ERR_INIT;
    struct witness_ask w = {.op = WITNESS_QUERY};

    scene_make(&c);
    ask(c.a, &q, WITNESS_REGISTER, 1, 5);
    c.a->ops->cancel(q.call);
    run_for(0.1);
    assert_int_equal(q.done, 0);
    for (unsigned i = 0; i < ARBITER_CALLS_MAX; i++)
        ask(c.a, &last, WITNESS_QUERY, 1, 5);
    assert_int_equal(c.a->ops->submit(c.a, &w, 1000, on_done, &q, NULL, &e),
                     -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    c.a->ops->close(c.a);
    c.a = NULL;
    run_for(0.1);
    assert_int_equal(last.done, 0);
    ask(c.b, &q, WITNESS_QUERY, 1, 5);
    ask(c.b, &last, WITNESS_QUERY, 1, 5);
    q.close = last.close = &c.b;
    run_for(0.2);
    assert_int_equal(q.done + last.done, 1); /* it closed in that one */
    scene_free(&c);
}

/* No record, somebody else's, one of before. */
static void refusals_say_why(void **state)
{
    (void)state;
    struct scene c;
    struct question q;

    scene_make(&c);
    ask(c.a, &q, WITNESS_CLAIM, 1, 5);
    assert_true(run_until(is_done, &q));
    assert_true(q.why.kind == ERR_REFUSED && strstr(q.why.text, "no record"));
    answer(c.a, WITNESS_REGISTER, 1, 5);
    ask(c.b, &q, WITNESS_QUERY, 4, 5);
    assert_true(run_until(is_done, &q));
    assert_true(q.why.kind == ERR_REFUSED && strstr(q.why.text, "sealed"));
    ask(c.a, &q, WITNESS_CLAIM, 1, 6);
    assert_true(run_until(is_done, &q));
    assert_true(q.why.kind == ERR_REFUSED && strstr(q.why.hint, "etcdctl del"));
    assert_int_equal(c.store.puts, 2);
    c.m[0].mood = c.m[1].mood = FAKE_GARBAGE;
    ask(c.a, &q, WITNESS_QUERY, 1, 6);
    assert_true(run_until(is_done, &q));
    assert_true(q.why.kind == ERR_REFUSED && strstr(q.why.text, "no record"));
    scene_free(&c);
}

/* As a resolver that does not answer: libcurl's calls of it come here. */
static bool resolver_hangs;
static atomic_uint resolver_asked;

int getaddrinfo(const char *node, const char *service,
                const struct addrinfo *hints, struct addrinfo **out)
{
    (void)node, (void)service, (void)hints, (void)out;
    atomic_fetch_add(&resolver_asked, 1);
    if (resolver_hangs)
        sleep(5);
    return EAI_AGAIN;
}

/* Not while it resolves, not when that takes too long, not at close(). */
static void a_hung_resolver_blocks_nothing(void **state)
{
    (void)state;
    struct scene c = {0};
    uint64_t begin;

    resolver_asked = 0;
    resolver_hangs = true;
    c.a = arbiter_open(&c, "etcd:https://etcd.example.org", alder);
    for (int i = 0; i < 150; i++) {
        uint64_t turn = clock_ns();
        run_for(0.01);
        assert_true(clock_ns() - turn < 4 * NS_PER_SEC);
    }
    assert_false(up(c.a));
    assert_true(resolver_asked > 0);
    while (resolver_asked < 2) /* one is under way again */
        run_for(0.01);
    begin = clock_ns();
    c.a->ops->close(c.a);
    c.a = NULL;
    assert_true(clock_ns() - begin < 2 * NS_PER_SEC);
    resolver_hangs = false;
}

static void files_are_looked_at_when_they_are_named(void **state)
{
    (void)state;
    struct arbiter_host host = {.loop = EV_DEFAULT};
    struct arbiter *a;
    struct err e = ERR_INIT;

    assert_int_equal(
        arbiter_etcd.open("etcd:https://a ca=/nowhere/ca.pem", &host, &a, &e),
        -1);
    assert_non_null(strstr(e.text, "/nowhere/ca.pem"));
    err_clear(&e);
    assert_int_equal(
        arbiter_etcd.open("etcd:https://a ca=/dev/null", &host, &a, &e), -1);
    assert_int_equal(e.kind, ERR_FAILED);
    assert_non_null(strstr(e.text, "no certificate"));
    err_clear(&e);
    assert_int_equal(
        arbiter_etcd.open("etcd:https://a ca=/dev/zero", &host, &a, &e), -1);
    assert_non_null(strstr(e.text, "too large"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_two_hosts_wins),
        cmocka_unit_test(two_at_once_are_one_after_the_other),
        cmocka_unit_test(a_lost_answer_is_asked_for_again),
        cmocka_unit_test(one_strange_member_is_passed_by),
        cmocka_unit_test(nothing_strange_is_an_answer),
        cmocka_unit_test(health_is_looked_for),
        cmocka_unit_test(what_was_given_up_is_not_told),
        cmocka_unit_test(refusals_say_why),
        cmocka_unit_test(a_hung_resolver_blocks_nothing),
        cmocka_unit_test(files_are_looked_at_when_they_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
