// SPDX-License-Identifier: Apache-2.0
/* Which medium an image lies on, out of a sysfs and a mountinfo of the test's
 * for the file system that the test is on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cmocka.h>

#include "disk-replicate/medium.h"

static char root[64], image[80];
static struct stat st;

__attribute__((format(printf, 1, 2))) static void shell(const char *fmt, ...)
{
    char command[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/understudy-medium-XXXXXX");
    assert_non_null(mkdtemp(root));
    assert_int_equal(setenv("UNDERSTUDY_ROOT", root, 1), 0);
    snprintf(image, sizeof image, "%s/image", root);
    shell("mkdir -p %s/sys/dev/block %s/sys/sda/sda2 %s/proc/self; touch %s",
          root, root, root, image);
    return stat(image, &st);
}

static int teardown(void **state)
{
    (void)state;
    shell("rm -rf '%s'", root);
    return 0;
}

/* `dir` of the test's sysfs is what the image's file system is on. */
static void is_on(const char *dir)
{
    shell("ln -sfn ../../%s %s/sys/dev/block/%u:%u", dir, root,
          major(st.st_dev), minor(st.st_dev));
}

static void named(const char *expected)
{
    char out[MEDIUM_MAX], want[MEDIUM_MAX + 32];

    snprintf(want, sizeof want, expected[0] ? "%s inode %lu" : "%s", expected,
             st.st_ino);
    medium_name(image, out);
    assert_string_equal(out, want);
}

static void devices_have_names(void **state)
{
    (void)state;
    if (!major(st.st_dev))
        skip();
    named("");
    is_on("sda");
    named("");
    shell("mkdir %s/sys/sda/device; echo 't10.ATA QEMU' "
          ">%s/sys/sda/device/wwid",
          root, root);
    named("");
    shell("echo naa.5000c500a1b2c3d4 >%s/sys/sda/device/wwid", root);
    named("WWID naa.5000c500a1b2c3d4");
    is_on("sda/sda2");
    named("");
    shell("echo 2 >%s/sys/sda/sda2/partition", root);
    named("WWID naa.5000c500a1b2c3d4 partition 2");
    is_on("sda");
    shell("echo eui.0025388b710116a1 >%s/sys/sda/wwid", root);
    named("WWID eui.0025388b710116a1");
    shell("mkdir %s/sys/sda/dm; echo LVM-abc >%s/sys/sda/dm/uuid", root, root);
    named("device-mapper LVM-abc");
}

static void what_is_not_there_has_none(void **state)
{
    char out[MEDIUM_MAX] = "x";

    (void)state;
    medium_name("/nowhere/at/all", out);
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_have_names),
        cmocka_unit_test(what_is_not_there_has_none),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
