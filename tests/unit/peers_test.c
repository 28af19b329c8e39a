// SPDX-License-Identifier: Apache-2.0
/* The host's key and the peers file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "link/key.h"
#include "link/peers.h"
#include "link/wire.h"

#define PIN_A "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define PIN_B "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static char dir[64], path[128];

static int dir_make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/peers-test.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/peers", dir);
    return 0;
}

static int dir_remove(void **state)
{
    static const char *const names[] = {"key.pem", "cert.pem", "peers"};
    char name[128];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s/%s", dir, names[i]);
        unlink(name);
    }
    assert_int_equal(rmdir(dir), 0); /* no temporary file stayed behind */
    return 0;
}

static void file_write(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void file_is(const char *name, const char *want)
{
    char text[2048] = "";
    FILE *f = fopen(name, "r");

    assert_non_null(f);
    assert_true(fread(text, 1, sizeof text - 1, f) < sizeof text);
    fclose(f);
    assert_string_equal(text, want);
}

static const char *in_dir(const char *name)
{
    static char full[128];

    snprintf(full, sizeof full, "%s/%s", dir, name);
    return full;
}

/* --- Key --------------------------------------------------------------------
 */

static void a_key_is_made_once_and_loaded_later(void **state)
{
    struct link_key *a, *b;
    struct stat st;

    (void)state;
    assert_int_equal(link_key_load(dir, true, &a, NULL), 0);
    assert_int_equal(link_key_load(dir, true, &b, NULL), 0);
    assert_true(pin_equal(link_key_pin(a), link_key_pin(b)));
    assert_int_equal(stat(in_dir("key.pem"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(in_dir("cert.pem"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    link_key_free(a);
    link_key_free(b);
}

static void without_leave_no_key_is_made(void **state)
{
    struct link_key *k;
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(link_key_load(dir, false, &k, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    assert_non_null(strstr(e.text, "key.pem"));
    assert_int_equal(access(in_dir("key.pem"), F_OK), -1);
}

static void a_lost_certificate_is_made_again_with_the_same_pin(void **state)
{
    struct link_key *a, *b;

    (void)state;
    assert_int_equal(link_key_load(dir, true, &a, NULL), 0);
    unlink(in_dir("cert.pem"));
    assert_int_equal(link_key_load(dir, false, &b, NULL), 0);
    assert_true(pin_equal(link_key_pin(a), link_key_pin(b)));
    link_key_free(a);
    link_key_free(b);
}

static void a_lost_key_beside_its_certificate_is_an_error(void **state)
{
    struct link_key *k;
    struct err e = ERR_INIT;

    (void)state;
    assert_int_equal(link_key_load(dir, true, &k, NULL), 0);
    link_key_free(k);
    unlink(in_dir("key.pem"));
    assert_int_equal(link_key_load(dir, true, &k, &e), -1);
    assert_null(k);
    assert_non_null(strstr(e.text, "cert.pem"));
    assert_non_null(strstr(e.text, "key.pem"));
}

static void a_key_that_others_can_read_is_refused_by_name(void **state)
{
    static const mode_t modes[] = {0640, 0604, 0660, 0644, 0601};
    struct link_key *k;

    (void)state;
    assert_int_equal(link_key_load(dir, true, &k, NULL), 0);
    link_key_free(k);
    for (size_t i = 0; i < 5; i++) {
        struct err e = ERR_INIT;
        chmod(in_dir("key.pem"), modes[i]);
        assert_int_equal(link_key_load(dir, true, &k, &e), -1);
        assert_int_equal(e.kind, ERR_REFUSED);
        assert_non_null(strstr(e.text, in_dir("key.pem")));
        assert_non_null(strstr(e.hint, "chmod 600"));
    }
    chmod(in_dir("key.pem"), 0400);
    assert_int_equal(link_key_load(dir, true, &k, NULL), 0);
    link_key_free(k);
}

static void a_key_that_is_a_link_or_rubbish_is_refused(void **state)
{
    struct link_key *k;
    struct err e = ERR_INIT;

    (void)state;
    file_write(in_dir("key.pem"), "not a key\n");
    chmod(in_dir("key.pem"), 0600);
    assert_int_equal(link_key_load(dir, true, &k, &e), -1);
    assert_non_null(strstr(e.text, "no usable private key"));
    unlink(in_dir("key.pem"));
    assert_int_equal(symlink("/dev/null", in_dir("key.pem")), 0);
    assert_int_equal(link_key_load(dir, true, &k, &e), -1);
}

static void a_certificate_of_another_key_is_an_error(void **state)
{
    char other[] = "/tmp/peers-test-other.XXXXXX", from[128];
    struct link_key *k;
    struct err e = ERR_INIT;

    (void)state;
    assert_non_null(mkdtemp(other));
    assert_int_equal(link_key_load(dir, true, &k, NULL), 0);
    link_key_free(k);
    assert_int_equal(link_key_load(other, true, &k, NULL), 0);
    link_key_free(k);
    snprintf(from, sizeof from, "%s/cert.pem", other);
    assert_int_equal(rename(from, in_dir("cert.pem")), 0);
    assert_int_equal(link_key_load(dir, true, &k, &e), -1);
    assert_non_null(strstr(e.text, "is not the certificate of"));
    snprintf(from, sizeof from, "%s/key.pem", other);
    unlink(from);
    rmdir(other);
}

static void a_pin_is_64_hex_digits(void **state)
{
    uint8_t pin[PIN_BYTES];
    char text[PIN_TEXT];

    (void)state;
    assert_int_equal(pin_parse(PIN_A, pin, NULL), 0);
    assert_int_equal(pin[1], 0x11);
    pin_format(pin, text);
    assert_string_equal(text, PIN_A);
    assert_int_equal(pin_parse("", pin, NULL), -1);
    assert_int_equal(pin_parse(PIN_A "0", pin, NULL), -1);
    assert_int_equal(pin_parse(PIN_A + 1, pin, NULL), -1);
    strcpy(text, PIN_A);
    text[63] = 'g';
    assert_int_equal(pin_parse(text, pin, NULL), -1);
    strcpy(text, PIN_A);
    text[63] = 'F';
    assert_int_equal(pin_parse(text, pin, NULL), 0);
    assert_int_equal(pin[31], 0xff);
}

/* --- Peers ------------------------------------------------------------------
 */

static void add(struct link_peers *p, const char *name, const char *address,
                const char *pin)
{
    struct link_peer peer;

    assert_int_equal(peer_parse(&peer, name, address, pin, NULL), 0);
    assert_int_equal(peers_add(p, &peer, NULL), 0);
}

static void peers_survive_the_file(void **state)
{
    struct link_peers p = {0}, q = {0};
    struct stat st;

    (void)state;
    add(&p, "birch", "10.0.0.2", PIN_A);
    add(&p, "cedar", "[fd00::3]:9000", PIN_B);
    assert_int_equal(peers_save(&p, path, NULL), 0);
    file_is(path, "birch 10.0.0.2:7788 " PIN_A "\n"
                  "cedar [fd00::3]:9000 " PIN_B "\n");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(peers_load(&q, path, NULL), 0);
    assert_int_equal(q.count, 2);
    assert_string_equal(peers_by_name(&q, "cedar")->at.host, "fd00::3");
    assert_int_equal(peers_by_name(&q, "cedar")->at.port, 9000);
    assert_string_equal(peers_by_pin(&q, p.list[0].pin)->name, "birch");
    assert_null(peers_by_name(&q, "oak"));
    peers_free(&p);
    peers_free(&q);
}

static void further_paths_follow_the_pin(void **state)
{
    struct link_peers p = {0}, q = {0};
    struct link_address a;
    struct err e = ERR_INIT;

    (void)state;
    add(&p, "birch", "10.0.0.2", PIN_A);
    address_parse(&a, "[fd00::2]:90", NULL);
    assert_int_equal(peer_path_add(&p.list[0], &a, NULL), 0);
    assert_int_equal(peer_path_add(&p.list[0], &a, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_int_equal(peers_save(&p, path, NULL), 0);
    file_is(path, "birch 10.0.0.2:7788 " PIN_A " [fd00::2]:90\n");
    assert_int_equal(peers_load(&q, path, NULL), 0);
    assert_int_equal(q.list[0].more_count, 1);
    assert_true(address_equal(&q.list[0].more[0], &a));
    assert_int_equal(peer_path_remove(&q.list[0], &q.list[0].at, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_int_equal(peer_path_remove(&q.list[0], &a, NULL), 0);
    assert_int_equal(q.list[0].more_count, 0);
    assert_int_equal(peer_path_remove(&q.list[0], &a, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    peers_free(&p);
    peers_free(&q);
}

static void a_peer_has_eight_addresses_at_most(void **state)
{
    struct link_peer p;
    struct link_address a;
    char text[32];

    (void)state;
    assert_int_equal(peer_parse(&p, "birch", "10.0.0.2", PIN_A, NULL), 0);
    for (int i = 0; i < PEER_MORE_MAX; i++) {
        snprintf(text, sizeof text, "10.0.1.%d", i);
        assert_int_equal(address_parse(&a, text, NULL), 0);
        assert_int_equal(peer_path_add(&p, &a, NULL), 0);
    }
    address_parse(&a, "10.0.2.1", NULL);
    assert_int_equal(peer_path_add(&p, &a, NULL), -1);
}

static void a_missing_file_is_an_empty_list(void **state)
{
    struct link_peers p = {0};

    (void)state;
    assert_int_equal(peers_load(&p, path, NULL), 0);
    assert_int_equal(p.count, 0);
}

static void comments_are_kept(void **state)
{
    struct link_peers p = {0};

    (void)state;
    file_write(path, "# ours\n\nbirch\t10.0.0.2   " PIN_A "\r\n  # second");
    assert_int_equal(peers_load(&p, path, NULL), 0);
    assert_int_equal(p.count, 1);
    assert_int_equal(peers_save(&p, path, NULL), 0);
    file_is(path, "# ours\n# second\nbirch 10.0.0.2:7788 " PIN_A "\n");
    peers_free(&p);
}

static void a_bad_line_is_named_and_the_old_list_stays(void **state)
{
    static const char *const bad[] = {
        "birch 10.0.0.2\n",
        "birch 10.0.0.2 " PIN_A " mo;re\n",
        "birch 10.0.0.2 " PIN_A " 10.0.0.3 10.0.0.2\n",
        "birch 10.0.0.2 " PIN_A " a b c d e f g h\n",
        "birch 10.0.0.2 1234\n",
        "-birch 10.0.0.2 " PIN_A "\n",
        "bi/rch 10.0.0.2 " PIN_A "\n",
        "birch 10.0.0.2:0 " PIN_A "\n",
        "birch 10.0.0.2:65536 " PIN_A "\n",
        "birch fd00::1 " PIN_A "\n",
        "birch [fd00::1 " PIN_A "\n",
        "oak 10.0.0.3 " PIN_A "\n",  /* the pin of line 2 */
        "okay 10.0.0.3 " PIN_B "\n", /* the name of line 2 */
    };
    struct link_peers p = {0};
    char text[512], where[160];

    (void)state;
    add(&p, "old", "10.0.0.9", PIN_A);
    snprintf(where, sizeof where, "%s:3", path);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e = ERR_INIT;
        snprintf(text, sizeof text, "# c\nokay 10.0.0.1 " PIN_A "\n%s", bad[i]);
        file_write(path, text);
        assert_int_equal(peers_load(&p, path, &e), -1);
        assert_non_null(strstr(e.text, where));
        assert_int_equal(p.count, 1);
        assert_string_equal(p.list[0].name, "old");
    }
    peers_free(&p);
}

static void a_file_with_nul_bytes_is_refused(void **state)
{
    struct link_peers p = {0};
    FILE *f = fopen(path, "w");

    (void)state;
    fwrite("birch\0 x", 1, 8, f);
    fclose(f);
    assert_int_equal(peers_load(&p, path, NULL), -1);
}

static void the_same_name_or_pin_twice_is_refused(void **state)
{
    struct link_peers p = {0};
    struct link_peer same;
    struct err e = ERR_INIT;

    (void)state;
    add(&p, "birch", "10.0.0.2", PIN_A);
    peer_parse(&same, "birch", "10.0.0.3", PIN_B, NULL);
    assert_int_equal(peers_add(&p, &same, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    peer_parse(&same, "oak", "10.0.0.3", PIN_A, NULL);
    assert_int_equal(peers_add(&p, &same, &e), -1);
    assert_non_null(strstr(e.text, "birch"));
    assert_int_equal(peers_remove(&p, "birch", NULL), 0);
    assert_int_equal(peers_add(&p, &same, NULL), 0);
    assert_int_equal(peers_remove(&p, "birch", &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    peers_free(&p);
}

static void addresses_are_parsed_and_written_back(void **state)
{
    static const struct {
        const char *in, *address, *out;
    } cases[] = {
        {"10.0.0.1", "10.0.0.1", "10.0.0.1:7788"},
        {"birch.lan:80", "birch.lan", "birch.lan:80"},
        {"[::1]", "::1", "[::1]:7788"},
        {"[fe80::1%eth0]:1", "fe80::1%eth0", "[fe80::1%eth0]:1"},
    };
    static const char *const bad[] = {
        "",          ":80",    "[]",  "[::1]80", "a b",
        "10.0.0.1:", "[::1]:", "a;b", "[x::1]",  "a:1:2"};
    struct link_peer p;
    char out[ADDRESS_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(peer_parse(&p, "x", cases[i].in, PIN_A, NULL), 0);
        assert_string_equal(p.at.host, cases[i].address);
        address_format(&p.at, out);
        assert_string_equal(out, cases[i].out);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err e = ERR_INIT;
        assert_int_equal(peer_parse(&p, "x", bad[i], PIN_A, &e), -1);
        assert_int_equal(e.kind, ERR_USAGE);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, dir_make, dir_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_key_is_made_once_and_loaded_later),
        T(without_leave_no_key_is_made),
        T(a_lost_certificate_is_made_again_with_the_same_pin),
        T(a_lost_key_beside_its_certificate_is_an_error),
        T(a_key_that_others_can_read_is_refused_by_name),
        T(a_key_that_is_a_link_or_rubbish_is_refused),
        T(a_certificate_of_another_key_is_an_error),
        T(a_pin_is_64_hex_digits),
        T(peers_survive_the_file),
        T(further_paths_follow_the_pin),
        T(a_peer_has_eight_addresses_at_most),
        T(a_missing_file_is_an_empty_list),
        T(comments_are_kept),
        T(a_bad_line_is_named_and_the_old_list_stays),
        T(a_file_with_nul_bytes_is_refused),
        T(the_same_name_or_pin_twice_is_refused),
        T(addresses_are_parsed_and_written_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
