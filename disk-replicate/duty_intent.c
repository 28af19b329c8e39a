// SPDX-License-Identifier: Apache-2.0
/* The write-intent bitmap of a served disk, KEY.intent; see duty.h, and
 * docs/disk.md for why it is right. While the file is there, every write waits
 * until its bits are durable, whoever is protected. Workers call write and end,
 * the control thread the rest; a thread of its own syncs the image. */
#include "disk-replicate/duty_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/thread.h"

/* At least. Each costs a sync of the image, and a sync of the bitmap for each
 * region that is written again only after it; the longer, the more a crash
 * leaves to be compared. */
#define PERIOD_NS (30 * NS_PER_SEC)

/* --- The file --------------------------------------------------------------
 */

/* An image that was made anew is another one, under the same path. */
static int identity(const struct duty *d, uint8_t id[INTENT_ID], struct err *e)
{
    struct statx st = {0};
    struct buf b = {0};

    if (statx(d->image->store.fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME,
              &st))
        return err_sys(e, "look at %s", d->image->path);
    buf_put(&b, d->image->path, strlen(d->image->path));
    if (!d->image->device) {
        buf_u64(&b, st.stx_ino);
        buf_u64(&b, (uint64_t)st.stx_btime.tv_sec);
        buf_u32(&b, st.stx_btime.tv_nsec);
    }
    XXH128_hash_t h = XXH3_128bits(b.data, b.len);
    buf_free(&b);
    put_le64(id, h.low64);
    put_le64(id + 8, h.high64);
    return 0;
}

static int file_remove(struct duty *d, struct err *e)
{
    char path[512];

    duty_path(d, ".intent", path, sizeof path);
    if (unlink(path))
        return errno == ENOENT ? 0 : err_sys(e, "remove %s", path);
    return file_sync_dir(path, e);
}

/* --- Who else writes to it --------------------------------------------------
 *
 * KEY.left: how a file was left, in order. What is written to it past us is
 * seen by that; after a crash, and of a device, nothing is known. */

#define LEFT_BYTES 24

static int left_now(const struct duty *d, uint8_t p[LEFT_BYTES])
{
    struct stat st;

    if (fstat(d->image->store.fd, &st))
        return -1;
    put_le64(p, (uint64_t)st.st_mtim.tv_sec);
    put_le64(p + 8, (uint64_t)st.st_mtim.tv_nsec);
    put_le64(p + 16, (uint64_t)st.st_size);
    return 0;
}

static void left_write(struct duty *d)
{
    struct err e = ERR_INIT;
    uint8_t p[LEFT_BYTES];
    char path[512];

    duty_path(d, ".left", path, sizeof path);
    if (!left_now(d, p) && file_replace(path, p, sizeof p, false, &e))
        log_warn("disk=%s %s", d->id, e.text);
}

/* It was left in order, and is not as it was left. One that comes back with a
 * power cut is as good as none, or says that of an image that we wrote to. */
static bool left_differs(struct duty *d)
{
    uint8_t now[LEFT_BYTES];
    struct buf b = {0};
    char path[512];

    duty_path(d, ".left", path, sizeof path);
    if (file_load(path, LEFT_BYTES, &b, NULL))
        return false;
    unlink(path);
    bool same = b.len == sizeof now && !left_now(d, now) &&
                !memcmp(now, b.data, sizeof now);
    buf_free(&b);
    return !same;
}

static int config_make(struct duty *d, struct store *file,
                       struct intent_config *c, struct err *e)
{
    *c = (struct intent_config){.file = file, .image_bytes = d->image->bytes};
    return identity(d, c->id, e);
}

/* --- What there is ---------------------------------------------------------
 */

/* The lock is held, and nobody flushes. */
static void bits_close(struct duty_intent *in)
{
    intent_close(in->bits);
    in->bits = NULL;
    in->period = false;
    memset(in->base, 0, sizeof in->base);
    if (in->file[in->slot].fd >= 0)
        close(in->file[in->slot].fd);
    in->file[in->slot].fd = -1;
}

static void lock_idle(struct duty_intent *in)
{
    pthread_mutex_lock(&in->lock);
    while (in->flushing)
        pthread_cond_wait(&in->changed, &in->lock);
}

int intent_duty_remove(struct duty *d, struct err *e)
{
    lock_idle(&d->intent);
    bits_close(&d->intent);
    pthread_mutex_unlock(&d->intent.lock);
    return file_remove(d, e);
}

/* The lock is held. Nothing can be relied upon any more, and nothing is to be
 * written before that is known to whoever comes. */
static void bits_lose(struct duty *d, const struct err *why)
{
    struct err e = ERR_INIT;

    log_error("disk=%s the write-intent bitmap is lost: %s", d->id, why->text);
    bits_close(&d->intent);
    if (file_remove(d, &e))
        log_error("disk=%s it has to be removed by hand: %s", d->id, e.text);
}

static int existing_open(struct duty *d, struct err *e)
{
    struct duty_intent *in = &d->intent;
    struct intent_config c;

    if (left_differs(d))
        return err_set(e, "something else wrote to %s", d->image->path);
    if (config_make(d, &in->file[0], &c, e) || intent_base(&c, c.base, e) ||
        intent_open(&in->bits, &c, e))
        return -1;
    memcpy(in->base, c.base, sizeof in->base);
    log_info("disk=%s %lu of its regions may differ from the other side's",
             d->id, intent_count(in->bits));
    return 0;
}

/* --- Writes ----------------------------------------------------------------
 */

/* The lock is held, and given up in between. */
static void flush(struct duty *d)
{
    struct duty_intent *in = &d->intent;
    struct err e = ERR_INIT;

    in->flushing = true;
    intent_flush_begin(in->bits);
    pthread_mutex_unlock(&in->lock);
    int rc = intent_flush_io(in->bits, &e);
    pthread_mutex_lock(&in->lock);
    intent_flush_end(in->bits, !rc);
    in->flushing = false;
    if (rc)
        bits_lose(d, &e);
    pthread_cond_broadcast(&in->changed);
}

void intent_duty_write(struct duty *d, uint64_t offset, uint32_t len)
{
    struct duty_intent *in = &d->intent;

    pthread_mutex_lock(&in->lock);
    while (in->bits && !intent_write(in->bits, offset, len)) {
        if (in->flushing)
            pthread_cond_wait(&in->changed, &in->lock);
        else
            flush(d);
    }
    pthread_mutex_unlock(&in->lock);
}

bool intent_duty_ready(struct duty *d, uint64_t offset, uint32_t len)
{
    struct duty_intent *in = &d->intent;

    if (pthread_mutex_trylock(&in->lock)) /* it may be held over a sync */
        return false;
    bool ready = !in->bits || intent_write(in->bits, offset, len);
    pthread_mutex_unlock(&in->lock);
    return ready;
}

/* --- Periods ---------------------------------------------------------------
 */

/* The lock is held. Writes that are over have the open cut's label, or a lower
 * one; those under way are noted. */
static void period_begin(struct duty *d)
{
    struct duty_intent *in = &d->intent;

    in->began_ns = clock_ns();
    if (!intent_count(in->bits))
        return;
    in->cut = __atomic_load_n(&d->page->cut, __ATOMIC_SEQ_CST);
    intent_period(in->bits, in->cut);
    pthread_mutex_lock(&d->lock);
    for (const struct flight *f = d->flight; f < d->flight + SERVER_WORKERS_MAX;
         f++)
        if (f->used)
            (void)intent_write(in->bits, f->offset, f->len);
    pthread_mutex_unlock(&d->lock);
    in->period = true;
    in->synced = false;
    in->serial++;
    pthread_cond_broadcast(&in->changed);
}

/* A period is as long as it can be, so that a region that is written in each is
 * never cleared. The first is short: nearly all bits are the first copy's. */
void intent_duty_kept(struct duty *d, uint64_t cut)
{
    struct duty_intent *in = &d->intent;

    pthread_mutex_lock(&in->lock);
    bool over = clock_ns() - in->began_ns >= PERIOD_NS;
    if (in->period && in->synced && cut >= in->cut && (in->first || over)) {
        intent_clear(in->bits, cut);
        in->period = in->first = false;
        in->cleared = true;
        pthread_cond_broadcast(&in->changed);
    }
    if (in->bits && !in->period && over)
        period_begin(d);
    pthread_mutex_unlock(&in->lock);
}

void intent_duty_begin(struct duty *d)
{
    pthread_mutex_lock(&d->intent.lock);
    d->intent.period = false;
    d->intent.first = true;
    d->intent.began_ns = 0;
    pthread_mutex_unlock(&d->intent.lock);
}

/* The lock is held, and given up meanwhile. After an error nothing is known of
 * this image any more: its bits stay. */
static void period_sync(struct duty *d)
{
    struct duty_intent *in = &d->intent;
    uint64_t serial = in->serial;

    in->tried = serial;
    pthread_mutex_unlock(&in->lock);
    int error = image_sync(d->image);
    if (error)
        duty_log_lose(d, DISK_LOST_SYNC);
    pthread_mutex_lock(&in->lock);
    if (!error && in->period && in->serial == serial)
        in->synced = true;
}

/* What was cleared gets to the disk some time, so that a crash does not bring
 * it all back. */
static void *sync_main(void *arg)
{
    struct duty *d = arg;
    struct duty_intent *in = &d->intent;

    pthread_mutex_lock(&in->lock);
    while (!in->quit) {
        if (in->period && in->serial != in->tried) {
            period_sync(d);
        } else if (in->cleared && in->bits && !in->flushing) {
            in->cleared = false;
            flush(d);
        } else {
            pthread_cond_wait(&in->changed, &in->lock);
        }
    }
    pthread_mutex_unlock(&in->lock);
    return NULL;
}

/* --- What the agent asks ----------------------------------------------------
 */

void intent_duty_base(struct duty *d, uint8_t base[INTENT_ID])
{
    pthread_mutex_lock(&d->intent.lock);
    memcpy(base, d->intent.base, INTENT_ID);
    pthread_mutex_unlock(&d->intent.lock);
}

static void regions_put(const struct intent *bits, uint64_t first, uint32_t n,
                        struct buf *answer)
{
    uint8_t *out = buf_extend(answer, (n + 7) / 8);

    memset(out, 0, (n + 7) / 8);
    for (uint64_t r = first; intent_next(bits, &r) && r < first + n; r++)
        out[(r - first) / 8] |= (uint8_t)(1u << (r - first) % 8);
}

int intent_duty_regions(struct duty *d, struct reader *r, struct buf *answer,
                        struct err *e)
{
    struct duty_intent *in = &d->intent;
    uint64_t first = read_u64(r);
    uint32_t n = read_u32(r), zero = read_u32(r);
    uint64_t regions = (d->image->bytes + INTENT_REGION - 1) / INTENT_REGION;

    if (!reader_done(r) || zero || !n || n > REGIONS_MAX || first >= regions ||
        n > regions - first)
        return err_set(e, "malformed question");
    pthread_mutex_lock(&in->lock);
    if (in->bits && (d->mode == DUTY_LOG || d->same))
        regions_put(in->bits, first, n, answer);
    pthread_mutex_unlock(&in->lock);
    return 0;
}

/* In the other slot than what is in use. */
static int new_make(struct duty *d, const char *path, const uint8_t *base,
                    bool all, struct intent **bits, struct err *e)
{
    struct duty_intent *in = &d->intent;
    struct store *file = &in->file[!in->slot];
    struct intent_config c;

    *file = (struct store){
        &store_fd_ops, open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
        "the write-intent bitmap"};
    if (file->fd < 0)
        return err_sys(e, "make %s", path);
    int r =
        posix_fallocate(file->fd, 0, (off_t)intent_file_bytes(d->image->bytes));
    if (r) {
        errno = r;
        return err_sys(e, "make %s", path);
    }
    if (config_make(d, file, &c, e))
        return -1;
    memcpy(c.base, base, sizeof c.base);
    return intent_format(&c, all, e) ? -1 : intent_open(bits, &c, e);
}

/* Writes wait as long as the directory is synced. The old one has what the new
 * one lacks until nobody can find it any more. */
static int new_take(struct duty *d, const char *fresh, struct intent *bits,
                    const uint8_t *base, struct err *e)
{
    struct duty_intent *in = &d->intent;
    char path[512];
    int rc = 0;

    duty_path(d, ".intent", path, sizeof path);
    lock_idle(in);
    if (rename(fresh, path))
        rc = err_sys(e, "rename %s", fresh);
    else
        rc = file_sync_dir(path, e);
    if (!rc) {
        bits_close(in);
        in->bits = bits;
        in->slot = !in->slot;
        memcpy(in->base, base, sizeof in->base);
    }
    pthread_mutex_unlock(&in->lock);
    return rc;
}

int intent_duty_rebase(struct duty *d, const uint8_t base[INTENT_ID], bool all,
                       struct err *e)
{
    struct duty_intent *in = &d->intent;
    struct intent *bits = NULL;
    struct err why = ERR_INIT;
    char fresh[512];

    duty_path(d, ".intent.new", fresh, sizeof fresh);
    if (!duty_directory_make(fresh, e) &&
        !new_make(d, fresh, base, all, &bits, e) &&
        !new_take(d, fresh, bits, base, e))
        return 0;
    intent_close(bits);
    if (in->file[!in->slot].fd >= 0)
        close(in->file[!in->slot].fd);
    in->file[!in->slot].fd = -1;
    unlink(fresh);
    if (intent_duty_remove(d, &why))
        log_error("disk=%s %s", d->id, why.text);
    return -1;
}

/* --- Life --------------------------------------------------------------------
 */

static int sync_start(struct duty *d, struct err *e)
{
    int rc = thread_start(&d->intent.thread, 0, sync_main, d,
                          "the bitmap's thread", e);

    d->intent.started = !rc;
    return rc;
}

void intent_duty_init(struct duty *d)
{
    pthread_mutex_init(&d->intent.lock, NULL);
    pthread_cond_init(&d->intent.changed, NULL);
    d->intent.file[0].fd = d->intent.file[1].fd = -1;
}

int intent_duty_open(struct duty *d, struct err *e)
{
    struct duty_intent *in = &d->intent;
    struct err why = ERR_INIT;
    char path[512];

    duty_path(d, ".intent", path, sizeof path);
    in->file[0] = (struct store){&store_fd_ops, open(path, O_RDWR | O_CLOEXEC),
                                 "the write-intent bitmap"};
    if (in->file[0].fd < 0 && errno != ENOENT)
        return err_sys(e, "open %s", path);
    if (d->image->read_only || in->file[0].fd < 0)
        return sync_start(d, e);
    if (existing_open(d, &why)) {
        log_warn("disk=%s the next copy is a whole one: %s", d->id, why.text);
        bits_close(in);
        if (file_remove(d, e))
            return -1;
    }
    return sync_start(d, e);
}

/* Bits that are set, and no more than these, are on the disk anyway. */
void intent_duty_close(struct duty *d, bool end)
{
    struct duty_intent *in = &d->intent;

    if (end && in->bits && !d->image->device)
        left_write(d);
    if (in->started) {
        pthread_mutex_lock(&in->lock);
        in->quit = true;
        pthread_cond_broadcast(&in->changed);
        pthread_mutex_unlock(&in->lock);
        pthread_join(in->thread, NULL);
    }
    bits_close(in);
    pthread_mutex_destroy(&in->lock);
    pthread_cond_destroy(&in->changed);
}
