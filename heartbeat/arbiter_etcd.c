// SPDX-License-Identifier: Apache-2.0
/* The arbiter that is an etcd, by its v3 JSON gateway; see arbiter.h,
 * etcd_line.h for the line, etcd_codec.h for what is said. Loop thread.
 *
 * A question is a linearizable read, witness_apply(), and, where that changed
 * the record, a transaction on the condition that the key was not modified
 * since. Lost against somebody else: once more with what is there now. A failed
 * try, whatever its kind, goes on with the next endpoint, and from the read: if
 * the transaction had taken effect the record says so by the nonce.
 *
 * Endpoints are asked one after the other. The one that answered last is asked
 * first; a linearizable read every second keeps that known, and tells whether
 * there is a majority. What a user of ours is told, it is told by watchers of
 * its own, so that it may close us. */
#include "heartbeat/arbiter.h"

#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "heartbeat/etcd_codec.h"
#include "heartbeat/etcd_line.h"
#include "heartbeat/http.h"

#define PROBE_S    1.
#define PROBE_MS   1000
#define SILENCE_NS (3 * NS_PER_SEC)
#define PAUSE_S    0.1  /* before an endpoint is asked again */
#define TRY_MIN_MS 500  /* a try at one endpoint */
#define TRY_MAX_MS 2000 /* whoever does not answer by then is left */
#define RACES_MAX  16   /* lost in one question */

struct etcd {
    struct arbiter arbiter;
    struct arbiter_host host;
    struct etcd_line line;
    struct http *http;
    unsigned current; /* the endpoint that is asked first */
    uint64_t cluster; /* its ID: named in the line, or of the first reply */
    uint64_t heard_ns;
    bool was_up;
    struct err why; /* of the last try that failed */
    struct http_call *probe;
    unsigned probed;   /* the endpoint that it asks */
    unsigned failures; /* probes, in a row */
    ev_timer next_probe, news;
    struct arbiter_call *calls;
    unsigned call_count;
};

struct arbiter_call {
    struct arbiter_call *next;
    struct etcd *t;
    struct witness_ask ask;
    char key[ETCD_KEY_MAX];
    uint64_t until_ns;
    unsigned endpoint, tries, races;
    struct http_call *http;
    struct witness_answer answer; /* once the transaction has taken effect */
    /* Told at the deadline, or at once when there is an outcome. */
    ev_timer end, pause;
    bool answered;
    struct lease_record record;
    struct err why;
    arbiter_done *done;
    void *arg;
};

static void call_try(struct arbiter_call *c);

/* --- How it stands -------------------------------------------------------- */

static bool is_up(const struct etcd *t)
{
    return t->heard_ns && clock_ns() <= t->heard_ns + SILENCE_NS;
}

static void etcd_health(const struct arbiter *a, struct arbiter_health *out)
{
    const struct etcd *t = (const struct etcd *)a;

    memset(out, 0, sizeof *out);
    out->up = is_up(t);
    out->heard_ns = t->heard_ns;
    if (out->up)
        return;
    out->why = t->why;
    if (!out->why.kind)
        err_kind(&out->why, ERR_TIMEOUT, "no answer yet from the etcd %s",
                 t->line.endpoint[0]);
    err_hint(&out->why, "check that a majority of the cluster's members runs, "
                        "and that they can be reached from here");
}

/* The last thing that it does: the owner may close us. */
static void on_news(struct ev_loop *loop, ev_timer *w, int events)
{
    struct etcd *t = w->data;
    bool up = is_up(t);

    (void)loop, (void)events;
    if (up == t->was_up)
        return;
    t->was_up = up;
    if (t->host.changed)
        t->host.changed(t->host.arg, &t->arbiter);
}

static void timer_start(struct ev_loop *loop, ev_timer *w, double seconds,
                        double repeat)
{
    ev_now_update(loop);
    ev_timer_stop(loop, w);
    ev_timer_set(w, seconds, repeat);
    ev_timer_start(loop, w);
}

static void heard(struct etcd *t, unsigned endpoint)
{
    t->heard_ns = clock_ns();
    t->current = endpoint;
    err_clear(&t->why);
    if (!t->was_up)
        timer_start(t->host.loop, &t->news, 0., PROBE_S);
}

/* This endpoint did not do: the next one is asked first from now on. */
static void failed(struct etcd *t, unsigned endpoint, const struct err *why)
{
    t->why = *why;
    err_add(&t->why, "the etcd %s", t->line.endpoint[endpoint]);
    if (t->current == endpoint)
        t->current = (endpoint + 1) % t->line.count;
}

/* --- Replies -------------------------------------------------------------- */

static struct http_call *post(struct etcd *t, unsigned endpoint,
                              const char *path, char *body, unsigned ms,
                              http_done *done, void *arg)
{
    char url[sizeof t->line.endpoint[0] + 32];

    snprintf(url, sizeof url, "%s%s", t->line.endpoint[endpoint], path);
    struct http_call *c = http_post(t->http, url, body, ms, done, arg);
    free(body);
    return c;
}

static int status_check(long status, const void *body, size_t len,
                        const struct err *why, struct err *e)
{
    char text[200];

    if (!status) {
        *e = *why;
        return -1;
    }
    if (status == 200)
        return 0;
    etcd_complaint(body, len, text, sizeof text);
    err_kind(e, status == 401 || status == 403 ? ERR_REFUSED : ERR_FAILED,
             "HTTP status %ld%s%s", status, text[0] ? ": " : "", text);
    return status == 404 ? err_hint(e, "etcd 3.4 or later is needed, with its "
                                       "JSON gateway")
                         : -1;
}

static int cluster_check(struct etcd *t, uint64_t cluster, struct err *e)
{
    if (!t->cluster)
        t->cluster = cluster;
    if (t->cluster == cluster)
        return 0;
    err_kind(e, ERR_REFUSED, "it is of the cluster %llu, not of %llu",
             (unsigned long long)cluster, (unsigned long long)t->cluster);
    return err_hint(e,
                    "all endpoints have to be of one cluster, and the line's "
                    "cluster= its ID");
}

/* --- Looking -------------------------------------------------------------- */

static void on_probe(void *arg, long status, const void *body, size_t len,
                     const struct err *why)
{
    struct etcd *t = arg;
    struct err e = ERR_INIT;
    uint64_t cluster;

    t->probe = NULL;
    if (status_check(status, body, len, why, &e) ||
        etcd_probe_reply(body, len, &cluster, &e) ||
        cluster_check(t, cluster, &e)) {
        failed(t, t->probed, &e);
        t->failures++;
        timer_start(t->host.loop, &t->next_probe,
                    t->failures % t->line.count ? PAUSE_S : PROBE_S, 0.);
        return;
    }
    t->failures = 0;
    heard(t, t->probed);
    timer_start(t->host.loop, &t->next_probe, PROBE_S, 0.);
}

static void on_next_probe(struct ev_loop *loop, ev_timer *w, int events)
{
    struct etcd *t = w->data;
    char key[ETCD_KEY_MAX];

    (void)loop, (void)events;
    snprintf(key, sizeof key, "%shealth", t->line.prefix);
    t->probed = t->current;
    t->probe = post(t, t->probed, "/v3/kv/range", etcd_range(key), PROBE_MS,
                    on_probe, t);
}

/* --- Calls ---------------------------------------------------------------- */

static void call_free(struct arbiter_call *c)
{
    struct arbiter_call **p = &c->t->calls;

    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    c->t->call_count--;
    if (c->http)
        http_cancel(c->http);
    ev_timer_stop(c->t->host.loop, &c->end);
    ev_timer_stop(c->t->host.loop, &c->pause);
    free(c);
}

/* There is an outcome, or `why` there will be none. */
static void call_over(struct arbiter_call *c, const struct err *why)
{
    c->answered = !why;
    if (why) {
        c->why = *why;
        err_add(&c->why, "the etcd %s", c->t->line.endpoint[c->endpoint]);
    }
    timer_start(c->t->host.loop, &c->end, 0., 0.);
}

/* The last thing that it does: the owner may close us. */
static void on_end(struct ev_loop *loop, ev_timer *w, int events)
{
    struct arbiter_call *c = w->data;
    struct lease_record record = c->record;
    struct err why = c->why;
    bool answered = c->answered;
    arbiter_done *done = c->done;
    void *arg = c->arg;

    (void)loop, (void)events;
    if (!answered && !why.kind) {
        why = c->t->why;
        if (!why.kind)
            err_set(&why, "%s", c->t->line.endpoint[c->endpoint]);
        err_add(&why, "the etcd did not answer in time");
        why.kind = ERR_TIMEOUT;
    }
    call_free(c);
    done(arg, answered ? &record : NULL, answered ? NULL : &why);
}

/* Whatever was sent may have an effect: the next try begins with a look. */
static void call_again(struct arbiter_call *c, const struct err *why)
{
    bool round = ++c->tries % c->t->line.count == 0;

    failed(c->t, c->endpoint, why);
    c->endpoint = (c->endpoint + 1) % c->t->line.count;
    timer_start(c->t->host.loop, &c->pause, round ? PAUSE_S : 0., 0.);
}

static void on_pause(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    call_try(w->data);
}

static void call_answer(struct arbiter_call *c)
{
    const struct witness_answer *a = &c->answer;
    struct err e = ERR_INIT;

    heard(c->t, c->endpoint);
    if (a->status == WITNESS_RECORD) {
        c->record = (struct lease_record){c->ask.nonce, a->generation, a->mine,
                                          a->running};
        call_over(c, NULL);
        return;
    }
    if (a->status == WITNESS_UNKNOWN)
        err_kind(&e, ERR_REFUSED, "it has no record of this VM");
    else if (a->status == WITNESS_STRANGER)
        err_kind(&e, ERR_REFUSED, "there this VM belongs to other hosts");
    else
        err_kind(&e, ERR_REFUSED,
                 "a host knew a later generation than the record that it has: "
                 "the record is sealed");
    err_hint(&e,
             "\"etcd as the arbiter\" in understudyd(8) says what to look "
             "at before `etcdctl del %s`",
             c->key);
    call_over(c, &e);
}

static unsigned try_ms(const struct arbiter_call *c)
{
    uint64_t now = clock_ns();
    uint64_t left = now < c->until_ns ? (c->until_ns - now) / NS_PER_MS : 0;
    uint64_t share = left / c->t->line.count;

    if (share < TRY_MIN_MS)
        share = TRY_MIN_MS;
    return (unsigned)(share > TRY_MAX_MS ? TRY_MAX_MS : share);
}

static void call_apply(struct arbiter_call *c, struct etcd_found *f);

static void on_txn(void *arg, long status, const void *body, size_t len,
                   const struct err *why)
{
    struct arbiter_call *c = arg;
    struct etcd_found found = {0};
    struct err e = ERR_INIT;
    bool put;

    c->http = NULL;
    int rc = status_check(status, body, len, why, &e);
    if (!rc)
        rc = etcd_txn_reply(body, len, c->key, c->ask.vm, &put, &found, &e);
    if (rc ? e.kind != ERR_REFUSED || status != 200
           : cluster_check(c->t, found.cluster, &e)) {
        call_again(c, &e);
    } else if (rc) {
        call_over(c, &e);
    } else if (put) {
        call_answer(c);
    } else if (++c->races > RACES_MAX) {
        err_set(&e, "its record changes all the time");
        call_over(c, &e);
    } else {
        call_apply(c, &found);
    }
}

static void call_apply(struct arbiter_call *c, struct etcd_found *f)
{
    if (!etcd_apply(&f->record, f->there, c->t->host.pin, &c->ask,
                    &c->answer)) {
        call_answer(c);
        return;
    }
    c->http =
        post(c->t, c->endpoint, "/v3/kv/txn",
             etcd_txn(c->key, f->revision, &f->record), try_ms(c), on_txn, c);
}

static void on_range(void *arg, long status, const void *body, size_t len,
                     const struct err *why)
{
    struct arbiter_call *c = arg;
    struct etcd_found found = {0};
    struct err e = ERR_INIT;

    c->http = NULL;
    int rc = status_check(status, body, len, why, &e);
    if (!rc)
        rc = etcd_range_reply(body, len, c->key, c->ask.vm, &found, &e);
    if (rc ? e.kind != ERR_REFUSED || status != 200
           : cluster_check(c->t, found.cluster, &e))
        call_again(c, &e);
    else if (rc)
        call_over(c, &e);
    else
        call_apply(c, &found);
}

static void call_try(struct arbiter_call *c)
{
    c->http = post(c->t, c->endpoint, "/v3/kv/range", etcd_range(c->key),
                   try_ms(c), on_range, c);
}

static int etcd_submit(struct arbiter *a, const struct witness_ask *ask,
                       unsigned deadline_ms, arbiter_done *done, void *arg,
                       struct arbiter_call **out, struct err *e)
{
    struct etcd *t = (struct etcd *)a;

    if (t->call_count >= ARBITER_CALLS_MAX)
        return err_kind(e, ERR_REFUSED,
                        "%u questions to the etcd %s wait "
                        "already",
                        t->call_count, t->line.endpoint[0]);
    struct arbiter_call *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->t = t;
    c->ask = *ask;
    c->until_ns = clock_ns() + deadline_ms * NS_PER_MS;
    c->endpoint = t->current;
    c->done = done;
    c->arg = arg;
    etcd_key(t->line.prefix, ask->vm, c->key);
    ev_init(&c->end, on_end);
    ev_init(&c->pause, on_pause);
    c->end.data = c->pause.data = c;
    c->next = t->calls;
    t->calls = c;
    t->call_count++;
    timer_start(t->host.loop, &c->end, deadline_ms / 1000., 0.);
    if (is_up(t)) {
        call_try(c);
    } else {
        struct arbiter_health h;
        etcd_health(a, &h);
        h.why.kind = ERR_GONE;
        c->why = h.why;
        timer_start(t->host.loop, &c->end, 0., 0.);
    }
    if (out)
        *out = c;
    return 0;
}

static void etcd_cancel(struct arbiter_call *c)
{
    call_free(c);
}

/* --- Life ----------------------------------------------------------------- */

static int line_check(const char *line, struct err *e)
{
    struct etcd_line l;

    return etcd_line_parse(line, &l, e);
}

static bool line_same(const char *a, const char *b)
{
    struct etcd_line x, y;

    return !etcd_line_parse(a, &x, NULL) && !etcd_line_parse(b, &y, NULL) &&
           etcd_line_same(&x, &y);
}

static int etcd_open(const char *line, const struct arbiter_host *host,
                     struct arbiter **a, struct err *e)
{
    struct etcd_line l;
    struct http_tls tls;
    struct http *http = NULL;

    *a = NULL;
    if (etcd_line_parse(line, &l, e))
        return -1;
    int rc = http_tls_load(l.ca, l.cert, l.key, &tls, e);
    if (!rc)
        rc = http_open(host->loop, &tls, ETCD_REPLY_MAX, &http, e);
    http_tls_free(&tls);
    if (rc)
        return -1;
    struct etcd *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->arbiter.ops = &arbiter_etcd;
    t->host = *host;
    t->line = l;
    t->cluster = l.cluster;
    t->http = http;
    ev_init(&t->next_probe, on_next_probe);
    ev_init(&t->news, on_news);
    t->next_probe.data = t->news.data = t;
    timer_start(host->loop, &t->next_probe, 0., 0.);
    timer_start(host->loop, &t->news, PROBE_S, PROBE_S);
    *a = &t->arbiter;
    return 0;
}

static void etcd_close(struct arbiter *a)
{
    struct etcd *t = (struct etcd *)a;

    while (t->calls)
        call_free(t->calls);
    ev_timer_stop(t->host.loop, &t->next_probe);
    ev_timer_stop(t->host.loop, &t->news);
    http_close(t->http);
    free(t);
}

const struct arbiter_ops arbiter_etcd = {
    .kind = "etcd",
    .check = line_check,
    .same = line_same,
    .open = etcd_open,
    .submit = etcd_submit,
    .cancel = etcd_cancel,
    .health = etcd_health,
    .close = etcd_close,
};
