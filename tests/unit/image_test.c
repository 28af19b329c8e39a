// SPDX-License-Identifier: Apache-2.0
/* A disk's image: one whose medium does not sync says so to who uses it,
 * whoever was the first to find out; and where it is said to have a hole, there
 * is nothing but zeroes. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

static void a_sync_that_failed_is_told_until_it_is_heard(void **state)
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
    assert_int_equal(image_flush(&im), EIO);
    image_said(&im, EIO);
    assert_int_equal(image_flush(&im), 0);

    sync_error = ENOSPC;
    assert_int_equal(image_flush(&im), ENOSPC);
    sync_error = 0;
    assert_int_equal(image_flush(&im), ENOSPC);
    image_said(&im, EIO); /* that was another one */
    assert_int_equal(image_flush(&im), ENOSPC);
    image_said(&im, ENOSPC);
    assert_int_equal(image_flush(&im), 0);

    /* By a predecessor. */
    uint32_t kept = EIO;
    im.unsaid = &kept;
    assert_int_equal(image_flush(&im), EIO);
    image_said(&im, EIO);
    assert_int_equal(image_flush(&im), 0);
    sync_error = EIO;
    assert_int_equal(image_sync(&im), EIO);
    assert_int_equal(kept, EIO);
    sync_error = 0;
    image_close(&im);
    unlink(path);
}

/* --- Holes ---------------------------------------------------------------- */

#define STEP  (256u << 10)
#define STEPS 8u
#define ODD   1536u /* behind the last whole step */

struct sparse {
    char path[64];
    int fd; /* of a file without a name, or -1 */
    struct image image;
};

/* In memory, or else in /tmp. */
static void sparse_open(struct sparse *s, bool in_memory)
{
    strcpy(s->path, "/tmp/understudy-image.XXXXXX");
    s->fd = in_memory ? memfd_create("image", MFD_CLOEXEC) : mkstemp(s->path);
    assert_true(s->fd >= 0);
    assert_int_equal(ftruncate(s->fd, STEPS * STEP + ODD), 0);
    if (in_memory)
        snprintf(s->path, sizeof s->path, "/proc/self/fd/%d", s->fd);
    assert_int_equal(image_open(&s->image, s->path, false, 0, NULL), 0);
}

static void sparse_close(struct sparse *s)
{
    image_close(&s->image);
    close(s->fd);
    unlink(s->path);
}

static bool is_hole(const struct sparse *s, unsigned step)
{
    return image_is_hole(&s->image, step * (uint64_t)STEP,
                         step < STEPS ? STEP : ODD);
}

/* Nothing is said to be a hole but what reads as zeroes. */
static void holes_are_zeroes(struct sparse *s)
{
    static uint8_t block[STEP], zeroes[STEP];

    for (unsigned i = 0; i <= STEPS; i++) {
        uint32_t len = i < STEPS ? STEP : ODD;
        assert_int_equal(image_read(&s->image, i * STEP, block, len), 0);
        if (is_hole(s, i))
            assert_memory_equal(block, zeroes, len);
    }
}

static void write_and_look(struct sparse *s)
{
    struct image *im = &s->image;

    holes_are_zeroes(s);
    assert_int_equal(image_write(im, STEP - 1, "text", 4, false), 0);
    assert_int_equal(image_write(im, 4 * STEP - 512, "text", 4, false), 0);
    assert_int_equal(image_write(im, STEPS * STEP + ODD - 1, "t", 1, false), 0);
    /* One that has its space, of which a part was written. */
    (void)!fallocate(im->store.fd, 0, 5 * STEP, STEP);
    assert_int_equal(image_write(im, 5 * STEP + 8192, "text", 4, false), 0);
    for (int synced = 0; synced < 2; synced++) {
        assert_false(is_hole(s, 0));
        assert_false(is_hole(s, 1));
        assert_false(is_hole(s, 3));
        assert_false(is_hole(s, 5));
        assert_false(is_hole(s, STEPS));
        holes_are_zeroes(s);
        assert_int_equal(image_flush(im), 0);
    }
    assert_int_equal(image_zero(im, 3 * STEP, STEP, true, false), 0);
    holes_are_zeroes(s);
}

static void what_was_written_is_in_no_hole(void **state)
{
    struct sparse s;

    (void)state;
    for (int in_memory = 0; in_memory < 2; in_memory++) {
        sparse_open(&s, in_memory);
        write_and_look(&s);
        sparse_close(&s);
    }
}

static void a_hole_is_found(void **state)
{
    struct sparse s;

    (void)state;
    sparse_open(&s, true);
    for (unsigned i = 0; i <= STEPS; i++)
        assert_true(is_hole(&s, i));
    write_and_look(&s);
    assert_true(is_hole(&s, 2));
    assert_true(is_hole(&s, 3));
    assert_true(is_hole(&s, 7));
    sparse_close(&s);
}

static void what_an_image_has_lost_is_no_hole(void **state)
{
    struct sparse s;

    (void)state;
    sparse_open(&s, true);
    assert_int_equal(ftruncate(s.fd, 2 * STEP + 512), 0);
    assert_true(is_hole(&s, 1));
    assert_false(is_hole(&s, 2));
    assert_false(is_hole(&s, 3));
    sparse_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sync_that_failed_is_told_until_it_is_heard),
        cmocka_unit_test(what_was_written_is_in_no_hole),
        cmocka_unit_test(a_hole_is_found),
        cmocka_unit_test(what_an_image_has_lost_is_no_hole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
