// SPDX-License-Identifier: Apache-2.0
/* The life of agents: start, adopt, notice death, start again. What they say
 * is supervise_ipc.c's. */
#include "agent/supervise.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/job.h"
#include "agent/paths.h"
#include "agent/supervise_ipc.h"
#include "common/clock.h"
#include "common/log.h"

#define BACKOFF_MIN 0.2
#define BACKOFF_MAX 10.
/* An agent that lived this long starts with a clean slate. */
#define QUIET_NS (30 * NS_PER_SEC)

extern char **environ;

static void vm_start(struct vm *vm);

/* --- A process ---------------------------------------------------------- */

static void process_forget(struct vm *vm)
{
    ev_io_stop(vm->d->loop, &vm->exited);
    if (vm->pidfd >= 0)
        close(vm->pidfd);
    vm->pidfd = -1;
    vm->pid = 0;
    vm->quiet_ns = 0;
    vm->hung = false;
}

/* How it ended, for the log; empty when it was not our child. */
static void process_reap(struct vm *vm, char *how, size_t size)
{
    siginfo_t info = {0};

    how[0] = '\0';
    if (waitid(P_PIDFD, (id_t)vm->pidfd, &info, WEXITED | WNOHANG))
        return;
    if (info.si_code == CLD_EXITED)
        snprintf(how, size, "exit status %d", info.si_status);
    else if (info.si_pid)
        snprintf(how, size, "signal %d", info.si_status);
}

unsigned vm_deaths(const struct vm *vm)
{
    return clock_ns() - vm->started_ns > QUIET_NS ? 0 : vm->deaths;
}

static void vm_restart_later(struct vm *vm, const char *how)
{
    bool again = !strcmp(how, "exit status 3");

    if (clock_ns() - vm->started_ns > QUIET_NS) {
        vm->backoff = BACKOFF_MIN;
        vm->deaths = 0;
    }
    vm->deaths++;
    daemon_event(vm->d, again ? "agent-restart" : "agent-died", vm->rec.name,
                 "the agent ended%s%s; next start in %.1f s",
                 how[0] ? ": " : "", how, vm->backoff);
    ev_timer_set(&vm->retry, vm->backoff, 0.);
    ev_timer_start(vm->d->loop, &vm->retry);
    vm->backoff = vm->backoff * 2 > BACKOFF_MAX ? BACKOFF_MAX : vm->backoff * 2;
    supervise_tell(vm, VM_NEWS_DOWN, NULL);
}

static void vm_free(struct vm *vm)
{
    for (struct vm **p = &vm->d->vms; *p; p = &(*p)->next) {
        if (*p == vm) {
            *p = vm->next;
            break;
        }
    }
    vm->d->vm_count--;
    ev_timer_stop(vm->d->loop, &vm->retry);
    process_forget(vm);
    ipc_close(vm->conn);
    free(vm);
}

static void vm_gone(struct vm *vm)
{
    log_info("dom=%s record deleted, agent gone", vm->rec.name);
    supervise_calls_fail(vm);
    supervise_tell(vm, VM_NEWS_GONE, NULL);
    while (vm->watches)
        vm_unwatch(vm->watches);
    vm_free(vm);
}

/* It ended for its successor in the other role (turn.h). */
static void vm_turned(struct vm *vm)
{
    vm->state = vm->rec.state;
    vm->deaths = 0;
    vm->backoff = BACKOFF_MIN;
    supervise_tell(vm, VM_NEWS_DOWN, NULL);
    vm_start(vm);
}

/* The process is dead and what it said has been read: what now? The record
 * decides, not the exit status: it is what was made durable. */
static void vm_bury(struct vm *vm, const char *how)
{
    struct err e = ERR_INIT;
    struct vm_record r;

    store_tidy(vm->rec.uuid);
    if (!store_load(vm->rec.uuid, &r, &e)) {
        bool turned = r.role != vm->rec.role;
        vm->rec = r;
        if (turned)
            vm_turned(vm);
        else
            vm_restart_later(vm, how);
    } else if (e.kind == ERR_GONE) {
        vm_gone(vm);
    } else {
        vm->damaged = true;
        vm->state = VM_FAILED;
        snprintf(vm->reason, sizeof vm->reason, "%.500s", e.text);
        daemon_event(vm->d, "error", vm->rec.name, "%s", e.text);
        supervise_tell(vm, VM_NEWS_DOWN, NULL);
    }
}

static void on_exited(struct ev_loop *loop, ev_io *w, int events)
{
    struct vm *vm = w->data;
    char how[48];

    (void)loop, (void)events;
    bool other = vm->conn && supervise_other_pid(vm);
    process_reap(vm, how, sizeof how);
    process_forget(vm);
    if (other) {
        /* We started one too many: the connection is the older agent's. */
        supervise_watch_pid(vm, ipc_conn_pid(vm->conn));
        return;
    }
    ev_timer_stop(vm->d->loop, &vm->retry);
    supervise_drain(vm);
    vm_bury(vm, how);
}

void supervise_watch_pid(struct vm *vm, pid_t pid)
{
    process_forget(vm);
    vm->pid = pid;
    vm->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (vm->pidfd < 0) {
        /* Dead already: its socket's end says the same. */
        vm->pid = 0;
        return;
    }
    ev_io_init(&vm->exited, on_exited, vm->pidfd, EV_READ);
    vm->exited.data = vm;
    ev_io_start(vm->d->loop, &vm->exited);
}

/* --- Starting ----------------------------------------------------------- */

/* Nothing of ours but standard error is inherited (all else is close-on-exec);
 * a session of its own keeps it from the daemon's terminal and signals. */
static int agent_spawn(struct vm *vm, pid_t *pid)
{
    char role[16], uuid[STORE_UUID_LEN + 1], self[] = "/proc/self/exe";
    char *argv[] = {(char[]){"understudyd"}, (char[]){"agent"}, role, uuid,
                    NULL};
    posix_spawnattr_t attr;
    sigset_t none, all;

    snprintf(role, sizeof role, "%s", vm_role_name(vm->rec.role));
    snprintf(uuid, sizeof uuid, "%s", vm->rec.uuid);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID |
                                        POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    int r = posix_spawn(pid, self, NULL, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    return r;
}

static void connect_later(struct vm *vm, double seconds)
{
    ev_timer_stop(vm->d->loop, &vm->retry);
    ev_timer_set(&vm->retry, seconds, 0.);
    ev_timer_start(vm->d->loop, &vm->retry);
}

static bool vm_connect(struct vm *vm)
{
    struct err e = ERR_INIT;

    if (supervise_connect(vm, &e))
        return false;
    vm->started_ns = vm->started_ns ? vm->started_ns : clock_ns();
    if (!vm->pid)
        supervise_watch_pid(vm, ipc_conn_pid(vm->conn));
    return true;
}

static void vm_start(struct vm *vm)
{
    pid_t pid;

    if (vm->damaged)
        return;
    vm->started_ns = 0;
    if (vm_connect(vm)) {
        log_info("dom=%s adopted agent pid=%d", vm->rec.name, (int)vm->pid);
        return;
    }
    vm->started_ns = clock_ns();
    int r = agent_spawn(vm, &pid);
    if (r) {
        char how[128];
        snprintf(how, sizeof how, "can't be started: %s", strerror(r));
        vm_restart_later(vm, how);
        return;
    }
    log_info("dom=%s started %s agent pid=%d", vm->rec.name,
             vm_role_name(vm->rec.role), (int)pid);
    supervise_watch_pid(vm, pid);
    connect_later(vm, 0.01);
}

static void on_retry(struct ev_loop *loop, ev_timer *w, int events)
{
    struct vm *vm = w->data;
    struct err e = ERR_INIT;
    struct vm_record r;

    (void)loop, (void)events;
    if (vm->writing)
        return;
    if (!vm->pid && !vm->conn) {
        if (store_load(vm->rec.uuid, &r, &e) && e.kind == ERR_GONE)
            vm_gone(vm);
        else
            vm_start(vm);
        return;
    }
    if (!vm->conn && !vm_connect(vm))
        connect_later(vm, 0.02);
}

void supervise_lost(struct vm *vm)
{
    /* A living agent threw us out, or its death is about to be seen. */
    connect_later(vm, 0.1);
}

/* --- Without an agent --------------------------------------------------- */

struct unwant {
    struct daemon *d;
    struct vm_record rec;
};

static int unwant_run(void *arg, struct err *e)
{
    struct unwant *u = arg;

    return store_save(&u->rec, e);
}

static void unwant_done(void *arg, int rc, const struct err *e)
{
    struct unwant *u = arg;
    struct vm *vm = vm_find_uuid(u->d, u->rec.uuid);

    vm->writing = false;
    if (rc)
        daemon_event(u->d, "error", vm->rec.name, "%s", e->text);
    else
        vm->rec.wanted = false;
    free(u);
    vm_start(vm);
}

void supervise_unwant(struct vm *vm)
{
    if (vm->pid || vm->conn || vm->writing || !vm->rec.wanted)
        return;
    struct unwant *u = calloc(1, sizeof *u);
    if (!u)
        abort();
    u->d = vm->d;
    u->rec = vm->rec;
    u->rec.wanted = false;
    vm->writing = true;
    ev_timer_stop(vm->d->loop, &vm->retry);
    job_start(vm->d->loop, unwant_run, unwant_done, u);
}

static struct vm *vm_new(struct daemon *d, const struct vm_record *r)
{
    struct vm *vm = calloc(1, sizeof *vm);

    if (!vm)
        abort();
    vm->d = d;
    vm->rec = *r;
    vm->state = r->state;
    vm->pidfd = -1;
    vm->backoff = BACKOFF_MIN;
    ev_init(&vm->exited, on_exited);
    ev_init(&vm->retry, on_retry);
    vm->retry.data = vm;
    vm->next = d->vms;
    d->vms = vm;
    d->vm_count++;
    return vm;
}

struct vm_claim {
    struct vm_claim *next;
    char uuid[STORE_UUID_LEN + 1];
};

int supervise_claim(struct daemon *d, const char *uuid, struct err *e)
{
    struct vm_claim *c;

    for (c = d->claims; c; c = c->next) {
        if (strcmp(c->uuid, uuid))
            continue;
        err_kind(e, ERR_REFUSED, "the VM is just being protected or prepared");
        return err_hint(e, "try again in a few seconds");
    }
    c = calloc(1, sizeof *c);
    if (!c)
        abort();
    snprintf(c->uuid, sizeof c->uuid, "%s", uuid);
    c->next = d->claims;
    d->claims = c;
    return 0;
}

void supervise_unclaim(struct daemon *d, const char *uuid)
{
    for (struct vm_claim **p = &d->claims; *p; p = &(*p)->next) {
        struct vm_claim *c = *p;
        if (strcmp(c->uuid, uuid))
            continue;
        *p = c->next;
        free(c);
        return;
    }
}

struct vm *supervise_add(struct daemon *d, const struct vm_record *r)
{
    struct vm *vm = vm_new(d, r);

    supervise_unclaim(d, r->uuid);
    vm_start(vm);
    return vm;
}

static void on_record(void *arg, const struct vm_record *r)
{
    supervise_add(arg, r);
}

static void on_damaged(void *arg, const char *file, const struct err *why)
{
    struct daemon *d = arg;
    struct vm_record r = {.role = ROLE_PRIMARY,
                          .peer = "?",
                          .arbiter = "?",
                          .domid = -1,
                          .state = VM_FAILED};
    uint8_t uuid[16];

    daemon_event(d, "error", "", "%s", why->text);
    snprintf(r.uuid, sizeof r.uuid, "%.36s", file);
    if (!uuid_parse(r.uuid, uuid))
        return;
    snprintf(r.name, sizeof r.name, "%s", r.uuid);
    struct vm *vm = vm_new(d, &r);
    vm->damaged = true;
    snprintf(vm->reason, sizeof vm->reason, "%.500s", why->text);
}

int supervise_start(struct daemon *d, struct err *e)
{
    return store_scan(on_record, on_damaged, d, e);
}

void supervise_stop(struct daemon *d)
{
    while (d->vms) {
        struct vm *vm = d->vms;
        while (vm->watches)
            vm_unwatch(vm->watches);
        supervise_calls_drop(vm);
        vm_free(vm);
    }
}
