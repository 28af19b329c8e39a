// SPDX-License-Identifier: Apache-2.0
/* Which interfaces the device has: taking hold of them, letting go, adopting
 * what a predecessor left. Called by the engine and by whoever cleans up, on
 * the device's thread, never while the guest is stopped. */
#include "net-buffer/netbuf.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "net-buffer/netbuf_priv.h"
#include "net-buffer/rtkernel.h"

#define SWEEP_MAX 64

void netbuf_note_drops(struct netbuf *b, struct nb_vif *v, int bank)
{
    b->steps = 0;
    netbuf_step(b, NB_STAT, v, bank);
    if (!netbuf_run(b, NULL) && !b->step[0].r)
        b->dropped += b->step[0].drops;
}

/* What it held is dropped: nobody has said that it may get out. */
static void let_go(struct netbuf *b, int i)
{
    struct nb_vif *v = b->vif + i;

    for (int bank = 0; bank < 2; bank++)
        if (v->bank[bank])
            netbuf_note_drops(b, v, bank);
    b->k->ops->unmake(b->k, v);
    *v = b->vif[--b->n];
}

static bool still_wanted(struct netbuf *b, const struct nb_vif *v)
{
    int ifindex;

    if (v->gone || v->lost)
        return false;
    for (int i = 0; i < b->n_wanted; i++)
        if (!strcmp(b->wanted[i], v->name))
            return !b->k->ops->find(b->k, v->name, &ifindex, NULL) &&
                   ifindex == v->ifindex;
    return false;
}

static int free_slot(const struct netbuf *b)
{
    bool used[NETBUF_VIFS_MAX] = {false};
    int slot = 0;

    for (int i = 0; i < b->n; i++)
        used[b->vif[i].slot] = true;
    while (used[slot])
        slot++;
    return slot;
}

static int take_one(struct netbuf *b, const char *name, struct err *e)
{
    struct netbuf_cookie c = {b->holding, b->marked_epoch};
    struct nb_vif *v = b->vif + b->n;

    for (int i = 0; i < b->n; i++)
        if (!strcmp(b->vif[i].name, name))
            return 0;
    memset(v, 0, sizeof *v);
    snprintf(v->name, sizeof v->name, "%s", name);
    v->slot = free_slot(b);
    if (b->k->ops->find(b->k, name, &v->ifindex, e) ||
        b->k->ops->make(b->k, b->tag, v, &c, b->limit, e))
        return -1;
    v->open[0] = !b->holding;
    b->n++;
    log_info("tag=%s interface=%s taken", b->tag, name);
    return 0;
}

/* Mark those that are gone, and those whose redirect is. */
static int look_at_all(struct netbuf *b, struct err *e)
{
    struct err lost = ERR_INIT;

    b->steps = 0;
    for (int i = 0; i < b->n; i++)
        if (!b->vif[i].gone && !b->vif[i].lost)
            netbuf_step(b, NB_CHECK, b->vif + i, 0);
    if (netbuf_run(b, e))
        return -1;
    if (netbuf_check_steps(b, &lost))
        log_warn("tag=%s %s", b->tag, lost.text);
    return 0;
}

int netbuf_take_wanted(struct netbuf *b, struct err *e)
{
    int rc = look_at_all(b, e);

    for (int i = b->n - 1; i >= 0; i--)
        if (!still_wanted(b, b->vif + i))
            let_go(b, i);
    for (int i = 0; i < b->n_wanted; i++)
        if (take_one(b, b->wanted[i], rc ? NULL : e))
            rc = -1;
    return rc;
}

int netbuf_set_vifs(struct checkpoint_device *d,
                    const char names[][NETBUF_NAME_MAX], int n, struct err *e)
{
    struct netbuf *b = (struct netbuf *)d;

    if (n < 0 || n > NETBUF_VIFS_MAX)
        return err_kind(e, ERR_REFUSED, "%d network interfaces; at most %d", n,
                        NETBUF_VIFS_MAX);
    b->n_wanted = n;
    for (int i = 0; i < n; i++)
        snprintf(b->wanted[i], sizeof b->wanted[i], "%s", names[i]);
    return b->up ? netbuf_take_wanted(b, e) : 0;
}

/* Put what scan found into a known state: both banks closed if output was
 * being held, else the active one open. A commit or abort that was under way
 * may have left any plug open or closed; the plug doesn't tell. */
static int settle(struct netbuf *b, const struct netbuf_cookie *c,
                  struct err *e)
{
    b->steps = 0;
    for (int i = 0; i < b->n; i++) {
        struct nb_vif *v = b->vif + i;

        netbuf_step(b, NB_CLOSE, v, !v->active);
        netbuf_step(b, c->holding ? NB_CLOSE : NB_OPEN, v, v->active);
        netbuf_step(b, NB_POINT, v, v->active)->cookie = *c;
        v->open[v->active] = !c->holding;
        v->open[!v->active] = false;
    }
    return netbuf_run(b, e) || netbuf_check_steps(b, e) ? -1 : 0;
}

int netbuf_adopt(struct netbuf *b, struct err *e)
{
    struct netbuf_cookie c;
    int n;

    if (b->up)
        return err_set(e, "the network buffer is set up already");
    n = b->k->ops->scan(b->k, b->tag, b->vif, &c, e);
    if (n < 0)
        return err_add(e, "look for a network buffer %s", b->tag);
    b->n = n;
    for (int i = n - 1; i >= 0; i--)
        if (b->vif[i].gone)
            let_go(b, i);
    for (int i = 0; i < b->n; i++)
        if (b->k->ops->mend(b->k, b->tag, b->vif + i, b->limit, e))
            return err_add(e, "adopt the network buffer %s", b->tag);
    if (!b->n)
        return 0;
    if (settle(b, &c, e))
        return err_add(e, "adopt the network buffer %s", b->tag);
    b->up = true;
    b->holding = b->marked = c.holding;
    b->marked_epoch = c.epoch;
    log_info("tag=%s adopted=%d holding=%s epoch=%llu", b->tag, b->n,
             c.holding ? "yes" : "no", (unsigned long long)c.epoch);
    return 0;
}

int netbuf_cleanup_leftovers(const char *tag, bool release, struct err *e)
{
    struct checkpoint_device *d;
    int rc;

    if (netbuf_open(tag, NULL, &d, e))
        return -1;
    rc = netbuf_adopt((struct netbuf *)d, e);
    if (!rc)
        d->ops->teardown(d, release);
    d->ops->free(d);
    return rc;
}

int netbuf_left(const char *tag, struct err *e)
{
    struct nb_kernel *k = nb_kernel_open(e);
    struct nb_vif v[NETBUF_VIFS_MAX];
    struct netbuf_cookie c;
    int n;

    if (!k)
        return -1;
    n = k->ops->scan(k, tag, v, &c, e);
    k->ops->free(k);
    return n < 0 ? err_add(e, "look for a network buffer %s", tag) : n > 0;
}

/* An ifb can play the vif as well: redirects are made on anything. */
static int try_all(struct nb_kernel *k, struct err *e)
{
    struct netbuf_cookie c = {0};
    struct nb_vif host = {0}, v = {0};
    char tag[NETBUF_TAG_MAX + 1];
    int rc;

    netbuf_check_tag(tag);
    host.slot = 1;
    host.lost = v.gone = true;
    rc = k->ops->mend(k, tag, &host, 1 << 20, e);
    if (!rc) {
        netbuf_bank_name(v.name, tag, 1, 0);
        v.ifindex = host.bank[0];
        v.gone = false;
        rc = k->ops->make(k, tag, &v, &c, 1 << 20, e);
        if (!rc)
            k->ops->unmake(k, &v);
    }
    k->ops->unmake(k, &host);
    return rc;
}

int netbuf_check(struct err *e)
{
    struct nb_kernel *k = nb_kernel_open(e);
    int rc;

    if (!k)
        return -1;
    rc = try_all(k, e);
    k->ops->free(k);
    return rc ? err_add(e, "this host can't hold back network output") : 0;
}

int netbuf_check_sweep(struct err *e)
{
    struct nb_kernel *k = nb_kernel_open(e);
    char tag[NETBUF_TAG_MAX + 1];
    int rc = k ? 0 : -1;

    for (int i = 0; i < SWEEP_MAX && !rc; i++) {
        rc = rt_dead_check(k, tag, e);
        if (!rc && !tag[0])
            break;
        if (!rc)
            rc = netbuf_cleanup_leftovers(tag, false, e);
    }
    if (k)
        k->ops->free(k);
    return rc ? err_add(e, "what a dead check of the network left") : 0;
}
