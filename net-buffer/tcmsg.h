// SPDX-License-Identifier: Apache-2.0
/* The rtnetlink requests that net-buffer makes, and what it reads from the
 * answers. Each request is added to the batch; the caller runs it. Layouts
 * are those of linux/rtnetlink.h, pkt_sched.h, pkt_cls.h, tc_act/. */
#ifndef NET_BUFFER_TCMSG_H
#define NET_BUFFER_TCMSG_H

#include <stdbool.h>
#include <stdint.h>

#include "net-buffer/kernel.h"
#include "net-buffer/nlbatch.h"

#define PLUG_HANDLE 0x75010000u /* 7501: */

/* Interfaces. */
void link_add_ifb(struct nlbatch *x, const char *name);
/* No IPv6 addresses, so that nothing of the host's own gets into the plug. */
void link_set_quiet(struct nlbatch *x, int ifindex);
void link_set_up(struct nlbatch *x, int ifindex);
void link_del(struct nlbatch *x, int ifindex);
/* By number, or by name if ifindex is 0. */
void link_get(struct nlbatch *x, int ifindex, const char *name);
void link_list(struct nlbatch *x);

/* The plug of a bank. */
void plug_add(struct nlbatch *x, int ifindex, uint32_t handle, bool replace,
              uint32_t limit);
void plug_change(struct nlbatch *x, int ifindex, uint32_t handle, int action);
/* parent is TC_H_ROOT or TC_H_INGRESS. */
void qdisc_get(struct nlbatch *x, int ifindex, uint32_t parent);

/* The redirect of a vif. Its action's number is made from the vif's, which is
 * never used for another interface: so a message that comes too late can't
 * change somebody else's redirect. */
uint32_t redirect_index(int vif);
void ingress_add(struct nlbatch *x, int vif);
void ingress_del(struct nlbatch *x, int vif);
void filter_add(struct nlbatch *x, int vif, int bank,
                const struct netbuf_cookie *c);
void filter_list(struct nlbatch *x, int vif);
void redirect_set(struct nlbatch *x, int vif, int bank,
                  const struct netbuf_cookie *c);
void redirect_get(struct nlbatch *x, int vif);
void redirect_del(struct nlbatch *x, int vif);
void redirect_list(struct nlbatch *x);

/* Answers. Each returns false when the message is not of that kind. */
struct link_info {
    int ifindex;
    char name[NETBUF_NAME_MAX];
    char kind[16];
    uint64_t in_flight; /* received by an ifb, not yet passed on */
};
bool link_read(struct nlmsghdr *h, struct link_info *l);

struct qdisc_info {
    char kind[16];
    uint32_t handle;
    uint64_t packets, bytes, drops; /* queued now; dropped since it exists */
};
bool qdisc_read(struct nlmsghdr *h, struct qdisc_info *q);

struct redirect_info {
    uint32_t index;
    int target;
    bool bound; /* by a filter */
    bool ours;  /* has our cookie */
    struct netbuf_cookie cookie;
};
/* At most max of them; returns their number. */
int redirects_read(struct nlmsghdr *h, struct redirect_info *r, int max);

/* The kind of a filter, "" when it is no filter. */
void filter_read(struct nlmsghdr *h, char kind[16]);

#endif
