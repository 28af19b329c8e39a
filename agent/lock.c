// SPDX-License-Identifier: Apache-2.0
/* Locks by file; see lock.h. */
#include "agent/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

/* Its last holder may have removed the file after we opened it. */
static bool is_at(int fd, const char *path)
{
    struct stat ours, there;

    return !fstat(fd, &ours) && !stat(path, &there) &&
           ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

static int held(int fd, const char *path, struct err *e)
{
    char who[16] = "";
    ssize_t n = pread(fd, who, sizeof who - 1, 0);

    who[strcspn(who, "\n")] = '\0';
    return err_kind(e, ERR_REFUSED, "process %s holds %s",
                    n > 0 && who[0] ? who : "?", path);
}

int lock_take(const char *path, struct err *e)
{
    for (int i = 0; i < 100; i++) {
        CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return err_sys(e, "open %s", path);
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            if (errno == EWOULDBLOCK)
                return held(fd, path, e);
            return err_sys(e, "lock %s", path);
        }
        if (!is_at(fd, path))
            continue;
        if (ftruncate(fd, 0) || dprintf(fd, "%d\n", (int)getpid()) < 0)
            log_warn("write %s: %m", path);
        return take_fd(&fd);
    }
    return err_set(e, "%s is removed again and again", path);
}
