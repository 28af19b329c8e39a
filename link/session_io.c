// SPDX-License-Identifier: Apache-2.0
/* Moving bytes: the handshake, records out of the queues into TLS, and out of
 * TLS into `record`. Called from the session's watchers, on the loop's
 * thread. */
#include "link/session_priv.h"

#include "common/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

/* --- Queues ----------------------------------------------------------------
 */

struct chunk *chunk_new(uint32_t type, const void *payload, size_t len)
{
    struct chunk *c = malloc(sizeof *c + WIRE_HEADER + len);
    struct wire_header h = {.type = type, .length = (uint32_t)len};

    if (!c)
        abort();
    c->next = NULL;
    c->len = WIRE_HEADER + len;
    wire_header_put(&h, c->data);
    if (len)
        memcpy(c->data + WIRE_HEADER, payload, len);
    return c;
}

void queue_put(struct chunk_queue *q, struct chunk *c)
{
    if (!q->head)
        q->tail = &q->head;
    *q->tail = c;
    q->tail = &c->next;
}

struct chunk *queue_take(struct chunk_queue *q)
{
    struct chunk *c = q->head;

    if (c)
        q->head = c->next;
    return c;
}

void queue_free(struct chunk_queue *q)
{
    for (struct chunk *c; (c = queue_take(q));)
        free(c);
}

/* --- What an SSL call said --------------------------------------------------
 */

enum outcome { DONE, BLOCKED, OVER };

/* After an SSL call that did not succeed. OVER: *e says why. */
static enum outcome ssl_outcome(struct link_session *s, int r, struct err *e)
{
    int saved = errno;

    switch (SSL_get_error(s->ssl, r)) {
    case SSL_ERROR_WANT_READ:
        return BLOCKED;
    case SSL_ERROR_WANT_WRITE:
        s->write_blocked = true;
        return BLOCKED;
    }
    tls_explain(s, r, saved, e);
    return OVER;
}

static enum outcome handshake(struct link_session *s)
{
    struct err e = ERR_INIT;

    ERR_clear_error();
    errno = 0;
    int r = SSL_do_handshake(s->ssl);
    if (r != 1) {
        enum outcome o = ssl_outcome(s, r, &e);
        if (o == OVER)
            session_end_gently(s, &e);
        return o;
    }
    s->state = S_OPEN;
    ev_timer_stop(s->loop, &s->deadline);
    handshake_over(s, true);
    s->stats.ready_ns = s->stats.heard_ns = clock_ns();
    s->rekey_at = s->tls->rekey_bytes;
    snprintf(s->stats.cipher, sizeof s->stats.cipher, "%s",
             SSL_get_cipher_name(s->ssl));
    if (s->cb.ready)
        s->cb.ready(s, s->arg);
    return DONE;
}

/* --- In --------------------------------------------------------------------
 */

static void violation(struct link_session *s, struct err *e)
{
    char who[400];

    session_who(s, who, sizeof who);
    err_add(e, "%s broke the protocol", who);
    link_fail(s, e);
}

/* HELLO first and once; what ends the session is dealt with here. */
static bool record_in_order(struct link_session *s, struct err *e)
{
    uint32_t type = s->header.type;

    if (type == WIRE_REFUSE || type == WIRE_BYE)
        return true;
    if ((type == WIRE_HELLO) == s->greeted) {
        err_set(e, s->greeted ? "a second HELLO" : "%s before HELLO",
                wire_type_name(type));
        return false;
    }
    s->greeted = true;
    return true;
}

static void peer_refused(struct link_session *s)
{
    struct err said = ERR_INIT, e = ERR_INIT;
    char who[400];

    session_who(s, who, sizeof who);
    if (refuse_get(&said, s->payload.data, s->payload.len, &e)) {
        violation(s, &e);
        return;
    }
    err_add(&said, "%s refused", who);
    session_end(s, &said);
}

static void peer_said_bye(struct link_session *s)
{
    struct err why = ERR_INIT, e = ERR_INIT;
    char text[256], who[400];

    session_who(s, who, sizeof who);
    if (bye_get(text, s->payload.data, s->payload.len, &e)) {
        violation(s, &e);
        return;
    }
    err_kind(&why, ERR_GONE, "%s closed the session: %s", who, text);
    session_end(s, &why);
}

static void record_deliver(struct link_session *s)
{
    uint32_t type = s->header.type;
    struct err e = ERR_INIT;

    s->head_len = 0;
    if (s->state != S_OPEN)
        return; /* closing: nobody wants it */
    if (!record_in_order(s, &e))
        violation(s, &e);
    else if (type == WIRE_REFUSE)
        peer_refused(s);
    else if (type == WIRE_BYE)
        peer_said_bye(s);
    else
        s->cb.record(s, type, s->payload.data, s->payload.len, s->arg);
}

/* A whole header is there. */
static int header_check(struct link_session *s)
{
    struct err e = ERR_INIT;

    if (wire_header_get(&s->header, s->head, &e) == 0 &&
        !wire_type_legal(s->kind, s->header.type))
        err_set(&e, "a %s record does not belong into this kind of session",
                wire_type_name(s->header.type));
    if (e.kind) {
        violation(s, &e);
        return -1;
    }
    buf_clear(&s->payload);
    buf_reserve(&s->payload, s->header.length);
    return 0;
}

/* Where the next received bytes belong; 0: this record is complete. */
static size_t room_for_input(struct link_session *s, uint8_t **to)
{
    if (s->head_len < WIRE_HEADER) {
        *to = s->head + s->head_len;
        return WIRE_HEADER - s->head_len;
    }
    *to = s->payload.data + s->payload.len;
    return s->header.length - s->payload.len;
}

static void input_arrived(struct link_session *s, size_t n)
{
    s->stats.heard_ns = clock_ns();
    s->stats.bytes_received += n;
    if (s->head_len < WIRE_HEADER) {
        s->head_len += n;
        if (s->head_len < WIRE_HEADER || header_check(s))
            return;
    } else {
        s->payload.len += n;
    }
    if (s->payload.len == s->header.length)
        record_deliver(s);
}

/* After a violation the rest can't be framed: read it and throw it away. */
static bool input_is_noise(const struct link_session *s)
{
    return s->state == S_CLOSING;
}

static enum outcome read_some(struct link_session *s, struct err *e)
{
    uint8_t noise[4096], *to;
    size_t budget = BURST;

    while (!s->dropped && (s->state == S_OPEN || s->state == S_CLOSING)) {
        bool drop = input_is_noise(s);
        size_t n, want = sizeof noise;
        if (s->hold && !drop)
            return DONE;
        if (!budget) {
            session_again(s); /* TLS may hold bytes that fd won't tell of */
            return DONE;
        }
        if (!drop)
            want = room_for_input(s, &to);
        ERR_clear_error();
        errno = 0;
        int r = SSL_read_ex(s->ssl, drop ? noise : to, want, &n);
        if (r != 1)
            return ssl_outcome(s, r, e);
        budget -= n < budget ? n : budget;
        if (!drop)
            input_arrived(s, n);
    }
    return DONE;
}

/* --- Out --------------------------------------------------------------------
 */

static bool output_next(struct link_session *s)
{
    if (s->current)
        return true;
    s->current_off = 0;
    s->current_piped = false;
    if ((s->current = queue_take(&s->urgent)) ||
        (s->current = queue_take(&s->bulk)))
        return true;
    s->current_piped = true;
    return s->pipe && (s->current = pipe_take(s->pipe));
}

static bool output_waits(struct link_session *s)
{
    return s->current || s->urgent.head || s->bulk.head ||
           (s->pipe && pipe_waiting(s->pipe));
}

static void output_sent(struct link_session *s, size_t n)
{
    struct chunk *c = s->current;

    s->stats.bytes_sent += n;
    s->current_off += n;
    if (s->current_off < c->len)
        return;
    if (!s->current_piped)
        s->queued -= c->len;
    s->current = NULL;
    free(c);
}

/* RFC 8446 5.5: AES-GCM is good for some 2^24 full records with one key; we
 * renew after a sixth of that. Only between writes. */
static void rekey_when_due(struct link_session *s)
{
    if (s->stats.bytes_sent < s->rekey_at || s->write_retry)
        return;
    s->rekey_at = s->stats.bytes_sent + s->tls->rekey_bytes;
    SSL_key_update(s->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
    ERR_clear_error();
}

static enum outcome write_all(struct link_session *s, struct err *e)
{
    size_t budget = BURST;

    while (budget && output_next(s)) {
        size_t n;
        rekey_when_due(s);
        ERR_clear_error();
        errno = 0;
        int r = SSL_write_ex(s->ssl, s->current->data + s->current_off,
                             s->current->len - s->current_off, &n);
        s->write_retry = r != 1;
        if (r != 1)
            return ssl_outcome(s, r, e);
        budget -= n < budget ? n : budget;
        output_sent(s, n);
    }
    return DONE;
}

/* TLS writes each of its records by itself: what has several goes out in
 * segments that are as large as can be. */
static enum outcome write_some(struct link_session *s, struct err *e)
{
    bool several =
        output_next(s) && s->current->len - s->current_off > TLS_RECORD_BYTES;

    if (several)
        socket_cork(s->fd, true);
    enum outcome o = write_all(s, e);
    if (several)
        socket_cork(s->fd, false);
    return o;
}

static void tell_drained(struct link_session *s)
{
    if (!s->above_high || s->queued >= LINK_LOW_WATER || s->state != S_OPEN)
        return;
    s->above_high = false;
    if (s->cb.drained)
        s->cb.drained(s, s->arg);
}

/* --- Both ------------------------------------------------------------------
 */

/* All is out: say so in TLS and TCP, and wait for the peer to do the same. */
static void finish_closing(struct link_session *s)
{
    ERR_clear_error();
    SSL_shutdown(s->ssl);
    ERR_clear_error();
    shutdown(s->fd, SHUT_WR);
    s->state = S_LINGER;
}

static void linger(struct link_session *s)
{
    uint8_t noise[4096];
    ssize_t r = 0;

    for (int i = 0; i < BURST / (int)sizeof noise; i++) {
        r = recv(s->fd, noise, sizeof noise, MSG_DONTWAIT);
        if (r <= 0)
            break;
    }
    if (r == 0 || (r < 0 && errno != EAGAIN && errno != EINTR))
        session_end(s, NULL);
}

static void transfer(struct link_session *s)
{
    struct err e = ERR_INIT, lost = ERR_INIT;
    enum outcome in = read_some(s, &e);

    if (s->dropped || s->state == S_DEAD)
        return;
    if (in == OVER) {
        bool both = s->state == S_CLOSING && !output_waits(s) &&
                    (SSL_get_shutdown(s->ssl) & SSL_RECEIVED_SHUTDOWN);
        session_end(s, both ? NULL : &e);
        return;
    }
    enum outcome out = write_some(s, &lost);
    if (out == OVER) {
        /* What the peer said before it went away tells more. */
        s->hold = false;
        in = read_some(s, &e);
        if (!s->dropped)
            session_end(s, in == OVER ? &e : &lost);
        return;
    }
    tell_drained(s);
    if (!s->dropped && s->state == S_CLOSING && !output_waits(s))
        finish_closing(s);
}

static void watch(struct link_session *s)
{
    bool handshaking = s->state == S_HANDSHAKE;
    bool moving = s->state == S_OPEN || s->state == S_CLOSING;
    bool in = handshaking || s->state == S_LINGER ||
              (moving && (!s->hold || s->state == S_CLOSING));
    bool out = ((handshaking || moving) && s->write_blocked) ||
               (moving && output_waits(s));

    if (in)
        ev_io_start(s->loop, &s->in);
    else
        ev_io_stop(s->loop, &s->in);
    if (out)
        ev_io_start(s->loop, &s->out);
    else
        ev_io_stop(s->loop, &s->out);
}

void session_pump(struct link_session *s)
{
    s->write_blocked = false;
    if (s->state == S_HANDSHAKE)
        handshake(s);
    if (!s->dropped && (s->state == S_OPEN || s->state == S_CLOSING))
        transfer(s);
    else if (!s->dropped && s->state == S_LINGER)
        linger(s);
    if (!s->dropped && s->state != S_DEAD)
        watch(s);
}

void session_output_due(struct link_session *s)
{
    if (s->state == S_OPEN || s->state == S_CLOSING)
        ev_io_start(s->loop, &s->out);
}
