// SPDX-License-Identifier: Apache-2.0
/* The VM's devices, followed while it is protected: a checkpoint device around
 * the network buffer. A network interface that is plugged in is taken hold of
 * at once; any device that comes or goes makes the replica void, because its
 * shell has the devices of the beginning. */
#ifndef AGENT_VIF_FOLLOW_H
#define AGENT_VIF_FOLLOW_H

#include "checkpoint/device.h"

/* What to follow. */
struct follow_config {
    uint32_t domid;
    /* hv->devices() when the VM was described: what the shell has. */
    const char *devices;
    /* The network buffer, not set up. Freed with this device; NULL where
     * nothing can be held (the fake hypervisor). */
    struct checkpoint_device *net;
};

/* Takes over c->net. Its operations use a hypervisor connection of their own,
 * on the engine's thread. */
struct checkpoint_device *vif_follow_new(const struct follow_config *c);

#endif
