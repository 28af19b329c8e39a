// SPDX-License-Identifier: Apache-2.0
/* A cable that can be cut: forwards TCP connections on 127.0.0.1 from one port
 * to another. SIGUSR1 cuts it: what is said vanishes, nobody is told, new
 * connections are taken and hear nothing. SIGUSR2 heals it: connections of
 * before are reset, new ones go through. SIGUSR1 and SIGUSR2 leave a line on
 * standard output when they are done. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAIRS 128

/* end[0] is who connected, end[1] where it goes to; -1: not there. */
static struct pair {
    bool used, over[2]; /* over: it has said all that it will */
    int end[2];
} pairs[PAIRS];

static bool cut;
static volatile sig_atomic_t wanted; /* the last signal */

static void on_signal(int number)
{
    wanted = number;
}

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int listen_on(int port)
{
    struct sockaddr_in a = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 64)) {
        perror("proxy");
        exit(1);
    }
    return fd;
}

static void pair_end(struct pair *p)
{
    struct linger reset = {.l_onoff = 1};

    for (int i = 0; i < 2; i++) {
        if (p->end[i] < 0)
            continue;
        setsockopt(p->end[i], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(p->end[i]);
    }
    p->used = false;
}

static void arrival(int listener, int target)
{
    struct sockaddr_in a = loopback(target);
    int fd = accept(listener, NULL, NULL), i = 0;

    while (i < PAIRS && pairs[i].used)
        i++;
    if (fd < 0 || i == PAIRS) {
        close(fd);
        return;
    }
    pairs[i] = (struct pair){.used = true, .end = {fd, -1}};
    if (cut)
        return;
    pairs[i].end[1] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(pairs[i].end[1], (struct sockaddr *)&a, sizeof a))
        pair_end(&pairs[i]);
}

/* Blocking on a full socket is fine: so does a cable. An end that goes while
 * it is cut is not told of either. */
static bool forward(struct pair *p, int i)
{
    int from = p->end[i], to = p->end[1 - i];
    char bytes[65536];
    ssize_t n = recv(from, bytes, sizeof bytes, MSG_DONTWAIT);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0) {
        p->over[i] = true;
        if (!cut)
            shutdown(to, SHUT_WR);
        return cut || !p->over[1 - i];
    }
    for (ssize_t at = 0; !cut && at < n;) {
        ssize_t r = send(to, bytes + at, (size_t)(n - at), MSG_NOSIGNAL);
        if (r < 0 && errno == EINTR && wanted)
            return true; /* the signal is about to cut it */
        if (r < 0)
            return false;
        at += r;
    }
    return true;
}

static void signal_obey(void)
{
    int number = wanted;

    wanted = 0;
    if (!number)
        return;
    cut = number == SIGUSR1;
    for (int i = 0; !cut && i < PAIRS; i++) {
        if (pairs[i].used)
            pair_end(&pairs[i]);
    }
    puts(cut ? "cut" : "healed");
    fflush(stdout);
}

/* The signal is obeyed within 50 ms, whether something moves or not. */
static void turn(int listener, int target)
{
    struct pollfd fds[1 + 2 * PAIRS] = {{listener, POLLIN, 0}};

    for (int i = 0; i < 2 * PAIRS; i++) {
        const struct pair *p = &pairs[i / 2];
        fds[1 + i].fd = p->used && !p->over[i % 2] ? p->end[i % 2] : -1;
        fds[1 + i].events = POLLIN;
    }
    int n = poll(fds, 1 + 2 * PAIRS, 50);
    signal_obey();
    if (n <= 0)
        return;
    for (int i = 0; i < 2 * PAIRS; i++) {
        struct pair *p = &pairs[i / 2];
        if (p->used && fds[1 + i].revents && fds[1 + i].fd == p->end[i % 2] &&
            !forward(p, i % 2))
            pair_end(p);
    }
    if (fds[0].revents)
        arrival(listener, target);
}

int main(int argc, char **argv)
{
    struct sigaction act = {.sa_handler = on_signal};

    if (argc != 3) {
        fputs("usage: proxy PORT TARGET-PORT\n", stderr);
        return 2;
    }
    sigaction(SIGUSR1, &act, NULL);
    sigaction(SIGUSR2, &act, NULL);
    int listener = listen_on(atoi(argv[1])), target = atoi(argv[2]);
    puts("ready");
    fflush(stdout);
    for (;;)
        turn(listener, target);
}
