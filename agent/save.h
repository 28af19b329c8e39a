// SPDX-License-Identifier: Apache-2.0
/* How an agent writes its VM's record (store.h): at once when the next step
 * rests on it, or by a job, so that its loop, which acknowledges and beats,
 * does not wait for a disk. Of two writes the older never comes last. One
 * record a process; loop thread only. */
#ifndef AGENT_SAVE_H
#define AGENT_SAVE_H

#include <ev.h>

#include "agent/job.h"
#include "agent/store.h"

/* Durable when it returns 0; whatever waited for a job is written with it.
 * Blocks on the disk. */
int save_now(const struct vm_record *r, struct err *e);
/* Durable when `done(arg, 0, e)` is called, which is once for each call, in
 * their order, unless the process ends first. An older version may never have
 * been written. */
void save_later(struct ev_loop *loop, const struct vm_record *r, job_done *done,
                void *arg);
/* store_delete(); nothing is written after it. */
int save_delete(const char *uuid, struct err *e);

#endif
