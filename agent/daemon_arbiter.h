// SPDX-License-Identifier: Apache-2.0
/* The arbiter of this host: which one it is (understudyd.conf, or what
 * `understudy arbiter set` wrote down), how it stands, and what `protect` has
 * to settle with it. Each agent has a connection of its own (agent_lease.c).
 * Loop thread. */
#ifndef AGENT_DAEMON_ARBITER_H
#define AGENT_DAEMON_ARBITER_H

#include "agent/control.h"
#include "agent/hosts.h"

/* Read which one, and connect. */
int darbiter_start(struct daemon *d, struct err *e);
void darbiter_stop(struct daemon *d);

/* The arbiter that a VM gets: `asked` is what the operator typed, or "" for
 * the configured one. ERR_USAGE when there is none, ERR_REFUSED when it is
 * another than the configured one. */
int darbiter_choose(const struct daemon *d, const char *asked, char line[512],
                    struct err *e);
/* A peer means `line`: do we mean the same? Fills ours. ERR_REFUSED. */
int darbiter_agrees(const struct daemon *d, const char *line, char ours[512],
                    struct err *e);
/* ERR_REFUSED, and why, when it can't be asked now. */
int darbiter_up(const struct daemon *d, struct err *e);

/* Before the record of a VM is written. Exactly one `done` follows, from the
 * loop. `generation` is what the VM begins with, where it was registered. */
typedef void darbiter_done(void *arg, uint64_t generation,
                           const struct err *why);
/* Can the arbiter be reached from here and from `h`, and is it the same? */
void darbiter_meet(struct daemon *d, struct host *h, darbiter_done *done,
                   void *arg);
/* The VM runs here, and `h` is to be its backup. ERR_REFUSED when the arbiter
 * knows it as somebody else's. */
void darbiter_register(struct daemon *d, const char *uuid, struct host *h,
                       darbiter_done *done, void *arg);

void control_arbiter_set(struct op *op);
void control_arbiter_show(struct op *op);

#endif
