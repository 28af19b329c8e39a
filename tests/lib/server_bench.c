// SPDX-License-Identifier: Apache-2.0
/* See server_bench.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/lib/nbd_client.h"
#include "tests/lib/server_bench.h"

static void *serve(void *arg)
{
    struct bench *b = arg;

    assert_int_equal(server_run(b->server, b->server_fd, &b->end, &b->why), 0);
    close(b->server_fd);
    return NULL;
}

void bench_connect(struct bench *b)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    b->fd = pair[0];
    b->server_fd = pair[1];
    assert_int_equal(pthread_create(&b->thread, NULL, serve, b), 0);
}

void bench_open(struct bench *b, bool read_only)
{
    struct err e = ERR_INIT;

    memset(b, 0, sizeof *b);
    strcpy(b->path, "/tmp/understudy-image-XXXXXX");
    int fd = mkstemp(b->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, BENCH_BYTES), 0);
    close(fd);
    if (image_open(&b->image, b->path, read_only, 0, &e) ||
        server_open(&b->server, &b->image, 8, &e))
        fail_msg("%s", e.text);
}

void bench_begin(struct bench *b, bool read_only)
{
    bench_open(b, read_only);
    bench_connect(b);
}

void bench_connection_end(struct bench *b)
{
    pthread_join(b->thread, NULL);
    close(b->fd);
}

void bench_finish(struct bench *b)
{
    struct nbd_header bye = {.command = NBD_DISCONNECT_NOW};

    client_send(b->fd, &bye, NULL);
    bench_connection_end(b);
    server_close(b->server);
    image_close(&b->image);
    unlink(b->path);
}

uint8_t bench_byte(struct bench *b, off_t offset)
{
    uint8_t c = 0;

    assert_int_equal(pread(b->image.store.fd, &c, 1, offset), 1);
    return c;
}

void bench_answers(struct bench *b, unsigned n)
{
    uint64_t handle;
    int error;

    while (n-- > 0) {
        assert_true(client_answer(b->fd, &handle, &error));
        assert_int_equal(error, 0);
    }
}
