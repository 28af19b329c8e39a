// SPDX-License-Identifier: Apache-2.0
//
// Listens in the outside client's place for the datagrams "SEQ MONOTONIC_NS"
// that the guest's service sends (tick= on the guest's command line), and finds
// the longest silence, by its own clock and by the guest's. A checkpoint's stop
// shows here, even when the guest's clock does not see it. Results are JSON.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static struct {
    uint64_t count, lost, last_seq;
    int64_t last_ns, gap_ns;             // by our clock
    int64_t guest_last_ns, guest_gap_ns; // by the guest's
    double gap_start;                    // Unix time
    double last_wall;
} ticks;

static volatile sig_atomic_t stopping;

static void on_signal(int sig)
{
    (void)sig;
    stopping = 1;
}

static int64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void tick(uint64_t seq, int64_t guest_ns)
{
    int64_t now = clock_ns(CLOCK_MONOTONIC);

    if (ticks.count++) {
        if (seq > ticks.last_seq + 1)
            ticks.lost += seq - ticks.last_seq - 1;
        if (now - ticks.last_ns > ticks.gap_ns) {
            ticks.gap_ns = now - ticks.last_ns;
            ticks.gap_start = ticks.last_wall;
        }
        if (guest_ns - ticks.guest_last_ns > ticks.guest_gap_ns)
            ticks.guest_gap_ns = guest_ns - ticks.guest_last_ns;
    }
    ticks.last_seq = seq;
    ticks.last_ns = now;
    ticks.last_wall = (double)clock_ns(CLOCK_REALTIME) / 1e9;
    ticks.guest_last_ns = guest_ns;
}

static void receive(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t seq;
    int64_t guest_ns;
    char text[64];
    ssize_t n;

    poll(&p, 1, 100);
    while ((n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT)) > 0) {
        text[n] = '\0';
        if (sscanf(text, "%" SCNu64 " %" SCNd64, &seq, &guest_ns) == 2)
            tick(seq, guest_ns);
    }
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0) {
        perror("tick-listen");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    struct sigaction sa = {.sa_handler = on_signal};
    int64_t end = INT64_MAX;
    int fd;

    if (argc < 2 || argc > 3) {
        fputs("usage: tick-listen PORT [SECONDS]\n", stderr);
        return 2;
    }
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    fd = listen_on((uint16_t)atoi(argv[1]));
    if (argc == 3)
        end = clock_ns(CLOCK_MONOTONIC) + (int64_t)(atof(argv[2]) * 1e9);
    while (!stopping && clock_ns(CLOCK_MONOTONIC) < end)
        receive(fd);
    printf("{\"ticks\": %" PRIu64 ", \"lost\": %" PRIu64
           ", \"longest_gap_ms\": %.3f, \"longest_gap_start\": %.3f"
           ", \"longest_guest_gap_ms\": %.3f}\n",
           ticks.count, ticks.lost, (double)ticks.gap_ns / 1e6, ticks.gap_start,
           (double)ticks.guest_gap_ns / 1e6);
    return ticks.count ? 0 : 1;
}
