// SPDX-License-Identifier: Apache-2.0
/* A watcher's lock file: who watches a VM, known to the watcher itself
 * (hypervisor/xl/watch.c) and to those that start, ask for and end it
 * (xen_watcher.c). Locks of fcntl(2): they go with their process, are not
 * inherited, and name their holder. */
#ifndef HYPERVISOR_WATCHER_H
#define HYPERVISOR_WATCHER_H

#include <fcntl.h>
#include <unistd.h>

enum watcher_lock {
    WATCHER_LIVES, /* byte 0: held for as long as the watcher lives */
    WATCHER_ACTS,  /* byte 1: held while it acts */
};

static inline struct flock watcher_flock(short type, enum watcher_lock which)
{
    return (struct flock){.l_type = type,
                          .l_whence = SEEK_SET,
                          .l_start = (off_t)which,
                          .l_len = 1};
}

/* The pid that holds it; 0: nobody. */
static inline int watcher_holder(const char *path, enum watcher_lock which)
{
    struct flock l = watcher_flock(F_WRLCK, which);
    int fd = open(path, O_RDWR | O_CLOEXEC), pid = 0;

    if (fd < 0)
        return 0;
    if (!fcntl(fd, F_GETLK, &l) && l.l_type != F_UNLCK)
        pid = (int)l.l_pid;
    close(fd);
    return pid;
}

#endif
