// SPDX-License-Identifier: Apache-2.0
/* A takeover under way, in /run/understudy/UUID.takeover: what a successor of
 * the agent needs to finish it. It is there from the moment that the shell
 * holds the whole epoch until the record says that the VM runs. It does not
 * survive the host, no more than the shell does, and is not synced to a disk:
 * a takeover must not wait for one, nor fail because one is full. Any thread.
 */
#ifndef AGENT_MARK_H
#define AGENT_MARK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"

struct takeover_mark {
    uint64_t generation; /* that was won */
    uint32_t shell;
    uint64_t epoch;   /* that it holds */
    bool state_set;   /* its disks hold that, too, and the shell has its
                       * platform state; else: */
    struct buf state; /* this is it. Owned */
};

/* Replaces an older one in one step. */
int mark_write(const char *uuid, const struct takeover_mark *m, struct err *e);
/* ERR_GONE when there is none. */
int mark_read(const char *uuid, struct takeover_mark *m, struct err *e);
/* Fine when there is none. */
void mark_remove(const char *uuid);

#endif
