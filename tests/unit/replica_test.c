// SPDX-License-Identifier: Apache-2.0
/* checkpoint/replica with a peer that does not keep to the protocol: nothing is
 * acknowledged that is not whole, right and in turn; the committed epoch
 * survives whatever comes. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/replica_peer.h"

static void live_pages_are_written_at_once(void **state)
{
    (void)state;
    peer_epoch_begin(0);
    assert_int_equal(peer_page_put(3, 9), 0);
    assert_int_equal(peer_page_put(4, 8), 0);
    for (int i = 0; i < 5000 && peer_shell_byte(4) != 8; i++)
        usleep(1000);
    assert_int_equal(peer_shell_byte(3), 9);
    assert_int_equal(peer_shell_byte(4), 8);
    assert_int_equal(replica_committed(peer.rep), 0);
}

static void an_epoch_is_written_only_after_its_commit(void **state)
{
    (void)state;
    peer_epoch_begin(1);
    assert_int_equal(peer_page_put(3, 9), 0);
    assert_int_equal(peer_state_put(), 0);
    usleep(10000);
    assert_int_equal(peer_shell_byte(3), 0);
    assert_int_equal(peer_commit_put(), 0);
    assert_true(peer_acked_soon(1));
    assert_true(peer_applied_soon(1));
    assert_int_equal(peer_shell_byte(3), 9);
    assert_int_equal(replica_committed(peer.rep), 1);
}

static void a_wrong_digest_is_never_acknowledged(void **state)
{
    (void)state;
    peer_epoch_put(1, 3, 1);
    assert_true(peer_acked_soon(1));
    peer_epoch_begin(2);
    assert_int_equal(peer_page_put(3, 2), 0);
    assert_int_equal(peer_state_put(), 0);
    epoch_hash_add(peer.hash, "x", 1);
    assert_int_equal(peer_commit_put(), -1);
    assert_non_null(strstr(peer.e.text, "digest"));
    assert_false(peer_acked_after_all(2));
    replica_session_lost(peer.rep);
    assert_int_equal(replica_committed(peer.rep), 1);
    assert_int_equal(peer_shell_byte(3), 1);
    peer_epoch_put(2, 3, 3);
    assert_true(peer_acked_soon(2));
}

/* The digest is right: it is what the primary says that makes no sense. */
static void a_state_that_makes_no_sense_is_never_acknowledged(void **state)
{
    static const uint8_t nonsense[68] = {1, 2, 3};

    (void)state;
    peer_epoch_begin(1);
    assert_int_equal(peer_page_put(3, 2), 0);
    buf_clear(&peer.out);
    epoch_state_put(&peer.out, 1, nonsense, sizeof nonsense);
    assert_int_equal(peer_put(EPOCH_STATE), -1);
    assert_int_equal(peer_commit_put(), -1);
    assert_false(peer_acked_after_all(1));
    replica_session_lost(peer.rep);
    assert_int_equal(replica_committed(peer.rep), 0);
}

static void wrong_counts_are_never_acknowledged(void **state)
{
    (void)state;
    for (int what = 0; what < 3; what++) {
        peer_epoch_begin(1);
        assert_int_equal(peer_page_put(3, 2), 0);
        assert_int_equal(peer_state_put(), 0);
        peer.commit.pages += what == 0;
        peer.commit.chunks += what == 1;
        peer.commit.bytes += what == 2;
        assert_int_equal(peer_commit_put(), -1);
        replica_session_lost(peer.rep);
    }
    assert_false(peer_acked_after_all(1));
}

static void records_out_of_turn_are_refused(void **state)
{
    (void)state;
    peer_epoch_begin(2); /* before 1 */
    assert_int_equal(peer_page_put(3, 2), -1);
    replica_session_lost(peer.rep);
    peer_epoch_begin(1); /* without STATE */
    assert_int_equal(peer_page_put(3, 3), 0);
    assert_int_equal(peer_commit_put(), -1);
    replica_session_lost(peer.rep);
    peer_epoch_begin(1); /* PAGES after STATE, STATE twice */
    assert_int_equal(peer_page_put(3, 4), 0);
    assert_int_equal(peer_state_put(), 0);
    assert_int_equal(peer_state_put(), -1);
    assert_int_equal(peer_page_put(3, 5), -1);
    replica_session_lost(peer.rep);
    peer_epoch_begin(1); /* the first PAGES missing */
    static uint8_t page[HV_PAGE];
    uint64_t gfn = 3;
    encoder_chunk(peer.enc, &gfn, page, 1, &peer.out);
    assert_int_equal(peer_page_put(4, 6), -1);
    replica_session_lost(peer.rep);
    peer_epoch_put(1, 3, 7);
    assert_true(peer_acked_soon(1));
    peer_epoch_begin(1); /* the same again */
    assert_int_equal(peer_page_put(3, 8), -1);
    peer_epoch_begin(0); /* live pages behind the first epoch */
    assert_int_equal(peer_page_put(3, 9), -1);
    assert_int_equal(peer_record((enum epoch_record)9), -1);
    assert_true(peer_applied_soon(1));
    assert_int_equal(peer_shell_byte(3), 7);
}

static void live_pages_inside_an_epoch_are_refused(void **state)
{
    (void)state;
    peer_epoch_begin(1);
    assert_int_equal(peer_page_put(3, 1), 0);
    peer_epoch_begin(0);
    assert_int_equal(peer_page_put(4, 1), -1);
}

static void live_pages_out_of_sequence_are_refused(void **state)
{
    (void)state;
    peer_epoch_begin(0);
    assert_int_equal(peer_page_put(3, 1), 0);
    encoder_begin(peer.enc, 0, true);
    assert_int_equal(peer_page_put(4, 1), -1);
    replica_session_lost(peer.rep); /* the next session counts from 0 */
    assert_int_equal(peer_page_put(4, 1), -1);
    encoder_begin(peer.enc, 0, true);
    assert_int_equal(peer_page_put(5, 1), 0);
}

static void unchanged_after_it_was_sent_in_this_epoch_is_refused(void **state)
{
    (void)state;
    peer_epoch_put(1, 3, 1);
    assert_true(peer_acked_soon(1));
    peer_epoch_begin(2);
    assert_int_equal(peer_page_put(3, 2), 0);
    encoder_begin(peer.enc, 2, false); /* makes it forget that */
    static uint8_t page[HV_PAGE];
    uint64_t gfn = 9;
    encoder_chunk(peer.enc, &gfn, page, 1, &peer.out); /* sequence 0 */
    assert_int_equal(peer_page_put(3, 1), -1);
    assert_non_null(strstr(peer.e.text, "unchanged"));
}

static void the_next_epoch_waits_for_the_one_before(void **state)
{
    (void)state;
    peer_gate_set(true);
    peer_epoch_put(1, 3, 1);
    assert_true(
        peer_acked_soon(1)); /* committed, held up before it is applied */
    peer_epoch_put(2, 3, 2);
    assert_false(peer_acked_after_all(2));
    assert_int_equal(replica_committed(peer.rep), 1);
    peer_epoch_begin(3);
    assert_int_equal(peer_page_put(3, 3), -1); /* 2 is not acknowledged */
    peer_gate_set(false);
    assert_true(peer_acked_soon(2));
    assert_true(peer_applied_soon(2));
    assert_int_equal(peer_shell_byte(3), 2);
}

static void a_complete_epoch_dies_with_the_session(void **state)
{
    (void)state;
    peer_gate_set(true);
    peer_epoch_put(1, 3, 1);
    assert_true(peer_acked_soon(1));
    peer_epoch_put(2, 3, 2);
    replica_session_lost(peer.rep);
    assert_int_equal(replica_committed(peer.rep), 1);
    peer_gate_set(false);
    assert_false(peer_acked_after_all(2));
    assert_true(peer_applied_soon(1));
    assert_int_equal(peer_shell_byte(3), 1);
    peer_epoch_put(2, 3, 5);
    assert_true(peer_acked_soon(2));
}

static void an_epoch_larger_than_agreed_is_refused(void **state)
{
    (void)state;
    peer_end(NULL);
    peer_start_with(0, 2, 5 * HV_PAGE, NULL);
    peer_epoch_begin(1);
    for (uint64_t gfn = 0; gfn < 4; gfn++)
        assert_int_equal(peer_page_put(gfn, 1), 0);
    assert_int_equal(peer_page_put(4, 1), -1);
    assert_non_null(strstr(peer.e.text, "larger"));
}

static void frames_the_shell_lacks_are_ignored_up_to_a_limit(void **state)
{
    struct replica_status st;

    (void)state;
    peer_end(NULL);
    peer_start_with(200, 2, 0, NULL);
    peer_epoch_begin(1);
    assert_int_equal(peer_page_put(HOLE, 1), 0);
    assert_int_equal(peer_page_put(HOLE, 2), 0); /* the same one */
    assert_int_equal(peer_page_put(199, 1), 0);  /* beyond the shell's end */
    assert_int_equal(peer_state_put(), 0);
    assert_int_equal(peer_commit_put(), 0);
    assert_true(peer_applied_soon(1));
    replica_status(peer.rep, &st);
    assert_int_equal(st.lacking, 2);
    assert_int_equal(peer_shell_byte(HOLE), 0);
    peer_epoch_begin(2);
    assert_int_equal(peer_page_put(HOLE + 1, 1), -1);
    assert_non_null(strstr(peer.e.text, "lacks"));
    replica_session_lost(peer.rep);
    assert_int_equal(peer_page_put(200, 1), -1); /* beyond the guest's end */
}

static void takeover_needs_a_committed_epoch(void **state)
{
    (void)state;
    peer_epoch_begin(0);
    assert_int_equal(peer_page_put(3, 9), 0);
    assert_int_equal(replica_takeover(peer.rep, &peer.e), -1);
    assert_int_equal(peer.e.kind, ERR_REFUSED);
}

static void *gate_open_later(void *arg)
{
    (void)arg;
    usleep(30000);
    peer_gate_set(false);
    return NULL;
}

static void takeover_finishes_the_committed_and_drops_the_rest(void **state)
{
    pthread_t opener;
    struct replica_status st;

    (void)state;
    peer_gate_set(true);
    peer_epoch_put(1, 3, 1);
    assert_true(peer_acked_soon(1));
    peer_epoch_put(2, 3, 2); /* complete, but not committed */
    assert_int_equal(pthread_create(&opener, NULL, gate_open_later, NULL), 0);
    assert_int_equal(replica_takeover(peer.rep, &peer.e), 0);
    replica_status(peer.rep, &st);
    assert_int_equal(st.applied, 1);
    assert_int_equal(st.committed, 1);
    assert_int_equal(peer_shell_byte(3), 1);
    assert_false(peer_acked_after_all(2));
    peer_epoch_begin(2);
    assert_int_equal(peer_page_put(3, 4), -1);
    assert_int_equal(replica_takeover(peer.rep, &peer.e),
                     0); /* may be repeated */
    pthread_join(opener, NULL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, peer_start, peer_end)

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
        T(takeover_needs_a_committed_epoch),
        T(takeover_finishes_the_committed_and_drops_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
