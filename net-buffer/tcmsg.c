// SPDX-License-Identifier: Apache-2.0
/* rtnetlink requests of net-buffer, see tcmsg.h; traffic control's half of
 * them. Called by kernel.c and scan.c on the device's thread. */
#include "net-buffer/tcmsg.h"

#include <arpa/inet.h>
#include <string.h>
#include <linux/gen_stats.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_gact.h>
#include <linux/tc_act/tc_mirred.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

/* Priority 1 of all protocols: the first and only filter there is. */
#define FILTER_INFO (1u << 16 | htons(ETH_P_ALL))

static struct tcmsg tcm(int ifindex, uint32_t parent, uint32_t handle)
{
    return (struct tcmsg){
        .tcm_family = AF_UNSPEC,
        .tcm_ifindex = ifindex,
        .tcm_parent = parent,
        .tcm_handle = handle,
    };
}

static void plug_options(struct nlbatch *x, int action, uint32_t limit)
{
    struct tc_plug_qopt o = {.action = action, .limit = limit};

    nlbatch_str(x, TCA_KIND, "plug");
    nlbatch_put(x, TCA_OPTIONS, &o, sizeof o);
}

void plug_add(struct nlbatch *x, int ifindex, uint32_t handle, bool replace,
              uint32_t limit)
{
    struct tcmsg t = tcm(ifindex, TC_H_ROOT, handle);

    nlbatch_add(x, RTM_NEWQDISC,
                NLM_F_CREATE | (replace ? NLM_F_REPLACE : NLM_F_EXCL), &t,
                sizeof t);
    plug_options(x, 0, limit);
}

void plug_change(struct nlbatch *x, int ifindex, uint32_t handle, int action)
{
    struct tcmsg t = tcm(ifindex, TC_H_ROOT, handle);

    nlbatch_add(x, RTM_NEWQDISC, 0, &t, sizeof t);
    plug_options(x, action, 0);
}

void qdisc_get(struct nlbatch *x, int ifindex, uint32_t parent)
{
    struct tcmsg t = tcm(ifindex, parent, 0);

    /* Without ECHO the answer goes to listeners only (qdisc_notify()). */
    nlbatch_add(x, RTM_GETQDISC, NLM_F_ECHO, &t, sizeof t);
}

void ingress_add(struct nlbatch *x, int vif)
{
    struct tcmsg t = tcm(vif, TC_H_INGRESS, TC_H_MAKE(TC_H_INGRESS, 0));

    nlbatch_add(x, RTM_NEWQDISC, NLM_F_CREATE, &t, sizeof t);
    nlbatch_str(x, TCA_KIND, "ingress");
}

void ingress_del(struct nlbatch *x, int vif)
{
    struct tcmsg t = tcm(vif, TC_H_INGRESS, TC_H_MAKE(TC_H_INGRESS, 0));

    nlbatch_add(x, RTM_DELQDISC, 0, &t, sizeof t);
}

uint32_t redirect_index(int vif)
{
    return 0x80000000u | (uint32_t)vif;
}

/* TC_ACT_PIPE makes mirred pass on a copy instead of the guest's own pages,
 * see netbuf.h; the drop that follows frees the original. */
static void put_redirect(struct nlbatch *x, int vif, int bank,
                         const struct netbuf_cookie *c)
{
    struct tc_mirred m = {
        .index = redirect_index(vif),
        .action = TC_ACT_PIPE,
        .eaction = TCA_EGRESS_REDIR,
        .ifindex = (uint32_t)bank,
    };
    uint8_t cookie[NETBUF_COOKIE_SIZE];
    size_t one = nlbatch_nest(x, 1), options;

    nlbatch_str(x, TCA_ACT_KIND, "mirred");
    options = nlbatch_nest(x, TCA_ACT_OPTIONS);
    nlbatch_put(x, TCA_MIRRED_PARMS, &m, sizeof m);
    nlbatch_end(x, options);
    netbuf_cookie_write(cookie, c);
    nlbatch_put(x, TCA_ACT_COOKIE, cookie, sizeof cookie);
    nlbatch_end(x, one);
}

static void put_drop(struct nlbatch *x)
{
    struct tc_gact g = {.action = TC_ACT_SHOT};
    size_t two = nlbatch_nest(x, 2), options;

    nlbatch_str(x, TCA_ACT_KIND, "gact");
    options = nlbatch_nest(x, TCA_ACT_OPTIONS);
    nlbatch_put(x, TCA_GACT_PARMS, &g, sizeof g);
    nlbatch_end(x, options);
    nlbatch_end(x, two);
}

void filter_add(struct nlbatch *x, int vif, int bank,
                const struct netbuf_cookie *c)
{
    struct tcmsg t = tcm(vif, TC_H_MAKE(TC_H_INGRESS, 0), 1);
    uint32_t flags = TCA_CLS_FLAGS_SKIP_HW;
    size_t options, actions;

    t.tcm_info = FILTER_INFO;
    nlbatch_add(x, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &t, sizeof t);
    nlbatch_str(x, TCA_KIND, "matchall");
    options = nlbatch_nest(x, TCA_OPTIONS);
    nlbatch_put(x, TCA_MATCHALL_FLAGS, &flags, sizeof flags);
    actions = nlbatch_nest(x, TCA_MATCHALL_ACT);
    put_redirect(x, vif, bank, c);
    put_drop(x);
    nlbatch_end(x, actions);
    nlbatch_end(x, options);
}

void filter_list(struct nlbatch *x, int vif)
{
    struct tcmsg t = tcm(vif, TC_H_MAKE(TC_H_INGRESS, 0), 0);

    nlbatch_add(x, RTM_GETTFILTER, NLM_F_DUMP, &t, sizeof t);
}

/* With REPLACE the kernel changes the action in place (act_mirred.c), and
 * makes a new one that no filter uses if it is not there: the echoed answer
 * tells (`bound`). */
void redirect_set(struct nlbatch *x, int vif, int bank,
                  const struct netbuf_cookie *c)
{
    struct tcamsg a = {.tca_family = AF_UNSPEC};
    size_t tab;

    nlbatch_add(x, RTM_NEWACTION, NLM_F_REPLACE | NLM_F_ECHO, &a, sizeof a);
    tab = nlbatch_nest(x, TCA_ACT_TAB);
    put_redirect(x, vif, bank, c);
    nlbatch_end(x, tab);
}

static void name_redirect(struct nlbatch *x, int type, int flags, int vif)
{
    struct tcamsg a = {.tca_family = AF_UNSPEC};
    uint32_t index = redirect_index(vif);
    size_t tab, one;

    nlbatch_add(x, type, flags, &a, sizeof a);
    tab = nlbatch_nest(x, TCA_ACT_TAB);
    one = nlbatch_nest(x, 1);
    nlbatch_str(x, TCA_ACT_KIND, "mirred");
    if (vif)
        nlbatch_put(x, TCA_ACT_INDEX, &index, sizeof index);
    nlbatch_end(x, one);
    nlbatch_end(x, tab);
}

void redirect_get(struct nlbatch *x, int vif)
{
    name_redirect(x, RTM_GETACTION, 0, vif);
}

void redirect_del(struct nlbatch *x, int vif)
{
    name_redirect(x, RTM_DELACTION, 0, vif);
}

void redirect_list(struct nlbatch *x)
{
    name_redirect(x, RTM_GETACTION, NLM_F_DUMP, 0);
}

static void read_queue(struct nlattr *stats, struct qdisc_info *q)
{
    struct nlattr *tb[TCA_STATS_MAX + 1];
    struct gnet_stats_queue s;

    if (nla_parse_nested(tb, TCA_STATS_MAX, stats, NULL) < 0 ||
        !tb[TCA_STATS_QUEUE])
        return;
    memset(&s, 0, sizeof s);
    nla_memcpy(&s, tb[TCA_STATS_QUEUE], sizeof s);
    q->packets = s.qlen;
    q->bytes = s.backlog;
    q->drops = s.drops;
}

bool qdisc_read(struct nlmsghdr *h, struct qdisc_info *q)
{
    struct nlattr *tb[TCA_MAX + 1];
    struct tcmsg t;

    memset(q, 0, sizeof *q);
    if (h->nlmsg_type != RTM_NEWQDISC ||
        nlmsg_parse(h, sizeof t, tb, TCA_MAX, NULL) < 0)
        return false;
    memcpy(&t, nlmsg_data(h), sizeof t);
    q->handle = t.tcm_handle;
    if (tb[TCA_KIND])
        nla_strlcpy(q->kind, tb[TCA_KIND], sizeof q->kind);
    if (tb[TCA_STATS2])
        read_queue(tb[TCA_STATS2], q);
    return true;
}

static bool redirect_read(struct nlattr *a, struct redirect_info *r)
{
    struct nlattr *tb[TCA_ACT_MAX + 1], *o[TCA_MIRRED_MAX + 1];
    struct tc_mirred m;

    memset(r, 0, sizeof *r);
    memset(&m, 0, sizeof m);
    if (nla_parse_nested(tb, TCA_ACT_MAX, a, NULL) < 0 || !tb[TCA_ACT_KIND] ||
        nla_strcmp(tb[TCA_ACT_KIND], "mirred") || !tb[TCA_ACT_OPTIONS] ||
        nla_parse_nested(o, TCA_MIRRED_MAX, tb[TCA_ACT_OPTIONS], NULL) < 0 ||
        !o[TCA_MIRRED_PARMS])
        return false;
    nla_memcpy(&m, o[TCA_MIRRED_PARMS], sizeof m);
    r->index = m.index;
    r->target = (int)m.ifindex;
    r->bound = m.bindcnt > 0;
    r->ours =
        tb[TCA_ACT_COOKIE] &&
        netbuf_cookie_read(nla_data(tb[TCA_ACT_COOKIE]),
                           (size_t)nla_len(tb[TCA_ACT_COOKIE]), &r->cookie);
    return true;
}

int redirects_read(struct nlmsghdr *h, struct redirect_info *r, int max)
{
    struct nlattr *tb[TCA_ROOT_MAX + 1], *a;
    int n = 0, rest;

    if ((h->nlmsg_type != RTM_NEWACTION && h->nlmsg_type != RTM_GETACTION) ||
        nlmsg_parse(h, sizeof(struct tcamsg), tb, TCA_ROOT_MAX, NULL) < 0 ||
        !tb[TCA_ACT_TAB])
        return 0;
    nla_for_each_nested(a, tb[TCA_ACT_TAB], rest)
    {
        if (n < max && redirect_read(a, r + n))
            n++;
    }
    return n;
}

void filter_read(struct nlmsghdr *h, char kind[16])
{
    struct nlattr *tb[TCA_MAX + 1];

    kind[0] = 0;
    if (h->nlmsg_type == RTM_NEWTFILTER &&
        nlmsg_parse(h, sizeof(struct tcmsg), tb, TCA_MAX, NULL) >= 0 &&
        tb[TCA_KIND])
        nla_strlcpy(kind, tb[TCA_KIND], 16);
}
