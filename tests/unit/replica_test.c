// SPDX-License-Identifier: Apache-2.0
/* checkpoint/replica with a peer that does not keep to the protocol: nothing is
 * acknowledged that is not whole, right and in turn; the committed epoch
 * survives whatever comes. */
#include "checkpoint/codec.h"
#include "checkpoint/replica.h"
#include "common/clock.h"
#include "common/log.h"
#include "hypervisor/fake.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGES 60
#define HOLE  20 /* a frame without RAM */

static char dir[64];
static struct hv *shell_hv;
static uint32_t shell;
static struct hv_map map;
static struct replica *rep;
static struct encoder *enc;
static struct epoch_hash *hash;
static struct epoch_commit commit;
static struct buf out;
static struct err e;

/* Acknowledgements wait at the gate while it is closed. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t acked;
static bool gate_closed, at_gate;

static void ack(void *arg, uint64_t epoch, uint64_t applied, uint64_t disks)
{
    (void)arg;
    (void)disks;
    pthread_mutex_lock(&lock);
    assert_int_equal(applied, epoch - 1);
    acked = epoch;
    at_gate = true;
    pthread_cond_broadcast(&changed);
    while (gate_closed)
        pthread_cond_wait(&changed, &lock);
    at_gate = false;
    pthread_mutex_unlock(&lock);
}

static void gate_set(bool closed)
{
    pthread_mutex_lock(&lock);
    gate_closed = closed;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static bool acked_soon(uint64_t epoch)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    pthread_mutex_lock(&lock);
    while (acked < epoch && !pthread_cond_timedwait(&changed, &lock, &until))
        ;
    bool ok = acked == epoch;
    pthread_mutex_unlock(&lock);
    return ok;
}

/* Long enough for the apply thread to do what it must not. */
static bool acked_after_all(uint64_t epoch)
{
    usleep(20000);
    pthread_mutex_lock(&lock);
    bool yes = acked >= epoch;
    pthread_mutex_unlock(&lock);
    return yes;
}

static bool applied_soon(uint64_t epoch)
{
    struct replica_status st;

    for (int i = 0; i < 5000; i++) {
        replica_status(rep, &st);
        if (st.applied == epoch)
            return true;
        usleep(1000);
    }
    return false;
}

/* Disks that note what is done with them: a letter each. */
static char disk_log[64];

static void note(char c)
{
    size_t n = strlen(disk_log);

    if (n < sizeof disk_log - 1)
        disk_log[n] = c;
}

static int stub_record(struct replica_device *d, const void *payload,
                       size_t len, struct buf *answer, struct err *why)
{
    (void)d, (void)payload, (void)len, (void)answer, (void)why;
    note('r');
    return 0;
}

static int stub_prepare(struct replica_device *d, uint64_t epoch,
                        uint64_t *kept, struct err *why)
{
    (void)d, (void)epoch, (void)why;
    note('p');
    *kept = 0;
    return 0;
}

static int stub_decide(struct replica_device *d, struct err *why)
{
    (void)d, (void)why;
    note('d');
    return 0;
}

static void stub_nothing(struct replica_device *d)
{
    (void)d;
}

static const struct replica_device_ops stub_ops = {.record = stub_record,
                                                   .prepare = stub_prepare,
                                                   .decide = stub_decide,
                                                   .drop = stub_nothing,
                                                   .free = stub_nothing};
static struct replica_device stub = {.ops = &stub_ops, .max_bytes = 1 << 20};

static bool with_disks; /* the next one that is started */

static int start_with(uint64_t end_gfn, uint64_t max_lacking,
                      uint64_t max_bytes)
{
    struct fake_spec spec = {.name = "web",
                             .seed = 1,
                             .ram_pages = PAGES,
                             .hole_at = HOLE,
                             .hole_pages = 10,
                             .writers = 1};
    struct replica_config config = {.name = "web",
                                    .end_gfn = end_gfn,
                                    .max_lacking = max_lacking,
                                    .max_bytes = max_bytes,
                                    .ack = ack,
                                    .disks = with_disks ? &stub : NULL};
    struct hv *hv;

    log_setup("test", 2);
    e = (struct err)ERR_INIT;
    acked = 0;
    memset(disk_log, 0, sizeof disk_log);
    with_disks = gate_closed = false;
    snprintf(dir, sizeof dir, "/tmp/understudy-r.XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(fake_create(dir, &spec, &shell, &e), 0);
    assert_int_equal(hv_fake_open(dir, &shell_hv, &e), 0);
    assert_int_equal(shell_hv->ops->pause(shell_hv, shell, &e), 0);
    assert_int_equal(shell_hv->ops->map(shell_hv, shell, false, &map, &e), 0);
    assert_int_equal(hv_fake_open(dir, &hv, &e), 0);
    config.domid = shell;
    assert_int_equal(replica_open(&rep, hv, &config, &e), 0);
    assert_int_equal(encoder_open(&enc, 4096, true, &e), 0);
    hash = epoch_hash_new();
    return 0;
}

static int start(void **state)
{
    (void)state;
    return start_with(0, 2, 0);
}

static int end(void **state)
{
    char command[100];

    (void)state;
    gate_set(false);
    replica_free(rep);
    shell_hv->ops->unmap(shell_hv, &map);
    shell_hv->ops->close(shell_hv);
    encoder_free(enc);
    epoch_hash_free(hash);
    buf_free(&out);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static int record(enum epoch_record type)
{
    err_clear(&e);
    return replica_record(rep, type, out.data, out.len, &e);
}

static int put(enum epoch_record type)
{
    epoch_hash_add(hash, out.data, out.len);
    commit.bytes += out.len;
    return record(type);
}

static void epoch_begin(uint64_t epoch)
{
    memset(&commit, 0, sizeof commit);
    commit.epoch = epoch;
    epoch_hash_reset(hash);
    encoder_begin(enc, epoch, epoch == 0);
}

static int page_put(uint64_t gfn, uint8_t value)
{
    static uint8_t page[HV_PAGE];

    memset(page, value, sizeof page);
    encoder_chunk(enc, &gfn, page, 1, &out);
    commit.pages++;
    commit.chunks++;
    return put(EPOCH_PAGES);
}

static int state_put(void)
{
    uint8_t state[68] = {0x65, 0x6b, 0x61, 0x66}; /* as the fake has it */

    buf_clear(&out);
    epoch_state_put(&out, commit.epoch, state, sizeof state);
    return put(EPOCH_STATE);
}

static int commit_put(void)
{
    commit.digest = epoch_hash_value(hash);
    buf_clear(&out);
    epoch_commit_put(&out, &commit);
    return record(EPOCH_COMMIT);
}

/* A whole epoch with one page. */
static void epoch_put(uint64_t epoch, uint64_t gfn, uint8_t value)
{
    epoch_begin(epoch);
    assert_int_equal(page_put(gfn, value), 0);
    assert_int_equal(state_put(), 0);
    assert_int_equal(commit_put(), 0);
    encoder_commit(enc);
}

static uint8_t shell_byte(uint64_t gfn)
{
    return *(volatile uint8_t *)(map.base + gfn * HV_PAGE + 77);
}

static void live_pages_are_written_at_once(void **state)
{
    (void)state;
    epoch_begin(0);
    assert_int_equal(page_put(3, 9), 0);
    assert_int_equal(page_put(4, 8), 0);
    for (int i = 0; i < 5000 && shell_byte(4) != 8; i++)
        usleep(1000);
    assert_int_equal(shell_byte(3), 9);
    assert_int_equal(shell_byte(4), 8);
    assert_int_equal(replica_committed(rep), 0);
}

static void an_epoch_is_written_only_after_its_commit(void **state)
{
    (void)state;
    epoch_begin(1);
    assert_int_equal(page_put(3, 9), 0);
    assert_int_equal(state_put(), 0);
    usleep(10000);
    assert_int_equal(shell_byte(3), 0);
    assert_int_equal(commit_put(), 0);
    assert_true(acked_soon(1));
    assert_true(applied_soon(1));
    assert_int_equal(shell_byte(3), 9);
    assert_int_equal(replica_committed(rep), 1);
}

static void a_wrong_digest_is_never_acknowledged(void **state)
{
    (void)state;
    epoch_put(1, 3, 1);
    assert_true(acked_soon(1));
    epoch_begin(2);
    assert_int_equal(page_put(3, 2), 0);
    assert_int_equal(state_put(), 0);
    epoch_hash_add(hash, "x", 1);
    assert_int_equal(commit_put(), -1);
    assert_non_null(strstr(e.text, "digest"));
    assert_false(acked_after_all(2));
    replica_session_lost(rep);
    assert_int_equal(replica_committed(rep), 1);
    assert_int_equal(shell_byte(3), 1);
    epoch_put(2, 3, 3);
    assert_true(acked_soon(2));
}

/* The digest is right: it is what the primary says that makes no sense. */
static void a_state_that_makes_no_sense_is_never_acknowledged(void **state)
{
    static const uint8_t nonsense[68] = {1, 2, 3};

    (void)state;
    epoch_begin(1);
    assert_int_equal(page_put(3, 2), 0);
    buf_clear(&out);
    epoch_state_put(&out, 1, nonsense, sizeof nonsense);
    assert_int_equal(put(EPOCH_STATE), -1);
    assert_int_equal(commit_put(), -1);
    assert_false(acked_after_all(1));
    replica_session_lost(rep);
    assert_int_equal(replica_committed(rep), 0);
}

static void wrong_counts_are_never_acknowledged(void **state)
{
    (void)state;
    for (int what = 0; what < 3; what++) {
        epoch_begin(1);
        assert_int_equal(page_put(3, 2), 0);
        assert_int_equal(state_put(), 0);
        commit.pages += what == 0;
        commit.chunks += what == 1;
        commit.bytes += what == 2;
        assert_int_equal(commit_put(), -1);
        replica_session_lost(rep);
    }
    assert_false(acked_after_all(1));
}

static void records_out_of_turn_are_refused(void **state)
{
    (void)state;
    epoch_begin(2); /* before 1 */
    assert_int_equal(page_put(3, 2), -1);
    replica_session_lost(rep);
    epoch_begin(1); /* without STATE */
    assert_int_equal(page_put(3, 3), 0);
    assert_int_equal(commit_put(), -1);
    replica_session_lost(rep);
    epoch_begin(1); /* PAGES after STATE, STATE twice */
    assert_int_equal(page_put(3, 4), 0);
    assert_int_equal(state_put(), 0);
    assert_int_equal(state_put(), -1);
    assert_int_equal(page_put(3, 5), -1);
    replica_session_lost(rep);
    epoch_begin(1); /* the first PAGES missing */
    static uint8_t page[HV_PAGE];
    uint64_t gfn = 3;
    encoder_chunk(enc, &gfn, page, 1, &out);
    assert_int_equal(page_put(4, 6), -1);
    replica_session_lost(rep);
    epoch_put(1, 3, 7);
    assert_true(acked_soon(1));
    epoch_begin(1); /* the same again */
    assert_int_equal(page_put(3, 8), -1);
    epoch_begin(0); /* live pages behind the first epoch */
    assert_int_equal(page_put(3, 9), -1);
    assert_int_equal(record((enum epoch_record)9), -1);
    assert_true(applied_soon(1));
    assert_int_equal(shell_byte(3), 7);
}

static void live_pages_inside_an_epoch_are_refused(void **state)
{
    (void)state;
    epoch_begin(1);
    assert_int_equal(page_put(3, 1), 0);
    epoch_begin(0);
    assert_int_equal(page_put(4, 1), -1);
}

static void live_pages_out_of_sequence_are_refused(void **state)
{
    (void)state;
    epoch_begin(0);
    assert_int_equal(page_put(3, 1), 0);
    encoder_begin(enc, 0, true);
    assert_int_equal(page_put(4, 1), -1);
    replica_session_lost(rep); /* the next session counts from 0 */
    assert_int_equal(page_put(4, 1), -1);
    encoder_begin(enc, 0, true);
    assert_int_equal(page_put(5, 1), 0);
}

static void unchanged_after_it_was_sent_in_this_epoch_is_refused(void **state)
{
    (void)state;
    epoch_put(1, 3, 1);
    assert_true(acked_soon(1));
    epoch_begin(2);
    assert_int_equal(page_put(3, 2), 0);
    encoder_begin(enc, 2, false); /* makes it forget that */
    static uint8_t page[HV_PAGE];
    uint64_t gfn = 9;
    encoder_chunk(enc, &gfn, page, 1, &out); /* sequence 0 */
    assert_int_equal(page_put(3, 1), -1);
    assert_non_null(strstr(e.text, "unchanged"));
}

static void the_next_epoch_waits_for_the_one_before(void **state)
{
    (void)state;
    gate_set(true);
    epoch_put(1, 3, 1);
    assert_true(acked_soon(1)); /* committed, held up before it is applied */
    epoch_put(2, 3, 2);
    assert_false(acked_after_all(2));
    assert_int_equal(replica_committed(rep), 1);
    epoch_begin(3);
    assert_int_equal(page_put(3, 3), -1); /* 2 is not acknowledged */
    gate_set(false);
    assert_true(acked_soon(2));
    assert_true(applied_soon(2));
    assert_int_equal(shell_byte(3), 2);
}

static void a_complete_epoch_dies_with_the_session(void **state)
{
    (void)state;
    gate_set(true);
    epoch_put(1, 3, 1);
    assert_true(acked_soon(1));
    epoch_put(2, 3, 2);
    replica_session_lost(rep);
    assert_int_equal(replica_committed(rep), 1);
    gate_set(false);
    assert_false(acked_after_all(2));
    assert_true(applied_soon(1));
    assert_int_equal(shell_byte(3), 1);
    epoch_put(2, 3, 5);
    assert_true(acked_soon(2));
}

static void an_epoch_larger_than_agreed_is_refused(void **state)
{
    (void)state;
    end(NULL);
    start_with(0, 2, 5 * HV_PAGE);
    epoch_begin(1);
    for (uint64_t gfn = 0; gfn < 4; gfn++)
        assert_int_equal(page_put(gfn, 1), 0);
    assert_int_equal(page_put(4, 1), -1);
    assert_non_null(strstr(e.text, "larger"));
}

static void frames_the_shell_lacks_are_ignored_up_to_a_limit(void **state)
{
    struct replica_status st;

    (void)state;
    end(NULL);
    start_with(200, 2, 0);
    epoch_begin(1);
    assert_int_equal(page_put(HOLE, 1), 0);
    assert_int_equal(page_put(HOLE, 2), 0); /* the same one */
    assert_int_equal(page_put(199, 1), 0);  /* beyond the shell's end */
    assert_int_equal(state_put(), 0);
    assert_int_equal(commit_put(), 0);
    assert_true(applied_soon(1));
    replica_status(rep, &st);
    assert_int_equal(st.lacking, 2);
    assert_int_equal(shell_byte(HOLE), 0);
    epoch_begin(2);
    assert_int_equal(page_put(HOLE + 1, 1), -1);
    assert_non_null(strstr(e.text, "lacks"));
    replica_session_lost(rep);
    assert_int_equal(page_put(200, 1), -1); /* beyond the guest's end */
}

static int start_with_disks(void **state)
{
    with_disks = true;
    return start(state);
}

static int disk_put(uint32_t flags, size_t bytes)
{
    struct epoch_disk d = {51712, flags};

    buf_clear(&out);
    epoch_disk_put(&out, &d);
    memset(buf_extend(&out, bytes), 0, bytes);
    return record(EPOCH_DISK);
}

/* Between two epochs a disk may be asked what it holds, and it is asked in that
 * moment; nothing is written to it then. */
static void disks_are_asked_between_epochs(void **state)
{
    unsigned asked = 0;

    (void)state;
    assert_int_equal(disk_put(EPOCH_DISK_LIVE, 64), 0);
    gate_set(true);
    epoch_put(1, 3, 1);
    assert_true(acked_soon(1));
    assert_int_equal(disk_put(EPOCH_DISK_LIVE, 64), -1);
    assert_int_equal(disk_put(EPOCH_DISK_LIVE | EPOCH_DISK_BEGIN, 8), -1);
    assert_int_equal(disk_put(EPOCH_DISK_LIVE | EPOCH_DISK_ASK, 64), 0);
    epoch_put(2, 3, 2);
    gate_set(false);
    assert_true(applied_soon(2));
    assert_string_equal(disk_log, "rpdrpd");
    /* No more than is answered. */
    gate_set(true);
    epoch_put(3, 3, 3);
    assert_true(acked_soon(3));
    while (asked < 100 && !disk_put(EPOCH_DISK_LIVE | EPOCH_DISK_ASK, 16384))
        asked++;
    assert_in_range(asked, 4, 32);
}

static void takeover_needs_a_committed_epoch(void **state)
{
    (void)state;
    epoch_begin(0);
    assert_int_equal(page_put(3, 9), 0);
    assert_int_equal(replica_takeover(rep, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
}

static void *gate_open_later(void *arg)
{
    (void)arg;
    usleep(30000);
    gate_set(false);
    return NULL;
}

static void takeover_finishes_the_committed_and_drops_the_rest(void **state)
{
    pthread_t opener;
    struct replica_status st;

    (void)state;
    gate_set(true);
    epoch_put(1, 3, 1);
    assert_true(acked_soon(1));
    epoch_put(2, 3, 2); /* complete, but not committed */
    assert_int_equal(pthread_create(&opener, NULL, gate_open_later, NULL), 0);
    assert_int_equal(replica_takeover(rep, &e), 0);
    replica_status(rep, &st);
    assert_int_equal(st.applied, 1);
    assert_int_equal(st.committed, 1);
    assert_int_equal(shell_byte(3), 1);
    assert_false(acked_after_all(2));
    epoch_begin(2);
    assert_int_equal(page_put(3, 4), -1);
    assert_int_equal(replica_takeover(rep, &e), 0); /* may be repeated */
    pthread_join(opener, NULL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(live_pages_are_written_at_once),
        T(an_epoch_is_written_only_after_its_commit),
        T(a_wrong_digest_is_never_acknowledged),
        T(a_state_that_makes_no_sense_is_never_acknowledged),
        T(wrong_counts_are_never_acknowledged),
        T(records_out_of_turn_are_refused),
        T(live_pages_inside_an_epoch_are_refused),
        T(live_pages_out_of_sequence_are_refused),
        T(unchanged_after_it_was_sent_in_this_epoch_is_refused),
        T(the_next_epoch_waits_for_the_one_before),
        T(a_complete_epoch_dies_with_the_session),
        T(an_epoch_larger_than_agreed_is_refused),
        T(frames_the_shell_lacks_are_ignored_up_to_a_limit),
        cmocka_unit_test_setup_teardown(disks_are_asked_between_epochs,
                                        start_with_disks, end),
        T(takeover_needs_a_committed_epoch),
        T(takeover_finishes_the_committed_and_drops_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
