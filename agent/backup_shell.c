// SPDX-License-Identifier: Apache-2.0
/* The backup's agent: the shell is built, and given up, by jobs; what the
 * primary is told when that is done. Loop thread, except for shell_run().
 *
 * Fault point: backup.giving_up (a replica is there). */
#include "agent/backup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/job.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "disk-replicate/device.h"

/* How often the shell is looked at. */
#define SHELL_NS (NS_PER_SEC / 2)

static void blueprint_build(struct backup *b);

/* --- Building the shell (a job)
 * ------------------------------------------------
 */

struct shell_job {
    struct backup *b;
    struct hv *hv;
    struct replica *rep;
    uint32_t shell; /* that this agent has had built; 0: none */
    bool build;
    bool stray;      /* the domain that is there may be the VM */
    struct hv_vm vm; /* whose shell it is, whatever the blueprint says */
    struct cold_disks disks;
};

/* Is there a replica of the VM? 1: yes, in *d, and it is nothing but a shell.
 * ERR_REFUSED: it runs, or has run, so it is the VM after all, if a predecessor
 * took over and could not write that down. Of our `own` we know better. */
static int replica_find(struct hv *hv, const struct hv_vm *vm, uint32_t own,
                        struct hv_domain *d, struct err *e)
{
    if (hv->ops->find_uuid(hv, vm->uuid, true, d, e)) {
        if (e->kind != ERR_GONE)
            return -1;
        err_clear(e);
        return 0;
    }
    if (d->domid == own || (d->paused && !d->ran))
        return 1;
    err_kind(e, ERR_REFUSED,
             "%s runs here, or has run, and no record says since when",
             d->name);
    return err_hint(e,
                    "if %s runs nowhere else, this is it: `xl rename %s %s`, "
                    "`understudy unprotect %s`; if not, `xl destroy %s`",
                    vm->name, d->name, vm->name, vm->name, d->name);
}

static struct hv_vm vm_of(const struct agent *a)
{
    struct hv_vm vm;

    memcpy(vm.uuid, a->uuid, sizeof vm.uuid);
    memcpy(vm.name, a->rec.name, sizeof vm.name);
    return vm;
}

bool backup_stray(struct backup *b)
{
    struct agent *a = b->a;
    struct hv_vm vm = vm_of(a);
    struct hv_domain d;
    struct err e = ERR_INIT;

    err_clear(&b->stray);
    if (replica_find(a->hv, &vm, b->shell, &d, &e) >= 0 ||
        e.kind != ERR_REFUSED)
        return false;
    b->stray = e;
    agent_state(a, VM_FAILED, "%s", e.text);
    return true;
}

static int shell_destroy(struct shell_job *j, struct err *e)
{
    struct hv_domain d;
    int r = replica_find(j->hv, &j->vm, j->shell, &d, e);

    return r > 0 ? j->hv->ops->destroy(j->hv, d.domid, e) : r;
}

static int shell_build(struct shell_job *j, struct err *e)
{
    const struct buf *bp = &j->b->blueprint;
    struct replica_config c = {.ack = backup_committed,
                               .answer = backup_disks_answer,
                               .failed = backup_disks_failed,
                               .ack_arg = j->b};
    const struct hv_ops *ops = j->hv->ops;

    if (ops->shell_check(j->hv, &j->vm, bp->data, bp->len, e) ||
        ops->shell_build(j->hv, &j->vm, bp->data, bp->len, &j->shell, e))
        return -1;
    c.domid = j->shell;
    memcpy(c.name, j->vm.name, sizeof c.name);
    if (cold_list(&j->disks, j->shell, e) ||
        disk_replica_new(&c.disks, j->shell, j->b->a->cfg.durable_ack, e) ||
        replica_open(&j->rep, j->hv, &c, e)) {
        struct err ignored = ERR_INIT;
        if (c.disks)
            c.disks->ops->free(c.disks);
        ops->destroy(j->hv, j->shell, &ignored);
        return -1;
    }
    j->hv = NULL; /* the replica's now */
    return 0;
}

/* Give up what is there; then, if asked, build anew. */
static int shell_run(void *arg, struct err *e)
{
    struct shell_job *j = arg;
    int rc;

    if (j->rep)
        fault_point("backup.giving_up");
    replica_free(j->rep);
    j->rep = NULL;
    if (agent_hv_open(&j->hv, e))
        return -1;
    rc = shell_destroy(j, e);
    j->shell = 0;
    if (!rc && j->build)
        rc = shell_build(j, e);
    if (j->hv)
        j->hv->ops->close(j->hv);
    return rc;
}

static void send_ready(struct backup *b)
{
    struct wire_ready r = {.generation = b->a->lease.generation};
    struct buf out = {0};

    ready_put(&out, &r);
    link_send(b->a->session, WIRE_READY, out.data, out.len);
    buf_free(&out);
}

static void shell_done(void *arg, int rc, const struct err *e)
{
    struct shell_job *j = arg;
    struct backup *b = j->b;
    struct agent *a = b->a;
    bool same = a->session && b->session_no == b->job_session;

    b->work = WORK_NONE;
    b->rep = j->rep;
    b->shell = j->rep ? j->shell : 0;
    a->rec.domid = b->shell ? (int64_t)b->shell : -1;
    b->ack_sent = b->ack_epoch = 0;
    b->disks = j->disks;
    b->kept = false;
    if (rc)
        agent_event(a, "error", "%s: %s",
                    j->build ? "building the shell" : "removing the replica",
                    e->text);
    if (j->build && same && rc)
        link_fail(a->session, e);
    else if (j->build && same && b->reply == REPLY_NOTHING)
        send_ready(b);
    free(j);
    backup_settle(b);
    if (b->build_due && b->build_due == b->session_no && a->session &&
        b->work == WORK_NONE)
        blueprint_build(b);
}

/* The replica, if any, is void from this moment on; it is never started. */
static void shell_start(struct backup *b, bool build)
{
    struct shell_job *j = calloc(1, sizeof *j);
    struct agent *a = b->a;
    bool held = a->arb && b->rep;

    if (!j)
        abort();
    j->b = b;
    j->rep = b->rep;
    j->build = build;
    j->shell = b->shell;
    j->vm = vm_of(a);
    b->rep = NULL;
    b->disks_failed = false; /* of the next one */
    pthread_mutex_lock(&b->answers_lock);
    buf_clear(&b->answers);
    pthread_mutex_unlock(&b->answers_lock);
    b->work = build ? WORK_BUILD : WORK_DISCARD;
    b->job_session = b->session_no;
    agent_lease_event(a, LEASE_EV_DISCARDED);
    /* A successor must not take the primary, which is told, for one that waits
     * for us. */
    if (held)
        agent_save(a);
    job_start(a->loop, shell_run, shell_done, j);
}

/* What others did to the shell, ERR_GONE in *e when it is gone; 0: nothing. Not
 * being able to ask says nothing. */
static int shell_look(struct backup *b, struct err *e)
{
    const struct hv_ops *ops = b->a->hv->ops;
    const char *name = b->a->rec.name;
    struct hv_domain d;
    struct err why = ERR_INIT;

    if (ops->info(b->a->hv, b->shell, &d, &why))
        return why.kind == ERR_GONE
                   ? err_kind(e, ERR_GONE,
                              "the shell %s" HV_REPLICA_TAG
                              " is gone: it was destroyed here",
                              name)
                   : 0;
    if (!d.paused && ops->pause(b->a->hv, b->shell, &why))
        log_error("dom=%s pause its shell: %s", name, why.text);
    if (!d.paused || d.ran)
        return err_set(e, "somebody let it run, the shell %s" HV_REPLICA_TAG,
                       name);
    if (d.shutdown != HV_RUNNING)
        return err_set(e, "the shell %s" HV_REPLICA_TAG " has shut down", name);
    return 0;
}

/* Is there a replica, and nobody about to take over with it? */
static bool is_idle(const struct backup *b)
{
    enum lease_state s = b->a->lease.state;

    return b->shell && b->work == WORK_NONE &&
           (s == LEASE_EMPTY || s == LEASE_STANDBY);
}

static void replica_void(struct backup *b, const struct err *why)
{
    struct agent *a = b->a;

    agent_event(a, "void", "the replica is void: %s", why->text);
    b->left_session = b->session_no;
    backup_give_up(b, REPLY_NOTHING);
    agent_state(a, VM_DEGRADED, "the replica is void: %s", why->text);
    if (a->session)
        link_fail(a->session, why);
}

void backup_shell_tick(struct backup *b, uint64_t now)
{
    struct err e = ERR_INIT;

    if (now < b->shell_ns || !is_idle(b))
        return;
    b->shell_ns = now + SHELL_NS;
    if (shell_look(b, &e))
        replica_void(b, &e);
}

void backup_disks_tick(struct backup *b)
{
    struct err why;

    if (!__atomic_load_n(&b->disks_failed, __ATOMIC_ACQUIRE) || !is_idle(b))
        return;
    why = b->disks_why;
    replica_void(b, &why);
}

void backup_clear(struct backup *b)
{
    shell_start(b, false);
}

/* --- Giving up, and what is said afterwards
 * -------------------------------------
 */

static void reply_discarded(struct backup *b)
{
    struct buf out = {0};

    discard_put(&out, &b->discard);
    link_send_urgent(b->a->session, WIRE_DISCARDED, out.data, out.len);
    buf_free(&out);
}

static void reply_stopped(struct backup *b)
{
    struct agent *a = b->a;
    struct buf out = {0};
    bool over = b->stop.reason != WIRE_STOP_REBOOT;

    agent_event(a, "stop", "%s ends protection: %s", a->rec.peer,
                stop_reason_name(b->stop.reason));
    agent_state(a, VM_UNPROTECTED, "the primary ended protection: %s",
                stop_reason_name(b->stop.reason));
    if (a->session) {
        stop_put(&out, &b->stop);
        link_send_urgent(a->session, WIRE_STOPPED, out.data, out.len);
        buf_free(&out);
    }
    if (over && a->session)
        link_close(a->session, 2000); /* `closed` ends us */
    else if (over)
        agent_exit(a, AGENT_EXIT_DONE);
}

/* No job is under way: say what was promised. */
void backup_settle(struct backup *b)
{
    enum reply reply = b->reply;

    if (reply != REPLY_NOTHING && b->rep) {
        backup_clear(b); /* the shell was being built when it was said */
        return;
    }
    b->reply = REPLY_NOTHING;
    if (reply == REPLY_LEFT) {
        agent_state(b->a, VM_UNPROTECTED, "forgotten");
        agent_exit(b->a, AGENT_EXIT_DONE);
    } else if (reply == REPLY_STOPPED) {
        b->was_protected = false;
        reply_stopped(b);
    } else if (reply == REPLY_DISCARDED && b->a->session) {
        agent_state(b->a, VM_SYNCING, "the replica was given up");
        reply_discarded(b);
    }
}

void backup_give_up(struct backup *b, enum reply reply)
{
    b->reply = reply;
    if (b->work == WORK_NONE)
        backup_clear(b);
}

/* The whole blueprint is here and nothing else is under way. */
static void blueprint_build(struct backup *b)
{
    b->build_due = 0;
    buf_free(&b->blueprint);
    b->blueprint = b->collect;
    memset(&b->collect, 0, sizeof b->collect);
    agent_state(b->a, VM_SYNCING, "building the shell for %s", b->a->rec.name);
    shell_start(b, true);
}

/* The primary did not wait for the answer to its STOP, and protects again. */
static void stop_forget(struct backup *b)
{
    b->reply = REPLY_NOTHING;
    b->stop = (struct wire_stop){0};
    b->was_protected = false;
}

void backup_on_blueprint(struct backup *b, const uint8_t *payload, size_t len)
{
    struct agent *a = b->a;
    struct wire_blueprint w;
    struct err e = ERR_INIT;
    bool done = false;

    if (blueprint_get(&w, payload, len, &e) ||
        blueprint_collect(&b->collect, &w, &done, &e)) {
        link_fail(a->session, &e);
        return;
    }
    if (!done)
        return;
    if (b->reply == REPLY_STOPPED)
        stop_forget(b);
    b->left_session = 0;
    if (b->work == WORK_DISCARD || b->work == WORK_BUILD) {
        b->build_due = b->session_no; /* shell_done() goes on with it */
        return;
    }
    if (b->work != WORK_NONE) {
        err_kind(&e, ERR_REFUSED, "%s is still clearing up here", a->rec.name);
        err_hint(&e, "try again in a few seconds");
        link_fail(a->session, &e);
        return;
    }
    blueprint_build(b);
}
