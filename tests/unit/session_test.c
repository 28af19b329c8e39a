// SPDX-License-Identifier: Apache-2.0
/* Sessions between two keys on loopback: who is let in, and what travels. How
 * they end is session_end_test.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include <openssl/ssl.h>

#include "common/clock.h"
#include "link/session_priv.h"
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

/* --- Who is let in ----------------------------------------------------------
 */

static void two_known_keys_open_a_session(void **state)
{
    struct link_stats st;

    (void)state;
    pair_open(&p);
    assert_int_equal(p.a.ready, 1);
    assert_int_equal(p.b.ready, 1);
    assert_string_equal(link_peer_name(p.a.s), "birch");
    assert_string_equal(link_peer_name(p.b.s), "alder");
    assert_true(pin_equal(link_peer_pin(p.b.s), link_key_pin(p.alder.key)));
    link_stats(p.b.s, &st);
    assert_true(st.heard_ns && st.ready_ns && st.bytes_received > WIRE_HEADER);
    assert_int_equal(strncmp(st.cipher, "TLS_", 4), 0);
}

static void a_server_with_another_key_is_refused(void **state)
{
    char pin[PIN_TEXT];

    (void)state;
    p.alder_wants = link_key_pin(p.alder.key);
    pair_connect(&p);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.a.ready + p.b.ready, 0);
    assert_int_equal(p.a.why.kind, ERR_REFUSED);
    pin_format(link_key_pin(p.birch.key), pin);
    assert_non_null(strstr(p.a.why.text, pin)); /* what it showed */
    pin_format(link_key_pin(p.alder.key), pin);
    assert_non_null(strstr(p.a.why.text, pin)); /* what was expected */
    assert_non_null(strstr(p.a.why.hint, "understudy peer add root@birch"));
    /* and the server hears why */
    assert_int_equal(p.b.why.kind, ERR_REFUSED);
    assert_non_null(strstr(p.b.why.text, "does not know this host's key"));
}

static void an_unknown_client_is_refused(void **state)
{
    char pin[PIN_TEXT];

    (void)state;
    p.birch_knows = link_key_pin(p.birch.key);
    pair_connect(&p);
    assert_true(run_until(both_closed, &p));
    assert_int_equal(p.b.ready, 0);
    pin_format(link_key_pin(p.alder.key), pin);
    assert_int_equal(p.b.why.kind, ERR_REFUSED);
    assert_non_null(strstr(p.b.why.text, "unknown key"));
    assert_non_null(strstr(p.b.why.text, pin));
    assert_non_null(strstr(p.b.why.hint, "understudy peer add"));
    /* the client learns that, and its own pin to type over there */
    assert_int_equal(p.a.why.kind, ERR_REFUSED);
    assert_non_null(strstr(p.a.why.text, "does not know this host's key"));
    assert_non_null(strstr(p.a.why.hint, pin));
}

/* --- Strangers --------------------------------------------------------------
 */

/* birch as the server on one end; returns the other, blocking. */
static int stranger(void)
{
    int fd[2];

    tcp_pair(fd);
    assert_int_equal(link_accept(EV_DEFAULT, p.birch.tls, fd[0], WIRE_VM,
                                 lookup_one, (void *)(uintptr_t)p.birch_knows,
                                 &side_callbacks, &p.b, &p.b.s, NULL),
                     0);
    return fd[1];
}

/* Handshake of a hand-made client, in small steps beside the loop. */
static SSL *stranger_connect(int fd, SSL_CTX *ctx)
{
    SSL *ssl = SSL_new(ctx);

    SSL_set_fd(ssl, fd);
    SSL_set_connect_state(ssl);
    for (int i = 0; i < 1000 && !p.b.closed; i++) {
        if (SSL_do_handshake(ssl) == 1 && p.b.ready)
            break;
        ev_run(EV_DEFAULT, EVRUN_NOWAIT);
    }
    return ssl;
}

static void a_client_with_tls_1_2_is_refused(void **state)
{
    int fd = stranger();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    (void)state;
    SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    SSL *ssl = stranger_connect(fd, ctx);
    assert_true(run_until(b_closed, &p));
    assert_int_equal(p.b.ready, 0);
    assert_non_null(strstr(p.b.why.text, "does not speak TLS 1.3"));
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
}

static void a_client_without_a_key_is_refused(void **state)
{
    int fd = stranger();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    (void)state;
    SSL *ssl = stranger_connect(fd, ctx);
    assert_true(run_until(b_closed, &p));
    assert_int_equal(p.b.ready, 0);
    assert_int_equal(p.b.why.kind, ERR_REFUSED);
    assert_non_null(strstr(p.b.why.text, "presented no key"));
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
}

static void no_session_can_be_resumed(void **state)
{
    int fd = stranger();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    char byte;

    (void)state;
    SSL_CTX_use_certificate(ctx, SSL_CTX_get0_certificate(p.alder.tls->ctx));
    SSL_CTX_use_PrivateKey(ctx, SSL_CTX_get0_privatekey(p.alder.tls->ctx));
    SSL *ssl = stranger_connect(fd, ctx);
    assert_int_equal(p.b.ready, 1);
    for (int i = 0; i < 20; i++)
        ev_run(EV_DEFAULT, EVRUN_NOWAIT);
    assert_int_equal(SSL_read(ssl, &byte, 1), -1); /* takes in tickets */
    assert_false(SSL_SESSION_is_resumable(SSL_get_session(ssl)));
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
}

static void plaintext_instead_of_tls_is_refused(void **state)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    int fd = stranger();

    (void)state;
    assert_int_equal(write(fd, text, sizeof text), sizeof text);
    assert_true(run_until(b_closed, &p));
    assert_int_equal(p.b.ready, 0);
    assert_non_null(strstr(p.b.why.text, "does not speak TLS"));
    close(fd);
}

/* Closing with unread input makes TCP send a reset, which on a real network
 * can overtake the alert that explains the refusal. */
static void an_alert_is_not_swallowed_by_a_reset(void **state)
{
    /* begins as TLS does, with a handshake message that there is not */
    static uint8_t noise[150000] = {0x16, 3, 1, 1, 0, 0xff};
    int fd = stranger();
    ssize_t r;

    (void)state;
    assert_int_equal(write(fd, noise, sizeof noise), sizeof noise);
    shutdown(fd, SHUT_WR);
    assert_true(run_until(b_closed, &p));
    assert_int_equal(p.b.ready, 0);
    assert_true(recv(fd, noise, sizeof noise, 0) > 0);
    while ((r = recv(fd, noise, sizeof noise, 0)) > 0)
        ;
    assert_int_equal(r, 0); /* an end, no ECONNRESET */
    close(fd);
}

static void random_bytes_instead_of_tls_are_survived(void **state)
{
    uint8_t bytes[512];

    (void)state;
    srand(1);
    for (int i = 0; i < 200; i++) {
        int fd = stranger();
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)rand();
        if (i & 1)
            memcpy(bytes, "\x16\x03\x01\x01\x00\x01", 6); /* nearly */
        assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
        shutdown(fd, SHUT_WR);
        p.b.closed = 0;
        assert_true(run_until(b_closed, &p));
        assert_int_equal(p.b.closed, 1);
        assert_true(p.b.why.text[0]);
        close(fd);
    }
    assert_int_equal(p.b.ready, 0);
    assert_int_equal(p.birch.tls->handshakes, 0);
}

static void a_connection_that_ends_at_once_is_reported(void **state)
{
    int fd = stranger();

    (void)state;
    close(fd);
    assert_true(run_until(b_closed, &p));
    assert_int_equal(p.b.why.kind, ERR_GONE);
}

static void accept_one(struct side *side, int *other, int rc, struct err *e)
{
    int fd[2];

    tcp_pair(fd);
    *other = fd[1];
    assert_int_equal(link_accept(EV_DEFAULT, p.birch.tls, fd[0], WIRE_VM,
                                 lookup_one, NULL, &side_callbacks, side,
                                 &side->s, e),
                     rc);
}

static void handshakes_are_bounded_in_number(void **state)
{
    struct side many[HANDSHAKES_MAX] = {0}, newer = {0}, over = {0};
    struct link_tls *tls = p.birch.tls;
    struct err e = ERR_INIT;
    int fd[HANDSHAKES_MAX + 2];

    (void)state;
    snprintf(tls->friends[0], sizeof tls->friends[0], "127.0.0.1");
    for (int i = 0; i < HANDSHAKES_MAX; i++) {
        if (i == 3)
            tls->friends[0][0] = '\0'; /* strangers from here on */
        accept_one(&many[i], &fd[i], 0, &e);
    }
    /* The oldest stranger makes room for another. */
    accept_one(&newer, &fd[HANDSHAKES_MAX], 0, &e);
    assert_int_equal(tls->handshakes, HANDSHAKES_MAX);
    ev_run(EV_DEFAULT, EVRUN_NOWAIT);
    for (int i = 0; i < HANDSHAKES_MAX; i++)
        assert_int_equal(many[i].closed, i == 3);
    assert_int_equal(many[3].why.kind, ERR_REFUSED);
    /* Friends only: a stranger is refused, a friend takes the oldest's place.
     */
    for (struct link_session *s = tls->oldest; s; s = s->younger)
        s->known_address = true;
    accept_one(&over, &fd[HANDSHAKES_MAX + 1], -1, &e);
    assert_int_equal(e.kind, ERR_REFUSED);
    close(fd[HANDSHAKES_MAX + 1]);
    snprintf(tls->friends[0], sizeof tls->friends[0], "127.0.0.1");
    accept_one(&over, &fd[HANDSHAKES_MAX + 1], 0, &e);
    ev_run(EV_DEFAULT, EVRUN_NOWAIT);
    assert_int_equal(many[0].closed, 1);
    assert_int_equal(tls->handshakes, HANDSHAKES_MAX);
    side_free(&newer);
    side_free(&over);
    for (int i = 0; i < HANDSHAKES_MAX; i++)
        side_free(&many[i]);
    for (int i = 0; i < HANDSHAKES_MAX + 2; i++)
        close(fd[i]);
    assert_int_equal(tls->handshakes, 0);
    assert_null(tls->oldest);
}

static void where_a_key_was_shown_friends_are(void **state)
{
    (void)state;
    pair_open(&p);
    assert_string_equal(p.birch.tls->friends[0], "127.0.0.1");
    assert_string_equal(p.alder.tls->friends[0], "127.0.0.1");
    assert_string_equal(p.alder.tls->friends[1], "");
}

static void aes_is_used_only_when_both_have_it(void **state)
{
    struct link_stats st;

    (void)state;
    for (int i = 0; i < 4; i++) {
        link_pair_free(&p);
        pair_init(&p);
        assert_int_equal(tls_set_ciphers(p.alder.tls, i & 1), 0);
        assert_int_equal(tls_set_ciphers(p.birch.tls, i & 2), 0);
        pair_open(&p);
        link_stats(p.a.s, &st);
        assert_string_equal(st.cipher, i == 3 ? "TLS_AES_128_GCM_SHA256"
                                              : "TLS_CHACHA20_POLY1305_SHA256");
    }
}

/* --- What travels -----------------------------------------------------------
 */

static bool b_has_pages(void *want)
{
    return p.b.bytes >= *(uint64_t *)want;
}

static void the_largest_record_arrives_whole(void **state)
{
    uint8_t *data = malloc(WIRE_PAYLOAD_MAX);
    uint64_t want = WIRE_PAYLOAD_MAX;

    (void)state;
    for (size_t i = 0; i < WIRE_PAYLOAD_MAX; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    pair_open(&p);
    p.b.bytes = 0;
    link_send(p.a.s, WIRE_PAGES, data, WIRE_PAYLOAD_MAX);
    link_send(p.a.s, WIRE_COMMIT, NULL, 0);
    assert_true(link_queued_bytes(p.a.s) > WIRE_PAYLOAD_MAX);
    assert_true(run_until(b_has_pages, &want));
    assert_int_equal(p.b.types[1], WIRE_PAGES);
    if (p.b.records == 2)
        assert_memory_equal(p.b.last.data, data, WIRE_PAYLOAD_MAX);
    assert_int_equal(p.a.drained, 1);
    assert_int_equal(link_queued_bytes(p.a.s) > WIRE_HEADER, 0);
    free(data);
}

static bool b_has_records(void *want)
{
    return p.b.records >= *(unsigned *)want || p.b.closed;
}

static void an_empty_payload_is_a_record(void **state)
{
    unsigned want = 3;

    (void)state;
    pair_open(&p);
    link_send(p.a.s, WIRE_PAGES, NULL, 0);
    link_send(p.a.s, WIRE_COMMIT, NULL, 0);
    assert_true(run_until(b_has_records, &want));
    assert_int_equal(p.b.types[1], WIRE_PAGES);
    assert_int_equal(p.b.types[2], WIRE_COMMIT);
    assert_int_equal(p.b.last.len, 0);
}

static void an_urgent_record_overtakes_bulk(void **state)
{
    static uint8_t bulk[WIRE_BULK_CHUNK];
    struct wire_beat beat = {.seq = 1};
    struct buf b = {0};
    unsigned want = 42;

    (void)state;
    pair_open(&p);
    beat_put(&b, &beat);
    for (int i = 0; i < 40; i++)
        link_send(p.a.s, WIRE_PAGES, bulk, sizeof bulk);
    ev_run(EV_DEFAULT, EVRUN_NOWAIT); /* the first has begun */
    link_send_urgent(p.a.s, WIRE_BEAT, b.data, b.len);
    assert_true(run_until(b_has_records, &want));
    unsigned at = 1;
    while (at < want && p.b.types[at] != WIRE_BEAT)
        at++;
    /* what had begun, and what went in the turns until then, goes first */
    assert_true(at < 8);
    assert_int_equal(p.b.records, 42);
    buf_free(&b);
}

static void an_urgent_record_does_not_overtake_hello(void **state)
{
    struct wire_beat beat = {.seq = 1};
    struct buf b = {0};
    unsigned want = 2;

    (void)state;
    pair_connect(&p);
    while (!p.a.ready || !p.b.ready)
        ev_run(EV_DEFAULT, EVRUN_ONCE);
    beat_put(&b, &beat);
    send_hello(&p.a, WIRE_PRIMARY);
    link_send_urgent(p.a.s, WIRE_BEAT, b.data, b.len);
    assert_true(run_until(b_has_records, &want));
    assert_int_equal(p.b.types[0], WIRE_HELLO);
    assert_int_equal(p.b.types[1], WIRE_BEAT);
    buf_free(&b);
}

static unsigned beat_at; /* how many records came before it; 0: not yet */

static void note_beat(struct side *me, uint32_t type)
{
    if (type == WIRE_BEAT)
        beat_at = me->records - 1;
}

static bool beat_came(void *arg)
{
    (void)arg;
    return beat_at || p.b.closed;
}

static void beats_get_through_while_bulk_waits(void **state)
{
    static uint8_t bulk[WIRE_BULK_CHUNK];
    struct wire_beat beat = {.seq = 1};
    struct buf b = {0};
    unsigned beats = 0, worst = 0;

    (void)state;
    pair_open(&p);
    p.b.on_record = note_beat;
    beat_put(&b, &beat);
    for (int i = 0; i < 200; i++) /* 50 MiB wait */
        link_send(p.a.s, WIRE_PAGES, bulk, sizeof bulk);
    while (link_queued_bytes(p.a.s) > LINK_HIGH_WATER) {
        unsigned before = p.b.records;
        beat_at = 0;
        link_send_urgent(p.a.s, WIRE_BEAT, b.data, b.len);
        assert_true(run_until(beat_came, NULL));
        worst = beat_at - before > worst ? beat_at - before : worst;
        beats++;
    }
    assert_true(beats >= 5);
    /* only what the socket buffers of loopback had taken goes first */
    assert_true(worst < 40);
    buf_free(&b);
}

static unsigned key_updates;

static void count_key_updates(int out, int version, int content,
                              const void *bytes, size_t len, SSL *ssl,
                              void *arg)
{
    (void)version;
    (void)ssl;
    (void)arg;
    if (out && content == SSL3_RT_HANDSHAKE && len &&
        *(const uint8_t *)bytes == SSL3_MT_KEY_UPDATE)
        key_updates++;
}

static void the_key_is_renewed_while_data_flows(void **state)
{
    static uint8_t bulk[WIRE_BULK_CHUNK];
    unsigned want = 41;

    (void)state;
    p.alder.tls->rekey_bytes = 1 << 20; /* 10 times */
    p.birch.tls->rekey_bytes = 100;
    key_updates = 0;
    SSL_CTX_set_msg_callback(p.alder.tls->ctx, count_key_updates);
    pair_open(&p);
    for (int i = 0; i < 40; i++) {
        memset(bulk, i, sizeof bulk);
        link_send(p.a.s, WIRE_PAGES, bulk, sizeof bulk);
        link_send(p.b.s, WIRE_ACK, bulk, 64);
    }
    assert_true(run_until(b_has_records, &want));
    assert_int_equal(p.b.closed, 0);
    assert_int_equal(p.b.last.data[sizeof bulk - 1], 39);
    assert_true(key_updates >= 9 && key_updates <= 10);
    assert_int_equal(p.a.closed, 0);
}

static void a_held_session_delivers_nothing_and_then_all(void **state)
{
    static uint8_t bulk[WIRE_BULK_CHUNK];
    unsigned want = 17;

    (void)state;
    pair_open(&p);
    link_hold(p.b.s, true);
    for (int i = 0; i < 16; i++)
        link_send(p.a.s, WIRE_PAGES, bulk, sizeof bulk);
    run_for(0.1);
    assert_int_equal(p.b.records, 1);
    link_hold(p.b.s, false);
    assert_true(run_until(b_has_records, &want));
    assert_int_equal(p.b.records, 17);
}

static void hold_on_first(struct side *me, uint32_t type)
{
    if (type == WIRE_PAGES)
        link_hold(me->s, true);
}

static void hold_takes_effect_inside_the_callback(void **state)
{
    unsigned want = 3;

    (void)state;
    pair_open(&p);
    p.b.on_record = hold_on_first;
    for (int i = 0; i < 3; i++)
        link_send(p.a.s, WIRE_PAGES, "x", 1);
    run_for(0.05);
    assert_int_equal(p.b.records, 2);
    /* the other records may be inside TLS already: no event of the socket */
    link_hold(p.b.s, false);
    assert_true(run_until(b_has_records, &want));
    assert_int_equal(p.b.records, 3);
}

static unsigned ticks;

static void on_tick(struct ev_loop *loop, struct ev_timer *w, int events)
{
    (void)loop;
    (void)w;
    (void)events;
    ticks++;
}

static void bulk_does_not_starve_other_watchers(void **state)
{
    static uint8_t bulk[1 << 20];
    struct ev_timer tick;
    unsigned want = 61, iterations = 0;

    (void)state;
    pair_open(&p);
    for (int i = 0; i < 60; i++)
        link_send(p.a.s, WIRE_PAGES, bulk, sizeof bulk);
    ticks = 0;
    ev_timer_init(&tick, on_tick, 0.0001, 0.0001);
    ev_timer_start(EV_DEFAULT, &tick);
    while (p.b.records < want && iterations < 100000) {
        ev_run(EV_DEFAULT, EVRUN_ONCE);
        iterations++;
    }
    ev_timer_stop(EV_DEFAULT, &tick);
    /* 60 MiB in turns of 256 KiB each way */
    assert_true(iterations >= 200);
    assert_true(ticks >= 100);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(two_known_keys_open_a_session),
        T(a_server_with_another_key_is_refused),
        T(an_unknown_client_is_refused),
        T(an_alert_is_not_swallowed_by_a_reset),
        T(a_client_with_tls_1_2_is_refused),
        T(a_client_without_a_key_is_refused),
        T(no_session_can_be_resumed),
        T(plaintext_instead_of_tls_is_refused),
        T(random_bytes_instead_of_tls_are_survived),
        T(a_connection_that_ends_at_once_is_reported),
        T(handshakes_are_bounded_in_number),
        T(where_a_key_was_shown_friends_are),
        T(aes_is_used_only_when_both_have_it),
        T(the_largest_record_arrives_whole),
        T(an_empty_payload_is_a_record),
        T(an_urgent_record_overtakes_bulk),
        T(an_urgent_record_does_not_overtake_hello),
        T(beats_get_through_while_bulk_waits),
        T(the_key_is_renewed_while_data_flows),
        T(a_held_session_delivers_nothing_and_then_all),
        T(hold_takes_effect_inside_the_callback),
        T(bulk_does_not_starve_other_watchers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
