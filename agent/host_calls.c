// SPDX-License-Identifier: Apache-2.0
/* Requests between daemons: REQUEST and REPLY records in both directions. A
 * call is made even before a session is up: it waits for the connection
 * attempt that is under way and fails with that attempt's reason. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/host_session.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "link/wire.h"

#define CALLS_MAX 64 /* docs/protocol.md */

struct host_call {
    struct host_call *next;
    struct host *h;
    struct host_session *over; /* NULL: waits for a session */
    uint32_t id;
    json_t *msg; /* while it waits */
    ev_timer late;
    host_done *done; /* NULL: given up, the reply is still due */
    void *arg;
};

struct host_request {
    struct host_request *next;
    struct host_session *over; /* NULL: that session ended */
    uint32_t id;
};

/* --- Our calls ---------------------------------------------------------- */

static void call_free(struct host_call *c)
{
    for (struct host_call **p = &c->h->calls; *p; p = &(*p)->next) {
        if (*p == c) {
            *p = c->next;
            break;
        }
    }
    ev_timer_stop(c->h->d->loop, &c->late);
    json_decref(c->msg);
    free(c);
}

static void call_end(struct host_call *c, json_t *reply, const struct err *why)
{
    host_done *done = c->done;
    void *arg = c->arg;

    call_free(c);
    if (done)
        done(arg, reply, why);
}

static void json_send(struct link_session *s, uint32_t type, uint32_t id,
                      const json_t *msg)
{
    CLEANUP_FREE char *text = json_dumps(msg, JSON_COMPACT);
    struct buf b = {0};

    if (!text)
        abort();
    struct wire_call w = {.id = id, .json = text, .len = strlen(text)};
    call_put(&b, &w);
    link_send(s, type, b.data, b.len);
    buf_free(&b);
}

static unsigned calls_over(const struct host *h, const struct host_session *x)
{
    unsigned n = 0;

    for (struct host_call *c = h->calls; c; c = c->next)
        n += c->over == x;
    return n;
}

static void call_send(struct host_call *c)
{
    for (struct host_session *x = c->h->sessions; x && !c->over; x = x->next) {
        if (!x->hello || calls_over(c->h, x) >= CALLS_MAX)
            continue;
        c->over = x;
        json_send(x->s, WIRE_REQUEST, c->id, c->msg);
        json_decref(c->msg);
        c->msg = NULL;
    }
}

static void on_late(struct ev_loop *loop, ev_timer *w, int events)
{
    struct host_call *c = w->data;
    host_done *done = c->done;
    void *arg = c->arg;
    struct err e = ERR_INIT;

    (void)loop, (void)events;
    if (!c->over) {
        host_error(c->h, &e);
        call_end(c, NULL, &e);
        return;
    }
    err_kind(&e, ERR_TIMEOUT, "%s did not answer in time", c->h->peer.name);
    host_hint(c->h, &e);
    c->done = NULL;
    done(arg, NULL, &e);
}

void host_ask(struct host *h, json_t *msg, double timeout_s, host_done *done,
              void *arg)
{
    static uint32_t last_id;
    struct host_call *c = calloc(1, sizeof *c);

    if (!c)
        abort();
    c->h = h;
    c->id = ++last_id;
    c->msg = msg;
    c->done = done;
    c->arg = arg;
    c->next = h->calls;
    h->calls = c;
    ev_timer_init(&c->late, on_late, timeout_s, 0.);
    c->late.data = c;
    ev_timer_start(h->d->loop, &c->late);
    call_send(c);
    if (!c->over)
        host_hurry(h);
}

void host_calls_flush(struct host *h)
{
    for (struct host_call *c = h->calls; c; c = c->next) {
        if (!c->over)
            call_send(c);
    }
}

/* End all calls over `x` (NULL: those that wait). `done` may start new calls,
 * which are of the next round: those are not ended here. */
static void calls_end(struct host *h, struct host_session *x,
                      const struct err *why)
{
    struct host_call *ended = NULL, *next;

    for (struct host_call **p = &h->calls; *p;) {
        struct host_call *c = *p;
        if (c->over != x) {
            p = &c->next;
            continue;
        }
        *p = c->next;
        c->next = ended;
        ended = c;
    }
    for (; ended; ended = next) {
        next = ended->next;
        call_end(ended, NULL, why);
    }
}

void host_calls_unreachable(struct host *h)
{
    struct err e = ERR_INIT;

    host_error(h, &e);
    calls_end(h, NULL, &e);
}

void host_session_reply(struct host_session *x, const uint8_t *payload,
                        size_t len)
{
    struct wire_call w;
    struct err e = ERR_INIT;
    struct host_call *c = NULL;

    if (call_get(&w, payload, len, &e)) {
        link_fail(x->s, &e);
        return;
    }
    for (c = x->h->calls; c && (c->over != x || c->id != w.id); c = c->next)
        ;
    json_t *reply = json_loadb(w.json, w.len, JSON_REJECT_DUPLICATES, NULL);
    if (!c || !json_is_object(reply)) {
        err_set(&e, c ? "REPLY is not a JSON object"
                      : "REPLY to a request that was not made");
        link_fail(x->s, &e);
    } else if (ipc_error_of_peer(reply, &e)) {
        err_add(&e, "%s", x->h->peer.name);
        call_end(c, NULL, &e);
    } else {
        call_end(c, reply, NULL);
    }
    json_decref(reply);
}

/* --- The peer's requests ------------------------------------------------ */

void host_session_request(struct host_session *x, const uint8_t *payload,
                          size_t len)
{
    struct wire_call w;
    struct err e = ERR_INIT;

    if (call_get(&w, payload, len, &e)) {
        link_fail(x->s, &e);
        return;
    }
    json_t *msg = json_loadb(w.json, w.len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(msg) || x->request_count >= CALLS_MAX) {
        err_set(&e, json_is_object(msg) ? "more than 64 requests at a time"
                                        : "REQUEST is not a JSON object");
        link_fail(x->s, &e);
        json_decref(msg);
        return;
    }
    struct host_request *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->over = x;
    r->id = w.id;
    r->next = x->requests;
    x->requests = r;
    x->request_count++;
    host_request_handle(x->d, r, &x->h->peer, msg);
    json_decref(msg);
}

void host_reply(struct host_request *r, json_t *reply)
{
    struct host_session *x = r->over;

    if (x) {
        for (struct host_request **p = &x->requests; *p; p = &(*p)->next) {
            if (*p == r) {
                *p = r->next;
                break;
            }
        }
        x->request_count--;
        json_send(x->s, WIRE_REPLY, r->id, reply);
    }
    json_decref(reply);
    free(r);
}

void host_reply_error(struct host_request *r, const struct err *why)
{
    host_reply(r, ipc_error_json(why));
}

void host_session_detach(struct host_session *x, const struct err *why)
{
    struct err e = ERR_INIT;

    while (x->requests) {
        struct host_request *r = x->requests;
        x->requests = r->next;
        r->over = NULL;
    }
    if (!x->h)
        return;
    if (why && why->kind)
        e = *why;
    else
        err_kind(&e, ERR_GONE, "the session ended");
    err_add(&e, "no answer from %s", x->h->peer.name);
    host_hint(x->h, &e);
    calls_end(x->h, x, &e);
}

/* --- What agents ask for ------------------------------------------------ */

struct agent_ask {
    struct daemon *d;
    char uuid[STORE_UUID_LEN + 1], peer[64];
    json_t *id;
};

static void ask_answer(struct agent_ask *ask, json_t *answer)
{
    struct vm *vm = vm_find_uuid(ask->d, ask->uuid);

    json_object_set(answer, "answer", ask->id);
    if (vm)
        vm_send(vm, answer);
    json_decref(answer);
    json_decref(ask->id);
    free(ask);
}

static void on_asked(void *arg, json_t *reply, const struct err *why)
{
    struct agent_ask *ask = arg;
    const struct host *h = host_find(ask->d, ask->peer);
    char pin[PIN_TEXT];
    struct err gone = ERR_INIT;

    err_kind(&gone, ERR_GONE, "%s is no peer of this host any more", ask->peer);
    if (!reply || !h) {
        ask_answer(ask, ipc_error_json(why ? why : &gone));
        return;
    }
    /* What the peer says stays data: no more of it than is asked for. */
    pin_format(h->peer.pin, pin);
    bool backup = !strcmp(json_text(reply, "role", ""), "backup");
    ask_answer(ask, json_pack("{sb sb ss ss si ss}", "ok", 1, "known",
                              json_flag(reply, "known", true), "role",
                              backup ? "backup" : "primary", "address",
                              h->peer.at.host, "port", (int)h->peer.at.port,
                              "pin", pin));
}

void hosts_agent_asks(struct vm *vm, struct ipc_conn *c, const json_t *msg)
{
    struct agent_ask *ask = calloc(1, sizeof *ask);
    struct host *h = host_find(vm->d, vm->rec.peer);
    struct err e = ERR_INIT;

    (void)c;
    if (!ask)
        abort();
    ask->d = vm->d;
    snprintf(ask->uuid, sizeof ask->uuid, "%s", vm->rec.uuid);
    snprintf(ask->peer, sizeof ask->peer, "%s", vm->rec.peer);
    ask->id = json_incref(json_object_get(msg, "ask"));
    if (!h) {
        err_kind(&e, ERR_GONE, "%s is no peer of this host", ask->peer);
        err_hint(&e, "`understudy peer add root@%s`", ask->peer);
        ask_answer(ask, ipc_error_json(&e));
        return;
    }
    json_t *request = json_deep_copy(msg);
    json_object_del(request, "ask");
    json_object_del(request, "peer");
    json_object_set_new(request, "version", json_string(UNDERSTUDY_VERSION));
    host_ask(h, request, 20., on_asked, ask);
}
