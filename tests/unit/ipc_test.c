// SPDX-License-Identifier: Apache-2.0
/* JSON lines over unix sockets: order, descriptors, bounds, and callbacks that
 * close what they are called for. Every wait is bounded by a timer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/ipc.h"

static struct ev_loop *loop;
static char path[64];

static int loop_make(void **state)
{
    (void)state;
    loop = ev_loop_new(EVFLAG_AUTO);
    snprintf(path, sizeof path, "/tmp/understudy-ipc.%d", (int)getpid());
    unlink(path);
    return loop ? 0 : -1;
}

static int loop_end(void **state)
{
    (void)state;
    ev_loop_destroy(loop);
    unlink(path);
    return 0;
}

/* Every 5 ms: ev_run(EVRUN_ONCE) may have called what was pending already, and
 * then waits for one event more. */
static void on_tick(struct ev_loop *l, ev_timer *w, int events)
{
    int *left = w->data;

    (void)l, (void)events;
    if (!(*left)--)
        fail_msg("waited in vain");
}

/* Run the loop until *flag reaches n. */
static void run_until(const int *flag, int n)
{
    ev_timer tick;
    int left = 2000;

    ev_timer_init(&tick, on_tick, .005, .005);
    tick.data = &left;
    ev_timer_start(loop, &tick);
    while (*flag < n)
        ev_run(loop, EVRUN_ONCE);
    ev_timer_stop(loop, &tick);
}

struct end {
    struct ipc_conn *conn; /* the last one that opened */
    int opened, messages, closed;
    int fd;
    json_t *last;
    struct err why;
    bool close_in_message, close_in_opened;
};

static void on_opened(struct ipc_conn *c, void *arg)
{
    struct end *end = arg;

    end->opened++;
    end->conn = c;
    if (end->close_in_opened)
        ipc_close(c);
}

static void on_message(struct ipc_conn *c, json_t *msg, int fd, void *arg)
{
    struct end *end = arg;

    end->messages++;
    json_decref(end->last);
    end->last = json_incref(msg);
    if (fd >= 0)
        end->fd = fd;
    if (end->close_in_message)
        ipc_close(c);
}

static void on_closed(struct ipc_conn *c, const struct err *why, void *arg)
{
    struct end *end = arg;

    (void)c;
    end->closed++;
    end->why = *why;
}

static const struct ipc_handler handler = {on_opened, on_message, on_closed};

struct pair {
    struct end server, client;
    struct ipc_server *s;
    struct ipc_conn *c;
};

static void pair_make(struct pair *p)
{
    struct err e = ERR_INIT;

    memset(p, 0, sizeof *p);
    p->server.fd = p->client.fd = -1;
    if (ipc_listen(loop, path, 4, &handler, &p->server, &p->s, &e) ||
        ipc_connect(loop, path, &handler, &p->client, &p->c, &e))
        fail_msg("%s", e.text);
    run_until(&p->server.opened, 1);
}

static void pair_end(struct pair *p)
{
    json_decref(p->server.last);
    json_decref(p->client.last);
    if (!p->client.closed)
        ipc_close(p->c);
    ipc_server_free(p->s);
}

static void send_text(struct ipc_conn *c, const char *text)
{
    json_t *j = json_loads(text, 0, NULL);

    assert_non_null(j);
    ipc_send(c, j);
    json_decref(j);
}

static void messages_arrive_in_order_both_ways(void **state)
{
    struct pair p;

    (void)state;
    pair_make(&p);
    for (int i = 1; i <= 100; i++) {
        char text[32];
        snprintf(text, sizeof text, "{\"n\":%d}", i);
        send_text(p.c, text);
    }
    run_until(&p.server.messages, 100);
    assert_int_equal(json_number(p.server.last, "n", -1), 100);
    send_text(p.server.conn, "{\"state\":\"Protected\"}");
    run_until(&p.client.messages, 1);
    assert_string_equal(json_text(p.client.last, "state", ""), "Protected");
    assert_int_equal(ipc_conn_pid(p.server.conn), getpid());
    pair_end(&p);
}

static void the_socket_is_private(void **state)
{
    struct pair p;
    struct stat st;

    (void)state;
    pair_make(&p);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    pair_end(&p);
    assert_int_not_equal(stat(path, &st), 0);
}

static void a_descriptor_arrives_with_its_message(void **state)
{
    struct pair p;
    int pipe_fds[2];
    char byte = 0;

    (void)state;
    pair_make(&p);
    assert_int_equal(pipe(pipe_fds), 0);
    json_t *j = json_pack("{ss}", "op", "session");
    send_text(p.c, "{\"before\":1}");
    ipc_send_fd(p.c, j, pipe_fds[1]);
    send_text(p.c, "{\"after\":1}");
    json_decref(j);
    run_until(&p.server.messages, 2);
    assert_int_not_equal(p.server.fd, -1);
    run_until(&p.server.messages, 3);
    assert_int_equal(write(p.server.fd, "x", 1), 1);
    assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
    assert_int_equal(byte, 'x');
    close(p.server.fd);
    /* The sender's copy is closed: this was the last writer. */
    assert_int_equal(read(pipe_fds[0], &byte, 1), 0);
    close(pipe_fds[0]);
    pair_end(&p);
}

static void a_large_message_survives_a_full_socket(void **state)
{
    struct pair p;
    size_t n = 900000;
    char *text = malloc(n + 1);

    (void)state;
    pair_make(&p);
    memset(text, 'a', n);
    text[n] = '\0';
    json_t *j = json_pack("{ss}", "text", text);
    ipc_send(p.c, j);
    ipc_send(p.c, j);
    run_until(&p.server.messages, 2);
    assert_string_equal(json_text(p.server.last, "text", ""), text);
    json_decref(j);
    free(text);
    pair_end(&p);
}

/* A client of which the server knows nothing but its bytes. */
static int raw_connect(struct pair *p)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    run_until(&p->server.opened, 2);
    return fd;
}

/* Raw bytes to the server, which must throw us out. */
static void assert_thrown_out(const char *bytes, size_t n, const char *why)
{
    struct pair p;

    pair_make(&p);
    int fd = raw_connect(&p);
    size_t sent = 0;
    while (sent < n && !p.server.closed) {
        ssize_t r =
            send(fd, bytes + sent, n - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (r > 0)
            sent += (size_t)r;
        ev_run(loop, EVRUN_NOWAIT);
    }
    run_until(&p.server.closed, 1);
    if (!strstr(p.server.why.text, why))
        fail_msg("\"%s\" lacks \"%s\"", p.server.why.text, why);
    close(fd);
    pair_end(&p);
}

static void broken_lines_end_the_connection(void **state)
{
    (void)state;
    assert_thrown_out("{]\n", 3, "broken message");
    assert_thrown_out("[1]\n", 4, "not an object");
    assert_thrown_out("{\"fd\":true}\n", 12, "descriptor is missing");
}

static void an_endless_line_ends_the_connection(void **state)
{
    size_t n = IPC_LINE_MAX + 100000;
    char *bytes = malloc(n);

    (void)state;
    memset(bytes, ' ', n);
    assert_thrown_out(bytes, n, "too long");
    free(bytes);
}

static void who_does_not_read_is_thrown_out(void **state)
{
    struct pair p;
    char text[60000];

    (void)state;
    pair_make(&p);
    int fd = raw_connect(&p);
    memset(text, 'b', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    json_t *j = json_pack("{ss}", "text", text);
    for (unsigned i = 0; i < 2 * IPC_QUEUE_MAX / sizeof text; i++)
        ipc_send(p.server.conn, j);
    json_decref(j);
    assert_int_equal(p.server.closed, 0); /* only from the loop */
    run_until(&p.server.closed, 1);
    assert_non_null(strstr(p.server.why.text, "does not read"));
    close(fd);
    pair_end(&p);
}

static void clients_above_the_limit_are_closed(void **state)
{
    struct pair p;
    struct ipc_conn *more[4];
    struct end end = {.fd = -1};

    (void)state;
    pair_make(&p);
    for (int i = 0; i < 4; i++)
        assert_int_equal(
            ipc_connect(loop, path, &handler, &end, &more[i], NULL), 0);
    run_until(&end.closed, 1);
    assert_int_equal(p.server.opened, 4);
    assert_int_equal(end.why.kind, ERR_GONE);
    for (int i = 0; i < 3; i++)
        ipc_close(more[i]);
    pair_end(&p);
}

static void closing_inside_callbacks_is_allowed(void **state)
{
    struct pair p;

    (void)state;
    pair_make(&p);
    p.server.close_in_message = true;
    send_text(p.c, "{\"a\":1}");
    send_text(p.c, "{\"a\":2}");
    run_until(&p.client.closed, 1);
    assert_int_equal(p.server.messages, 1);
    assert_int_equal(p.server.closed, 0);
    pair_end(&p);
    pair_make(&p);
    p.server.close_in_opened = true;
    struct end end = {.fd = -1};
    struct ipc_conn *c;
    assert_int_equal(ipc_connect(loop, path, &handler, &end, &c, NULL), 0);
    run_until(&end.closed, 1);
    pair_end(&p);
}

static void one_path_has_one_listener(void **state)
{
    struct pair p;
    struct ipc_server *second;
    struct err e = ERR_INIT;

    (void)state;
    pair_make(&p);
    assert_int_equal(ipc_listen(loop, path, 4, &handler, NULL, &second, &e),
                     -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    pair_end(&p);
}

static void a_dead_listeners_socket_is_replaced(void **state)
{
    struct pair p;
    struct err e = ERR_INIT;
    struct ipc_conn *c;

    (void)state;
    if (!fork()) {
        struct ipc_server *s;
        if (ipc_listen(loop, path, 4, &handler, NULL, &s, NULL))
            _exit(1);
        _exit(0); /* the name stays behind */
    }
    while (access(path, F_OK))
        usleep(1000);
    do {
        err_clear(&e);
        if (!ipc_connect(loop, path, &handler, NULL, &c, &e))
            ipc_close(c);
    } while (e.kind != ERR_GONE);
    pair_make(&p);
    pair_end(&p);
}

static void errors_travel_whole(void **state)
{
    struct pair p;
    struct err sent = ERR_INIT, got = ERR_INIT;

    (void)state;
    pair_make(&p);
    err_kind(&sent, ERR_REFUSED, "VM web has a writable disk xvda \xff");
    err_hint(&sent, "use a read-only root");
    json_t *request = json_pack("{si}", "id", 7);
    ipc_reply_error(p.server.conn, request, &sent);
    run_until(&p.client.messages, 1);
    assert_true(ipc_error_of(p.client.last, &got));
    assert_int_equal(json_number(p.client.last, "id", 0), 7);
    assert_int_equal(got.kind, ERR_REFUSED);
    assert_string_equal(got.text, "VM web has a writable disk xvda ?");
    assert_string_equal(got.hint, "use a read-only root");
    ipc_reply(p.server.conn, request, json_pack("{si}", "domid", 3));
    run_until(&p.client.messages, 2);
    assert_false(ipc_error_of(p.client.last, &got));
    assert_true(json_flag(p.client.last, "ok", false));
    json_decref(request);
    pair_end(&p);
}

static void a_peers_error_writes_nothing_but_text(void **state)
{
    json_t *reply = json_pack("{ss ss}", "error",
                              "no\033]0;owned\a\n<3>dom=web \xc2\x9b"
                              "31m",
                              "hint", "type\rthis");
    struct err e = ERR_INIT;

    (void)state;
    assert_true(ipc_error_of_peer(reply, &e));
    assert_string_equal(e.text, "no?]0;owned?"
                                "?<3>dom=web ??31m");
    assert_string_equal(e.hint, "type?this");
    json_decref(reply);
}

static void a_broadcast_reaches_everybody(void **state)
{
    struct pair p;
    struct end end = {.fd = -1};
    struct ipc_conn *c;

    (void)state;
    pair_make(&p);
    assert_int_equal(ipc_connect(loop, path, &handler, &end, &c, NULL), 0);
    run_until(&p.server.opened, 2);
    json_t *j = json_pack("{ss}", "event", "hello");
    ipc_broadcast(p.s, j);
    json_decref(j);
    run_until(&end.messages, 1);
    run_until(&p.client.messages, 1);
    json_decref(end.last);
    ipc_close(c);
    pair_end(&p);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, loop_make, loop_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(messages_arrive_in_order_both_ways),
        CASE(the_socket_is_private),
        CASE(a_descriptor_arrives_with_its_message),
        CASE(a_large_message_survives_a_full_socket),
        CASE(broken_lines_end_the_connection),
        CASE(an_endless_line_ends_the_connection),
        CASE(who_does_not_read_is_thrown_out),
        CASE(clients_above_the_limit_are_closed),
        CASE(closing_inside_callbacks_is_allowed),
        CASE(one_path_has_one_listener),
        CASE(a_dead_listeners_socket_is_replaced),
        CASE(errors_travel_whole),
        CASE(a_peers_error_writes_nothing_but_text),
        CASE(a_broadcast_reaches_everybody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
