// SPDX-License-Identifier: Apache-2.0
/* What a peer's daemon may ask of this one: ping, arbiter (is it the same, and
 * can it be reached), prepare (be the backup of a VM), query, forget,
 * disk-size. The peer is hostile: everything it says is checked, and it is told
 * only of VMs whose peer it is, and how large a disk is that it knows the path
 * of. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon_arbiter.h"
#include "agent/hosts.h"
#include "agent/job.h"
#include "common/log.h"
#include "common/text.h"

/* --- prepare ------------------------------------------------------------ */

struct prepare {
    struct daemon *d;
    struct host_request *r;
    struct vm_record rec;
    struct vm_watch watch;
    ev_timer late;
    struct err why;
};

static void prepare_create(struct prepare *p);

static void prepare_end(struct prepare *p, const struct err *why)
{
    ev_timer_stop(p->d->loop, &p->late);
    vm_unwatch(&p->watch);
    if (why)
        host_reply_error(p->r, why);
    else
        host_reply(p->r, json_pack("{sb}", "ok", 1));
    free(p);
}

static void on_late(struct ev_loop *loop, ev_timer *w, int events)
{
    struct prepare *p = w->data;
    struct err e = ERR_INIT;

    (void)loop, (void)events;
    err_kind(&e, ERR_TIMEOUT, "the backup agent of %s did not start in time",
             p->rec.name);
    err_hint(&e, "the log of understudyd on %s says why", p->d->name);
    prepare_end(p, &e);
}

/* The agent that is being started is up. */
static void on_started(struct vm_watch *w, struct vm *vm, enum vm_news news,
                       const json_t *msg)
{
    struct prepare *p = (void *)((char *)w - offsetof(struct prepare, watch));
    struct err e = ERR_INIT;

    (void)vm, (void)msg;
    if (news == VM_NEWS_UP) {
        prepare_end(p, NULL);
    } else if (news == VM_NEWS_GONE) {
        err_set(&e, "the backup agent of %s ended at once", p->rec.name);
        prepare_end(p, &e);
    }
}

static void prepare_wait(struct prepare *p, struct vm *vm)
{
    if (vm->conn) {
        prepare_end(p, NULL);
        return;
    }
    p->watch.news = on_started;
    vm_watch(vm, &p->watch);
}

/* No other VM's domain has the name, nor that of the replica. */
static int domains_check(struct hv *hv, const struct vm_record *r,
                         struct err *e)
{
    char name[sizeof r->name + sizeof HV_REPLICA_TAG];
    uint8_t uuid[16];
    struct hv_domain dom;
    struct err gone = ERR_INIT;

    uuid_parse(r->uuid, uuid);
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s%s", r->name, i ? HV_REPLICA_TAG : "");
        if (hv->ops->find(hv, name, &dom, &gone) || strcmp(dom.name, name) ||
            !memcmp(dom.uuid, uuid, sizeof uuid))
            continue;
        err_kind(e, ERR_REFUSED, "a domain %s is there already, of another VM",
                 name);
        return err_hint(e, "rename one of the two (`xl rename`)");
    }
    return 0;
}

static int save_run(void *arg, struct err *e)
{
    struct prepare *p = arg;
    struct hv *hv = NULL;

    if (daemon_hv_open(&hv, e))
        return -1;
    int rc = domains_check(hv, &p->rec, e);
    hv->ops->close(hv);
    return rc ? rc : store_save(&p->rec, e);
}

static void save_done(void *arg, int rc, const struct err *e)
{
    struct prepare *p = arg;

    if (rc) {
        supervise_unclaim(p->d, p->rec.uuid);
        prepare_end(p, e);
        return;
    }
    struct vm *vm = supervise_add(p->d, &p->rec);
    ev_timer_set(&p->late, 10., 0.);
    ev_timer_start(p->d->loop, &p->late);
    prepare_wait(p, vm);
}

static void prepare_create(struct prepare *p)
{
    struct err e = ERR_INIT;

    if (p->d->vm_count >= p->d->cfg.max_vms) {
        err_kind(&e, ERR_REFUSED, "%s has %u VMs already (max_vms)", p->d->name,
                 p->d->vm_count);
        err_hint(&e, "raise max_vms in %s's understudyd.conf", p->d->name);
        prepare_end(p, &e);
        return;
    }
    if (supervise_claim(p->d, p->rec.uuid, &e)) {
        prepare_end(p, &e);
        return;
    }
    job_start(p->d->loop, save_run, save_done, p);
}

/* What an old primary knows of the VM goes when it is asked to become the
 * backup, unless something of the VM is still here: turn_give_way(). */
static void on_given_up(struct vm_watch *w, struct vm *vm, enum vm_news news,
                        const json_t *msg)
{
    struct prepare *p = (void *)((char *)w - offsetof(struct prepare, watch));

    (void)vm, (void)msg;
    if (news != VM_NEWS_GONE)
        return;
    vm_unwatch(&p->watch);
    ev_timer_stop(p->d->loop, &p->late);
    prepare_create(p);
}

static void on_gives_way(void *arg, const json_t *reply, const struct err *why)
{
    struct prepare *p = arg;
    struct vm_record r;
    struct err e = ERR_INIT;

    /* Its end is the news. It may come before the answer was read: the record
     * tells. */
    if (!reply && !(store_load(p->rec.uuid, &r, &e) && e.kind == ERR_GONE)) {
        prepare_end(p, why);
        return;
    }
    ev_timer_set(&p->late, 10., 0.);
    ev_timer_start(p->d->loop, &p->late);
}

static void prepare_give_way(struct prepare *p, struct vm *vm)
{
    p->watch.news = on_given_up;
    vm_watch(vm, &p->watch);
    vm_ask(vm, json_pack("{ss}", "op", "give-way"), 5., on_gives_way, p);
}

static void prepare_existing(struct prepare *p, struct vm *vm)
{
    const char *us = p->d->name;
    struct err e = ERR_INIT;
    bool theirs = !strcmp(vm->rec.peer, p->rec.peer);

    if (vm->damaged) {
        err_kind(&e, ERR_REFUSED, "%s", vm->reason);
    } else if (theirs && vm->rec.role == ROLE_BACKUP &&
               !arbiter_same(vm->rec.arbiter, p->rec.arbiter)) {
        err_kind(&e, ERR_REFUSED, "%s is known there with the arbiter %s",
                 vm->rec.name, vm->rec.arbiter);
        err_hint(&e, "on %s: understudy unprotect %s", us, vm->rec.name);
    } else if (theirs && vm->rec.role == ROLE_BACKUP &&
               vm->state != VM_FENCED) {
        /* Even when it took the VM over: the two agents meet, and the
         * generations tell who keeps it. */
        ev_timer_set(&p->late, 10., 0.);
        ev_timer_start(p->d->loop, &p->late);
        prepare_wait(p, vm);
        return;
    } else if (theirs) {
        prepare_give_way(p, vm);
        return;
    } else {
        err_kind(&e, ERR_REFUSED, "%s protects %s with %s (%s, %s)", us,
                 vm->rec.name, vm->rec.peer, vm_role_name(vm->rec.role),
                 vm_state_name(vm->state));
        err_hint(&e, "`understudy status %s` on %s says more", vm->rec.name,
                 us);
    }
    prepare_end(p, &e);
}

static bool incarnation_parse(const char *text, uint8_t out[16])
{
    return strlen(text) == 32 && hex_parse(text, out, 16);
}

static int prepare_parse(struct vm_record *r, const struct daemon *d,
                         const struct link_peer *from, const json_t *msg,
                         struct err *e)
{
    uint8_t uuid[16];

    if (darbiter_agrees(d, json_text(msg, "arbiter", ""), r->arbiter, e))
        return -1;
    if (!uuid_parse(json_text(msg, "uuid", ""), uuid) ||
        !incarnation_parse(json_text(msg, "incarnation", ""), r->incarnation))
        return err_kind(e, ERR_USAGE, "prepare: no uuid or incarnation");
    const char *name = json_text(msg, "name", "");
    long long timeout = json_number(msg, "timeout_ms", -1);
    long long interval = json_number(msg, "interval_ms", d->cfg.interval_ms);
    if (!name[0] || strlen(name) >= sizeof r->name || timeout < 100 ||
        timeout > 600000 || interval < 1 || interval > 60000)
        return err_kind(e, ERR_USAGE, "prepare: name or timeout out of range");
    uuid_format(uuid, r->uuid);
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->peer, sizeof r->peer, "%s", from->name);
    r->role = ROLE_BACKUP;
    r->generation = (uint64_t)json_number(msg, "generation", 0);
    r->domid = -1;
    r->interval_ms = (unsigned)interval;
    r->timeout_ms = (unsigned)timeout;
    r->state = VM_UNPROTECTED;
    r->wanted = true;
    return 0;
}

/* A name is one VM's. `vm` is the one with that uuid, or NULL. */
static int name_check(struct daemon *d, const struct vm_record *r,
                      const struct vm *vm, struct err *e)
{
    if (strstr(r->name, HV_REPLICA_TAG))
        return err_kind(e, ERR_REFUSED, "%s is a replica's name", r->name);
    if (vm_find(d, r->name) != vm && vm_find(d, r->name)) {
        err_kind(e, ERR_REFUSED, "%s has another VM %s on record", d->name,
                 r->name);
        return err_hint(e, "rename one of the two (`xl rename`)");
    }
    if (!vm || vm->damaged || !strcmp(vm->rec.name, r->name))
        return 0;
    err_kind(e, ERR_REFUSED, "%s knows this VM as %s", d->name, vm->rec.name);
    return err_hint(e, "on %s: understudy unprotect %s", d->name, vm->rec.name);
}

static void on_prepare(struct daemon *d, struct host_request *r,
                       const struct link_peer *from, const json_t *msg)
{
    struct prepare *p = calloc(1, sizeof *p);
    struct err e = ERR_INIT;

    if (!p)
        abort();
    p->d = d;
    p->r = r;
    ev_init(&p->late, on_late);
    p->late.data = p;
    if (prepare_parse(&p->rec, d, from, msg, &e)) {
        prepare_end(p, &e);
        return;
    }
    struct vm *vm = vm_find_uuid(d, p->rec.uuid);
    if (name_check(d, &p->rec, vm, &e))
        prepare_end(p, &e);
    else if (vm)
        prepare_existing(p, vm);
    else
        prepare_create(p);
}

/* --- arbiter ------------------------------------------------------------ */

static void on_arbiter(struct daemon *d, struct host_request *r,
                       const json_t *msg)
{
    char ours[ARBITER_LINE_MAX];
    struct err e = ERR_INIT;

    if (darbiter_agrees(d, json_text(msg, "line", ""), ours, &e) ||
        darbiter_up(d, &e))
        host_reply_error(r, &e);
    else
        host_reply(r, json_pack("{sb}", "ok", 1));
}

/* --- query, forget ------------------------------------------------------ */

/* The VM of a request, if the asker is its peer. */
static struct vm *vm_of(struct daemon *d, const struct link_peer *from,
                        const json_t *msg, struct err *e)
{
    struct vm *vm = vm_find_uuid(d, json_text(msg, "uuid", ""));

    if (vm && !strcmp(vm->rec.peer, from->name))
        return vm;
    err_kind(e, ERR_GONE, "%s knows no such VM", d->name);
    return NULL;
}

static void on_query(struct daemon *d, struct host_request *r,
                     const struct link_peer *from, const json_t *msg)
{
    struct err e = ERR_INIT;
    struct vm *vm = vm_find_uuid(d, json_text(msg, "uuid", ""));
    struct vm_record rec;

    /* An answer, not an error: the asker gives its replica up for it. */
    if (!vm || (!vm->damaged && strcmp(vm->rec.peer, from->name))) {
        host_reply(r, json_pack("{sb sb}", "ok", 1, "known", 0));
        return;
    }
    if (store_load(vm->rec.uuid, &rec, &e)) {
        host_reply_error(r, &e);
        return;
    }
    host_reply(r, json_pack("{sb sb ss sI ss sb}", "ok", 1, "known", 1, "role",
                            vm_role_name(rec.role), "generation",
                            (json_int_t)rec.generation, "state",
                            vm_state_name(vm->state), "running", rec.running));
}

static void on_forgotten(void *arg, const json_t *reply, const struct err *why)
{
    struct host_request *r = arg;

    if (reply)
        host_reply(r, json_pack("{sb}", "ok", 1));
    else
        host_reply_error(r, why);
}

static void on_forget(struct daemon *d, struct host_request *r,
                      const struct link_peer *from, const json_t *msg)
{
    struct err e = ERR_INIT;
    struct vm *vm = vm_of(d, from, msg, &e);

    if (vm && (vm->rec.role != ROLE_BACKUP || vm->state == VM_TAKEN_OVER)) {
        err_kind(&e, ERR_REFUSED, "%s runs %s itself", d->name, vm->rec.name);
        vm = NULL;
    }
    if (!vm) {
        host_reply_error(r, &e);
        return;
    }
    vm_ask(vm, json_pack("{ss}", "op", "stop"), 15., on_forgotten, r);
}

void host_request_handle(struct daemon *d, struct host_request *r,
                         const struct link_peer *from, const json_t *msg)
{
    const char *op = json_text(msg, "op", "");
    struct err e = ERR_INIT;

    if (!strcmp(op, "ping")) {
        host_reply(
            r, json_pack("{sb ss}", "ok", 1, "version", UNDERSTUDY_VERSION));
    } else if (!strcmp(op, "arbiter")) {
        on_arbiter(d, r, msg);
    } else if (!strcmp(op, "prepare")) {
        on_prepare(d, r, from, msg);
    } else if (!strcmp(op, "query")) {
        on_query(d, r, from, msg);
    } else if (!strcmp(op, "forget")) {
        on_forget(d, r, from, msg);
    } else if (!strcmp(op, "disk-size")) {
        host_request_disk_size(d, r, msg);
    } else {
        err_kind(&e, ERR_USAGE, "%s (version %s) does not know the request",
                 d->name, UNDERSTUDY_VERSION);
        err_hint(&e, "install the same version of understudy on both hosts");
        host_reply_error(r, &e);
    }
}
