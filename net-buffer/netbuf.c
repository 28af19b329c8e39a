// SPDX-License-Identifier: Apache-2.0
/* The checkpoint device "network": which bank holds what, and when it opens.
 * netbuf.h has the whole story. Called by the checkpoint engine, on its
 * thread; mark() runs while the guest is stopped. */
#include "net-buffer/netbuf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "net-buffer/netbuf_priv.h"

#define ABORT_DRAIN_NS (1000 * NS_PER_MS)

struct nb_step *netbuf_step(struct netbuf *b, enum nb_op op, struct nb_vif *v,
                            int bank)
{
    struct nb_step *s = b->step + b->steps++;

    s->op = op;
    s->v = v;
    s->bank = bank;
    s->r = 0;
    return s;
}

int netbuf_run(struct netbuf *b, struct err *e)
{
    return b->k->ops->run(b->k, b->step, b->steps, e);
}

static struct netbuf *netbuf_of(struct checkpoint_device *d)
{
    return (struct netbuf *)d;
}

/* A step on this vif failed: true when that is because it is gone, which is
 * no error in an epoch; else *e says what happened. */
static bool only_gone(struct netbuf *b, const struct nb_step *s, struct err *e)
{
    struct nb_vif *v = s->v;

    if (!v->gone && !b->k->ops->exists(b->k, v->ifindex))
        v->gone = true;
    if (v->gone)
        return true;
    errno = -s->r;
    if (s->op == NB_POINT || s->op == NB_CHECK) {
        v->lost = !s->r || s->r == -ENOENT;
        err_set(e,
                "the redirect of %s was removed by somebody: its output is "
                "not held any more",
                v->name);
    } else {
        err_sys(e, "the buffer of %s, bank %c", v->name, "ab"[s->bank]);
    }
    err_hint(e, "leave the tc rules of %s and the interfaces %s-%d* alone",
             v->name, b->tag, v->slot);
    return false;
}

static bool step_failed(const struct nb_step *s)
{
    return s->r || ((s->op == NB_POINT || s->op == NB_CHECK) && !s->bound);
}

/* Check every step done; -1 and the first real failure in *e. */
int netbuf_check_steps(struct netbuf *b, struct err *e)
{
    int rc = 0;

    for (int i = 0; i < b->steps; i++)
        if (step_failed(b->step + i) &&
            !only_gone(b, b->step + i, rc ? NULL : e))
            rc = -1;
    return rc;
}

/* Where a mark failed for some vifs, those that did switch go back: nothing
 * of the epoch that is given up may stay behind in a bank that would open
 * only one epoch later. The guest is still stopped. */
static void unmark(struct netbuf *b)
{
    struct netbuf_cookie old = {b->holding, b->marked_epoch};
    bool switched[NETBUF_VIFS_MAX] = {false};

    for (int i = 0; i < b->steps; i++)
        if (b->step[i].op == NB_POINT && !step_failed(b->step + i))
            switched[b->step[i].v - b->vif] = true;
    b->steps = 0;
    for (int i = 0; i < b->n; i++)
        if (switched[i])
            netbuf_step(b, NB_POINT, b->vif + i, b->vif[i].active)->cookie =
                old;
    netbuf_run(b, NULL);
}

static int netbuf_mark(struct checkpoint_device *d, uint64_t epoch,
                       struct err *e)
{
    struct netbuf *b = netbuf_of(d);

    if (!b->up)
        return err_set(e, "the network buffer is not set up");
    /* The engine took this epoch again, after a lost session: what came since
     * the first time stays in the active bank and leaves one epoch later. */
    if (b->marked && b->marked_epoch == epoch)
        return 0;
    if (b->marked)
        return err_set(e, "network output of epoch %llu is not committed yet",
                       (unsigned long long)b->marked_epoch);
    fault_point("netbuf-mark");
    b->steps = 0;
    for (int i = 0; i < b->n; i++) {
        struct nb_vif *v = b->vif + i;

        if (v->gone)
            continue;
        if (v->open[!v->active])
            netbuf_step(b, NB_CLOSE, v, !v->active);
        netbuf_step(b, NB_POINT, v, !v->active)->cookie =
            (struct netbuf_cookie){true, epoch};
    }
    if (netbuf_run(b, e))
        return err_add(e, "hold network output");
    if (netbuf_check_steps(b, e)) {
        unmark(b);
        return err_add(e, "hold network output");
    }
    for (int i = 0; i < b->n; i++) {
        b->vif[i].active = !b->vif[i].active;
        b->vif[i].open[b->vif[i].active] = false;
    }
    b->holding = b->marked = true;
    b->marked_epoch = epoch;
    fault_point("netbuf-marked");
    return 0;
}

/* Close the banks behind the redirect that have run empty; true when none is
 * left open. */
static bool close_empty(struct netbuf *b)
{
    int open = 0;

    b->steps = 0;
    for (int i = 0; i < b->n; i++)
        if (!b->vif[i].gone && b->vif[i].open[!b->vif[i].active])
            netbuf_step(b, NB_STAT, b->vif + i, !b->vif[i].active);
    open = b->steps;
    if (!open || netbuf_run(b, NULL))
        return !open;
    b->steps = 0;
    for (int i = 0; i < open; i++)
        if (!b->step[i].r && !b->step[i].packets)
            netbuf_step(b, NB_CLOSE, b->step[i].v, b->step[i].bank);
    if (netbuf_run(b, NULL))
        return false;
    for (int i = 0; i < b->steps; i++)
        if (!b->step[i].r)
            b->step[i].v->open[b->step[i].bank] = false;
    return b->steps == open;
}

/* Sleep longer each time: most banks are empty after the first look. */
static bool again(uint64_t end, long *pause_ns)
{
    struct timespec t = {0, *pause_ns};

    if (clock_ns() >= end)
        return false;
    nanosleep(&t, NULL);
    if (*pause_ns < 1000000)
        *pause_ns *= 2;
    return true;
}

/* What does not get empty in time is closed by poll() or the next mark. */
static void drain(struct netbuf *b, uint64_t bound_ns)
{
    uint64_t end = clock_ns() + bound_ns;
    long pause_ns = 20000;

    while (!close_empty(b) && again(end, &pause_ns))
        ;
}

/* Open the bank behind the redirect, of all vifs. */
static int open_marked(struct netbuf *b, struct err *e)
{
    b->steps = 0;
    for (int i = 0; i < b->n; i++)
        if (!b->vif[i].gone)
            netbuf_step(b, NB_OPEN, b->vif + i, !b->vif[i].active);
    if (netbuf_run(b, e))
        return -1;
    for (int i = 0; i < b->steps; i++)
        if (!b->step[i].r)
            b->step[i].v->open[b->step[i].bank] = true;
    return netbuf_check_steps(b, e);
}

static int netbuf_commit(struct checkpoint_device *d, uint64_t epoch,
                         struct err *e)
{
    struct netbuf *b = netbuf_of(d);

    if (!b->marked && b->committed && b->marked_epoch == epoch)
        return 0;
    if (!b->marked || b->marked_epoch != epoch)
        return err_set(e, "network output of epoch %llu is not what is held",
                       (unsigned long long)epoch);
    fault_point("netbuf-commit");
    if (open_marked(b, e))
        return err_add(e, "release network output of epoch %llu",
                       (unsigned long long)epoch);
    b->marked = false;
    b->committed = true;
    fault_point("netbuf-committed");
    drain(b, COMMIT_DRAIN_NS);
    return 0;
}

/* Everything flows; the cookie last, so that a successor of ours that finds
 * it half done holds on. */
static int open_active(struct netbuf *b, struct err *e)
{
    struct netbuf_cookie c = {false, b->marked_epoch};

    b->steps = 0;
    for (int i = 0; i < b->n; i++) {
        if (b->vif[i].gone)
            continue;
        netbuf_step(b, NB_OPEN, b->vif + i, b->vif[i].active);
        netbuf_step(b, NB_POINT, b->vif + i, b->vif[i].active)->cookie = c;
    }
    if (netbuf_run(b, e))
        return -1;
    for (int i = 0; i < b->steps; i++)
        if (b->step[i].op == NB_OPEN && !b->step[i].r)
            b->step[i].v->open[b->step[i].bank] = true;
    return netbuf_check_steps(b, e);
}

static int purge_all(struct netbuf *b, struct err *e)
{
    int rc = 0;

    for (int i = 0; i < b->n; i++) {
        struct nb_vif *v = b->vif + i;

        for (int bank = 0; bank < 2 && !v->gone; bank++) {
            netbuf_note_drops(b, v, bank);
            if (b->k->ops->purge(b->k, v, bank, b->limit, rc ? NULL : e))
                rc = -1;
            v->open[bank] = false;
        }
    }
    return rc;
}

static int netbuf_abort(struct checkpoint_device *d, bool release,
                        struct err *e)
{
    struct netbuf *b = netbuf_of(d);
    int rc;

    if (!b->up)
        return 0;
    b->marked = b->committed = false;
    if (!release) {
        rc = purge_all(b, e);
        return rc ? err_add(e, "drop network output") : 0;
    }
    rc = open_marked(b, e);
    drain(b, ABORT_DRAIN_NS); /* the older bank first: keep the order */
    if (open_active(b, rc ? NULL : e))
        rc = -1;
    if (rc)
        return err_add(e, "release network output");
    b->holding = false;
    return 0;
}

static void sum_load(struct netbuf *b, struct device_load *load)
{
    uint64_t now_bytes = 0, now_packets = 0;

    load->dropped_packets = b->dropped;
    for (int i = 0; i < b->steps; i++) {
        const struct nb_step *s = b->step + i;

        if (s->op != NB_STAT || s->r)
            continue;
        load->held_bytes += s->bytes;
        load->held_packets += s->packets;
        load->dropped_packets += s->drops;
        if (s->bank == s->v->active) {
            now_bytes += s->bytes;
            now_packets += s->packets;
        }
    }
    load->want_epoch = b->holding && (now_bytes >= b->limits.early_bytes ||
                                      now_packets >= b->limits.early_packets);
}

static int netbuf_poll(struct checkpoint_device *d, struct device_load *load,
                       struct err *e)
{
    struct netbuf *b = netbuf_of(d);

    *load = (struct device_load){0};
    if (!b->up)
        return 0;
    close_empty(b);
    b->steps = 0;
    for (int i = 0; i < b->n; i++) {
        if (b->vif[i].gone)
            continue;
        netbuf_step(b, NB_STAT, b->vif + i, 0);
        netbuf_step(b, NB_STAT, b->vif + i, 1);
        netbuf_step(b, NB_CHECK, b->vif + i, 0);
    }
    if (netbuf_run(b, e))
        return err_add(e, "look at held network output");
    sum_load(b, load);
    if (netbuf_check_steps(b, e))
        return -1;
    for (int i = 0; i < b->n; i++)
        if (b->vif[i].gone)
            return err_kind(e, ERR_GONE, "the interface %s is gone",
                            b->vif[i].name);
    return 0;
}

/* Until what has left the plugs is through the ifbs, a second at most: a
 * packet whose ifb is deleted is lost. */
static void wait_flight(struct netbuf *b)
{
    uint64_t end = clock_ns() + ABORT_DRAIN_NS, left;
    long pause_ns = 20000;

    do {
        b->steps = 0;
        for (int i = 0; i < b->n; i++)
            for (int bank = 0; bank < 2 && !b->vif[i].gone; bank++) {
                netbuf_step(b, NB_STAT, b->vif + i, bank);
                netbuf_step(b, NB_FLIGHT, b->vif + i, bank);
            }
        left = 0;
        if (netbuf_run(b, NULL))
            return;
        for (int i = 0; i < b->steps; i++)
            left += b->step[i].r ? 0 : b->step[i].packets;
    } while (left && again(end, &pause_ns));
}

/* Release: first everything flows through the banks, then the redirect goes
 * and the vif is direct again, then what was under way gets its time, last
 * the banks go. The other way round, packets would be dropped by a redirect
 * without a target. */
static void netbuf_teardown(struct checkpoint_device *d, bool release)
{
    struct netbuf *b = netbuf_of(d);
    struct err e = ERR_INIT;

    if (!b->up)
        return;
    if (release) {
        if (netbuf_abort(d, true, &e))
            log_warn("tag=%s %s", b->tag, e.text);
        for (int i = 0; i < b->n; i++)
            b->k->ops->direct(b->k, b->vif + i);
        wait_flight(b);
    }
    for (int i = 0; i < b->n; i++)
        b->k->ops->unmake(b->k, b->vif + i);
    b->n = 0;
    b->up = b->holding = b->marked = b->committed = false;
}

static void netbuf_free(struct checkpoint_device *d)
{
    struct netbuf *b = netbuf_of(d);

    b->k->ops->free(b->k);
    free(b);
}

static int netbuf_setup(struct checkpoint_device *d, struct err *e)
{
    struct netbuf *b = netbuf_of(d);

    if (b->up)
        return 0;
    b->up = true;
    if (netbuf_take_wanted(b, e)) {
        netbuf_teardown(d, true);
        return err_add(e, "hold back network output");
    }
    return 0;
}

static const struct checkpoint_device_ops ops = {
    .name = "network",
    .setup = netbuf_setup,
    .mark = netbuf_mark,
    .commit = netbuf_commit,
    .abort = netbuf_abort,
    .teardown = netbuf_teardown,
    .poll = netbuf_poll,
    .free = netbuf_free,
};

static void fill_limits(struct netbuf *b, const struct netbuf_limits *limits)
{
    struct netbuf_limits *l = &b->limits;

    if (limits)
        *l = *limits;
    if (!l->hold_bytes_max)
        l->hold_bytes_max = 64 << 20;
    if (!l->early_bytes)
        l->early_bytes = 1 << 20;
    if (!l->early_packets)
        l->early_packets = 1000;
    b->limit = l->hold_bytes_max > UINT32_MAX ? UINT32_MAX
                                              : (uint32_t)l->hold_bytes_max;
}

int netbuf_open_on(struct nb_kernel *k, const char *tag,
                   const struct netbuf_limits *limits,
                   struct checkpoint_device **out, struct err *e)
{
    struct netbuf *b;

    if (!netbuf_tag_valid(tag)) {
        k->ops->free(k);
        return err_kind(e, ERR_USAGE, "\"%s\" is no tag of a network buffer",
                        tag);
    }
    b = calloc(1, sizeof *b);
    if (!b) {
        k->ops->free(k);
        return err_sys(e, "allocate a network buffer");
    }
    memset(b->step, 0, sizeof b->step); /* touched before any guest stops */
    b->dev.ops = &ops;
    b->k = k;
    memcpy(b->tag, tag, strlen(tag));
    fill_limits(b, limits);
    *out = &b->dev;
    return 0;
}

int netbuf_open(const char *tag, const struct netbuf_limits *limits,
                struct checkpoint_device **out, struct err *e)
{
    struct nb_kernel *k = nb_kernel_open(e);

    return k ? netbuf_open_on(k, tag, limits, out, e) : -1;
}
