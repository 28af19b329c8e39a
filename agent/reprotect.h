// SPDX-License-Identifier: Apache-2.0
/* auto_reprotect: a VM that this host took over is protected again by itself as
 * soon as the host that it came from is back, as `understudy protect` would.
 * Part of the daemon; loop thread. */
#ifndef AGENT_REPROTECT_H
#define AGENT_REPROTECT_H

#include "agent/daemon.h"

/* Nothing where the configuration does not ask for it. */
void reprotect_start(struct daemon *d);
void reprotect_stop(struct daemon *d);

#endif
