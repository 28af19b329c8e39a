// SPDX-License-Identifier: Apache-2.0
/* What a backup keeps on its disk of a VM, to start it anew when the replica's
 * memory is lost: its blueprint (hv.h), and which images its disks are. Written
 * when the first epoch is committed, in /var/lib/understudy/cold/UUID. It says
 * nothing of what the images hold: that is for disk-replicate/cold.h. Blocks on
 * the disk; any thread, one writer a VM. */
#ifndef AGENT_COLD_H
#define AGENT_COLD_H

#include <stdbool.h>

#include "common/bytes.h"
#include "common/err.h"
#include "disk-replicate/cold.h"

struct cold_vm {
    struct buf blueprint; /* owned */
    struct cold_disks disks;
};

/* Durable when it returns 0. */
int cold_save(const char *uuid, const struct cold_vm *vm, struct err *e);
/* ERR_GONE when there is none. */
int cold_load(const char *uuid, struct cold_vm *vm, struct err *e);
/* Is there one? */
bool cold_is(const char *uuid);
/* Fine when there is none. */
void cold_remove(const char *uuid);

#endif
