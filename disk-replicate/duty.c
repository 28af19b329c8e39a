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

/* --- Requests ---------------------------------------------------------------
 */

static int prepare(struct duty *d, struct reader *r, struct buf *answer,
                   struct err *e)
{
    struct journal_totals t = {.epoch = read_u64(r), .pieces = read_u32(r)};

    uint32_t durable = read_u32(r);
    t.bytes = read_u64(r);
    t.coming = read_u64(r);
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
        return duty_log_fetch(d, n, e);
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

static int request_do(struct duty *d, enum diskctl_type type, const void *p,
                      size_t len, struct buf *answer, struct err *e)
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
        return duty_log_begin(d, &r, false, e);
    case DISKCTL_RELOG:
        return duty_log_begin(d, &r, true, e);
    case DISKCTL_REBUILD:
        return duty_log_rebuild(d, &r, answer, e);
    case DISKCTL_UNLOG:
        duty_log_end(d);
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
        return duty_log_next(d, &r, answer, e);
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
        return duty_log_forget(d, &r, e);
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

int duty_do(struct duty *d, enum diskctl_type type, const void *p, size_t len,
            struct buf *answer, struct err *e)
{
    apply_duty_lock(d);
    int rc = request_do(d, type, p, len, answer, e);
    apply_duty_unlock(d);
    return rc;
}

void duty_hangup(struct duty *d)
{
    apply_duty_lock(d);
    if (d->mode == DUTY_LOG)
        duty_log_end(d);
    replica_duty_hangup(d);
    apply_duty_unlock(d);
}

/* --- Life --------------------------------------------------------------------
 */

/* What a log lost to its medium is not forgotten before the next one begins. */
static void lost_all(struct duty *d)
{
    if (d->page->lost == DISK_LOST_NOTHING)
        page_store(&d->page->lost, DISK_LOST_ALL);
}

/* A predecessor's is the same file, which its agent has mapped. */
static int page_make(struct duty *d, struct err *e)
{
    char path[RECORD_PATH];

    record_path(d->id, ".page", path);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *d->page))
        return err_sys(e, "make %s", path);
    errno = posix_fallocate(fd, 0, sizeof *d->page);
    if (errno)
        return err_sys(e, "make %s", path);
    d->page = mmap(NULL, sizeof *d->page, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_POPULATE, fd, 0);
    if (d->page == MAP_FAILED) {
        d->page = NULL;
        return err_sys(e, "map %s", path);
    }
    lost_all(d);
    page_store(&d->page->early, 0);
    page_store(&d->page->held_bytes, 0);
    page_store(&d->page->copied, 0);
    page_store(&d->page->bytes, d->image->bytes);
    d->image->unsaid = &d->page->unsaid;
    return 0;
}

static int touched_make(struct duty *d, struct err *e)
{
    char path[RECORD_PATH];

    record_path(d->id, ".touched", path);
    return touched_open(&d->touched, path, d->image->bytes, e);
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
    duty_watch_init(&d->watch);
    d->image = image;
    d->server = server;
    d->journal_file.fd = -1;
    snprintf(d->id, sizeof d->id, "%s", id);
    sync_init(d);
    intent_duty_init(d);
    apply_duty_init(d);
    d->block = malloc(EXTENTS_DATA_MAX);
    bool can = d->block && !page_make(d, e) && !touched_make(d, e) &&
               !duty_mark_read(d, e) && !intent_duty_open(d, e);
    d->mode = d->mark == MARK_NONE ? DUTY_PLAIN : DUTY_HELD;
    if (!can || apply_duty_start(d, e)) {
        duty_close(d, false);
        return -1;
    }
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
    apply_duty_stop(d);
    replica_duty_end(d, end);
    intent_duty_close(d, end);
    epochlog_free(d->log);
    if (d->page) {
        lost_all(d);
        d->image->unsaid = NULL;
        munmap(d->page, sizeof *d->page);
    }
    touched_close(&d->touched);
    extents_free(&d->piece);
    free(d->block);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->room);
    free(d);
}
