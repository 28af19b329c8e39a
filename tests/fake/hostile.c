// SPDX-License-Identifier: Apache-2.0
/* A hostile peer, for tests/fake/hostile.sh. `hostile port PORT UUID ROUNDS`
 * is a stranger: random bytes, cut and broken preambles, good ones with
 * nonsense behind them, connections that say nothing. `hostile key PORT UUID
 * ROUNDS ETC PIN` holds the key in ETC, which the other side trusts, and sends
 * records that have no business there. Ends after ROUNDS connections.
 * `hostile sessions PORT ETC PIN NUMBER` holds the key and opens so many
 * sessions of a daemon at a time; prints how many of them were closed within
 * two seconds.
 * `hostile blueprint PORT UUID ETC PIN NAME UUID2` holds the key too, and wants
 * a shell for NAME and UUID2 where UUID is meant; prints what comes of it.
 * `hostile next PORT ETC` is no enemy: a host with the key in ETC (made if it
 * is not there; the pin is printed) that speaks the next version of the
 * protocol, and takes connections until SIGTERM. `hostile liar PORT ETC JSON`
 * likewise, but it speaks this version, and answers every request of a daemon
 * with JSON; it says "asked" for each. */
#include <arpa/inet.h>
#include <ev.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/store.h"
#include "hypervisor/fake_host.h"
#include "link/session.h"

#define SILENT 100

static uint64_t seed = 88172645463325252ull;
static uint16_t port;
static uint8_t uuid[16];

static uint32_t rnd(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 20) % below;
}

static void noise(uint8_t *p, size_t n)
{
    while (n--)
        *p++ = (uint8_t)rnd(256);
}

/* --- A stranger --- */

static int reach(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof a))
        return fd;
    perror("hostile: connect");
    exit(1);
}

/* What a stranger says; the first part of it is a good preamble, or not. */
static size_t speech(uint8_t *p, size_t max)
{
    struct wire_preamble good = {.version = 1, .kind = WIRE_HOST};
    size_t n = rnd((uint32_t)max);
    uint32_t how = rnd(5);

    noise(p, max);
    if (how == 0)
        return n;
    if (how >= 3) {
        good.kind = how == 3 ? WIRE_VM : (uint16_t)rnd(5);
        memcpy(good.uuid, uuid, sizeof uuid);
    }
    wire_preamble_put(&good, p);
    if (how == 1)
        return rnd(WIRE_PREAMBLE);
    /* As a TLS record begins: a handshake of any length. */
    if (rnd(2))
        memcpy(p + WIRE_PREAMBLE, (uint8_t[]){22, 3, 1}, 3);
    return n < WIRE_PREAMBLE ? WIRE_PREAMBLE + n : n;
}

static int stranger(unsigned rounds)
{
    static uint8_t bytes[20000];
    int silent[SILENT];

    for (int i = 0; i < SILENT; i++)
        silent[i] = reach();
    for (unsigned i = 0; i < rounds; i++) {
        int fd = reach();
        size_t n = speech(bytes, sizeof bytes);
        if (send(fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            perror("hostile: send");
        if (rnd(3) == 0)
            usleep(rnd(5000));
        close(fd);
    }
    for (int i = 0; i < SILENT; i++)
        close(silent[i]);
    return 0;
}

/* --- One with a key --- */

static void misbehave(struct link_session *s)
{
    static const uint32_t types[] = {WIRE_BEAT,  WIRE_REFUSE,   WIRE_BLUEPRINT,
                                     WIRE_READY, WIRE_DISCARD,  WIRE_DISCARDED,
                                     WIRE_STOP,  WIRE_STOPPED,  WIRE_PAGES,
                                     WIRE_STATE, WIRE_COMMIT,   WIRE_ACK,
                                     WIRE_DISK,  WIRE_DISK_WANT};
    static uint8_t bytes[4000];

    for (uint32_t n = rnd(8); n; n--) {
        size_t len = rnd(rnd(2) ? 64 : sizeof bytes);
        noise(bytes, len);
        link_send(s, types[rnd(sizeof types / sizeof *types)], bytes, len);
    }
}

static void say_hello(struct link_session *s, uint16_t role)
{
    struct wire_hello h = {.protocol = WIRE_VERSION,
                           .kind = WIRE_VM,
                           .role = role,
                           .running = true,
                           .generation = 1,
                           .beat_ms = 100,
                           .version = "0.1",
                           .name = "web"};
    struct buf b = {0};

    memcpy(h.uuid, uuid, sizeof uuid);
    hello_put(&b, &h);
    link_send(s, WIRE_HELLO, b.data, b.len);
    buf_free(&b);
}

static void on_ready(struct link_session *s, void *arg)
{
    uint16_t role = (uint16_t)(rnd(8) ? WIRE_PRIMARY : rnd(4));

    (void)arg;
    if (rnd(8))
        say_hello(s, role);
    misbehave(s);
    link_close(s, 300);
}

static void on_record(struct link_session *s, uint32_t type,
                      const uint8_t *payload, size_t len, void *arg)
{
    (void)s, (void)type, (void)payload, (void)len, (void)arg;
}

static bool over;

static void on_closed(struct link_session *s, const struct err *why, void *arg)
{
    (void)s, (void)arg;
    over = true;
    printf("%s\n", why->kind ? why->text : "closed");
}

/* Connections one after the other, until each is closed. */
static int insider(unsigned rounds, const struct link_callbacks *cb,
                   const char *etc, const char *pin_text)
{
    struct ev_loop *loop = ev_default_loop(0);
    struct link_key *key;
    struct link_tls *tls;
    uint8_t pin[PIN_BYTES];
    struct err e = ERR_INIT;
    struct link_target t = {.peer = "birch",
                            .address = "127.0.0.1",
                            .port = port,
                            .pin = pin,
                            .kind = WIRE_VM};

    memcpy(t.uuid, uuid, sizeof uuid);
    if (pin_parse(pin_text, pin, &e) || link_key_load(etc, false, &key, &e) ||
        link_tls_new(key, &tls, &e))
        goto out;
    for (unsigned i = 0; i < rounds; i++) {
        struct link_session *s;
        over = false;
        if (link_connect(loop, tls, &t, cb, NULL, &s, &e))
            goto out;
        while (!over)
            ev_run(loop, EVRUN_ONCE);
    }
    link_tls_free(tls);
    link_key_free(key);
    return 0;
out:
    fprintf(stderr, "hostile: %s\n", e.text);
    return 1;
}

static const struct link_callbacks noisy = {
    .ready = on_ready, .record = on_record, .closed = on_closed};

/* --- One that wants another VM's shell --- */

static struct fake_spec wanted = {.ram_pages = 100, .writers = 1};

static void blueprint_send(struct link_session *s, void *arg)
{
    struct buf all = {0}, b = {0};

    (void)arg;
    say_hello(s, WIRE_PRIMARY);
    fake_blueprint_put(&all, &wanted, 0);
    struct wire_blueprint w = {.total = (uint32_t)all.len,
                               .last = true,
                               .data = all.data,
                               .len = all.len};
    blueprint_put(&b, &w);
    link_send(s, WIRE_BLUEPRINT, b.data, b.len);
    buf_free(&b);
    buf_free(&all);
}

static void blueprint_answer(struct link_session *s, uint32_t type,
                             const uint8_t *payload, size_t len, void *arg)
{
    (void)payload, (void)len, (void)arg;
    if (type != WIRE_READY)
        return;
    printf("READY\n");
    link_close(s, 300);
}

static const struct link_callbacks greedy = {
    .ready = blueprint_send, .record = blueprint_answer, .closed = on_closed};

/* --- One of the next version --- */

struct next {
    struct ev_loop *loop;
    struct link_tls *tls;
};

static bool anybody(void *arg, const uint8_t pin[PIN_BYTES],
                    char name[WIRE_NAME_MAX])
{
    (void)arg, (void)pin;
    strcpy(name, "somebody");
    return true;
}

/* Only the first field is where it always was. */
static void next_hello(struct link_session *s, void *arg)
{
    struct buf b = {0};

    (void)arg;
    buf_u16(&b, WIRE_VERSION + 1);
    buf_str(&b, "what comes next is for others to know");
    link_send(s, WIRE_HELLO, b.data, b.len);
    buf_free(&b);
}

static const char *lie;

static void liar_hello(struct link_session *s, void *arg)
{
    struct wire_hello h = {.protocol = WIRE_VERSION,
                           .kind = WIRE_HOST,
                           .beat_ms = 100,
                           .version = "0.1",
                           .name = "alder"};
    struct buf b = {0};

    (void)arg;
    hello_put(&b, &h);
    link_send(s, WIRE_HELLO, b.data, b.len);
    buf_free(&b);
}

static void liar_record(struct link_session *s, uint32_t type,
                        const uint8_t *payload, size_t len, void *arg)
{
    struct wire_call c;
    struct buf b = {0};
    struct err e = ERR_INIT;

    (void)arg;
    if (type != WIRE_REQUEST || call_get(&c, payload, len, &e))
        return;
    printf("asked\n");
    fflush(stdout);
    c.json = lie;
    c.len = strlen(lie);
    call_put(&b, &c);
    link_send(s, WIRE_REPLY, b.data, b.len);
    buf_free(&b);
}

static void next_arrival(void *arg, const struct wire_preamble *p, int fd,
                         const char *from)
{
    static const struct link_callbacks later = {
        .ready = next_hello, .record = on_record, .closed = on_closed};
    static const struct link_callbacks liar = {
        .ready = liar_hello, .record = liar_record, .closed = on_closed};
    struct next *n = arg;
    struct link_session *s;
    struct err e = ERR_INIT;

    if (link_accept(n->loop, n->tls, fd, (enum wire_kind)p->kind, anybody, NULL,
                    lie ? &liar : &later, NULL, &s, &e))
        fprintf(stderr, "hostile: %s: %s\n", from, e.text);
}

static int next(const char *etc)
{
    struct next n = {.loop = ev_default_loop(0)};
    struct link_key *key = NULL;
    struct link_listener *l;
    char pin[PIN_TEXT];
    struct err e = ERR_INIT;

    if (link_key_load(etc, true, &key, &e) || link_tls_new(key, &n.tls, &e) ||
        link_listen(n.loop, "127.0.0.1", port, next_arrival, &n, &l, &e)) {
        fprintf(stderr, "hostile: %s\n", e.text);
        return 1;
    }
    pin_format(link_key_pin(key), pin);
    printf("%s\n", pin);
    fflush(stdout);
    ev_run(n.loop, 0);
    return 0;
}

/* --- One with many sessions --- */

static unsigned ended;

static void on_ended(struct link_session *s, const struct err *why, void *arg)
{
    (void)s, (void)why, (void)arg;
    ended++;
}

static void stop(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)w, (void)events;
    ev_break(loop, EVBREAK_ALL);
}

static int sessions(const char *etc, const char *pin_text, unsigned number)
{
    static const struct link_callbacks cb = {
        .ready = liar_hello, .record = on_record, .closed = on_ended};
    struct ev_loop *loop = ev_default_loop(0);
    struct link_key *key;
    struct link_tls *tls;
    struct link_session *s;
    uint8_t pin[PIN_BYTES];
    ev_timer end;
    struct err e = ERR_INIT;
    struct link_target t = {.peer = "birch",
                            .address = "127.0.0.1",
                            .port = port,
                            .pin = pin,
                            .kind = WIRE_HOST};

    if (pin_parse(pin_text, pin, &e) || link_key_load(etc, false, &key, &e) ||
        link_tls_new(key, &tls, &e))
        goto out;
    while (number--) {
        if (link_connect(loop, tls, &t, &cb, NULL, &s, &e))
            goto out;
    }
    ev_timer_init(&end, stop, 2., 0.);
    ev_timer_start(loop, &end);
    ev_run(loop, 0);
    printf("%u\n", ended);
    link_key_free(key);
    return 0;
out:
    fprintf(stderr, "hostile: %s\n", e.text);
    return 1;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if ((argc == 4 && !strcmp(argv[1], "next")) ||
        (argc == 5 && !strcmp(argv[1], "liar"))) {
        port = (uint16_t)atoi(argv[2]);
        lie = argv[4];
        return next(argv[3]);
    }
    if (argc == 6 && !strcmp(argv[1], "sessions")) {
        port = (uint16_t)atoi(argv[2]);
        return sessions(argv[3], argv[4], (unsigned)atoi(argv[5]));
    }
    if (argc < 5 || !uuid_parse(argv[3], uuid))
        return 2;
    port = (uint16_t)atoi(argv[2]);
    if (getenv("SEED"))
        seed ^= strtoull(getenv("SEED"), NULL, 10) << 8;
    if (!strcmp(argv[1], "port"))
        return stranger((unsigned)atoi(argv[4]));
    if (!strcmp(argv[1], "key") && argc == 7)
        return insider((unsigned)atoi(argv[4]), &noisy, argv[5], argv[6]);
    if (!strcmp(argv[1], "blueprint") && argc == 8 &&
        uuid_parse(argv[7], wanted.uuid)) {
        snprintf(wanted.name, sizeof wanted.name, "%s", argv[6]);
        return insider(1, &greedy, argv[4], argv[5]);
    }
    return 2;
}
