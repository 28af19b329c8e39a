// SPDX-License-Identifier: Apache-2.0
/* Disks of a replica without its memory; see cold.h. */
#include "disk-replicate/cold.h"

#include <stdio.h>
#include <string.h>

#include "disk-replicate/duty_private.h"
#include "disk-replicate/record.h"

int cold_list(struct cold_disks *all, uint32_t domid, struct err *e)
{
    char ids[DISKS_MAX][DISK_ID];
    struct disk_config c = {0};
    long server;

    all->n = diskctl_disks(domid, ids, e);
    for (int i = 0; i < all->n; i++) {
        if (record_load(ids[i], &c, &server, e))
            return -1;
        all->disk[i].device = diskctl_device(ids[i]);
        snprintf(all->disk[i].image, DISK_PATH, "%s", c.image);
    }
    return all->n < 0 ? -1 : 0;
}

static int look_one(const char *image, struct journal_found *f, struct err *e)
{
    struct duty_exact x;
    enum duty_mark mark;

    if (duty_mark_of(image, &mark, e))
        return -1;
    if (mark == MARK_SYNCING)
        return err_kind(e, ERR_REFUSED,
                        "disk image %s was not copied to the end: it is no "
                        "whole epoch",
                        image);
    if (mark == MARK_WHOLE)
        return duty_journal_look(image, f, e)
                   ? err_add(e, "disk image %s", image)
                   : 0;
    if (duty_exact_of(image, &x, e))
        return -1;
    *f = (struct journal_found){
        .least = x.epoch, .last = x.epoch, .wall_ms = x.wall_ms};
    return 0;
}

/* The image that has the least. */
static int oldest_of(const struct journal_found *f, int n)
{
    int oldest = 0;

    for (int i = 1; i < n; i++)
        if (f[i].last < f[oldest].last)
            oldest = i;
    return oldest;
}

/* What one has prepared of its last epoch may be of another coming than what
 * the other has: then it was not committed. */
static bool comings_differ(const struct journal_found *f, int n, uint64_t last)
{
    uint64_t one = 0;

    for (int i = 0; i < n; i++) {
        if (f[i].last != last || !f[i].coming)
            continue;
        if (one && one != f[i].coming)
            return true;
        one = f[i].coming;
    }
    return false;
}

uint64_t cold_common(const struct journal_found *f, int n, uint64_t *wall_ms)
{
    const struct journal_found *oldest = &f[oldest_of(f, n)];
    uint64_t common = oldest->last;

    *wall_ms = oldest->wall_ms;
    if (comings_differ(f, n, common)) {
        common--;
        *wall_ms = oldest->before_ms;
    }
    for (int i = 0; i < n; i++)
        if (f[i].least > common)
            return 0;
    return common;
}

int cold_look(const struct cold_disks *all, uint64_t *epoch, uint64_t *wall_ms,
              struct err *e)
{
    struct journal_found f[DISKS_MAX] = {0};
    int newest = 0;

    if (!all->n)
        return err_kind(e, ERR_REFUSED,
                        "the VM has no disk that is served by "
                        "block-understudy");
    for (int i = 0; i < all->n; i++) {
        if (look_one(all->disk[i].image, &f[i], e))
            return -1;
        if (f[i].least > f[newest].least)
            newest = i;
    }
    int oldest = oldest_of(f, all->n);
    if (!f[oldest].last)
        return err_kind(e, ERR_REFUSED, "disk image %s holds no epoch",
                        all->disk[oldest].image);
    *epoch = cold_common(f, all->n, wall_ms);
    return *epoch ? 0
                  : err_kind(e, ERR_REFUSED,
                             "the disk images are of different epochs: %s of "
                             "%lu, %s of %lu",
                             all->disk[oldest].image, f[oldest].last,
                             all->disk[newest].image, f[newest].least);
}

static int start_one(const char *id, uint64_t epoch, struct err *e)
{
    struct diskctl c;
    uint8_t p[8];

    put_le64(p, epoch);
    if (diskctl_open(&c, id, e))
        return -1;
    int rc = diskctl_call(&c, DISKCTL_START, p, sizeof p, NULL, e);
    diskctl_close(&c);
    return rc;
}

int cold_start(const struct cold_disks *all, uint32_t domid, uint64_t epoch,
               struct err *e)
{
    char id[DISK_ID];
    struct cold_disks there = {0};

    if (cold_list(&there, domid, e))
        return -1;
    for (int i = 0; i < all->n; i++) {
        int k = 0;
        while (k < there.n && (there.disk[k].device != all->disk[i].device ||
                               strcmp(there.disk[k].image, all->disk[i].image)))
            k++;
        if (k == there.n)
            return err_set(e, "the VM was started without its disk %s",
                           all->disk[i].image);
    }
    for (int i = 0; i < there.n; i++) {
        snprintf(id, sizeof id, "vbd-%u-%u", domid, there.disk[i].device);
        if (start_one(id, epoch, e))
            return -1;
    }
    return 0;
}
