// SPDX-License-Identifier: Apache-2.0
/* The backup's agent: taking over, by the lease or by an operator. Loop thread;
 * the work itself is a job. */
#include "agent/backup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cold.h"
#include "agent/job.h"
#include "agent/mark.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "disk-replicate/device.h"

struct takeover_job {
    struct backup *b;
    struct replica *rep;
    uint32_t shell;
    uint64_t generation;
    uint64_t epoch; /* that the shell holds */
    char name[64], uuid[STORE_UUID_LEN + 1];
};

/* Not written, it would be missed only if this agent died before the record
 * is: the takeover goes on. */
static void mark_try(const struct takeover_job *j,
                     const struct takeover_mark *m)
{
    struct err e = ERR_INIT;

    if (!mark_write(j->uuid, m, &e))
        return;
    log_error("dom=%s %s", j->name, e.text);
    mark_remove(j->uuid); /* an older one says what is not so any more */
}

static int takeover_run(void *arg, struct err *e)
{
    struct takeover_job *j = arg;
    struct takeover_mark m = {.generation = j->generation, .shell = j->shell};
    const void *state;
    size_t len;

    fault_point("takeover.begin");
    if (replica_finish(j->rep, &state, &len, e))
        return -1;
    m.epoch = replica_committed(j->rep);
    buf_put(&m.state, state, len);
    mark_try(j, &m);
    buf_free(&m.state);
    if (fault_point("takeover.marked")
            ? err_set(e, "fault point takeover.marked")
            : replica_takeover(j->rep, e)) {
        mark_remove(j->uuid);
        return -1;
    }
    fault_point("takeover.state_set");
    m.state_set = true;
    mark_try(j, &m);
    return 0;
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
    cold_remove(j->uuid);
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

void backup_taker_answer(struct backup *b, const struct err *why)
{
    if (b->taker && why)
        ipc_reply_error(b->taker, b->take_request, why);
    else if (b->taker)
        ipc_reply(b->taker, b->take_request, NULL);
    json_decref(b->take_request);
    b->taker = NULL;
    b->take_request = NULL;
}

void backup_mark_remove(struct backup *b)
{
    mark_remove(b->a->rec.uuid);
    b->marked = false;
}

static void takeover_failed(struct takeover_job *j, const struct err *e)
{
    struct backup *b = j->b;

    backup_mark_remove(b);
    b->a->rec.running = false;
    agent_state(b->a, VM_FAILED, "the takeover failed: %s", e->text);
    backup_taker_answer(b, e);
    backup_cold_end(b);
    b->work = WORK_NONE;
    b->rep = j->rep;
    free(j);
    backup_settle(b);
    /* Not handed back while the disk says that it runs here. */
    if (b->a->arb && b->a->unsaved)
        agent_exit(b->a, AGENT_EXIT_AGAIN);
    else if (b->a->arb)
        agent_lease_event(b->a, LEASE_EV_FAILED);
}

static void took_over(struct backup *b)
{
    struct agent *a = b->a;

    agent_state(
        a, VM_TAKEN_OVER,
        "took over from %s at epoch %llu, generation %llu: silent "
        "for %llu ms, running %llu ms later",
        a->rec.peer, (unsigned long long)b->epoch,
        (unsigned long long)a->lease.generation,
        (unsigned long long)((b->claimed_ns - b->heard_ns) / NS_PER_MS),
        (unsigned long long)((b->running_ns - b->claimed_ns) / NS_PER_MS));
    backup_taker_answer(b, NULL);
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
    fault_point("takeover.unpaused");
    b->running_ns = clock_ns();
    b->epoch = j->epoch;
    if (b->cold)
        backup_cold_done(b);
    else
        took_over(b);
    b->work = WORK_RENAME;
    job_start(a->loop, rename_run, rename_done, j);
    if (a->arb)
        agent_lease_event(a, LEASE_EV_STARTED);
}

/* The shell is the VM, as far as memory and state go. */
static void takeover_done(void *arg, int rc, const struct err *e)
{
    struct takeover_job *j = arg;
    struct agent *a = j->b->a;

    if (rc) {
        takeover_failed(j, e);
        return;
    }
    if (j->rep)
        j->epoch = replica_committed(j->rep);
    j->b->marked = true;
    j->b->shell = 0;
    a->rec.running = true;
    a->rec.domid = j->shell;
    if (!agent_save(a))
        return;
    fault_point("takeover.recorded");
    job_start(a->loop, unpause_run, unpause_done, j);
}

static struct takeover_job *job_new(struct backup *b, uint32_t shell)
{
    struct takeover_job *j = calloc(1, sizeof *j);
    struct agent *a = b->a;

    if (!j)
        abort();
    j->b = b;
    j->rep = b->rep;
    j->shell = shell;
    j->generation = a->lease.generation;
    snprintf(j->name, sizeof j->name, "%s", a->rec.name);
    snprintf(j->uuid, sizeof j->uuid, "%s", a->rec.uuid);
    b->rep = NULL;
    return j;
}

void backup_takeover_finish(struct backup *b, uint32_t shell, uint64_t epoch)
{
    struct takeover_job *j = job_new(b, shell);

    j->epoch = epoch;
    takeover_done(j, 0, NULL);
}

void backup_takeover_start(struct backup *b)
{
    struct agent *a = b->a;

    b->claimed_ns = clock_ns();
    b->heard_ns = a->claim_heard_ns;
    if (b->cold) {
        backup_cold_run(b);
        return;
    }
    agent_session_drop(a);
    replica_session_lost(b->rep);
    agent_event(a, "takeover", "taking over from %s with epoch %llu",
                a->rec.peer, (unsigned long long)replica_committed(b->rep));
    b->work = WORK_TAKEOVER;
    job_start(a->loop, takeover_run, takeover_done, job_new(b, b->shell));
}

static bool arbiter_is_up(struct agent *a, struct err *e)
{
    struct arbiter_health h;

    a->arb->ops->health(a->arb, &h);
    if (!h.up && e)
        *e = h.why;
    return h.up;
}

/* Of any takeover. */
static int possible(struct backup *b, struct err *e)
{
    struct agent *a = b->a;

    if (a->lease.state == LEASE_WON && a->state.now == VM_FAILED)
        return err_kind(e, ERR_REFUSED, "%s", a->reason);
    if (b->cold || (b->take_request && a->lease.state == LEASE_CLAIMING))
        return err_kind(e, ERR_REFUSED, "%s is being taken over already",
                        a->rec.name);
    if (a->lease.state == LEASE_WON)
        return err_kind(e, ERR_REFUSED, "%s runs here already", a->rec.name);
    if (a->arb && !arbiter_is_up(a, e))
        return err_add(e, "%s can't be taken over now", a->rec.name);
    return 0;
}

/* Of one that has the memory, too. */
static int replica_check(struct backup *b, bool force, struct err *e)
{
    struct agent *a = b->a;
    uint64_t silent = lease_silence(&a->lease, clock_ns());
    bool claims = a->arb && a->lease.state == LEASE_CLAIMING;

    if ((a->lease.state != LEASE_STANDBY && !claims) || !b->rep) {
        err_kind(e, ERR_REFUSED, "there is no whole replica of %s here",
                 a->rec.name);
        return cold_is(a->rec.uuid)
                   ? err_hint(e,
                              "without its memory, from its disks as of an "
                              "epoch: understudy takeover %s --from-disk",
                              a->rec.name)
                   : -1;
    }
    if (silent < a->lease.timeout_ns && !force)
        return err_kind(e, ERR_REFUSED, "%s answers: it runs %s", a->rec.peer,
                        a->rec.name);
    return 0;
}

void backup_on_takeover(struct backup *b, struct ipc_conn *c, json_t *msg)
{
    struct agent *a = b->a;
    bool from_disk = json_flag(msg, "from_disk", false);
    struct err e = ERR_INIT;

    if (possible(b, &e) ||
        (!from_disk && replica_check(b, json_flag(msg, "force", false), &e))) {
        if (!e.hint[0])
            err_hint(&e,
                     "see `understudy status %s` on both hosts; --force "
                     "takes over from a living host",
                     a->rec.name);
        ipc_reply_error(c, msg, &e);
        return;
    }
    if (from_disk) {
        backup_cold_request(b, c, msg);
        return;
    }
    bool claims = a->arb && a->lease.state == LEASE_CLAIMING;
    b->taker = c;
    b->take_request = json_incref(msg);
    if (claims)
        return; /* the outcome is the answer */
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
    if (a->arb)
        agent_lease_event(a, LEASE_EV_STARTED);
    return 0;
}

static int finish(struct backup *b, const struct takeover_mark *m,
                  const struct hv_domain *d, struct err *e)
{
    struct agent *a = b->a;

    if (!m->state_set && d->paused &&
        (disk_replica_promote(d->domid, m->epoch, e) ||
         a->hv->ops->set_state(a->hv, d->domid, m->state.data, m->state.len,
                               e)))
        return -1;
    a->lease.state = LEASE_WON;
    a->lease.generation = m->generation;
    a->rec.running = b->marked = true;
    a->rec.domid = d->domid;
    agent_save(a);
    return resume_finish(a, d, e);
}

int backup_finish(struct backup *b, bool *mine, struct err *e)
{
    struct agent *a = b->a;
    struct takeover_mark m;
    struct hv_domain d;

    if (mark_read(a->rec.uuid, &m, e)) {
        if (e->kind != ERR_GONE)
            log_error("dom=%s %s", a->rec.name, e->text);
        err_clear(e);
        return 0;
    }
    int rc = a->hv->ops->info(a->hv, m.shell, &d, e);
    if (!rc && !memcmp(d.uuid, a->uuid, sizeof d.uuid)) {
        *mine = true;
        rc = finish(b, &m, &d, e);
    } else if (!rc || e->kind == ERR_GONE) {
        err_clear(e);
        rc = 0;
        mark_remove(a->rec.uuid);
    }
    buf_free(&m.state);
    return rc;
}

int backup_resume(struct backup *b, struct err *e)
{
    struct agent *a = b->a;
    struct hv_domain d;
    bool unfinished = false;

    b->marked = true; /* there may be one */

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
    if (a->arb && !unfinished && d.domid)
        agent_lease_event(a, LEASE_EV_STARTED);
    return unfinished ? resume_finish(a, &d, e) : 0;
}
