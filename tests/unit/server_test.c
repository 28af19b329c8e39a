// SPDX-License-Identifier: Apache-2.0
/* The block server over a socket pair, on a file: every command, what is
 * refused, many requests at once, and how connections end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/lib/nbd_client.h"
#include "tests/lib/plug.h"
#include "tests/lib/server_bench.h"

static long blocks_of(struct bench *b)
{
    struct stat st;

    assert_int_equal(fstat(b->image.store.fd, &st), 0);
    return (long)st.st_blocks;
}

static void what_is_written_is_read(void **s)
{
    struct bench b;
    uint8_t out[8192], in[8192];

    (void)s;
    bench_begin(&b, false);
    memset(out, 0x5a, sizeof out);
    for (uint16_t fua = 0; fua < 2; fua++) {
        assert_int_equal(client_do(b.fd, NBD_WRITE, fua, 512, 8192, out), 0);
        assert_int_equal(client_do(b.fd, NBD_READ, 0, 512, 8192, in), 0);
        assert_memory_equal(in, out, sizeof in);
    }
    assert_int_equal(bench_byte(&b, 511), 0);
    assert_int_equal(bench_byte(&b, 512), 0x5a);
    assert_int_equal(client_do(b.fd, NBD_FLUSH, 0, 0, 0, NULL), 0);
    bench_finish(&b);
    assert_int_equal(b.end, SERVER_DISCONNECTED);
}

static struct bench *hung_up;

/* The kernel gives the connection up while its flush is under way. */
static int sync_hangs_up(struct store *s, struct err *e)
{
    if (!hung_up)
        return 0;
    shutdown(hung_up->fd, SHUT_RDWR);
    hung_up = NULL;
    errno = EIO;
    return err_sys(e, "sync %s", s->name);
}

static void an_error_that_nobody_heard_is_said_again(void **s)
{
    struct nbd_header flush = {.command = NBD_FLUSH, .handle = 1};
    struct store_ops ops;
    struct bench b;

    (void)s;
    bench_begin(&b, false);
    ops = *b.image.store.ops;
    ops.sync = sync_hangs_up;
    b.image.store.ops = &ops;
    hung_up = &b;
    assert_true(client_send(b.fd, &flush, NULL));
    bench_connection_end(&b);
    assert_null(hung_up);
    bench_connect(&b);
    assert_int_equal(client_do(b.fd, NBD_FLUSH, 0, 0, 0, NULL), EIO);
    /* That it was sent is noted behind the answer. */
    while (__atomic_load_n(&b.image.here_unsaid, __ATOMIC_SEQ_CST))
        sched_yield();
    assert_int_equal(client_do(b.fd, NBD_FLUSH, 0, 0, 0, NULL), 0);
    bench_finish(&b);
}

static void discards_and_zeroes_read_as_zeroes(void **s)
{
    struct bench b;
    static uint8_t out[65536], in[65536];
    const struct {
        uint16_t command, flags;
        bool hole;
    } ways[] = {{NBD_TRIM, 0, true},
                {NBD_TRIM, NBD_FUA, true},
                {NBD_WRITE_ZEROES, 0, true},
                {NBD_WRITE_ZEROES, NBD_FUA, true},
                {NBD_WRITE_ZEROES, NBD_NO_HOLE, false}};

    (void)s;
    bench_begin(&b, false);
    memset(out, 0x77, sizeof out);
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        assert_int_equal(client_do(b.fd, NBD_WRITE, 0, 0, 65536, out), 0);
        long full = blocks_of(&b);
        assert_int_equal(
            client_do(b.fd, ways[i].command, ways[i].flags, 4096, 32768, NULL),
            0);
        assert_int_equal(client_do(b.fd, NBD_READ, 0, 0, 65536, in), 0);
        for (unsigned k = 0; k < sizeof in; k++)
            assert_int_equal(in[k], k < 4096 || k >= 36864 ? 0x77 : 0);
        assert_int_equal(blocks_of(&b) < full, ways[i].hole);
    }
    bench_finish(&b);
}

static void what_can_not_be_is_refused(void **s)
{
    struct bench b;
    static uint8_t data[4096];

    (void)s;
    bench_begin(&b, false);
    assert_int_equal(
        client_do(b.fd, NBD_READ, 0, BENCH_BYTES - 512, 1024, data), EINVAL);
    assert_int_equal(client_do(b.fd, NBD_READ, 0, UINT64_MAX, 512, data),
                     EINVAL);
    assert_int_equal(
        client_do(b.fd, NBD_WRITE, 0, BENCH_BYTES - 512, 1024, data), ENOSPC);
    assert_int_equal(client_do(b.fd, NBD_TRIM, 0, BENCH_BYTES, 1, NULL),
                     ENOSPC);
    assert_int_equal(client_do(b.fd, NBD_READ, 0, 0, NBD_LENGTH_MAX + 1, data),
                     EINVAL);
    assert_int_equal(client_do(b.fd, 99, 0, 0, 0, NULL), EINVAL);
    assert_int_equal(client_do(b.fd, NBD_WRITE, 0x80, 0, 512, data), EINVAL);
    assert_int_equal(client_do(b.fd, NBD_READ, 0, 0, 512, data), 0);
    struct server_counts c;
    server_counts(b.server, &c);
    assert_int_equal(c.errors, 7);
    bench_finish(&b);
}

static void a_read_only_image_stays_as_it_is(void **s)
{
    struct bench b;
    static uint8_t data[4096] = {1};

    (void)s;
    bench_begin(&b, true);
    assert_int_equal(client_do(b.fd, NBD_WRITE, 0, 0, 4096, data), EPERM);
    assert_int_equal(client_do(b.fd, NBD_TRIM, 0, 0, 4096, NULL), EPERM);
    assert_int_equal(client_do(b.fd, NBD_WRITE_ZEROES, 0, 0, 4096, NULL),
                     EPERM);
    assert_int_equal(client_do(b.fd, NBD_READ, 0, 0, 4096, data), 0);
    assert_int_equal(data[0], 0);
    bench_finish(&b);
}

static void the_largest_request_fits(void **s)
{
    struct bench b;
    uint8_t *data = malloc(NBD_LENGTH_MAX);

    (void)s;
    bench_begin(&b, false);
    assert_int_equal(truncate(b.path, 2ll * NBD_LENGTH_MAX), 0);
    b.image.bytes = 2ull * NBD_LENGTH_MAX;
    memset(data, 0x42, NBD_LENGTH_MAX);
    assert_int_equal(client_do(b.fd, NBD_WRITE, 0, 4096, NBD_LENGTH_MAX, data),
                     0);
    memset(data, 0, NBD_LENGTH_MAX);
    assert_int_equal(client_do(b.fd, NBD_READ, 0, 4096, NBD_LENGTH_MAX, data),
                     0);
    assert_int_equal(data[0], 0x42);
    assert_int_equal(data[NBD_LENGTH_MAX - 1], 0x42);
    bench_finish(&b);
    free(data);
}

/* --- Many at once --------------------------------------------------------- */

#define DEPTH 32

/* Overlapping writes that are under way at once end in the order in which
 * they were sent. */
static void overlapping_writes_keep_their_order(void **s)
{
    struct bench b;
    static uint8_t data[32768], in[65536], expect[65536];
    uint64_t seed = 7;

    (void)s;
    bench_begin(&b, false);
    for (unsigned round = 0; round < 300; round++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            uint32_t at = (uint32_t)(plug_random(&seed) % 64) * 512;
            uint32_t len = 512 + (uint32_t)(plug_random(&seed) % 64) * 512;
            uint8_t fill = (uint8_t)plug_random(&seed);
            bool zero = fill % 5 == 0;
            struct nbd_header h = {0, zero ? NBD_WRITE_ZEROES : NBD_WRITE, i,
                                   at, len};
            memset(data, fill, len);
            memset(expect + at, zero ? 0 : fill, len);
            assert_true(client_send(b.fd, &h, data));
        }
        bench_answers(&b, DEPTH);
        assert_int_equal(client_do(b.fd, NBD_READ, 0, 0, 65536, in), 0);
        assert_memory_equal(in, expect, sizeof in);
    }
    bench_finish(&b);
}

static void send_in_pieces(int fd, const uint8_t *p, size_t len, uint64_t *seed)
{
    while (len > 0) {
        size_t n = 1 + plug_random(seed) % (plug_random(seed) % 2 ? 64 : 99999);
        n = n < len ? n : len;
        ssize_t r = send(fd, p, n, MSG_NOSIGNAL);
        assert_true(r > 0);
        p += r;
        len -= (size_t)r;
    }
}

/* Short and long writes, one behind the other: where the stream is cut makes no
 * difference. */
static void requests_come_in_any_pieces(void **s)
{
    static const uint32_t lengths[] = {512, 4096, 32768, 40960, 65536, 262144};
    static uint8_t stream[DEPTH * (262144 + NBD_REQUEST_BYTES)];
    static uint8_t expect[BENCH_BYTES], in[BENCH_BYTES];
    uint64_t seed = 11;
    struct bench b;

    (void)s;
    bench_begin(&b, false);
    for (unsigned round = 0; round < 40; round++) {
        size_t at = 0;
        for (unsigned i = 0; i < DEPTH; i++) {
            uint32_t len = lengths[plug_random(&seed) % 6];
            uint64_t to =
                plug_random(&seed) % ((BENCH_BYTES - len) / 512) * 512;
            struct nbd_header h = {0, NBD_WRITE, i, to, len};
            nbd_request_put(stream + at, &h);
            at += NBD_REQUEST_BYTES;
            memset(stream + at, (int)plug_random(&seed), len);
            memcpy(expect + to, stream + at, len);
            at += len;
        }
        send_in_pieces(b.fd, stream, at, &seed);
        bench_answers(&b, DEPTH);
        assert_int_equal(client_do(b.fd, NBD_READ, 0, 0, BENCH_BYTES, in), 0);
        assert_memory_equal(in, expect, BENCH_BYTES);
    }
    bench_finish(&b);
}

/* --- Ends ----------------------------------------------------------------- */

/* When server_run() is back, everything it had taken is done. */
static void after_a_lost_connection_the_next_serves(void **s)
{
    struct bench b;
    static uint8_t data[4096];

    (void)s;
    bench_begin(&b, false);
    for (unsigned i = 0; i < 50; i++) {
        memset(data, (int)i + 1, sizeof data);
        struct nbd_header h = {0, NBD_WRITE, i, 0, sizeof data};
        for (unsigned k = 0; k < i % 8; k++)
            assert_true(client_send(b.fd, &h, data));
        shutdown(b.fd, SHUT_RDWR);
        bench_connection_end(&b);
        assert_int_equal(b.end, SERVER_LOST);
        bench_connect(&b);
        memset(data, 0xff, sizeof data);
        assert_int_equal(client_do(b.fd, NBD_WRITE, 0, 0, 4096, data), 0);
        assert_int_equal(bench_byte(&b, 0), 0xff);
    }
    bench_finish(&b);
}

static void nonsense_ends_the_connection(void **s)
{
    struct bench b;
    uint8_t junk[NBD_REQUEST_BYTES] = {1};
    struct nbd_header h = {0, NBD_WRITE, 1, 0, NBD_LENGTH_MAX + 1};

    (void)s;
    bench_begin(&b, false);
    assert_int_equal(send(b.fd, junk, sizeof junk, 0), sizeof junk);
    bench_connection_end(&b);
    assert_int_equal(b.end, SERVER_LOST);
    assert_non_null(strstr(b.why.text, "no request"));
    bench_connect(&b);
    uint8_t head[NBD_REQUEST_BYTES];
    nbd_request_put(head, &h);
    assert_int_equal(send(b.fd, head, sizeof head, 0), sizeof head);
    bench_connection_end(&b);
    assert_int_equal(b.end, SERVER_LOST);
    bench_connect(&b);
    assert_int_equal(send(b.fd, head, 5, 0), 5); /* half a request */
    shutdown(b.fd, SHUT_WR);
    bench_connection_end(&b);
    assert_int_equal(b.end, SERVER_LOST);
    bench_connect(&b);
    bench_finish(&b);
}

/* --- The image ------------------------------------------------------------ */

static void an_image_is_opened_once(void **s)
{
    struct bench b;
    struct image other;
    struct err e = ERR_INIT;

    (void)s;
    bench_begin(&b, false);
    assert_int_equal(image_open(&other, b.path, false, 30, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_non_null(strstr(e.text, "in use"));
    assert_int_equal(image_open(&other, b.path, true, 0, &e), -1);
    bench_finish(&b);
}

static void an_image_has_whole_sectors(void **s)
{
    char path[] = "/tmp/understudy-image-XXXXXX";
    struct image im;
    struct err e = ERR_INIT;
    int fd = mkstemp(path);

    (void)s;
    assert_int_equal(image_open(&im, path, false, 0, &e), -1); /* empty */
    assert_int_equal(ftruncate(fd, 1000), 0);
    assert_int_equal(image_open(&im, path, false, 0, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_int_equal(ftruncate(fd, 1024), 0);
    assert_int_equal(image_open(&im, path, false, 0, &e), 0);
    assert_int_equal(im.bytes, 1024);
    image_close(&im);
    assert_int_equal(image_open(&im, "/tmp", false, 0, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_int_equal(image_open(&im, "/nonexistent", false, 0, &e), -1);
    close(fd);
    unlink(path);
}

/* An image that became shorter than it was gives errors, not wrong data. */
static void a_shortened_image_gives_errors(void **s)
{
    struct bench b;
    static uint8_t data[4096];

    (void)s;
    bench_begin(&b, false);
    assert_int_equal(truncate(b.path, 8192), 0);
    assert_int_equal(client_do(b.fd, NBD_READ, 0, 8192, 4096, data), EIO);
    assert_int_equal(client_do(b.fd, NBD_READ, 0, 4096, 4096, data), 0);
    bench_finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(an_error_that_nobody_heard_is_said_again),
        cmocka_unit_test(discards_and_zeroes_read_as_zeroes),
        cmocka_unit_test(what_can_not_be_is_refused),
        cmocka_unit_test(a_read_only_image_stays_as_it_is),
        cmocka_unit_test(the_largest_request_fits),
        cmocka_unit_test(overlapping_writes_keep_their_order),
        cmocka_unit_test(requests_come_in_any_pieces),
        cmocka_unit_test(after_a_lost_connection_the_next_serves),
        cmocka_unit_test(nonsense_ends_the_connection),
        cmocka_unit_test(an_image_is_opened_once),
        cmocka_unit_test(an_image_has_whole_sectors),
        cmocka_unit_test(a_shortened_image_gives_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
