// SPDX-License-Identifier: Apache-2.0
/* The witness's state on disk: one file, replaced as a whole for each change
 * (written beside, synced, renamed, directory synced). It holds its own inode
 * and birth time, so that a copy, or an older one put back, is not taken for
 * it; and a checksum. A snapshot of the whole machine that the witness runs on
 * can't be told from the real thing: it is outside of what this can do.
 *
 *     8  "UNDRWTNS"
 *     4  version, 1
 *     8  inode;  8 birth, seconds;  4 birth, nanoseconds (zeroes on a file
 *        system that has none)
 *     4  length;  that many bytes of witness_put()
 *     8  XXH3 (64 bits) of all before
 *
 * All little-endian. The system calls are a table, so that a test can pull the
 * plug at each of them. */
#ifndef HEARTBEAT_WITNESS_FILE_H
#define HEARTBEAT_WITNESS_FILE_H

#include "heartbeat/witness.h"

struct file_id {
    uint64_t inode, birth_s;
    uint32_t birth_ns;
};

struct witness_dir;

struct witness_dir_ops {
    /* A new file `state.new`, an older one of that name is gone. */
    int (*create)(struct witness_dir *d, struct file_id *id, struct err *e);
    /* All of it into that file. */
    int (*write)(struct witness_dir *d, const void *p, size_t len,
                 struct err *e);
    /* ... is durable, and closed. */
    int (*sync)(struct witness_dir *d, struct err *e);
    /* `state.new` is `state` from now on. */
    int (*rename)(struct witness_dir *d, struct err *e);
    int (*sync_dir)(struct witness_dir *d, struct err *e);
    /* What `state` holds. ERR_GONE when there is none. */
    int (*load)(struct witness_dir *d, struct buf *out, struct file_id *id,
                struct err *e);
};

struct witness_dir {
    const struct witness_dir_ops *ops;
    int dir, fd; /* of the real one */
};

/* An existing directory. Only one process at a time: ERR_REFUSED. */
int witness_dir_open(struct witness_dir *d, const char *path, struct err *e);
void witness_dir_close(struct witness_dir *d);

/* witness->save, with the directory as `arg`. */
int witness_file_save(void *arg, const struct buf *state, struct err *e);

/* Read what is there, and set w->save. A file that is a copy, or damaged,
 * gives a sealed witness (of a damaged one no record is left, and nothing is
 * written over it). ERR_GONE when there is none: it is never made without
 * being asked for, since an empty memory would grant anything. */
int witness_file_load(struct witness_dir *d, struct witness *w, struct err *e);
/* The first one. ERR_REFUSED when there is one. */
int witness_file_init(struct witness_dir *d, struct witness *w, struct err *e);

#endif
