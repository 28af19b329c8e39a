// SPDX-License-Identifier: Apache-2.0
/* Finding what is there already: a predecessor's banks and redirects, and
 * other people's rules on an interface. Called by kernel.c and by the tools
 * that clean up, on the device's thread. */
#include "net-buffer/rtkernel.h"

#include <errno.h>
#include <string.h>
#include <linux/pkt_sched.h>
#include <netlink/msg.h>

#include "common/cleanup.h"

struct vet {
    char qdisc[16], filter[16];
    bool leftover;
    int vif;
};

static void answer_vet(void *arg, int i, struct nlmsghdr *h)
{
    struct vet *t = arg;
    struct redirect_info r;
    struct qdisc_info q;
    char kind[16];

    (void)i;
    if (qdisc_read(h, &q))
        memcpy(t->qdisc, q.kind, sizeof t->qdisc);
    else if (redirects_read(h, &r, 1))
        t->leftover = r.bound && r.ours;
    else if (filter_read(h, kind), kind[0])
        memcpy(t->filter, kind, sizeof t->filter);
}

int rt_vet_ingress(struct nlbatch *x, const struct nb_vif *v, bool *there,
                   struct err *e)
{
    struct vet t = {.vif = v->ifindex};

    nlbatch_begin(x);
    qdisc_get(x, v->ifindex, TC_H_INGRESS);
    redirect_get(x, v->ifindex);
    if (nlbatch_run(x, answer_vet, &t, e))
        return err_add(e, "look at the ingress of %s", v->name);
    *there = t.qdisc[0];
    if (t.leftover) {
        err_kind(e, ERR_REFUSED,
                 "the output of %s is redirected already, by us: another agent "
                 "protects this VM, or died",
                 v->name);
        return err_hint(e, "adopt or clean up what it left");
    }
    if (t.qdisc[0] && !strcmp(t.qdisc, "ingress")) {
        nlbatch_begin(x);
        filter_list(x, v->ifindex);
        if (rt_must(x, answer_vet, &t, "list ingress filters", e))
            return err_add(e, "%s", v->name);
        if (!t.filter[0])
            return 0;
    }
    if (!t.qdisc[0])
        return 0;
    err_kind(e, ERR_REFUSED, "%s has tc rules of somebody else: qdisc %s%s%s",
             v->name, t.qdisc, t.filter[0] ? ", filter " : "", t.filter);
    return err_hint(e,
                    "remove them with `tc qdisc del dev %s %s`, or keep "
                    "them in the guest or on the bridge",
                    v->name, t.qdisc);
}

struct scan {
    const char *tag;
    struct nb_vif slot[NETBUF_VIFS_MAX];
    struct netbuf_cookie cookie;
};

static void answer_links(void *arg, int i, struct nlmsghdr *h)
{
    char tag[NETBUF_TAG_MAX + 1];
    struct scan *s = arg;
    struct link_info l;
    int slot, bank;

    (void)i;
    if (!link_read(h, &l) || strcmp(l.kind, "ifb") ||
        !netbuf_bank_parse(l.name, tag, &slot, &bank) || strcmp(tag, s->tag))
        return;
    s->slot[slot].bank[bank] = l.ifindex;
    s->slot[slot].slot = slot;
}

static void note_redirect(struct scan *s, const struct redirect_info *r)
{
    for (int i = 0; i < NETBUF_VIFS_MAX; i++) {
        struct nb_vif *v = s->slot + i;
        int bank = r->target == v->bank[1];

        if (!r->target || r->target != v->bank[bank])
            continue;
        v->ifindex = (int)(r->index & 0x7fffffff);
        v->active = bank;
        v->gone = !r->bound;
        if (r->bound && r->cookie.epoch >= s->cookie.epoch) {
            s->cookie.epoch = r->cookie.epoch;
            s->cookie.holding |= r->cookie.holding;
        }
    }
}

static void answer_redirects(void *arg, int i, struct nlmsghdr *h)
{
    struct redirect_info r[64];
    int n = redirects_read(h, r, 64);

    (void)i;
    for (int j = 0; j < n; j++)
        if (r[j].ours && r[j].index & 0x80000000u)
            note_redirect(arg, r + j);
}

static void answer_bank(void *arg, int i, struct nlmsghdr *h)
{
    struct nb_vif *v = arg;
    struct link_info l;
    struct qdisc_info q;

    if (i < 2 && qdisc_read(h, &q) && !strcmp(q.kind, "plug"))
        v->handle[i] = q.handle;
    else if (i == 2 && link_read(h, &l))
        memcpy(v->name, l.name, sizeof v->name);
}

/* The plugs' handles and the interface's name. A bank without its plug was
 * not finished: it is taken away, and made again by mend. */
static int describe(struct nlbatch *x, struct nb_vif *v, struct err *e)
{
    nlbatch_begin(x);
    qdisc_get(x, v->bank[0], TC_H_ROOT);
    qdisc_get(x, v->bank[1], TC_H_ROOT);
    link_get(x, v->ifindex ? v->ifindex : -1, NULL);
    if (nlbatch_run(x, answer_bank, v, e))
        return -1;
    if (!v->ifindex || x->error[2])
        v->gone = true;
    nlbatch_begin(x);
    for (int b = 0; b < 2; b++) {
        if (v->handle[b] || !v->bank[b])
            continue;
        link_del(x, v->bank[b]);
        v->bank[b] = 0;
    }
    return nlbatch_run(x, NULL, NULL, e);
}

/* A dump that changed under the kernel's hands is done again, a few times. */
static int dump(struct nlbatch *x, void (*request)(struct nlbatch *),
                nlbatch_answer *answer, void *arg, const char *what,
                struct err *e)
{
    for (int i = 0;; i++) {
        nlbatch_begin(x);
        request(x);
        if (nlbatch_run(x, answer, arg, e))
            return err_add(e, "%s", what);
        if (!x->error[0])
            return 0;
        if (x->error[0] != -EINTR || i == 10) {
            errno = -x->error[0];
            return err_sys(e, "%s", what);
        }
    }
}

int rt_scan(struct nb_kernel *k, const char *tag, struct nb_vif *v,
            struct netbuf_cookie *c, struct err *e)
{
    CLEANUP_FREE struct scan *s = calloc(1, sizeof *s);
    struct nlbatch *x = batch_of(k);
    int n = 0;

    if (!s)
        return err_sys(e, "look for leftovers");
    s->tag = tag;
    if (dump(x, link_list, answer_links, s, "list the interfaces", e))
        return -1;
    for (int i = 0; i < NETBUF_VIFS_MAX; i++)
        n += s->slot[i].bank[0] || s->slot[i].bank[1];
    *c = (struct netbuf_cookie){0};
    if (!n)
        return 0;
    if (dump(x, redirect_list, answer_redirects, s, "list the redirects", e))
        return -1;
    n = 0;
    for (int i = 0; i < NETBUF_VIFS_MAX; i++) {
        if (!s->slot[i].bank[0] && !s->slot[i].bank[1])
            continue;
        if (describe(x, s->slot + i, e))
            return -1;
        v[n++] = s->slot[i];
    }
    *c = s->cookie;
    return n;
}

struct dead {
    char tag[NETBUF_TAG_MAX + 1]; /* the first found; empty: none */
};

static void answer_dead(void *arg, int i, struct nlmsghdr *h)
{
    char tag[NETBUF_TAG_MAX + 1];
    struct dead *d = arg;
    struct link_info l;
    int slot, bank;

    (void)i;
    if (!d->tag[0] && link_read(h, &l) && !strcmp(l.kind, "ifb") &&
        netbuf_bank_parse(l.name, tag, &slot, &bank) &&
        netbuf_check_is_dead(tag))
        memcpy(d->tag, tag, sizeof d->tag);
}

int rt_dead_check(struct nb_kernel *k, char tag[NETBUF_TAG_MAX + 1],
                  struct err *e)
{
    struct dead d = {""};
    int rc =
        dump(batch_of(k), link_list, answer_dead, &d, "list the interfaces", e);

    memcpy(tag, d.tag, sizeof d.tag);
    return rc;
}
