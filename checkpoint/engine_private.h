// SPDX-License-Identifier: Apache-2.0
/* Inside of the engine, shared by engine.c (thread, inputs), engine_sync.c
 * (initial copy), engine_epoch.c (one epoch) and engine_status.c. */
#ifndef CHECKPOINT_ENGINE_PRIVATE_H
#define CHECKPOINT_ENGINE_PRIVATE_H

#include <pthread.h>

#include "checkpoint/capture.h"
#include "checkpoint/codec.h"
#include "checkpoint/engine.h"
#include "checkpoint/pace.h"
#include "common/clock.h"

#define ENGINE_RING        1024
#define ENGINE_ANSWERS_MAX (1u << 20) /* bytes waiting */
/* The devices are polled so often whatever the engine waits for: an interface
 * that is plugged in is to be held before its guest sends. */
#define ENGINE_POLL_NS (50 * NS_PER_MS)

/* What a step of the engine says to do next. */
enum turn {
    TURN_ON,   /* go on */
    TURN_LOST, /* the session broke: wait for the next one */
    TURN_OVER, /* guest down, replica void or failed; the event is out */
    TURN_STOP  /* engine_stop was called */
};

/* Written by the loop thread, read by the engine; under `lock`. */
struct engine_input {
    uint64_t session; /* 0: none */
    bool start, stop, kick;
    enum engine_stop_how how;
    bool resumed, replica_ok; /* a session came up and was not looked at */
    uint64_t resumed_committed;
    uint64_t acked, kept;
    struct buf answers; /* each as u32 length and bytes */
};

struct engine {
    struct hv *hv;
    struct engine_config config;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t wake; /* on CLOCK_MONOTONIC; something of `in` changed */
    struct engine_input in;
    /* Under `lock`, written by the engine thread. */
    uint64_t commit_sent; /* the epoch whose COMMIT is out, 0: none */
    uint64_t committed;
    struct engine_status status; /* without the statistics of `ring` */
    struct engine_epoch ring[ENGINE_RING];
    size_t ring_count, ring_next;

    /* The engine thread's own. */
    uint64_t session; /* the one in use */
    struct hv_map map;
    struct capture capture;
    struct encoder *encoder;
    struct epoch_hash *hash;
    uint64_t *sent;         /* bitmap: in the open epoch, not acknowledged */
    struct buf record;      /* payload being built */
    struct epoch_commit at; /* the open epoch: number and counts */
    bool epoch_open;        /* some of its records are out */
    struct engine_epoch stats;
    struct pace pace;
    uint64_t commit_ns, guest_seen_ns, progress_ns, polled_ns;
    uint64_t sync_start_ns;
    uint64_t sync_memory; /* bytes of it that were sent */
    size_t devices_ready;
    struct err stale; /* what a device said that voids the replica; kind 0 */
    bool poll_failed, suspend_open, logdirty_on;
};

/* engine.c */
void engine_emit(struct engine *eng, struct engine_event *ev);
/* Emit an event with an error, say it in the log; TURN_OVER. */
enum turn engine_over(struct engine *eng, enum engine_event_type type,
                      const struct err *error);
/* Wait until something changed, at most until the monotonic `until_ns`. The
 * lock is held. */
void engine_wait(struct engine *eng, uint64_t until_ns);
/* TURN_STOP, TURN_LOST or TURN_ON as the inputs stand now. The lock is held. */
enum turn engine_look(struct engine *eng);
/* The same, taking the lock; polls the devices when that is due, and looks once
 * a second whether the guest lives. */
enum turn engine_check(struct engine *eng);
enum turn engine_guest_check(struct engine *eng);
int engine_devices_abort(struct engine *eng, bool release, struct err *e);

/* Before a capture: see how the guest will be asked to suspend, which may have
 * changed, and with it for how long it is waited for. */
void engine_suspend_path(struct engine *eng);
/* engine_sync.c: copy everything, up to the first acknowledged epoch. */
enum turn engine_sync(struct engine *eng);
/* Tell how far the initial copy is, not too often. */
void engine_sync_note(struct engine *eng, bool now);
/* Live rounds until little is dirty. In the initial copy (`live`) outside of
 * any epoch, later as part of the open one. */
enum turn engine_rounds(struct engine *eng, bool live);

/* engine_devices.c: the records of the devices that have some. */
enum turn engine_devices_copy(struct engine *eng, bool begin);
enum turn engine_devices_records(struct engine *eng);
/* Between epochs; *more: they have more to do at once. */
enum turn engine_devices_idle(struct engine *eng, bool *more);

/* engine_epoch.c */
/* Send a record with that payload, waiting for room. */
enum turn engine_record_send(struct engine *eng, enum epoch_record type,
                             const void *p, size_t len);
/* Count it for the open epoch's COMMIT. */
void engine_record_account(struct engine *eng, const void *p, size_t len);
/* Start the open epoch's accounts, number committed + 1. */
void engine_epoch_begin(struct engine *eng);
/* Send what is in staging as PAGES. */
enum turn engine_send_pages(struct engine *eng, bool live);
/* Capture, send, wait for the acknowledgement, commit. *taken is false when
 * the epoch was given up (and said so). */
enum turn engine_epoch_run(struct engine *eng, bool *taken);
/* The open epoch is acknowledged. */
enum turn engine_epoch_commit(struct engine *eng);
/* The open epoch's records are void: its pages are dirty again. */
void engine_epoch_undo(struct engine *eng);
/* Wait for the interval, a kick, or a device that wants an epoch. */
enum turn engine_interval(struct engine *eng);

/* engine_status.c; the lock is held. */
void engine_ring_add(struct engine *eng, const struct engine_epoch *s);
struct engine_wants {
    bool epoch;  /* a device wants one at once */
    bool output; /* some waits for the next one */
};
/* Ask the devices what they hold, and let them look for what was plugged in.
 * Takes the lock. */
struct engine_wants engine_poll(struct engine *eng);

#endif
