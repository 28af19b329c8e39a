// SPDX-License-Identifier: Apache-2.0
/* Cleanup by scope: `CLEANUP_FREE char *s = ...` frees s when the scope ends,
 * `CLEANUP_CLOSE int fd = -1` closes it. Move ownership out with take_ptr() or
 * take_fd(). */
#ifndef COMMON_CLEANUP_H
#define COMMON_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_close(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define CLEANUP_FREE  __attribute__((cleanup(cleanup_free)))
#define CLEANUP_CLOSE __attribute__((cleanup(cleanup_close)))

/* The descriptor, which the scope then no longer closes. */
static inline int take_fd(int *fd)
{
    int r = *fd;

    *fd = -1;
    return r;
}

#define take_ptr(p)                                                            \
    ({                                                                         \
        __typeof__(p) taken_ = (p);                                            \
        (p) = NULL;                                                            \
        taken_;                                                                \
    })

#endif
