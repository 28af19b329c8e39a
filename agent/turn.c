// SPDX-License-Identifier: Apache-2.0
/* Protecting the other way round after a takeover; see turn.h. */
#include "agent/turn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/paths.h"
#include "agent/save.h"
#include "common/clock.h"
#include "common/fault.h"

static int turn_write(struct agent *a, const json_t *msg, struct err *e)
{
    struct vm_record r = a->rec;

    r.role = ROLE_PRIMARY;
    r.stage = STAGE_TAKEN_OVER;
    r.state = a->state.now;
    r.generation = a->lease.generation;
    r.running = r.wanted = true;
    r.claim = 0;
    r.lease[0] = '\0';
    r.paused = false;
    r.interval_ms =
        (unsigned)json_number(msg, "interval_ms", a->rec.interval_ms);
    r.timeout_ms = (unsigned)json_number(msg, "timeout_ms", a->rec.timeout_ms);
    if (getrandom(r.incarnation, sizeof r.incarnation, 0) < 0)
        return err_sys(e, "getrandom");
    if (save_now(&r, e))
        return -1;
    a->rec = r;
    return 0;
}

void turn_request(struct agent *a, struct ipc_conn *c, json_t *msg)
{
    struct err e = ERR_INIT;

    if (turn_write(a, msg, &e)) {
        ipc_reply_error(c, msg, &e);
        return;
    }
    fault_point("turn.written");
    ipc_reply(c, msg, NULL);
    agent_event(a, "turn", "from now on %s is to be the backup of %s",
                a->rec.peer, a->rec.name);
    agent_exit(a, AGENT_EXIT_AGAIN);
}

void turn_back(struct agent *a)
{
    a->rec.role = ROLE_BACKUP;
    a->rec.stage = STAGE_NEW;
    a->rec.running = true;
    state_load(&a->state, VM_TAKEN_OVER, clock_ns());
    if (agent_save(a))
        agent_exit(a, AGENT_EXIT_AGAIN);
}

/* A domain of ours on this host: somebody may still want what is in it. */
static int domain_refuse(struct agent *a, const struct hv_domain *d,
                         struct err *e)
{
    if (!d->paused && d->shutdown == HV_RUNNING) {
        err_kind(e, ERR_REFUSED, "%s runs there itself", a->rec.name);
        return err_hint(e, "compare `understudy status %s` on both hosts",
                        a->rec.name);
    }
    err_kind(e, ERR_REFUSED,
             "the old copy of %s is still there, %s: `xl destroy %s` first",
             a->rec.name, d->paused ? "paused" : "shut down", a->rec.name);
    return err_hint(e, "on that host, when nothing in that copy is wanted");
}

static int give_way_check(struct agent *a, struct err *e)
{
    const struct hv_ops *ops = a->hv->ops;
    struct hv_domain d;

    if (!ops->find_uuid(a->hv, a->uuid, false, &d, e))
        return domain_refuse(a, &d, e);
    if (e->kind != ERR_GONE)
        return -1;
    err_clear(e);
    bool at_rest = a->state.now == VM_UNPROTECTED || a->state.now == VM_FENCED;
    if (a->role->at_rest)
        at_rest = at_rest && a->role->at_rest(a);
    if (at_rest &&
        ops->watcher(a->hv, 0, path_watch(a->rec.uuid).s) != HV_WATCHER_ACTS)
        return 0;
    err_kind(e, ERR_REFUSED, "%s is just being stopped or started there",
             a->rec.name);
    return err_hint(e, "try again in a few seconds");
}

void turn_give_way(struct agent *a, struct ipc_conn *c, json_t *msg)
{
    struct err e = ERR_INIT;

    if (give_way_check(a, &e)) {
        ipc_reply_error(c, msg, &e);
        return;
    }
    agent_event(a, "give-way", "%s runs %s; what was here is forgotten",
                a->rec.peer, a->rec.name);
    ipc_reply(c, msg, NULL);
    agent_exit(a, AGENT_EXIT_DONE);
}
