// SPDX-License-Identifier: Apache-2.0
/* Sessions to the daemons of other hosts: their life, accepting, beats. Where
 * they go to is host_paths.c's, what is asked over them host_calls.c's; see
 * hosts.h. */
#include "agent/hosts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/host_session.h"
#include "common/clock.h"
#include "common/log.h"
#include "link/wire.h"

/* A session without a byte for so long is given up; heartbeats of VMs judge
 * far earlier, this is only for half-open TCP. */
#define SILENCE_NS (5 * NS_PER_SEC)

/* --- A host ------------------------------------------------------------- */

struct host *host_find(struct daemon *d, const char *name)
{
    for (struct host *h = d->hosts; h; h = h->next) {
        if (!strcmp(h->peer.name, name))
            return h;
    }
    return NULL;
}

static struct host *host_by_pin(struct daemon *d, const uint8_t pin[PIN_BYTES])
{
    for (struct host *h = d->hosts; h; h = h->next) {
        if (pin_equal(h->peer.pin, pin))
            return h;
    }
    return NULL;
}

bool host_up(const struct host *h)
{
    for (struct host_session *x = h->sessions; x; x = x->next) {
        if (x->hello)
            return true;
    }
    return false;
}

uint64_t host_session_heard(const struct host_session *x)
{
    struct link_stats stats;

    link_stats(x->s, &stats);
    return stats.heard_ns;
}

long long host_heard_ms(const struct host *h)
{
    uint64_t heard = h->heard_ns, now = clock_ns();

    for (struct host_session *x = h->sessions; x; x = x->next) {
        uint64_t t = host_session_heard(x);
        if (x->hello && t > heard)
            heard = t;
    }
    if (!heard)
        return -1;
    return now > heard ? (long long)((now - heard) / NS_PER_MS) : 0;
}

int host_hint(const struct host *h, struct err *e)
{
    char address[ADDRESS_TEXT];

    address_format(&h->peer.at, address);
    return err_hint(e,
                    "check that understudyd runs on %s and that %s can be "
                    "reached from here",
                    h->peer.name, address);
}

int host_error(const struct host *h, struct err *e)
{
    const struct err *why = &h->paths->why;
    char address[ADDRESS_TEXT];

    address_format(&h->peer.at, address);
    if (!why->text[0]) {
        err_kind(e, ERR_TIMEOUT, "no session to %s (%s) yet", h->peer.name,
                 address);
        return err_hint(e, "try again in a moment");
    }
    if (e)
        *e = *why;
    err_add(e, "no session to %s (%s)", h->peer.name, address);
    return host_hint(h, e);
}

/* --- A session's life --------------------------------------------------- */

static void session_unlink(struct host_session *x)
{
    struct host_session **p = x->h ? &x->h->sessions : &x->d->arriving;

    for (; *p; p = &(*p)->next) {
        if (*p == x) {
            *p = x->next;
            break;
        }
    }
}

static void session_forget(struct host_session *x, const struct err *why)
{
    session_unlink(x);
    host_session_detach(x, why);
    free(x);
}

/* Before the session goes: it is no longer ready, but was. */
static void heard_keep(const struct host_session *x)
{
    uint64_t heard = host_session_heard(x);

    if (x->h && x->hello && heard > x->h->heard_ns)
        x->h->heard_ns = heard;
    if (x->path && x->hello && heard > x->path->heard_ns)
        x->path->heard_ns = heard;
}

void host_session_drop(struct host_session *x)
{
    heard_keep(x);
    link_drop(x->s);
    session_forget(x, NULL);
}

static void session_hello_send(struct host_session *x)
{
    struct wire_hello w = {.protocol = WIRE_VERSION,
                           .kind = WIRE_HOST,
                           .role = WIRE_ROLE_HOST,
                           .beat_ms = x->d->cfg.beat_ms};
    struct buf b = {0};

    snprintf(w.version, sizeof w.version, "%s", UNDERSTUDY_VERSION);
    snprintf(w.name, sizeof w.name, "%s", x->d->name);
    hello_put(&b, &w);
    link_send(x->s, WIRE_HELLO, b.data, b.len);
    buf_free(&b);
}

/* More incoming sessions than a peer has paths: it lost the oldest. */
static void older_drop(struct host *h)
{
    struct host_session *next;
    unsigned incoming = 0;

    for (struct host_session *x = h->sessions; x; x = next) {
        next = x->next;
        if (!x->path && ++incoming > 1 + PEER_MORE_MAX)
            host_session_drop(x);
    }
}

static void on_ready(struct link_session *s, void *arg)
{
    struct host_session *x = arg;

    if (!x->h) {
        struct host *h = host_by_pin(x->d, link_peer_pin(s));
        if (!h) {
            host_session_drop(x); /* removed while it shook hands */
            return;
        }
        session_unlink(x);
        x->h = h;
        x->next = h->sessions;
        h->sessions = x;
        older_drop(h);
    }
    session_hello_send(x);
}

static void on_hello(struct host_session *x, const uint8_t *payload, size_t len)
{
    struct wire_hello w;
    struct err e = ERR_INIT;

    if (hello_get(&w, payload, len, &e)) {
        link_fail(x->s, &e);
        return;
    }
    if (w.protocol != WIRE_VERSION || w.kind != WIRE_HOST) {
        err_kind(&e, ERR_REFUSED, "%s speaks protocol %u, %s speaks %u",
                 x->h->peer.name, w.protocol, x->d->name, WIRE_VERSION);
        err_hint(&e, "install the same version of understudy on both hosts");
        link_fail(x->s, &e);
        return;
    }
    if (x->hello) {
        err_set(&e, "a second HELLO");
        link_fail(x->s, &e);
        return;
    }
    bool was = host_up(x->h);
    x->hello = true;
    if (x->path)
        host_path_ready(x->path);
    /* Newest first: calls take the first one that is up. */
    session_unlink(x);
    x->next = x->h->sessions;
    x->h->sessions = x;
    if (!was)
        daemon_event(x->d, "host-up", "", "session to %s is up",
                     x->h->peer.name);
    host_calls_flush(x->h);
}

static void on_beat(struct host_session *x, const uint8_t *payload, size_t len)
{
    struct wire_beat w;
    struct err e = ERR_INIT;

    if (beat_get(&w, payload, len, &e)) {
        link_fail(x->s, &e);
        return;
    }
    x->peer_sent_ns = w.sent_ns;
    x->peer_beat_ns = clock_ns();
}

static void on_record(struct link_session *s, uint32_t type,
                      const uint8_t *payload, size_t len, void *arg)
{
    struct host_session *x = arg;
    struct err e = ERR_INIT;

    if (type == WIRE_HELLO) {
        on_hello(x, payload, len);
    } else if (!x->hello) {
        err_set(&e, "%s before HELLO", wire_type_name(type));
        link_fail(s, &e);
    } else if (type == WIRE_BEAT) {
        on_beat(x, payload, len);
    } else if (type == WIRE_REQUEST) {
        host_session_request(x, payload, len);
    } else {
        host_session_reply(x, payload, len);
    }
}

/* At most a line a second, however many come. */
static void stranger_log(const struct err *why)
{
    static uint64_t said_ns;
    static unsigned unsaid;
    uint64_t now = clock_ns();

    if (said_ns && now - said_ns < NS_PER_SEC) {
        unsaid++;
        return;
    }
    if (unsaid)
        log_info("%u more sessions from strangers ended", unsaid);
    log_info("host session from a stranger ended: %s", why->text);
    said_ns = now;
    unsaid = 0;
}

static void on_closed(struct link_session *s, const struct err *why, void *arg)
{
    struct host_session *x = arg;
    struct host *h = x->h;
    struct host_path *path = x->path;
    struct err reason = *why;
    bool was = h && host_up(h);

    (void)s;
    if (!h) {
        stranger_log(why);
        session_forget(x, why);
        return;
    }
    heard_keep(x);
    session_forget(x, &reason);
    if (was && !host_up(h))
        daemon_event(h->d, "host-down", "", "session to %s ended: %s",
                     h->peer.name, reason.text);
    else
        log_debug("session to %s ended: %s", h->peer.name, reason.text);
    if (path)
        host_path_ended(path, &reason);
}

static const struct link_callbacks callbacks = {
    .ready = on_ready, .record = on_record, .closed = on_closed};

struct host_session *host_session_new(struct daemon *d, struct host *h)
{
    struct host_session *x = calloc(1, sizeof *x);
    struct host_session **list = h ? &h->sessions : &d->arriving;

    if (!x)
        abort();
    x->d = d;
    x->h = h;
    x->next = *list;
    *list = x;
    return x;
}

int host_session_connect(struct host_session *x, const struct link_target *t,
                         struct err *e)
{
    if (!link_connect(x->d->loop, x->d->tls, t, &callbacks, x, &x->s, e))
        return 0;
    session_forget(x, e);
    return -1;
}

/* --- Accepting ---------------------------------------------------------- */

static bool on_lookup(void *arg, const uint8_t pin[PIN_BYTES],
                      char name[WIRE_NAME_MAX])
{
    struct host *h = host_by_pin(arg, pin);

    if (!h)
        return false;
    snprintf(name, WIRE_NAME_MAX, "%.*s", WIRE_NAME_MAX - 1, h->peer.name);
    return true;
}

/* A VM's connection goes to the backup's agent, before any key was shown. */
static void vm_arrival(struct daemon *d, const uint8_t uuid[16], int fd,
                       const char *from)
{
    char text[STORE_UUID_LEN + 1];

    uuid_format(uuid, text);
    struct vm *vm = vm_find_uuid(d, text);
    if (!vm || !vm->conn || vm->rec.role != ROLE_BACKUP) {
        log_debug("%s asks for %s, which has no backup agent here", from, text);
        close(fd);
        return;
    }
    json_t *msg = json_pack("{ss ss}", "op", "session", "from", from);
    ipc_send_fd(vm->conn, msg, fd);
    json_decref(msg);
}

static void on_arrival(void *arg, const struct wire_preamble *p, int fd,
                       const char *from)
{
    struct daemon *d = arg;
    struct err e = ERR_INIT;

    if (p->kind == WIRE_VM) {
        vm_arrival(d, p->uuid, fd, from);
        return;
    }
    if (p->kind != WIRE_HOST) {
        log_debug("%s takes this host for an arbiter", from);
        close(fd);
        return;
    }
    struct host_session *x = host_session_new(d, NULL);
    if (link_accept(d->loop, d->tls, fd, WIRE_HOST, on_lookup, d, &callbacks, x,
                    &x->s, &e)) {
        stranger_log(&e);
        session_forget(x, &e);
    }
}

/* --- Beats -------------------------------------------------------------- */

static void session_beat(struct host_session *x)
{
    uint64_t now = clock_ns(), heard = host_session_heard(x);
    struct wire_beat w = {
        .seq = ++x->seq, .sent_ns = now, .echo_ns = x->peer_sent_ns};
    struct buf b = {0};

    if (heard && now - heard > SILENCE_NS) {
        struct err e = ERR_INIT;
        err_kind(&e, ERR_TIMEOUT, "%s is silent for %llu s", x->h->peer.name,
                 (unsigned long long)(SILENCE_NS / NS_PER_SEC));
        link_abort(x->s, &e);
        return;
    }
    if (!x->hello)
        return;
    w.held_ns = x->peer_sent_ns ? now - x->peer_beat_ns : 0;
    beat_put(&b, &w);
    link_send_urgent(x->s, WIRE_BEAT, b.data, b.len);
    buf_free(&b);
}

void hosts_tell_agent(struct vm *vm)
{
    struct host *h = host_find(vm->d, vm->rec.peer);
    json_t *msg = json_pack("{ss sI sb}", "op", "peer", "heard_ms",
                            (json_int_t)(h ? host_heard_ms(h) : -1), "up",
                            h ? host_up(h) : 0);

    vm_send(vm, msg);
    json_decref(msg);
}

/* Five beats in the shortest timeout that is in use. */
static double beat_pause(const struct daemon *d)
{
    unsigned ms = d->cfg.beat_ms;

    for (const struct vm *vm = d->vms; vm; vm = vm->next) {
        if (!vm->damaged && vm->rec.timeout_ms / 5 < ms)
            ms = vm->rec.timeout_ms / 5;
    }
    return ms / 1000.;
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int events)
{
    struct daemon *d = w->data;
    uint64_t now = clock_ns();
    /* What came meanwhile is not read yet. */
    bool stalled = now - d->tick_ns > (uint64_t)(2 * w->repeat * NS_PER_SEC);

    (void)events;
    w->repeat = beat_pause(d);
    ev_timer_again(loop, w);
    for (struct host *h = d->hosts; h; h = h->next) {
        if (!stalled)
            host_paths_watch(h, now);
        for (struct host_session *x = h->sessions; x; x = x->next) {
            if (link_is_ready(x->s))
                session_beat(x);
        }
    }
    for (struct vm *vm = d->vms; vm; vm = vm->next)
        hosts_tell_agent(vm);
    supervise_tick(d, (uint64_t)(w->repeat * NS_PER_SEC));
}

/* --- All hosts ---------------------------------------------------------- */

static void host_add(struct daemon *d, const struct link_peer *p)
{
    struct host *h = calloc(1, sizeof *h);

    if (!h)
        abort();
    h->d = d;
    h->peer = *p;
    h->next = d->hosts;
    d->hosts = h;
    host_paths_update(h);
}

static void host_remove(struct host *h)
{
    for (struct host **p = &h->d->hosts; *p; p = &(*p)->next) {
        if (*p == h) {
            *p = h->next;
            break;
        }
    }
    while (h->sessions) {
        if (h->sessions->path)
            h->sessions->path->session = NULL;
        host_session_drop(h->sessions);
    }
    err_kind(&h->paths->why, ERR_GONE, "%s is no peer any more", h->peer.name);
    host_calls_unreachable(h);
    host_paths_end(h);
    free(h);
}

static bool same_peer(const struct link_peer *a, const struct link_peer *b)
{
    return b && address_equal(&a->at, &b->at) && pin_equal(a->pin, b->pin);
}

void hosts_update(struct daemon *d)
{
    struct host *next;

    for (struct host *h = d->hosts; h; h = next) {
        next = h->next;
        if (!same_peer(&h->peer, peers_by_name(&d->peers, h->peer.name)))
            host_remove(h);
    }
    for (size_t i = 0; i < d->peers.count; i++) {
        const struct link_peer *p = &d->peers.list[i];
        struct host *h = host_find(d, p->name);
        if (!h) {
            host_add(d, p);
            continue;
        }
        h->peer = *p;
        host_paths_update(h);
    }
}

int hosts_start(struct daemon *d, struct err *e)
{
    const char *any = strcmp(d->cfg.listen, "::") ? d->cfg.listen : NULL;
    double beat = d->cfg.beat_ms / 1000.;

    if (link_listen(d->loop, any, d->cfg.port, on_arrival, d, &d->listener, e))
        return -1;
    ev_timer_init(&d->beat, on_tick, beat, beat);
    d->beat.data = d;
    ev_timer_start(d->loop, &d->beat);
    hosts_update(d);
    return 0;
}

void hosts_stop(struct daemon *d)
{
    link_listener_free(d->listener);
    d->listener = NULL;
    ev_timer_stop(d->loop, &d->beat);
    while (d->arriving)
        host_session_drop(d->arriving);
    while (d->hosts)
        host_remove(d->hosts);
}
