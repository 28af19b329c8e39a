// SPDX-License-Identifier: Apache-2.0
/* Fencing: a program of the operator's makes sure that a host does not run
 * anything any more, by its power supply for example, before its VMs are
 * started elsewhere. It is called as `HOOK HOST VM`, with the name that the
 * host has as a peer, and has to end with status 0 when that is surely so. */
#ifndef HEARTBEAT_FENCE_H
#define HEARTBEAT_FENCE_H

#include "common/err.h"

/* Run it and wait, timeout_ms at most; then it and what it started are killed.
 * Blocks: for a thread of its own. 0 only for exit status 0. Its output goes to
 * our log. Needs no SIGCHLD, and takes nobody's. */
int fence_run(const char *hook, const char *host, const char *vm,
              unsigned timeout_ms, struct err *e);

#endif
