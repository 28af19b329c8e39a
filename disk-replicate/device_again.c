// SPDX-License-Identifier: Apache-2.0
/* A server of the primary that died is waited for while the backup follows: its
 * successor knows what its log may have had, and builds it again. No epoch is
 * marked meanwhile. See docs/disk.md. Engine thread. */
#include "disk-replicate/device_private.h"

#include "common/clock.h"
#include "common/log.h"

#define SUCCESSOR_NS (10 * NS_PER_SEC)

static bool is_lost(const struct disk *d)
{
    return d->logging && (d->lost_ns || !diskctl_alive(&d->server));
}

bool disks_whole(const struct disks *all)
{
    for (int i = 0; i < all->n; i++)
        if (is_lost(&all->disk[i]))
            return false;
    return true;
}

/* Every region that the backup may lack is in the log, or there is none. */
static int log_again(const struct disks *all, struct disk *d, struct err *e)
{
    uint8_t p[16];
    struct buf next = {0};
    int rc;

    put_le32(p, all->log_mb << (20 - 12));
    put_le32(p + 4, DISK_LOG_ENTRIES);
    put_le64(p + 8, all->cut);
    rc = diskctl_call(&d->server, DISKCTL_RELOG, p, sizeof p, NULL, e);
    for (uint64_t region = 0; !rc && region != UINT64_MAX;) {
        put_le64(p, region);
        buf_clear(&next);
        rc = diskctl_call(&d->server, DISKCTL_REBUILD, p, 8, &next, e);
        if (!rc && (next.len != 8 || get_le64(next.data) <= region))
            rc = err_set(e, "disk %s: malformed answer", d->server.id);
        if (!rc)
            region = get_le64(next.data);
    }
    buf_free(&next);
    return rc;
}

/* -1: there will be none, or it can't help. */
static int successor_take(struct disks *all, struct disk *d, struct err *e)
{
    uint64_t now = clock_ns();
    struct err why = ERR_INIT;

    if (!d->lost_ns) {
        d->lost_ns = now;
        verify_abort(all);
        log_warn("disk=%s its server is gone, and waited for", d->server.id);
    }
    diskctl_close(&d->server);
    if (!diskctl_open(&d->server, d->server.id, &why) &&
        !log_again(all, d, &why)) {
        log_info("disk=%s its server's successor has the log after %llu ms",
                 d->server.id,
                 (unsigned long long)((clock_ns() - d->lost_ns) / NS_PER_MS));
        d->lost_ns = 0;
        __atomic_store_n(&d->page->copied, d->sectors * SECTOR,
                         __ATOMIC_RELAXED);
        return 0;
    }
    if (d->server.fd < 0 && now - d->lost_ns < SUCCESSOR_NS)
        return 0;
    *e = why;
    return err_add(e, "disk %s: its server died", d->server.id);
}

static int disk_again(struct disks *all, struct disk *d, struct err *e)
{
    if (!d->logging)
        return 0;
    if (is_lost(d) && all->busy)
        return 0;
    if (is_lost(d))
        return all->follows
                   ? successor_take(all, d, e)
                   : err_set(e, "disk %s: its server died", d->server.id);
    enum disk_lost lost = __atomic_load_n(&d->page->lost, __ATOMIC_SEQ_CST);
    return lost == DISK_LOST_NOTHING
               ? 0
               : err_set(e, "disk %s: %s", d->server.id, diskctl_lost(lost));
}

int disks_again(struct disks *all, struct err *e)
{
    for (int i = 0; i < all->n; i++)
        if (disk_again(all, &all->disk[i], e))
            return -1;
    return 0;
}
