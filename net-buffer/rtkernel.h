// SPDX-License-Identifier: Apache-2.0
/* What kernel.c and scan.c share: the rtnetlink side of the seam. */
#ifndef NET_BUFFER_RTKERNEL_H
#define NET_BUFFER_RTKERNEL_H

#include "net-buffer/kernel.h"
#include "net-buffer/tcmsg.h"

struct rtkernel {
    struct nb_kernel k;
    struct nlbatch *x;
};

static inline struct nlbatch *batch_of(struct nb_kernel *k)
{
    return ((struct rtkernel *)k)->x;
}

/* Run the batch; the first failed request becomes the error "WHAT: why". */
int rt_must(struct nlbatch *x, nlbatch_answer *answer, void *arg,
            const char *what, struct err *e);

/* ERR_REFUSED when the interface has ingress rules that are not ours, or that
 * a predecessor left; *there: an ingress qdisc without rules exists. */
int rt_vet_ingress(struct nlbatch *x, const struct nb_vif *v, bool *there,
                   struct err *e);

/* The tag of a check (see netbuf_check()) whose process is dead; "": none. */
int rt_dead_check(struct nb_kernel *k, char tag[NETBUF_TAG_MAX + 1],
                  struct err *e);

int rt_scan(struct nb_kernel *k, const char *tag, struct nb_vif *v,
            struct netbuf_cookie *c, struct err *e);

#endif
