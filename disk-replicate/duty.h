// SPDX-License-Identifier: Apache-2.0
/* What a block server does for protection, beside serving: nothing, or it is
 * the primary's and logs writes, or the backup's and keeps a replica. One a
 * server. docs/disk.md says why the order of its steps is right.
 *
 * On the disk of this host, in /var/lib/understudy/disk: KEY.replica says that
 * an image is a replica (`syncing`: and of no use yet, or `whole`), KEY.journal
 * is its journal. KEY is made of the image's path. As long as KEY.replica is
 * there, nobody's request is served from the image: every one fails. KEY.epoch
 * says of which epoch an image is that was a replica's, until it is written to.
 *
 * Fault points: duty.prepared (an epoch's commit record is written),
 * duty.secure (the epoch is committed; of a VM with several disks). */
#ifndef DISK_REPLICATE_DUTY_H
#define DISK_REPLICATE_DUTY_H

#include <stdbool.h>

#include "common/bytes.h"
#include "common/err.h"
#include "disk-replicate/disk_control.h"
#include "disk-replicate/image.h"
#include "disk-replicate/server.h"

/* `image` and `server` stay the caller's; from here on the server asks it
 * before, and tells it after, each request. */
int duty_open(struct duty **d, const char *id, struct image *image,
              struct server *server, struct err *e);
/* After the last request. `end`: the disk is taken away in order: a whole
 * replica becomes a plain image. */
void duty_close(struct duty *d, bool end);

/* One request of the agent; the answer is appended to *answer. The control
 * thread's, as the next one. */
int duty_do(struct duty *d, enum diskctl_type type, const void *p, size_t len,
            struct buf *answer, struct err *e);
/* The agent's connection ended. */
void duty_hangup(struct duty *d);

#endif
