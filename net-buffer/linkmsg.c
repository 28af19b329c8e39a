// SPDX-License-Identifier: Apache-2.0
/* rtnetlink requests of net-buffer, see tcmsg.h; the interfaces' half of
 * them. Called by kernel.c and scan.c on the device's thread. */
#include "net-buffer/tcmsg.h"

#include <string.h>
#include <net/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

/* How many released packets an ifb takes in before it stops the plug for a
 * moment; nothing is lost either way (drivers/net/ifb.c, ifb_xmit()). */
enum { IFB_QUEUE = 1000 };

void link_add_ifb(struct nlbatch *x, const char *name)
{
    struct ifinfomsg i = {.ifi_family = AF_UNSPEC};
    uint32_t queue = IFB_QUEUE;
    size_t info;

    nlbatch_add(x, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof i);
    nlbatch_str(x, IFLA_IFNAME, name);
    nlbatch_put(x, IFLA_TXQLEN, &queue, sizeof queue);
    info = nlbatch_nest(x, IFLA_LINKINFO);
    nlbatch_str(x, IFLA_INFO_KIND, "ifb");
    nlbatch_end(x, info);
}

void link_set_quiet(struct nlbatch *x, int ifindex)
{
    struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = ifindex};
    uint8_t mode = IN6_ADDR_GEN_MODE_NONE;
    size_t spec, inet6;

    nlbatch_add(x, RTM_SETLINK, 0, &i, sizeof i);
    spec = nlbatch_nest(x, IFLA_AF_SPEC);
    inet6 = nlbatch_nest(x, AF_INET6);
    nlbatch_put(x, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof mode);
    nlbatch_end(x, inet6);
    nlbatch_end(x, spec);
}

void link_set_up(struct nlbatch *x, int ifindex)
{
    struct ifinfomsg i = {
        .ifi_family = AF_UNSPEC,
        .ifi_index = ifindex,
        .ifi_flags = IFF_UP,
        .ifi_change = IFF_UP,
    };

    nlbatch_add(x, RTM_SETLINK, 0, &i, sizeof i);
}

void link_del(struct nlbatch *x, int ifindex)
{
    struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = ifindex};

    nlbatch_add(x, RTM_DELLINK, 0, &i, sizeof i);
}

void link_get(struct nlbatch *x, int ifindex, const char *name)
{
    struct ifinfomsg i = {.ifi_family = AF_UNSPEC, .ifi_index = ifindex};

    nlbatch_add(x, RTM_GETLINK, 0, &i, sizeof i);
    if (!ifindex)
        nlbatch_str(x, IFLA_IFNAME, name);
}

void link_list(struct nlbatch *x)
{
    struct ifinfomsg i = {.ifi_family = AF_UNSPEC};

    nlbatch_add(x, RTM_GETLINK, NLM_F_DUMP, &i, sizeof i);
}

/* An ifb counts as received what leaves its qdisc, and as sent what it gives
 * back to the vif (ifb_stats64()). */
static uint64_t in_flight(struct nlattr *a)
{
    struct rtnl_link_stats64 s;
    uint64_t out;

    memset(&s, 0, sizeof s);
    nla_memcpy(&s, a, sizeof s);
    out = s.tx_packets + s.rx_dropped;
    return s.rx_packets > out ? s.rx_packets - out : 0;
}

bool link_read(struct nlmsghdr *h, struct link_info *l)
{
    struct nlattr *tb[IFLA_MAX + 1], *info[IFLA_INFO_MAX + 1];
    struct ifinfomsg i;

    memset(l, 0, sizeof *l);
    if (h->nlmsg_type != RTM_NEWLINK ||
        nlmsg_parse(h, sizeof i, tb, IFLA_MAX, NULL) < 0 || !tb[IFLA_IFNAME])
        return false;
    memcpy(&i, nlmsg_data(h), sizeof i);
    l->ifindex = i.ifi_index;
    nla_strlcpy(l->name, tb[IFLA_IFNAME], sizeof l->name);
    if (tb[IFLA_STATS64])
        l->in_flight = in_flight(tb[IFLA_STATS64]);
    if (tb[IFLA_LINKINFO] &&
        nla_parse_nested(info, IFLA_INFO_MAX, tb[IFLA_LINKINFO], NULL) >= 0 &&
        info[IFLA_INFO_KIND])
        nla_strlcpy(l->kind, info[IFLA_INFO_KIND], sizeof l->kind);
    return true;
}
