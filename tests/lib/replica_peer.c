// SPDX-License-Identifier: Apache-2.0
/* The primary's side of a replica, and its acknowledgements; see
 * replica_peer.h. */
#include "tests/lib/replica_peer.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log.h"
#include "hypervisor/fake.h"

struct replica_peer peer;

static char dir[64];
static struct hv *shell_hv;
static uint32_t shell;

/* Acknowledgements wait at the gate while it is closed. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t acked;
static bool gate_closed, at_gate;
static char failure[sizeof((struct err *)0)->text];

static void peer_ack(void *arg, uint64_t epoch, uint64_t applied,
                     uint64_t disks)
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

static void failed(void *arg, const struct err *why)
{
    (void)arg;
    pthread_mutex_lock(&lock);
    snprintf(failure, sizeof failure, "%s", why->text);
    pthread_mutex_unlock(&lock);
}

const char *peer_failure(void)
{
    static char text[sizeof failure];

    pthread_mutex_lock(&lock);
    memcpy(text, failure, sizeof text);
    pthread_mutex_unlock(&lock);
    return text;
}

void peer_gate_set(bool closed)
{
    pthread_mutex_lock(&lock);
    gate_closed = closed;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

bool peer_acked_soon(uint64_t epoch)
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
bool peer_acked_after_all(uint64_t epoch)
{
    usleep(20000);
    pthread_mutex_lock(&lock);
    bool yes = acked >= epoch;
    pthread_mutex_unlock(&lock);
    return yes;
}

bool peer_applied_soon(uint64_t epoch)
{
    struct replica_status st;

    for (int i = 0; i < 5000; i++) {
        replica_status(peer.rep, &st);
        if (st.applied == epoch)
            return true;
        usleep(1000);
    }
    return false;
}

int peer_start_with(uint64_t end_gfn, uint64_t max_lacking, uint64_t max_bytes,
                    struct replica_device *disks)
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
                                    .ack = peer_ack,
                                    .failed = failed,
                                    .disks = disks};
    struct hv *hv;

    log_setup("test", 2);
    peer.e = (struct err)ERR_INIT;
    acked = 0;
    gate_closed = false;
    failure[0] = '\0';
    snprintf(dir, sizeof dir, "/tmp/understudy-r.XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(fake_create(dir, &spec, &shell, &peer.e), 0);
    assert_int_equal(hv_fake_open(dir, &shell_hv, &peer.e), 0);
    assert_int_equal(shell_hv->ops->pause(shell_hv, shell, &peer.e), 0);
    assert_int_equal(
        shell_hv->ops->map(shell_hv, shell, false, &peer.map, &peer.e), 0);
    assert_int_equal(hv_fake_open(dir, &hv, &peer.e), 0);
    config.domid = shell;
    assert_int_equal(replica_open(&peer.rep, hv, &config, &peer.e), 0);
    assert_int_equal(encoder_open(&peer.enc, 4096, true, &peer.e), 0);
    peer.hash = epoch_hash_new();
    return 0;
}

int peer_start(void **state)
{
    (void)state;
    return peer_start_with(0, 2, 0, NULL);
}

int peer_end(void **state)
{
    char command[100];

    (void)state;
    peer_gate_set(false);
    replica_free(peer.rep);
    shell_hv->ops->unmap(shell_hv, &peer.map);
    shell_hv->ops->close(shell_hv);
    encoder_free(peer.enc);
    epoch_hash_free(peer.hash);
    buf_free(&peer.out);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

int peer_record(enum epoch_record type)
{
    err_clear(&peer.e);
    return replica_record(peer.rep, type, peer.out.data, peer.out.len, &peer.e);
}

int peer_put(enum epoch_record type)
{
    epoch_hash_add(peer.hash, peer.out.data, peer.out.len);
    peer.commit.bytes += peer.out.len;
    return peer_record(type);
}

void peer_epoch_begin(uint64_t epoch)
{
    memset(&peer.commit, 0, sizeof peer.commit);
    peer.commit.epoch = epoch;
    epoch_hash_reset(peer.hash);
    encoder_begin(peer.enc, epoch, epoch == 0);
}

int peer_page_put(uint64_t gfn, uint8_t value)
{
    static uint8_t page[HV_PAGE];

    memset(page, value, sizeof page);
    encoder_chunk(peer.enc, &gfn, page, 1, &peer.out);
    peer.commit.pages++;
    peer.commit.chunks++;
    return peer_put(EPOCH_PAGES);
}

int peer_state_put(void)
{
    uint8_t state[68] = {0x65, 0x6b, 0x61, 0x66}; /* as the fake has it */

    buf_clear(&peer.out);
    epoch_state_put(&peer.out, peer.commit.epoch, state, sizeof state);
    return peer_put(EPOCH_STATE);
}

int peer_commit_put(void)
{
    peer.commit.digest = epoch_hash_value(peer.hash);
    buf_clear(&peer.out);
    epoch_commit_put(&peer.out, &peer.commit);
    return peer_record(EPOCH_COMMIT);
}

/* A whole epoch with one page. */
void peer_epoch_put(uint64_t epoch, uint64_t gfn, uint8_t value)
{
    peer_epoch_begin(epoch);
    assert_int_equal(peer_page_put(gfn, value), 0);
    assert_int_equal(peer_state_put(), 0);
    assert_int_equal(peer_commit_put(), 0);
    encoder_commit(peer.enc);
}

uint8_t peer_shell_byte(uint64_t gfn)
{
    return *(volatile uint8_t *)(peer.map.base + gfn * HV_PAGE + 77);
}
