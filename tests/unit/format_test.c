// SPDX-License-Identifier: Apache-2.0
/* The CLI's text, from fixed JSON: the golden form is in here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli/format.h"

static const char protected_vm[] =
    "{\"name\":\"web\",\"uuid\":\"0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9\","
    "\"domid\":3,\"role\":\"primary\",\"state\":\"Protected\","
    "\"peer\":\"birch\",\"arbiter\":\"none\",\"generation\":1,"
    "\"epoch\":1523,\"interval_ms\":200,\"timeout_ms\":1000,"
    "\"interval_now_ms\":20,\"pause_us\":{\"median\":1234,\"p99\":2310,\"max\":"
    "104000,"
    "\"last\":870},"
    "\"suspend_us\":{\"median\":400,\"p99\":900},"
    "\"copy_us\":{\"median\":600,\"p99\":1100},"
    "\"resume_us\":{\"median\":90,\"p99\":200},"
    "\"dirty_pages\":{\"median\":120,\"last\":99},"
    "\"epoch_bytes\":{\"median\":491520,\"last\":405504},"
    "\"bytes_sent\":1288490188,\"epochs\":1523,\"skipped\":3,"
    "\"held_bytes\":12288,\"held_packets\":8,\"dropped_packets\":0,"
    "\"disks\":{\"bytes\":68719476736,\"backlog_bytes\":1258291,\"list\":["
    "{\"disk\":\"xvda\",\"bytes\":68719476736,\"state\":\"in sync\","
    "\"image\":\"/srv/web.img\"}]},"
    "\"lag_ms\":180,\"suspend\":\"event channel\",\"sync\":null,"
    "\"peer_heard_ms\":12,\"takeover\":null,\"reason\":\"\"}";

static const char backup_vm[] =
    "{\"name\":\"a-rather-long-name-of-a-vm\",\"uuid\":\"u\",\"domid\":-1,"
    "\"role\":\"backup\",\"state\":\"TakenOver\",\"peer\":\"alder\","
    "\"arbiter\":\"none\",\"interval_ms\":200,"
    "\"takeover\":{\"detect_ms\":980,\"total_ms\":1013},"
    "\"from_disk_ms\":61234,"
    "\"reason\":\"alder was silent\"}";

static const char syncing_vm[] =
    "{\"name\":\"web\",\"state\":\"Syncing\",\"sync\":{\"done_bytes\":"
    "536870912,\"total_bytes\":1073741824,\"rate_bps\":94000000,"
    "\"left_s\":46}}";

static json_t *parse(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);

    assert_non_null(j);
    return j;
}

static void assert_prints(void (*print)(FILE *, const json_t *), json_t *j,
                          const char *expected)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    print(f, j);
    fclose(f);
    assert_string_equal(text, expected);
    free(text);
    json_decref(j);
}

static void the_table_has_a_line_for_each_vm(void **state)
{
    json_t *list = json_array();

    (void)state;
    json_array_append_new(list, parse(protected_vm));
    json_array_append_new(list, parse(backup_vm));
    assert_prints(format_status_table, list,
                  "Name                          ID State       Role    "
                  "Peer        Epoch Interval    Pause      Lag\n"
                  "web                            3 Protected   primary "
                  "birch        1523   200 ms   1.2 ms   180 ms\n"
                  "a-rather-long-name-of-a-vm     - TakenOver   backup  "
                  "alder           -   200 ms        -        -\n");
}

static void an_agent_that_is_ill_is_told(void **state)
{
    static const char hung[] = "{\"name\":\"web\",\"state\":\"Protected\","
                               "\"answers\":false,\"reason\":\"it hangs\"}",
                      dying[] = "{\"name\":\"web\",\"state\":\"Syncing\","
                                "\"answers\":true,\"agent_deaths\":3}",
                      well[] = "{\"name\":\"web\",\"state\":\"Syncing\","
                               "\"answers\":true,\"agent_deaths\":2}";
    json_t *list = json_array();

    (void)state;
    json_array_append_new(list, parse(hung));
    json_array_append_new(list, parse(dying));
    json_array_append_new(list, parse(well));
    assert_true(format_agent_ill(json_array_get(list, 0)));
    assert_true(format_agent_ill(json_array_get(list, 1)));
    assert_false(format_agent_ill(json_array_get(list, 2)));
    assert_prints(
        format_status_table, list,
        "Name                    ID State       Role    Peer     "
        "   Epoch Interval    Pause      Lag\n"
        "web                      - Protected   ?       -        "
        "       -        -        -        -\n"
        "  it hangs\n"
        "web                      - Syncing     ?       -        "
        "       -        -        -        -\n"
        "  its agent ended 3 times, never half a minute old; the log of "
        "understudyd says why\n"
        "web                      - Syncing     ?       -        "
        "       -        -        -        -\n");
}

static void a_copy_that_gets_old_is_told(void **state)
{
    json_t *vm = parse("{\"state\":\"Protected\",\"lag_ms\":2001,"
                       "\"timeout_ms\":1000}");

    (void)state;
    assert_true(format_copy_old(vm));
    json_object_set_new(vm, "lag_ms", json_integer(2000));
    assert_false(format_copy_old(vm));
    json_object_set_new(vm, "lag_ms", json_integer(5000));
    json_object_set_new(vm, "state", json_string("Degraded"));
    assert_false(format_copy_old(vm));
    json_decref(vm);
}

static void an_empty_table_is_its_head(void **state)
{
    (void)state;
    assert_prints(format_status_table, json_array(),
                  "Name                    ID State       Role    Peer     "
                  "   Epoch Interval    Pause      Lag\n");
}

static void the_details_name_every_field(void **state)
{
    (void)state;
    assert_prints(
        format_status, parse(protected_vm),
        "Name:           web\n"
        "UUID:           0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9\n"
        "Domain:         3\n"
        "State:          Protected\n"
        "Role:           primary\n"
        "Peer:           birch, heard 12.0 ms ago\n"
        "Arbiter:        none\n"
        "Generation:     1\n"
        "Epoch:          1523, committed 180 ms ago\n"
        "Interval:       200 ms, 20.0 ms while output waits\n"
        "Timeout:        1000 ms\n"
        "Pause:          median 1.2 ms, p99 2.3 ms, max 104 ms, last 870 us\n"
        "  suspend       median 400 us, p99 900 us\n"
        "  copy          median 600 us, p99 1.1 ms\n"
        "  resume        median 90 us, p99 200 us\n"
        "Suspend:        fast (event channel)\n"
        "Dirty pages:    median 120, last 99\n"
        "Epoch size:     median 480 KiB, last 396 KiB\n"
        "Sent:           1.2 GiB in 1523 epochs, 3 skipped\n"
        "Held output:    12.0 KiB in 8 packets, 0 dropped\n"
        "Disks:          64.0 GiB, 1.2 MiB not yet on the other host\n"
        "  xvda:         in sync, 64.0 GiB, /srv/web.img\n");
}

static void a_slow_suspend_says_what_it_costs(void **state)
{
    (void)state;
    assert_prints(
        format_status,
        parse("{\"name\":\"web\",\"interval_ms\":200,"
              "\"interval_now_ms\":386,\"suspend\":\"xenstore\","
              "\"pause_us\":{\"median\":80000},"
              "\"suspend_us\":{\"median\":76000}}"),
        "Name:           web\n"
        "UUID:           ?\n"
        "State:          ?\n"
        "Role:           ?\n"
        "Peer:           ?\n"
        "Arbiter:        ?\n"
        "Interval:       386 ms, for the length of the pause not 200 ms\n"
        "Pause:          median 80.0 ms\n"
        "  suspend       median 76.0 ms\n"
        "Suspend:        stock (xenstore), 95 % of the pause: see "
        "guest/fast-suspend\n");
}

static void a_takeover_is_accounted_for(void **state)
{
    (void)state;
    assert_prints(format_status, parse(backup_vm),
                  "Name:           a-rather-long-name-of-a-vm\n"
                  "UUID:           u\n"
                  "State:          TakenOver: alder was silent\n"
                  "Role:           backup\n"
                  "Peer:           alder\n"
                  "Arbiter:        none\n"
                  "Interval:       200 ms\n"
                  "Takeover:       noticed after 980 ms, running after 1013 "
                  "ms\n"
                  "From disk:      booted, without its memory, from disks that "
                  "were 61 s old\n");
}

static void assert_line(const char *json, const char *expected)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    json_t *j = parse(json);

    format_status(f, j);
    fclose(f);
    if (!strstr(text, expected))
        fail_msg("\"%s\" is not in:\n%s", expected, text);
    free(text);
    json_decref(j);
}

static void what_is_not_known_is_not_said(void **state)
{
    (void)state;
    assert_line("{\"epoch\":0}", "\nEpoch:          none yet\n");
    assert_line("{\"epoch\":7}", "\nEpoch:          7\n");
    assert_line("{\"epoch\":7,\"lag_ms\":3}",
                "\nEpoch:          7, committed 3.0 ms ago\n");
}

static void a_silent_peer_is_shown(void **state)
{
    (void)state;
    assert_line("{\"peer\":\"alder\",\"timeout_ms\":1000,"
                "\"peer_heard_ms\":499}",
                "\nPeer:           alder, heard 499 ms ago\n");
    assert_line("{\"peer\":\"alder\",\"timeout_ms\":1000,"
                "\"peer_heard_ms\":12000}",
                "\nPeer:           alder, not heard for 12 s\n");
}

static void progress_shows_rate_and_time_left(void **state)
{
    (void)state;
    assert_prints(format_progress, parse(syncing_vm),
                  "web: Syncing, 512 MiB of 1.0 GiB (50%), 94 Mbit/s, 46 s "
                  "left");
}

static void events_are_one_line_each(void **state)
{
    (void)state;
    setenv("TZ", "UTC", 1);
    assert_prints(
        format_event,
        parse("{\"seq\":1,\"time_ms\":1700000000042,\"event\":\"state\","
              "\"vm\":\"web\",\"state\":\"Protected\",\"previous\":"
              "\"Syncing\",\"text\":\"in sync\"}"),
        "2023-11-14 22:13:20.042 web          Protected (was Syncing): in "
        "sync\n");
    assert_prints(format_event,
                  parse("{\"time_ms\":1700000000042,\"event\":\"host-up\","
                        "\"vm\":\"\",\"text\":\"session to birch is up\"}"),
                  "2023-11-14 22:13:20.042 -            host-up: session to "
                  "birch is up\n");
}

static void peers_that_are_down_say_why(void **state)
{
    (void)state;
    assert_prints(
        format_peers,
        parse("[{\"name\":\"birch\",\"address\":\"10.0.5.2\",\"port\":7788,"
              "\"pin\":\"0123456789abcdef0123\",\"up\":true,\"heard_ms\":7,"
              "\"reason\":\"\"},"
              "{\"name\":\"cedar\",\"address\":\"10.0.5.3\",\"port\":7788,"
              "\"pin\":\"ffff\",\"up\":false,\"heard_ms\":-1,"
              "\"reason\":\"no session to cedar: refused\"}]"),
        "Name         Address          Port State Heard    Pin\n"
        "birch        10.0.5.2         7788 up    7.0 ms   "
        "0123456789abcdef\n"
        "cedar        10.0.5.3         7788 down  -        ffff\n"
        "  no session to cedar: refused\n");
}

static const char two_paths[] =
    "[{\"path\":\"heartbeat\",\"address\":\"10.0.6.2:7788\",\"up\":true,"
    "\"heard_ms\":12,\"reason\":\"\"},"
    "{\"path\":\"heartbeat\",\"address\":\"10.0.5.2:7788\",\"up\":false,"
    "\"heard_ms\":8000,\"reason\":\"silent\"},"
    "{\"path\":\"heartbeat\",\"address\":\"10.0.7.2:7788\",\"up\":false,"
    "\"heard_ms\":-1,\"reason\":\"\"}]";

static void each_path_of_a_peer_is_told(void **state)
{
    (void)state;
    assert_prints(format_peers,
                  json_pack("[{ss ss si ss sb si so}]", "name", "birch",
                            "address", "10.0.6.2", "port", 7788, "pin",
                            "0123456789abcdef", "up", 1, "heard_ms", 7, "paths",
                            parse(two_paths)),
                  "Name         Address          Port State Heard    Pin\n"
                  "birch        10.0.6.2         7788 up    7.0 ms   "
                  "0123456789abcdef\n"
                  "  10.0.6.2:7788         up, heard 12.0 ms ago\n"
                  "  10.0.5.2:7788         down, heard 8000 ms ago: silent\n"
                  "  10.0.7.2:7788         never heard\n");
}

static void the_holder_and_each_path_are_told(void **state)
{
    (void)state;
    assert_prints(
        format_status,
        parse("{\"name\":\"web\",\"state\":\"Protected\",\"peer\":\"birch\","
              "\"arbiter\":\"witness:cedar pin=12\",\"generation\":7,"
              "\"holder\":\"this host\",\"arbiter_behind\":true,\"paths\":["
              "{\"path\":\"replication\",\"up\":true,\"heard_ms\":3,"
              "\"reason\":\"\"},"
              "{\"path\":\"daemons\",\"up\":false,\"heard_ms\":8000,"
              "\"reason\":\"silent\"},"
              "{\"path\":\"arbiter\",\"up\":false,\"heard_ms\":9000,"
              "\"reason\":\"it is sealed\"}]}"),
        "Name:           web\n"
        "UUID:           ?\n"
        "State:          Protected\n"
        "Role:           ?\n"
        "Peer:           birch\n"
        "Arbiter:        witness:cedar pin=12\n"
        "Generation:     7, held by this host\n"
        "  warning:      the arbiter knows an older one: it has lost its "
        "memory\n"
        "  replication:  up, heard 3.0 ms ago\n"
        "  daemons:      down, heard 8000 ms ago: silent\n"
        "  arbiter:      can't be asked: it is sealed\n"
        "Interval:       -\n");
}

static void a_lost_path_is_a_warning(void **state)
{
    json_t *vm = parse("{\"name\":\"web\",\"state\":\"Protected\",\"peer\":"
                       "\"birch\"}");

    (void)state;
    json_object_set_new(vm, "paths", parse(two_paths));
    assert_prints(
        format_status_table, json_pack("[O]", vm),
        "Name                    ID State       Role    Peer        Epoch "
        "Interval    Pause      Lag\n"
        "web                      - Protected   ?       birch           - "
        "       -        -        -\n"
        "  warning: heartbeat path 10.0.5.2:7788 of birch is down, heard 8000 "
        "ms ago: silent\n"
        "  warning: heartbeat path 10.0.7.2:7788 of birch is never heard\n");
    assert_prints(format_status, vm,
                  "Name:           web\n"
                  "UUID:           ?\n"
                  "State:          Protected\n"
                  "Role:           ?\n"
                  "Peer:           birch\n"
                  "Arbiter:        ?\n"
                  "  heartbeat:    10.0.6.2:7788 up, heard 12.0 ms ago\n"
                  "  heartbeat:    10.0.5.2:7788 down, heard 8000 ms ago: "
                  "silent\n"
                  "  heartbeat:    10.0.7.2:7788 never heard\n"
                  "Interval:       -\n");
}

static void junk_does_no_harm(void **state)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    json_t *j = parse("{\"name\":3,\"sync\":7,\"pause_us\":[],\"domid\":\"x\","
                      "\"takeover\":true,\"epoch\":null}");
    json_t *list = json_pack("[O i s]", j, 3, "x");

    (void)state;
    format_status(f, j);
    format_progress(f, j);
    format_event(f, j);
    format_status_table(f, list);
    format_peers(f, list);
    fclose(f);
    assert_true(n > 0);
    free(text);
    json_decref(list);
    json_decref(j);
}

static void numbers_have_human_units(void **state)
{
    char out[24];
    static const struct {
        long long n;
        const char *bytes, *us;
    } cases[] = {
        {0, "0 B", "0 us"},
        {1023, "1023 B", "1.0 ms"},
        {1024, "1.0 KiB", "1.0 ms"},
        {1048575, "1.0 MiB", "1049 ms"},
        {104857600, "100 MiB", "105 s"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        format_bytes(out, cases[i].n);
        assert_string_equal(out, cases[i].bytes);
        format_us(out, cases[i].n);
        assert_string_equal(out, cases[i].us);
    }
    format_rate(out, 999);
    assert_string_equal(out, "1 kbit/s");
    format_rate(out, 9400000000);
    assert_string_equal(out, "9.4 Gbit/s");
}

static void durations_have_units(void **state)
{
    (void)state;
    assert_int_equal(cli_duration_ms("200"), 200);
    assert_int_equal(cli_duration_ms("200ms"), 200);
    assert_int_equal(cli_duration_ms("1.5s"), 1500);
    assert_int_equal(cli_duration_ms("fast"), -1);
    assert_int_equal(cli_duration_ms("-1s"), -1);
    assert_int_equal(cli_duration_ms("3h"), -1);
    assert_int_equal(cli_duration_ms(""), -1);
    assert_int_equal(cli_duration_ms("nan"), -1);
}

static void disks_have_a_line_each(void **state)
{
    json_t *list =
        parse("[{\"vm\":\"web\",\"disk\":\"xvda\",\"bytes\":21474836480,"
              "\"role\":\"primary\",\"state\":\"in sync\","
              "\"backlog_bytes\":1258291,\"image\":\"/srv/web.img\"},"
              "{\"vm\":\"a-rather-long-name\",\"disk\":\"xvdb\",\"bytes\":1024,"
              "\"role\":\"backup\",\"state\":\"syncing\",\"copied_bytes\":512,"
              "\"image\":\"/dev/vg/b\"},"
              "{\"bytes\":512,\"role\":\"none\",\"state\":\"no server\","
              "\"image\":\"/x\"}]");

    (void)state;
    assert_false(format_disk_ill(json_array_get(list, 0)));
    assert_false(format_disk_ill(json_array_get(list, 1)));
    assert_true(format_disk_ill(json_array_get(list, 2)));
    assert_prints(
        format_disks, list,
        "VM                 Disk      Size Role    State         Backlog  "
        "Image\n"
        "web                xvda  20.0 GiB primary in sync       1.2 MiB  "
        "/srv/web.img\n"
        "a-rather-long-name xvdb   1.0 KiB backup  syncing 50%         -  "
        "/dev/vg/b\n"
        "-                  -        512 B none    no server           -  "
        "/x\n");
}

static const char compared[] =
    "{\"state\":\"done\",\"total_bytes\":8589934592,\"done_bytes\":8589934592,"
    "\"differing_bytes\":20480,\"unknown_bytes\":4096,\"ranges\":["
    "{\"disk\":\"xvda\",\"offset\":1048576,\"bytes\":8192},"
    "{\"disk\":\"xvdb\",\"offset\":0,\"bytes\":4096}]}";

static void verify_print(FILE *f, const json_t *o)
{
    format_verify(f, "web", o);
}

static void what_differs_is_named(void **state)
{
    json_t *same = parse(compared);

    (void)state;
    assert_prints(verify_print, parse(compared),
                  "xvda: 8192 bytes at 1048576 differ\n"
                  "xvdb: 4096 bytes at 0 differ\n"
                  "and 8192 bytes elsewhere\n"
                  "4.0 KiB were written all the time and not compared; they "
                  "are sent with every epoch\n"
                  "web: 20.0 KiB of 8.0 GiB differ\n");
    json_object_set_new(same, "differing_bytes", json_integer(0));
    json_object_set_new(same, "unknown_bytes", json_integer(0));
    json_object_set_new(same, "ranges", json_array());
    assert_prints(verify_print, same,
                  "web: 8.0 GiB compared, both sides are the same\n");
    assert_prints(format_verify_progress, parse(compared),
                  "8.0 GiB of 8.0 GiB compared (100%), 20.0 KiB differ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_has_a_line_for_each_vm),
        cmocka_unit_test(an_agent_that_is_ill_is_told),
        cmocka_unit_test(a_copy_that_gets_old_is_told),
        cmocka_unit_test(an_empty_table_is_its_head),
        cmocka_unit_test(disks_have_a_line_each),
        cmocka_unit_test(what_differs_is_named),
        cmocka_unit_test(the_details_name_every_field),
        cmocka_unit_test(a_slow_suspend_says_what_it_costs),
        cmocka_unit_test(a_takeover_is_accounted_for),
        cmocka_unit_test(what_is_not_known_is_not_said),
        cmocka_unit_test(a_silent_peer_is_shown),
        cmocka_unit_test(progress_shows_rate_and_time_left),
        cmocka_unit_test(events_are_one_line_each),
        cmocka_unit_test(peers_that_are_down_say_why),
        cmocka_unit_test(each_path_of_a_peer_is_told),
        cmocka_unit_test(the_holder_and_each_path_are_told),
        cmocka_unit_test(a_lost_path_is_a_warning),
        cmocka_unit_test(junk_does_no_harm),
        cmocka_unit_test(numbers_have_human_units),
        cmocka_unit_test(durations_have_units),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
