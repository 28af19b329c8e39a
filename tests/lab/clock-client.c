// SPDX-License-Identifier: Apache-2.0
//
// Asks the clock server in the lab's guest (tests/guest/load.c) for its clocks
// until SIGTERM, and prints a line for each second: "T MONOTONIC REALTIME N".
// T is our own monotonic time in seconds; then, in microseconds, by how much
// each of the guest's clocks was ahead of ours: the least of what N requests
// said, which is the one that was on its way for the shortest time. Answers may
// take as long as they like: only when a request was sent and when the guest
// had it matters.

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
#include <unistd.h>

#define CLOCK_PORT 7003
#define NS_PER_S   1000000000LL
#define PERIOD_NS  20000000LL
#define SECONDS    3600

static struct {
    int64_t mono, real; // ns ahead of us, the least
    unsigned count;
} seconds[SECONDS];

static volatile sig_atomic_t stopping;

static void on_signal(int sig)
{
    (void)sig;
    stopping = 1;
}

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

// An answer repeats the request, which is the time it was sent at.
static void answer(const char *text, int64_t start)
{
    int64_t sent, mono, real;

    if (sscanf(text, "%" SCNd64 " %" SCNd64 " %" SCNd64, &sent, &mono, &real) !=
            3 ||
        sent < start || (sent - start) / NS_PER_S >= SECONDS)
        return;
    size_t at = (size_t)((sent - start) / NS_PER_S);
    if (!seconds[at].count || mono - sent < seconds[at].mono)
        seconds[at].mono = mono - sent;
    if (!seconds[at].count || real - sent < seconds[at].real)
        seconds[at].real = real - sent;
    seconds[at].count++;
}

static void receive(int fd, int64_t start, int64_t until)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char text[128];

    for (int64_t left; (left = until - now_ns()) > 0 && !stopping;) {
        if (poll(&p, 1, (int)(left / 1000000) + 1) <= 0)
            continue;
        ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
        if (n <= 0)
            continue;
        text[n] = '\0';
        answer(text, start);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons(CLOCK_PORT)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int64_t start = now_ns();
    char text[32];

    if (argc != 2 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1) {
        fprintf(stderr, "usage: clock-client IPV4\n");
        return 2;
    }
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr)) {
        perror("clock-client");
        return 1;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    for (int64_t next = start; !stopping; next += PERIOD_NS) {
        int n = snprintf(text, sizeof text, "%" PRId64, now_ns());
        send(fd, text, (size_t)n, MSG_DONTWAIT);
        receive(fd, start, next + PERIOD_NS);
    }
    for (int i = 0; i < SECONDS; i++)
        if (seconds[i].count)
            printf("%.0f %.1f %.1f %u\n", (double)start / NS_PER_S + i,
                   (double)seconds[i].mono / 1000,
                   (double)seconds[i].real / 1000, seconds[i].count);
    return 0;
}
