// SPDX-License-Identifier: Apache-2.0
/* The backup's agent, `takeover --from-disk`: the replica's memory is lost, its
 * disks are not, and an operator wants the VM started from them. Loop thread;
 * looking and booting are jobs.
 *
 *     look at the disks -> ask the arbiter what it knows -> claim the next
 *     generation, as a takeover does -> boot, the disks become that epoch ->
 *     as a takeover goes on
 *
 * Nobody starts this but an operator. A primary that was told that there is no
 * replica runs on without asking anybody; whether it does, no arbiter knows
 * (I3). So without --force it goes on only when the primary was not told, and
 * has not won a generation since: then it holds its output, or is dead, and
 * the claim decides as always.
 *
 * Fault points: cold.booted (the domain is there), cold.disks (its disks are
 * that epoch, and nothing says so yet). */
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

/* How long the arbiter may take to say what it knows. */
#define ASKS_NS (5 * NS_PER_SEC)

enum step {
    COLD_LOOKS, /* a job */
    COLD_ASKS,
    COLD_CLAIMS,
    COLD_BOOTS, /* a job */
};

struct cold {
    struct backup *b;
    enum step step;
    bool force;
    uint64_t asks_ns; /* since when */
    struct cold_vm vm;
    uint64_t epoch, wall_ms;
    /* The job's. */
    struct hv_vm who;
    struct replica *rep; /* without an epoch, to be removed with its shell, */
    uint32_t left;       /* this one; 0: none */
    uint32_t shell;
    uint64_t generation;
    char uuid[STORE_UUID_LEN + 1];
};

bool backup_cold_claims(const struct backup *b)
{
    return b->cold && b->cold->step >= COLD_CLAIMS;
}

bool backup_cold_waits(const struct backup *b)
{
    return b->cold && b->cold->step < COLD_CLAIMS;
}

static uint64_t age_ms(const struct cold *c)
{
    uint64_t now = clock_wall_ms();

    return now > c->wall_ms ? now - c->wall_ms : 0;
}

void backup_cold_end(struct backup *b)
{
    if (b->cold)
        buf_free(&b->cold->vm.blueprint);
    free(b->cold);
    b->cold = NULL;
}

static void refused(struct backup *b, const struct err *why)
{
    backup_taker_answer(b, why);
    backup_cold_end(b);
}

/* --- May it be? ------------------------------------------------------------
 */

static int host_check(struct backup *b, struct err *e)
{
    struct agent *a = b->a;
    const char *name = a->rec.name;
    uint64_t silent = lease_silence(&a->lease, clock_ns());

    if (b->stray.kind) {
        *e = b->stray;
        return -1;
    }
    if (b->rep && a->lease.state != LEASE_EMPTY) {
        err_kind(e, ERR_REFUSED,
                 "the replica of %s is whole, with its memory: it would be "
                 "thrown away",
                 name);
        return err_hint(e, "understudy takeover %s", name);
    }
    if (silent < a->lease.timeout_ns) {
        err_kind(e, ERR_REFUSED,
                 "%s may be running %s: it was not silent for %u ms yet",
                 a->rec.peer, name, a->rec.timeout_ms);
        return err_hint(e,
                        "while %s lives, %s is protected from there; see "
                        "`understudy status %s`",
                        a->rec.peer, name, name);
    }
    if (a->lease.state == LEASE_EMPTY && b->work == WORK_NONE)
        return 0;
    err_kind(e, ERR_REFUSED, "%s is still being cleared up here", name);
    return err_hint(e, "try again in a few seconds");
}

/* Nobody has told the primary that it may go on alone, and it has not won that
 * from the arbiter; or a person knows better. */
static int primary_check(struct cold *c, struct err *e)
{
    struct agent *a = c->b->a;

    if (!a->arb || a->stood_by || c->force)
        return 0;
    err_kind(e, ERR_REFUSED,
             "%s may be running %s: it has generation %llu, and goes on alone "
             "in that; what it did since is not on the disks here",
             a->rec.peer, a->rec.name, (unsigned long long)a->lease.generation);
    return err_hint(e,
                    "if %s is off, and what it has is lost: understudy "
                    "takeover %s --from-disk --force",
                    a->rec.peer, a->rec.name);
}

/* --- Step by step ------------------------------------------------------------
 */

static void claim(struct cold *c)
{
    struct backup *b = c->b;
    struct agent *a = b->a;
    struct err e = ERR_INIT;

    if (host_check(b, &e) || primary_check(c, &e)) {
        refused(b, &e);
        return;
    }
    agent_session_drop(a);
    c->step = COLD_CLAIMS;
    agent_event(a, "takeover",
                "starting %s from its disks, as they were at epoch %llu, %llu "
                "s ago",
                a->rec.name, (unsigned long long)c->epoch,
                (unsigned long long)(age_ms(c) / 1000));
    agent_lease_action(a, lease_claim_empty(&a->lease, clock_ns()));
}

void backup_cold_tick(struct backup *b, uint64_t now)
{
    struct cold *c = b->cold;
    struct err e = ERR_INIT;

    if (!c || c->step != COLD_ASKS)
        return;
    if (b->a->lease.request.op == LEASE_OP_NONE) {
        claim(c);
    } else if (now - c->asks_ns > ASKS_NS) {
        err_kind(&e, ERR_REFUSED, "the arbiter does not say whose %s is%s%s",
                 b->a->rec.name, b->a->arb_refusal[0] ? ": " : "",
                 b->a->arb_refusal);
        refused(b, &e);
    }
}

static int look_run(void *arg, struct err *e)
{
    struct cold *c = arg;

    if (!cold_load(c->uuid, &c->vm, e))
        return cold_look(&c->vm.disks, &c->epoch, &c->wall_ms, e);
    if (e->kind == ERR_GONE) {
        err_clear(e);
        err_kind(e, ERR_REFUSED,
                 "%s was never Protected with this host, or has no disk that "
                 "is served by block-understudy",
                 c->who.name);
    }
    return -1;
}

static void look_done(void *arg, int rc, const struct err *e)
{
    struct cold *c = arg;
    struct agent *a = c->b->a;
    struct err why = *e;

    if (rc) {
        err_add(&why, "%s can't be started from its disks", a->rec.name);
        refused(c->b, &why);
        return;
    }
    c->step = COLD_ASKS;
    c->asks_ns = clock_ns();
    if (a->arb)
        agent_lease_event(a, LEASE_EV_UNSURE);
    else
        claim(c);
}

void backup_cold_request(struct backup *b, struct ipc_conn *conn, json_t *msg)
{
    struct cold *c;
    struct err e = ERR_INIT;

    if (host_check(b, &e)) {
        ipc_reply_error(conn, msg, &e);
        return;
    }
    c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->b = b;
    c->force = json_flag(msg, "force", false);
    memcpy(c->who.uuid, b->a->uuid, sizeof c->who.uuid);
    snprintf(c->who.name, sizeof c->who.name, "%s", b->a->rec.name);
    snprintf(c->uuid, sizeof c->uuid, "%s", b->a->rec.uuid);
    b->cold = c;
    b->taker = conn;
    b->take_request = json_incref(msg);
    job_start(b->a->loop, look_run, look_done, c);
}

/* --- Won ---------------------------------------------------------------------
 */

static void mark_put(const struct cold *c)
{
    struct takeover_mark m = {.generation = c->generation,
                              .shell = c->shell,
                              .epoch = c->epoch,
                              .state_set = true};
    struct err e = ERR_INIT;

    if (mark_write(c->uuid, &m, &e))
        log_error("dom=%s %s", c->who.name, e.text);
}

static int boot_run(void *arg, struct err *e)
{
    struct cold *c = arg;
    struct err ignored = ERR_INIT;
    struct hv *hv = NULL;

    replica_free(c->rep);
    c->rep = NULL;
    if (agent_hv_open(&hv, e))
        return -1;
    int rc = c->left ? hv->ops->destroy(hv, c->left, e) : 0;
    if (!rc)
        rc = hv->ops->boot(hv, &c->who, c->vm.blueprint.data,
                           c->vm.blueprint.len, &c->shell, e);
    if (!rc) {
        fault_point("cold.booted");
        rc = cold_start(&c->vm.disks, c->shell, c->epoch, e);
        if (rc)
            hv->ops->destroy(hv, c->shell, &ignored);
    }
    if (!rc) {
        fault_point("cold.disks");
        mark_put(c);
    }
    hv->ops->close(hv);
    return rc;
}

/* It never ran. The disks are of the same epoch, and it can be tried again. */
static void failed(struct backup *b, const struct err *why)
{
    struct agent *a = b->a;
    struct err e = *why;

    b->work = WORK_NONE;
    err_add(&e, "%s could not be started from its disks", a->rec.name);
    agent_event(a, "error", "%s", e.text);
    agent_state(a, VM_SYNCING, "%s", e.text);
    refused(b, &e);
    agent_lease_event(a, LEASE_EV_FAILED);
    if (!a->arb)
        agent_lease_event(a, LEASE_EV_DENIED);
}

static void boot_done(void *arg, int rc, const struct err *e)
{
    struct cold *c = arg;

    if (rc)
        failed(c->b, e);
    else
        backup_takeover_finish(c->b, c->shell, c->epoch);
}

void backup_cold_run(struct backup *b)
{
    struct cold *c = b->cold;
    struct agent *a = b->a;

    c->step = COLD_BOOTS;
    c->generation = a->lease.generation;
    c->rep = b->rep;
    c->left = b->shell;
    b->rep = NULL;
    b->shell = 0;
    b->work = WORK_TAKEOVER;
    agent_state(a, VM_DEGRADED,
                "its memory is lost; it is being started from its disks as of "
                "epoch %llu",
                (unsigned long long)c->epoch);
    job_start(a->loop, boot_run, boot_done, c);
}

void backup_cold_fenced(struct backup *b, const struct err *why)
{
    failed(b, why);
}

/* It runs. */
void backup_cold_done(struct backup *b)
{
    struct cold *c = b->cold;
    struct agent *a = b->a;
    uint64_t age = age_ms(c);

    b->from_disk_ms = age ? age : 1;
    agent_state(a, VM_TAKEN_OVER,
                "started from its disks as they were at epoch %llu, %llu s "
                "ago, in generation %llu: its memory, and what was written "
                "since, is lost",
                (unsigned long long)c->epoch, (unsigned long long)(age / 1000),
                (unsigned long long)a->lease.generation);
    if (b->taker)
        ipc_reply(b->taker, b->take_request,
                  json_pack("{sI sI}", "epoch", (json_int_t)c->epoch, "age_ms",
                            (json_int_t)age));
    json_decref(b->take_request);
    b->taker = NULL;
    b->take_request = NULL;
    backup_cold_end(b);
}

/* --- What is kept for it -----------------------------------------------------
 */

struct keep_job {
    struct backup *b;
    struct cold_vm vm;
    char uuid[STORE_UUID_LEN + 1];
};

static int keep_run(void *arg, struct err *e)
{
    struct keep_job *j = arg;

    if (j->vm.disks.n)
        return cold_save(j->uuid, &j->vm, e);
    cold_remove(j->uuid);
    return 0;
}

static void keep_done(void *arg, int rc, const struct err *e)
{
    struct keep_job *j = arg;

    if (rc)
        agent_event(j->b->a, "error",
                    "after a restart of this host it could not be started from "
                    "its disks: %s",
                    e->text);
    buf_free(&j->vm.blueprint);
    free(j);
}

void backup_cold_keep(struct backup *b)
{
    struct keep_job *j;

    if (b->kept)
        return;
    b->kept = true;
    j = calloc(1, sizeof *j);
    if (!j)
        abort();
    j->b = b;
    j->vm.disks = b->disks;
    buf_put(&j->vm.blueprint, b->blueprint.data, b->blueprint.len);
    snprintf(j->uuid, sizeof j->uuid, "%s", b->a->rec.uuid);
    job_start(b->a->loop, keep_run, keep_done, j);
}
