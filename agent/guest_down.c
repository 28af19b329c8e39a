// SPDX-License-Identifier: Apache-2.0
/* What follows when the guest is down, for both roles; see guest_down.h. Loop
 * thread; starting a watcher is a job. */
#include "agent/guest_down.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/backup.h"
#include "agent/job.h"
#include "agent/paths.h"
#include "agent/primary.h"
#include "common/clock.h"
#include "common/log.h"

/* How often the peer is tried before a guest that is down, and whose output is
 * free, is acted on all the same. */
#define TELL_TRIES 5
/* A guest whose memory goes on changing is copied after so many looks. */
#define SETTLE_LOOKS 20
#define LOOK_NS      (500 * NS_PER_MS)
#define CHECK_EVERY  20 /* looks of a backup between two at the watcher */

static enum hv_watcher watcher_of(struct agent *a, uint32_t domid)
{
    return a->hv->ops->watcher(a->hv, domid, path_watch(a->rec.uuid).s);
}

/* --- Starting a watcher (a job) ------------------------------------------ */

struct hand_job {
    struct agent *a;
    bool *busy;
    uint32_t domid;
    char lock[512];
};

static int hand_run(void *arg, struct err *e)
{
    struct hand_job *j = arg;
    struct hv *hv = NULL;

    if (agent_hv_open(&hv, e))
        return -1;
    int rc = hv->ops->watcher_start(hv, j->domid, j->lock, e);
    hv->ops->close(hv);
    return rc;
}

static void hand_done(void *arg, int rc, const struct err *e)
{
    struct hand_job *j = arg;

    *j->busy = false;
    if (rc)
        agent_event(j->a, "error",
                    "nobody acts when %s shuts down or reboots: %s",
                    j->a->rec.name, e->text);
    free(j);
}

static void hand_over(struct agent *a, uint32_t domid, bool *busy)
{
    struct hand_job *j = calloc(1, sizeof *j);

    if (!j)
        abort();
    j->a = a;
    j->busy = busy;
    j->domid = domid;
    snprintf(j->lock, sizeof j->lock, "%s", path_watch(a->rec.uuid).s);
    *busy = true;
    job_start(a->loop, hand_run, hand_done, j);
}

/* --- The primary's ------------------------------------------------------- */

void guest_take(struct primary *p)
{
    struct agent *a = p->a;
    struct err e = ERR_INIT;

    p->guest.taken = true;
    if (a->hv->ops->watcher_end(a->hv, (uint32_t)a->rec.domid,
                                path_watch(a->rec.uuid).s, &e))
        log_warn("dom=%s %s", a->rec.name, e.text);
}

void guest_give_back(struct primary *p)
{
    struct agent *a = p->a;
    struct hv_domain d;
    struct err e = ERR_INIT;

    if (!p->guest.taken || a->hv->ops->find_uuid(a->hv, a->uuid, false, &d, &e))
        return;
    if (a->hv->ops->watcher_start(a->hv, d.domid, path_watch(a->rec.uuid).s,
                                  &e))
        agent_event(a, "error", "nobody acts when %s shuts down or reboots: %s",
                    a->rec.name, e.text);
}

void guest_down_begin(struct primary *p)
{
    struct agent *a = p->a;
    struct guest_down *g = &p->guest;
    int64_t domid = a->rec.domid;
    struct hv_domain d;
    struct err e = ERR_INIT;

    a->rec.domid = -1;
    g->told = true;
    g->looks = 0;
    agent_event(a, "guest-down", "output is released; acting as %s is set up",
                a->rec.name);
    agent_state(a, VM_UNPROTECTED, "the guest is down");
    agent_save(a);
    if (domid > 0 && !a->hv->ops->info(a->hv, (uint32_t)domid, &d, &e) &&
        !memcmp(d.uuid, a->uuid, sizeof d.uuid))
        hand_over(a, (uint32_t)domid, &g->handing);
    primary_retry(p, 0.5);
    primary_phase(p, PH_NO_GUEST);
}

/* Ballooning takes a while, and each change voids a replica: begin when the
 * size is what it was half a second ago. */
static bool settled(struct guest_down *g, const struct hv_domain *d)
{
    bool same = g->pages == d->pages && g->max_pages == d->max_pages;

    if (!g->pages || same || ++g->looks > SETTLE_LOOKS)
        same = true;
    g->pages = d->pages;
    g->max_pages = d->max_pages;
    return same;
}

static enum guest_is guest_runs(struct primary *p, const struct hv_domain *d)
{
    struct agent *a = p->a;
    struct guest_down *g = &p->guest;

    if (watcher_of(a, d->domid) == HV_WATCHER_ACTS || !settled(g, d))
        return GUEST_LATER;
    if (g->told)
        agent_event(a, "guest-up", "%s was started again as domain %u",
                    a->rec.name, d->domid);
    g->seen = true;
    g->told = g->missed = false;
    g->looks = 0;
    if (a->rec.domid != (int64_t)d->domid) {
        a->rec.domid = d->domid;
        /* Another life of the VM: a replica of the last one is void. */
        if (getrandom(a->rec.incarnation, sizeof a->rec.incarnation, 0) < 0)
            abort();
        if (!agent_save(a))
            return GUEST_ENDED;
    }
    p->then = THEN_RETRY;
    return GUEST_RUNS;
}

/* Nobody starts it again. */
static enum guest_is guest_over(struct primary *p, bool there)
{
    struct agent *a = p->a;

    agent_event(a, "ended",
                there ? "%s is shut down and kept: protection ends"
                      : "%s does not run any more: protection ends",
                a->rec.name);
    agent_exit(a, AGENT_EXIT_DONE);
    return GUEST_ENDED;
}

/* A host that has just booted may start it yet, or it may have been taken over.
 * One that was seen is being started again, which should not take so long. */
static void guest_missing(struct primary *p)
{
    struct agent *a = p->a;
    struct guest_down *g = &p->guest;

    g->looks++;
    if (g->missed || !a->daemon || (g->seen && g->looks < 60))
        return;
    g->missed = true;
    agent_event(a, "no-guest",
                "%s does not run here; see on %s before you start it",
                a->rec.name, a->rec.peer);
}

/* The guest is not there, or shut down. */
static enum guest_is guest_down(struct primary *p, const struct hv_domain *d)
{
    struct agent *a = p->a;
    struct guest_down *g = &p->guest;

    if (g->told) {
        if (g->handing || watcher_of(a, d ? d->domid : 0) != HV_WATCHER_NONE)
            return GUEST_LATER;
        return guest_over(p, d);
    }
    if (!d && (!g->seen || watcher_of(a, 0) != HV_WATCHER_NONE)) {
        guest_missing(p);
        return GUEST_LATER;
    }
    p->down = d ? d->shutdown : HV_OTHER;
    p->then = THEN_GUEST_DOWN;
    if (d)
        a->rec.domid = d->domid;
    if (a->lease.state != LEASE_FREE || p->tries < TELL_TRIES)
        return GUEST_TELL;
    primary_ended(p);
    return GUEST_ENDED;
}

enum guest_is guest_look(struct primary *p)
{
    struct agent *a = p->a;
    struct hv_domain d;
    struct err e = ERR_INIT;

    if (a->hv->ops->find_uuid(a->hv, a->uuid, false, &d, &e)) {
        if (e.kind != ERR_GONE)
            return GUEST_LATER;
        return guest_down(p, NULL);
    }
    if (d.shutdown == HV_RUNNING)
        return guest_runs(p, &d);
    if (d.shutdown == HV_SUSPEND)
        return GUEST_LATER; /* somebody saves it */
    return guest_down(p, &d);
}

/* --- A backup's that took over -------------------------------------------- */

/* Its guest is not the domain that we know. */
static void backup_guest_moved(struct backup *b)
{
    struct agent *a = b->a;
    struct hv_domain d;
    struct err e = ERR_INIT;

    if (!a->hv->ops->find_uuid(a->hv, a->uuid, false, &d, &e)) {
        agent_event(a, "guest-up", "%s was started again as domain %u",
                    a->rec.name, d.domid);
        a->rec.domid = d.domid;
        agent_save(a);
        return;
    }
    if (e.kind != ERR_GONE ||
        watcher_of(a, (uint32_t)a->rec.domid) != HV_WATCHER_NONE)
        return;
    agent_event(a, "gone", "%s ran here since a takeover and is gone",
                a->rec.name);
    agent_exit(a, AGENT_EXIT_DONE);
}

void backup_guest_tick(struct backup *b, uint64_t now)
{
    struct agent *a = b->a;
    struct hv_domain d;
    struct err e = ERR_INIT;

    if (b->handing || now - b->guest_ns < LOOK_NS)
        return;
    b->guest_ns = now;
    int rc = a->hv->ops->info(a->hv, (uint32_t)a->rec.domid, &d, &e);
    if (rc ? e.kind == ERR_GONE : memcmp(d.uuid, a->uuid, 16) != 0)
        backup_guest_moved(b);
    if (rc)
        return;
    /* One that died is replaced. */
    if (b->guest_looks++ % CHECK_EVERY == 0 && a->state.now != VM_FENCED &&
        d.shutdown == HV_RUNNING && watcher_of(a, d.domid) == HV_WATCHER_NONE)
        hand_over(a, d.domid, &b->handing);
}
