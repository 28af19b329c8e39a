// SPDX-License-Identifier: Apache-2.0
/* Connecting and listening: addresses, deadlines, preambles of strangers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "tests/lib/link_pair.h"

static struct pair p;

static int set_up(void **state)
{
    (void)state;
    pair_init(&p);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    link_pair_free(&p);
    return 0;
}

static struct link_target target_of(const char *address, uint16_t port)
{
    struct link_target t = {
        .peer = "birch",
        .address = address,
        .port = port,
        .pin = p.alder_wants,
        .kind = WIRE_VM,
        .uuid = {1},
        .deadline_ms = 2000,
    };

    return t;
}

static int connect_to(const struct link_target *t, struct err *e)
{
    return link_connect(EV_DEFAULT, p.alder.tls, t, &side_callbacks, &p.a,
                        &p.a.s, e);
}

static bool a_settled(void *arg)
{
    (void)arg;
    return p.a.ready || p.a.closed;
}

/* --- Connecting -------------------------------------------------------------
 */

static void a_name_is_resolved_beside_the_loop(void **state)
{
    struct link_target t =
        target_of("localhost", link_listener_port(p.listener));

    (void)state;
    assert_int_equal(connect_to(&t, NULL), 0);
    assert_true(run_until(a_settled, NULL));
    assert_int_equal(p.a.ready, 1);
}

static void an_unknown_name_is_an_error_of_the_session(void **state)
{
    struct link_target t = target_of("no-such-host.invalid", 1);

    (void)state;
    assert_int_equal(connect_to(&t, NULL), 0);
    assert_int_equal(p.a.closed, 0);
    assert_true(run_until(a_closed, &p));
    assert_int_equal(p.a.ready, 0);
    assert_non_null(strstr(p.a.why.text, "no-such-host.invalid"));
}

static void an_abandoned_resolver_does_no_harm(void **state)
{
    struct link_target t = target_of("localhost", 1);

    (void)state;
    for (int i = 0; i < 20; i++) {
        struct err e = ERR_INIT;
        if (connect_to(&t, &e) == 0)
            link_drop(p.a.s);
        else
            assert_non_null(strstr(e.text, "resolver"));
        p.a.s = NULL;
    }
    run_for(0.1);
    assert_int_equal(p.a.closed, 0);
}

static void a_closed_port_is_reported_with_peer_and_address(void **state)
{
    uint16_t port = link_listener_port(p.listener);
    struct link_target t = target_of("127.0.0.1", port);

    (void)state;
    link_listener_free(p.listener);
    p.listener = NULL;
    assert_int_equal(connect_to(&t, NULL), 0);
    assert_true(run_until(a_closed, &p));
    assert_int_equal(p.a.why.kind, ERR_GONE);
    assert_non_null(strstr(p.a.why.text, "birch (127.0.0.1:"));
    assert_non_null(strstr(p.a.why.text, "Connection refused"));
    assert_true(p.a.why.hint[0]);
}

static int listen_silently(struct sockaddr_in *a)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t n = sizeof *a;

    memset(a, 0, sizeof *a);
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)a, n), 0);
    assert_int_equal(listen(fd, 1), 0);
    getsockname(fd, (struct sockaddr *)a, &n);
    return fd;
}

static void a_peer_that_never_answers_is_given_up(void **state)
{
    struct sockaddr_in a;
    int fd = listen_silently(&a);
    struct link_target t = target_of("127.0.0.1", ntohs(a.sin_port));
    uint64_t start = clock_ns();

    (void)state;
    t.deadline_ms = 150;
    assert_int_equal(connect_to(&t, NULL), 0);
    assert_true(run_until(a_closed, &p));
    assert_int_equal(p.a.why.kind, ERR_TIMEOUT);
    uint64_t took_ms = (clock_ns() - start) / NS_PER_MS;
    assert_true(took_ms >= 140 && took_ms < 3000);
    close(fd);
}

static void a_syn_that_is_swallowed_is_given_up(void **state)
{
    struct sockaddr_in a;
    int fd = listen_silently(&a), fill[8];
    struct link_target t = target_of("127.0.0.1", ntohs(a.sin_port));

    (void)state;
    for (int i = 0; i < 8; i++) { /* fill the backlog */
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fill[i], (struct sockaddr *)&a, sizeof a);
    }
    t.deadline_ms = 150;
    assert_int_equal(connect_to(&t, NULL), 0);
    assert_true(run_until(a_closed, &p));
    assert_int_equal(p.a.why.kind, ERR_TIMEOUT);
    assert_non_null(strstr(p.a.why.text, "cannot reach birch"));
    for (int i = 0; i < 8; i++)
        close(fill[i]);
    close(fd);
}

static void a_peer_without_an_agent_closes_and_that_is_said(void **state)
{
    struct sockaddr_in a;
    int fd = listen_silently(&a);
    struct link_target t = target_of("127.0.0.1", ntohs(a.sin_port));
    uint8_t bytes[WIRE_PREAMBLE];
    struct wire_preamble pre;

    (void)state;
    assert_int_equal(connect_to(&t, NULL), 0);
    run_for(0.02);
    int peer = accept(fd, NULL, NULL);
    assert_int_equal(recv(peer, bytes, sizeof bytes, MSG_WAITALL), 32);
    assert_int_equal(wire_preamble_get(&pre, bytes, NULL), 0);
    assert_int_equal(pre.kind, WIRE_VM);
    assert_int_equal(pre.uuid[0], 1);
    close(peer);
    assert_true(run_until(a_closed, &p));
    assert_int_equal(p.a.why.kind, ERR_GONE);
    assert_non_null(strstr(p.a.why.text, "without an answer"));
    assert_non_null(strstr(p.a.why.hint, "no agent"));
    close(fd);
}

static void closing_while_connecting_ends_cleanly(void **state)
{
    struct sockaddr_in a;
    int fd = listen_silently(&a);
    struct link_target t = target_of("127.0.0.1", ntohs(a.sin_port));

    (void)state;
    assert_int_equal(connect_to(&t, NULL), 0);
    link_close(p.a.s, 1000);
    assert_true(run_until(a_closed, &p));
    assert_int_equal(p.a.why.kind, 0);
    close(fd);
}

/* --- Listening --------------------------------------------------------------
 */

static int stranger(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_port = htons(link_listener_port(p.listener));
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* The other side closed it. */
static bool is_closed(void *arg)
{
    char byte;
    ssize_t r = recv(*(int *)arg, &byte, 1, MSG_DONTWAIT);

    return r == 0 || (r < 0 && errno != EAGAIN);
}

static bool arrived(void *arg)
{
    return p.arrivals == *(unsigned *)arg;
}

static void a_preamble_may_come_byte_by_byte(void **state)
{
    struct wire_preamble pre = {WIRE_PREAMBLE_VERSION, WIRE_VM, {1}};
    uint8_t bytes[WIRE_PREAMBLE + 1];
    unsigned one = 1;
    int fd = stranger();

    (void)state;
    wire_preamble_put(&pre, bytes);
    bytes[WIRE_PREAMBLE] = 0x16; /* of TLS: must stay in the socket */
    for (int i = 0; i < WIRE_PREAMBLE - 1; i++) {
        assert_int_equal(send(fd, bytes + i, 1, 0), 1);
        ev_run(EV_DEFAULT, EVRUN_NOWAIT);
    }
    assert_int_equal(p.arrivals, 0);
    assert_int_equal(send(fd, bytes + WIRE_PREAMBLE - 1, 2, 0), 2);
    assert_true(run_until(arrived, &one));
    close(fd);
}

static void what_is_not_a_preamble_is_closed(void **state)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n",
        "UNDRSTDY\2\0\1\0aaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "\x16\x03\x01\x02\x01\x01\x01\xfc\x03\x03sssssssssssssssssssssssss",
    };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        int fd = stranger();
        assert_int_equal(send(fd, bad[i], 32, 0), 32);
        assert_true(run_until(is_closed, &fd));
        close(fd);
    }
    assert_int_equal(p.arrivals, 0);
}

static void half_a_preamble_and_an_end_is_closed(void **state)
{
    int fd = stranger();

    (void)state;
    assert_int_equal(send(fd, "UNDRSTDY", 8, 0), 8);
    shutdown(fd, SHUT_WR);
    assert_true(run_until(is_closed, &fd));
    assert_int_equal(p.arrivals, 0);
    close(fd);
}

static void a_preamble_that_does_not_come_is_given_5_seconds(void **state)
{
    uint64_t start = clock_ns();
    int fd = stranger();

    (void)state;
    assert_true(run_until(is_closed, &fd));
    uint64_t took_ms = (clock_ns() - start) / NS_PER_MS;
    assert_true(took_ms >= 4900 && took_ms < 8000);
    close(fd);
}

static void the_oldest_of_too_many_strangers_makes_room(void **state)
{
    int fd[70];

    (void)state;
    for (int i = 0; i < 70; i++) {
        fd[i] = stranger();
        ev_run(EV_DEFAULT, EVRUN_NOWAIT);
    }
    run_for(0.05);
    for (int i = 0; i < 70; i++)
        assert_int_equal(is_closed(&fd[i]), i < 6);
    /* who knows the words still gets in */
    pair_connect(&p);
    assert_true(run_until(a_settled, NULL));
    assert_int_equal(p.a.ready, 1);
    for (int i = 0; i < 70; i++)
        close(fd[i]);
}

static void an_occupied_port_is_named(void **state)
{
    struct link_listener *l;
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(link_listen(EV_DEFAULT, "127.0.0.1",
                                 link_listener_port(p.listener), NULL, NULL, &l,
                                 &e),
                     -1);
    assert_null(l);
    assert_non_null(strstr(e.text, "already in use"));
    assert_true(e.hint[0]);
    err_clear(&e);
    assert_int_equal(
        link_listen(EV_DEFAULT, "localhost", 0, NULL, NULL, &l, &e), -1);
    assert_int_equal(e.kind, ERR_USAGE);
}

static void count_arrival(void *arg, const struct wire_preamble *pre, int fd,
                          const char *from)
{
    (void)pre;
    (void)from;
    ++*(unsigned *)arg;
    close(fd);
}

static bool is_one(void *arg)
{
    return *(unsigned *)arg == 1;
}

static bool have_ipv6(void)
{
    struct sockaddr_in6 one = {.sin6_family = AF_INET6,
                               .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    bool ok = fd >= 0 && !bind(fd, (struct sockaddr *)&one, sizeof one);

    if (fd >= 0)
        close(fd);
    return ok;
}

static void reach_all_addresses_by(const char *address)
{
    struct link_listener *l;
    unsigned arrivals = 0;

    assert_int_equal(
        link_listen(EV_DEFAULT, NULL, 0, count_arrival, &arrivals, &l, NULL),
        0);
    struct link_target t = target_of(address, link_listener_port(l));
    assert_int_equal(connect_to(&t, NULL), 0);
    assert_true(run_until(is_one, &arrivals));
    assert_true(run_until(a_closed, &p));
    p.a.closed = 0;
    link_listener_free(l);
}

static void a_listener_on_all_addresses_is_reached_by_ipv4(void **state)
{
    (void)state;
    reach_all_addresses_by("127.0.0.1");
}

static void a_listener_on_all_addresses_is_reached_by_ipv6(void **state)
{
    (void)state;
    if (!have_ipv6()) {
        print_message("no IPv6 on this machine\n");
        skip();
    }
    reach_all_addresses_by("::1");
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_name_is_resolved_beside_the_loop),
        T(an_unknown_name_is_an_error_of_the_session),
        T(an_abandoned_resolver_does_no_harm),
        T(a_closed_port_is_reported_with_peer_and_address),
        T(a_peer_that_never_answers_is_given_up),
        T(a_syn_that_is_swallowed_is_given_up),
        T(a_peer_without_an_agent_closes_and_that_is_said),
        T(closing_while_connecting_ends_cleanly),
        T(a_preamble_may_come_byte_by_byte),
        T(what_is_not_a_preamble_is_closed),
        T(half_a_preamble_and_an_end_is_closed),
        T(a_preamble_that_does_not_come_is_given_5_seconds),
        T(the_oldest_of_too_many_strangers_makes_room),
        T(an_occupied_port_is_named),
        T(a_listener_on_all_addresses_is_reached_by_ipv4),
        T(a_listener_on_all_addresses_is_reached_by_ipv6),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
