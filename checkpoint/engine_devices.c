// SPDX-License-Identifier: Apache-2.0
/* What devices send through the engine: their part of the initial copy, live,
 * and of each epoch, under its digest; and in between what else they are asked
 * for. Engine thread. */
#include "checkpoint/engine_private.h"

#include <string.h>

struct putting {
    struct engine *eng;
    bool live, idle;
    enum turn turn;
};

static int record_put(void *arg, const void *payload, size_t len, struct err *e)
{
    struct putting *p = arg;
    struct engine *eng = p->eng;

    if (!p->live)
        engine_record_account(eng, payload, len);
    p->turn = engine_record_send(eng, EPOCH_DISK, payload, len);
    if (p->live && !p->idle)
        engine_sync_note(eng, false);
    return p->turn == TURN_ON ? 0 : err_set(e, "not sent");
}

#define ANSWER_NS (20 * NS_PER_MS)

/* The first one out of `in`; false: there is none. */
static bool answer_first(struct buf *in, struct buf *out)
{
    struct reader r = reader_of(in->data, in->len);
    size_t n;

    if (!in->len)
        return false;
    const uint8_t *p = read_blob(&r, ENGINE_ANSWERS_MAX, &n);
    buf_put(out, p, n);
    in->len = reader_left(&r);
    memmove(in->data, r.p, in->len);
    return true;
}

static int answer_take(void *arg, struct buf *out, struct err *e)
{
    struct putting *p = arg;
    struct engine *eng = p->eng;

    pthread_mutex_lock(&eng->lock);
    if (!eng->in.answers.len && !p->idle && engine_look(eng) == TURN_ON)
        engine_wait(eng, clock_ns() + ANSWER_NS);
    bool any = answer_first(&eng->in.answers, out);
    pthread_mutex_unlock(&eng->lock);
    p->turn = engine_check(eng);
    return p->turn == TURN_ON ? any : err_set(e, "interrupted");
}

/* `rc` is what the device returned: that it was stopped is no error of its. */
static enum turn outcome(struct putting *p, const struct checkpoint_device *d,
                         int rc, struct err *error)
{
    if (p->turn != TURN_ON || !rc)
        return p->turn;
    err_add(error, "%s", d->ops->name);
    return engine_over(p->eng, ENGINE_VOID, error);
}

enum turn engine_devices_copy(struct engine *eng, bool begin)
{
    for (size_t i = 0; i < eng->devices_ready; i++) {
        struct checkpoint_device *d = eng->config.devices[i];
        struct putting p = {eng, true, false, TURN_ON};
        struct device_sink sink = {record_put, answer_take, &p, eng->session};
        struct err error = ERR_INIT;
        if (!d->ops->copy)
            continue;
        int rc = d->ops->copy(d, begin, &sink, &error);
        enum turn turn = outcome(&p, d, rc, &error);
        if (turn != TURN_ON)
            return turn;
    }
    return TURN_ON;
}

/* The backup forgets what it has of an epoch when the session ends. */
static enum turn session_break(struct engine *eng, const struct err *error)
{
    struct engine_event ev = {
        .type = ENGINE_BREAK, .epoch = eng->at.epoch, .error = *error};
    enum turn turn;

    engine_emit(eng, &ev);
    pthread_mutex_lock(&eng->lock);
    while ((turn = engine_look(eng)) == TURN_ON)
        engine_wait(eng, clock_ns() + ENGINE_POLL_NS);
    pthread_mutex_unlock(&eng->lock);
    return turn;
}

enum turn engine_devices_records(struct engine *eng)
{
    for (size_t i = 0; i < eng->devices_ready; i++) {
        struct checkpoint_device *d = eng->config.devices[i];
        struct putting p = {eng, false, false, TURN_ON};
        struct device_sink sink = {record_put, NULL, &p, eng->session};
        struct err error = ERR_INIT;
        if (!d->ops->records)
            continue;
        int rc = d->ops->records(d, eng->at.epoch, &sink, &error);
        if (rc && p.turn == TURN_ON && error.kind == ERR_GONE)
            return session_break(eng, &error);
        enum turn turn = outcome(&p, d, rc, &error);
        if (turn != TURN_ON)
            return turn;
    }
    return TURN_ON;
}

enum turn engine_devices_idle(struct engine *eng, bool *more)
{
    *more = false;
    for (size_t i = 0; i < eng->devices_ready && eng->committed; i++) {
        struct checkpoint_device *d = eng->config.devices[i];
        struct putting p = {eng, true, true, TURN_ON};
        struct device_sink sink = {record_put, answer_take, &p, eng->session};
        if (!d->ops->idle)
            continue;
        *more |= d->ops->idle(d, &sink);
        if (p.turn != TURN_ON)
            return p.turn;
    }
    return TURN_ON;
}
