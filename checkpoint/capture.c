// SPDX-License-Identifier: Apache-2.0
/* Capturing an epoch; see capture.h. Engine thread. From suspend() to
 * resume_guest() nothing may wait, allocate or log. */
#include "checkpoint/capture.h"
#include "checkpoint/harvest.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fault.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define RECOVER_MS 1000

int suspend_flag_open(struct suspend_flag *f, const char *path, struct err *e)
{
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "open %s", path);
    if (ftruncate(fd, HV_PAGE))
        return err_sys(e, "size of %s", path);
    void *p = mmap(NULL, HV_PAGE, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED)
        return err_sys(e, "map %s", path);
    f->word = p;
    *f->word = *f->word; /* fault the page in for writing, now */
    return 0;
}

void suspend_flag_set(struct suspend_flag *f, bool asked)
{
    __atomic_store_n(f->word, asked, __ATOMIC_SEQ_CST);
}

void suspend_flag_close(struct suspend_flag *f)
{
    if (f->word)
        munmap((void *)(uintptr_t)f->word, HV_PAGE);
    f->word = NULL;
}

static int state_size(struct capture *c, struct err *e)
{
    struct buf probe = {0};

    if (c->hv->ops->get_state(c->hv, c->domid, &probe, e)) {
        buf_free(&probe);
        return err_add(e, "platform state");
    }
    size_t len = probe.len;
    buf_free(&probe);
    if (len > EPOCH_MAX_STATE)
        return err_set(e, "platform state of %zu bytes is too large", len);
    staging_state_reserve(&c->staging, len * 2 + 65536);
    return 0;
}

int capture_open(struct capture *c, size_t staging_pages, struct err *e)
{
    c->words = bitmap_words(c->map->end_gfn);
    c->fresh = calloc(c->words, sizeof *c->fresh);
    c->pending = calloc(c->words, sizeof *c->pending);
    if (!c->fresh || !c->pending)
        return err_sys(e, "dirty bitmaps");
    /* Zeroed lazily by the kernel: touch, and keep in memory. */
    memset(c->fresh, 0, c->words * sizeof *c->fresh);
    memset(c->pending, 0, c->words * sizeof *c->pending);
    (void)!mlock(c->fresh, c->words * sizeof *c->fresh);
    (void)!mlock(c->pending, c->words * sizeof *c->pending);
    if (staging_open(&c->staging, staging_pages, e))
        return -1;
    return state_size(c, e);
}

void capture_close(struct capture *c)
{
    free(c->fresh);
    free(c->pending);
    c->fresh = c->pending = NULL;
    staging_close(&c->staging);
}

/* Runs of neighbouring frames are one copy. */
static void pages_copy(const struct capture *c, size_t n)
{
    const uint64_t *gfns = c->staging.gfns;

    for (size_t i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && gfns[i + run] == gfns[i] + run; run++)
            ;
        memcpy(c->staging.pages + i * HV_PAGE, c->map->base + gfns[i] * HV_PAGE,
               run * HV_PAGE);
    }
}

static int devices_mark(struct capture *c, uint64_t epoch, struct err *e)
{
    for (size_t i = 0; i < c->device_count; i++) {
        struct checkpoint_device *d = c->devices[i];
        if (d->ops->mark(d, epoch, e))
            return err_add(e, "%s: mark", d->ops->name);
    }
    return 0;
}

static uint32_t lap_us(uint64_t *since)
{
    uint64_t now = clock_ns(), us = (now - *since) / 1000;

    *since = now;
    return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static int fault_err(struct err *e, const char *name)
{
    return fault_point(name) ? err_set(e, "fault point %s", name) : 0;
}

/* The guest is stopped here, from beginning to end. */
static enum capture_result stopped_take(struct capture *c, uint64_t epoch,
                                        struct engine_epoch *stats,
                                        struct err *e)
{
    struct staging *s = &c->staging;
    uint64_t lap = clock_ns();

    s->count = 0;
    if (fault_err(e, "capture.suspended"))
        return CAPTURE_SKIPPED;
    if (c->hv->ops->logdirty_clean(c->hv, c->domid, c->fresh, c->map->end_gfn,
                                   true, e)) {
        err_add(e, "dirty bitmap");
        return CAPTURE_VOID;
    }
    uint64_t dirty = harvest_merge(c->pending, c->fresh, c->map->ram, c->words,
                                   s->gfns, s->capacity);
    stats->dirty_pages = dirty;
    if (dirty > s->capacity)
        return CAPTURE_FULL;
    pages_copy(c, (size_t)dirty);
    s->count = (size_t)dirty;
    stats->copy_us = lap_us(&lap);
    if (fault_err(e, "capture.copied"))
        return CAPTURE_SKIPPED;
    buf_clear(&s->state);
    if (c->hv->ops->get_state(c->hv, c->domid, &s->state, e)) {
        err_add(e, "platform state");
        return CAPTURE_SKIPPED;
    }
    if (s->state.overflow || s->state.len > EPOCH_MAX_STATE) {
        err_set(e, "the platform state has outgrown its buffer");
        return CAPTURE_SKIPPED;
    }
    stats->state_us = lap_us(&lap);
    if (devices_mark(c, epoch, e) || fault_err(e, "capture.marked"))
        return CAPTURE_SKIPPED;
    stats->mark_us = lap_us(&lap);
    return CAPTURE_TAKEN;
}

/* The end of the pause, as is `result` in the good case. suspend_recover()
 * looks at the guest afresh, and is fine with one that runs: somebody else has
 * resumed it (a failing `xl save` does), maybe while we copied. */
static enum capture_result
guest_resume(struct capture *c, enum capture_result result, struct err *e)
{
    struct err why = ERR_INIT;

    if (c->hv->ops->resume(c->hv, c->domid, &why)) {
        if (c->hv->ops->suspend_recover(c->hv, c->domid, RECOVER_MS, &why)) {
            err_set(e, "the guest is suspended and can't be resumed: %s",
                    why.text);
            return CAPTURE_STUCK;
        }
        if (result == CAPTURE_TAKEN) {
            err_set(e, "the guest may have run while it was copied: %s",
                    why.text);
            result = CAPTURE_SKIPPED;
        }
    }
    suspend_flag_set(&c->flag, false);
    return result;
}

static enum capture_result pause_take(struct capture *c, uint64_t epoch,
                                      struct engine_epoch *stats, struct err *e)
{
    uint64_t start = clock_ns(), lap = start;

    suspend_flag_set(&c->flag, true);
    enum hv_suspend_result suspended =
        c->hv->ops->suspend(c->hv, c->domid, c->deadline_ms, c->over, e);
    if (suspended == HV_LATE)
        return CAPTURE_LATE;
    if (suspended != HV_SUSPENDED) {
        suspend_flag_set(&c->flag, false);
        return suspended == HV_SHUT_DOWN ? CAPTURE_DOWN : CAPTURE_SKIPPED;
    }
    stats->suspend_us = lap_us(&lap);
    enum capture_result result = stopped_take(c, epoch, stats, e);
    lap = clock_ns();
    result = guest_resume(c, result, e);
    stats->resume_us = lap_us(&lap);
    stats->pause_us = lap_us(&start);
    return result;
}

enum capture_result capture_take(struct capture *c, uint64_t epoch,
                                 struct engine_epoch *stats, struct err *e)
{
    struct staging *s = &c->staging;

    if (fault_err(e, "capture.before"))
        return CAPTURE_SKIPPED;
    enum capture_result result = pause_take(c, epoch, stats, e);
    if (s->state.overflow)
        staging_state_reserve(s, s->state.cap * 2);
    if (fault_err(e, "capture.resumed") && result == CAPTURE_TAKEN)
        result = CAPTURE_SKIPPED;
    if (result == CAPTURE_TAKEN)
        for (size_t i = 0; i < s->count; i++)
            bitmap_clear(c->pending, s->gfns[i]);
    return result;
}

void capture_all_dirty(struct capture *c)
{
    memcpy(c->pending, c->map->ram, c->words * sizeof *c->pending);
    c->from = 0;
}

int capture_refresh(struct capture *c, uint64_t *count, struct err *e)
{
    if (c->hv->ops->logdirty_clean(c->hv, c->domid, c->fresh, c->map->end_gfn,
                                   false, e))
        return err_add(e, "dirty bitmap");
    *count =
        harvest_merge(c->pending, c->fresh, c->map->ram, c->words, NULL, 0);
    return 0;
}

bool capture_batch(struct capture *c)
{
    struct staging *s = &c->staging;

    s->count =
        harvest_take(c->pending, c->words, &c->from, s->gfns, s->capacity);
    if (!s->count)
        c->from = 0;
    pages_copy(c, s->count);
    return s->count > 0;
}
