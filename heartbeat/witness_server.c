// SPDX-License-Identifier: Apache-2.0
/* The witness and the hosts that ask it: arbiter sessions as docs/protocol.md
 * has them. A host is known by its pin, and hostile all the same: everything
 * that it can make us hold is bounded. Loop thread. */
#include "heartbeat/witness_service.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define SILENCE_NS  (10 * NS_PER_SEC)
#define ANSWERS_MAX (64u << 10) /* bytes that a host does not read */

struct witness_client {
    struct witness_client *next;
    struct witness_service *s;
    struct link_session *ls;
    bool hello;
    uint64_t seq;
};

static void client_forget(struct witness_client *c)
{
    struct witness_client **p = &c->s->clients;

    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    c->s->client_count--;
    free(c);
}

static void client_fail(struct witness_client *c, enum err_kind kind,
                        const char *text)
{
    struct err e = ERR_INIT;

    err_kind(&e, kind, "%s", text);
    link_fail(c->ls, &e);
}

/* --- What the witness says -------------------------------------------------
 */

static void send_hello(struct witness_client *c)
{
    struct wire_hello h = {.protocol = WIRE_VERSION,
                           .kind = WIRE_ARBITER,
                           .role = WIRE_ROLE_HOST,
                           .beat_ms = 1000,
                           .version = UNDERSTUDY_VERSION,
                           .name = "witness"};
    struct buf b = {0};

    hello_put(&b, &h);
    link_send(c->ls, WIRE_HELLO, b.data, b.len);
    buf_free(&b);
}

static void send_seal(struct witness_client *c)
{
    struct wire_seal w = {.sealed = c->s->w.sealed};
    struct buf b = {0};

    memcpy(w.why, c->s->w.why, sizeof w.why);
    seal_put(&b, &w);
    link_send(c->ls, WIRE_SEAL, b.data, b.len);
    buf_free(&b);
}

void witness_server_follow(struct witness_service *s)
{
    bool sealed = s->was_sealed != s->w.sealed;

    if (!s->loop)
        return;
    s->was_sealed = s->w.sealed;
    if (sealed)
        log_warn("%s%s", s->w.sealed ? "sealed: " : "not sealed any more",
                 s->w.why);
    for (struct witness_client *c = s->clients; c; c = c->next) {
        if (!link_is_ready(c->ls))
            continue;
        if (!peers_by_pin(&s->hosts, link_peer_pin(c->ls)))
            client_fail(c, ERR_REFUSED, "this host is not known any more");
        else if (sealed)
            send_seal(c);
    }
}

/* --- What a host says ------------------------------------------------------
 */

static void on_hello(struct witness_client *c, const uint8_t *payload,
                     size_t len)
{
    struct wire_hello h;
    struct err e = ERR_INIT;

    if (hello_get(&h, payload, len, &e)) {
        link_fail(c->ls, &e);
    } else if (h.protocol != WIRE_VERSION || h.kind != WIRE_ARBITER) {
        err_kind(&e, ERR_REFUSED, "the witness speaks protocol %u, not %u",
                 WIRE_VERSION, h.protocol);
        err_hint(&e, "install the same version of understudy on all machines");
        link_fail(c->ls, &e);
    } else {
        c->hello = true;
    }
}

static void on_beat(struct witness_client *c, const uint8_t *payload,
                    size_t len)
{
    struct wire_beat beat;
    struct buf b = {0};
    struct err e = ERR_INIT;

    if (beat_get(&beat, payload, len, &e)) {
        link_fail(c->ls, &e);
        return;
    }
    beat = (struct wire_beat){
        .seq = ++c->seq, .sent_ns = clock_ns(), .echo_ns = beat.sent_ns};
    beat_put(&b, &beat);
    link_send(c->ls, WIRE_BEAT, b.data, b.len);
    buf_free(&b);
}

/* What the disk has is not known: only a new start can tell. */
static void give_up(struct witness_service *s, const struct err *why)
{
    s->failure = *why;
    err_add(&s->failure, "a change can't be written down");
    ev_break(s->loop, EVBREAK_ALL);
}

static void on_ask(struct witness_client *c, const uint8_t *payload, size_t len)
{
    struct witness_service *s = c->s;
    struct wire_ask w;
    struct witness_answer a;
    struct buf b = {0};
    struct err e = ERR_INIT;

    if (s->failure.kind)
        return;
    if (ask_get(&w, payload, len, &e)) {
        link_fail(c->ls, &e);
        return;
    }
    struct witness_ask ask = {
        .op = w.op, .generation = w.generation, .nonce = w.nonce};
    memcpy(ask.vm, w.vm, sizeof ask.vm);
    memcpy(ask.other, w.other, sizeof ask.other);
    if (witness_ask(&s->w, link_peer_pin(c->ls), &ask, &a, &e)) {
        give_up(s, &e);
        return;
    }
    struct wire_answer out = {.id = w.id,
                              .status = a.status,
                              .generation = a.generation,
                              .mine = a.mine,
                              .running = a.running};
    answer_put(&b, &out);
    link_send(c->ls, WIRE_ANSWER, b.data, b.len);
    buf_free(&b);
    if (s->was_sealed != s->w.sealed)
        witness_server_follow(s);
}

static void on_record(struct link_session *ls, uint32_t type,
                      const uint8_t *payload, size_t len, void *arg)
{
    struct witness_client *c = arg;

    (void)ls;
    if (type == WIRE_HELLO)
        on_hello(c, payload, len);
    else if (type == WIRE_BEAT)
        on_beat(c, payload, len);
    else if (type == WIRE_ASK)
        on_ask(c, payload, len);
    else
        client_fail(c, ERR_FAILED, "a host asks, and does not answer");
    if (link_queued_bytes(c->ls) > ANSWERS_MAX)
        link_abort(c->ls, NULL);
}

/* --- Sessions ---------------------------------------------------------------
 */

static unsigned sessions_of(const struct witness_service *s,
                            const uint8_t pin[PIN_BYTES])
{
    unsigned n = 0;

    for (const struct witness_client *c = s->clients; c; c = c->next)
        n += link_is_ready(c->ls) && pin_equal(link_peer_pin(c->ls), pin);
    return n;
}

static void on_ready(struct link_session *ls, void *arg)
{
    struct witness_client *c = arg;
    struct witness_service *s = c->s;

    if (!peers_by_pin(&s->hosts, link_peer_pin(ls))) {
        client_fail(c, ERR_REFUSED, "this host is not known any more");
    } else if (sessions_of(s, link_peer_pin(ls)) > WITNESS_SESSIONS_KEY) {
        client_fail(c, ERR_REFUSED, "this host has too many sessions already");
    } else {
        log_debug("session with %s", link_peer_name(ls));
        send_hello(c);
        send_seal(c);
    }
}

static void on_closed(struct link_session *ls, const struct err *why, void *arg)
{
    const char *who = link_peer_name(ls);

    if (why->kind == ERR_REFUSED || why->kind == ERR_FAILED)
        log_warn("session%s%s: %s%s%s", who[0] ? " with " : "", who, why->text,
                 why->hint[0] ? "; " : "", why->hint);
    else
        log_debug("session with %s ended: %s", who, why->text);
    client_forget(arg);
}

static bool on_lookup(void *arg, const uint8_t pin[PIN_BYTES],
                      char name[WIRE_NAME_MAX])
{
    const struct witness_service *s = arg;
    const struct link_peer *host = peers_by_pin(&s->hosts, pin);

    if (host)
        memcpy(name, host->name, WIRE_NAME_MAX);
    return host;
}

static void on_arrival(void *arg, const struct wire_preamble *p, int fd,
                       const char *from)
{
    static const struct link_callbacks callbacks = {
        .ready = on_ready, .record = on_record, .closed = on_closed};
    struct witness_service *s = arg;
    struct err e = ERR_INIT;

    if (p->kind != WIRE_ARBITER || s->client_count >= WITNESS_SESSIONS_MAX) {
        log_warn("%s: %s", from,
                 p->kind == WIRE_ARBITER ? "too many sessions"
                                         : "takes this witness for a host");
        close(fd);
        return;
    }
    struct witness_client *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->s = s;
    c->next = s->clients;
    s->clients = c;
    s->client_count++;
    if (link_accept(s->loop, s->tls, fd, WIRE_ARBITER, on_lookup, s, &callbacks,
                    c, &c->ls, &e)) {
        log_warn("%s: %s", from, e.text);
        client_forget(c);
    }
}

/* Hosts beat: who is silent is gone, whatever TCP thinks. */
static void on_sweep(struct ev_loop *loop, ev_timer *w, int events)
{
    struct witness_service *s = w->data;
    uint64_t now = clock_ns();
    struct link_stats stats;

    (void)loop, (void)events;
    for (struct witness_client *c = s->clients; c; c = c->next) {
        link_stats(c->ls, &stats);
        if (link_is_ready(c->ls) && now > stats.heard_ns + SILENCE_NS)
            link_abort(c->ls, NULL);
    }
}

int witness_server_start(struct witness_service *s, const char *address,
                         uint16_t port, struct err *e)
{
    s->was_sealed = s->w.sealed;
    if (link_tls_new(s->key, &s->tls, e) ||
        link_listen(s->loop, address, port, on_arrival, s, &s->listener, e))
        return -1;
    ev_timer_init(&s->sweep, on_sweep, 1., 1.);
    s->sweep.data = s;
    ev_timer_start(s->loop, &s->sweep);
    log_info("understudy-witness %s, port %u, %zu hosts, %zu VMs%s%s",
             UNDERSTUDY_VERSION, link_listener_port(s->listener),
             s->hosts.count, s->w.count, s->w.sealed ? ", sealed: " : "",
             s->w.why);
    return 0;
}

void witness_server_stop(struct witness_service *s)
{
    link_listener_free(s->listener);
    s->listener = NULL;
    if (s->loop)
        ev_timer_stop(s->loop, &s->sweep);
    while (s->clients) {
        link_drop(s->clients->ls);
        client_forget(s->clients);
    }
    link_tls_free(s->tls);
    s->tls = NULL;
}
