// SPDX-License-Identifier: Apache-2.0
/* A block server of eight workers on a file of its own, and the other end of
 * its socket, for tests. What goes wrong fails the test. */
#ifndef TESTS_LIB_SERVER_BENCH_H
#define TESTS_LIB_SERVER_BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "disk-replicate/server.h"

#define BENCH_BYTES (4u << 20) /* of the file */

struct bench {
    char path[64];
    struct image image;
    struct server *server;
    pthread_t thread;
    int fd, server_fd;
    enum server_end end; /* of the last connection */
    struct err why;
};

void bench_open(struct bench *b, bool read_only);
/* The first connection, or after the end of one the next. */
void bench_connect(struct bench *b);
void bench_begin(struct bench *b, bool read_only); /* both */
/* Wait for a connection's end. */
void bench_connection_end(struct bench *b);
/* Disconnect, and all is gone. */
void bench_finish(struct bench *b);
/* What the file itself holds. */
uint8_t bench_byte(struct bench *b, off_t offset);
/* Answers without an error, and without data. */
void bench_answers(struct bench *b, unsigned n);

#endif
