// SPDX-License-Identifier: Apache-2.0
/* What a predecessor left at the VM; see leftovers.h. Loop thread, but for the
 * functions *_run, which are jobs. */
#include "agent/leftovers.h"

#include <stdio.h>
#include <stdlib.h>

#include "agent/job.h"
#include "agent/paths.h"
#include "agent/primary.h"
#include "common/clock.h"
#include "common/fault.h"

#define AGAIN_NS NS_PER_SEC

/* The fake hypervisor's guests have no network. */
static bool no_network(void)
{
    return getenv("UNDERSTUDY_HV");
}

void leftovers_tag(char tag[NETBUF_TAG_MAX + 1], uint32_t domid)
{
    snprintf(tag, NETBUF_TAG_MAX + 1, "u%u", domid % 1000000);
}

/* --- Recovering (a job) --------------------------------------------------- */

struct recover_job {
    struct primary *p;
    uint32_t domid;
    char tag[NETBUF_TAG_MAX + 1];
    bool left;
    char flag[512];
};

/* A plug that is closed stays closed until the lease says. */
static int recover_run(void *arg, struct err *e)
{
    struct recover_job *j = arg;
    struct hv *hv = NULL;
    int left = 0;

    if (agent_hv_open(&hv, e))
        return -1;
    int rc = engine_recover(hv, j->domid, j->flag, e);
    hv->ops->close(hv);
    if (!no_network())
        left = netbuf_left(j->tag, rc ? NULL : e);
    j->left = left != 0; /* as long as it is not known: maybe */
    return rc || left < 0 ? -1 : 0;
}

static void recover_done(void *arg, int rc, const struct err *e)
{
    struct recover_job *j = arg;
    struct primary *p = j->p;

    p->left.there = j->left;
    snprintf(p->left.tag, sizeof p->left.tag, "%s", j->tag);
    free(j);
    primary_recovered(p, rc ? e : NULL);
}

void leftovers_recover(struct primary *p, uint32_t domid)
{
    struct recover_job *j = calloc(1, sizeof *j);

    if (!j)
        abort();
    j->p = p;
    j->domid = domid;
    leftovers_tag(j->tag, domid);
    snprintf(j->flag, sizeof j->flag, "%s", path_flag(p->a->rec.uuid).s);
    primary_phase(p, PH_RECOVER);
    job_start(p->a->loop, recover_run, recover_done, j);
}

/* --- Taking the buffer away (a job) --------------------------------------- */

struct end_job {
    struct primary *p;
    struct leftovers *l;
    char tag[NETBUF_TAG_MAX + 1];
    bool release;
};

static int end_run(void *arg, struct err *e)
{
    struct end_job *j = arg;

    if (fault_point("leftovers.end"))
        return err_set(e, "fault point leftovers.end");
    return netbuf_cleanup_leftovers(j->tag, j->release, e);
}

static void end_done(void *arg, int rc, const struct err *e)
{
    struct end_job *j = arg;
    struct primary *p = j->p;
    struct leftovers *l = j->l;
    void (*then)(struct primary *) = p->after_leftovers;

    l->busy = false;
    if (!rc)
        l->there = false;
    else if (!l->told)
        agent_event(p->a, "error", "%s output that a predecessor held: %s; %s",
                    j->release ? "releasing" : "dropping", e->text,
                    "it is tried again");
    l->told = rc;
    free(j);
    if (p->left.there || p->old.there || !then)
        return;
    p->after_leftovers = NULL;
    then(p);
}

static void end_start(struct primary *p, struct leftovers *l)
{
    struct end_job *j = calloc(1, sizeof *j);

    if (!j)
        abort();
    *j = (struct end_job){.p = p, .l = l, .release = l->release};
    snprintf(j->tag, sizeof j->tag, "%s", l->tag);
    l->busy = true;
    l->tried_ns = clock_ns();
    job_start(p->a->loop, end_run, end_done, j);
}

static void decide(struct primary *p, struct leftovers *l, bool release)
{
    if (!l->there || l->decided)
        return;
    l->decided = true;
    l->release = release;
    end_start(p, l);
}

void leftovers_end(struct primary *p, bool release)
{
    decide(p, &p->left, release);
}

void leftovers_sweep(struct primary *p, uint32_t domid)
{
    if (no_network())
        return;
    leftovers_tag(p->old.tag, domid);
    p->old.there = true;
    decide(p, &p->old, false);
}

bool leftovers_wait(struct primary *p, void (*then)(struct primary *))
{
    if (!p->left.there && !p->old.there)
        return false;
    p->after_leftovers = then;
    return true;
}

void leftovers_tick(struct primary *p, uint64_t now)
{
    struct leftovers *const all[] = {&p->left, &p->old};

    for (int i = 0; i < 2; i++)
        if (all[i]->there && all[i]->decided && !all[i]->busy &&
            now - all[i]->tried_ns >= AGAIN_NS)
            end_start(p, all[i]);
}
