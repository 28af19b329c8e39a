// SPDX-License-Identifier: Apache-2.0
/* Durable records: what is written is read again, what is damaged is named and
 * not acted on. Each test has an empty UNDERSTUDY_ROOT of its own. */
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

#include "agent/paths.h"
#include "agent/store.h"

#define UUID_A "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
#define UUID_B "1a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"

static char root[64];

static int root_make(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/understudy-store.XXXXXX");
    if (!mkdtemp(root))
        return -1;
    setenv("UNDERSTUDY_ROOT", root, 1);
    return paths_setup(NULL);
}

static int root_remove(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static struct vm_record record_of(const char *uuid)
{
    struct vm_record r = {.name = "web",
                          .role = ROLE_PRIMARY,
                          .stage = STAGE_TAKEN_OVER,
                          .peer = "birch",
                          .arbiter = "none",
                          .generation = 7,
                          .domid = 3,
                          .interval_ms = 200,
                          .timeout_ms = 1000,
                          .state = VM_SYNCING,
                          .running = true,
                          .wanted = true};

    snprintf(r.uuid, sizeof r.uuid, "%s", uuid);
    for (int i = 0; i < 16; i++)
        r.incarnation[i] = (uint8_t)(i * 17);
    return r;
}

static void file_put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* The file of A's record with one piece of text replaced. */
static void damage(const char *from, const char *to)
{
    struct path path = path_record(UUID_A);
    struct vm_record r = record_of(UUID_A);
    char text[4096], out[4096];

    assert_int_equal(store_save(&r, NULL), 0);
    FILE *f = fopen(path.s, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *at = strstr(text, from);
    assert_non_null(at);
    snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, to,
             at + strlen(from));
    file_put(path.s, out);
}

static void assert_damaged(const char *expected)
{
    struct vm_record r;
    struct err e = ERR_INIT;

    assert_int_equal(store_load(UUID_A, &r, &e), -1);
    assert_non_null(strstr(e.text, path_record(UUID_A).s));
    assert_true(e.hint[0]);
    if (!strstr(e.text, expected))
        fail_msg("\"%s\" lacks \"%s\"", e.text, expected);
}

static void a_saved_record_is_loaded_unchanged(void **state)
{
    struct vm_record w = record_of(UUID_A), r;

    (void)state;
    assert_int_equal(store_save(&w, NULL), 0);
    assert_int_equal(store_load(UUID_A, &r, NULL), 0);
    assert_string_equal(r.uuid, w.uuid);
    assert_string_equal(r.name, "web");
    assert_string_equal(r.peer, "birch");
    assert_string_equal(r.arbiter, "none");
    assert_int_equal(r.role, ROLE_PRIMARY);
    assert_int_equal(r.stage, STAGE_TAKEN_OVER);
    assert_int_equal(r.generation, 7);
    assert_memory_equal(r.incarnation, w.incarnation, 16);
    assert_int_equal(r.domid, 3);
    assert_int_equal(r.interval_ms, 200);
    assert_int_equal(r.timeout_ms, 1000);
    assert_int_equal(r.state, VM_SYNCING);
    assert_true(r.running && r.wanted);
}

static void what_the_lease_needs_is_kept_with_an_arbiter(void **state)
{
    struct vm_record w = record_of(UUID_A), r;

    (void)state;
    snprintf(w.arbiter, sizeof w.arbiter, "witness:w pin=00");
    snprintf(w.lease, sizeof w.lease, "guarded");
    w.claim = INT64_MAX;
    w.paused = true;
    assert_int_equal(store_save(&w, NULL), 0);
    assert_int_equal(store_load(UUID_A, &r, NULL), 0);
    assert_string_equal(r.lease, "guarded");
    assert_true(r.claim == INT64_MAX && r.paused);
    w.claim = 1ull << 63;
    assert_int_equal(store_save(&w, NULL), -1);
    /* A claim that is forgotten would be a generation that is lost. */
    damage("\"arbiter\": \"none\"", "\"arbiter\": \"witness:w pin=00\"");
    assert_damaged("missing");
}

static void a_record_is_private(void **state)
{
    struct vm_record w = record_of(UUID_A);
    struct stat st;

    (void)state;
    assert_int_equal(store_save(&w, NULL), 0);
    assert_int_equal(stat(path_record(UUID_A).s, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(path_vms().s, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void a_missing_record_is_gone(void **state)
{
    struct vm_record r;
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(store_load(UUID_A, &r, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
}

static void a_record_out_of_range_is_not_saved(void **state)
{
    struct vm_record w = record_of(UUID_A);
    struct err e = ERR_INIT;

    (void)state;
    w.generation = 0;
    assert_int_equal(store_save(&w, &e), -1);
    assert_non_null(strstr(e.text, "generation"));
    w = record_of(UUID_A);
    w.peer[0] = '\0';
    assert_int_equal(store_save(&w, &e), -1);
    assert_non_null(strstr(e.text, "peer"));
    assert_int_not_equal(access(path_record(UUID_A).s, F_OK), 0);
}

static void damage_is_named(void **state)
{
    static const struct {
        const char *from, *to, *expected;
    } cases[] = {
        {"\"generation\": 7", "\"generation\": -7", "generation"},
        {"\"generation\": 7", "\"generation\": 7.5", "integer"},
        {"\"version\": 1", "\"version\": 2", "version"},
        {"\"wanted\": true", "\"wanted\": true, \"x\": 1", "x"},
        {",\n \"wanted\": true", "", "wanted"},
        {"\"primary\"", "\"king\"", "role"},
        {"\"taken-over\"", "\"dreaming\"", "stage"},
        {"\"Syncing\"", "\"syncing\"", "state"},
        {"\"incarnation\": \"00", "\"incarnation\": \"zz", "incarnation"},
        {"\"interval_ms\": 200", "\"interval_ms\": 0", "interval_ms"},
        {"\"name\": \"web\"", "\"name\": \"w\\neb\"", "control"},
        {UUID_A, UUID_B, UUID_B},
        {"\"domid\": 3", "\"domid\": 3, \"domid\": 4", "duplicate"},
        {"{", "", "line 2"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        damage(cases[i].from, cases[i].to);
        assert_damaged(cases[i].expected);
    }
}

static void an_empty_or_cut_file_is_damaged(void **state)
{
    (void)state;
    file_put(path_record(UUID_A).s, "");
    assert_damaged("line");
    file_put(path_record(UUID_A).s, "{\"version\":1,");
    assert_damaged("line");
}

struct scan {
    int good, bad;
    char names[256], files[256];
};

static void on_each(void *arg, const struct vm_record *r)
{
    struct scan *s = arg;

    s->good++;
    strcat(strcat(s->names, r->uuid), " ");
}

static void on_bad(void *arg, const char *file, const struct err *why)
{
    struct scan *s = arg;

    assert_true(why->text[0]);
    s->bad++;
    strcat(strcat(s->files, file), " ");
}

static void a_scan_separates_good_from_bad(void **state)
{
    struct vm_record a = record_of(UUID_A), b = record_of(UUID_B);
    struct scan s = {0};
    char path[600];

    (void)state;
    assert_int_equal(store_save(&b, NULL), 0);
    assert_int_equal(store_save(&a, NULL), 0);
    snprintf(path, sizeof path, "%s/stray.txt", path_vms().s);
    file_put(path, "?");
    assert_int_equal(store_scan(on_each, on_bad, &s, NULL), 0);
    assert_int_equal(s.good, 2);
    assert_string_equal(s.names, UUID_A " " UUID_B " ");
    assert_int_equal(s.bad, 1);
    assert_string_equal(s.files, "stray.txt ");
}

static void a_scan_clears_what_a_dead_writer_left(void **state)
{
    struct scan s = {0};
    char dead[700], mine[700];

    (void)state;
    /* Above the largest process id that Linux gives. */
    snprintf(dead, sizeof dead, "%s.4194399.abcdef.tmp", path_record(UUID_A).s);
    snprintf(mine, sizeof mine, "%s.%d.abcdef.tmp", path_record(UUID_A).s,
             getpid());
    file_put(dead, "{");
    file_put(mine, "{");
    assert_int_equal(store_scan(on_each, on_bad, &s, NULL), 0);
    assert_int_equal(s.good + s.bad, 0);
    assert_int_not_equal(access(dead, F_OK), 0);
    assert_int_equal(access(mine, F_OK), 0);
}

static void deleting_twice_is_fine(void **state)
{
    struct vm_record w = record_of(UUID_A);

    (void)state;
    assert_int_equal(store_save(&w, NULL), 0);
    assert_int_equal(store_delete(UUID_A, NULL), 0);
    assert_int_not_equal(access(path_record(UUID_A).s, F_OK), 0);
    assert_int_equal(store_delete(UUID_A, NULL), 0);
}

static void uuids_have_one_form(void **state)
{
    uint8_t u[16];
    char text[STORE_UUID_LEN + 1];

    (void)state;
    assert_true(uuid_parse("0A1B2C3D-4e5f-6071-8293-a4b5c6d7e8f9", u));
    uuid_format(u, text);
    assert_string_equal(text, UUID_A);
    assert_false(uuid_parse("0a1b2c3d4e5f60718293a4b5c6d7e8f9", u));
    assert_false(uuid_parse("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8g9", u));
    assert_false(uuid_parse("../../../../../../../../../etc/passwd", u));
    assert_false(uuid_parse(NULL, u));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, root_make, root_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_saved_record_is_loaded_unchanged),
        CASE(what_the_lease_needs_is_kept_with_an_arbiter),
        CASE(a_record_is_private),
        CASE(a_missing_record_is_gone),
        CASE(a_record_out_of_range_is_not_saved),
        CASE(damage_is_named),
        CASE(an_empty_or_cut_file_is_damaged),
        CASE(a_scan_separates_good_from_bad),
        CASE(a_scan_clears_what_a_dead_writer_left),
        CASE(deleting_twice_is_fine),
        CASE(uuids_have_one_form),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
