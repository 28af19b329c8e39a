// SPDX-License-Identifier: Apache-2.0
/* Batches of rtnetlink requests, see nlbatch.h. libnl makes the socket and
 * walks attributes; messages are laid out here, because libnl's allocate.
 * Called on the thread of the device's caller. */
#include "net-buffer/nlbatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

static int set_options(struct nlbatch *x, struct err *e)
{
    int fd = nl_socket_get_fd(x->sk), on = 1, room_bytes = 1 << 20;
    struct timeval bound = {.tv_sec = 10};

    /* All answers to a batch wait in the socket before the first is read. */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room_bytes, sizeof room_bytes);
    if (setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on) ||
        setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound))
        return err_sys(e, "set up a netlink socket");
    return 0;
}

struct nlbatch *nlbatch_open(struct err *e)
{
    struct nlbatch *x = malloc(sizeof *x);
    int r;

    if (!x) {
        err_sys(e, "allocate a netlink batch");
        return NULL;
    }
    memset(x, 0, sizeof *x);
    x->seq = 1;
    x->sk = nl_socket_alloc();
    r = x->sk ? nl_connect(x->sk, NETLINK_ROUTE) : -NLE_NOMEM;
    if (r < 0)
        err_set(e, "open a netlink socket: %s", nl_geterror(r));
    if (r < 0 || set_options(x, e)) {
        nlbatch_close(x);
        return NULL;
    }
    return x;
}

void nlbatch_close(struct nlbatch *x)
{
    if (!x)
        return;
    nl_socket_free(x->sk);
    free(x);
}

void nlbatch_begin(struct nlbatch *x)
{
    x->seq += (uint32_t)x->count;
    x->count = 0;
    x->len = x->start = 0;
    x->full = false;
    x->why[0] = 0;
}

/* Zeroed room of n bytes, rounded up to 4, at the end of the batch. */
static uint8_t *room(struct nlbatch *x, size_t n)
{
    size_t whole = NLMSG_ALIGN(n);
    uint8_t *p = x->tx + x->len;

    if (x->full || whole > sizeof x->tx - x->len) {
        x->full = true;
        return NULL;
    }
    memset(p, 0, whole);
    x->len += whole;
    return p;
}

/* The length of the last request is kept up to date with each addition. */
static void settle(struct nlbatch *x)
{
    struct nlmsghdr h;

    if (x->full)
        return;
    memcpy(&h, x->tx + x->start, sizeof h);
    h.nlmsg_len = (uint32_t)(x->len - x->start);
    memcpy(x->tx + x->start, &h, sizeof h);
}

int nlbatch_add(struct nlbatch *x, int type, int flags, const void *body,
                size_t n)
{
    struct nlmsghdr h = {
        .nlmsg_type = (uint16_t)type,
        .nlmsg_flags = (uint16_t)(flags | NLM_F_REQUEST),
    };
    uint8_t *p;

    if (x->count == NLBATCH_MAX)
        x->full = true;
    if ((flags & NLM_F_DUMP) != NLM_F_DUMP)
        h.nlmsg_flags |= NLM_F_ACK;
    h.nlmsg_seq = x->seq + (uint32_t)x->count;
    x->start = x->len;
    p = room(x, NLMSG_HDRLEN + n);
    if (!p)
        return 0;
    memcpy(p, &h, sizeof h);
    memcpy(p + NLMSG_HDRLEN, body, n);
    settle(x);
    return x->count++;
}

void nlbatch_put(struct nlbatch *x, int type, const void *data, size_t n)
{
    struct nlattr a = {
        .nla_len = (uint16_t)(NLA_HDRLEN + n),
        .nla_type = (uint16_t)type,
    };
    uint8_t *p = room(x, NLA_HDRLEN + n);

    if (!p)
        return;
    memcpy(p, &a, sizeof a);
    if (n)
        memcpy(p + NLA_HDRLEN, data, n);
    settle(x);
}

void nlbatch_str(struct nlbatch *x, int type, const char *s)
{
    nlbatch_put(x, type, s, strlen(s) + 1);
}

size_t nlbatch_nest(struct nlbatch *x, int type)
{
    size_t at = x->len;

    nlbatch_put(x, type | NLA_F_NESTED, NULL, 0);
    return at;
}

void nlbatch_end(struct nlbatch *x, size_t nest)
{
    struct nlattr a;

    if (x->full)
        return;
    memcpy(&a, x->tx + nest, sizeof a);
    a.nla_len = (uint16_t)(x->len - nest);
    memcpy(x->tx + nest, &a, sizeof a);
}

/* An acknowledgement or the end of a dump: the request is done. */
static void take_end(struct nlbatch *x, int i, struct nlmsghdr *h)
{
    struct nlattr *tb[NLMSGERR_ATTR_MAX + 1] = {0};
    int code = 0, head = h->nlmsg_type == NLMSG_ERROR
                             ? (int)sizeof(struct nlmsgerr)
                             : (int)sizeof(int);

    if (nlmsg_datalen(h) >= (int)sizeof code)
        memcpy(&code, nlmsg_data(h), sizeof code);
    if (h->nlmsg_flags & NLM_F_DUMP_INTR && !code)
        code = -EINTR;
    if (code >= 0)
        return;
    x->error[i] = code;
    if (!(h->nlmsg_flags & NLM_F_ACK_TLVS) || x->why[0] ||
        nlmsg_parse(h, head, tb, NLMSGERR_ATTR_MAX, NULL) < 0 ||
        !tb[NLMSGERR_ATTR_MSG])
        return;
    nla_strlcpy(x->why, tb[NLMSGERR_ATTR_MSG], sizeof x->why);
}

/* How many requests one received datagram finished. */
static int take(struct nlbatch *x, int n, nlbatch_answer *answer, void *arg)
{
    struct nlmsghdr *h = (struct nlmsghdr *)(void *)x->rx;
    int done = 0;

    for (; nlmsg_ok(h, n); h = nlmsg_next(h, &n)) {
        uint32_t i = h->nlmsg_seq - x->seq;

        if (i >= (uint32_t)x->count)
            continue; /* late answer to a batch that was given up */
        if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE) {
            take_end(x, (int)i, h);
            done++;
            continue;
        }
        if (h->nlmsg_flags & NLM_F_DUMP_INTR)
            x->error[i] = -EINTR;
        if (answer)
            answer(arg, (int)i, h);
    }
    return done;
}

int nlbatch_run(struct nlbatch *x, nlbatch_answer *answer, void *arg,
                struct err *e)
{
    int fd = nl_socket_get_fd(x->sk), done = 0;
    ssize_t n;

    if (x->full)
        return err_set(e, "too much for one netlink batch");
    if (!x->count)
        return 0;
    memset(x->error, 0, sizeof x->error);
    if (send(fd, x->tx, x->len, 0) != (ssize_t)x->len)
        return err_sys(e, "send to the kernel's rtnetlink");
    while (done < x->count) {
        n = recv(fd, x->rx, sizeof x->rx, MSG_TRUNC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "receive from the kernel's rtnetlink");
        if ((size_t)n > sizeof x->rx)
            return err_set(e, "an rtnetlink answer of %zd bytes", n);
        done += take(x, (int)n, answer, arg);
    }
    return 0;
}
