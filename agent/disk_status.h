// SPDX-License-Identifier: Apache-2.0
/* Disks in the words of status and disk-list: what is seen of them without
 * asking their servers (disk-replicate/look.h). Reads small files in /run. */
#ifndef AGENT_DISK_STATUS_H
#define AGENT_DISK_STATUS_H

#include <jansson.h>

#include "disk-replicate/look.h"

/* id, image, bytes, role, state, pid; disk, copied_bytes, backlog_bytes where
 * they make sense. */
json_t *disk_status_json(const struct disk_view *v);

/* "disks" of a VM's status gets `list`, those of the domain; and `bytes`, if
 * they are not there. Nothing, when it has none. */
void disk_status_put(json_t *status, long long domid);

#endif
