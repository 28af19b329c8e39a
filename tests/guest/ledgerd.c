// SPDX-License-Identifier: Apache-2.0
//
// The service of the lab's guest: an append-only ledger in memory. Port 7000
// takes lines "SEQ NONCE" and answers "SEQ COUNT NONCE"; port 7001 dumps the
// ledger as lines "INDEX NONCE" and closes. Children send a datagram every so
// often (--tick) and write to memory at a given rate (--dirty). One thread, one
// poll loop.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LEDGER_PORT 7000
#define DUMP_PORT   7001
#define LEDGER_MAX  (1u << 20)
#define CONN_MAX    64
#define LINE_MAX_   64
#define NS_PER_S    1000000000L

struct conn {
    int fd;           // -1: free slot
    bool dump;        // came in on the dump port
    uint32_t dumped;  // entries written so far
    size_t in_bytes;  // in `in`
    size_t out_bytes; // in `out`
    char in[4096];
    char out[65536];
};

static uint64_t ledger[LEDGER_MAX];
static uint32_t ledger_count;
static struct conn conns[CONN_MAX];

static void die(const char *what)
{
    fprintf(stderr, "ledgerd: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in6 addr = {.sin6_family = AF_INET6,
                                .sin6_addr = in6addr_any,
                                .sin6_port = htons(port)};
    int one = 1;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        die("bind");
    if (listen(fd, 16) < 0)
        die("listen");
    return fd;
}

static void conn_close(struct conn *c)
{
    close(c->fd);
    c->fd = -1;
}

static void conn_accept(int listener, bool dump)
{
    int one = 1;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (struct conn *c = conns; c < conns + CONN_MAX; c++) {
        if (c->fd >= 0)
            continue;
        c->fd = fd;
        c->dump = dump;
        c->dumped = 0;
        c->in_bytes = c->out_bytes = 0;
        return;
    }
    close(fd);
}

static size_t out_room(const struct conn *c)
{
    return sizeof c->out - c->out_bytes;
}

// Appends the entry and its answer; false: the request makes no sense.
static bool request(struct conn *c, const char *line)
{
    uint64_t seq, nonce;
    char rest;

    if (sscanf(line, "%" SCNu64 " %" SCNx64 "%c", &seq, &nonce, &rest) != 2)
        return false;
    if (ledger_count == LEDGER_MAX)
        return false;
    ledger[ledger_count++] = nonce;
    c->out_bytes += (size_t)snprintf(c->out + c->out_bytes, out_room(c),
                                     "%" PRIu64 " %" PRIu32 " %016" PRIx64 "\n",
                                     seq, ledger_count, nonce);
    return true;
}

// Answers whole lines while there is room for answers.
static bool conn_serve(struct conn *c)
{
    size_t done = 0;
    char *end;

    while (out_room(c) >= LINE_MAX_ &&
           (end = memchr(c->in + done, '\n', c->in_bytes - done))) {
        *end = '\0';
        if (!request(c, c->in + done))
            return false;
        done = (size_t)(end - c->in) + 1;
    }
    c->in_bytes -= done;
    memmove(c->in, c->in + done, c->in_bytes);
    return true;
}

static bool conn_read(struct conn *c)
{
    ssize_t n = read(c->fd, c->in + c->in_bytes, sizeof c->in - c->in_bytes);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    c->in_bytes += (size_t)n;
    return true;
}

static void dump_fill(struct conn *c)
{
    while (c->dumped < ledger_count && out_room(c) >= LINE_MAX_) {
        c->out_bytes += (size_t)snprintf(c->out + c->out_bytes, out_room(c),
                                         "%" PRIu32 " %016" PRIx64 "\n",
                                         c->dumped + 1, ledger[c->dumped]);
        c->dumped++;
    }
}

static bool conn_write(struct conn *c)
{
    ssize_t n = write(c->fd, c->out, c->out_bytes);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->out_bytes -= (size_t)n;
    memmove(c->out, c->out + n, c->out_bytes);
    return true;
}

// One step of a connection; false: it is over.
static bool conn_step(struct conn *c, short events)
{
    if (events & (POLLERR | POLLNVAL))
        return false;
    if (c->dump) {
        dump_fill(c);
    } else {
        if ((events & (POLLIN | POLLHUP)) && !conn_read(c))
            return false;
        if (!conn_serve(c))
            return false;
    }
    if (c->out_bytes && !conn_write(c))
        return false;
    return !(c->dump && c->dumped == ledger_count && !c->out_bytes);
}

static short conn_wants(const struct conn *c)
{
    short events = c->out_bytes || c->dump ? POLLOUT : 0;

    if (!c->dump && c->in_bytes < sizeof c->in)
        events |= POLLIN;
    return events;
}

static void serve(int ledger_fd, int dump_fd)
{
    struct pollfd p[CONN_MAX + 2];

    p[CONN_MAX] = (struct pollfd){.fd = ledger_fd, .events = POLLIN};
    p[CONN_MAX + 1] = (struct pollfd){.fd = dump_fd, .events = POLLIN};
    for (;;) {
        for (int i = 0; i < CONN_MAX; i++) {
            p[i].fd = conns[i].fd;
            p[i].events = p[i].fd < 0 ? 0 : conn_wants(&conns[i]);
        }
        if (poll(p, CONN_MAX + 2, -1) < 0)
            continue;
        for (int i = 0; i < CONN_MAX; i++)
            if (p[i].fd >= 0 && p[i].revents &&
                !conn_step(&conns[i], p[i].revents))
                conn_close(&conns[i]);
        if (p[CONN_MAX].revents)
            conn_accept(ledger_fd, false);
        if (p[CONN_MAX + 1].revents)
            conn_accept(dump_fd, true);
    }
}

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

// Sleeps until *next and moves it on; a tick that was missed is not made up
// for.
static void period_wait(int64_t *next, int64_t period_ns)
{
    struct timespec ts = {.tv_sec = *next / NS_PER_S,
                          .tv_nsec = *next % NS_PER_S};
    int64_t now;

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
    now = now_ns();
    *next += period_ns;
    if (*next < now)
        *next = now + period_ns;
}

// True in the child, which dies with its parent.
static bool child(void)
{
    pid_t parent = getpid(), pid = fork();

    if (pid < 0)
        die("fork");
    if (pid > 0)
        return false;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    return true;
}

// Sends "SEQ MONOTONIC_NS" to "ADDR:PORT" (IPv4) for ever. What the kernel does
// not take, its buffer being full, has no number: a hole is a datagram lost.
static void tick(const char *to, int64_t period_ns)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    const char *colon = strrchr(to, ':');
    char host[INET_ADDRSTRLEN] = "", text[LINE_MAX_];
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    int64_t next = now_ns();

    if (fd < 0)
        die("socket");
    if (!colon || (size_t)(colon - to) >= sizeof host)
        die("--tick needs ADDR:PORT");
    memcpy(host, to, (size_t)(colon - to));
    addr.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &addr.sin_addr) != 1)
        die("--tick needs an IPv4 address");
    for (uint64_t seq = 1;;) {
        int n = snprintf(text, sizeof text, "%" PRIu64 " %" PRId64 "\n", seq,
                         now_ns());
        if (sendto(fd, text, (size_t)n, MSG_DONTWAIT, (struct sockaddr *)&addr,
                   sizeof addr) > 0)
            seq++;
        period_wait(&next, period_ns);
    }
}

// Touches pages of a region in turn: `kib_s` KiB of pages a second, 100 steps a
// second, a few bytes of each page changed.
static void dirty(uint64_t kib_s, uint64_t mib)
{
    size_t bytes = mib << 20, at = 0;
    uint64_t due = 0, value = 0;
    int64_t next = now_ns();
    uint8_t *region = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (region == MAP_FAILED)
        die("mmap");
    for (;;) {
        for (due += kib_s; due >= 400; due -= 400) {
            memcpy(region + at + (++value * 64) % 4032, &value, sizeof value);
            at = (at + 4096) % bytes;
        }
        period_wait(&next, NS_PER_S / 100);
    }
}

int main(int argc, char **argv)
{
    const char *tick_to = NULL;
    uint64_t dirty_kib_s = 0, dirty_mib = 32;
    int64_t tick_us = 1000;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--tick"))
            tick_to = argv[i + 1];
        else if (!strcmp(argv[i], "--tick-us"))
            tick_us = atoll(argv[i + 1]);
        else if (!strcmp(argv[i], "--dirty"))
            dirty_kib_s = strtoull(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--dirty-mib"))
            dirty_mib = strtoull(argv[i + 1], NULL, 10);
    }
    signal(SIGPIPE, SIG_IGN);
    if (tick_to && tick_us > 0 && child())
        tick(tick_to, tick_us * 1000);
    if (dirty_kib_s && dirty_mib && child())
        dirty(dirty_kib_s, dirty_mib);
    for (int i = 0; i < CONN_MAX; i++)
        conns[i].fd = -1;
    serve(listen_on(LEDGER_PORT), listen_on(DUMP_PORT));
}
