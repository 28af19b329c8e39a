// SPDX-License-Identifier: Apache-2.0
/* A disk's image whose medium does not sync: who uses it is told, whoever was
 * the first to find out. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk-replicate/image.h"

static struct store_ops ops;
static int sync_error;

static int sync_says(struct store *s, struct err *e)
{
    errno = sync_error;
    return sync_error ? err_sys(e, "sync %s", s->name) : 0;
}

static void a_sync_that_failed_aside_is_told_once(void **state)
{
    char path[] = "/tmp/understudy-image.XXXXXX";
    int fd = mkstemp(path);
    struct image im;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4096), 0);
    close(fd);
    assert_int_equal(image_open(&im, path, false, 0, NULL), 0);
    ops = *im.store.ops;
    ops.sync = sync_says;
    im.store.ops = &ops;

    sync_error = EIO;
    assert_int_equal(image_sync(&im), EIO);
    sync_error = 0; /* the kernel has said it */
    assert_int_equal(image_sync(&im), 0);
    assert_int_equal(image_write(&im, 0, "text", 4, false), 0);
    assert_int_equal(image_write(&im, 0, "text", 4, true), EIO);
    assert_int_equal(image_flush(&im), 0);

    sync_error = ENOSPC;
    assert_int_equal(image_flush(&im), ENOSPC);
    sync_error = 0;
    assert_int_equal(image_flush(&im), 0);
    image_close(&im);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sync_that_failed_aside_is_told_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
