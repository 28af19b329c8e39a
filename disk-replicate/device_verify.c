// SPDX-License-Identifier: Apache-2.0
/* Comparing the disks of both hosts; see device.h.
 *
 * Between two epochs the backup's image, with its journal, is the disk at the
 * end of the last one. So is what this image holds of a block that the log does
 * not have. Its digest goes to the backup before the next epoch does, and is
 * compared there before that is committed. What the log has is left over for
 * the next epochs: right after a cut the server knows what such a block held at
 * it, from the log that was closed, as long as nothing else of it was written;
 * when that epoch is committed, those digests are sent. */
#include "disk-replicate/device_private.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/epoch.h"
#include "common/clock.h"
#include "common/log.h"

#define STEP      64u    /* blocks that are looked at in a step */
#define WINDOW    256u   /* that are asked for at once: an epoch waits for */
#define LEFT_MAX  65536u /* that are left over; then the front waits */
#define TRIES     100    /* epochs until one is given up */
#define STASH_MAX 256u   /* that are looked at again in an epoch, */
#define STASH_NS  (20 * NS_PER_MS) /* for so long */
#define ASKS_MAX  1024u
#define ANSWER_NS (60 * NS_PER_SEC)

/* A run of blocks of one disk, and their digests. */
struct ask {
    int disk;
    uint64_t block;
    uint32_t n;
    bool again; /* of those left over */
    uint8_t unknown[DIGEST_BLOCKS / 8];
};

struct left {
    int disk;
    uint32_t tries;
    uint64_t block;
};

struct verify {
    pthread_mutex_t lock; /* of the next two */
    bool begin;
    struct disk_verify told; /* `ranges` has room for all */

    /* The engine thread's. */
    bool runs;
    int disk; /* the front: all blocks before it were looked at */
    uint64_t block;
    uint64_t session, heard_ns;
    bool waits; /* for an epoch on this session: answers of the last are old */
    struct ask ask[ASKS_MAX]; /* sent, the oldest first */
    size_t asks, asked_blocks;
    struct left *left; /* those that were tried least come first */
    size_t lefts, left_size;
    bool left_sorted;
    struct ask stash[STASH_MAX]; /* of the epoch `stash_epoch` */
    struct buf stash_digests;    /* u32 length and bytes each */
    size_t stashed;
    uint64_t stash_epoch;
    bool stash_committed;
};

struct verify *verify_new(void)
{
    struct verify *v = calloc(1, sizeof *v);

    if (!v)
        abort();
    pthread_mutex_init(&v->lock, NULL);
    return v;
}

void verify_free(struct verify *v)
{
    if (!v)
        return;
    pthread_mutex_destroy(&v->lock);
    buf_free(&v->stash_digests);
    free(v->told.ranges);
    free(v->left);
    free(v);
}

static uint64_t blocks_of(const struct disk *d)
{
    return (d->sectors + BLOCK_SECTORS - 1) / BLOCK_SECTORS;
}

static uint64_t bytes_at(const struct disk *d, uint64_t block, uint64_t n)
{
    uint64_t all = d->sectors * SECTOR, from = block * EPOCHLOG_BLOCK;

    return from + n * EPOCHLOG_BLOCK > all ? all - from : n * EPOCHLOG_BLOCK;
}

static bool is_set(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] & 1u << i % 8;
}

/* --- Beginning and ending ------------------------------------------------- */

static void begin(struct disks *all)
{
    struct verify *v = all->verify;

    v->runs = true;
    v->disk = 0;
    v->block = 0;
    v->asks = v->asked_blocks = v->lefts = v->stashed = 0;
    pthread_mutex_lock(&v->lock);
    v->begin = false;
    free(v->told.ranges);
    v->told = (struct disk_verify){.state = DISK_VERIFY_RUNS};
    v->told.ranges = calloc(DISK_VERIFY_RANGES, sizeof *v->told.ranges);
    if (!v->told.ranges)
        abort();
    for (int i = 0; i < all->n; i++)
        v->told.total += all->disk[i].sectors * SECTOR;
    pthread_mutex_unlock(&v->lock);
}

static int range_compare(const void *a, const void *b)
{
    const struct disk_range *x = a, *y = b;

    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* In order, and what is one range as one. The lock is held. */
static void ranges_sort(struct disk_verify *t)
{
    size_t n = 0;

    qsort(t->ranges, t->count, sizeof *t->ranges, range_compare);
    for (size_t i = 0; i < t->count; i++) {
        struct disk_range *last = n ? &t->ranges[n - 1] : NULL;
        if (last && last->device == t->ranges[i].device &&
            last->offset + last->bytes == t->ranges[i].offset)
            last->bytes += t->ranges[i].bytes;
        else
            t->ranges[n++] = t->ranges[i];
    }
    t->count = n;
}

static void end(struct disks *all, const struct err *why)
{
    struct verify *v = all->verify;

    v->runs = false;
    pthread_mutex_lock(&v->lock);
    ranges_sort(&v->told);
    v->told.state = why ? DISK_VERIFY_FAILED : DISK_VERIFY_DONE;
    if (why)
        v->told.why = *why;
    struct disk_verify t = v->told;
    pthread_mutex_unlock(&v->lock);
    if (why)
        log_warn("disks are not compared to the end: %s", why->text);
    else
        log_info("disks compared=%lu KiB differing=%lu KiB unknown=%lu KiB",
                 (t.done - t.unknown) >> 10, t.differing >> 10,
                 t.unknown >> 10);
}

void verify_abort(struct disks *all)
{
    struct err why = ERR_INIT;

    if (!all->verify->runs)
        return;
    err_set(&why, "the replica, or a disk's server, was lost meanwhile");
    end(all, &why);
}

/* --- Results ---------------------------------------------------------------
 */

static void left_add(struct verify *v, int disk, uint64_t block, uint32_t tries)
{
    if (v->lefts == v->left_size) {
        v->left_size = v->left_size ? 2 * v->left_size : 1024;
        v->left = realloc(v->left, v->left_size * sizeof *v->left);
        if (!v->left)
            abort();
    }
    v->left[v->lefts++] = (struct left){disk, tries, block};
    v->left_sorted = false;
}

/* What is known of these blocks is of no use any more. */
static void ask_drop(struct verify *v, const struct ask *a)
{
    for (uint32_t i = 0; i < a->n; i++)
        if (!a->again || !is_set(a->unknown, i))
            left_add(v, a->disk, a->block + i, 0);
}

static void stash_drop(struct verify *v, size_t from)
{
    for (size_t i = from; i < v->stashed; i++)
        ask_drop(v, &v->stash[i]);
    v->stashed = 0;
}

/* The lock is held. */
static void range_add(struct disk_verify *t, uint32_t device, uint64_t offset,
                      uint64_t bytes)
{
    struct disk_range *last = t->count ? &t->ranges[t->count - 1] : NULL;

    t->differing += bytes;
    if (last && last->device == device && last->offset + last->bytes == offset)
        last->bytes += bytes;
    else if (t->count < DISK_VERIFY_RANGES)
        t->ranges[t->count++] = (struct disk_range){device, offset, bytes};
}

static void block_done(struct verify *v, const struct disk *d, uint64_t block,
                       bool differs, bool unknown)
{
    uint64_t bytes = bytes_at(d, block, 1);

    pthread_mutex_lock(&v->lock);
    v->told.done += bytes;
    if (unknown)
        v->told.unknown += bytes;
    else if (differs)
        range_add(&v->told, d->device, block * EPOCHLOG_BLOCK, bytes);
    pthread_mutex_unlock(&v->lock);
}

/* What differs has no bit in a bitmap: neither is to be believed any more. */
static void bitmap_doubt(struct disk *d)
{
    struct err e = ERR_INIT;

    if (!d->doubted &&
        diskctl_call(&d->server, DISKCTL_DOUBT, NULL, 0, NULL, &e))
        log_warn("%s", e.text);
    d->doubted = true;
}

/* The answer to the oldest question; another one is for somebody who is not
 * there any more. */
static void answer_take(struct disks *all)
{
    struct verify *v = all->verify;
    struct reader r = reader_of(all->answer.data, all->answer.len);
    uint32_t device = read_u32(&r), n = read_u32(&r);
    uint64_t sector = read_u64(&r);
    const struct ask *a = &v->ask[0];
    struct disk *d = &all->disk[a->disk];

    if (!v->asks || r.bad || device != d->device || n != a->n ||
        sector != a->block * BLOCK_SECTORS || reader_left(&r) != (n + 7) / 8)
        return;
    for (uint32_t i = 0; i < n; i++) {
        if (!is_set(a->unknown, i)) {
            block_done(v, d, a->block + i, is_set(r.p, i), false);
            if (is_set(r.p, i))
                bitmap_doubt(d);
        } else if (!a->again) {
            left_add(v, a->disk, a->block + i, 0);
        }
    }
    v->heard_ns = clock_ns();
    v->asked_blocks -= n;
    v->asks--;
    memmove(&v->ask[0], &v->ask[1], v->asks * sizeof v->ask[0]);
}

/* --- Questions --------------------------------------------------------------
 */

/* What the server says of a run, as digests in *out and a->unknown. */
static int run_check(struct disks *all, struct ask *a, uint32_t which,
                     struct buf *out, struct err *e)
{
    struct disk *d = &all->disk[a->disk];
    size_t from = out->len, bits = (a->n + 7) / 8;
    size_t digests = DIGEST_HEAD + (size_t)a->n * DIGEST_BYTES;
    uint8_t p[24];

    put_le64(p, a->block * BLOCK_SECTORS);
    put_le32(p + 8, a->n);
    put_le32(p + 12, which);
    put_le64(p + 16, all->seed);
    if (diskctl_call(&d->server, DISKCTL_CHECK, p, sizeof p, out, e))
        return -1;
    if (out->len - from != digests + bits)
        return err_set(e, "disk %s: malformed answer", d->server.id);
    memcpy(a->unknown, out->data + from + digests, bits);
    out->len -= bits;
    return 0;
}

/* -1: the engine has something else to do. */
static int ask_send(struct disks *all, const struct ask *a, const void *digests,
                    size_t len, const struct device_sink *sink)
{
    struct verify *v = all->verify;

    if (!v->asks)
        v->heard_ns = clock_ns();
    v->ask[v->asks++] = *a;
    v->asked_blocks += a->n;
    return disks_payload_put(all, &all->disk[a->disk],
                             EPOCH_DISK_LIVE | EPOCH_DISK_ASK, digests, len,
                             sink, NULL);
}

/* The next run at the front. */
static int front_ask(struct disks *all, const struct device_sink *sink,
                     struct err *e)
{
    struct verify *v = all->verify;
    struct disk *d = &all->disk[v->disk];
    uint64_t more = blocks_of(d) - v->block;
    struct ask a = {.disk = v->disk,
                    .block = v->block,
                    .n = more < STEP ? (uint32_t)more : STEP};

    buf_clear(&all->piece);
    if (run_check(all, &a, 0, &all->piece, e))
        return -1;
    v->block += a.n;
    if (v->block == blocks_of(d)) {
        v->disk++;
        v->block = 0;
    }
    ask_send(all, &a, all->piece.data, all->piece.len, sink);
    return 0;
}

/* Of the epoch that is the backup's now, before the next one. */
static void stash_send(struct disks *all, const struct device_sink *sink)
{
    struct verify *v = all->verify;
    struct reader r = reader_of(v->stash_digests.data, v->stash_digests.len);
    size_t len, i = 0;
    int rc = 0;

    while (i < v->stashed && !rc) {
        const uint8_t *p = read_blob(&r, DISKCTL_MAX, &len);
        rc = ask_send(all, &v->stash[i++], p, len, sink);
    }
    stash_drop(v, i);
}

/* What was asked on another session is asked again. */
static void session_follow(struct verify *v, uint64_t session)
{
    if (v->session == session)
        return;
    for (size_t i = 0; i < v->asks; i++)
        ask_drop(v, &v->ask[i]);
    stash_drop(v, 0);
    v->asks = v->asked_blocks = 0;
    v->session = session;
    v->waits = true;
}

static bool begins(struct verify *v)
{
    pthread_mutex_lock(&v->lock);
    bool yes = v->begin && !v->runs;
    pthread_mutex_unlock(&v->lock);
    return yes;
}

static bool front_moves(const struct disks *all)
{
    const struct verify *v = all->verify;

    return v->disk < all->n && v->asked_blocks < WINDOW &&
           v->asks < ASKS_MAX / 4 && v->lefts < LEFT_MAX;
}

static bool rate_allows(struct disks *all)
{
    return rate_take(&all->rate, STEP * EPOCHLOG_BLOCK, clock_ns());
}

/* Answers that have come. -1: the engine has something else to do. */
static int answers_take(struct disks *all, const struct device_sink *sink)
{
    int r;

    for (;;) {
        buf_clear(&all->answer);
        r = sink->answer(sink->arg, &all->answer, NULL);
        if (r <= 0)
            return r;
        answer_take(all);
    }
}

bool verify_step(struct disks *all, const struct device_sink *sink)
{
    struct verify *v = all->verify;
    struct err e = ERR_INIT;
    bool held = false; /* by the rate */

    if (!v->runs && !begins(v))
        return false;
    session_follow(v, sink->session);
    if (!v->runs)
        begin(all);
    if (answers_take(all, sink) < 0 || v->waits)
        return false;
    if (v->stashed && v->stash_committed)
        stash_send(all, sink);
    else if (front_moves(all) && rate_allows(all))
        front_ask(all, sink, &e);
    else
        held = front_moves(all);
    if (e.kind)
        end(all, &e);
    if (v->runs && v->asks && clock_ns() - v->heard_ns > ANSWER_NS) {
        err_kind(&e, ERR_TIMEOUT, "the backup does not answer");
        end(all, &e);
    }
    if (v->runs && v->disk == all->n && !v->asks && !v->lefts && !v->stashed)
        end(all, NULL);
    return v->runs && !held && front_moves(all);
}

/* --- What is left over ------------------------------------------------------
 */

static int left_compare(const void *a, const void *b)
{
    const struct left *x = a, *y = b;

    if (x->tries != y->tries)
        return x->tries < y->tries ? -1 : 1;
    if (x->disk != y->disk)
        return x->disk < y->disk ? -1 : 1;
    return x->block < y->block ? -1 : x->block > y->block;
}

static void left_sort(struct verify *v)
{
    if (!v->left_sorted && v->lefts)
        qsort(v->left, v->lefts, sizeof *v->left, left_compare);
    v->left_sorted = true;
}

/* The run of blocks at the index i of those left over. */
static struct ask run_of(const struct verify *v, size_t i)
{
    const struct left *first = &v->left[i];
    struct ask a = {
        .disk = first->disk, .block = first->block, .n = 1, .again = true};

    while (a.n < STEP && i + a.n < v->lefts && first[a.n].disk == a.disk &&
           first[a.n].block == a.block + a.n)
        a.n++;
    return a;
}

/* What is not known of a run is left over again, or given up. */
static void run_again(struct disks *all, const struct ask *a, size_t from)
{
    struct verify *v = all->verify;

    for (uint32_t i = 0; i < a->n; i++) {
        struct left l = v->left[from + i];
        if (!is_set(a->unknown, i))
            continue;
        if (++l.tries < TRIES)
            left_add(v, l.disk, l.block, l.tries);
        else
            block_done(v, &all->disk[l.disk], l.block, false, true);
    }
}

/* A run goes into the stash. */
static int run_stash(struct disks *all, size_t i, struct err *e)
{
    struct verify *v = all->verify;
    struct ask *a = &v->stash[v->stashed];

    *a = run_of(v, i);
    buf_clear(&all->piece);
    if (run_check(all, a, 1, &all->piece, e))
        return -1;
    buf_blob(&v->stash_digests, all->piece.data, all->piece.len);
    v->stashed++;
    run_again(all, a, i);
    return 0;
}

/* Some of them; the others are tried in the next epoch. */
void verify_marked(struct disks *all, uint64_t epoch)
{
    struct verify *v = all->verify;
    uint64_t until = clock_ns() + STASH_NS;
    struct err e = ERR_INIT;
    size_t i = 0;

    if (!v->runs || v->waits || v->asks > ASKS_MAX / 2)
        return;
    stash_drop(v, 0);
    left_sort(v);
    buf_clear(&v->stash_digests);
    v->stash_epoch = epoch;
    v->stash_committed = false;
    size_t there = v->lefts;
    while (i < there && i < STASH_MAX - STEP && clock_ns() < until) {
        if (run_stash(all, i, &e)) {
            end(all, &e);
            return;
        }
        i += v->stash[v->stashed - 1].n;
    }
    v->lefts -= i;
    memmove(v->left, v->left + i, v->lefts * sizeof *v->left);
}

void verify_committed(struct disks *all, uint64_t epoch)
{
    struct verify *v = all->verify;

    v->waits = false;
    if (v->runs && v->stashed && v->stash_epoch == epoch)
        v->stash_committed = true;
}

/* --- For others -------------------------------------------------------------
 */

void disk_verify_begin(struct checkpoint_device *d)
{
    struct verify *v = ((struct disks *)d)->verify;

    pthread_mutex_lock(&v->lock);
    if (v->told.state != DISK_VERIFY_RUNS) {
        v->begin = true;
        v->told.state = DISK_VERIFY_RUNS;
        v->told.total = v->told.done = 0;
        v->told.differing = v->told.unknown = 0;
        v->told.count = 0;
    }
    pthread_mutex_unlock(&v->lock);
}

void disk_verify_look(struct checkpoint_device *d, struct disk_verify *out)
{
    struct verify *v = ((struct disks *)d)->verify;

    pthread_mutex_lock(&v->lock);
    *out = v->told;
    out->ranges = calloc(out->count + 1, sizeof *out->ranges);
    if (!out->ranges)
        abort();
    if (out->count)
        memcpy(out->ranges, v->told.ranges, out->count * sizeof *out->ranges);
    pthread_mutex_unlock(&v->lock);
}
