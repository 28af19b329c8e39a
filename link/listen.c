// SPDX-License-Identifier: Apache-2.0
/* The listening socket and the preambles of those who connect; see session.h.
 * Nobody here has shown a key: everything is bounded in number, size and
 * time. Loop thread only. */
#include "link/session_priv.h"

#include "common/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HALF_OPEN_MAX  64
#define PREAMBLE_S     5.
#define ACCEPTS_A_TURN 16
/* After running out of descriptors, say: the socket stays readable, and
 * trying at once again would only burn the processor. */
#define ACCEPT_PAUSE_S 0.2

struct half_open {
    struct link_listener *l;
    struct half_open *next; /* older first */
    struct ev_io in;
    struct ev_timer deadline;
    int fd;
    uint8_t bytes[WIRE_PREAMBLE];
    size_t len;
    char from[64];
};

struct link_listener {
    struct ev_loop *loop;
    link_arrival *cb;
    void *arg;
    int fd;
    uint16_t port;
    struct ev_io in;
    struct ev_timer pause;
    struct half_open *oldest;
    unsigned count;
};

/* Take it out of the list and free it; returns its descriptor. */
static int half_open_end(struct half_open *h)
{
    struct link_listener *l = h->l;
    int fd = h->fd;

    for (struct half_open **p = &l->oldest; *p; p = &(*p)->next)
        if (*p == h) {
            *p = h->next;
            l->count--;
            break;
        }
    ev_io_stop(l->loop, &h->in);
    ev_timer_stop(l->loop, &h->deadline);
    free(h);
    return fd;
}

static void on_preamble(struct ev_loop *loop, struct ev_io *w, int events)
{
    struct half_open *h = w->data;
    struct link_listener *l = h->l;
    struct wire_preamble p;
    char from[sizeof h->from];

    (void)loop;
    (void)events;
    ssize_t r =
        recv(h->fd, h->bytes + h->len, sizeof h->bytes - h->len, MSG_DONTWAIT);
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (r > 0)
        h->len += (size_t)r;
    if (r > 0 && h->len < sizeof h->bytes)
        return;
    int bad = r <= 0 || wire_preamble_get(&p, h->bytes, NULL);
    memcpy(from, h->from, sizeof from);
    int fd = half_open_end(h);
    if (bad)
        close(fd);
    else
        l->cb(l->arg, &p, fd, from);
}

static void on_deadline(struct ev_loop *loop, struct ev_timer *w, int events)
{
    (void)loop;
    (void)events;
    close(half_open_end(w->data));
}

static void format_from(const struct sockaddr_storage *a, socklen_t len,
                        char *out, size_t size)
{
    char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";

    getnameinfo((const struct sockaddr *)a, len, host, sizeof host, port,
                sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    const char *plain = strncmp(host, "::ffff:", 7) ? host : host + 7;
    bool v6 = strchr(plain, ':') != NULL;
    snprintf(out, size, "%s%.46s%s:%.5s", v6 ? "[" : "", plain, v6 ? "]" : "",
             port);
}

static void half_open_new(struct link_listener *l, int fd, const char *from)
{
    if (l->count >= HALF_OPEN_MAX)
        close(half_open_end(l->oldest));
    struct half_open *h = calloc(1, sizeof *h);
    if (!h)
        abort();
    h->l = l;
    h->fd = fd;
    snprintf(h->from, sizeof h->from, "%s", from);
    struct half_open **p = &l->oldest;
    while (*p)
        p = &(*p)->next;
    *p = h;
    l->count++;
    ev_io_init(&h->in, on_preamble, fd, EV_READ);
    ev_timer_init(&h->deadline, on_deadline, PREAMBLE_S, 0.);
    h->in.data = h->deadline.data = h;
    ev_io_start(l->loop, &h->in);
    ev_timer_start(l->loop, &h->deadline);
}

static void on_connection(struct ev_loop *loop, struct ev_io *w, int events)
{
    struct link_listener *l = w->data;

    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_storage a;
        socklen_t n = sizeof a;
        char from[64];
        int fd = accept4(l->fd, (struct sockaddr *)&a, &n,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            ev_io_stop(loop, &l->in);
            ev_timer_set(&l->pause, ACCEPT_PAUSE_S, 0.);
            ev_timer_start(loop, &l->pause);
            return;
        }
        format_from(&a, n, from, sizeof from);
        half_open_new(l, fd, from);
    }
}

static void on_pause(struct ev_loop *loop, struct ev_timer *w, int events)
{
    struct link_listener *l = w->data;

    (void)events;
    ev_io_start(loop, &l->in);
}

/* --- The socket -------------------------------------------------------------
 */

static int address_of(const char *address, uint16_t port,
                      struct sockaddr_storage *a, socklen_t *n)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *list;
    char service[8];

    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(address, service, &hints, &list))
        return -1;
    memcpy(a, list->ai_addr, list->ai_addrlen);
    *n = list->ai_addrlen;
    freeaddrinfo(list);
    return 0;
}

/* Returns the descriptor or -1 with errno. */
static int socket_listen(const struct sockaddr_storage *a, socklen_t n)
{
    CLEANUP_CLOSE int fd =
        socket(a->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int yes = 1, no = 0;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (a->ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (bind(fd, (const struct sockaddr *)a, n) || listen(fd, 128))
        return -1;
    return take_fd(&fd);
}

static int listener_open(const char *address, uint16_t port, struct err *e)
{
    struct sockaddr_storage a;
    socklen_t n;

    if (address_of(address ? address : "::", port, &a, &n))
        return err_kind(e, ERR_USAGE, "\"%s\" is not a numeric address",
                        address);
    int fd = socket_listen(&a, n);
    if (fd < 0 && !address && errno == EAFNOSUPPORT &&
        !address_of("0.0.0.0", port, &a, &n))
        fd = socket_listen(&a, n); /* a kernel without IPv6 */
    if (fd < 0) {
        bool used = errno == EADDRINUSE;
        err_sys(e, "listen on %s port %u", address ? address : "all addresses",
                port);
        if (used)
            err_hint(e, "another process has the port: ss -ltnp sport = %u",
                     port);
    }
    return fd;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    getsockname(fd, (struct sockaddr *)&a, &n);
    memcpy(&v4, &a, sizeof v4);
    memcpy(&v6, &a, sizeof v6);
    return ntohs(a.ss_family == AF_INET6 ? v6.sin6_port : v4.sin_port);
}

int link_listen(struct ev_loop *loop, const char *address, uint16_t port,
                link_arrival *cb, void *arg, struct link_listener **out,
                struct err *e)
{
    int fd = listener_open(address, port, e);

    *out = NULL;
    if (fd < 0)
        return -1;
    struct link_listener *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->loop = loop;
    l->cb = cb;
    l->arg = arg;
    l->fd = fd;
    l->port = port_of(fd);
    ev_io_init(&l->in, on_connection, fd, EV_READ);
    ev_timer_init(&l->pause, on_pause, 0., 0.);
    l->in.data = l->pause.data = l;
    ev_io_start(loop, &l->in);
    *out = l;
    return 0;
}

uint16_t link_listener_port(const struct link_listener *l)
{
    return l->port;
}

void link_listener_free(struct link_listener *l)
{
    if (!l)
        return;
    while (l->oldest)
        close(half_open_end(l->oldest));
    ev_io_stop(l->loop, &l->in);
    ev_timer_stop(l->loop, &l->pause);
    close(l->fd);
    free(l);
}
