// SPDX-License-Identifier: Apache-2.0
/* checkpoint/replica and the disks of its VM: what they are told, and when. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/replica_peer.h"

/* Disks that note what is done with them: a letter each. */
static char disk_log[64];
static uint64_t last_coming; /* that was prepared */
static int stub_has;         /* records of an epoch */
static int stub_dies;        /* at so many more of them; 0: never */
static bool stub_fails, stub_waits;

static void note(char c)
{
    size_t n = strlen(disk_log);

    if (n < sizeof disk_log - 1)
        __atomic_store_n(&disk_log[n], c, __ATOMIC_SEQ_CST);
}

static bool noted_soon(const char *what)
{
    for (int i = 0; i < 5000; i++) {
        if (!strcmp(disk_log, what))
            return true;
        usleep(1000);
    }
    return false;
}

static int stub_record(struct replica_device *d, const void *payload,
                       size_t len, struct buf *answer, struct err *why)
{
    struct epoch_disk head;
    const uint8_t *rest;
    size_t rest_len;

    (void)d, (void)answer;
    assert_int_equal(
        epoch_disk_read(payload, len, &head, &rest, &rest_len, NULL), 0);
    if (!(head.flags & EPOCH_DISK_LIVE)) {
        while (__atomic_load_n(&stub_waits, __ATOMIC_SEQ_CST))
            usleep(1000);
        if (stub_fails)
            return err_set(why, "no space left");
        if (stub_dies && !--stub_dies) {
            note('!');
            return err_kind(why, ERR_GONE, "it died");
        }
        stub_has++;
    }
    note('r');
    return 0;
}

static void stub_drop(struct replica_device *d)
{
    (void)d;
    if (stub_has)
        note('x');
    stub_has = 0;
}

static int stub_again(struct replica_device *d, uint64_t epoch, struct err *why)
{
    (void)d, (void)why;
    assert_int_equal(epoch, replica_committed(peer.rep));
    note('a');
    stub_has = 0;
    return 0;
}

static int stub_prepare(struct replica_device *d, uint64_t epoch,
                        uint64_t coming, uint64_t *kept, struct err *why)
{
    (void)d, (void)epoch, (void)why;
    assert_int_not_equal(coming, last_coming);
    last_coming = coming;
    note('p');
    *kept = 0;
    return 0;
}

static int stub_decide(struct replica_device *d, struct err *why)
{
    (void)d, (void)why;
    note('d');
    stub_has = 0;
    return 0;
}

static int stub_promote(struct replica_device *d, uint64_t epoch,
                        struct err *why)
{
    (void)d, (void)epoch, (void)why;
    note('t');
    return 0;
}

static void stub_nothing(struct replica_device *d)
{
    (void)d;
}

static const struct replica_device_ops stub_ops = {.record = stub_record,
                                                   .prepare = stub_prepare,
                                                   .decide = stub_decide,
                                                   .drop = stub_drop,
                                                   .again = stub_again,
                                                   .promote = stub_promote,
                                                   .free = stub_nothing};
static struct replica_device stub = {.ops = &stub_ops, .max_bytes = 1 << 20};

static int start_with_disks(void **state)
{
    (void)state;
    memset(disk_log, 0, sizeof disk_log);
    last_coming = 0;
    stub_has = stub_dies = 0;
    stub_fails = stub_waits = false;
    return peer_start_with(0, 2, 0, &stub);
}

static int disk_put(uint32_t flags, size_t bytes)
{
    struct epoch_disk d = {51712, flags};

    buf_clear(&peer.out);
    epoch_disk_put(&peer.out, &d);
    memset(buf_extend(&peer.out, bytes), 0, bytes);
    return flags & EPOCH_DISK_LIVE ? peer_record(EPOCH_DISK)
                                   : peer_put(EPOCH_DISK);
}

/* Between two epochs a disk may be asked what it holds, and it is asked in that
 * moment; nothing is written to it then. */
static void disks_are_asked_between_epochs(void **state)
{
    unsigned asked = 0;

    (void)state;
    assert_int_equal(disk_put(EPOCH_DISK_LIVE, 64), 0);
    peer_gate_set(true);
    peer_epoch_put(1, 3, 1);
    assert_true(peer_acked_soon(1));
    assert_int_equal(disk_put(EPOCH_DISK_LIVE, 64), -1);
    assert_int_equal(disk_put(EPOCH_DISK_LIVE | EPOCH_DISK_BEGIN, 8), -1);
    assert_int_equal(disk_put(EPOCH_DISK_LIVE | EPOCH_DISK_ASK, 64), 0);
    peer_epoch_put(2, 3, 2);
    peer_gate_set(false);
    assert_true(peer_applied_soon(2));
    assert_string_equal(disk_log, "rpdrpd");
    /* No more than is answered. */
    peer_gate_set(true);
    peer_epoch_put(3, 3, 3);
    assert_true(peer_acked_soon(3));
    while (asked < 100 && !disk_put(EPOCH_DISK_LIVE | EPOCH_DISK_ASK, 16384))
        asked++;
    assert_in_range(asked, 4, 32);
}

/* Not only when all of it is here; and what was given away of an epoch that
 * does not come to its end is taken back. */
static void disks_get_writes_as_they_come(void **state)
{
    (void)state;
    peer_epoch_put(1, 3, 1);
    assert_true(peer_applied_soon(1));
    peer_epoch_begin(2);
    assert_int_equal(disk_put(0, 64), 0);
    assert_true(noted_soon("pdr"));
    assert_int_equal(disk_put(0, 64), 0);
    assert_true(noted_soon("pdrr"));
    replica_session_lost(peer.rep);
    peer_epoch_begin(2);
    assert_int_equal(disk_put(0, 64), 0);
    assert_true(noted_soon("pdrrxr"));
    assert_int_equal(peer_state_put(), 0);
    assert_int_equal(peer_commit_put(), 0);
    assert_true(peer_applied_soon(2));
    assert_string_equal(disk_log, "pdrrxrpd");
}

/* What died had got some of it: its successor gets all, once all is here. */
static void disks_that_die_get_all_again(void **state)
{
    (void)state;
    peer_epoch_put(1, 3, 1);
    assert_true(peer_applied_soon(1));
    peer_epoch_begin(2);
    stub_dies = 2;
    assert_int_equal(disk_put(0, 64), 0);
    assert_int_equal(disk_put(0, 64), 0);
    assert_true(noted_soon("pdr!"));
    assert_int_equal(disk_put(0, 64), 0);
    assert_int_equal(peer_state_put(), 0);
    stub_dies = 3; /* this one's successor lives */
    assert_int_equal(peer_commit_put(), 0);
    assert_true(peer_applied_soon(2));
    assert_string_equal(disk_log, "pdr!arr!arrrpd");
}

/* One record is under way; of those behind it none is given any more. */
static void *wait_end(void *arg)
{
    (void)arg;
    usleep(30000);
    __atomic_store_n(&stub_waits, false, __ATOMIC_SEQ_CST);
    return NULL;
}

static void a_takeover_waits_for_one_record_at_most(void **state)
{
    pthread_t ender;

    (void)state;
    peer_epoch_put(1, 3, 1);
    assert_true(peer_applied_soon(1));
    peer_epoch_begin(2);
    stub_waits = true;
    for (int i = 0; i < 10; i++)
        assert_int_equal(disk_put(0, 64), 0);
    assert_int_equal(pthread_create(&ender, NULL, wait_end, NULL), 0);
    assert_int_equal(replica_takeover(peer.rep, &peer.e), 0);
    pthread_join(ender, NULL);
    assert_true(!strcmp(disk_log, "pdrt") || !strcmp(disk_log, "pdt"));
}

/* It is not asked again, and what it said is what the owner hears. */
static void a_disk_that_fails_says_why_when_all_is_here(void **state)
{
    (void)state;
    peer_epoch_put(1, 3, 1);
    assert_true(peer_applied_soon(1));
    peer_epoch_begin(2);
    stub_fails = true;
    assert_int_equal(disk_put(0, 64), 0);
    assert_int_equal(peer_state_put(), 0);
    assert_false(peer_acked_after_all(2));
    assert_string_equal(peer_failure(), "");
    assert_int_equal(peer_commit_put(), 0);
    for (int i = 0; i < 5000 && !*peer_failure(); i++)
        usleep(1000);
    assert_non_null(strstr(peer_failure(), "no space left"));
    assert_false(peer_acked_after_all(2));
    assert_string_equal(disk_log, "pd");
}

#define T(f) cmocka_unit_test_setup_teardown(f, start_with_disks, peer_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(disks_are_asked_between_epochs),
        T(disks_get_writes_as_they_come),
        T(disks_that_die_get_all_again),
        T(a_takeover_waits_for_one_record_at_most),
        T(a_disk_that_fails_says_why_when_all_is_here),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
