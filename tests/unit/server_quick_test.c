// SPDX-License-Identifier: Apache-2.0
/* Writes that the block server does in a row and answers together: what they
 * must not make anybody wait for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "tests/lib/nbd_client.h"
#include "tests/lib/server_bench.h"

/* Some writes in one piece, of SMALL bytes each. */
#define SMALL 4096
static size_t writes_put(uint8_t *stream, unsigned n, uint8_t fill)
{
    size_t at = 0;

    for (unsigned i = 0; i < n; i++) {
        struct nbd_header h = {0, NBD_WRITE, i, i * SMALL, SMALL};
        nbd_request_put(stream + at, &h);
        memset(stream + at + NBD_REQUEST_BYTES, fill, SMALL);
        at += NBD_REQUEST_BYTES + SMALL;
    }
    return at;
}

/* A peer that sends the other half of a request only when all before it was
 * answered. */
static void no_answer_waits_for_half_a_request(void **s)
{
    static const size_t parts[] = {0, 10, NBD_REQUEST_BYTES, 2000};
    static uint8_t stream[10 * (NBD_REQUEST_BYTES + SMALL)];
    struct bench b;

    (void)s;
    bench_begin(&b, false);
    size_t len = writes_put(stream, 10, 0x31);
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t cut = len - SMALL - NBD_REQUEST_BYTES + parts[i];
        assert_int_equal(send(b.fd, stream, cut, 0), cut);
        bench_answers(&b, 9);
        assert_int_equal(send(b.fd, stream + cut, len - cut, 0), len - cut);
        bench_answers(&b, 1);
    }
    assert_int_equal(bench_byte(&b, 10 * SMALL - 1), 0x31);
    bench_finish(&b);
}

/* A watch with writes that have to wait. */
struct slow {
    struct server_watch watch; /* first */
    pthread_mutex_t lock;
    pthread_cond_t go_on;
    bool ready, paced, free;
    unsigned asking, resting; /* how many wait */
};

static void slow_wait(struct slow *w, unsigned *counted)
{
    pthread_mutex_lock(&w->lock);
    ++*counted;
    pthread_cond_broadcast(&w->go_on);
    while (!w->free)
        pthread_cond_wait(&w->go_on, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

static int slow_ask(struct server_watch *w, bool writes, uint64_t offset,
                    uint32_t len)
{
    struct slow *slow = (struct slow *)w;

    (void)offset;
    (void)len;
    if (writes && !slow->ready)
        slow_wait(slow, &slow->asking);
    return 0;
}
static bool slow_ready(struct server_watch *w, uint64_t offset, uint32_t len)
{
    (void)offset;
    (void)len;
    return ((struct slow *)w)->ready;
}
static void slow_rest(struct server_watch *w, uint64_t until_ns)
{
    struct slow *slow = (struct slow *)w;

    assert_int_equal(until_ns, 1);
    slow_wait(slow, &slow->resting);
}
static uint64_t slow_wrote(struct server_watch *w, uint64_t offset,
                           uint32_t len, const void *data)
{
    (void)offset;
    (void)len;
    (void)data;
    return ((struct slow *)w)->paced;
}
static void nothing_failed(struct server_watch *w, bool writes)
{
    (void)w;
    (void)writes;
}
static void nothing_ended(struct server_watch *w, uint64_t offset, uint32_t len)
{
    (void)w;
    (void)offset;
    (void)len;
}

static void slow_begin(struct bench *b, struct slow *w, bool ready, bool paced)
{
    *w = (struct slow){.watch = {.ask = slow_ask,
                                 .ready = slow_ready,
                                 .wrote = slow_wrote,
                                 .failed = nothing_failed,
                                 .end = nothing_ended,
                                 .rest = slow_rest},
                       .ready = ready,
                       .paced = paced};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->go_on, NULL);
    bench_open(b, false);
    server_set_watch(b->server, &w->watch);
    bench_connect(b);
}

static void slow_waits(struct slow *w, const unsigned *counted, unsigned n)
{
    pthread_mutex_lock(&w->lock);
    while (*counted < n)
        pthread_cond_wait(&w->go_on, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

static void slow_free(struct slow *w)
{
    pthread_mutex_lock(&w->lock);
    w->free = true;
    pthread_cond_broadcast(&w->go_on);
    pthread_mutex_unlock(&w->lock);
}

/* Writers that are slowed down wait, and nobody waits with them: fewer than
 * there are workers. */
#define WRITES 6
static void a_paced_writer_holds_up_nobody(void **s)
{
    static uint8_t stream[WRITES * (NBD_REQUEST_BYTES + SMALL)], data[SMALL];
    struct nbd_header h = {0, NBD_READ, 77, 0, SMALL};
    uint64_t handle;
    struct bench b;
    struct slow w;
    int error;

    (void)s;
    slow_begin(&b, &w, true, true);
    size_t len = writes_put(stream, WRITES, 0x32);
    assert_int_equal(send(b.fd, stream, len, 0), len);
    slow_waits(&w, &w.resting, 1);
    assert_true(client_send(b.fd, &h, NULL));
    assert_true(client_answer(b.fd, &handle, &error));
    assert_int_equal(handle, 77);
    assert_int_equal(error, 0);
    assert_true(client_data(b.fd, data, sizeof data));
    assert_int_equal(data[0], 0x32);
    slow_free(&w);
    bench_answers(&b, WRITES);
    bench_finish(&b);
}

/* A write that is not ready leaves the receiving to others. */
static void a_write_that_waits_is_not_a_quick_one(void **s)
{
    static uint8_t stream[4 * (NBD_REQUEST_BYTES + SMALL)], data[SMALL];
    struct bench b;
    struct slow w;

    (void)s;
    slow_begin(&b, &w, false, false);
    size_t len = writes_put(stream, 4, 0x33);
    assert_int_equal(send(b.fd, stream, len, 0), len);
    slow_waits(&w, &w.asking, 4);
    assert_int_equal(client_do(b.fd, NBD_READ, 0, 0, SMALL, data), 0);
    slow_free(&w);
    bench_answers(&b, 4);
    bench_finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_answer_waits_for_half_a_request),
        cmocka_unit_test(a_paced_writer_holds_up_nobody),
        cmocka_unit_test(a_write_that_waits_is_not_a_quick_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
