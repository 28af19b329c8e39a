// SPDX-License-Identifier: Apache-2.0
/* Looking at disks; see look.h. Called by jobs of the daemon. */
#include "disk-replicate/look.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "disk-replicate/record.h"

/* Numbers of Linux's old majors, and of Xen's own beyond sixteen disks. */
static const struct {
    uint32_t major;
    unsigned bits; /* of a partition's number */
    uint32_t first;
    const char *prefix;
} majors[] = {
    {202, 4, 0, "xvd"}, {3, 6, 0, "hd"}, {22, 6, 2, "hd"}, {8, 4, 0, "sd"}};

static void vdev_put(char out[DISK_VDEV], const char *prefix, uint32_t disk,
                     uint32_t part)
{
    char letters[4] = "";
    size_t n = 0;

    if (disk >= 26)
        letters[n++] = (char)('a' + disk / 26 - 1);
    letters[n++] = (char)('a' + disk % 26);
    if (part)
        snprintf(out, DISK_VDEV, "%s%s%u", prefix, letters, part);
    else
        snprintf(out, DISK_VDEV, "%s%s", prefix, letters);
}

void disk_vdev(uint32_t device, char out[DISK_VDEV])
{
    uint32_t minor = device & 0xff;

    snprintf(out, DISK_VDEV, "%u", device);
    if (device >> 28 == 1 && (device >> 8 & 0xfffff) < 26 + 26 * 26) {
        vdev_put(out, "xvd", device >> 8 & 0xfffff, minor);
        return;
    }
    for (size_t i = 0; i < sizeof majors / sizeof *majors; i++)
        if (device >> 8 == majors[i].major)
            vdev_put(out, majors[i].prefix,
                     majors[i].first + (minor >> majors[i].bits),
                     minor & ((1u << majors[i].bits) - 1));
}

/* Of the id that block-understudy gives. */
static void id_read(struct disk_view *v)
{
    unsigned domid, device;
    char again[DISK_ID];

    if (sscanf(v->id, "vbd-%u-%u", &domid, &device) != 2)
        return;
    snprintf(again, sizeof again, "vbd-%u-%u", domid, device);
    if (strcmp(again, v->id) != 0)
        return;
    v->of_vm = true;
    v->domid = domid;
    v->device = device;
    disk_vdev(device, v->vdev);
}

static void page_read(struct disk_view *v)
{
    char path[RECORD_PATH];

    record_path(v->id, ".page", path);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, &v->page, sizeof v->page) != (ssize_t)sizeof v->page)
        memset(&v->page, 0, sizeof v->page);
}

struct looking {
    void (*each)(void *arg, const struct disk_view *v);
    void *arg;
    int n;
};

/* Its keeper, or its server, holds the record's lock. */
static bool lives(const char *id)
{
    char path[RECORD_PATH];

    record_path(id, "", path);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
}

static void one(void *arg, const char *id)
{
    struct looking *l = arg;
    struct disk_view v = {0};
    struct disk_config c = {0};

    if (record_load(id, &c, &v.server, NULL))
        return;
    snprintf(v.id, sizeof v.id, "%s", id);
    snprintf(v.image, sizeof v.image, "%s", c.image);
    v.read_only = c.read_only;
    if (!lives(id))
        v.server = 0;
    id_read(&v);
    page_read(&v);
    l->each(l->arg, &v);
    l->n++;
}

int disk_look(void (*each)(void *arg, const struct disk_view *v), void *arg,
              struct err *e)
{
    struct looking l = {each, arg, 0};

    return record_list(one, &l, e) < 0 ? -1 : l.n;
}
