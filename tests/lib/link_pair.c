// SPDX-License-Identifier: Apache-2.0
/* Helpers for tests of link/; see link_pair.h. */
#include "tests/lib/link_pair.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"

void host_make(struct host *h)
{
    strcpy(h->dir, "/tmp/link-test.XXXXXX");
    assert_non_null(mkdtemp(h->dir));
    assert_int_equal(link_key_load(h->dir, true, &h->key, NULL), 0);
    assert_int_equal(link_tls_new(h->key, &h->tls, NULL), 0);
}

void host_free(struct host *h)
{
    char path[128];

    link_tls_free(h->tls);
    link_key_free(h->key);
    snprintf(path, sizeof path, "%s/key.pem", h->dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/cert.pem", h->dir);
    unlink(path);
    rmdir(h->dir);
}

/* --- Sides ------------------------------------------------------------------
 */

static void on_ready(struct link_session *s, void *arg)
{
    struct side *me = arg;

    assert_ptr_equal(s, me->s);
    assert_int_equal(me->closed, 0);
    me->ready++;
    if (me->on_ready)
        me->on_ready(me);
}

static void on_record(struct link_session *s, uint32_t type,
                      const uint8_t *payload, size_t len, void *arg)
{
    struct side *me = arg;

    assert_ptr_equal(s, me->s);
    assert_int_equal(me->closed, 0);
    if (me->records < sizeof me->types / sizeof me->types[0])
        me->types[me->records] = type;
    me->records++;
    me->bytes += len;
    buf_clear(&me->last);
    buf_put(&me->last, payload, len);
    if (me->on_record)
        me->on_record(me, type);
}

static void on_drained(struct link_session *s, void *arg)
{
    struct side *me = arg;

    assert_ptr_equal(s, me->s);
    me->drained++;
}

static void on_closed(struct link_session *s, const struct err *why, void *arg)
{
    struct side *me = arg;

    assert_ptr_equal(s, me->s);
    me->closed++;
    me->why = *why;
    if (me->on_closed)
        me->on_closed(me);
    me->s = NULL;
}

const struct link_callbacks side_callbacks = {
    .ready = on_ready,
    .record = on_record,
    .drained = on_drained,
    .closed = on_closed,
};

void side_free(struct side *side)
{
    if (side->s)
        link_drop(side->s);
    side->s = NULL;
    buf_free(&side->last);
}

bool lookup_one(void *arg, const uint8_t pin[PIN_BYTES],
                char name[WIRE_NAME_MAX])
{
    if (!pin_equal(arg, pin))
        return false;
    strcpy(name, "alder");
    return true;
}

/* --- The loop ---------------------------------------------------------------
 */

static void on_tick(struct ev_loop *loop, struct ev_timer *w, int events)
{
    (void)loop;
    (void)w;
    (void)events;
}

bool run_until(bool (*what)(void *arg), void *arg)
{
    uint64_t end = clock_ns() + 10 * NS_PER_SEC;
    struct ev_timer tick; /* conditions may come true on another thread */

    ev_timer_init(&tick, on_tick, 0.02, 0.02);
    ev_timer_start(EV_DEFAULT, &tick);
    while (!what(arg) && clock_ns() < end)
        ev_run(EV_DEFAULT, EVRUN_ONCE);
    ev_timer_stop(EV_DEFAULT, &tick);
    return what(arg);
}

static bool time_is_up(void *end)
{
    return clock_ns() >= *(uint64_t *)end;
}

void run_for(double seconds)
{
    uint64_t end = clock_ns() + (uint64_t)(seconds * 1e9);

    run_until(time_is_up, &end);
}

void tcp_pair(int fd[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(l, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&a, &n), 0);
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd[0], (struct sockaddr *)&a, n), 0);
    fd[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd[1] >= 0);
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
    fcntl(fd[1], F_SETFL, O_NONBLOCK);
    close(l);
}

/* --- Pairs ------------------------------------------------------------------
 */

static void on_arrival(void *arg, const struct wire_preamble *pre, int fd,
                       const char *from)
{
    struct pair *p = arg;

    assert_int_equal(pre->kind, p->kind);
    assert_int_equal(strncmp(from, "127.0.0.1:", 10), 0);
    p->arrivals++;
    assert_int_equal(link_accept(EV_DEFAULT, p->birch.tls, fd, pre->kind,
                                 lookup_one, (void *)(uintptr_t)p->birch_knows,
                                 &side_callbacks, &p->b, &p->b.s, NULL),
                     0);
}

void pair_init(struct pair *p)
{
    memset(p, 0, sizeof *p);
    host_make(&p->alder);
    host_make(&p->birch);
    p->kind = WIRE_VM;
    p->birch_knows = link_key_pin(p->alder.key);
    p->alder_wants = link_key_pin(p->birch.key);
    assert_int_equal(link_listen(EV_DEFAULT, "127.0.0.1", 0, on_arrival, p,
                                 &p->listener, NULL),
                     0);
}

void pair_connect(struct pair *p)
{
    struct link_target t = {
        .peer = "birch",
        .address = "127.0.0.1",
        .port = link_listener_port(p->listener),
        .pin = p->alder_wants,
        .kind = p->kind,
    };

    if (p->kind == WIRE_VM)
        memset(t.uuid, 0x5a, sizeof t.uuid);
    assert_int_equal(link_connect(EV_DEFAULT, p->alder.tls, &t, &side_callbacks,
                                  &p->a, &p->a.s, NULL),
                     0);
}

void send_hello(struct side *side, enum wire_role role)
{
    struct wire_hello h = {
        .protocol = WIRE_VERSION,
        .kind = role == WIRE_ROLE_HOST ? WIRE_HOST : WIRE_VM,
        .role = (uint16_t)role,
        .beat_ms = 100,
        .version = "0.1",
        .name = "web01",
    };
    struct buf b = {0};

    if (role != WIRE_ROLE_HOST)
        memset(h.uuid, 0x5a, sizeof h.uuid);
    hello_put(&b, &h);
    link_send(side->s, WIRE_HELLO, b.data, b.len);
    buf_free(&b);
}

static bool both_ready(void *arg)
{
    struct pair *p = arg;

    return (p->a.ready && p->b.ready) || p->a.closed || p->b.closed;
}

static bool both_greeted(void *arg)
{
    struct pair *p = arg;

    return (p->a.records && p->b.records) || p->a.closed || p->b.closed;
}

void pair_open(struct pair *p)
{
    bool host = p->kind == WIRE_HOST;

    pair_connect(p);
    assert_true(run_until(both_ready, p));
    assert_true(p->a.s && p->b.s);
    send_hello(&p->a, host ? WIRE_ROLE_HOST : WIRE_PRIMARY);
    send_hello(&p->b, host ? WIRE_ROLE_HOST : WIRE_BACKUP);
    assert_true(run_until(both_greeted, p));
    assert_int_equal(p->a.types[0], WIRE_HELLO);
    assert_int_equal(p->b.types[0], WIRE_HELLO);
}

void link_pair_free(struct pair *p)
{
    side_free(&p->a);
    side_free(&p->b);
    link_listener_free(p->listener);
    host_free(&p->alder);
    host_free(&p->birch);
}

bool both_closed(void *arg)
{
    struct pair *p = arg;

    return p->a.closed && p->b.closed;
}

bool a_closed(void *arg)
{
    return ((struct pair *)arg)->a.closed;
}

bool b_closed(void *arg)
{
    return ((struct pair *)arg)->b.closed;
}
