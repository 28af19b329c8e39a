// SPDX-License-Identifier: Apache-2.0
/* Prefaulted memory for an epoch; see staging.h. Called by capture.c on the
 * engine thread, never while the guest is stopped. */
#include "checkpoint/staging.h"
#include "common/log.h"
#include "hypervisor/hv.h"

#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE (2ul << 20)

int staging_open(struct staging *s, size_t capacity, struct err *e)
{
    size_t bytes = capacity * (HV_PAGE + sizeof *s->gfns);

    memset(s, 0, sizeof *s);
    s->area_bytes = (bytes + 2 * HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    s->area = mmap(NULL, s->area_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->area == MAP_FAILED) {
        s->area = NULL;
        return err_sys(e, "memory for %zu staged pages", capacity);
    }
    /* Advice first, then touch: a populated mapping would have got small
     * pages already. */
    madvise(s->area, s->area_bytes, MADV_HUGEPAGE);
    madvise(s->area, s->area_bytes, MADV_DONTFORK);
    memset(s->area, 0, s->area_bytes);
    if (mlock(s->area, s->area_bytes))
        log_warn("%zu MiB of staging memory can't be locked: %m",
                 s->area_bytes >> 20);
    uintptr_t at = ((uintptr_t)s->area + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    s->pages = (uint8_t *)s->area + (at - (uintptr_t)s->area);
    s->gfns = (uint64_t *)(void *)(s->pages + capacity * HV_PAGE);
    s->capacity = capacity;
    s->state.fixed = true;
    return 0;
}

void staging_state_reserve(struct staging *s, size_t bytes)
{
    buf_clear(&s->state);
    buf_reserve(&s->state, bytes);
    if (mlock(s->state.data, s->state.cap))
        log_debug("state memory can't be locked: %m");
}

void staging_close(struct staging *s)
{
    if (s->area)
        munmap(s->area, s->area_bytes);
    buf_free(&s->state);
    memset(s, 0, sizeof *s);
}
