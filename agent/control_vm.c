// SPDX-License-Identifier: Apache-2.0
/* The verbs unprotect, takeover and wait of the control socket. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/control.h"

/* So many agents may die before unprotect's answer is that they do. */
#define DEATHS_MAX 2
#define TAKEOVER_S 60.
#define BOOT_S     300. /* devices are attached as well */

/* --- unprotect, takeover: one question to the agent --------------------- */

struct ask_op {
    struct op *op;
    struct vm_watch watch;
    struct vm_call *call; /* NULL: none under way */
    ev_timer late;
    char name[64];
    unsigned deaths; /* of agents, since it was asked for */
};

static struct ask_op *ask_new(struct op *op, const struct vm *vm)
{
    struct ask_op *a = calloc(1, sizeof *a);

    if (!a)
        abort();
    a->op = op;
    snprintf(a->name, sizeof a->name, "%s", vm->rec.name);
    return a;
}

static void ask_end(struct ask_op *a, json_t *extra, const struct err *why)
{
    ev_timer_stop(a->op->d->loop, &a->late);
    vm_ask_cancel(a->call);
    vm_unwatch(&a->watch);
    if (why)
        op_fail(a->op, why);
    else
        op_reply(a->op, extra);
    free(a);
}

/* Its end is not in sight, but comes, if it was written down. */
static void stop_late(struct ask_op *a)
{
    const struct vm *vm = a->watch.vm;
    struct err e = ERR_INIT;

    if (vm && !vm->rec.wanted) {
        err_kind(&e, ERR_TIMEOUT,
                 "the agents of %s end before they can end its protection",
                 a->name);
        err_hint(&e, "it is written down, and done by the next one that lives; "
                     "the log of understudyd says why they die");
    } else {
        err_kind(&e, ERR_TIMEOUT, "the agent of %s does not end", a->name);
        err_hint(&e, "`understudy status %s` says how it is", a->name);
    }
    ask_end(a, NULL, &e);
}

static void on_late(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    stop_late(w->data);
}

/* The agent's end, seen by everybody, is the answer. */
static void on_stopped(void *arg, const json_t *reply, const struct err *why)
{
    struct ask_op *a = arg;

    a->call = NULL;
    if (!reply && why->kind != ERR_GONE)
        ask_end(a, NULL, why);
}

/* The agent is asked; without one, its successor finds it written. A backup's
 * agent refuses by itself. */
static void stop_ask(struct ask_op *a)
{
    struct vm *vm = a->watch.vm;
    double t = 30. + 3. * vm->rec.timeout_ms / 1000.;

    /* Without a peer it ends when the lease lets go, after the timeout. */
    if (vm->conn && !a->call)
        a->call = vm_ask(vm, json_pack("{ss}", "op", "stop"), t, on_stopped, a);
    else if (!vm->conn && vm->rec.role == ROLE_PRIMARY)
        supervise_unwant(vm);
}

static void on_news(struct vm_watch *w, struct vm *vm, enum vm_news news,
                    const json_t *msg)
{
    struct ask_op *a = (void *)((char *)w - offsetof(struct ask_op, watch));

    (void)vm, (void)msg;
    if (news == VM_NEWS_GONE)
        ask_end(a, NULL, NULL);
    else if (news == VM_NEWS_DOWN && ++a->deaths > DEATHS_MAX)
        stop_late(a);
    else if (news == VM_NEWS_UP || news == VM_NEWS_DOWN)
        stop_ask(a);
}

static int unprotect_check(const struct vm *vm, struct err *e)
{
    if (vm->damaged) {
        err_kind(e, ERR_REFUSED, "%s", vm->reason);
        return err_hint(e, "restore the file, or remove it and restart "
                           "understudyd");
    }
    return 0;
}

void control_unprotect(struct op *op)
{
    struct err e = ERR_INIT;
    struct vm *vm = vm_need(op->d, json_text(op->request, "vm", ""), &e);

    if (!vm || unprotect_check(vm, &e)) {
        op_fail(op, &e);
        return;
    }
    struct ask_op *a = ask_new(op, vm);
    a->watch.news = on_news;
    vm_watch(vm, &a->watch);
    ev_timer_init(&a->late, on_late, 45. + 3. * vm->rec.timeout_ms / 1000., 0.);
    a->late.data = a;
    ev_timer_start(op->d->loop, &a->late);
    stop_ask(a);
}

static void on_taken_over(void *arg, const json_t *reply, const struct err *why)
{
    struct ask_op *a = arg;
    json_t *extra = NULL;

    a->call = NULL;
    if (reply) {
        extra = json_copy((json_t *)(uintptr_t)reply);
        json_object_del(extra, "id");
    }
    ask_end(a, extra, reply ? NULL : why);
}

void control_takeover(struct op *op)
{
    struct err e = ERR_INIT;
    struct vm *vm = vm_need(op->d, json_text(op->request, "vm", ""), &e);

    if (vm && vm->rec.role != ROLE_BACKUP) {
        err_kind(&e, ERR_REFUSED,
                 "%s runs on this host: there is nothing to "
                 "take over",
                 vm->rec.name);
        err_hint(&e, "on %s: understudy takeover %s", vm->rec.peer,
                 vm->rec.name);
        vm = NULL;
    }
    if (!vm) {
        op_fail(op, &e);
        return;
    }
    bool force = json_flag(op->request, "force", false);
    bool from_disk = json_flag(op->request, "from_disk", false);
    daemon_event(op->d, "operator", vm->rec.name, "takeover%s%s was asked for",
                 from_disk ? " --from-disk" : "", force ? " --force" : "");
    struct ask_op *a = ask_new(op, vm);
    a->call = vm_ask(vm,
                     json_pack("{ss sb sb}", "op", "takeover", "force", force,
                               "from_disk", from_disk),
                     from_disk ? BOOT_S : TAKEOVER_S, on_taken_over, a);
}

/* --- wait --------------------------------------------------------------- */

struct wait_op {
    struct op *op;
    struct vm_watch watch;
    ev_timer late;
    enum vm_state state;
    char name[64];
};

static void wait_end(struct wait_op *w, const struct err *why)
{
    ev_timer_stop(w->op->d->loop, &w->late);
    vm_unwatch(&w->watch);
    if (why)
        op_fail(w->op, why);
    else
        op_reply(w->op, json_pack("{ss}", "state", vm_state_name(w->state)));
    free(w);
}

static void on_wait_late(struct ev_loop *loop, ev_timer *t, int events)
{
    struct wait_op *w = t->data;
    struct err e = ERR_INIT;

    (void)loop, (void)events;
    err_kind(&e, ERR_TIMEOUT, "%s is not %s yet, but %s", w->name,
             vm_state_name(w->state),
             w->watch.vm ? vm_state_name(w->watch.vm->state) : "gone");
    wait_end(w, &e);
}

static void on_wait_news(struct vm_watch *watch, struct vm *vm,
                         enum vm_news news, const json_t *msg)
{
    struct wait_op *w =
        (void *)((char *)watch - offsetof(struct wait_op, watch));
    struct err e = ERR_INIT;

    (void)msg;
    if (news == VM_NEWS_STATE && vm->state == w->state) {
        wait_end(w, NULL);
    } else if (news == VM_NEWS_GONE && w->state == VM_UNPROTECTED) {
        wait_end(w, NULL);
    } else if (news == VM_NEWS_GONE) {
        err_kind(&e, ERR_GONE, "%s is not protected any more", w->name);
        wait_end(w, &e);
    }
}

static void wait_cancel(struct op *op)
{
    struct err e = ERR_INIT;

    err_set(&e, "the client left");
    wait_end(op->priv, &e);
}

void control_wait(struct op *op)
{
    const char *name = json_text(op->request, "vm", "");
    long long timeout_ms = json_number(op->request, "timeout_ms", 0);
    struct err e = ERR_INIT;
    enum vm_state state;

    if (!vm_state_parse(json_text(op->request, "state", ""), &state)) {
        err_kind(&e, ERR_USAGE, "\"%s\" is no state",
                 json_text(op->request, "state", ""));
        err_hint(&e, "states are Unprotected, Syncing, Protected, Degraded, "
                     "Migrating, TakenOver, Fenced, Failed");
        op_fail(op, &e);
        return;
    }
    struct vm *vm = vm_need(op->d, name, &e);
    if (!vm && state != VM_UNPROTECTED) {
        op_fail(op, &e);
        return;
    }
    if (!vm || vm->state == state) {
        op_reply(op, json_pack("{ss}", "state", vm_state_name(state)));
        return;
    }
    struct wait_op *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->op = op;
    w->state = state;
    snprintf(w->name, sizeof w->name, "%s", vm->rec.name);
    op->priv = w;
    op->cancel = wait_cancel;
    w->watch.news = on_wait_news;
    vm_watch(vm, &w->watch);
    ev_timer_init(&w->late, on_wait_late, (double)timeout_ms / 1000., 0.);
    w->late.data = w;
    if (timeout_ms > 0)
        ev_timer_start(op->d->loop, &w->late);
}
