// SPDX-License-Identifier: Apache-2.0
/* Who has an image in use, out of what the kernel says, and of what is open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cmocka.h>

#include "disk-replicate/guard.h"

static const char mounts[] =
    "22 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n"
    "a line that is none\n"
    "28 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
    "31 28 8:17 /sub /srv/with\\040space rw - xfs /dev/sdb1 rw\n";

static bool parts(dev_t part, dev_t device)
{
    return major(part) == 8 && device == makedev(8, 16);
}

static void mounted_on(dev_t device, const char *expected)
{
    char out[64];
    FILE *f = fmemopen((void *)(uintptr_t)mounts, sizeof mounts - 1, "r");

    assert_non_null(f);
    guard_mount_find(f, device, parts, out, sizeof out);
    fclose(f);
    assert_string_equal(out, expected);
}

static void a_mounted_device_is_found(void **state)
{
    (void)state;
    mounted_on(makedev(253, 1), "/");
    mounted_on(makedev(8, 17), "/srv/with\\040space");
    mounted_on(makedev(8, 16), "/srv/with\\040space"); /* its partition */
    mounted_on(makedev(8, 32), "");
}

static void a_file_that_is_being_written_is_refused(void **state)
{
    char root[] = "/tmp/understudy-guard-XXXXXX", path[64];
    struct err e = ERR_INIT;

    (void)state;
    assert_non_null(mkdtemp(root));
    assert_int_equal(setenv("UNDERSTUDY_ROOT", root, 1), 0);
    snprintf(path, sizeof path, "%s/image", root);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(guard_check(path, false, true, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_non_null(strstr(e.text, "open for writing"));
    fclose(f);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(guard_check(path, false, true, &e), 0);
    fclose(f);
    unlink(path);
    err_clear(&e);
    assert_int_equal(guard_check(path, false, true, &e), -1);
    assert_non_null(strstr(e.text, "No such file"));
    rmdir(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mounted_device_is_found),
        cmocka_unit_test(a_file_that_is_being_written_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
