// SPDX-License-Identifier: Apache-2.0
/* What a predecessor of this primary's agent left at the VM when it died: a
 * suspend, log-dirty mode, and the network buffer, whose plug may be closed.
 * The first two are undone at once; the buffer stays until it was decided what
 * becomes of the output in it. Loop thread; the work is done by jobs. */
#ifndef AGENT_LEFTOVERS_H
#define AGENT_LEFTOVERS_H

#include <stdbool.h>
#include <stdint.h>

#include "net-buffer/netbuf.h"

struct primary;

/* The buffer of one domain. */
struct leftovers {
    char tag[NETBUF_TAG_MAX + 1];
    bool there;   /* it may be there */
    bool decided; /* it is to go; tried until it is gone */
    bool release; /* what it holds may get out */
    bool busy;    /* a job is at it */
    bool told;    /* that it does not go */
    uint64_t tried_ns;
};

/* The tag of a domain's buffer. */
void leftovers_tag(char tag[NETBUF_TAG_MAX + 1], uint32_t domid);
/* Undo what is left at the VM's domain, by a job; then primary_recovered(). */
void leftovers_recover(struct primary *p, uint32_t domid);
/* At a domain that is gone it holds output of nobody, and goes. */
void leftovers_sweep(struct primary *p, uint32_t domid);
/* It is decided; the first decision counts. Nothing there: nothing is done. */
void leftovers_end(struct primary *p, bool release);
/* False: nothing is there. True: `then` is called when nothing is; a later call
 * takes the place of an earlier one. */
bool leftovers_wait(struct primary *p, void (*then)(struct primary *));
/* Try again what failed. */
void leftovers_tick(struct primary *p, uint64_t now);

#endif
