// SPDX-License-Identifier: Apache-2.0
/* For tests of link/: hosts with keys, sessions that write down what happens
 * to them, and a loop that runs until a condition holds. One loop, the
 * default one. */
#ifndef TESTS_LINK_PAIR_H
#define TESTS_LINK_PAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ev.h>

#include "common/bytes.h"
#include "link/session.h"

/* A host: a key in a directory of its own, under /tmp. */
struct host {
    char dir[64];
    struct link_key *key;
    struct link_tls *tls;
};
void host_make(struct host *h);
void host_free(struct host *h);

/* One end of a session and its story. */
struct side {
    struct link_session *s;
    unsigned ready, closed, drained, records;
    struct err why;     /* of `closed` */
    uint32_t types[64]; /* of the first records */
    struct buf last;    /* payload of the last record */
    uint64_t bytes;     /* of all payloads */
    /* Called inside the callback of that name when set. */
    void (*on_ready)(struct side *me);
    void (*on_record)(struct side *me, uint32_t type);
    void (*on_closed)(struct side *me);
};
extern const struct link_callbacks side_callbacks;
void side_free(struct side *side);

/* Only this pin is known, under the name "birch". arg: const uint8_t *. */
bool lookup_one(void *arg, const uint8_t pin[PIN_BYTES],
                char name[WIRE_NAME_MAX]);

/* Run the loop until *what(arg) or 10 s have passed; false: they have. */
bool run_until(bool (*what)(void *arg), void *arg);
/* Run the loop for a while, for things that should not happen. */
void run_for(double seconds);

/* A connected pair of TCP sockets on loopback, nonblocking. */
void tcp_pair(int fd[2]);

/* Two sessions on one TCP connection: a connects through a listener of b's.
 * Both host's keys are known to each other unless changed in between. */
struct pair {
    struct host alder, birch;
    struct side a, b;
    struct link_listener *listener;
    const uint8_t *birch_knows; /* a pin */
    const uint8_t *alder_wants; /* a pin */
    enum wire_kind kind;
    unsigned arrivals;
};
void pair_init(struct pair *p);
/* Start connecting; p->b.s appears on arrival. */
void pair_connect(struct pair *p);
/* pair_connect(), run until both are ready, HELLO from both, heard by both. */
void pair_open(struct pair *p);
void link_pair_free(struct pair *p);
void send_hello(struct side *side, enum wire_role role);

bool both_closed(void *pair);
bool a_closed(void *pair);
bool b_closed(void *pair);

#endif
