// SPDX-License-Identifier: Apache-2.0
/* The primary's log of a block server; see duty.h. The workers call the watch,
 * the control thread what the agent asks. */
#include "disk-replicate/duty_private.h"

#include <errno.h>

#include "common/clock.h"
#include "common/log.h"

/* How long a write waits for room in the log. A guest whose tasks wait for
 * their disk can't be suspended, so it must not wait for the epoch that would
 * make room. */
#define ROOM_MS 2000
/* A writer is slowed down so that small writes take this time to fill the other
 * half of what the log may hold: each byte takes the longer the more of it is
 * used, in percent, whose sum is PERCENTS. */
#define PACE_FULL_NS (4 * NS_PER_SEC)
#define PERCENTS     5050
#define PACE_MAX_NS  (2 * NS_PER_SEC)
#define ZEROED_BYTES 64 /* a block of zeroes counts for, without a page */
/* The percent at which it takes a worker's time to wait for room. */
#define READY_PERCENT 50
#define STEP_BYTES    EXTENTS_DATA_MAX /* that are logged at once */
#define PAGES_MAX     (64u << 20 >> 12)
#define REBUILD_STEP  16 /* regions a request */
#define REGION        TOUCHED_REGION

/* --- The workers -----------------------------------------------------------
 */

static void flights_touch(struct duty *d)
{
    for (const struct flight *f = d->flight; f < d->flight + SERVER_WORKERS_MAX;
         f++)
        if (f->used)
            touched_set(&d->touched, f->offset, f->len);
}

/* The lock is held. What is under way when a cut comes may be logged before or
 * after it. */
static uint64_t cut_look(struct duty *d)
{
    uint64_t cut = __atomic_load_n(&d->page->cut, __ATOMIC_SEQ_CST);

    if (touched_roll(&d->touched, cut))
        flights_touch(d);
    return cut;
}

/* The lock is held. What is written while nobody logs, a log that is made again
 * lacks as well. */
static void flight_begin(struct duty *d, uint64_t offset, uint32_t len)
{
    struct flight *f = d->flight;

    while (f->used)
        f++;
    *f = (struct flight){offset, len, true};
    (void)cut_look(d);
    touched_set(&d->touched, offset, len);
}

static int watch_ask(struct server_watch *w, bool writes, uint64_t offset,
                     uint32_t len)
{
    struct duty *d = (struct duty *)w;

    pthread_mutex_lock(&d->lock);
    bool serves = d->mode == DUTY_PLAIN || d->mode == DUTY_LOG;
    if (serves && writes)
        flight_begin(d, offset, len);
    pthread_mutex_unlock(&d->lock);
    if (!serves)
        return EIO;
    if (writes) {
        duty_exact_forget(d);
        intent_duty_write(d, offset, len);
    }
    return 0;
}

static void watch_end(struct server_watch *w, uint64_t offset, uint32_t len)
{
    struct duty *d = (struct duty *)w;
    struct flight *f = d->flight;

    pthread_mutex_lock(&d->lock);
    while (!f->used || f->offset != offset || f->len != len)
        f++;
    f->used = false;
    pthread_mutex_unlock(&d->lock);
}

static void load_note(struct duty *d)
{
    epochlog_limit(d->log, __atomic_load_n(&d->page->limit, __ATOMIC_RELAXED));
    struct epochlog_load l = epochlog_load(d->log);

    page_store(&d->page->held_bytes, (uint64_t)l.pages_used * EPOCHLOG_BLOCK);
    page_store(&d->page->early, l.early);
}

/* The lock is held. The log is of no more use; its agent sees that. */
static void log_lose(struct duty *d, enum disk_lost why)
{
    if (!d->page->lost) {
        log_warn("disk=%s the log of this epoch is lost: %s", d->id,
                 diskctl_lost(why));
        page_store(&d->page->lost, why);
    }
    d->pace_ns = 0;
    pthread_cond_broadcast(&d->room);
}

/* The lock is held. */
static void pace_reset(struct duty *d)
{
    if (d->pace_ns)
        pthread_cond_broadcast(&d->room);
    d->pace_ns = 0;
}

/* The lock is held. A writer that is faster than the link becomes as slow, and
 * no write waits for long. Until when this one does; 0: it need not. */
static uint64_t pace(struct duty *d, uint32_t bytes)
{
    struct epochlog_load l = epochlog_load(d->log);
    uint64_t percent = l.over_percent < 100 ? l.over_percent : 100;

    if (!percent) {
        pace_reset(d);
        return 0;
    }
    uint64_t now = clock_ns();
    if (d->pace_ns < now)
        d->pace_ns = now;
    d->pace_ns +=
        bytes * percent * (PACE_FULL_NS / PERCENTS) / (l.half / 100 + 1);
    if (d->pace_ns > now + PACE_MAX_NS)
        d->pace_ns = now + PACE_MAX_NS;
    return d->pace_ns;
}

/* Until then, or until the clock was set back: a commit has made room. */
static void watch_rest(struct server_watch *w, uint64_t until_ns)
{
    struct duty *d = (struct duty *)w;
    struct timespec until = clock_timespec(until_ns);
    int r = 0;

    pthread_mutex_lock(&d->lock);
    while (!r && d->pace_ns >= until_ns)
        r = pthread_cond_timedwait(&d->room, &d->lock, &until);
    pthread_mutex_unlock(&d->lock);
}

static bool watch_ready(struct server_watch *w, uint64_t offset, uint32_t len)
{
    struct duty *d = (struct duty *)w;

    if (__atomic_load_n(&d->exact, __ATOMIC_SEQ_CST))
        return false;
    pthread_mutex_lock(&d->lock);
    bool ready =
        d->mode == DUTY_PLAIN ||
        (d->mode == DUTY_LOG &&
         (d->page->lost || epochlog_load(d->log).over_percent < READY_PERCENT));
    pthread_mutex_unlock(&d->lock);
    return ready && intent_duty_ready(d, offset, len);
}

/* The lock is held, and given up while it waits, until *until at most; {0}: it
 * has not waited yet. */
static void step_log(struct duty *d, uint64_t offset, uint32_t len,
                     const void *data, struct timespec *until)
{
    int r = 0;

    while (d->mode == DUTY_LOG && !d->page->lost) {
        bool in = epochlog_write(d->log, cut_look(d), offset / SECTOR,
                                 len / SECTOR, data);
        load_note(d);
        if (in)
            return;
        page_store(&d->page->early, 1);
        if (!until->tv_sec)
            *until = clock_timespec(clock_ns() + ROOM_MS * NS_PER_MS);
        if (r == ETIMEDOUT)
            log_lose(d, DISK_LOST_ROOM);
        else
            r = pthread_cond_timedwait(&d->room, &d->lock, until);
    }
}

void duty_log_lose(struct duty *d, enum disk_lost why)
{
    pthread_mutex_lock(&d->lock);
    if (d->mode == DUTY_LOG)
        log_lose(d, why);
    else if (d->mode == DUTY_PLAIN && d->page->lost <= DISK_LOST_ALL)
        page_store(&d->page->lost, why);
    pthread_mutex_unlock(&d->lock);
}

static void watch_failed(struct server_watch *w, bool writes)
{
    duty_log_lose((struct duty *)w, writes ? DISK_LOST_WRITE : DISK_LOST_SYNC);
}

static uint64_t watch_wrote(struct server_watch *w, uint64_t offset,
                            uint32_t len, const void *data)
{
    struct duty *d = (struct duty *)w;
    const uint8_t *from = data;
    struct timespec until = {0};
    uint32_t bytes = data ? len : len / EPOCHLOG_BLOCK * ZEROED_BYTES;
    uint64_t rest = 0;

    pthread_mutex_lock(&d->lock);
    for (uint32_t n; len > 0; offset += n, len -= n) {
        n = len < STEP_BYTES ? len : STEP_BYTES;
        step_log(d, offset, n, from, &until);
        from = from ? from + n : NULL;
    }
    /* No write waits both for room and for its turn. */
    if (d->mode == DUTY_LOG && !d->page->lost && !until.tv_sec)
        rest = pace(d, bytes);
    pthread_mutex_unlock(&d->lock);
    return rest;
}

void duty_watch_init(struct server_watch *w)
{
    w->ready = watch_ready;
    w->ask = watch_ask;
    w->wrote = watch_wrote;
    w->failed = watch_failed;
    w->end = watch_end;
    w->rest = watch_rest;
}

/* --- The primary's ---------------------------------------------------------
 */

void duty_log_end(struct duty *d)
{
    page_store(&d->watch.discards_zero, false);
    pthread_mutex_lock(&d->lock);
    if (d->mode == DUTY_LOG)
        d->mode = DUTY_PLAIN;
    epochlog_free(d->log);
    d->log = NULL;
    d->pace_ns = 0;
    pthread_cond_broadcast(&d->room);
    pthread_mutex_unlock(&d->lock);
    page_store(&d->page->early, 0);
    page_store(&d->page->held_bytes, 0);
    duty_role_note(d);
}

/* What the log that is made again had is in the image, and what that is, is
 * known. */
static int again_check(struct duty *d, struct err *e)
{
    enum disk_lost lost = d->page->lost;

    if (lost > DISK_LOST_ALL)
        return err_kind(e, ERR_REFUSED, "%s", diskctl_lost(lost));
    pthread_mutex_lock(&d->lock);
    bool known = touched_again(&d->touched);
    pthread_mutex_unlock(&d->lock);
    return known ? 0
                 : err_kind(e, ERR_REFUSED,
                            "what its last server had logged is not known");
}

int duty_log_begin(struct duty *d, struct reader *r, bool again, struct err *e)
{
    struct epochlog_config c = {
        .pages = read_u32(r), .entries = read_u32(r), .lacking = again};
    uint64_t cut = again ? read_u64(r) : 1;
    struct epochlog *log = NULL;

    if (!reader_done(r) || c.pages > PAGES_MAX || c.entries > 64 * PAGES_MAX)
        return err_set(e, "malformed request");
    if (d->mode != DUTY_PLAIN && d->mode != DUTY_LOG)
        return err_kind(e, ERR_REFUSED, "%s is a replica", d->image->path);
    duty_log_end(d);
    if ((again && again_check(d, e)) || epochlog_open(&log, &c, e))
        return -1;
    page_store(&d->page->cut, cut);
    page_store(&d->page->lost, DISK_LOST_NOTHING);
    page_store(&d->page->copied, 0);
    page_store(&d->watch.discards_zero, true);
    intent_duty_begin(d);
    pthread_mutex_lock(&d->lock);
    d->log = log;
    d->mode = DUTY_LOG;
    if (!again)
        touched_begin(&d->touched, cut);
    flights_touch(d);
    pthread_mutex_unlock(&d->lock);
    duty_role_note(d);
    return 0;
}

int duty_log_usable(const struct duty *d, struct err *e)
{
    if (d->mode != DUTY_LOG)
        return err_set(e, "it logs nothing");
    return d->page->lost ? err_set(e, "%s", diskctl_lost(d->page->lost)) : 0;
}

int duty_log_fetch(struct duty *d, uint64_t open, struct err *e)
{
    if (duty_log_usable(d, e))
        return -1;
    pthread_mutex_lock(&d->lock);
    (void)cut_look(d);
    bool can = epochlog_fetch(d->log, open);
    pthread_mutex_unlock(&d->lock);
    return can ? 0
               : err_kind(e, ERR_GONE,
                          "its log does not have what that cut ended");
}

int duty_log_next(struct duty *d, struct reader *r, struct buf *answer,
                  struct err *e)
{
    uint64_t epoch = read_u64(r);
    uint32_t sequence = read_u32(r);

    if (!reader_done(r) || !epoch)
        return err_set(e, "malformed request");
    if (duty_log_usable(d, e))
        return -1;
    pthread_mutex_lock(&d->lock);
    bool more = epochlog_next(d->log, &d->piece, epoch, sequence);
    pthread_mutex_unlock(&d->lock);
    if (more) {
        const struct buf *piece = extents_end(&d->piece);
        buf_put(answer, piece->data, piece->len);
    }
    return 0;
}

/* What the image holds there, as if it were written now. */
static int region_log(struct duty *d, uint64_t region, struct err *e)
{
    struct range r = {.offset = region * REGION, .length = REGION};
    uint8_t *p = d->block;
    bool in = false;

    if (d->image->bytes - r.offset < r.length)
        r.length = d->image->bytes - r.offset;
    server_hold(d->server, &r);
    int error = image_read(d->image, r.offset, p, (uint32_t)r.length);
    pthread_mutex_lock(&d->lock);
    if (!error && !d->page->lost)
        in = epochlog_write(d->log, cut_look(d), r.offset / SECTOR,
                            (uint32_t)(r.length / SECTOR),
                            duty_is_zero(p, r.length) ? NULL : p);
    load_note(d);
    pthread_mutex_unlock(&d->lock);
    server_give(d->server, &r);
    errno = error;
    if (error)
        return err_sys(e, "read %s at %lu", d->image->path, r.offset);
    return in ? 0
              : err_kind(e, ERR_REFUSED,
                         "more regions may differ than its log holds");
}

/* The first region at or behind it that has to be read. When there is none, the
 * log is whole for the cuts to come. */
static bool rebuild_next(struct duty *d, uint64_t *region)
{
    pthread_mutex_lock(&d->lock);
    bool any = touched_next(&d->touched, region);
    if (!any) {
        uint64_t cut = cut_look(d);
        epochlog_whole(d->log, cut);
        touched_whole(&d->touched, cut);
    }
    pthread_mutex_unlock(&d->lock);
    return any;
}

int duty_log_rebuild(struct duty *d, struct reader *r, struct buf *answer,
                     struct err *e)
{
    uint64_t region = read_u64(r);

    if (!reader_done(r))
        return err_set(e, "malformed request");
    if (duty_log_usable(d, e))
        return -1;
    for (int i = 0; i < REBUILD_STEP && region != UINT64_MAX; i++)
        if (!rebuild_next(d, &region))
            region = UINT64_MAX;
        else if (region_log(d, region++, e))
            return -1;
    buf_u64(answer, region);
    return 0;
}

int duty_log_forget(struct duty *d, struct reader *r, struct err *e)
{
    uint64_t cut = read_u64(r), kept = read_u64(r);

    if (!reader_done(r))
        return err_set(e, "malformed request");
    if (d->mode != DUTY_LOG)
        return err_set(e, "it logs nothing");
    pthread_mutex_lock(&d->lock);
    unsigned before = epochlog_load(d->log).over_percent;
    bool can = epochlog_commit(d->log, cut);
    if (can)
        touched_commit(&d->touched, cut);
    load_note(d);
    if (epochlog_load(d->log).over_percent <= before / 2)
        pace_reset(d);
    pthread_cond_broadcast(&d->room);
    pthread_mutex_unlock(&d->lock);
    if (kept)
        intent_duty_kept(d, kept);
    return can ? 0 : err_set(e, "its log holds writes after cut %lu", cut);
}
