// SPDX-License-Identifier: Apache-2.0
/* A batch of rtnetlink requests that goes to the kernel in one send(2), built
 * and answered in memory that is allocated once: the device's mark uses it
 * while the guest is stopped. The kernel works a batch off in order and before
 * send() returns; a request that fails doesn't stop those behind it. Used by
 * net-buffer/ only, on the thread of the device's caller. */
#ifndef NET_BUFFER_NLBATCH_H
#define NET_BUFFER_NLBATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/netlink.h>

#include "common/err.h"

struct nl_sock;

#define NLBATCH_MAX 128 /* requests in one batch */

struct nlbatch {
    struct nl_sock *sk;
    uint32_t seq; /* of the batch's first request */
    int count;    /* requests in the batch */
    bool full;    /* something did not fit */
    size_t len, start;
    int error[NLBATCH_MAX]; /* after nlbatch_run(): 0 or the kernel's -errno */
    char why[128];          /* what the kernel said of the first failure */
    uint8_t tx[32 << 10];
    uint8_t rx[64 << 10];
};

/* Open the socket and touch all pages. Free with nlbatch_close(), NULL is fine.
 */
struct nlbatch *nlbatch_open(struct err *e);
void nlbatch_close(struct nlbatch *x);

/* Start an empty batch. */
void nlbatch_begin(struct nlbatch *x);
/* Add a request with its fixed part; returns its number in the batch. Without
 * NLM_F_DUMP an acknowledgement is asked for. */
int nlbatch_add(struct nlbatch *x, int type, int flags, const void *body,
                size_t n);
/* Add an attribute to the last request; a nest is closed by nlbatch_end() with
 * what nlbatch_nest() returned. */
void nlbatch_put(struct nlbatch *x, int type, const void *p, size_t n);
void nlbatch_str(struct nlbatch *x, int type, const char *s);
size_t nlbatch_nest(struct nlbatch *x, int type);
void nlbatch_end(struct nlbatch *x, size_t nest);

/* An answer to request number `i` that is no acknowledgement. */
typedef void nlbatch_answer(void *arg, int i, struct nlmsghdr *h);

/* Send the batch and take all answers. -1 only if that itself failed; what
 * became of each request is in error[]. A dump that the kernel calls
 * inconsistent has the error -EINTR: do it again. `answer` may be NULL. */
int nlbatch_run(struct nlbatch *x, nlbatch_answer *answer, void *arg,
                struct err *e);

#endif
