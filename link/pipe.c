// SPDX-License-Identifier: Apache-2.0
/* A bounded queue of records from one other thread into a session; see
 * session.h. The lock covers the queue and the tickets, and is held for a few
 * instructions at a time, but for the sleep of a sender. */
#include "link/session_priv.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/clock.h"

struct link_pipe {
    struct ev_loop *loop;
    size_t limit;

    /* Loop thread only. */
    struct link_session *session;
    struct ev_async wake;
    uint64_t tickets; /* given out so far */

    /* Under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t room;
    struct chunk_queue queue;
    size_t bytes;    /* payloads in the queue */
    uint64_t ticket; /* of the session attached; 0: none */
    uint64_t begun;  /* which one the sender means; 0: none */
};

static void on_wake(struct ev_loop *loop, struct ev_async *w, int events)
{
    struct link_pipe *p = w->data;

    (void)loop;
    (void)events;
    if (p->session)
        session_output_due(p->session);
}

struct link_pipe *link_pipe_new(struct ev_loop *loop, size_t limit)
{
    struct link_pipe *p = calloc(1, sizeof *p);
    pthread_condattr_t attr;

    if (!p)
        abort();
    p->loop = loop;
    p->limit = limit;
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->room, &attr);
    pthread_condattr_destroy(&attr);
    ev_async_init(&p->wake, on_wake);
    p->wake.data = p;
    ev_async_start(loop, &p->wake);
    return p;
}

void link_pipe_free(struct link_pipe *p)
{
    if (!p)
        return;
    link_pipe_detach(p);
    ev_async_stop(p->loop, &p->wake);
    pthread_cond_destroy(&p->room);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void ticket_set(struct link_pipe *p, uint64_t ticket)
{
    struct chunk_queue old;

    pthread_mutex_lock(&p->lock);
    old = p->queue;
    p->queue = (struct chunk_queue){0};
    p->bytes = 0;
    p->ticket = ticket;
    pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->lock);
    queue_free(&old);
}

uint64_t link_pipe_attach(struct link_pipe *p, struct link_session *s)
{
    link_pipe_detach(p);
    if (s->pipe)
        link_pipe_detach(s->pipe);
    ticket_set(p, ++p->tickets);
    if (s->state != S_OPEN) { /* it is ending: its sender must hear of it */
        ticket_set(p, 0);
        return p->tickets;
    }
    p->session = s;
    s->pipe = p;
    return p->tickets;
}

void link_pipe_detach(struct link_pipe *p)
{
    if (p->session)
        p->session->pipe = NULL;
    pipe_session_gone(p);
}

void pipe_session_gone(struct link_pipe *p)
{
    p->session = NULL;
    ticket_set(p, 0);
}

void pipe_shut(struct link_pipe *p)
{
    pthread_mutex_lock(&p->lock);
    p->ticket = 0;
    pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->lock);
}

struct chunk *pipe_take(struct link_pipe *p)
{
    pthread_mutex_lock(&p->lock);
    struct chunk *c = queue_take(&p->queue);
    if (c) {
        p->bytes -= c->len - WIRE_HEADER;
        pthread_cond_signal(&p->room);
    }
    pthread_mutex_unlock(&p->lock);
    return c;
}

bool pipe_waiting(struct link_pipe *p)
{
    pthread_mutex_lock(&p->lock);
    bool some = p->queue.head != NULL;
    pthread_mutex_unlock(&p->lock);
    return some;
}

static int gone(struct err *e)
{
    return err_kind(e, ERR_GONE, "the session is lost");
}

int link_pipe_begin(struct link_pipe *p, uint64_t ticket, struct err *e)
{
    pthread_mutex_lock(&p->lock);
    bool ok = ticket && ticket == p->ticket;
    p->begun = ok ? ticket : 0;
    pthread_mutex_unlock(&p->lock);
    return ok ? 0 : gone(e);
}

static bool connected(const struct link_pipe *p)
{
    return p->begun && p->begun == p->ticket;
}

static bool is_full(const struct link_pipe *p, size_t len)
{
    return connected(p) && p->queue.head && p->bytes + len > p->limit;
}

int link_pipe_room(struct link_pipe *p, size_t len, uint64_t wait_ns,
                   struct err *e)
{
    uint64_t until = clock_ns() + wait_ns;
    struct timespec ts = clock_timespec(until);
    int r = 0;

    pthread_mutex_lock(&p->lock);
    while (!r && is_full(p, len))
        r = pthread_cond_timedwait(&p->room, &p->lock, &ts);
    bool full = is_full(p, len), ok = connected(p);
    pthread_mutex_unlock(&p->lock);
    if (full)
        return err_kind(e, ERR_TIMEOUT, "the peer takes no more for now");
    return ok ? 0 : gone(e);
}

int link_pipe_send(struct link_pipe *p, uint32_t type, const void *payload,
                   size_t len, struct err *e)
{
    if (!wire_type_legal(WIRE_VM, type) || len > wire_type_max(type))
        return err_kind(e, ERR_USAGE,
                        "a record of type %u with %zu bytes can't be sent",
                        type, len);
    struct chunk *c = chunk_new(type, payload, len);
    pthread_mutex_lock(&p->lock);
    while (is_full(p, len))
        pthread_cond_wait(&p->room, &p->lock);
    bool ok = connected(p);
    if (ok) {
        queue_put(&p->queue, c);
        p->bytes += len;
    }
    pthread_mutex_unlock(&p->lock);
    if (!ok) {
        free(c);
        return gone(e);
    }
    ev_async_send(p->loop, &p->wake);
    return 0;
}

size_t link_pipe_queued(struct link_pipe *p)
{
    pthread_mutex_lock(&p->lock);
    size_t n = p->bytes;
    pthread_mutex_unlock(&p->lock);
    return n;
}
