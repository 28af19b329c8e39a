// SPDX-License-Identifier: Apache-2.0
/* The seam between the device (netbuf.c: which bank is open when) and the
 * kernel (kernel.c: rtnetlink). Behind it stand rtnetlink and, in the unit
 * tests, a model of it. One thread, the device's. */
#ifndef NET_BUFFER_KERNEL_H
#define NET_BUFFER_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "net-buffer/names.h"
#include "net-buffer/netbuf.h"

/* One redirected interface with its two banks. */
struct nb_vif {
    char name[NETBUF_NAME_MAX];
    int ifindex;
    int slot;
    /* kept by the kernel side */
    int bank[2];        /* interface numbers, 0: none */
    uint32_t handle[2]; /* of the plugs; a purge changes it */
    /* kept by the device */
    int active;   /* the bank that the redirect points to */
    bool open[2]; /* the bank's plug lets everything through */
    bool gone;    /* the interface does not exist any more */
    bool lost;    /* the redirect does not exist any more */
};

enum nb_op {
    NB_CLOSE,  /* plug: what is in the bank and what comes stays */
    NB_OPEN,   /* plug: everything leaves, now and until closed */
    NB_POINT,  /* the vif's packets go to this bank from now on; in: cookie;
                * out: bound */
    NB_STAT,   /* out: packets, bytes, drops */
    NB_FLIGHT, /* out: packets: how many left the plug and are still in the
                * ifb, on their way to the vif */
    NB_CHECK,  /* out: bound */
};

struct nb_step {
    enum nb_op op;
    struct nb_vif *v;
    int bank;
    struct netbuf_cookie cookie;
    /* results */
    int r;      /* 0 or -errno */
    bool bound; /* the filter uses the redirect that was changed or looked at */
    uint64_t packets, bytes, drops;
};

#define NB_STEPS (4 * NETBUF_VIFS_MAX)

struct nb_kernel {
    const struct nb_kernel_ops *ops;
};

struct nb_kernel_ops {
    /* Do the steps in their order, whatever becomes of each, in one call to
     * the kernel and without allocating. At most NB_STEPS. -1: it is not
     * known what was done. */
    int (*run)(struct nb_kernel *k, struct nb_step *s, int n, struct err *e);
    /* The interface's number into *ifindex, or ERR_GONE. */
    int (*find)(struct nb_kernel *k, const char *name, int *ifindex,
                struct err *e);
    /* Whether an interface with this number exists. */
    bool (*exists)(struct nb_kernel *k, int ifindex);
    /* Build banks (bank 0 active; open unless the cookie says holding, bank 1
     * closed) and the redirect, for v->name, v->ifindex, v->slot. On an error
     * nothing of it is left. */
    int (*make)(struct nb_kernel *k, const char *tag, struct nb_vif *v,
                const struct netbuf_cookie *c, uint32_t limit, struct err *e);
    /* Build again those banks of v that are missing, closed. */
    int (*mend)(struct nb_kernel *k, const char *tag, struct nb_vif *v,
                uint32_t limit, struct err *e);
    /* Throw away what is in the bank; its plug is closed afterwards. */
    int (*purge)(struct nb_kernel *k, struct nb_vif *v, int bank,
                 uint32_t limit, struct err *e);
    /* Remove the redirect: from now on the vif's packets go straight on. */
    void (*direct)(struct nb_kernel *k, struct nb_vif *v);
    /* Remove the redirect if it is there, then the banks. What is missing is
     * fine. */
    void (*unmake)(struct nb_kernel *k, struct nb_vif *v);
    /* What there is with this tag, at most NETBUF_VIFS_MAX: returns their
     * number or -1. Of an entry without a redirect `gone` is set. `active` is
     * where the redirect points. cookie: of the latest epoch. */
    int (*scan)(struct nb_kernel *k, const char *tag, struct nb_vif *v,
                struct netbuf_cookie *c, struct err *e);
    void (*free)(struct nb_kernel *k);
};

/* The real one. */
struct nb_kernel *nb_kernel_open(struct err *e);

/* netbuf_open() on another kernel, which the device then owns, also when it
 * fails; for tests. */
int netbuf_open_on(struct nb_kernel *k, const char *tag,
                   const struct netbuf_limits *limits,
                   struct checkpoint_device **out, struct err *e);

#endif
