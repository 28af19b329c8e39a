// SPDX-License-Identifier: Apache-2.0
/* Writing a record from an agent; see save.h. The loop's thread, and one job's
 * at a time; `lock` is held by whoever writes. */
#include "agent/save.h"

#include <pthread.h>
#include <stdlib.h>

#define FOR_GOOD UINT64_MAX

/* Somebody who waits for a version of the record, or a newer one. */
struct waiter {
    struct waiter *next;
    uint64_t version;
    job_done *done;
    void *arg;
};

/* A job's copy of what it writes. */
struct write {
    struct ev_loop *loop;
    struct vm_record rec;
    uint64_t version;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t written; /* the newest; under `lock` */
/* The loop's: */
static uint64_t newest;
static struct waiter *waiters, **last = &waiters;
static struct vm_record due;
static bool busy, is_due;

static int version_write(const struct vm_record *r, uint64_t version,
                         struct err *e)
{
    int rc = 0;

    pthread_mutex_lock(&lock);
    if (version > written) {
        rc = store_save(r, e);
        written = rc ? written : version;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

static void waiters_tell(uint64_t version, int rc, const struct err *e)
{
    while (waiters && waiters->version <= version) {
        struct waiter *w = waiters;
        waiters = w->next;
        if (!waiters)
            last = &waiters;
        w->done(w->arg, rc, e);
        free(w);
    }
}

int save_now(const struct vm_record *r, struct err *e)
{
    if (version_write(r, ++newest, e))
        return -1;
    is_due = false; /* this one is newer */
    waiters_tell(newest, 0, NULL);
    return 0;
}

static int write_run(void *arg, struct err *e)
{
    struct write *w = arg;

    return version_write(&w->rec, w->version, e);
}

static void write_start(struct ev_loop *loop);

static void write_done(void *arg, int rc, const struct err *e)
{
    struct write *w = arg;

    busy = false;
    if (is_due)
        write_start(w->loop);
    waiters_tell(w->version, rc, e);
    free(w);
}

static void write_start(struct ev_loop *loop)
{
    struct write *w = calloc(1, sizeof *w);

    if (!w)
        abort();
    busy = true;
    is_due = false;
    w->loop = loop;
    w->rec = due;
    w->version = newest;
    job_start(loop, write_run, write_done, w);
}

void save_later(struct ev_loop *loop, const struct vm_record *r, job_done *done,
                void *arg)
{
    struct waiter *w = calloc(1, sizeof *w);

    if (!w)
        abort();
    w->version = ++newest;
    w->done = done;
    w->arg = arg;
    *last = w;
    last = &w->next;
    due = *r;
    is_due = true;
    if (!busy)
        write_start(loop);
}

int save_delete(const char *uuid, struct err *e)
{
    pthread_mutex_lock(&lock);
    written = FOR_GOOD;
    int rc = store_delete(uuid, e);
    pthread_mutex_unlock(&lock);
    return rc;
}
