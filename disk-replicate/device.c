// SPDX-License-Identifier: Apache-2.0
/* The primary's side of replicated disks; see device.h. Engine thread, except
 * new and free. */
#include "disk-replicate/device.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "checkpoint/epoch.h"
#include "common/clock.h"
#include "common/log.h"
#include "disk-replicate/device_private.h"
#include "disk-replicate/epochlog.h"

static struct disks *disks_of(struct checkpoint_device *d)
{
    return (struct disks *)d;
}

static int call_number(struct disk *d, enum diskctl_type type, uint64_t n,
                       struct buf *answer, struct err *e)
{
    uint8_t p[8];

    put_le64(p, n);
    return diskctl_call(&d->server, type, p, sizeof p, answer, e);
}

static void payload_begin(struct disks *all, const struct disk *d,
                          uint32_t flags)
{
    struct epoch_disk head = {d->device, flags};

    buf_clear(&all->out);
    epoch_disk_put(&all->out, &head);
}

int disks_payload_put(struct disks *all, const struct disk *d, uint32_t flags,
                      const void *p, size_t len, const struct device_sink *sink,
                      struct err *e)
{
    payload_begin(all, d, flags);
    buf_put(&all->out, p, len);
    return sink->put(sink->arg, all->out.data, all->out.len, e);
}

/* --- The log ---------------------------------------------------------------
 */

/* The next cut begins, for all. I4: stores, and nothing else. */
static void cut_make(struct disks *all)
{
    all->cut++;
    for (int i = 0; i < all->n; i++)
        __atomic_store_n(&all->disk[i].page->cut, all->cut, __ATOMIC_SEQ_CST);
}

static int log_begin(const struct disks *all, struct disk *d, struct err *e)
{
    uint8_t p[8];
    struct buf b = {0};

    put_le32(p, all->log_mb << (20 - 12));
    put_le32(p + 4, DISK_LOG_ENTRIES);
    int rc = diskctl_call(&d->server, DISKCTL_INFO, NULL, 0, &b, e);
    if (!rc && b.len != 8 + INTENT_ID)
        rc = err_set(e, "disk %s: malformed answer", d->server.id);
    if (!rc) {
        d->sectors = get_le64(b.data) / SECTOR;
        memcpy(d->base, b.data + 8, INTENT_ID);
    }
    buf_free(&b);
    return rc ? rc
              : diskctl_call(&d->server, DISKCTL_LOG, p, sizeof p, NULL, e);
}

/* All that was cut, as pieces of `epoch`. */
static int log_put(struct disks *all, struct disk *d, uint64_t epoch, bool live,
                   const struct device_sink *sink, struct err *e)
{
    uint8_t p[12];
    uint32_t flags = live ? EPOCH_DISK_LIVE : 0;

    if (call_number(d, DISKCTL_FETCH, all->cut, NULL, e))
        return -1;
    for (uint32_t i = 0;; i++) {
        put_le64(p, epoch);
        put_le32(p + 8, live ? 0 : i);
        payload_begin(all, d, flags);
        size_t head = all->out.len;
        if (diskctl_call(&d->server, DISKCTL_NEXT, p, sizeof p, &all->out, e))
            return -1;
        if (all->out.len == head)
            return 0;
        all->sent_bytes += all->out.len - head;
        if (sink->put(sink->arg, all->out.data, all->out.len, e))
            return -1;
    }
}

/* What was cut is the backup's. */
static int log_forget(struct disks *all, struct err *e)
{
    uint8_t p[16];

    put_le64(p, all->cut - 1);
    put_le64(p + 8, all->kept);
    for (int i = 0; i < all->n; i++)
        if (diskctl_call(&all->disk[i].server, DISKCTL_FORGET, p, sizeof p,
                         NULL, e))
            return -1;
    return 0;
}

static void log_end(struct disks *all)
{
    struct err e = ERR_INIT;

    for (int i = 0; i < all->n; i++) {
        struct disk *d = &all->disk[i];
        if (d->logging &&
            diskctl_call(&d->server, DISKCTL_UNLOG, NULL, 0, NULL, &e))
            log_warn("%s", e.text);
        d->logging = false;
    }
}

/* --- How much an epoch may have ----------------------------------------------
 *
 * One that takes longer than the timeout to get across ends protection, however
 * much the logs can hold. So they may hold what gets across in some time, as
 * far as that is known: half of it is on its way, half of it is written
 * meanwhile. */

#define LIMIT_MS    600
#define LIMIT_MIN   (4u << 20)
#define LIMIT_FIRST (8u << 20)
#define LEARN_BYTES (256u << 10) /* less says nothing of the link */

static void limit_set(struct disks *all)
{
    uint64_t limit = all->bytes_s / 1000 * LIMIT_MS;

    if (!all->bytes_s)
        limit = LIMIT_FIRST;
    else if (limit < LIMIT_MIN)
        limit = LIMIT_MIN;
    for (int i = 0; i < all->n; i++)
        __atomic_store_n(&all->disk[i].page->limit, limit / (uint64_t)all->n,
                         __ATOMIC_RELAXED);
}

static void limit_learn(struct disks *all)
{
    uint64_t ms = (clock_ns() - all->sent_ns) / NS_PER_MS + 1;

    if (all->sent_bytes < LEARN_BYTES)
        return;
    uint64_t now = all->sent_bytes * 1000 / ms;
    all->bytes_s = all->bytes_s ? (all->bytes_s + now) / 2 : now;
    limit_set(all);
}

/* --- The initial copy ------------------------------------------------------
 */

bool disks_early(const struct disks *all)
{
    for (int i = 0; i < all->n; i++)
        if (__atomic_load_n(&all->disk[i].page->early, __ATOMIC_SEQ_CST))
            return true;
    return false;
}

/* What was written since goes after what was read before: so the last thing
 * sent of a sector is always its newest content. */
int disks_changes_put(struct disks *all, const struct device_sink *sink,
                      struct err *e)
{
    cut_make(all);
    for (int i = 0; i < all->n; i++)
        if (log_put(all, &all->disk[i], 1, true, sink, e))
            return -1;
    return log_forget(all, e);
}

/* Its size, whose changes its bitmap has, and which medium it is on. */
static int begin_put(struct disks *all, struct disk *d,
                     const struct device_sink *sink, struct err *e)
{
    struct buf *p = &all->piece;

    if (getrandom(d->next_base, INTENT_ID, 0) != INTENT_ID)
        return err_sys(e, "random bytes");
    buf_clear(p);
    buf_u64(p, d->sectors * SECTOR);
    buf_put(p, d->base, INTENT_ID);
    buf_put(p, d->next_base, INTENT_ID);
    if (diskctl_call(&d->server, DISKCTL_MEDIUM, NULL, 0, p, e))
        return -1;
    return disks_payload_put(all, d, EPOCH_DISK_LIVE | EPOCH_DISK_BEGIN,
                             p->data, p->len, sink, e);
}

static int copy_begin(struct disks *all, const struct device_sink *sink,
                      struct err *e)
{
    all->cut = 1;
    all->kept = 0;
    all->follows = false;
    memset(all->ended, 0, sizeof all->ended);
    if (getrandom(&all->seed, sizeof all->seed, 0) != sizeof all->seed)
        return err_sys(e, "random bytes");
    for (int i = 0; i < all->n; i++) {
        struct disk *d = &all->disk[i];
        d->logging = false;
        if (log_begin(all, d, e))
            return -1;
        d->logging = true;
        d->asked = d->copied = d->compared = d->differed = 0;
        d->whole = d->doubted = false;
        d->lost_ns = 0;
        if (begin_put(all, d, sink, e))
            return -1;
    }
    return 0;
}

static int disks_copy(struct checkpoint_device *d, bool begin,
                      const struct device_sink *sink, struct err *e)
{
    struct disks *all = disks_of(d);

    if (!begin)
        return disks_early(all) ? disks_changes_put(all, sink, e) : 0;
    if (copy_begin(all, sink, e))
        return -1;
    all->bytes_s = 0;
    limit_set(all);
    for (int i = 0; i < all->n; i++)
        if (disks_image_put(all, &all->disk[i], sink, e))
            return -1;
    return disks_settle(all, sink, e);
}

/* --- Epochs ------------------------------------------------------------------
 */

static int disks_mark(struct checkpoint_device *d, uint64_t epoch,
                      struct err *e)
{
    struct disks *all = disks_of(d);

    if (!disks_whole(all))
        return err_kind(e, ERR_GONE, "a disk's server is being replaced");
    all->follows = true;
    all->ended[epoch % ENDED_MAX] = (struct ended){epoch, all->cut};
    cut_make(all);
    return 0;
}

static void disks_kept(struct checkpoint_device *d, uint64_t epoch)
{
    struct disks *all = disks_of(d);
    const struct ended *x = &all->ended[epoch % ENDED_MAX];

    if (epoch && x->epoch == epoch)
        all->kept = x->cut;
}

static int disks_records(struct checkpoint_device *d, uint64_t epoch,
                         const struct device_sink *sink, struct err *e)
{
    struct disks *all = disks_of(d);
    int rc = 0;

    all->busy = true;
    all->sent_ns = clock_ns();
    all->sent_bytes = 0;
    for (int i = 0; i < all->n && !rc; i++)
        rc = log_put(all, &all->disk[i], epoch, false, sink, e);
    if (!rc)
        verify_marked(all, epoch);
    all->busy = false;
    return rc;
}

/* An error is no reason to hold output back: it is seen by the next poll. */
static int disks_commit(struct checkpoint_device *d, uint64_t epoch,
                        struct err *e)
{
    struct err why = ERR_INIT;

    (void)e;
    limit_learn(disks_of(d));
    if (log_forget(disks_of(d), &why))
        log_warn("epoch=%lu %s", epoch, why.text);
    verify_committed(disks_of(d), epoch);
    return 0;
}

static int disks_abort(struct checkpoint_device *d, bool release, struct err *e)
{
    (void)release;
    (void)e;
    verify_abort(disks_of(d));
    log_end(disks_of(d));
    return 0;
}

static bool disks_idle(struct checkpoint_device *d,
                       const struct device_sink *sink)
{
    struct disks *all = disks_of(d);

    if (!disks_whole(all))
        return false;
    all->busy = true;
    bool more = verify_step(all, sink);
    all->busy = false;
    return more;
}

static int disks_poll(struct checkpoint_device *d, struct device_load *load,
                      struct err *e)
{
    struct disks *all = disks_of(d);

    *load = (struct device_load){.want_epoch = disks_early(all)};
    for (int i = 0; i < all->n; i++) {
        load->copied_bytes += all->disk[i].copied * SECTOR;
        load->copy_bytes += all->disk[i].sectors * SECTOR;
        load->backlog_bytes +=
            __atomic_load_n(&all->disk[i].page->held_bytes, __ATOMIC_RELAXED);
    }
    load->stale = disks_again(all, e) != 0;
    return load->stale ? -1 : 0;
}

/* --- Life
 * --------------------------------------------------------------------- */

static int disks_setup(struct checkpoint_device *d, struct err *e)
{
    struct disks *all = disks_of(d);

    for (int i = 0; i < all->n; i++) {
        struct disk *one = &all->disk[i];
        if (one->server.fd < 0 && diskctl_open(&one->server, one->server.id, e))
            return -1;
        if (!one->page)
            one->page = diskctl_page(one->server.id, e);
        if (!one->page)
            return -1;
    }
    return 0;
}

static void disks_teardown(struct checkpoint_device *d, bool release)
{
    struct disks *all = disks_of(d);

    (void)release;
    verify_abort(all);
    log_end(all);
    for (int i = 0; i < all->n; i++) {
        diskctl_close(&all->disk[i].server);
        if (all->disk[i].page)
            munmap(all->disk[i].page, sizeof *all->disk[i].page);
        all->disk[i].page = NULL;
    }
}

static void disks_free(struct checkpoint_device *d)
{
    struct disks *all = disks_of(d);

    disks_teardown(d, false);
    buf_free(&all->out);
    buf_free(&all->piece);
    buf_free(&all->answer);
    verify_free(all->verify);
    free(all);
}

static const struct checkpoint_device_ops ops = {
    .name = "disks",
    .setup = disks_setup,
    .mark = disks_mark,
    .commit = disks_commit,
    .abort = disks_abort,
    .teardown = disks_teardown,
    .poll = disks_poll,
    .free = disks_free,
    .copy = disks_copy,
    .records = disks_records,
    .idle = disks_idle,
    .kept = disks_kept,
};

int disk_device_new(struct checkpoint_device **out, uint32_t domid,
                    int expected, unsigned log_mb, unsigned copy_mb_s,
                    struct err *e)
{
    char ids[DISKS_MAX][DISK_ID];
    int n = diskctl_disks(domid, ids, e);

    *out = NULL;
    if (n >= 0 && n < expected) {
        err_kind(e, ERR_REFUSED, "the VM has %d disks, and %d have a server",
                 expected, n);
        return err_hint(e, "understudy-disk list; start the VM again");
    }
    if (n <= 0)
        return n;
    struct disks *all = calloc(1, sizeof *all);
    if (!all)
        return err_sys(e, "disks");
    all->dev.ops = &ops;
    all->n = n;
    all->log_mb = log_mb;
    all->verify = verify_new();
    all->rate.bytes_s = (uint64_t)copy_mb_s << 20;
    for (int i = 0; i < n; i++) {
        memcpy(all->disk[i].server.id, ids[i], DISK_ID);
        all->disk[i].server.fd = -1;
        all->disk[i].device = diskctl_device(ids[i]);
    }
    *out = &all->dev;
    return 0;
}
