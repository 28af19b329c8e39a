// SPDX-License-Identifier: Apache-2.0
/* The seam's real side: banks, plugs and redirects by rtnetlink. Called by the
 * device (netbuf.c) on its thread. */
#include "net-buffer/kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/pkt_sched.h>
#include <netlink/msg.h>

#include "net-buffer/rtkernel.h"

int rt_must(struct nlbatch *x, nlbatch_answer *answer, void *arg,
            const char *what, struct err *e)
{
    if (nlbatch_run(x, answer, arg, e))
        return err_add(e, "%s", what);
    for (int i = 0; i < x->count; i++) {
        if (!x->error[i])
            continue;
        errno = -x->error[i];
        if (x->why[0])
            return err_sys(e, "%s: %s", what, x->why);
        return err_sys(e, "%s", what);
    }
    return 0;
}

static void add_step(struct nlbatch *x, const struct nb_step *s)
{
    struct nb_vif *v = s->v;
    int bank = v->bank[s->bank];

    switch (s->op) {
    case NB_CLOSE:
        plug_change(x, bank, v->handle[s->bank], TCQ_PLUG_BUFFER);
        return;
    case NB_OPEN:
        plug_change(x, bank, v->handle[s->bank], TCQ_PLUG_RELEASE_INDEFINITE);
        return;
    case NB_POINT:
        redirect_set(x, v->ifindex, bank, &s->cookie);
        return;
    case NB_STAT:
        qdisc_get(x, bank, TC_H_ROOT);
        return;
    case NB_FLIGHT:
        link_get(x, bank, NULL);
        return;
    case NB_CHECK:
        redirect_get(x, v->ifindex);
        return;
    }
}

static void answer_step(void *arg, int i, struct nlmsghdr *h)
{
    struct nb_step *s = (struct nb_step *)arg + i;
    struct redirect_info red;
    struct qdisc_info q;
    struct link_info l;

    if (s->op == NB_STAT && qdisc_read(h, &q) && !strcmp(q.kind, "plug")) {
        s->packets = q.packets;
        s->bytes = q.bytes;
        s->drops = q.drops;
        s->bound = true;
    } else if (s->op == NB_FLIGHT && link_read(h, &l)) {
        s->packets = l.in_flight;
    } else if ((s->op == NB_POINT || s->op == NB_CHECK) &&
               redirects_read(h, &red, 1)) {
        s->bound = red.bound;
    }
}

static int kernel_run(struct nb_kernel *k, struct nb_step *s, int n,
                      struct err *e)
{
    struct nlbatch *x = batch_of(k);

    nlbatch_begin(x);
    for (int i = 0; i < n; i++) {
        s[i].bound = false;
        s[i].packets = s[i].bytes = s[i].drops = 0;
        add_step(x, s + i);
    }
    if (nlbatch_run(x, answer_step, s, e))
        return -1;
    for (int i = 0; i < n; i++) {
        s[i].r = x->error[i];
        if (s[i].op == NB_STAT && !s[i].r && !s[i].bound)
            s[i].r = -ENOENT; /* somebody put another qdisc there */
    }
    return 0;
}

static void answer_link(void *arg, int i, struct nlmsghdr *h)
{
    (void)i;
    link_read(h, arg);
}

static int kernel_find(struct nb_kernel *k, const char *name, int *ifindex,
                       struct err *e)
{
    struct nlbatch *x = batch_of(k);
    struct link_info l = {0};

    nlbatch_begin(x);
    link_get(x, 0, name);
    if (nlbatch_run(x, answer_link, &l, e))
        return err_add(e, "look up the interface %s", name);
    if (x->error[0] == -ENODEV)
        return err_kind(e, ERR_GONE, "there is no interface %s", name);
    if (x->error[0]) {
        errno = -x->error[0];
        return err_sys(e, "look up the interface %s", name);
    }
    *ifindex = l.ifindex;
    return 0;
}

static bool kernel_exists(struct nb_kernel *k, int ifindex)
{
    struct nlbatch *x = batch_of(k);

    nlbatch_begin(x);
    link_get(x, ifindex, NULL);
    return nlbatch_run(x, NULL, NULL, NULL) || x->error[0] != -ENODEV;
}

/* "cannot find" of the kernel mostly means a module that is not there. */
static int blame_module(struct nlbatch *x, int i, int missing,
                        const char *modules, struct err *e)
{
    if (x->error[i] != missing)
        return -1;
    return err_hint(e,
                    "is a kernel module missing? see what `modprobe -a %s` "
                    "says",
                    modules);
}

static int make_bank(struct nb_kernel *k, const char *tag, struct nb_vif *v,
                     int bank, uint32_t limit, struct err *e)
{
    struct nlbatch *x = batch_of(k);
    char name[NETBUF_NAME_MAX];

    netbuf_bank_name(name, tag, v->slot, bank);
    nlbatch_begin(x);
    link_add_ifb(x, name);
    if (rt_must(x, NULL, NULL, "create an ifb interface", e)) {
        blame_module(x, 0, -EOPNOTSUPP, "ifb", e);
        return err_add(e, "%s", name);
    }
    if (kernel_find(k, name, &v->bank[bank], e))
        return -1;
    nlbatch_begin(x);
    link_set_quiet(x, v->bank[bank]);
    if (nlbatch_run(x, NULL, NULL, e)) /* a host without IPv6 refuses: fine */
        return -1;
    v->handle[bank] = PLUG_HANDLE;
    nlbatch_begin(x);
    plug_add(x, v->bank[bank], PLUG_HANDLE, false, limit);
    link_set_up(x, v->bank[bank]);
    if (rt_must(x, NULL, NULL, "attach a plug qdisc", e)) {
        blame_module(x, 0, -ENOENT, "sch_plug", e);
        return err_add(e, "%s", name);
    }
    return 0;
}

static void answer_redirect(void *arg, int i, struct nlmsghdr *h)
{
    (void)i;
    redirects_read(h, arg, 1);
}

/* A filter that was just removed gives its action back only after an RCU grace
 * period; until then ours is bound to that action as it was, target and all.
 * So it is set once more. */
static int make_redirect(struct nlbatch *x, const struct nb_vif *v,
                         bool ingress_there, const struct netbuf_cookie *c,
                         struct err *e)
{
    struct redirect_info red = {0};
    int i = 0;

    nlbatch_begin(x);
    redirect_del(x, v->ifindex); /* one that no filter uses */
    if (nlbatch_run(x, NULL, NULL, e))
        return -1;
    nlbatch_begin(x);
    if (!ingress_there) {
        ingress_add(x, v->ifindex);
        i++;
    }
    filter_add(x, v->ifindex, v->bank[v->active], c);
    redirect_set(x, v->ifindex, v->bank[v->active], c);
    if (rt_must(x, answer_redirect, &red, "redirect its output", e)) {
        if (i && x->error[0])
            blame_module(x, 0, -ENOENT, "sch_ingress", e);
        else if (strstr(x->why, "lassifier"))
            blame_module(x, i, -ENOENT, "cls_matchall", e);
        else
            blame_module(x, i, -ENOENT, "act_mirred act_gact", e);
        return err_add(e, "%s", v->name);
    }
    if (!red.bound || red.target != v->bank[v->active])
        return err_set(e, "%s: the redirect did not come to be", v->name);
    return 0;
}

static void remove_banks(struct nlbatch *x, struct nb_vif *v)
{
    nlbatch_begin(x);
    for (int b = 0; b < 2; b++)
        if (v->bank[b])
            link_del(x, v->bank[b]);
    nlbatch_run(x, NULL, NULL, NULL);
    v->bank[0] = v->bank[1] = 0;
}

static int kernel_make(struct nb_kernel *k, const char *tag, struct nb_vif *v,
                       const struct netbuf_cookie *c, uint32_t limit,
                       struct err *e)
{
    struct nlbatch *x = batch_of(k);
    bool there;

    v->bank[0] = v->bank[1] = 0;
    v->active = 0;
    if (rt_vet_ingress(x, v, &there, e))
        return -1;
    if (make_bank(k, tag, v, 0, limit, e) || make_bank(k, tag, v, 1, limit, e))
        goto fail;
    if (!c->holding) {
        nlbatch_begin(x);
        plug_change(x, v->bank[0], PLUG_HANDLE, TCQ_PLUG_RELEASE_INDEFINITE);
        if (rt_must(x, NULL, NULL, "open the plug", e))
            goto fail;
    }
    if (make_redirect(x, v, there, c, e)) {
        nlbatch_begin(x);
        if (!there)
            ingress_del(x, v->ifindex);
        redirect_del(x, v->ifindex); /* it is there without its filter */
        nlbatch_run(x, NULL, NULL, NULL);
        goto fail;
    }
    return 0;
fail:
    remove_banks(x, v);
    return -1;
}

static int kernel_mend(struct nb_kernel *k, const char *tag, struct nb_vif *v,
                       uint32_t limit, struct err *e)
{
    for (int b = 0; b < 2; b++)
        if (!v->bank[b] && make_bank(k, tag, v, b, limit, e))
            return -1;
    return 0;
}

/* Another plug in the place of this one: the kernel throws the old one away
 * with what it holds, and drops what comes in between. */
static int kernel_purge(struct nb_kernel *k, struct nb_vif *v, int bank,
                        uint32_t limit, struct err *e)
{
    struct nlbatch *x = batch_of(k);
    uint32_t handle = v->handle[bank] ^ 0x00030000u; /* 7501: or 7502: */

    nlbatch_begin(x);
    plug_add(x, v->bank[bank], handle, true, limit);
    if (rt_must(x, NULL, NULL, "replace the plug", e))
        return err_add(e, "%s", v->name);
    v->handle[bank] = handle;
    return 0;
}

static void kernel_direct(struct nb_kernel *k, struct nb_vif *v)
{
    struct nlbatch *x = batch_of(k);

    if (!v->ifindex)
        return;
    nlbatch_begin(x);
    if (!v->gone && !v->lost)
        ingress_del(x, v->ifindex); /* with its filter */
    redirect_del(x, v->ifindex);
    nlbatch_run(x, NULL, NULL, NULL);
    v->lost = true;
}

static void kernel_unmake(struct nb_kernel *k, struct nb_vif *v)
{
    kernel_direct(k, v);
    remove_banks(batch_of(k), v);
}

static void kernel_free(struct nb_kernel *k)
{
    nlbatch_close(batch_of(k));
    free(k);
}

static const struct nb_kernel_ops ops = {
    .run = kernel_run,
    .find = kernel_find,
    .exists = kernel_exists,
    .make = kernel_make,
    .mend = kernel_mend,
    .purge = kernel_purge,
    .direct = kernel_direct,
    .unmake = kernel_unmake,
    .scan = rt_scan,
    .free = kernel_free,
};

struct nb_kernel *nb_kernel_open(struct err *e)
{
    struct rtkernel *r = calloc(1, sizeof *r);

    if (!r) {
        err_sys(e, "allocate a network buffer");
        return NULL;
    }
    r->k.ops = &ops;
    r->x = nlbatch_open(e);
    if (!r->x) {
        free(r);
        return NULL;
    }
    return &r->k;
}
