// SPDX-License-Identifier: Apache-2.0
/* The verbs unprotect, takeover and wait of the control socket. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/control.h"

/* --- unprotect, takeover: one question to the agent --------------------- */

struct ask_op {
    struct op *op;
    struct vm_watch watch;
    ev_timer late;
    char name[64];
    bool stopped; /* the agent said yes; its end is awaited */
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
    vm_unwatch(&a->watch);
    if (why)
        op_fail(a->op, why);
    else
        op_reply(a->op, extra);
    free(a);
}

static void on_late(struct ev_loop *loop, ev_timer *w, int events)
{
    struct ask_op *a = w->data;
    struct err e = ERR_INIT;

    (void)loop, (void)events;
    err_kind(&e, ERR_TIMEOUT, "the agent of %s agreed, but does not end",
             a->name);
    ask_end(a, NULL, &e);
}

static void on_news(struct vm_watch *w, struct vm *vm, enum vm_news news,
                    const json_t *msg)
{
    struct ask_op *a = (void *)((char *)w - offsetof(struct ask_op, watch));

    (void)vm, (void)msg;
    /* While the answer is due its `done` is called with the news; the call
     * was ended before this. */
    if (news == VM_NEWS_GONE && a->stopped)
        ask_end(a, NULL, NULL);
}

static void on_stopped(void *arg, const json_t *reply, const struct err *why)
{
    struct ask_op *a = arg;
    struct vm_record r;
    struct err e = ERR_INIT;

    if (!reply && why->kind != ERR_GONE) {
        ask_end(a, NULL, why);
        return;
    }
    /* It may have ended before its answer was read: the record tells. */
    if (!a->watch.vm ||
        (!reply &&
         !(store_load(a->watch.vm->rec.uuid, &r, &e) && e.kind == ERR_GONE))) {
        ask_end(a, NULL, why);
        return;
    }
    a->stopped = true;
    ev_timer_init(&a->late, on_late, 15., 0.);
    a->late.data = a;
    ev_timer_start(a->op->d->loop, &a->late);
}

static int unprotect_check(const struct vm *vm, struct err *e)
{
    if (vm->damaged) {
        err_kind(e, ERR_REFUSED, "%s", vm->reason);
        return err_hint(e, "restore the file, or remove it and restart "
                           "understudyd");
    }
    return 0; /* a backup's agent refuses by itself */
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
    /* Without a peer it ends when the lease lets go, after the timeout. */
    vm_ask(vm, json_pack("{ss}", "op", "stop"),
           30. + 3. * vm->rec.timeout_ms / 1000., on_stopped, a);
}

static void on_taken_over(void *arg, const json_t *reply, const struct err *why)
{
    struct ask_op *a = arg;
    json_t *extra = NULL;

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
    daemon_event(op->d, "operator", vm->rec.name, "takeover%s was asked for",
                 force ? " --force" : "");
    vm_ask(vm, json_pack("{ss sb}", "op", "takeover", "force", force), 60.,
           on_taken_over, ask_new(op, vm));
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
