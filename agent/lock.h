// SPDX-License-Identifier: Apache-2.0
/* One process a file: the daemon of a host, the agent of a VM. Held until the
 * process is gone, and no longer; children that are started don't have it. */
#ifndef AGENT_LOCK_H
#define AGENT_LOCK_H

#include "common/err.h"

/* Lock `path`, created when missing, and write our process id into it. Returns
 * the descriptor that holds it; ERR_REFUSED, naming who, when another process
 * has it. Who removes the file does so while it holds it. */
int lock_take(const char *path, struct err *e);

#endif
