// SPDX-License-Identifier: Apache-2.0
/* Refusing images that are in use; see guard.h. Called by understudy-disk
 * before it starts a server. */
#include "disk-replicate/guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "disk-replicate/duty_private.h"
#include "disk-replicate/look.h"

/* --- Our own ---------------------------------------------------------------
 */

struct served {
    const char *image;
    bool read_only, found;
    char id[DISK_ID];
    uint32_t role;
};

static void served_look(void *arg, const struct disk_view *v)
{
    struct served *s = arg;

    if (!v->server || strcmp(v->image, s->image) != 0 ||
        (v->read_only && s->read_only))
        return;
    s->found = true;
    s->role = v->page.role;
    snprintf(s->id, sizeof s->id, "%s", v->id);
}

static int served_check(const char *image, bool read_only, struct err *e)
{
    struct served s = {.image = image, .read_only = read_only};

    if (disk_look(served_look, &s, e) < 0)
        return -1;
    if (!s.found)
        return 0;
    err_kind(e, ERR_REFUSED, "disk image %s is served already, as %s%s", image,
             s.id, s.role >= DISK_COPYING ? ", for a replica" : "");
    return err_hint(e, "`understudy disk list` says whose it is");
}

static int replica_check(const char *image, struct err *e)
{
    enum duty_mark mark;

    if (duty_mark_of(image, &mark, e))
        return -1;
    if (mark == MARK_NONE)
        return 0;
    err_kind(e, ERR_REFUSED, "disk image %s is a replica%s", image,
             mark == MARK_WHOLE ? "" : ", and was not copied to the end");
    return err_hint(e, "protect the VM again where it runs; or see "
                       "understudy-disk(8), FILES");
}

/* --- Files ------------------------------------------------------------------
 */

/* There a lease is refused for reasons of the server's as well
 * (fs/nfs/nfs4proc.c, nfs4_proc_setlease; fs/smb/client/cifsfs.c,
 * cifs_setlease). */
static bool is_remote(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs))
        return true;
    switch ((uint32_t)fs.f_type) {
    case NFS_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
        return true;
    }
    return false;
}

/* A lease for reading is granted exactly when nobody has it open for writing
 * (fs/locks.c). File systems without leases are not asked. */
static int writers_check(const char *image, struct err *e)
{
    CLEANUP_CLOSE int fd = open(image, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "open disk image %s", image);
    if (is_remote(fd))
        return 0;
    if (!fcntl(fd, F_SETLEASE, F_RDLCK)) {
        fcntl(fd, F_SETLEASE, F_UNLCK);
        return 0;
    }
    if (errno != EAGAIN)
        return 0;
    err_kind(e, ERR_REFUSED,
             "disk image %s is in use: something has it open for writing",
             image);
    return err_hint(e, "fuser -v %s, losetup -j %s, swapon --show say what",
                    image, image);
}

/* --- Devices ----------------------------------------------------------------
 */

static bool is_partition_of(dev_t part, dev_t device)
{
    char link[64], to[PATH_MAX], whole[PATH_MAX];

    snprintf(link, sizeof link, "/sys/dev/block/%u:%u", major(part),
             minor(part));
    if (!realpath(link, to))
        return false;
    snprintf(link, sizeof link, "/sys/dev/block/%u:%u", major(device),
             minor(device));
    if (!realpath(link, whole))
        return false;
    size_t n = strlen(whole);
    return !strncmp(to, whole, n) && to[n] == '/';
}

/* ID PARENT MAJOR:MINOR ROOT POINT ...: proc(5). */
void guard_mount_find(FILE *mounts, dev_t device,
                      bool (*partition_of)(dev_t part, dev_t device), char *out,
                      size_t size)
{
    char line[4096], point[2048];
    unsigned ma, mi;

    *out = '\0';
    while (!*out && fgets(line, sizeof line, mounts)) {
        if (sscanf(line, "%*d %*d %u:%u %*s %2047s", &ma, &mi, point) != 3)
            continue;
        dev_t d = makedev(ma, mi);
        if (d == device || partition_of(d, device))
            snprintf(out, size, "%s", point);
    }
}

/* Another device that is made of it: LVM, RAID, crypt. */
static void holder_find(dev_t device, char *out, size_t size)
{
    char path[64];
    struct dirent *x;

    *out = '\0';
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/holders", major(device),
             minor(device));
    DIR *dir = opendir(path);
    while (dir && (x = readdir(dir)))
        if (x->d_name[0] != '.')
            snprintf(out, size, "%s", x->d_name);
    if (dir)
        closedir(dir);
}

/* The kernel says yes or no, sysfs and procfs why. */
static int device_check(const char *image, dev_t device, struct err *e)
{
    CLEANUP_CLOSE int fd = open(image, O_RDONLY | O_EXCL | O_CLOEXEC);
    char by[2048] = "";

    if (fd >= 0 || errno != EBUSY)
        return 0; /* what else is wrong, its server says */
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (mounts) {
        guard_mount_find(mounts, device, is_partition_of, by, sizeof by);
        fclose(mounts);
    }
    if (by[0]) {
        err_kind(e, ERR_REFUSED, "disk image %s is mounted on %s", image, by);
        return err_hint(e, "umount %.200s", by);
    }
    holder_find(device, by, sizeof by);
    if (by[0])
        err_kind(e, ERR_REFUSED, "disk image %s is a part of /dev/%s", image,
                 by);
    else
        err_kind(e, ERR_REFUSED, "disk image %s is in use", image);
    return err_hint(e, "lsblk %s and swapon --show say by what", image);
}

int guard_check(const char *image, bool read_only, bool guest, struct err *e)
{
    struct stat st;

    if (served_check(image, read_only, e) || (guest && replica_check(image, e)))
        return -1;
    if (stat(image, &st))
        return err_sys(e, "disk image %s", image);
    if (S_ISREG(st.st_mode))
        return writers_check(image, e);
    return S_ISBLK(st.st_mode) && !read_only
               ? device_check(image, st.st_rdev, e)
               : 0;
}
