// SPDX-License-Identifier: Apache-2.0
/* Files that are replaced as a whole, also by several at once. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/file.h"

#define WRITERS 4
#define BYTES   20000

static char dir[64], path[96];

static int dir_make(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/understudy-file.XXXXXX");
    snprintf(path, sizeof path, "%s/it", mkdtemp(dir));
    return 0;
}

static int dir_remove(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir); /* fails when something was left */
}

static void *writer(void *arg)
{
    char *text = malloc(BYTES);

    memset(text, *(char *)arg, BYTES);
    for (int i = 0; i < 50; i++)
        assert_int_equal(file_replace(path, text, BYTES, i % 8 == 0, NULL), 0);
    free(text);
    return NULL;
}

/* Each reader sees one writer's whole text, whoever was last. */
static void many_writers_leave_one_whole_file(void **state)
{
    char which[WRITERS] = "abcd";
    pthread_t t[WRITERS];
    struct buf b = {0};
    struct stat st;

    (void)state;
    for (int i = 0; i < WRITERS; i++)
        pthread_create(&t[i], NULL, writer, &which[i]);
    for (int i = 0; i < 200; i++) {
        buf_clear(&b);
        if (file_load(path, BYTES, &b, NULL))
            continue;
        assert_int_equal(b.len, BYTES);
        for (size_t k = 1; k < b.len; k++)
            assert_int_equal(b.data[k], b.data[0]);
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    buf_free(&b);
}

static void what_is_not_there_or_too_large_is_an_error(void **state)
{
    struct buf b = {0};
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(file_load(path, 10, &b, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    assert_int_equal(file_replace(path, "0123456789", 10, false, &e), 0);
    assert_int_equal(file_load(path, 10, &b, &e), 0);
    buf_clear(&b);
    assert_int_equal(file_load(path, 9, &b, &e), -1);
    buf_free(&b);
    assert_int_equal(file_replace("/nowhere/it", "", 0, true, &e), -1);
}

static void a_temporary_file_names_its_writer(void **state)
{
    char mine[64];
    bool dead;

    (void)state;
    snprintf(mine, sizeof mine, "it.%d.abcdef.tmp", (int)getpid());
    assert_true(file_is_temporary(mine, &dead));
    assert_false(dead);
    assert_true(file_is_temporary("it.json.4194399.abcdef.tmp", &dead));
    assert_true(dead);
    assert_false(file_is_temporary("it.json", &dead));
    assert_false(file_is_temporary("it.tmp", &dead));
    assert_false(file_is_temporary(".12.abcdef", &dead));
    assert_false(file_is_temporary("it.abcdef.tmp", &dead));
}

#define T(f) cmocka_unit_test_setup_teardown(f, dir_make, dir_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(many_writers_leave_one_whole_file),
        T(what_is_not_there_or_too_large_is_an_error),
        T(a_temporary_file_names_its_writer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
