// SPDX-License-Identifier: Apache-2.0
/* Small files that are read and replaced as a whole. Blocks on the disk. Any
 * thread, any number of writers: each writes beside the file under a name of
 * its own, FILE.PID.XXXXXX.tmp. */
#ifndef COMMON_FILE_H
#define COMMON_FILE_H

#include <stdbool.h>

#include "common/bytes.h"
#include "common/err.h"

/* Make `path` hold these bytes, in one step; mode 0600. Until it returns 0, and
 * after an error or a crash, it is as it was before. With `durable` it survives
 * a power cut from then on (the file and its directory are synced). */
int file_replace(const char *path, const void *data, size_t len, bool durable,
                 struct err *e);
/* Make what was done to names in the directory of `path` durable. */
int file_sync_dir(const char *path, struct err *e);
/* Append what fd holds to *out; an error when it is more than `max` bytes.
 * `path` is for sentences. */
int file_read(int fd, const char *path, size_t max, struct buf *out,
              struct err *e);
/* The same of a file by name; ERR_GONE when there is none. Symbolic links are
 * not followed. */
int file_load(const char *path, size_t max, struct buf *out, struct err *e);

/* What a writer had begun, by the name of the file; *dead: that process is
 * gone, nobody will finish it. */
bool file_is_temporary(const char *name, bool *dead);

#endif
