// SPDX-License-Identifier: Apache-2.0
/* A fake etcd; see fake_etcd.h. */
#include "tests/lib/fake_etcd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct fake_client {
    struct fake_client *next;
    struct fake_etcd *f;
    ev_io io;
    ev_timer slow;
    char in[16384];
    size_t len;
};

static void client_end(struct fake_client *c)
{
    struct fake_client **p = &c->f->clients;

    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    ev_io_stop(EV_DEFAULT, &c->io);
    ev_timer_stop(EV_DEFAULT, &c->slow);
    close(c->io.fd);
    free(c);
}

static void put(struct fake_client *c, const char *text)
{
    ssize_t n = send(c->io.fd, text, strlen(text), MSG_NOSIGNAL);
    (void)n;
}

static void reply(struct fake_client *c, const char *status, const char *body)
{
    char head[200];

    snprintf(head, sizeof head,
             "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n",
             status, strlen(body));
    put(c, head);
    put(c, body);
}

/* --- As an etcd does ------------------------------------------------------ */

static json_t *header(const struct fake_etcd *f)
{
    return json_pack("{ss ss}", "cluster_id",
                     f->mood == FAKE_OTHER_ID ? "18" : "17", "revision", "9");
}

static json_t *range_of(const struct fake_etcd *f, const char *key)
{
    const struct fake_store *s = f->store;
    const char *value = f->mood == FAKE_GARBAGE ? "e30=" : s->value;
    char number[24];
    bool there = s->revision && !strcmp(s->key, key);

    if (f->mood == FAKE_OTHER_KEY || f->mood == FAKE_GARBAGE)
        there = true;
    if (!there)
        return json_pack("{so}", "header", header(f));
    snprintf(number, sizeof number, "%llu",
             (unsigned long long)(s->revision ? s->revision : 1));
    return json_pack("{so s[{ss ss ss}] ss}", "header", header(f), "kvs", "key",
                     f->mood == FAKE_OTHER_KEY ? "L3g=" : key, "mod_revision",
                     number, "value", value ? value : "e30=", "count", "1");
}

static json_t *txn_of(struct fake_etcd *f, json_t *ask)
{
    struct fake_store *s = f->store;
    const char *key, *value, *revision;

    if (json_unpack(ask, "{s[{ss ss}] s[{s{ss}}]}", "compare", "key", &key,
                    "mod_revision", &revision, "success", "request_put",
                    "value", &value))
        return NULL;
    if (strtoull(revision, NULL, 10) != s->revision || f->mood == FAKE_RACES)
        return json_pack("{so s[{so}]}", "header", header(f), "responses",
                         "response_range", range_of(f, key));
    char *new_key = strdup(key), *new_value = strdup(value);
    free(s->key);
    free(s->value);
    s->key = new_key;
    s->value = new_value;
    s->revision += 3;
    s->puts++;
    return json_pack("{so sb s[{s{so}}]}", "header", header(f), "succeeded", 1,
                     "responses", "response_put", "header", header(f));
}

static char *answer(struct fake_etcd *f, bool txn, const char *body)
{
    json_t *ask = json_loads(body, 0, NULL);
    const char *key = json_string_value(json_object_get(ask, "key"));
    json_t *out = txn ? txn_of(f, ask) : key ? range_of(f, key) : NULL;
    char *text = out ? json_dumps(out, 0) : strdup("");

    f->store->ranges += !txn;
    json_decref(out);
    json_decref(ask);
    return text;
}

/* --- As none should ------------------------------------------------------- */

static void on_slow(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    put(w->data, " ");
}

static void flood(struct fake_client *c, const char *first, const char *then)
{
    put(c, first);
    for (int i = 0; i < 3000; i++)
        put(c, then);
}

/* True: it is to be hung up. */
static bool strange(struct fake_client *c)
{
    switch (c->f->mood) {
    case FAKE_HANGS_UP:
        return true;
    case FAKE_SLOW:
        put(c, "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n");
        ev_timer_again(EV_DEFAULT, &c->slow);
        return false;
    case FAKE_OVERSIZE:
        flood(c, "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
              "{\"header\":{\"cluster_id\":\"17\"}}          ");
        return false;
    case FAKE_HEADERS:
        flood(c, "HTTP/1.1 200 OK\r\n", "X-Header: it is about nothing\r\n");
        return false;
    case FAKE_TRUNCATED:
        put(c, "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"
               "{\"header\":{\"cluster_id\":\"17\"}}");
        return true;
    case FAKE_NO_HTTP:
        put(c, "{\"header\":{\"cluster_id\":\"17\"}}\r\n\r\n");
        return true;
    case FAKE_NO_JSON:
        reply(c, "200 OK", "<html>it works</html>");
        return false;
    case FAKE_UNHAPPY:
        reply(c, "503 Service Unavailable",
              "{\"error\":\"etcdserver: no leader\",\"code\":14}");
        return false;
    case FAKE_ELSEWHERE:
        put(c, "HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\n"
               "Content-Length: 0\r\n\r\n");
        return false;
    default:
        return false;
    }
}

static bool is_strange(enum fake_mood mood)
{
    return mood > FAKE_GOOD && mood < FAKE_OTHER_ID && mood != FAKE_LOSES_TXN;
}

/* --- Requests ------------------------------------------------------------- */

/* True: it is to be hung up. */
static bool serve(struct fake_client *c, const char *body)
{
    struct fake_etcd *f = c->f;
    bool txn = strncmp(c->in, "POST /v3/kv/txn ", 16) == 0;
    bool range = strncmp(c->in, "POST /v3/kv/range ", 18) == 0;

    f->requests++;
    if (is_strange(f->mood))
        return strange(c);
    if (!txn && !range) {
        reply(c, "404 Not Found", "");
        return false;
    }
    char *text = answer(f, txn, body);
    bool lose = txn && f->mood == FAKE_LOSES_TXN;
    if (lose)
        f->mood = FAKE_GOOD;
    else
        reply(c, "200 OK", text);
    free(text);
    return lose;
}

static void on_client(struct ev_loop *loop, ev_io *io, int events)
{
    struct fake_client *c = io->data;
    ssize_t n = recv(io->fd, c->in + c->len, sizeof c->in - 1 - c->len, 0);

    (void)loop, (void)events;
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        client_end(c);
        return;
    }
    c->len += (size_t)n;
    c->in[c->len] = '\0';
    const char *body = strstr(c->in, "\r\n\r\n");
    const char *length = strstr(c->in, "Content-Length: ");
    if (!body || !length || strlen(body + 4) < (size_t)atoi(length + 16))
        return;
    c->len = 0;
    if (serve(c, body + 4))
        client_end(c);
}

static void on_accept(struct ev_loop *loop, ev_io *io, int events)
{
    struct fake_etcd *f = io->data;
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    if (fd < 0)
        return;
    struct fake_client *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->f = f;
    c->next = f->clients;
    f->clients = c;
    ev_io_init(&c->io, on_client, fd, EV_READ);
    ev_timer_init(&c->slow, on_slow, 0.02, 0.02);
    c->io.data = c->slow.data = c;
    ev_io_start(loop, &c->io);
}

/* A member that was stopped comes back at its port. */
void fake_etcd_start(struct fake_etcd *f, struct fake_store *store)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(f->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int yes = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 64) ||
        getsockname(fd, (struct sockaddr *)&a, &n))
        abort();
    f->port = ntohs(a.sin_port);
    f->store = store;
    ev_io_init(&f->accepting, on_accept, fd, EV_READ);
    f->accepting.data = f;
    ev_io_start(EV_DEFAULT, &f->accepting);
}

void fake_etcd_stop(struct fake_etcd *f)
{
    while (f->clients)
        client_end(f->clients);
    if (!f->store)
        return;
    ev_io_stop(EV_DEFAULT, &f->accepting);
    close(f->accepting.fd);
    f->store = NULL;
}

void fake_store_free(struct fake_store *s)
{
    free(s->key);
    free(s->value);
    memset(s, 0, sizeof *s);
}
