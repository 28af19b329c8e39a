// SPDX-License-Identifier: Apache-2.0
/* The arbiter that is an understudy-witness on a third machine: one session to
 * it over link/, made again whenever it ends; see arbiter.h. Loop thread.
 *
 * The line is "witness:HOST:PORT pin=PIN"; without ":PORT" it is 7789, and an
 * IPv6 address stands in brackets. */
#include "heartbeat/arbiter.h"

#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "link/peers.h"
#include "link/session.h"

#define KIND        "witness:"
#define BEAT_S      1.
#define SILENCE_NS  (3 * NS_PER_SEC)
#define BACKOFF_MIN 0.1
#define BACKOFF_MAX 2.

struct remote {
    struct arbiter arbiter;
    struct arbiter_host host;
    struct link_peer peer;
    char where[ADDRESS_TEXT];
    struct link_session *session;
    bool told; /* its SEAL came, so its HELLO was good */
    struct wire_seal seal;
    bool was_up;
    uint64_t heard_ns; /* on sessions that ended */
    uint64_t seq;
    double backoff;
    ev_timer retry, beat;
    struct err why; /* of the last session's end */
    struct arbiter_call *calls;
    unsigned call_count;
    uint32_t last_id;
};

struct arbiter_call {
    struct arbiter_call *next;
    struct remote *r;
    uint32_t id;
    uint64_t nonce; /* that it asks with */
    uint64_t asked_ns;
    bool lost; /* it never left, or the session that it left by ended */
    ev_timer late;
    arbiter_done *done;
    void *arg;
};

/* --- The line ------------------------------------------------------------ */

static int line_usage(struct err *e)
{
    if (e && e->kind != ERR_USAGE)
        err_kind(e, ERR_USAGE, "that is no witness");
    return err_hint(e, "\"witness:HOST:PORT pin=PIN\", with the pin that "
                       "`understudy-witness key` prints there");
}

static int line_parse(const char *line, struct link_peer *out, struct err *e)
{
    char text[ARBITER_LINE_MAX], *save = NULL, *option;

    if (strncmp(line, KIND, strlen(KIND)) || strlen(line) >= sizeof text)
        return line_usage(e);
    snprintf(text, sizeof text, "%s", line + strlen(KIND));
    char *address = strtok_r(text, " \t", &save);
    option = address ? strtok_r(NULL, " \t", &save) : NULL;
    if (!option || strncmp(option, "pin=", 4) || strtok_r(NULL, " \t", &save))
        return line_usage(e);
    if (peer_parse(out, "witness", address, option + 4, e))
        return line_usage(e);
    const char *host_end = strchr(address, ']');
    if (!strchr(host_end ? host_end : address, ':'))
        out->at.port = WIRE_WITNESS_PORT;
    return 0;
}

static int remote_check(const char *line, struct err *e)
{
    struct link_peer peer;

    return line_parse(line, &peer, e);
}

/* A witness is its key, however it is reached. */
static bool remote_same(const char *a, const char *b)
{
    struct link_peer x, y;

    return !line_parse(a, &x, NULL) && !line_parse(b, &y, NULL) &&
           pin_equal(x.pin, y.pin);
}

/* --- How it stands ------------------------------------------------------- */

static uint64_t heard(const struct remote *r)
{
    struct link_stats stats;

    if (!r->session || !link_is_ready(r->session))
        return r->heard_ns;
    link_stats(r->session, &stats);
    return stats.heard_ns;
}

static bool is_up(const struct remote *r)
{
    return r->session && link_is_ready(r->session) && r->told &&
           !r->seal.sealed && clock_ns() <= heard(r) + SILENCE_NS;
}

static void remote_health(const struct arbiter *a, struct arbiter_health *out)
{
    const struct remote *r = (const struct remote *)a;

    memset(out, 0, sizeof *out);
    out->up = is_up(r);
    out->heard_ns = heard(r);
    if (out->up)
        return;
    if (r->told && r->seal.sealed) {
        err_kind(&out->why, ERR_REFUSED, "the witness %s is sealed: %s",
                 r->where, r->seal.why);
        err_hint(&out->why, "understudy-witness(8) says what to look at before "
                            "`understudy-witness unseal`");
    } else if (r->why.kind) {
        out->why = r->why;
    } else {
        err_kind(&out->why, ERR_TIMEOUT, "no answer yet from the witness %s",
                 r->where);
    }
    err_hint(&out->why,
             "check that understudy-witness runs at %s and can be "
             "reached from here",
             r->where);
}

/* The last thing that a callback does: the owner may close us. */
static void tell_changed(struct remote *r)
{
    bool up = is_up(r);

    if (up == r->was_up)
        return;
    r->was_up = up;
    if (r->host.changed)
        r->host.changed(r->host.arg, &r->arbiter);
}

/* --- Calls --------------------------------------------------------------- */

static void call_free(struct arbiter_call *c)
{
    struct arbiter_call **p = &c->r->calls;

    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    c->r->call_count--;
    ev_timer_stop(c->r->host.loop, &c->late);
    free(c);
}

/* The last thing that a callback does. */
static void call_end(struct arbiter_call *c, const struct lease_record *record,
                     const struct err *why)
{
    arbiter_done *done = c->done;
    void *arg = c->arg;

    call_free(c);
    done(arg, record, why);
}

static void call_due(struct arbiter_call *c, double seconds)
{
    struct ev_loop *loop = c->r->host.loop;

    ev_now_update(loop);
    ev_timer_stop(loop, &c->late);
    ev_timer_set(&c->late, seconds, 0.);
    ev_timer_start(loop, &c->late);
}

/* Nothing came since it was asked: TCP may take minutes to notice. */
static void session_doubt(struct remote *r, uint64_t asked_ns,
                          const struct err *why)
{
    if (r->session && heard(r) < asked_ns)
        link_abort(r->session, why);
}

static void on_late(struct ev_loop *loop, ev_timer *w, int events)
{
    struct arbiter_call *c = w->data;
    struct remote *r = c->r;
    struct err e = ERR_INIT;

    (void)loop, (void)events;
    if (c->lost) {
        e = r->why;
        if (!e.kind)
            err_set(&e, "there is no session with the witness %s", r->where);
        e.kind = ERR_GONE;
    } else {
        err_kind(&e, ERR_TIMEOUT, "the witness %s did not answer in time",
                 r->where);
        session_doubt(r, c->asked_ns, &e);
    }
    call_end(c, NULL, &e);
}

static void calls_lose(struct remote *r)
{
    for (struct arbiter_call *c = r->calls; c; c = c->next) {
        if (!c->lost)
            call_due(c, 0.);
        c->lost = true;
    }
}

static void call_send(struct remote *r, const struct arbiter_call *c,
                      const struct witness_ask *ask)
{
    struct wire_ask w = {.id = c->id,
                         .op = ask->op,
                         .generation = ask->generation,
                         .nonce = ask->nonce};
    struct buf b = {0};

    memcpy(w.vm, ask->vm, sizeof w.vm);
    memcpy(w.other, ask->other, sizeof w.other);
    ask_put(&b, &w);
    link_send_urgent(r->session, WIRE_ASK, b.data, b.len);
    buf_free(&b);
}

static int remote_submit(struct arbiter *a, const struct witness_ask *ask,
                         unsigned deadline_ms, arbiter_done *done, void *arg,
                         struct arbiter_call **out, struct err *e)
{
    struct remote *r = (struct remote *)a;

    if (r->call_count >= ARBITER_CALLS_MAX)
        return err_kind(e, ERR_REFUSED,
                        "%u questions to the witness %s wait already",
                        r->call_count, r->where);
    struct arbiter_call *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->r = r;
    c->id = ++r->last_id;
    c->nonce = ask->nonce;
    c->asked_ns = clock_ns();
    c->done = done;
    c->arg = arg;
    c->lost = !is_up(r);
    c->next = r->calls;
    r->calls = c;
    r->call_count++;
    ev_init(&c->late, on_late);
    c->late.data = c;
    call_due(c, c->lost ? 0. : deadline_ms / 1000.);
    if (!c->lost)
        call_send(r, c, ask);
    if (out)
        *out = c;
    return 0;
}

static void remote_cancel(struct arbiter_call *c)
{
    call_free(c);
}

/* --- Records ------------------------------------------------------------- */

static void on_hello(struct remote *r, const uint8_t *payload, size_t len)
{
    struct wire_hello h;
    struct err e = ERR_INIT;

    if (hello_get(&h, payload, len, &e)) {
        link_fail(r->session, &e);
    } else if (h.protocol != WIRE_VERSION || h.kind != WIRE_ARBITER) {
        err_kind(&e, ERR_REFUSED, "the witness %s speaks protocol %u, not %u",
                 r->where, h.protocol, WIRE_VERSION);
        err_hint(&e, "install the same version of understudy on all machines");
        link_fail(r->session, &e);
    }
}

static void on_seal(struct remote *r, const uint8_t *payload, size_t len)
{
    struct err e = ERR_INIT;

    if (seal_get(&r->seal, payload, len, &e)) {
        link_fail(r->session, &e);
        return;
    }
    r->told = true;
    r->backoff = BACKOFF_MIN;
    tell_changed(r);
}

/* One that was given up by its owner, or came too late, is nobody's. */
static void on_answer(struct remote *r, const uint8_t *payload, size_t len)
{
    struct wire_answer w;
    struct lease_record record;
    struct arbiter_call *c;
    struct err e = ERR_INIT;

    if (answer_get(&w, payload, len, &e)) {
        link_fail(r->session, &e);
        return;
    }
    for (c = r->calls; c && (c->id != w.id || c->lost); c = c->next)
        ;
    if (!c)
        return;
    struct witness_answer a = {w.status, w.generation, w.mine, w.running};
    int rc = arbiter_answer_of(&a, c->nonce, r->where, &record, &e);
    call_end(c, rc ? NULL : &record, rc ? &e : NULL);
}

static void on_record(struct link_session *s, uint32_t type,
                      const uint8_t *payload, size_t len, void *arg)
{
    struct remote *r = arg;
    struct wire_beat beat;
    struct err e = ERR_INIT;

    if (type == WIRE_HELLO) {
        on_hello(r, payload, len);
    } else if (type == WIRE_SEAL) {
        on_seal(r, payload, len);
    } else if (type == WIRE_ANSWER) {
        on_answer(r, payload, len);
    } else if (type != WIRE_BEAT) {
        err_set(&e, "%s from a witness", wire_type_name(type));
        link_fail(s, &e);
    } else if (beat_get(&beat, payload, len, &e)) {
        link_fail(s, &e);
    }
}

/* --- The session --------------------------------------------------------- */

static void on_ready(struct link_session *s, void *arg)
{
    struct remote *r = arg;
    struct wire_hello h = {.protocol = WIRE_VERSION,
                           .kind = WIRE_ARBITER,
                           .role = WIRE_ROLE_HOST,
                           .beat_ms = (uint64_t)(BEAT_S * 1000),
                           .version = UNDERSTUDY_VERSION};
    struct buf b = {0};

    snprintf(h.name, sizeof h.name, "%s", r->host.name);
    hello_put(&b, &h);
    link_send(s, WIRE_HELLO, b.data, b.len);
    buf_free(&b);
}

static void connect_later(struct remote *r)
{
    ev_timer_stop(r->host.loop, &r->retry);
    ev_timer_set(&r->retry, r->backoff, 0.);
    ev_timer_start(r->host.loop, &r->retry);
    r->backoff = r->backoff * 2 > BACKOFF_MAX ? BACKOFF_MAX : r->backoff * 2;
}

static void on_closed(struct link_session *s, const struct err *why, void *arg)
{
    struct remote *r = arg;
    struct link_stats stats;

    link_stats(s, &stats);
    if (stats.ready_ns)
        r->heard_ns = stats.heard_ns;
    r->session = NULL;
    r->told = false;
    r->why = *why;
    if (!r->why.kind)
        err_kind(&r->why, ERR_GONE, "the session with the witness %s ended",
                 r->where);
    calls_lose(r);
    connect_later(r);
    tell_changed(r);
}

static void remote_connect(struct remote *r)
{
    static const struct link_callbacks callbacks = {
        .ready = on_ready, .record = on_record, .closed = on_closed};
    struct link_target t = {.peer = "the witness",
                            .address = r->peer.at.host,
                            .port = r->peer.at.port,
                            .pin = r->peer.pin,
                            .kind = WIRE_ARBITER,
                            .deadline_ms = 3000};
    struct err e = ERR_INIT;

    if (link_connect(r->host.loop, r->host.tls, &t, &callbacks, r, &r->session,
                     &e)) {
        r->session = NULL;
        r->why = e;
        connect_later(r);
    }
}

static void on_retry(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    remote_connect(w->data);
}

static void on_beat(struct ev_loop *loop, ev_timer *w, int events)
{
    struct remote *r = w->data;
    struct wire_beat beat = {.seq = ++r->seq, .sent_ns = clock_ns()};
    struct buf b = {0};
    struct err e = ERR_INIT;

    (void)loop, (void)events;
    if (r->session && link_is_ready(r->session)) {
        beat_put(&b, &beat);
        link_send_urgent(r->session, WIRE_BEAT, b.data, b.len);
        buf_free(&b);
        if (beat.sent_ns > heard(r) + SILENCE_NS) {
            err_kind(&e, ERR_TIMEOUT, "%s is silent", r->where);
            link_abort(r->session, &e);
        }
    }
    tell_changed(r);
}

/* --- Life
 * ----------------------------------------------------------------------------
 */

static int remote_open(const char *line, const struct arbiter_host *host,
                       struct arbiter **a, struct err *e)
{
    struct link_peer peer;

    *a = NULL;
    if (line_parse(line, &peer, e))
        return -1;
    struct remote *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->arbiter.ops = &arbiter_witness;
    r->host = *host;
    r->peer = peer;
    r->backoff = BACKOFF_MIN;
    address_format(&peer.at, r->where);
    ev_init(&r->retry, on_retry);
    ev_timer_init(&r->beat, on_beat, BEAT_S, BEAT_S);
    r->retry.data = r->beat.data = r;
    ev_timer_start(host->loop, &r->beat);
    remote_connect(r);
    *a = &r->arbiter;
    return 0;
}

static void remote_close(struct arbiter *a)
{
    struct remote *r = (struct remote *)a;

    while (r->calls)
        call_free(r->calls);
    ev_timer_stop(r->host.loop, &r->retry);
    ev_timer_stop(r->host.loop, &r->beat);
    if (r->session)
        link_drop(r->session);
    free(r);
}

const struct arbiter_ops arbiter_witness = {
    .kind = "witness",
    .check = remote_check,
    .same = remote_same,
    .open = remote_open,
    .submit = remote_submit,
    .cancel = remote_cancel,
    .health = remote_health,
    .close = remote_close,
};
