// SPDX-License-Identifier: Apache-2.0
/* Does an agent still answer? Asked on the daemon's beat; see supervise.h. */
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/hosts.h"
#include "agent/supervise.h"
#include "common/log.h"

/* Quiet for so long, it is asked. */
#define ASK_NS NS_PER_SEC
/* So late a beat means that the daemon or the host stood still. */
#define LATE_NS NS_PER_SEC

static uint64_t hang_ns(const struct vm *vm)
{
    uint64_t t = 3 * (uint64_t)vm->rec.timeout_ms * NS_PER_MS;

    return t < HANG_MIN_NS ? HANG_MIN_NS : t;
}

/* It could still take the VM over when it wakes; its successor has nothing. */
static bool holds_only_copy(const struct vm *vm)
{
    const struct host *peer = host_find(vm->d, vm->rec.peer);

    return vm->rec.role == ROLE_BACKUP &&
           (vm->state == VM_PROTECTED || vm->state == VM_DEGRADED) &&
           !(peer && host_up(peer));
}

static void hang_tell(const struct vm *vm, bool spared)
{
    unsigned long long s = vm->quiet_ns / NS_PER_SEC;

    if (spared)
        daemon_event(vm->d, "agent-hangs", vm->rec.name,
                     "the agent (process %d) does not answer for %llu s; it is "
                     "let be while %s is silent: it may hold the only copy of "
                     "%s (kill -9 %d if that is not wanted any more)",
                     (int)vm->pid, s, vm->rec.peer, vm->rec.name, (int)vm->pid);
    else
        daemon_event(vm->d, "agent-hangs", vm->rec.name,
                     "the agent (process %d) does not answer for %llu s and "
                     "is killed; its successor puts things right",
                     (int)vm->pid, s);
}

static void hang_end(struct vm *vm)
{
    bool spared = holds_only_copy(vm);

    if (!vm->hung)
        hang_tell(vm, spared);
    vm->hung = true;
    if (!spared && syscall(SYS_pidfd_send_signal, vm->pidfd, SIGKILL, NULL, 0))
        log_error("dom=%s kill its agent: %m", vm->rec.name);
}

/* Any message will do; an agent of any version knows this request. Ids of
 * vm_ask() begin with 1. */
static void life_ask(struct vm *vm)
{
    json_t *msg = json_pack("{ss si}", "op", "status", "id", 0);

    vm_send(vm, msg);
    json_decref(msg);
    vm->asked = true;
}

void supervise_tick(struct daemon *d, uint64_t pause_ns)
{
    uint64_t now = clock_ns(), passed = now - d->tick_ns;
    bool late = passed > pause_ns + LATE_NS;

    d->tick_ns = now;
    for (struct vm *vm = d->vms; vm; vm = vm->next) {
        vm->quiet_ns = late || !vm->pid ? 0 : vm->quiet_ns + passed;
        if (vm->quiet_ns >= ASK_NS && vm->conn && !vm->asked)
            life_ask(vm);
        if (vm->quiet_ns >= hang_ns(vm))
            hang_end(vm);
    }
}
