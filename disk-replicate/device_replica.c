// SPDX-License-Identifier: Apache-2.0
/* The backup's side of replicated disks; see device.h. The replica's apply
 * thread, and who takes over. */
#include "disk-replicate/device.h"

#include <stdlib.h>
#include <string.h>

#include "checkpoint/epoch.h"
#include "common/clock.h"
#include "common/log.h"
#include "disk-replicate/disk_control.h"

#define SUCCESSOR_NS (30 * NS_PER_SEC) /* for a takeover */
#define AGAIN_NS     (10 * NS_PER_SEC)
#define RETRY_MS     20

struct disk {
    struct diskctl server;
    uint32_t device;
    bool begun;   /* the primary has told its size, and it fits */
    bool ready;   /* all of the next epoch is in its journal */
    bool follows; /* an epoch was prepared: it is no more being copied */
    uint64_t prepared, decided; /* the last ones; 0: none yet */
    uint64_t kept; /* the epoch that is in the image, synced; 0: none */
    /* Of the next epoch, so far. */
    uint32_t pieces;
    uint64_t bytes;
};

struct replica_disks {
    struct replica_device dev; /* first */
    struct disk disk[DISKS_MAX];
    int n;
    bool durable;
};

static struct replica_disks *disks_of(struct replica_device *d)
{
    return (struct replica_disks *)d;
}

static struct disk *disk_find(struct replica_disks *all, uint32_t device,
                              struct err *e)
{
    for (int i = 0; i < all->n; i++)
        if (all->disk[i].device == device)
            return &all->disk[i];
    err_set(e, "the VM here has no disk %u that is served by block-understudy",
            device);
    return NULL;
}

static void totals_clear(struct disk *d)
{
    d->ready = false;
    d->pieces = 0;
    d->bytes = 0;
}

/* A server that was lost has a successor soon, which has the journal. */
static int successor_call(struct disk *d, enum diskctl_type type,
                          uint64_t epoch, uint64_t wait_ns, struct err *e)
{
    const struct timespec pause = {.tv_nsec = RETRY_MS * (long)NS_PER_MS};
    uint64_t end = clock_ns() + wait_ns;
    uint8_t p[8];

    put_le64(p, epoch);
    for (;;) {
        bool lost = d->server.fd < 0;
        err_clear(e);
        if (lost && !diskctl_open(&d->server, d->server.id, e))
            lost = false;
        if (!lost && !diskctl_call(&d->server, type, p, sizeof p, NULL, e))
            return 0;
        if ((!lost && e->kind != ERR_GONE) || clock_ns() >= end)
            return -1;
        nanosleep(&pause, NULL);
    }
}

/* It goes on from the epoch that is decided. */
static int disk_again(struct disk *d, uint64_t epoch, struct err *e)
{
    if (successor_call(d, DISKCTL_AGAIN, epoch, AGAIN_NS, e))
        return err_add(e, "its server was lost");
    d->kept = 0;
    totals_clear(d);
    log_info("disk=%s the successor of its server goes on from epoch %lu",
             d->server.id, epoch);
    return 0;
}

static int begin(struct disk *d, const uint8_t *p, size_t len, struct err *e)
{
    d->kept = 0;
    if (diskctl_call(&d->server, DISKCTL_REPLICA, p, len, NULL, e))
        return -1;
    totals_clear(d);
    d->begun = true;
    d->follows = false;
    d->prepared = d->decided = 0;
    return 0;
}

static int piece(struct disk *d, const uint8_t *p, size_t len, struct err *e)
{
    if (diskctl_call(&d->server, DISKCTL_PIECE, p, len, NULL, e))
        return -1;
    d->pieces++;
    d->bytes += len;
    return 0;
}

/* The bits that answer a question, whose head is `asked`. */
static void want_put(struct buf *answer, const struct disk *d,
                     const uint8_t *asked, const struct buf *bits)
{
    buf_u32(answer, d->device);
    buf_u32(answer, get_le32(asked + 8));
    buf_u64(answer, get_le64(asked));
    buf_put(answer, bits->data, bits->len);
}

/* DISK_WANT. A replica that follows is good for a takeover, whatever keeps it
 * from being looked at: then there is no answer. What a lost server had got of
 * the next epoch, the records that follow find out. */
static int compare(struct disk *d, const uint8_t *p, size_t len,
                   struct buf *answer, struct err *e)
{
    struct buf bits = {0};
    struct err why = ERR_INIT;

    if (len < DIGEST_HEAD)
        return err_set(e, "malformed digests");
    int rc = diskctl_call(&d->server, DISKCTL_COMPARE, p, len, &bits, &why);
    if (rc && d->decided && !d->pieces && why.kind == ERR_GONE &&
        !disk_again(d, d->decided, &why)) {
        buf_clear(&bits);
        rc = diskctl_call(&d->server, DISKCTL_COMPARE, p, len, &bits, &why);
    }
    if (rc && d->follows) {
        log_warn("disk=%s not compared: %s", d->server.id, why.text);
        buf_free(&bits);
        return 0;
    }
    if (rc && e)
        *e = why;
    if (!rc)
        want_put(answer, d, p, &bits);
    buf_free(&bits);
    return rc;
}

/* DISK_WANT, of regions. */
static int regions(struct disk *d, const uint8_t *p, size_t len,
                   struct buf *answer, struct err *e)
{
    struct buf bits = {0};

    if (len != 16)
        return err_set(e, "malformed question");
    int rc = diskctl_call(&d->server, DISKCTL_REGIONS, p, len, &bits, e);
    if (!rc)
        want_put(answer, d, p, &bits);
    buf_free(&bits);
    return rc;
}

static int disks_record(struct replica_device *dev, const void *payload,
                        size_t len, struct buf *answer, struct err *e)
{
    const uint8_t *rest;
    size_t rest_len;
    struct epoch_disk head;

    if (epoch_disk_read(payload, len, &head, &rest, &rest_len, e))
        return -1;
    struct disk *d = disk_find(disks_of(dev), head.device, e);
    if (!d)
        return -1;
    if (head.flags & EPOCH_DISK_BEGIN)
        return begin(d, rest, rest_len, e);
    if (!d->begun)
        return err_set(e, "DISK of disk %u before its first", head.device);
    if (head.flags & EPOCH_DISK_ASK)
        return compare(d, rest, rest_len, answer, e);
    if (head.flags & EPOCH_DISK_REGIONS)
        return regions(d, rest, rest_len, answer, e);
    if (head.flags & EPOCH_DISK_LIVE)
        return diskctl_call(&d->server, DISKCTL_LIVE, rest, rest_len, NULL, e);
    return piece(d, rest, rest_len, e);
}

static int prepare_ask(struct disk *d, uint64_t epoch, uint64_t coming,
                       bool durable, struct err *e)
{
    uint8_t p[32] = {0};

    if (!d->begun)
        return err_set(e, "disk %s is not replicated by the primary",
                       d->server.id);
    put_le64(p, epoch);
    put_le32(p + 8, d->pieces);
    put_le32(p + 12, durable);
    put_le64(p + 16, d->bytes);
    put_le64(p + 24, coming);
    return diskctl_ask(&d->server, DISKCTL_PREPARE, p, sizeof p, e);
}

static int prepare_answer(struct disk *d, uint64_t epoch, struct err *e)
{
    struct buf kept = {0};
    int rc = diskctl_answer(&d->server, &kept, e);

    if (!rc && kept.len != 8)
        rc = err_set(e, "disk %s: malformed answer", d->server.id);
    if (!rc) {
        d->kept = get_le64(kept.data);
        d->ready = d->follows = true;
        d->prepared = epoch;
    }
    buf_free(&kept);
    return rc;
}

/* All at once: with durable_ack each syncs. */
static int disks_prepare(struct replica_device *dev, uint64_t epoch,
                         uint64_t coming, uint64_t *kept, struct err *e)
{
    struct replica_disks *all = disks_of(dev);
    struct err why[DISKS_MAX] = {0};
    bool asked[DISKS_MAX];
    int rc = 0;

    *kept = epoch;
    for (int i = 0; i < all->n; i++)
        asked[i] =
            !prepare_ask(&all->disk[i], epoch, coming, all->durable, &why[i]);
    for (int i = 0; i < all->n; i++) {
        struct disk *d = &all->disk[i];
        if (asked[i] && !prepare_answer(d, epoch, &why[i])) {
            if (d->kept < *kept)
                *kept = d->kept;
        } else if (!rc) {
            *e = why[i];
            rc = -1;
        }
    }
    return rc;
}

/* Of several disks none may be ahead of what the others still have after a
 * power cut: before any is applied, all have it on the medium. One whose server
 * is lost just then has a successor that does it first of all. */
static int disks_secure(struct replica_disks *all, struct err *e)
{
    struct err why[DISKS_MAX] = {0};
    bool asked[DISKS_MAX];
    int rc = 0;

    if (all->n == 1 || all->durable)
        return 0;
    for (int i = 0; i < all->n; i++)
        asked[i] = !diskctl_ask(&all->disk[i].server, DISKCTL_SECURE, NULL, 0,
                                &why[i]);
    for (int i = 0; i < all->n; i++) {
        bool fine =
            asked[i] && !diskctl_answer(&all->disk[i].server, NULL, &why[i]);
        if (fine || why[i].kind == ERR_GONE)
            continue;
        *e = why[i];
        rc = -1;
    }
    return rc;
}

static int disks_decide(struct replica_device *dev, struct err *e)
{
    struct replica_disks *all = disks_of(dev);
    int rc = disks_secure(all, e);

    for (int i = 0; i < all->n; i++) {
        struct disk *d = &all->disk[i];
        if (diskctl_call(&d->server, DISKCTL_DECIDE, NULL, 0, NULL,
                         rc ? NULL : e))
            rc = -1;
        d->decided = d->prepared;
        totals_clear(d);
    }
    return rc;
}

/* An error is seen by what follows. */
static void disks_drop(struct replica_device *dev)
{
    struct replica_disks *all = disks_of(dev);

    for (int i = 0; i < all->n; i++) {
        struct disk *d = &all->disk[i];
        if (d->pieces || d->ready)
            (void)diskctl_call(&d->server, DISKCTL_DROP, NULL, 0, NULL, NULL);
        totals_clear(d);
    }
}

static int disks_again(struct replica_device *dev, uint64_t epoch,
                       struct err *e)
{
    struct replica_disks *all = disks_of(dev);

    for (int i = 0; i < all->n; i++) {
        struct disk *d = &all->disk[i];
        if (!diskctl_alive(&d->server))
            diskctl_close(&d->server);
        if (d->server.fd < 0 && disk_again(d, epoch, e))
            return -1;
    }
    disks_drop(dev);
    return 0;
}

static int disks_promote(struct replica_device *dev, uint64_t epoch,
                         struct err *e)
{
    struct replica_disks *all = disks_of(dev);

    for (int i = 0; i < all->n; i++)
        if (successor_call(&all->disk[i], DISKCTL_PROMOTE, epoch, SUCCESSOR_NS,
                           e))
            return -1;
    return 0;
}

static void disks_free(struct replica_device *dev)
{
    struct replica_disks *all = disks_of(dev);

    for (int i = 0; i < all->n; i++) {
        diskctl_close(&all->disk[i].server);
    }
    free(all);
}

static const struct replica_device_ops ops = {
    .record = disks_record,
    .prepare = disks_prepare,
    .decide = disks_decide,
    .drop = disks_drop,
    .again = disks_again,
    .promote = disks_promote,
    .free = disks_free,
};

static int disks_connect(struct replica_disks *all,
                         char ids[DISKS_MAX][DISK_ID], int n, struct err *e)
{
    for (int i = 0; i < n; i++) {
        struct disk *d = &all->disk[i];
        d->device = diskctl_device(ids[i]);
        all->n++;
        totals_clear(d);
        if (diskctl_open(&d->server, ids[i], e))
            return -1;
    }
    return 0;
}

int disk_replica_new(struct replica_device **out, uint32_t domid, bool durable,
                     struct err *e)
{
    char ids[DISKS_MAX][DISK_ID];
    int n = diskctl_disks(domid, ids, e);

    *out = NULL;
    if (n <= 0)
        return n;
    struct replica_disks *all = calloc(1, sizeof *all);
    if (!all)
        return err_sys(e, "disks");
    all->dev.ops = &ops;
    all->durable = durable;
    all->dev.max_bytes = (uint64_t)n * DISK_EPOCH_BYTES;
    if (disks_connect(all, ids, n, e)) {
        disks_free(&all->dev);
        return -1;
    }
    *out = &all->dev;
    return 0;
}

int disk_replica_promote(uint32_t domid, uint64_t epoch, struct err *e)
{
    struct replica_device *d = NULL;

    if (disk_replica_new(&d, domid, false, e))
        return -1;
    int rc = d ? disks_promote(d, epoch, e) : 0;
    if (d)
        disks_free(d);
    return rc;
}
