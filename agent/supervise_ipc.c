// SPDX-License-Identifier: Apache-2.0
/* What the daemon and its agents say to each other: requests and replies,
 * states, events, and what an agent asks its daemon for. */
#include "agent/supervise_ipc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/hosts.h"
#include "agent/paths.h"
#include "common/log.h"

struct vm_call {
    struct vm_call *next;
    struct vm *vm;
    long long id;
    ev_timer late;
    vm_done *done;
    void *arg;
};

/* --- Who hears of it ---------------------------------------------------- */

void vm_watch(struct vm *vm, struct vm_watch *w)
{
    vm_unwatch(w);
    w->vm = vm;
    w->due = false;
    w->next = vm->watches;
    vm->watches = w;
}

void vm_unwatch(struct vm_watch *w)
{
    if (!w->vm)
        return;
    for (struct vm_watch **p = &w->vm->watches; *p; p = &(*p)->next) {
        if (*p == w) {
            *p = w->next;
            break;
        }
    }
    w->vm = NULL;
}

/* A callback may take any watch away: look for the next due one each time. */
void supervise_tell(struct vm *vm, enum vm_news news, const json_t *msg)
{
    struct vm_watch *w;

    for (w = vm->watches; w; w = w->next)
        w->due = true;
    for (;;) {
        for (w = vm->watches; w && !w->due; w = w->next)
            ;
        if (!w)
            return;
        w->due = false;
        w->news(w, vm, news, msg);
    }
}

/* --- Calls -------------------------------------------------------------- */

static void call_unlink(struct vm_call *c)
{
    for (struct vm_call **p = &c->vm->calls; *p; p = &(*p)->next) {
        if (*p == c) {
            *p = c->next;
            break;
        }
    }
    ev_timer_stop(c->vm->d->loop, &c->late);
}

static void call_end(struct vm_call *c, const json_t *reply,
                     const struct err *why)
{
    vm_done *done = c->done;
    void *arg = c->arg;

    call_unlink(c);
    free(c);
    done(arg, reply, why);
}

void vm_ask_cancel(struct vm_call *c)
{
    if (!c)
        return;
    call_unlink(c);
    free(c);
}

static void on_late(struct ev_loop *loop, ev_timer *w, int events)
{
    struct vm_call *c = w->data;
    struct err e = ERR_INIT;

    (void)loop, (void)events;
    if (c->vm->conn) {
        err_kind(&e, ERR_TIMEOUT, "the agent of %s does not answer",
                 c->vm->rec.name);
        err_hint(&e, "look at the log of process %d", (int)c->vm->pid);
    } else {
        err_kind(&e, ERR_GONE, "the agent of %s does not run", c->vm->rec.name);
        err_hint(&e, "it is started again by itself; the log says why it "
                     "ended");
    }
    call_end(c, NULL, &e);
}

struct vm_call *vm_ask(struct vm *vm, json_t *msg, double timeout_s,
                       vm_done *done, void *arg)
{
    static long long last_id;
    struct vm_call *c = calloc(1, sizeof *c);

    if (!c)
        abort();
    c->vm = vm;
    c->id = ++last_id;
    c->done = done;
    c->arg = arg;
    c->next = vm->calls;
    vm->calls = c;
    /* Without a connection it fails from the loop, not from in here. */
    ev_timer_init(&c->late, on_late, vm->conn ? timeout_s : 0., 0.);
    c->late.data = c;
    ev_timer_start(vm->d->loop, &c->late);
    json_object_set_new(msg, "id", json_integer(c->id));
    if (vm->conn)
        ipc_send(vm->conn, msg);
    json_decref(msg);
    return c;
}

void supervise_calls_fail(struct vm *vm)
{
    struct err e = ERR_INIT;

    err_kind(&e, ERR_GONE, "the agent of %s ended", vm->rec.name);
    while (vm->calls)
        call_end(vm->calls, NULL, &e);
}

void supervise_calls_drop(struct vm *vm)
{
    while (vm->calls)
        vm_ask_cancel(vm->calls);
}

void vm_send(struct vm *vm, const json_t *msg)
{
    if (vm->conn)
        ipc_send(vm->conn, msg);
}

/* --- What an agent says ------------------------------------------------- */

static void on_reply(struct vm *vm, const json_t *msg)
{
    long long id = json_number(msg, "id", -1);
    struct err e = ERR_INIT;

    for (struct vm_call *c = vm->calls; c; c = c->next) {
        if (c->id != id)
            continue;
        bool bad = ipc_error_of(msg, &e);
        call_end(c, bad ? NULL : msg, &e);
        return;
    }
}

static void state_set(struct vm *vm, const char *name, const char *why)
{
    if (!vm_state_parse(name, &vm->state))
        log_warn("dom=%s its agent reports the unknown state %s", vm->rec.name,
                 name);
    snprintf(vm->reason, sizeof vm->reason, "%s", why);
    if (vm->state == VM_PROTECTED)
        vm->fresh = false;
}

static void on_state(struct vm *vm, json_t *msg)
{
    state_set(vm, json_text(msg, "state", "?"), json_text(msg, "text", ""));
    json_object_set_new(msg, "event", json_string("state"));
    json_object_set_new(msg, "vm", json_string(vm->rec.name));
    events_add(&vm->d->events, msg);
    supervise_tell(vm, VM_NEWS_STATE, msg);
}

static void on_event(struct vm *vm, json_t *msg)
{
    const char *name = json_text(msg, "event", "");

    if (!strcmp(name, "failed")) {
        err_kind(&vm->failure, ipc_kind_parse(json_text(msg, "kind", NULL)),
                 "%s", json_text(msg, "text", "failed"));
        if (json_text(msg, "hint", "")[0])
            err_hint(&vm->failure, "%s", json_text(msg, "hint", ""));
    }
    json_object_set_new(msg, "vm", json_string(vm->rec.name));
    /* Many, and of no interest afterwards. */
    if (strcmp(name, "progress"))
        events_add(&vm->d->events, msg);
    supervise_tell(vm, VM_NEWS_EVENT, msg);
}

static void on_message(struct ipc_conn *conn, json_t *msg, int fd, void *arg)
{
    struct vm *vm = arg;

    vm->quiet_ns = 0;
    vm->asked = false;
    if (fd >= 0)
        close(fd);
    if (json_object_get(msg, "ask"))
        hosts_agent_asks(vm, conn, msg);
    else if (json_object_get(msg, "id"))
        on_reply(vm, msg);
    else if (json_object_get(msg, "state"))
        on_state(vm, msg);
    else if (json_object_get(msg, "event"))
        on_event(vm, msg);
}

static void on_closed(struct ipc_conn *conn, const struct err *why, void *arg)
{
    struct vm *vm = arg;

    (void)conn;
    log_debug("dom=%s agent connection: %s", vm->rec.name, why->text);
    vm->conn = NULL;
    supervise_calls_fail(vm);
    supervise_lost(vm);
}

/* The first status after connecting: where things stand. */
static void on_first_status(void *arg, const json_t *reply,
                            const struct err *why)
{
    struct vm *vm = arg;
    const json_t *status = json_object_get(reply, "status");
    const char *state = json_text(status, "state", NULL);

    if (!state) {
        log_warn("dom=%s no status from the agent: %s", vm->rec.name,
                 why ? why->text : "");
        return;
    }
    enum vm_state before = vm->state;
    state_set(vm, state, json_text(status, "reason", ""));
    if (vm->state != before)
        supervise_tell(vm, VM_NEWS_STATE, status);
}

int supervise_connect(struct vm *vm, struct err *e)
{
    static const struct ipc_handler handler = {.message = on_message,
                                               .closed = on_closed};

    if (ipc_connect(vm->d->loop, path_vm(vm->rec.uuid).s, &handler, vm,
                    &vm->conn, e))
        return -1;
    vm->asked = false;
    hosts_tell_agent(vm);
    vm_ask(vm, json_pack("{ss}", "op", "status"), 10., on_first_status, vm);
    supervise_tell(vm, VM_NEWS_UP, NULL);
    return 0;
}

void supervise_drain(struct vm *vm)
{
    if (!vm->conn)
        return;
    ipc_drain(vm->conn);
    ipc_close(vm->conn);
    vm->conn = NULL;
    supervise_calls_fail(vm);
}

bool supervise_other_pid(const struct vm *vm)
{
    return ipc_conn_pid(vm->conn) != vm->pid;
}

/* --- Looking ------------------------------------------------------------ */

struct vm *vm_find_uuid(struct daemon *d, const char *uuid)
{
    for (struct vm *vm = d->vms; vm; vm = vm->next) {
        if (!strcmp(vm->rec.uuid, uuid))
            return vm;
    }
    return NULL;
}

struct vm *vm_find(struct daemon *d, const char *name)
{
    for (struct vm *vm = d->vms; vm; vm = vm->next) {
        if (!strcmp(vm->rec.name, name))
            return vm;
    }
    return vm_find_uuid(d, name);
}

struct vm *vm_need(struct daemon *d, const char *name, struct err *e)
{
    struct vm *vm = vm_find(d, name);

    if (!vm) {
        err_kind(e, ERR_GONE, "%s is not protected on %s", name, d->name);
        err_hint(e, "`understudy status` lists the VMs that are");
    }
    return vm;
}

/* Behind those that the agent sees; one alone is its `daemons`. */
static void paths_add(const struct vm *vm, json_t *status)
{
    const struct host *h = host_find(vm->d, vm->rec.peer);
    json_t *more = h ? host_paths_json(h) : NULL;

    if (json_array_size(more) > 1) {
        if (!json_object_get(status, "paths"))
            json_object_set_new(status, "paths", json_array());
        json_array_extend(json_object_get(status, "paths"), more);
    }
    json_decref(more);
}

void vm_status_add(const struct vm *vm, json_t *status, bool answers)
{
    json_object_set_new(status, "answers", json_boolean(answers));
    json_object_set_new(status, "agent_deaths", json_integer(vm_deaths(vm)));
    paths_add(vm, status);
}

static void reason_known(const struct vm *vm, char *out, size_t size)
{
    if (vm->damaged)
        snprintf(out, size, "%s", vm->reason);
    else if (vm->conn)
        snprintf(out, size, "its agent (process %d) does not answer",
                 (int)vm->pid);
    else
        snprintf(out, size, "its agent does not run; it is started again");
}

json_t *vm_status_known(const struct vm *vm)
{
    const struct vm_record *r = &vm->rec;
    char reason[sizeof vm->reason];

    reason_known(vm, reason, sizeof reason);
    json_t *o = json_pack(
        "{ss ss sI ss ss ss ss sI sI sI so}", "name", r->name, "uuid", r->uuid,
        "domid", (json_int_t)r->domid, "role", vm_role_name(r->role), "state",
        vm_state_name(vm->state), "peer", r->peer, "arbiter", r->arbiter,
        "generation", (json_int_t)r->generation, "interval_ms",
        (json_int_t)r->interval_ms, "timeout_ms", (json_int_t)r->timeout_ms,
        "reason", text_json(reason));
    vm_status_add(vm, o, false);
    return o;
}
