// SPDX-License-Identifier: Apache-2.0
/* Which medium an image lies on, in words that are the same on every host that
 * reaches it: to see that the primary's image and the backup's are one. Reads
 * sysfs and /proc/self/mountinfo (UNDERSTUDY_ROOT in front). Any thread. */
#ifndef DISK_REPLICATE_MEDIUM_H
#define DISK_REPLICATE_MEDIUM_H

#define MEDIUM_MAX 256 /* with its NUL */

/* Of a device: its WWID, if that is unique in the world, or the UUID of a
 * device-mapper device, with the partition's number. Of a file: that of the
 * device below its file system, or the source of a network file system, and
 * the file's inode. "": not known; two that are not known may be one. */
void medium_name(const char *image, char out[MEDIUM_MAX]);

#endif
