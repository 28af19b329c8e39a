// SPDX-License-Identifier: Apache-2.0
/* What this host knows of the disks that are being served: one file a disk in
 * /run/understudy/disk (UNDERSTUDY_ROOT in front of it), KEY=VALUE lines. Its
 * keeper and its server hold a lock on it, the same one: while it is held, one
 * of them lives. */
#ifndef DISK_REPLICATE_RECORD_H
#define DISK_REPLICATE_RECORD_H

#include <stdbool.h>

#include "disk-replicate/disk.h"

#define RECORD_PATH 384

/* 1 to 63 of [A-Za-z0-9._-], not beginning with a dot. */
bool record_id_valid(const char *id);

/* The file, written and locked: *lock_fd, not closed on exec or fork. Makes
 * the directory. ERR_REFUSED: it is locked, that disk is being served. */
int record_create(const struct disk_config *c, int *lock_fd, struct err *e);
/* Fills id (which may be the argument), image, read_only, workers, request_s,
 * dead_s. *server is the process that was its server last, 0: none. ERR_GONE.
 */
int record_load(const char *id, struct disk_config *c, long *server,
                struct err *e);
/* The lock of one that is there, waiting for it. ERR_REFUSED: still held. */
int record_lock(const char *id, unsigned wait_ms, int *lock_fd, struct err *e);
void record_remove(const char *id);
/* Note that this process is its server. */
void record_server(const char *id);
/* The path of a file beside it: its name is the id and `suffix`, one of .log,
 * .ctl (the socket of disk_control.h), .page (its shared page), .touched
 * (touched.h). */
void record_path(const char *id, const char *suffix, char out[RECORD_PATH]);
/* The log, for appending; -1. */
int record_log_open(const char *id);

/* Call `each` with all ids; returns their number, or -1. */
int record_list(void (*each)(void *arg, const char *id), void *arg,
                struct err *e);

#endif
