// SPDX-License-Identifier: Apache-2.0
/* What a block server does beside serving; see duty.h. The workers call the
 * watch, the control thread all else. */
#include "disk-replicate/duty_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "disk-replicate/medium.h"
#include "disk-replicate/record.h"

/* How long a write waits for room in the log. A guest whose tasks wait for
 * their disk can't be suspended, so it must not wait for the epoch that would
 * make room. */
#define ROOM_MS 2000
/* How long a write takes, for each of its bytes and each percent that is used
 * of the other half of the log: at the end 16 workers write 2 MB a second. */
#define PACE_NS      80
#define PACE_MAX_NS  NS_PER_SEC
#define STEP_BYTES   EXTENTS_DATA_MAX /* that are logged at once */
#define PAGES_MAX    (64u << 20 >> 12)
#define REBUILD_STEP 16 /* regions a request */

#define page_store(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)

void duty_mode_set(struct duty *d, enum duty_mode to)
{
    pthread_mutex_lock(&d->lock);
    d->mode = to;
    pthread_cond_broadcast(&d->room);
    pthread_mutex_unlock(&d->lock);
    duty_role_note(d);
}

void duty_role_note(struct duty *d)
{
    static const enum disk_role roles[] = {[DUTY_PLAIN] = DISK_PLAIN,
                                           [DUTY_LOG] = DISK_PRIMARY,
                                           [DUTY_REPLICA] = DISK_FOLLOWS,
                                           [DUTY_HELD] = DISK_HELD};
    enum disk_role role = roles[d->mode];

    if (d->mark == MARK_SYNCING)
        role = d->mode == DUTY_REPLICA ? DISK_COPYING : DISK_UNUSABLE;
    page_store(&d->page->role, role);
}

/* --- The workers -----------------------------------------------------------
 */

static int watch_ask(struct server_watch *w, bool writes, uint64_t offset,
                     uint32_t len)
{
    struct duty *d = (struct duty *)w;

    pthread_mutex_lock(&d->lock);
    bool serves = d->mode == DUTY_PLAIN || d->mode == DUTY_LOG;
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
    intent_duty_end((struct duty *)w, offset, len);
}

static void load_note(struct duty *d)
{
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
    pthread_cond_broadcast(&d->room);
}

/* The lock is held, and given up while it waits. A writer that is faster than
 * the link becomes as slow, and no write waits for long. */
static void pace(struct duty *d, uint64_t began, uint32_t len)
{
    while (d->mode == DUTY_LOG && !d->page->lost) {
        uint64_t ns = PACE_NS * (uint64_t)len;
        ns *= epochlog_load(d->log).over_percent;
        ns = ns < PACE_MAX_NS ? ns : PACE_MAX_NS;
        struct timespec until = clock_timespec(began + ns);
        if (!ns ||
            pthread_cond_timedwait(&d->room, &d->lock, &until) == ETIMEDOUT)
            return;
    }
}

/* The lock is held, and given up while it waits. */
static void step_log(struct duty *d, uint64_t offset, uint32_t len,
                     const void *data, const struct timespec *until)
{
    int r = 0;

    while (d->mode == DUTY_LOG && !d->page->lost) {
        uint64_t cut = __atomic_load_n(&d->page->cut, __ATOMIC_SEQ_CST);
        bool in =
            epochlog_write(d->log, cut, offset / SECTOR, len / SECTOR, data);
        load_note(d);
        if (in)
            return;
        page_store(&d->page->early, 1);
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
    pthread_mutex_unlock(&d->lock);
}

static void watch_failed(struct server_watch *w, bool writes)
{
    duty_log_lose((struct duty *)w, writes ? DISK_LOST_WRITE : DISK_LOST_SYNC);
}

static void watch_wrote(struct server_watch *w, uint64_t offset, uint32_t len,
                        const void *data)
{
    struct duty *d = (struct duty *)w;
    const uint8_t *from = data;
    uint64_t began = clock_ns();
    struct timespec until = clock_timespec(began + ROOM_MS * NS_PER_MS);
    uint32_t all = len;

    pthread_mutex_lock(&d->lock);
    for (uint32_t n; len > 0; offset += n, len -= n) {
        n = len < STEP_BYTES ? len : STEP_BYTES;
        step_log(d, offset, n, from, &until);
        from = from ? from + n : NULL;
    }
    pace(d, began, all);
    pthread_mutex_unlock(&d->lock);
}

/* --- The primary's ---------------------------------------------------------
 */

static void log_end(struct duty *d)
{
    page_store(&d->watch.discards_zero, false);
    pthread_mutex_lock(&d->lock);
    if (d->mode == DUTY_LOG)
        d->mode = DUTY_PLAIN;
    epochlog_free(d->log);
    d->log = NULL;
    pthread_cond_broadcast(&d->room);
    pthread_mutex_unlock(&d->lock);
    page_store(&d->page->early, 0);
    page_store(&d->page->held_bytes, 0);
    duty_role_note(d);
}

static int log_begin(struct duty *d, struct reader *r, bool again,
                     struct err *e)
{
    struct epochlog_config c = {
        .pages = read_u32(r), .entries = read_u32(r), .lacking = again};
    uint64_t cut = again ? read_u64(r) : 1;
    struct epochlog *log = NULL;

    if (!reader_done(r) || c.pages > PAGES_MAX || c.entries > 64 * PAGES_MAX)
        return err_set(e, "malformed request");
    if (d->mode != DUTY_PLAIN && d->mode != DUTY_LOG)
        return err_kind(e, ERR_REFUSED, "%s is a replica", d->image->path);
    if (again && !intent_duty_there(d))
        return err_kind(e, ERR_REFUSED, "%s has no bitmap", d->image->path);
    log_end(d);
    if (epochlog_open(&log, &c, e))
        return -1;
    page_store(&d->page->cut, cut);
    page_store(&d->page->lost, DISK_LOST_NOTHING);
    page_store(&d->page->copied, 0);
    page_store(&d->watch.discards_zero, true);
    intent_duty_begin(d);
    pthread_mutex_lock(&d->lock);
    d->log = log;
    d->mode = DUTY_LOG;
    pthread_mutex_unlock(&d->lock);
    duty_role_note(d);
    return 0;
}

int duty_log_usable(const struct duty *d, struct err *e)
{
    if (d->mode != DUTY_LOG)
        return err_set(e, "it logs nothing");
    return d->page->lost ? err_set(e, "its log lacks something") : 0;
}

static int log_fetch(struct duty *d, uint64_t open, struct err *e)
{
    if (duty_log_usable(d, e))
        return -1;
    pthread_mutex_lock(&d->lock);
    bool can = epochlog_fetch(d->log, open);
    pthread_mutex_unlock(&d->lock);
    return can ? 0
               : err_kind(e, ERR_GONE,
                          "its log does not have what that cut ended");
}

static int log_next(struct duty *d, struct reader *r, struct buf *answer,
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
    struct range r = {.offset = region * INTENT_REGION,
                      .length = INTENT_REGION};
    uint8_t *p = d->block;
    bool in = false;

    if (d->image->bytes - r.offset < r.length)
        r.length = d->image->bytes - r.offset;
    server_hold(d->server, &r);
    int error = image_read(d->image, r.offset, p, (uint32_t)r.length);
    pthread_mutex_lock(&d->lock);
    if (!error && !d->page->lost)
        in = epochlog_write(d->log,
                            __atomic_load_n(&d->page->cut, __ATOMIC_SEQ_CST),
                            r.offset / SECTOR, (uint32_t)(r.length / SECTOR),
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

static int log_rebuild(struct duty *d, struct reader *r, struct buf *answer,
                       struct err *e)
{
    uint64_t region = read_u64(r);

    if (!reader_done(r))
        return err_set(e, "malformed request");
    if (duty_log_usable(d, e))
        return -1;
    for (int i = 0; i < REBUILD_STEP; i++, region++) {
        if (intent_duty_next(d, &region)) {
            if (region_log(d, region, e))
                return -1;
            continue;
        }
        if (!intent_duty_there(d))
            return err_kind(e, ERR_REFUSED, "the bitmap was lost");
        pthread_mutex_lock(&d->lock);
        epochlog_whole(d->log,
                       __atomic_load_n(&d->page->cut, __ATOMIC_SEQ_CST));
        pthread_mutex_unlock(&d->lock);
        region = UINT64_MAX;
        break;
    }
    buf_u64(answer, region);
    return 0;
}

static int log_forget(struct duty *d, struct reader *r, struct err *e)
{
    uint64_t cut = read_u64(r), kept = read_u64(r);

    if (!reader_done(r))
        return err_set(e, "malformed request");
    if (d->mode != DUTY_LOG)
        return err_set(e, "it logs nothing");
    pthread_mutex_lock(&d->lock);
    bool can = epochlog_commit(d->log, cut);
    load_note(d);
    pthread_cond_broadcast(&d->room);
    pthread_mutex_unlock(&d->lock);
    if (kept)
        intent_duty_kept(d, kept);
    return can ? 0 : err_set(e, "its log holds writes after cut %lu", cut);
}

/* --- Requests ---------------------------------------------------------------
 */

static int prepare(struct duty *d, struct reader *r, struct buf *answer,
                   struct err *e)
{
    struct journal_totals t = {.epoch = read_u64(r), .pieces = read_u32(r)};

    uint32_t durable = read_u32(r);
    t.bytes = read_u64(r);
    t.digest = read_u64(r);
    if (!reader_done(r) || durable > 1)
        return err_set(e, "malformed request");
    return replica_duty_prepare(d, &t, durable, answer, e);
}

static int with_number(struct duty *d, enum diskctl_type type, struct reader *r,
                       struct err *e)
{
    uint64_t n = read_u64(r);

    if (!reader_done(r))
        return err_set(e, "malformed request");
    switch (type) {
    case DISKCTL_FETCH:
        return log_fetch(d, n, e);
    case DISKCTL_AGAIN:
        return replica_duty_again(d, n, e);
    case DISKCTL_START:
        return replica_duty_start(d, n, e);
    default:
        return replica_duty_promote(d, n, e);
    }
}

static int info(struct duty *d, struct buf *answer)
{
    uint8_t base[INTENT_ID];

    intent_duty_base(d, base);
    buf_u64(answer, d->image->bytes);
    buf_put(answer, base, sizeof base);
    return 0;
}

static int rebase(struct duty *d, const void *p, size_t len, struct err *e)
{
    if (d->mode != DUTY_LOG || len != INTENT_ID)
        return err_set(e, "malformed request");
    return intent_duty_rebase(d, p, true, e);
}

int duty_do(struct duty *d, enum diskctl_type type, const void *p, size_t len,
            struct buf *answer, struct err *e)
{
    struct reader r = reader_of(p, len);
    char medium[MEDIUM_MAX];

    switch (type) {
    case DISKCTL_INFO:
        return info(d, answer);
    case DISKCTL_REGIONS:
        return intent_duty_regions(d, &r, answer, e);
    case DISKCTL_DOUBT:
        return intent_duty_remove(d, e);
    case DISKCTL_REBASE:
        return rebase(d, p, len, e);
    case DISKCTL_MEDIUM:
        medium_name(d->image->path, medium);
        buf_put(answer, medium, strlen(medium));
        return 0;
    case DISKCTL_LOG:
        return log_begin(d, &r, false, e);
    case DISKCTL_RELOG:
        return log_begin(d, &r, true, e);
    case DISKCTL_REBUILD:
        return log_rebuild(d, &r, answer, e);
    case DISKCTL_UNLOG:
        log_end(d);
        return 0;
    case DISKCTL_COPY:
        return duty_copy(d, &r, answer, e);
    case DISKCTL_DIGESTS:
        return duty_digests(d, &r, answer, e);
    case DISKCTL_COMPARE:
        return duty_compare(d, p, len, answer, e);
    case DISKCTL_CHECK:
        return duty_check(d, &r, answer, e);
    case DISKCTL_NEXT:
        return log_next(d, &r, answer, e);
    case DISKCTL_LIVE:
        return replica_duty_live(d, p, len, e);
    case DISKCTL_PIECE:
        return replica_duty_piece(d, p, len, e);
    case DISKCTL_PREPARE:
        return prepare(d, &r, answer, e);
    case DISKCTL_SECURE:
        return replica_duty_secure(d, e);
    case DISKCTL_DECIDE:
        return replica_duty_decide(d, e);
    case DISKCTL_DROP:
        replica_duty_drop(d);
        return 0;
    case DISKCTL_FORGET:
        return log_forget(d, &r, e);
    case DISKCTL_REPLICA:
        return replica_duty_begin(d, &r, e);
    case DISKCTL_FETCH:
    case DISKCTL_PROMOTE:
    case DISKCTL_AGAIN:
    case DISKCTL_START:
        return with_number(d, type, &r, e);
    }
    return err_set(e, "unknown request %u", (unsigned)type);
}

void duty_hangup(struct duty *d)
{
    if (d->mode == DUTY_LOG)
        log_end(d);
    replica_duty_hangup(d);
}

bool duty_idle(struct duty *d)
{
    return replica_duty_idle(d);
}

/* --- Life --------------------------------------------------------------------
 */

/* A predecessor's is the same file, which its agent has mapped. */
static int page_make(struct duty *d, struct err *e)
{
    char path[RECORD_PATH];

    record_path(d->id, ".page", path);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *d->page))
        return err_sys(e, "make %s", path);
    d->page = mmap(NULL, sizeof *d->page, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_POPULATE, fd, 0);
    if (d->page == MAP_FAILED) {
        d->page = NULL;
        return err_sys(e, "map %s", path);
    }
    page_store(&d->page->lost, DISK_LOST_ALL);
    page_store(&d->page->early, 0);
    page_store(&d->page->held_bytes, 0);
    page_store(&d->page->copied, 0);
    page_store(&d->page->bytes, d->image->bytes);
    return 0;
}

static void sync_init(struct duty *d)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->room, &attr);
    pthread_condattr_destroy(&attr);
}

int duty_open(struct duty **out, const char *id, struct image *image,
              struct server *server, struct err *e)
{
    struct duty *d = calloc(1, sizeof *d);

    if (!d)
        return err_sys(e, "disk");
    d->watch.ask = watch_ask;
    d->watch.wrote = watch_wrote;
    d->watch.failed = watch_failed;
    d->watch.end = watch_end;
    d->image = image;
    d->server = server;
    d->journal_file.fd = -1;
    snprintf(d->id, sizeof d->id, "%s", id);
    sync_init(d);
    intent_duty_init(d);
    d->block = malloc(EXTENTS_DATA_MAX);
    if (!d->block || page_make(d, e) || duty_mark_read(d, e) ||
        intent_duty_open(d, e)) {
        duty_close(d, false);
        return -1;
    }
    d->mode = d->mark == MARK_NONE ? DUTY_PLAIN : DUTY_HELD;
    duty_exact_open(d);
    duty_role_note(d);
    if (d->mode == DUTY_HELD)
        log_warn("disk=%s image=%s is a replica: nobody is served before a "
                 "takeover or a new copy",
                 d->id, image->path);
    server_set_watch(server, &d->watch);
    *out = d;
    return 0;
}

void duty_close(struct duty *d, bool end)
{
    if (!d)
        return;
    replica_duty_end(d, end);
    intent_duty_close(d, end);
    epochlog_free(d->log);
    if (d->page) {
        page_store(&d->page->lost, DISK_LOST_ALL);
        munmap(d->page, sizeof *d->page);
    }
    extents_free(&d->piece);
    free(d->block);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->room);
    free(d);
}
