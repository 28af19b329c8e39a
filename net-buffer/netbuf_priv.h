// SPDX-License-Identifier: Apache-2.0
/* The device's own structure, shared by netbuf.c (epochs) and vifs.c (which
 * interfaces). */
#ifndef NET_BUFFER_NETBUF_PRIV_H
#define NET_BUFFER_NETBUF_PRIV_H

#include "common/clock.h"
#include "net-buffer/kernel.h"

/* How long a commit waits for what it lets out. */
#define COMMIT_DRAIN_NS (50 * NS_PER_MS)

struct netbuf {
    struct checkpoint_device dev;
    struct nb_kernel *k;
    char tag[NETBUF_TAG_MAX + 1];
    struct netbuf_limits limits;
    uint32_t limit; /* hold_bytes_max as the kernel takes it */

    char wanted[NETBUF_VIFS_MAX][NETBUF_NAME_MAX]; /* the VM's interfaces */
    int n_wanted;
    struct nb_vif vif[NETBUF_VIFS_MAX]; /* those that we have */
    int n;

    bool up;
    bool holding;   /* an epoch was marked: the active banks are closed */
    bool marked;    /* the other banks hold marked_epoch */
    bool committed; /* marked_epoch was committed */
    uint64_t marked_epoch; /* the last one */
    uint64_t dropped;      /* by plugs that are no more */

    struct nb_step step[NB_STEPS];
    int steps;
};

struct nb_step *netbuf_step(struct netbuf *b, enum nb_op op, struct nb_vif *v,
                            int bank);
int netbuf_run(struct netbuf *b, struct err *e);
int netbuf_check_steps(struct netbuf *b, struct err *e);

/* Make the interfaces that we have those that are wanted. */
int netbuf_take_wanted(struct netbuf *b, struct err *e);
/* Take over what a predecessor with the same tag left when it died, before
 * setup. If it was holding, everything that is still queued stays held, both
 * banks are closed, and only commit of marked_epoch, abort or teardown lets it
 * go; otherwise output goes on flowing. Pieces without their counterpart (a vif
 * that is gone, a start cut short) are cleaned up. Afterwards `n`, `holding`
 * and marked_epoch say what was found, and the device is set up with it;
 * nothing found: the device is as new. */
int netbuf_adopt(struct netbuf *b, struct err *e);
/* Add the drops of a plug that is about to go to `dropped`. */
void netbuf_note_drops(struct netbuf *b, struct nb_vif *v, int bank);

#endif
