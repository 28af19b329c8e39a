// SPDX-License-Identifier: Apache-2.0
/* A network to test net-buffer in: veth pairs in the parts of vifs, a bridge
 * and an outside, in a namespace of the program's own, and raw frames with
 * numbers. Part of netbuf-test.c; the only test that includes it.
 *
 *     g0 - v0 \                   g: guest, v: vif, o: outside
 *     g1 - v1 - hub - p - o */
#ifndef TESTS_LAB_RAWNET_H
#define TESTS_LAB_RAWNET_H

#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/err.h"

static int failures, count;
static struct err err;

static void fail(int line, const char *what)
{
    printf("# line %d: %s: %s\n", line, what, err.text);
    failures++;
}
#define CHECK(x)                                                               \
    do {                                                                       \
        if (!(x))                                                              \
            fail(__LINE__, #x);                                                \
    } while (0)

static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int sh(const char *fmt, ...)
{
    char cmd[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    return system(cmd);
}

struct frame {
    uint8_t dst[6], src[6];
    uint16_t type;
    uint8_t magic[4];
    uint32_t seq;
    uint8_t data[1400];
} __attribute__((packed));

/* With the type 0x8100 "NB" is the VLAN tag, which the kernel takes out, and
 * "T\1" the type behind it. */
enum { TAGGED = 'T' << 8 | 1 };

static int raw_socket(const char *name)
{
    int fd = socket(AF_PACKET, SOCK_RAW, htons(0x0003)), big = 8 << 20;
    struct sockaddr_ll a = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(0x0003),
        .sll_ifindex = (int)if_nametoindex(name),
    };

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a))
        abort();
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
    return fd;
}

static int guest[2], outside;

static bool send_frame(int g, uint16_t type, uint32_t seq, size_t size)
{
    struct frame f = {
        .dst = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
        .src = {0x02, 0, 0, 0, 0, (uint8_t)(g + 1)},
        .type = htons(type),
        .magic = {'N', 'B', 'T', 1},
        .seq = seq,
    };

    return send(guest[g], &f, size, 0) == (ssize_t)size;
}

/* The sequence number of the next frame of ours outside, or -1 when none came
 * within the time; *type is its ethertype. */
static int64_t receive(int bound_ms, uint16_t *type)
{
    uint64_t end = clock_ns() + (uint64_t)bound_ms * NS_PER_MS;
    struct pollfd p = {outside, POLLIN, 0};
    struct sockaddr_ll from;
    struct frame f;

    for (;;) {
        socklen_t l = sizeof from;
        ssize_t n = recvfrom(outside, &f, sizeof f, MSG_DONTWAIT,
                             (struct sockaddr *)&from, &l);

        if (n < 0) {
            uint64_t now = clock_ns();

            if (now >= end)
                return -1;
            poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1);
            continue;
        }
        if (n < 22 || from.sll_pkttype == PACKET_OUTGOING)
            continue;
        if (f.type == htons(TAGGED)) {
            memcpy(&f.seq, f.magic, sizeof f.seq);
            f.type = htons(0x8100);
        } else if (memcmp(f.magic, "NBT\1", 4)) {
            continue;
        }
        if (type)
            *type = ntohs(f.type);
        return f.seq;
    }
}

/* Frames from..to come, in order, and then nothing for the moment. */
static bool received(uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i <= to; i++) {
        int64_t got = receive(3000, NULL);

        if (got != i) {
            printf("# frame %u expected, %lld came\n", i, (long long)got);
            return false;
        }
    }
    return receive(0, NULL) < 0;
}

/* No more than some hundred at once: a veth drops what doesn't fit into the
 * CPU's backlog (net.core.netdev_max_backlog). */
static void send_all(int g, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i <= to; i++)
        CHECK(send_frame(g, 0x0800, i, 100));
}

static void make_pair(int i)
{
    sh("ip link add v%d type veth peer name g%d", i, i);
    sh("ip link set v%d master hub up; ip link set g%d up", i, i);
    guest[i] = raw_socket(i ? "g1" : "g0");
}

static void build_network(void)
{
    if (unshare(CLONE_NEWNET))
        abort();
    sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 "
       "net.ipv6.conf.default.disable_ipv6=1");
    sh("ip link add hub type bridge forward_delay 0 mcast_snooping 0; "
       "ip link set hub up");
    sh("ip link add p type veth peer name o; ip link set p master hub up; "
       "ip link set o up");
    make_pair(0);
    make_pair(1);
    outside = raw_socket("o");
}

/* The bridge's ports forward as soon as their carrier is noticed. */
static void wait_for_bridge(void)
{
    int tries = 0;

    for (;; tries++) {
        send_frame(0, 0x0800, 1, 100);
        send_frame(1, 0x0800, 2, 100);
        if (receive(100, NULL) >= 0 && receive(100, NULL) >= 0)
            break;
        if (tries == 100) {
            printf("Bail out! the test network does not work\n");
            exit(1);
        }
    }
    while (receive(50, NULL) >= 0)
        ;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void show(const char *what, uint64_t *t, int n)
{
    qsort(t, (size_t)n, sizeof *t, by_value);
    printf("# %s: median %llu us, p99 %llu us, max %llu us\n", what,
           (unsigned long long)t[n / 2] / 1000,
           (unsigned long long)t[n * 99 / 100] / 1000,
           (unsigned long long)t[n - 1] / 1000);
}

#endif
