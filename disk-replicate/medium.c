// SPDX-License-Identifier: Apache-2.0
/* Names of media; see medium.h. Called by the block server's control thread. */
#include "disk-replicate/medium.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const char *root(void)
{
    const char *r = getenv("UNDERSTUDY_ROOT");

    return r ? r : "";
}

/* The first line of a file in sysfs, "" without one. */
static void line_read(const char *dir, const char *name, char out[MEDIUM_MAX])
{
    char path[PATH_MAX];

    *out = '\0';
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return;
    FILE *f = fopen(path, "re");
    if (f && fgets(out, MEDIUM_MAX, f))
        out[strcspn(out, "\n")] = '\0';
    if (f)
        fclose(f);
}

/* Others are made of a vendor's words, the same for many virtual disks. */
static bool is_unique(const char *wwid)
{
    return !strncmp(wwid, "naa.", 4) || !strncmp(wwid, "eui.", 4) ||
           !strncmp(wwid, "uuid.", 5);
}

/* What the device at `dir` says of itself. */
static void whole_name(const char *dir, char out[MEDIUM_MAX])
{
    static const char *const files[] = {"wwid", "device/wwid"};
    char text[MEDIUM_MAX];

    *out = '\0';
    line_read(dir, "dm/uuid", text);
    if (text[0]) {
        snprintf(out, MEDIUM_MAX, "device-mapper %.200s", text);
        return;
    }
    for (size_t i = 0; i < 2 && !*out; i++) {
        line_read(dir, files[i], text);
        if (is_unique(text))
            snprintf(out, MEDIUM_MAX, "WWID %.200s", text);
    }
}

static void device_name(dev_t device, char out[MEDIUM_MAX])
{
    char link[PATH_MAX], dir[PATH_MAX], part[MEDIUM_MAX], whole[MEDIUM_MAX];

    *out = '\0';
    snprintf(link, sizeof link, "%s/sys/dev/block/%u:%u", root(), major(device),
             minor(device));
    if (!realpath(link, dir))
        return;
    line_read(dir, "partition", part);
    char *last = strrchr(dir, '/');
    if (!part[0]) {
        whole_name(dir, out);
        return;
    }
    *last = '\0';
    whole_name(dir, whole);
    if (whole[0])
        snprintf(out, MEDIUM_MAX, "%.220s partition %.16s", whole, part);
}

/* File systems whose source is the same storage from everywhere. */
static bool is_network(const char *type, const char *source)
{
    static const char *const types[] = {"nfs",  "nfs4",           "cifs",
                                        "smb3", "ceph",           "lustre",
                                        "gpfs", "fuse.glusterfs", "glusterfs"};
    static const char *const local[] = {"localhost", "127.", "//localhost",
                                        "//127.", "[::1]"};

    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        if (!strncmp(source, local[i], strlen(local[i])))
            return false;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(type, types[i]))
            return true;
    return false;
}

/* proc(5): "... MAJOR:MINOR ROOT POINT OPTIONS [FIELDS] - TYPE SOURCE ..." */
static void mount_name(dev_t device, char out[MEDIUM_MAX])
{
    char path[PATH_MAX], line[4096], type[64], source[192];
    unsigned ma, mi;

    *out = '\0';
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root());
    FILE *f = fopen(path, "re");
    while (f && !*out && fgets(line, sizeof line, f)) {
        const char *rest = strstr(line, " - ");
        if (rest && sscanf(line, "%*d %*d %u:%u", &ma, &mi) == 2 &&
            makedev(ma, mi) == device &&
            sscanf(rest, " - %63s %191s", type, source) == 2 &&
            is_network(type, source))
            snprintf(out, MEDIUM_MAX, "%s", source);
    }
    if (f)
        fclose(f);
}

void medium_name(const char *image, char out[MEDIUM_MAX])
{
    char below[MEDIUM_MAX];
    struct stat st;

    *out = '\0';
    if (stat(image, &st))
        return;
    if (S_ISBLK(st.st_mode)) {
        device_name(st.st_rdev, out);
        return;
    }
    if (major(st.st_dev))
        device_name(st.st_dev, below);
    else
        mount_name(st.st_dev, below);
    if (below[0])
        snprintf(out, MEDIUM_MAX, "%.220s inode %lu", below, st.st_ino);
}
