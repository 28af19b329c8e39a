// SPDX-License-Identifier: Apache-2.0
/* The verb protect of the control socket: is the peer there, may the VM be
 * protected, write the record, start the agent, report until Protected. When it
 * fails before that, nothing is left behind, but for what agents that die again
 * and again leave. A VM that this host took over has a record and an agent,
 * which turns (turn.h); when that fails it turns back. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/control.h"
#include "agent/daemon_arbiter.h"
#include "agent/hosts.h"
#include "agent/job.h"
#include "common/log.h"

/* An agent that dies so often before the VM was ever Protected won't make it.
 */
#define DEATHS_MAX 3

struct protect {
    struct protect *next;
    struct op *op;
    struct daemon *d;
    char vm_name[64]; /* as typed */
    struct vm_record rec;
    bool claimed; /* rec.uuid is known and ours to protect */
    bool making;  /* the record: supervise_claim() */
    bool giving_up;
    bool copying; /* from here on the guest's output may be held */
    struct vm_watch watch;
    struct vm_call *call;
    ev_timer tick;
    struct err why;
};

/* Those under way: two must not write one record. */
static struct protect *all;

static void protect_end(struct protect *p, const struct err *why)
{
    for (struct protect **q = &all; *q; q = &(*q)->next) {
        if (*q == p) {
            *q = p->next;
            break;
        }
    }
    if (p->making)
        supervise_unclaim(p->d, p->rec.uuid);
    vm_unwatch(&p->watch);
    vm_ask_cancel(p->call);
    ev_timer_stop(p->d->loop, &p->tick);
    if (why) {
        if (p->claimed)
            daemon_event(p->d, "not-protected", p->rec.name, "%s", why->text);
        op_fail(p->op, why);
    } else {
        op_reply(p->op, json_pack("{ss ss}", "uuid", p->rec.uuid, "name",
                                  p->rec.name));
    }
    free(p);
}

/* --- Until Protected ---------------------------------------------------- */

static int forget_run(void *arg, struct err *e)
{
    return store_delete(arg, e);
}

static void forget_done(void *arg, int rc, const struct err *e)
{
    if (rc)
        log_error("%s", e->text);
    free(arg);
}

/* Take the record away: the next start finds none, and the VM is gone. */
static void record_remove(struct protect *p)
{
    char *uuid = strdup(p->rec.uuid);

    if (!uuid)
        abort();
    p->giving_up = true;
    job_start(p->d->loop, forget_run, forget_done, uuid);
}

/* Its agent gave it up. When it was taken over it is a backup's again, or the
 * next agent tries. */
static void on_given_up(struct protect *p, struct vm *vm)
{
    struct err e = vm->failure;

    if (!e.kind)
        err_set(&e, "%s could not be protected", p->rec.name);
    vm->fresh = false;
    protect_end(p, &e);
}

/* An agent that dies again and again. */
static void on_deaths(struct protect *p, struct vm *vm)
{
    err_set(&p->why, "the agent of %s died %u times%s%s", p->rec.name,
            vm->deaths, vm->reason[0] ? ", last state: " : "", vm->reason);
    if (vm->rec.stage == STAGE_NEW && !p->copying) {
        err_hint(&p->why, "the log of understudyd says more");
        record_remove(p);
        return;
    }
    /* There may be a replica, and output that is held for it: that is for the
     * next agent to end. */
    err_hint(&p->why,
             "it is tried again: `understudy status %s` says what comes of it, "
             "`understudy unprotect %s` ends it; the log of understudyd says "
             "more",
             p->rec.name, p->rec.name);
    protect_end(p, &p->why);
}

static void on_failed_state(struct protect *p, struct vm *vm)
{
    json_t *stop = json_pack("{ss}", "op", "stop");

    err_set(&p->why, "%s", vm->reason);
    p->giving_up = true;
    vm_send(vm, stop);
    json_decref(stop);
}

static void on_gone(struct protect *p, struct vm *vm)
{
    struct err e = vm->failure.kind ? vm->failure : p->why;

    if (!e.kind)
        err_set(&e, "the agent of %s ended: %s", p->rec.name,
                vm->reason[0] ? vm->reason : "it did not say why");
    err_hint(&e, "the logs of understudyd here and on %s say more",
             p->rec.peer);
    protect_end(p, &e);
}

/* All that can be checked was: the backup has built the shell, and the copy
 * begins. */
static bool copy_begins(const json_t *msg)
{
    return !strcmp(json_text(msg, "event", ""), "sync");
}

static void on_news(struct vm_watch *w, struct vm *vm, enum vm_news news,
                    const json_t *msg)
{
    struct protect *p = (void *)((char *)w - offsetof(struct protect, watch));

    if (news == VM_NEWS_GONE) {
        on_gone(p, vm);
    } else if (news == VM_NEWS_DOWN && (vm->rec.role == ROLE_BACKUP ||
                                        (vm->failure.kind && !p->giving_up))) {
        on_given_up(p, vm);
    } else if (news == VM_NEWS_DOWN && vm->fresh && !p->giving_up &&
               vm->deaths >= DEATHS_MAX) {
        on_deaths(p, vm);
    } else if (news == VM_NEWS_STATE && vm->state == VM_PROTECTED) {
        protect_end(p, NULL);
    } else if (news == VM_NEWS_STATE && vm->state == VM_FAILED && vm->fresh &&
               !p->giving_up) {
        on_failed_state(p, vm);
    } else if (news == VM_NEWS_EVENT && copy_begins(msg)) {
        p->copying = true;
        if (!json_flag(p->op->request, "wait", true))
            protect_end(p, NULL);
    }
}

static void on_status(void *arg, const json_t *reply, const struct err *why)
{
    struct protect *p = arg;
    json_t *status = json_object_get(reply, "status");

    (void)why;
    p->call = NULL;
    if (status)
        op_progress(p->op, status);
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int events)
{
    struct protect *p = w->data;

    (void)loop, (void)events;
    if (p->watch.vm && p->watch.vm->conn && !p->call && p->op->client)
        p->call = vm_ask(p->watch.vm, json_pack("{ss}", "op", "status"), 5.,
                         on_status, p);
}

static void agent_watch(struct protect *p, struct vm *vm)
{
    vm->fresh = true;
    p->watch.news = on_news;
    vm_watch(vm, &p->watch);
    ev_timer_init(&p->tick, on_tick, 0.5, 0.5);
    p->tick.data = p;
    ev_timer_start(p->d->loop, &p->tick);
    daemon_event(p->d, "operator", p->rec.name, "protect towards %s",
                 p->rec.peer);
}

/* --- Before the record -------------------------------------------------- */

static int save_run(void *arg, struct err *e)
{
    struct protect *p = arg;

    return store_save(&p->rec, e);
}

static void save_done(void *arg, int rc, const struct err *e)
{
    struct protect *p = arg;

    if (rc) {
        protect_end(p, e);
        return;
    }
    p->making = false; /* supervise_add() ends the claim */
    agent_watch(p, supervise_add(p->d, &p->rec));
}

/* The agent of a takeover turned, or did not. */
static void on_turned(void *arg, const json_t *reply, const struct err *why)
{
    struct protect *p = arg;
    struct vm *vm = vm_find_uuid(p->d, p->rec.uuid);
    struct vm_record r;
    struct err e = ERR_INIT;

    p->call = NULL;
    /* It may have ended before its answer was read: the record tells. */
    if (vm &&
        (reply || (why->kind == ERR_GONE && !store_load(p->rec.uuid, &r, &e) &&
                   r.role == ROLE_PRIMARY)))
        agent_watch(p, vm);
    else
        protect_end(p, why);
}

static void turn(struct protect *p, struct vm *vm)
{
    json_t *msg = json_pack("{ss sI sI}", "op", "turn", "interval_ms",
                            (json_int_t)p->rec.interval_ms, "timeout_ms",
                            (json_int_t)p->rec.timeout_ms);

    err_clear(&vm->failure);
    p->call = vm_ask(vm, msg, 10., on_turned, p);
}

/* It runs here since a takeover from that peer. */
static bool may_turn(const struct vm *vm, const char *peer)
{
    return vm->rec.role == ROLE_BACKUP && vm->state == VM_TAKEN_OVER &&
           !strcmp(vm->rec.peer, peer);
}

static int already_check(const struct protect *p, struct err *e)
{
    const struct vm *vm = vm_find_uuid(p->d, p->rec.uuid);

    for (const struct protect *q = all; q; q = q->next) {
        if (q == p || !q->claimed || strcmp(q->rec.uuid, p->rec.uuid) != 0)
            continue;
        err_kind(e, ERR_REFUSED, "%s is being protected already", q->rec.name);
        return err_hint(e, "understudy status %s", q->rec.name);
    }
    if (!vm || may_turn(vm, p->rec.peer))
        return 0;
    if (vm->rec.role == ROLE_BACKUP && vm->state == VM_TAKEN_OVER) {
        err_kind(e, ERR_REFUSED,
                 "%s was taken over from %s, whose old copy may still be there",
                 vm->rec.name, vm->rec.peer);
        return err_hint(e,
                        "protect it towards %s, or `understudy unprotect %s` "
                        "first, when %s will not come back",
                        vm->rec.peer, vm->rec.name, vm->rec.peer);
    }
    err_kind(e, ERR_REFUSED, "%s is protected already (%s, %s %s)",
             vm->rec.name, vm_state_name(vm->state),
             vm->rec.role == ROLE_PRIMARY ? "backup is" : "from", vm->rec.peer);
    return err_hint(e, "understudy status %s", vm->rec.name);
}

/* Everything that tells of it does so in JSON. */
static int name_check(const struct hv_domain *dom, struct err *e)
{
    json_t *j = json_string(dom->name);

    json_decref(j);
    if (j)
        return 0;
    err_kind(e, ERR_REFUSED, "the name of domain %u is not UTF-8", dom->domid);
    return err_hint(e, "xl rename %u NAME", dom->domid);
}

static bool has_arbiter(const struct protect *p)
{
    return strcmp(p->rec.arbiter, "none") != 0;
}

/* What the hypervisor says about the VM; on the job's thread. */
static int inspect_run(void *arg, struct err *e)
{
    struct protect *p = arg;
    struct hv *hv = NULL;
    struct hv_domain dom;

    if (daemon_hv_open(&hv, e))
        return -1;
    int rc = hv->ops->find(hv, p->vm_name, &dom, e);
    if (!rc)
        rc = name_check(&dom, e) || hv->ops->check_protect(hv, dom.domid, e)
                 ? -1
                 : 0;
    hv->ops->close(hv);
    if (rc)
        return -1;
    uuid_format(dom.uuid, p->rec.uuid);
    snprintf(p->rec.name, sizeof p->rec.name, "%s", dom.name);
    p->rec.domid = dom.domid;
    if (getrandom(p->rec.incarnation, sizeof p->rec.incarnation, 0) != 16)
        return err_sys(e, "getrandom");
    return 0;
}

/* The VM is ours, in the arbiter too: a generation that no older replica has.
 */
static void on_registered(void *arg, uint64_t generation, const struct err *why)
{
    struct protect *p = arg;

    if (why) {
        protect_end(p, why);
        return;
    }
    p->rec.generation = generation;
    job_start(p->d->loop, save_run, save_done, p);
}

static void record_begin(struct protect *p)
{
    struct host *h = host_find(p->d, p->rec.peer);
    struct err e = ERR_INIT;

    if (!has_arbiter(p)) {
        job_start(p->d->loop, save_run, save_done, p);
    } else if (h) {
        darbiter_register(p->d, p->rec.uuid, h, on_registered, p);
    } else {
        err_kind(&e, ERR_GONE, "%s is no peer any more", p->rec.peer);
        protect_end(p, &e);
    }
}

/* After a takeover the record has its arbiter already. */
static int turn_check(const struct protect *p, const struct vm *vm,
                      struct err *e)
{
    if (arbiter_same(vm->rec.arbiter, p->rec.arbiter))
        return 0;
    err_kind(e, ERR_REFUSED, "%s was protected with the arbiter %s",
             vm->rec.name, vm->rec.arbiter);
    return err_hint(e,
                    "understudy unprotect %s first, or name that one with "
                    "--arbiter",
                    vm->rec.name);
}

static bool is_replica(const char *name)
{
    size_t n = strlen(name), tag = strlen(HV_REPLICA_TAG);

    return n > tag && !strcmp(name + n - tag, HV_REPLICA_TAG);
}

static void inspect_done(void *arg, int rc, const struct err *why)
{
    struct protect *p = arg;
    struct vm *vm = vm_find_uuid(p->d, p->rec.uuid);
    struct err e = ERR_INIT;

    if (rc) {
        protect_end(p, why);
    } else if (is_replica(p->rec.name)) {
        err_kind(&e, ERR_REFUSED, "%s is a replica", p->rec.name);
        err_hint(&e, "protect the VM itself, on the host that runs it");
        protect_end(p, &e);
    } else if (already_check(p, &e) ||
               (vm ? turn_check(p, vm, &e)
                   : supervise_claim(p->d, p->rec.uuid, &e))) {
        protect_end(p, &e);
    } else {
        p->claimed = true;
        p->making = !vm;
        if (vm)
            turn(p, vm);
        else
            record_begin(p);
    }
}

static void on_met(void *arg, uint64_t generation, const struct err *why)
{
    struct protect *p = arg;

    (void)generation;
    if (why)
        protect_end(p, why);
    else
        job_start(p->d->loop, inspect_run, inspect_done, p);
}

static void on_pinged(void *arg, json_t *reply, const struct err *why)
{
    struct protect *p = arg;
    struct host *h = host_find(p->d, p->rec.peer);
    struct err e = ERR_INIT;

    err_kind(&e, ERR_GONE, "%s is no peer any more", p->rec.peer);
    if (!reply || !h)
        protect_end(p, reply ? &e : why);
    else if (has_arbiter(p))
        darbiter_meet(p->d, h, on_met, p);
    else
        on_met(p, 0, NULL);
}

static int request_read(struct protect *p, struct err *e)
{
    const json_t *q = p->op->request;
    const char *peer = json_text(q, "peer", "");
    const char *name = json_text(q, "vm", "");
    const struct config *cfg = &p->d->cfg;
    long long interval = json_number(q, "interval_ms", cfg->interval_ms);
    long long timeout = json_number(q, "timeout_ms", cfg->timeout_ms);

    if (!name[0] || strlen(name) >= sizeof p->vm_name)
        return err_kind(e, ERR_USAGE, "no VM of such a name");
    if (darbiter_choose(p->d, json_text(q, "arbiter", ""), p->rec.arbiter, e))
        return -1;
    if (interval < 1 || interval > 60000 || timeout < 100 || timeout > 600000)
        return err_kind(e, ERR_USAGE,
                        "the interval is 1 to 60000 ms, the "
                        "timeout 100 to 600000 ms");
    if (!strcmp(peer, p->d->name)) {
        err_kind(e, ERR_REFUSED, "%.64s is this very host", peer);
        return err_hint(e, "name another one: `understudy peer list`");
    }
    if (!host_find(p->d, peer)) {
        err_kind(e, ERR_GONE, "%.64s is no peer of this host", peer);
        return err_hint(e, "understudy peer add root@%.64s", peer);
    }
    if (p->d->vm_count >= p->d->cfg.max_vms && !vm_find(p->d, name)) {
        err_kind(e, ERR_REFUSED, "%u VMs are protected here already (max_vms)",
                 p->d->vm_count);
        return err_hint(e, "raise max_vms in understudyd.conf, or unprotect "
                           "one of them");
    }
    snprintf(p->vm_name, sizeof p->vm_name, "%s", name);
    snprintf(p->rec.peer, sizeof p->rec.peer, "%s", peer);
    p->rec.role = ROLE_PRIMARY;
    p->rec.generation = 1;
    p->rec.interval_ms = (unsigned)interval;
    p->rec.timeout_ms = (unsigned)timeout;
    p->rec.state = VM_UNPROTECTED;
    p->rec.running = true;
    p->rec.wanted = true;
    return 0;
}

void control_protect(struct op *op)
{
    struct protect *p = calloc(1, sizeof *p);
    struct err e = ERR_INIT;

    if (!p)
        abort();
    p->op = op;
    p->d = op->d;
    ev_init(&p->tick, on_tick);
    p->next = all;
    all = p;
    if (request_read(p, &e)) {
        protect_end(p, &e);
        return;
    }
    const struct vm *vm = vm_find(p->d, p->vm_name);
    if (vm && !may_turn(vm, p->rec.peer)) {
        snprintf(p->rec.uuid, sizeof p->rec.uuid, "%s", vm->rec.uuid);
        already_check(p, &e);
        protect_end(p, &e);
        return;
    }
    host_ask(host_find(p->d, p->rec.peer), json_pack("{ss}", "op", "ping"), 6.,
             on_pinged, p);
}
