// SPDX-License-Identifier: Apache-2.0
/* Slow work off the loop; see job.h. */
#include "agent/job.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

struct job {
    ev_async wake;
    pthread_t thread;
    job_run *run;
    job_done *done;
    void *arg;
    int rc;
    struct err err;
    struct ev_loop *loop;
};

static void *job_thread(void *arg)
{
    struct job *j = arg;

    j->rc = j->run(j->arg, &j->err);
    ev_async_send(j->loop, &j->wake);
    return NULL;
}

static void job_over(struct ev_loop *loop, ev_async *w, int revents)
{
    struct job *j = w->data;

    (void)revents;
    pthread_join(j->thread, NULL);
    ev_async_stop(loop, w);
    j->done(j->arg, j->rc, &j->err);
    free(j);
}

void job_start(struct ev_loop *loop, job_run *run, job_done *done, void *arg)
{
    struct job *j = calloc(1, sizeof *j);

    if (!j)
        abort();
    j->run = run;
    j->done = done;
    j->arg = arg;
    j->loop = loop;
    ev_async_init(&j->wake, job_over);
    j->wake.data = j;
    ev_async_start(loop, &j->wake);
    int r = pthread_create(&j->thread, NULL, job_thread, j);
    if (r) {
        log_error("start a thread: %s", strerror(r));
        abort();
    }
}
