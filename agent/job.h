// SPDX-License-Identifier: Apache-2.0
/* Slow work off the loop: run a function on a thread of its own and hear on
 * the loop's thread that it ended. A job can't be cancelled; what it touches
 * belongs to it until `done`. */
#ifndef AGENT_JOB_H
#define AGENT_JOB_H

#include <ev.h>

#include "common/err.h"

typedef int job_run(void *arg, struct err *e);
typedef void job_done(void *arg, int rc, const struct err *e);

/* Start `run(arg)`; `done(arg, rc, e)` follows on the loop's thread. Aborts
 * when no thread can be made. Loop thread only. */
void job_start(struct ev_loop *loop, job_run *run, job_done *done, void *arg);

#endif
