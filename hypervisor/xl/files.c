// SPDX-License-Identifier: Apache-2.0
/* Which files of this host a VM may be started from: a kernel or a ramdisk
 * becomes memory of the guest, and on the backup it is the peer who names them;
 * an image is overwritten there. Only what lies in a few folders; links in them
 * are the administrator's. */
#include "hypervisor/xl/xl.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"

#define FOLDERS      "/boot:/usr/lib/xen*:/usr/lib/grub-xen*:/srv/guest"
#define DISK_FOLDERS "/srv:/var/lib/xen/images"

static const char *folders(void)
{
    const char *said = getenv("UNDERSTUDY_KERNEL_DIRS");

    return said && *said ? said : FOLDERS;
}

static const char *disk_folders(void)
{
    const char *said = getenv("UNDERSTUDY_DISK_DIRS");

    return said && *said ? said : DISK_FOLDERS;
}

/* Strictly below a folder of the list; `*` and the like mean what they do in a
 * shell. */
static bool in_folders(const char *list, const char *path)
{
    for (const char *f = list; *f;) {
        size_t n = strcspn(f, ":");
        CLEANUP_FREE char *below = NULL;
        if (asprintf(&below, "%.*s/?*", (int)n, f) < 0)
            abort();
        if (n && !fnmatch(below, path, FNM_PATHNAME | FNM_LEADING_DIR))
            return true;
        f += n + (f[n] == ':');
    }
    return false;
}

static bool is_straight(const char *path)
{
    size_t n = strlen(path);

    return path[0] == '/' && !strstr(path, "/../") &&
           (n < 3 || strcmp(path + n - 3, "/..") != 0);
}

/* One that is not there (yet) is taken by its word: it is looked at again
 * before the VM is started from it. */
static bool file_ok(const char *path)
{
    struct stat st;

    return is_straight(path) && in_folders(folders(), path) &&
           (stat(path, &st) ? errno == ENOENT : S_ISREG(st.st_mode));
}

static int file_check(const char *what, const char *path, struct err *e)
{
    if (!path || file_ok(path))
        return 0;
    err_kind(e, ERR_REFUSED, "the VM's %s, %s, may not be read for a VM", what,
             path);
    return err_hint(e,
                    "on both hosts, put it into one of %s, or name its folder "
                    "in kernel_dirs= of understudyd.conf",
                    folders());
}

int image_check(const char *path, struct err *e)
{
    if (is_straight(path) && in_folders(disk_folders(), path) &&
        !in_folders(folders(), path))
        return 0;
    err_kind(e, ERR_REFUSED, "the VM's disk image %s may not be one here",
             path);
    return err_hint(e,
                    "on both hosts, put it into one of %s, or name its folder "
                    "in disk_dirs= of understudyd.conf",
                    disk_folders());
}

int files_check(const libxl_domain_config *c, struct err *e)
{
    const libxl_domain_build_info *b = &c->b_info;
    bool pvh = b->type == LIBXL_DOMAIN_TYPE_PVH;

    return file_check("kernel", b->kernel, e) ||
                   file_check("ramdisk", b->ramdisk, e) ||
                   file_check("device tree", b->device_tree, e) ||
                   file_check("shim", pvh ? b->u.pvh.pvshim_path : NULL, e)
               ? -1
               : 0;
}
