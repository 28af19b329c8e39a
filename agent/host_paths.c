// SPDX-License-Identifier: Apache-2.0
/* The paths to a host: one outgoing session on each of its addresses, made
 * again whenever it ends, and whether the host is heard on it. The first path
 * is the replication link's. See hosts.h. */
#include <stdlib.h>
#include <string.h>

#include "agent/host_session.h"
#include "common/clock.h"
#include "common/log.h"

#define BACKOFF_MIN 0.2
#define BACKOFF_MAX 5.
/* A new path is not called lost before a connection had its time. */
#define FIRST_NS (5 * NS_PER_SEC)

/* --- Connecting --------------------------------------------------------- */

static void connect_later(struct host_path *p)
{
    struct ev_loop *loop = p->h->d->loop;

    ev_timer_stop(loop, &p->retry);
    ev_timer_set(&p->retry, p->backoff, 0.);
    ev_timer_start(loop, &p->retry);
    p->backoff = p->backoff * 2 > BACKOFF_MAX ? BACKOFF_MAX : p->backoff * 2;
}

static void path_failed(struct host_path *p, const struct err *why)
{
    struct host *h = p->h;

    p->why = *why;
    connect_later(p);
    /* Calls wait for this one: what they are about needs it most often. */
    if (p == h->paths && !host_up(h))
        host_calls_unreachable(h);
}

static void path_connect(struct host_path *p)
{
    struct host *h = p->h;
    struct link_target t = {.peer = h->peer.name,
                            .address = p->at.host,
                            .port = p->at.port,
                            .pin = h->peer.pin,
                            .kind = WIRE_HOST};
    struct err e = ERR_INIT;

    if (p->session)
        return;
    p->session = host_session_new(h->d, h);
    p->session->path = p;
    if (host_session_connect(p->session, &t, &e)) {
        p->session = NULL;
        path_failed(p, &e);
    }
}

static void on_retry(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    path_connect(w->data);
}

void host_path_ready(struct host_path *p)
{
    p->backoff = BACKOFF_MIN;
    err_clear(&p->why);
}

void host_path_ended(struct host_path *p, const struct err *why)
{
    p->session = NULL;
    path_failed(p, why);
}

void host_hurry(struct host *h)
{
    for (struct host_path *p = h->paths; p; p = p->next) {
        if (p->session)
            continue;
        p->backoff = BACKOFF_MIN;
        ev_timer_stop(h->d->loop, &p->retry);
        ev_timer_set(&p->retry, 0., 0.);
        ev_timer_start(h->d->loop, &p->retry);
    }
}

/* --- The list ----------------------------------------------------------- */

static void path_add(struct host *h, const struct link_address *at)
{
    struct host_path *p = calloc(1, sizeof *p), **last = &h->paths;

    if (!p)
        abort();
    p->h = h;
    p->at = *at;
    p->backoff = BACKOFF_MIN;
    p->added_ns = clock_ns();
    ev_init(&p->retry, on_retry);
    p->retry.data = p;
    while (*last)
        last = &(*last)->next;
    *last = p;
    path_connect(p);
}

static void path_remove(struct host_path *p)
{
    struct host_path **q = &p->h->paths;

    while (*q != p)
        q = &(*q)->next;
    *q = p->next;
    ev_timer_stop(p->h->d->loop, &p->retry);
    if (p->session)
        host_session_drop(p->session);
    free(p);
}

static bool has_path(const struct host *h, const struct link_address *at)
{
    const struct host_path *p = h->paths;

    while (p && !address_equal(&p->at, at))
        p = p->next;
    return p;
}

static bool peer_has(const struct link_peer *peer,
                     const struct link_address *at)
{
    bool has = address_equal(&peer->at, at);

    for (unsigned i = 0; i < peer->more_count; i++)
        has |= address_equal(&peer->more[i], at);
    return has;
}

void host_paths_update(struct host *h)
{
    struct host_path *next;

    for (struct host_path *p = h->paths; p; p = next) {
        next = p->next;
        if (!peer_has(&h->peer, &p->at))
            path_remove(p);
    }
    if (!h->paths)
        path_add(h, &h->peer.at);
    for (unsigned i = 0; i < h->peer.more_count; i++) {
        if (!has_path(h, &h->peer.more[i]))
            path_add(h, &h->peer.more[i]);
    }
}

void host_paths_end(struct host *h)
{
    while (h->paths)
        path_remove(h->paths);
}

/* --- Health ------------------------------------------------------------- */

static uint64_t path_heard(const struct host_path *p)
{
    uint64_t heard =
        p->session && p->session->hello ? host_session_heard(p->session) : 0;

    return heard > p->heard_ns ? heard : p->heard_ns;
}

static bool path_up(const struct host_path *p, uint64_t now)
{
    uint64_t heard = path_heard(p);

    return p->session && p->session->hello &&
           now < heard + p->h->d->cfg.timeout_ms * NS_PER_MS;
}

static unsigned paths_up(const struct host *h, uint64_t now)
{
    unsigned n = 0;

    for (const struct host_path *p = h->paths; p; p = p->next)
        n += path_up(p, now);
    return n;
}

static void path_tell(struct host_path *p, bool up, uint64_t now)
{
    const struct host *h = p->h;
    char at[ADDRESS_TEXT];

    address_format(&p->at, at);
    p->lost = !up;
    if (up)
        daemon_event(h->d, "path-up", "", "%s is heard at %s again",
                     h->peer.name, at);
    else
        daemon_event(h->d, "path-down", "",
                     "warning: %s is not heard at %s%s%s; paths that are left: "
                     "%u",
                     h->peer.name, at, p->why.text[0] ? ": " : "", p->why.text,
                     paths_up(h, now));
}

void host_paths_watch(struct host *h, uint64_t now)
{
    /* With one path, host-up and host-down say it all. */
    for (struct host_path *p = h->paths; h->paths->next && p; p = p->next) {
        bool up = path_up(p, now);
        if (up != p->lost || (!up && now < p->added_ns + FIRST_NS))
            continue;
        path_tell(p, up, now);
    }
}

json_t *host_paths_json(const struct host *h)
{
    json_t *list = json_array();
    uint64_t now = clock_ns();

    for (const struct host_path *p = h->paths; p; p = p->next) {
        uint64_t heard = path_heard(p);
        char at[ADDRESS_TEXT];
        bool up = path_up(p, now);
        address_format(&p->at, at);
        json_array_append_new(
            list, json_pack("{ss ss sb sI so}", "path", "heartbeat", "address",
                            at, "up", up, "heard_ms",
                            heard ? (json_int_t)((now - heard) / NS_PER_MS)
                                  : (json_int_t)-1,
                            "reason",
                            text_json(up               ? ""
                                      : p->why.text[0] ? p->why.text
                                                       : "silent")));
    }
    return list;
}
