// SPDX-License-Identifier: Apache-2.0
/* The life of a session: made by link_connect() or link_accept(), driven by
 * its watchers, ended once. session_io.c moves its bytes. Loop thread only. */
#include "link/session_priv.h"

#include "common/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/sockios.h>
#include <openssl/ssl.h>

void session_who(const struct link_session *s, char *out, size_t size)
{
    if (s->peer_name[0])
        snprintf(out, size, "%s (%s)", s->peer_name, s->where);
    else
        snprintf(out, size, "%s", s->where);
}

/* --- The end ---------------------------------------------------------------
 */

static void session_release(struct link_session *s)
{
    ev_io_stop(s->loop, &s->in);
    ev_io_stop(s->loop, &s->out);
    ev_timer_stop(s->loop, &s->deadline);
    ev_timer_stop(s->loop, &s->again);
    handshake_over(s, false);
    if (s->pipe)
        pipe_session_gone(s->pipe);
    s->pipe = NULL;
    SSL_free(s->ssl);
    s->ssl = NULL;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static void session_free(struct link_session *s)
{
    session_release(s);
    queue_free(&s->urgent);
    queue_free(&s->bulk);
    free(s->current);
    buf_free(&s->payload);
    free(s);
}

/* Run `work` so that link_drop() from a callback inside it does not free what
 * is in use. */
static void session_run(struct link_session *s,
                        void (*work)(struct link_session *))
{
    s->depth++;
    work(s);
    s->depth--;
    if (s->dropped && s->depth == 0)
        session_free(s);
}

static void tell_closed(struct link_session *s)
{
    session_release(s);
    s->dropped = true; /* freed by session_run(), whatever the callee does */
    if (s->cb.closed)
        s->cb.closed(s, &s->why, s->arg);
}

void session_again(struct link_session *s)
{
    ev_timer_start(s->loop, &s->again);
}

void session_deadline(struct link_session *s, double seconds)
{
    ev_now_update(s->loop); /* a long callback must not shorten it */
    ev_timer_stop(s->loop, &s->deadline);
    ev_timer_set(&s->deadline, seconds > 0 ? seconds : 0, 0.);
    ev_timer_start(s->loop, &s->deadline);
}

void session_end(struct link_session *s, const struct err *why)
{
    if (s->state == S_DEAD)
        return;
    if (why && !s->why.kind)
        s->why = *why;
    s->state = S_DEAD;
    ev_io_stop(s->loop, &s->in);
    ev_io_stop(s->loop, &s->out);
    ev_timer_stop(s->loop, &s->deadline);
    if (s->pipe)
        pipe_session_gone(s->pipe);
    s->pipe = NULL;
    session_again(s);
}

void session_end_gently(struct link_session *s, const struct err *why)
{
    if (s->state == S_DEAD)
        return;
    if (!s->why.kind)
        s->why = *why;
    /* Closing with unread input makes TCP send a reset, which would take the
     * alert that explains everything out of the peer's hands. */
    shutdown(s->fd, SHUT_WR);
    s->state = S_LINGER;
    session_deadline(s, LINGER_MS / 1000.);
}

/* --- Watchers ---------------------------------------------------------------
 */

static void on_input(struct ev_loop *loop, struct ev_io *w, int events)
{
    struct link_session *s = w->data;

    (void)loop;
    (void)events;
    session_run(s, s->state == S_RESOLVING ? connect_readable : session_pump);
}

static void on_output(struct ev_loop *loop, struct ev_io *w, int events)
{
    struct link_session *s = w->data;

    (void)loop;
    (void)events;
    session_run(s, s->state == S_CONNECTING ? connect_writable : session_pump);
}

static void on_again(struct ev_loop *loop, struct ev_timer *w, int events)
{
    struct link_session *s = w->data;

    (void)loop;
    (void)events;
    session_run(s, s->state == S_DEAD ? tell_closed : session_pump);
}

static void closing_late(struct link_session *s)
{
    struct err e = ERR_INIT;
    char who[400];
    int unsent = 0;

    session_who(s, who, sizeof who);
    if (s->state == S_LINGER && (ioctl(s->fd, SIOCOUTQ, &unsent) || !unsent)) {
        session_end(s, NULL); /* delivered; the peer is just slow to leave */
        return;
    }
    err_kind(&e, ERR_TIMEOUT, "%s did not take what was left to send in time",
             who);
    session_end(s, &e);
}

static void on_deadline(struct ev_loop *loop, struct ev_timer *w, int events)
{
    struct link_session *s = w->data;
    struct err e = ERR_INIT;
    char who[400];

    (void)loop;
    (void)events;
    session_who(s, who, sizeof who);
    switch (s->state) {
    case S_RESOLVING:
    case S_CONNECTING:
        session_run(s, connect_late);
        return;
    case S_HANDSHAKE:
        err_kind(&e, ERR_TIMEOUT, "%s did not finish the handshake in time",
                 who);
        session_end(s, &e);
        return;
    default:
        closing_late(s);
    }
}

/* --- The beginning ----------------------------------------------------------
 */

struct link_session *session_new(struct ev_loop *loop, struct link_tls *tls,
                                 enum wire_kind kind,
                                 const struct link_callbacks *cb, void *arg)
{
    struct link_session *s = calloc(1, sizeof *s);

    if (!s)
        abort();
    s->loop = loop;
    s->tls = tls;
    s->kind = kind;
    s->cb = *cb;
    s->arg = arg;
    s->fd = -1;
    ev_io_init(&s->in, on_input, -1, EV_READ);
    ev_io_init(&s->out, on_output, -1, EV_WRITE);
    ev_timer_init(&s->deadline, on_deadline, 0., 0.);
    ev_timer_init(&s->again, on_again, 0., 0.);
    s->in.data = s->out.data = s->deadline.data = s->again.data = s;
    return s;
}

void session_start_tls(struct link_session *s)
{
    struct err e = ERR_INIT;

    socket_tune(s->fd);
    ev_io_stop(s->loop, &s->in);
    ev_io_stop(s->loop, &s->out);
    ev_io_set(&s->in, s->fd, EV_READ);
    ev_io_set(&s->out, s->fd, EV_WRITE);
    s->state = S_HANDSHAKE;
    s->ssl = tls_start(s);
    if (!s->ssl) {
        err_set(&e, "TLS could not be started");
        session_end(s, &e);
        return;
    }
    session_again(s); /* a client speaks first */
}

int link_accept(struct ev_loop *loop, struct link_tls *tls, int fd,
                enum wire_kind kind, link_lookup *lookup, void *lookup_arg,
                const struct link_callbacks *cb, void *arg,
                struct link_session **out, struct err *e)
{
    char address[INET6_ADDRSTRLEN];

    *out = NULL;
    if (socket_nonblocking(fd)) {
        err_sys(e, "prepare a connection");
        close(fd);
        return -1;
    }
    struct link_session *s = session_new(loop, tls, kind, cb, arg);
    s->server = true;
    s->fd = fd;
    s->lookup = lookup;
    s->lookup_arg = lookup_arg;
    address_text(fd, address);
    snprintf(s->where, sizeof s->where, "%s",
             address[0] ? address : "an unknown address");
    if (handshake_begin(s, e)) {
        session_free(s);
        return -1;
    }
    session_start_tls(s);
    session_deadline(s, HANDSHAKE_MS / 1000.);
    *out = s;
    return 0;
}

/* --- What the owner asks for ------------------------------------------------
 */

static bool may_send(struct link_session *s, uint32_t type, size_t len,
                     size_t max)
{
    struct err e = ERR_INIT;

    if (s->state != S_OPEN)
        return false;
    if (!wire_type_legal(s->kind, type) || len > wire_type_max(type) ||
        len > max)
        err_set(&e, "a record of type %u with %zu bytes can't be sent here",
                type, len);
    else if (s->queued + len > LINK_QUEUE_MAX)
        err_set(&e, "%zu bytes wait to be sent, more than may", s->queued);
    if (!e.kind)
        return true;
    session_end(s, &e);
    return false;
}

static void enqueue(struct link_session *s, struct chunk_queue *q,
                    uint32_t type, const void *payload, size_t len)
{
    struct chunk *c = chunk_new(type, payload, len);

    queue_put(q, c);
    s->queued += c->len;
    if (s->queued >= LINK_HIGH_WATER)
        s->above_high = true;
    session_output_due(s);
}

void link_send(struct link_session *s, uint32_t type, const void *payload,
               size_t len)
{
    /* An urgent record must not overtake HELLO, which has to be the first. */
    struct chunk_queue *q = type == WIRE_HELLO ? &s->urgent : &s->bulk;

    if (may_send(s, type, len, WIRE_PAYLOAD_MAX))
        enqueue(s, q, type, payload, len);
}

void link_send_urgent(struct link_session *s, uint32_t type,
                      const void *payload, size_t len)
{
    if (may_send(s, type, len, WIRE_CONTROL_MAX))
        enqueue(s, &s->urgent, type, payload, len);
}

size_t link_queued_bytes(const struct link_session *s)
{
    return s->queued;
}

void link_hold(struct link_session *s, bool hold)
{
    bool release = s->hold && !hold;

    s->hold = hold;
    if (s->state != S_OPEN)
        return;
    if (release)
        session_again(s); /* TLS may hold bytes already */
    else if (hold)
        ev_io_stop(s->loop, &s->in);
}

void link_close(struct link_session *s, unsigned bound_ms)
{
    if (s->state >= S_CLOSING)
        return;
    if (s->state != S_OPEN) {
        session_end(s, NULL);
        return;
    }
    s->state = S_CLOSING;
    if (s->pipe)
        pipe_shut(s->pipe); /* or closing would never come to an end */
    session_deadline(s, bound_ms / 1000.);
    session_again(s);
}

void link_abort(struct link_session *s, const struct err *why)
{
    struct err plain = ERR_INIT;

    err_kind(&plain, ERR_GONE, "this side ended the session");
    session_end(s, why && why->kind ? why : &plain);
}

void link_fail(struct link_session *s, const struct err *why)
{
    struct buf b = {0};

    if (s->state != S_OPEN) {
        link_abort(s, why);
        return;
    }
    queue_free(&s->urgent);
    queue_free(&s->bulk);
    s->queued = s->current && !s->current_piped ? s->current->len : 0;
    if (s->pipe)
        pipe_session_gone(s->pipe);
    s->pipe = NULL;
    refuse_put(&b, why);
    enqueue(s, &s->urgent, WIRE_REFUSE, b.data, b.len);
    buf_free(&b);
    s->why = *why;
    if (!s->why.kind)
        s->why.kind = ERR_FAILED;
    link_close(s, FAIL_CLOSE_MS);
}

void link_drop(struct link_session *s)
{
    if (s->dropped)
        return;
    session_end(s, NULL);
    memset(&s->cb, 0, sizeof s->cb);
    s->dropped = true;
    if (s->depth == 0)
        session_free(s);
}

/* --- Looking ----------------------------------------------------------------
 */

void link_stats(const struct link_session *s, struct link_stats *out)
{
    *out = s->stats;
}

const char *link_peer_name(const struct link_session *s)
{
    return s->peer_name;
}

const uint8_t *link_peer_pin(const struct link_session *s)
{
    return s->peer_pin;
}

bool link_is_ready(const struct link_session *s)
{
    return s->state == S_OPEN;
}
