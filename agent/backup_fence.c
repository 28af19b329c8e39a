// SPDX-License-Identifier: Apache-2.0
/* The backup's agent: where a fencing hook is configured, the primary's host is
 * fenced between the generation that was won and the takeover. Loop thread;
 * the hook runs in a job. */
#include "agent/backup.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/job.h"
#include "common/clock.h"
#include "common/fault.h"
#include "heartbeat/fence.h"

#define TRIES 3

struct fence_job {
    struct backup *b;
    unsigned tries, timeout_ms;
    char hook[256], host[64], name[64];
};

static int fence_job_run(void *arg, struct err *e)
{
    struct fence_job *j = arg;

    if (j->tries)
        sleep(1);
    return fence_run(j->hook, j->host, j->name, j->timeout_ms, e);
}

/* What can't be fenced may still run the VM: nothing is started here. */
static void fence_failed(struct backup *b, const struct err *why)
{
    struct agent *a = b->a;

    if (b->cold) {
        backup_cold_fenced(b, why);
        return;
    }
    agent_state(a, VM_FAILED, "the takeover failed: %s", why->text);
    backup_taker_answer(b, why);
    backup_settle(b);
    if (a->arb)
        agent_lease_event(a, LEASE_EV_FAILED);
}

static void fence_done(void *arg, int rc, const struct err *e)
{
    struct fence_job *j = arg;
    struct backup *b = j->b;

    if (rc && ++j->tries < TRIES) {
        agent_event(b->a, "fence", "%s; once more", e->text);
        job_start(b->a->loop, fence_job_run, fence_done, j);
        return;
    }
    b->work = WORK_NONE;
    if (rc) {
        fence_failed(b, e);
    } else if (b->a->lease.state == LEASE_WON) {
        agent_event(b->a, "fence", "%s is fenced", j->host);
        backup_takeover_start(b);
    }
    free(j);
}

bool backup_fence(struct backup *b)
{
    struct agent *a = b->a;
    struct fence_job *j;

    if (!a->cfg.fence[0])
        return false;
    j = calloc(1, sizeof *j);
    if (!j)
        abort();
    j->b = b;
    j->timeout_ms = a->cfg.fence_ms;
    snprintf(j->hook, sizeof j->hook, "%s", a->cfg.fence);
    snprintf(j->host, sizeof j->host, "%s", a->rec.peer);
    snprintf(j->name, sizeof j->name, "%s", a->rec.name);
    agent_session_drop(a);
    if (b->rep)
        replica_session_lost(b->rep);
    b->work = WORK_FENCE;
    agent_event(a, "fence", "fencing %s before %s is taken over", j->host,
                j->name);
    fault_point("takeover.fence");
    job_start(a->loop, fence_job_run, fence_done, j);
    return true;
}
