// SPDX-License-Identifier: Apache-2.0
/* The backup's agent: taking over, by the lease or by an operator. Loop thread;
 * the work itself is a job. */
#include "agent/backup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/job.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"

struct takeover_job {
    struct backup *b;
    struct replica *rep;
    uint32_t shell;
    char name[64];
};

static int takeover_run(void *arg, struct err *e)
{
    struct takeover_job *j = arg;

    fault_point("takeover.begin");
    return replica_takeover(j->rep, e);
}

static int unpause_run(void *arg, struct err *e)
{
    struct takeover_job *j = arg;
    struct hv *hv = NULL;

    if (agent_hv_open(&hv, e))
        return -1;
    int rc = hv->ops->unpause(hv, j->shell, e);
    hv->ops->close(hv);
    return rc;
}

static int rename_run(void *arg, struct err *e)
{
    struct takeover_job *j = arg;
    struct hv *hv = NULL;

    replica_free(j->rep);
    j->rep = NULL;
    if (agent_hv_open(&hv, e))
        return -1;
    int rc = hv->ops->rename(hv, j->shell, j->name, e);
    hv->ops->close(hv);
    return rc;
}

static void rename_done(void *arg, int rc, const struct err *e)
{
    struct takeover_job *j = arg;
    struct backup *b = j->b;

    b->work = WORK_NONE;
    if (rc)
        agent_event(b->a, "error", "renaming the domain: %s", e->text);
    free(j);
    backup_settle(b);
}

static void taker_answer(struct backup *b, const struct err *why)
{
    if (b->taker && why)
        ipc_reply_error(b->taker, b->take_request, why);
    else if (b->taker)
        ipc_reply(b->taker, b->take_request, NULL);
    json_decref(b->take_request);
    b->taker = NULL;
    b->take_request = NULL;
}

static void takeover_failed(struct takeover_job *j, const struct err *e)
{
    struct backup *b = j->b;

    b->a->rec.running = false;
    agent_state(b->a, VM_FAILED, "the takeover failed: %s", e->text);
    taker_answer(b, e);
    b->work = WORK_NONE;
    b->rep = j->rep;
    free(j);
    backup_settle(b);
}

static void unpause_done(void *arg, int rc, const struct err *e)
{
    struct takeover_job *j = arg;
    struct backup *b = j->b;
    struct agent *a = b->a;

    if (rc) {
        takeover_failed(j, e);
        return;
    }
    b->running_ns = clock_ns();
    agent_state(
        a, VM_TAKEN_OVER,
        "took over from %s at epoch %llu, generation %llu: silent "
        "for %llu ms, running %llu ms later",
        a->rec.peer, (unsigned long long)b->ack_sent,
        (unsigned long long)a->lease.generation,
        (unsigned long long)((b->claimed_ns - b->heard_ns) / NS_PER_MS),
        (unsigned long long)((b->running_ns - b->claimed_ns) / NS_PER_MS));
    taker_answer(b, NULL);
    b->work = WORK_RENAME;
    job_start(a->loop, rename_run, rename_done, j);
}

/* The shell is the VM, as far as memory and state go. From here on a successor
 * must go on with it, not clear it away: that is written down first. */
static void takeover_done(void *arg, int rc, const struct err *e)
{
    struct takeover_job *j = arg;
    struct agent *a = j->b->a;

    if (rc) {
        takeover_failed(j, e);
        return;
    }
    fault_point("takeover.state_set");
    a->rec.running = true;
    a->rec.domid = j->shell;
    if (!agent_save(a))
        return;
    fault_point("takeover.recorded");
    job_start(a->loop, unpause_run, unpause_done, j);
}

void backup_takeover_start(struct backup *b)
{
    struct takeover_job *j = calloc(1, sizeof *j);
    struct agent *a = b->a;

    if (!j)
        abort();
    b->claimed_ns = clock_ns();
    b->heard_ns = b->claimed_ns - lease_silence(&a->lease, b->claimed_ns);
    agent_session_drop(a);
    replica_session_lost(b->rep);
    agent_event(a, "takeover", "taking over from %s with epoch %llu",
                a->rec.peer, (unsigned long long)replica_committed(b->rep));
    j->b = b;
    j->rep = b->rep;
    j->shell = b->shell;
    snprintf(j->name, sizeof j->name, "%s", a->rec.name);
    b->rep = NULL;
    b->work = WORK_TAKEOVER;
    job_start(a->loop, takeover_run, takeover_done, j);
}

void backup_on_takeover(struct backup *b, struct ipc_conn *c, json_t *msg)
{
    struct agent *a = b->a;
    uint64_t silent = lease_silence(&a->lease, clock_ns());
    struct err e = ERR_INIT;

    if (a->lease.state == LEASE_WON && a->state.now == VM_FAILED)
        err_kind(&e, ERR_REFUSED, "%s", a->reason);
    else if (a->lease.state == LEASE_WON)
        err_kind(&e, ERR_REFUSED, "%s runs here already", a->rec.name);
    else if (a->lease.state != LEASE_STANDBY || !b->rep)
        err_kind(&e, ERR_REFUSED, "there is no whole replica of %s here",
                 a->rec.name);
    else if (silent < a->lease.timeout_ns && !json_flag(msg, "force", false))
        err_kind(&e, ERR_REFUSED, "%s answers: it runs %s", a->rec.peer,
                 a->rec.name);
    if (e.kind) {
        err_hint(&e,
                 "see `understudy status %s` on both hosts; --force "
                 "takes over from a living host",
                 a->rec.name);
        ipc_reply_error(c, msg, &e);
        return;
    }
    b->taker = c;
    b->take_request = json_incref(msg);
    enum lease_action act = lease_event(&a->lease, LEASE_EV_FORCED, clock_ns());
    agent_lease_action(a, act);
}

static int resume_finish(struct agent *a, const struct hv_domain *d,
                         struct err *e)
{
    const struct hv_ops *ops = a->hv->ops;

    if (d->paused && ops->unpause(a->hv, d->domid, e))
        return -1;
    if (ops->rename(a->hv, d->domid, a->rec.name, e))
        agent_event(a, "error", "renaming the domain: %s", e->text);
    err_clear(e);
    agent_state(a, VM_TAKEN_OVER,
                "the agent died during the takeover; its successor went on");
    return 0;
}

int backup_resume(struct backup *b, struct err *e)
{
    struct agent *a = b->a;
    struct hv_domain d;
    bool unfinished = false;

    if (a->hv->ops->find_uuid(a->hv, a->uuid, false, &d, e)) {
        if (e->kind != ERR_GONE)
            return -1;
        err_clear(e);
        unfinished = !a->hv->ops->find_uuid(a->hv, a->uuid, true, &d, e);
        if (!unfinished && e->kind != ERR_GONE)
            return -1;
        err_clear(e);
        /* Gone, or being started again: backup_guest_tick() finds out. */
        if (!unfinished)
            d.domid = 0;
    }
    a->lease.state = LEASE_WON;
    a->rec.domid = d.domid;
    return unfinished ? resume_finish(a, &d, e) : 0;
}
