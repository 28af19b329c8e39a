// SPDX-License-Identifier: Apache-2.0
/* Making a connection: resolve where needed, connect without blocking, send
 * the preamble, hand over to TLS. Loop thread, but for the resolver's helper
 * threads, which share nothing with it but one socket pair each. */
#include "link/session_priv.h"

#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A resolver that hangs must not collect threads. */
#define RESOLVERS_MAX 8
/* Unsent bytes in the socket beyond which it is not writable: what waits
 * there can't be overtaken by a beat. */
#define NOTSENT_LOWAT (256 << 10)

static atomic_int resolvers;

static void option(int fd, int level, int name, int value)
{
    /* Not all exist on the socket pairs that tests use. */
    (void)setsockopt(fd, level, name, &value, sizeof value);
}

void socket_tune(int fd)
{
    option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, TCP_UNACKED_MS);
    option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LOWAT);
    option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
    option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
    option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

void socket_cork(int fd, bool on)
{
    option(fd, IPPROTO_TCP, TCP_CORK, on);
}

int socket_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ||
        fcntl(fd, F_SETFD, FD_CLOEXEC))
        return -1;
    return 0;
}

/* --- Names ------------------------------------------------------------------
 */

/* What a helper thread sends back, as one message. */
struct resolved {
    int error; /* of getaddrinfo() */
    unsigned count;
    socklen_t len[RESOLVED_MAX];
    struct sockaddr_storage addr[RESOLVED_MAX];
};

static void resolve(const char *host, uint16_t port, int flags,
                    struct resolved *out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char service[8];

    memset(out, 0, sizeof *out);
    snprintf(service, sizeof service, "%u", port);
    out->error = getaddrinfo(host, service, &hints, &list);
    if (out->error)
        return;
    for (struct addrinfo *a = list; a && out->count < RESOLVED_MAX;
         a = a->ai_next) {
        memcpy(&out->addr[out->count], a->ai_addr, a->ai_addrlen);
        out->len[out->count++] = a->ai_addrlen;
    }
    freeaddrinfo(list);
}

struct question {
    char host[256];
    uint16_t port;
    int fd;
};

static void *resolver(void *arg)
{
    struct question *q = arg;
    struct resolved answer;

    resolve(q->host, q->port, AI_ADDRCONFIG, &answer);
    /* Nobody may be there any more to hear it. */
    ssize_t ignored = send(q->fd, &answer, sizeof answer, MSG_NOSIGNAL);
    (void)ignored;
    close(q->fd);
    free(q);
    atomic_fetch_sub(&resolvers, 1);
    return NULL;
}

/* Signals are for the threads that asked for them. */
static int thread_start(struct question *q)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, old;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&thread, &attr, resolver, q);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return r;
}

static int resolver_start(struct link_session *s, const char *host,
                          struct err *e)
{
    int pair[2];

    if (atomic_fetch_add(&resolvers, 1) >= RESOLVERS_MAX) {
        atomic_fetch_sub(&resolvers, 1);
        return err_set(e, "the resolver does not answer: %d questions wait",
                       RESOLVERS_MAX);
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
        atomic_fetch_sub(&resolvers, 1);
        return err_sys(e, "make a socket pair");
    }
    struct question *q = calloc(1, sizeof *q);
    if (!q)
        abort();
    snprintf(q->host, sizeof q->host, "%s", host);
    q->port = s->port;
    q->fd = pair[1];
    int r = thread_start(q);
    if (r) {
        close(pair[0]);
        close(pair[1]);
        free(q);
        atomic_fetch_sub(&resolvers, 1);
        errno = r;
        return err_sys(e, "start a thread");
    }
    s->fd = pair[0];
    s->state = S_RESOLVING;
    ev_io_set(&s->in, s->fd, EV_READ);
    ev_io_start(s->loop, &s->in);
    return 0;
}

/* --- Connecting -------------------------------------------------------------
 */

static void fail(struct link_session *s, enum err_kind kind, const char *text)
{
    struct err e = ERR_INIT;
    char who[400];

    session_who(s, who, sizeof who);
    err_kind(&e, kind, "cannot reach %s: %s", who, text);
    err_hint(&e, "is the host up, and understudyd running there?");
    session_end(s, &e);
}

static void socket_close(struct link_session *s)
{
    ev_io_stop(s->loop, &s->in);
    ev_io_stop(s->loop, &s->out);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

/* Begin with the next address; an error leaves it to the caller to go on. */
static int attempt(struct link_session *s)
{
    unsigned i = s->addr_next++;
    double left = s->deadline_at - ev_now(s->loop);

    socket_close(s);
    s->fd = socket(s->addr[i].ss_family,
                   SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        return -1;
    socket_tune(s->fd);
    if (connect(s->fd, (struct sockaddr *)&s->addr[i], s->addr_len[i]) &&
        errno != EINPROGRESS)
        return -1;
    s->state = S_CONNECTING;
    ev_io_set(&s->out, s->fd, EV_WRITE);
    ev_io_start(s->loop, &s->out);
    /* One address that swallows everything must leave time for the others. */
    session_deadline(s, left / (s->addr_count - i));
    return 0;
}

static void attempt_next(struct link_session *s, int error)
{
    while (s->addr_next < s->addr_count) {
        if (attempt(s) == 0)
            return;
        error = errno;
    }
    socket_close(s);
    fail(s, error == ETIMEDOUT ? ERR_TIMEOUT : ERR_GONE,
         error == ETIMEDOUT ? "no answer in time" : strerror(error));
}

static void use(struct link_session *s, const struct resolved *r)
{
    s->addr_count = r->count;
    memcpy(s->addr, r->addr, sizeof s->addr);
    memcpy(s->addr_len, r->len, sizeof s->addr_len);
    attempt_next(s, EADDRNOTAVAIL);
}

void connect_readable(struct link_session *s)
{
    struct resolved r;
    ssize_t n = recv(s->fd, &r, sizeof r, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    socket_close(s);
    if (n != (ssize_t)sizeof r)
        fail(s, ERR_FAILED, "the resolver died");
    else if (r.error)
        fail(s, ERR_FAILED, gai_strerror(r.error));
    else
        use(s, &r);
}

void connect_writable(struct link_session *s)
{
    struct wire_preamble p = {.version = WIRE_PREAMBLE_VERSION,
                              .kind = s->kind};
    uint8_t bytes[WIRE_PREAMBLE];
    int error = 0;
    socklen_t n = sizeof error;

    ev_io_stop(s->loop, &s->out);
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &n))
        error = errno;
    if (error) {
        attempt_next(s, error);
        return;
    }
    memcpy(p.uuid, s->uuid, sizeof p.uuid);
    wire_preamble_put(&p, bytes);
    /* A new connection has room for 32 bytes. */
    if (send(s->fd, bytes, sizeof bytes, MSG_NOSIGNAL) != sizeof bytes) {
        attempt_next(s, errno);
        return;
    }
    session_start_tls(s);
    if (s->state == S_HANDSHAKE)
        session_deadline(s, s->deadline_at - ev_now(s->loop));
}

void connect_late(struct link_session *s)
{
    if (s->state == S_RESOLVING)
        fail(s, ERR_TIMEOUT, "the resolver did not answer in time");
    else
        attempt_next(s, ETIMEDOUT);
}

int link_connect(struct ev_loop *loop, struct link_tls *tls,
                 const struct link_target *target,
                 const struct link_callbacks *cb, void *arg,
                 struct link_session **out, struct err *e)
{
    struct link_session *s = session_new(loop, tls, target->kind, cb, arg);
    unsigned ms =
        target->deadline_ms ? target->deadline_ms : CONNECT_DEFAULT_MS;
    bool v6 = strchr(target->address, ':') != NULL;
    struct resolved r;

    *out = NULL;
    s->port = target->port;
    memcpy(s->peer_pin, target->pin, PIN_BYTES);
    memcpy(s->uuid, target->uuid, sizeof s->uuid);
    snprintf(s->peer_name, sizeof s->peer_name, "%s", target->peer);
    snprintf(s->where, sizeof s->where, "%s%.255s%s:%u", v6 ? "[" : "",
             target->address, v6 ? "]" : "", target->port);
    ev_now_update(loop);
    s->deadline_at = ev_now(loop) + ms / 1000.;
    session_deadline(s, ms / 1000.);
    resolve(target->address, target->port, AI_NUMERICHOST, &r);
    if (r.error == 0) {
        use(s, &r);
    } else if (resolver_start(s, target->address, e)) {
        link_drop(s);
        return err_add(e, "connect to %s", target->peer);
    }
    *out = s;
    return 0;
}
