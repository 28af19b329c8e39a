// SPDX-License-Identifier: Apache-2.0
/* Protecting again by itself; see reprotect.h. */
#include "agent/reprotect.h"

#include <stdlib.h>
#include <string.h>

#include "agent/control.h"
#include "agent/hosts.h"
#include "common/clock.h"

#define LOOK_S 1.
/* After one that failed: what keeps it from working is seldom gone at once. */
#define PAUSE_NS (20 * NS_PER_SEC)

static ev_timer look;

static bool due(const struct vm *vm, uint64_t now)
{
    const struct host *h = host_find(vm->d, vm->rec.peer);

    return !vm->damaged && vm->conn && vm->rec.role == ROLE_BACKUP &&
           vm->state == VM_TAKEN_OVER && h && host_up(h) &&
           now >= vm->reprotect_ns;
}

/* A request without a client: its end is an event, as that of any other. */
static void protect(struct vm *vm)
{
    struct op *op = calloc(1, sizeof *op);

    if (!op)
        abort();
    op->d = vm->d;
    op->request =
        json_pack("{ss ss ss ss sI sI}", "op", "protect", "vm", vm->rec.name,
                  "peer", vm->rec.peer, "arbiter", vm->rec.arbiter,
                  "interval_ms", (json_int_t)vm->rec.interval_ms, "timeout_ms",
                  (json_int_t)vm->rec.timeout_ms);
    daemon_event(vm->d, "reprotect", vm->rec.name,
                 "%s is back: protecting towards it (auto_reprotect)",
                 vm->rec.peer);
    control_protect(op);
}

static void on_look(struct ev_loop *loop, ev_timer *w, int events)
{
    struct daemon *d = w->data;
    uint64_t now = clock_ns();

    (void)loop, (void)events;
    for (struct vm *vm = d->vms; vm; vm = vm->next) {
        if (!due(vm, now))
            continue;
        vm->reprotect_ns = now + PAUSE_NS;
        protect(vm);
        return; /* the list may have changed */
    }
}

void reprotect_start(struct daemon *d)
{
    if (!d->cfg.auto_reprotect)
        return;
    ev_timer_init(&look, on_look, LOOK_S, LOOK_S);
    look.data = d;
    ev_timer_start(d->loop, &look);
}

void reprotect_stop(struct daemon *d)
{
    if (d->loop && ev_is_active(&look))
        ev_timer_stop(d->loop, &look);
}
