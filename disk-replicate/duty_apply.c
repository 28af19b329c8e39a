// SPDX-License-Identifier: Apache-2.0
/* What is decided is applied on a thread of its own, so that no epoch waits for
 * the syncs of the one before; see duty.h. The control thread holds the lock
 * while it does a request; this one between the parts of a step, and not for
 * its I/O. So a journal is changed by one of them at a time, and while a step's
 * I/O is under way, all may be asked of it that journal.h says; who wants more
 * holds the thread first. */
#include "disk-replicate/duty_private.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/thread.h"

#define STACK_BYTES (256u << 10)

/* How far epochs may be ahead of the medium: it has to be applied before a
 * takeover; and a writer that is faster than the medium is to become as slow,
 * by waits that are no longer than one epoch's sync. One epoch, or so many
 * bytes, which take no longer than their sync; or what is applied in so long,
 * if it leaves room for the largest epoch. */
#define AHEAD_EPOCHS 1
#define AHEAD_BYTES  (256u << 10)
#define AHEAD_NS     (200 * NS_PER_MS)
#define AHEAD_PART   4 /* of the journal */

/* --- The control thread's --------------------------------------------------
 */

void apply_duty_lock(struct duty *d)
{
    pthread_mutex_lock(&d->apply.lock);
}

void apply_duty_unlock(struct duty *d)
{
    d->apply.held = false;
    pthread_cond_broadcast(&d->apply.changed);
    pthread_mutex_unlock(&d->apply.lock);
}

void apply_duty_hold(struct duty *d)
{
    d->apply.held = true;
    while (d->apply.busy)
        pthread_cond_wait(&d->apply.changed, &d->apply.lock);
    d->apply.began_ns = 0;
}

static bool is_behind(const struct duty *d)
{
    if (d->mode != DUTY_REPLICA || !d->journal || d->broken.kind)
        return false;
    struct journal_status s = journal_status(d->journal);
    return !s.broken && s.applied != s.committed;
}

void apply_duty_wait(struct duty *d)
{
    while (is_behind(d))
        pthread_cond_wait(&d->apply.changed, &d->apply.lock);
}

static uint64_t time_for(uint64_t bytes, uint64_t ns, uint64_t of_bytes)
{
    return (bytes >> 10) * ns / ((of_bytes >> 10) + 1);
}

/* What is behind takes long to apply, by the last that was, or by what has been
 * under way for longer. */
static bool is_far_behind(const struct duty *d)
{
    const struct duty_apply *a = &d->apply;

    if (!is_behind(d))
        return false;
    struct journal_status s = journal_status(d->journal);
    if (s.committed - s.applied <= AHEAD_EPOCHS || s.behind <= AHEAD_BYTES)
        return false;
    if (s.used > s.bytes / AHEAD_PART ||
        time_for(s.behind, a->last_ns, a->last_bytes) > AHEAD_NS)
        return true;
    return a->began_ns &&
           time_for(s.behind, clock_ns() - a->began_ns, a->bytes) > AHEAD_NS;
}

void apply_duty_pace(struct duty *d)
{
    while (is_far_behind(d))
        pthread_cond_wait(&d->apply.changed, &d->apply.lock);
}

/* --- The thread -------------------------------------------------------------
 */

static void time_begin(struct duty_apply *a, const struct journal *j)
{
    if (a->began_ns)
        return;
    a->began_ns = clock_ns();
    a->bytes = journal_status(j).behind;
}

static void time_end(struct duty_apply *a)
{
    a->last_ns = clock_ns() - a->began_ns;
    a->last_bytes = a->bytes;
    a->began_ns = 0;
}

/* The lock is held, and given up in between. */
static void step(struct duty *d)
{
    struct journal *j = d->journal;
    uint64_t applied = journal_status(j).applied;
    struct err e = ERR_INIT;

    time_begin(&d->apply, j);
    d->apply.busy = true;
    pthread_mutex_unlock(&d->apply.lock);
    int io = journal_step_io(j, &e);
    pthread_mutex_lock(&d->apply.lock);
    d->apply.busy = false;
    if (journal_step_end(j, io, &e)) {
        err_add(&e, "applying epoch %lu", journal_status(j).applied + 1);
        log_error("disk=%s %s", d->id, e.text);
        d->broken = e;
    }
    if (journal_status(j).applied != applied)
        time_end(&d->apply);
    pthread_cond_broadcast(&d->apply.changed);
}

static void *apply_main(void *arg)
{
    struct duty *d = arg;

    pthread_mutex_lock(&d->apply.lock);
    while (!d->apply.quit) {
        if (!d->apply.held && is_behind(d) && journal_step_begin(d->journal))
            step(d);
        else
            pthread_cond_wait(&d->apply.changed, &d->apply.lock);
    }
    pthread_mutex_unlock(&d->apply.lock);
    return NULL;
}

/* --- Life -------------------------------------------------------------------
 */

void apply_duty_init(struct duty *d)
{
    pthread_mutex_init(&d->apply.lock, NULL);
    pthread_cond_init(&d->apply.changed, NULL);
}

int apply_duty_start(struct duty *d, struct err *e)
{
    int rc = thread_start(&d->apply.thread, STACK_BYTES, apply_main, d,
                          "the applying thread", e);

    d->apply.started = !rc;
    return rc;
}

void apply_duty_stop(struct duty *d)
{
    apply_duty_lock(d);
    d->apply.quit = true;
    apply_duty_unlock(d);
    if (d->apply.started)
        pthread_join(d->apply.thread, NULL);
    pthread_mutex_destroy(&d->apply.lock);
    pthread_cond_destroy(&d->apply.changed);
}
