// SPDX-License-Identifier: Apache-2.0
/* Records of the disks being served: what is written is read, and the lock
 * says whether somebody serves. */
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

#include "disk-replicate/look.h"
#include "disk-replicate/record.h"

static char root[64];

static int setup(void **s)
{
    char run[80];

    (void)s;
    strcpy(root, "/tmp/understudy-records-XXXXXX");
    if (!mkdtemp(root) || setenv("UNDERSTUDY_ROOT", root, 1))
        return -1;
    snprintf(run, sizeof run, "%s/run", root);
    return mkdir(run, 0755);
}

static int teardown(void **s)
{
    char command[128];

    (void)s;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static const struct disk_config web = {.id = "vbd-3-51712",
                                       .image = "/srv/my images/a=b.img",
                                       .read_only = true,
                                       .workers = 7,
                                       .request_s = 9,
                                       .dead_s = 77};

static void what_is_written_is_read(void **s)
{
    struct disk_config c = {0};
    struct err e = ERR_INIT;
    long server;
    int fd;

    (void)s;
    assert_int_equal(record_create(&web, &fd, &e), 0);
    assert_int_equal(record_load(web.id, &c, &server, &e), 0);
    assert_string_equal(c.id, web.id);
    assert_string_equal(c.image, web.image);
    assert_true(c.read_only);
    assert_int_equal(c.workers, 7);
    assert_int_equal(c.request_s, 9);
    assert_int_equal(c.dead_s, 77);
    assert_int_equal(server, 0);
    assert_int_equal(record_load(c.id, &c, &server, &e), 0);
    assert_string_equal(c.id, web.id);
    record_server(web.id);
    assert_int_equal(record_load(web.id, &c, &server, &e), 0);
    assert_int_equal(server, getpid());
    close(fd);
    record_remove(web.id);
    assert_int_equal(record_load(web.id, &c, &server, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
}

static void the_lock_says_who_lives(void **s)
{
    struct err e = ERR_INIT;
    int fd, other;

    (void)s;
    assert_int_equal(record_lock(web.id, 0, &other, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    assert_int_equal(record_create(&web, &fd, &e), 0);
    assert_int_equal(record_lock(web.id, 30, &other, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_int_equal(record_create(&web, &other, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    close(fd);
    assert_int_equal(record_lock(web.id, 0, &other, &e), 0);
    close(other);
    record_remove(web.id);
}

static void count_id(void *arg, const char *id)
{
    assert_string_equal(id, web.id);
    ++*(int *)arg;
}

static void logs_are_not_listed(void **s)
{
    struct err e = ERR_INIT;
    int fd, log, n = 0;

    (void)s;
    assert_int_equal(record_create(&web, &fd, &e), 0);
    log = record_log_open(web.id);
    assert_true(log >= 0);
    assert_int_equal(record_list(count_id, &n, &e), 1);
    assert_int_equal(n, 1);
    close(log);
    close(fd);
    record_remove(web.id);
    assert_int_equal(record_list(count_id, &n, &e), 0);
}

static void ids_are_names_of_files(void **s)
{
    char longest[DISK_ID + 1];

    (void)s;
    assert_true(record_id_valid("vbd-3-51712"));
    assert_false(record_id_valid(""));
    assert_false(record_id_valid(".."));
    assert_false(record_id_valid("a/b"));
    assert_false(record_id_valid("a b"));
    memset(longest, 'a', sizeof longest);
    longest[DISK_ID] = '\0';
    assert_false(record_id_valid(longest));
    longest[DISK_ID - 1] = '\0';
    assert_true(record_id_valid(longest));
}

static void devices_have_names(void **state)
{
    static const struct {
        uint32_t device;
        const char *name;
    } all[] = {{51712, "xvda"},
               {51728, "xvdb"},
               {51713, "xvda1"},
               {51952, "xvdp"},
               {768, "hda"},
               {833, "hdb1"},
               {5632, "hdc"},
               {2048, "sda"},
               {2065, "sdb1"},
               {268439552, "xvdq"},
               {268443649, "xvdag1"},
               {(1u << 28) | 701 << 8, "xvdzz"},
               {(1u << 28) | 702 << 8, "268615168"},
               {7, "7"}};
    char name[DISK_VDEV];

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        disk_vdev(all[i].device, name);
        assert_string_equal(name, all[i].name);
    }
}

static void found_note(void *arg, const struct disk_view *v)
{
    *(struct disk_view *)arg = *v;
}

static void a_disk_is_seen_without_its_server(void **state)
{
    struct disk_page page = {.bytes = 4096, .role = DISK_FOLLOWS};
    struct disk_config c = {.id = "vbd-3-51712",
                            .image = "/srv/web.img",
                            .workers = 1,
                            .request_s = 1,
                            .dead_s = 1};
    struct disk_view v;
    char path[RECORD_PATH];
    int lock_fd;

    (void)state;
    assert_int_equal(record_create(&c, &lock_fd, NULL), 0);
    assert_int_equal(disk_look(found_note, &v, NULL), 1);
    assert_string_equal(v.image, "/srv/web.img");
    assert_int_equal(v.server, 0);
    assert_true(v.of_vm && v.domid == 3 && v.device == 51712);
    assert_string_equal(v.vdev, "xvda");
    record_server("vbd-3-51712");
    record_path("vbd-3-51712", ".page", path);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(&page, sizeof page, 1, f), 1);
    fclose(f);
    assert_int_equal(disk_look(found_note, &v, NULL), 1);
    assert_int_equal(v.server, getpid());
    assert_int_equal(v.page.bytes, 4096);
    assert_int_equal(v.page.role, DISK_FOLLOWS);
    record_remove("vbd-3-51712");
    close(lock_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(the_lock_says_who_lives),
        cmocka_unit_test(logs_are_not_listed),
        cmocka_unit_test(ids_are_names_of_files),
        cmocka_unit_test(devices_have_names),
        cmocka_unit_test(a_disk_is_seen_without_its_server),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
