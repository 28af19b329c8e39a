// SPDX-License-Identifier: Apache-2.0
/* The primary's engine: one thread that copies a running guest to the backup,
 * then takes an epoch every interval, sends it, waits for the acknowledgement
 * and commits the devices. The agent's loop thread drives it with the
 * functions below and gets events back.
 *
 * Sequence: engine_open, engine_start_sync, [acked | session_lost |
 * session_resumed | kick ...], engine_stop, event STOPPED, engine_close. After
 * GUEST_DOWN, VOID or FAILED the engine takes no more epochs, holds the output
 * and waits for engine_stop; a new protection needs a new engine. Whatever
 * happens, the guest runs (I5), except that it may be down by itself.
 *
 * Sessions are numbered by the agent, from 1, rising: a record built for one
 * session is never sent on another. Epochs count from 1; one is in flight.
 *
 * Fault points: those of capture.h; engine.before_records (nothing of a
 * device is sent), engine.before_commit (all but COMMIT is sent), engine.acked
 * (acknowledged, nothing released yet). */
#ifndef CHECKPOINT_ENGINE_H
#define CHECKPOINT_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/device.h"
#include "checkpoint/epoch.h"
#include "common/err.h"
#include "hypervisor/hv.h"

#define ENGINE_MAX_DEVICES 16

/* Where records go. Called on the engine thread, waits until there is room for
 * the record (which is copied), returns -1 with *e when `session` is not or no
 * longer the current one. ERR_TIMEOUT: there was none for a while (tens of
 * milliseconds), and it is called again. The agent makes a blocked send return
 * when it loses the session and before it calls engine_stop. */
struct engine_sink {
    int (*send)(void *arg, uint64_t session, enum epoch_record type,
                const void *payload, size_t len, struct err *e);
    void *arg;
};

/* One epoch, as measured. All *_us are microseconds. */
struct engine_epoch {
    uint64_t epoch;
    uint64_t at_ns;    /* monotonic, when it was acknowledged */
    uint32_t pause_us; /* from the request to suspend until resumed */
    uint32_t suspend_us, copy_us, state_us, mark_us, resume_us;
    uint32_t send_us; /* encode and send, guest running */
    uint32_t ack_us;  /* COMMIT sent until acknowledged */
    uint64_t dirty_pages;
    uint64_t bytes; /* payload bytes sent for it */
};

enum engine_event_type {
    ENGINE_SYNC_PROGRESS, /* done, total: bytes of memory and disks */
    ENGINE_SYNCED,        /* first epoch acknowledged: Protected */
    ENGINE_EPOCH,         /* an epoch was acknowledged: see `stats` */
    ENGINE_SKIPPED,       /* an epoch was given up: error. Still protected */
    ENGINE_BREAK,         /* the session has to end: a part of an epoch was sent
                           * that can't be had to its end: error */
    ENGINE_GUEST_DOWN,    /* `reason`: rebooted, powered off, crashed, gone */
    ENGINE_VOID,          /* the replica is of no more use: error says why */
    ENGINE_FAILED,        /* the engine can't go on: error */
    ENGINE_STOPPED,       /* after engine_stop: call engine_close */
};

struct engine_event {
    enum engine_event_type type;
    uint64_t done, total;      /* SYNC_PROGRESS */
    uint64_t epoch;            /* SYNCED, EPOCH, SKIPPED: the epoch */
    enum hv_shutdown reason;   /* GUEST_DOWN; HV_OTHER when destroyed */
    struct engine_epoch stats; /* SYNCED, EPOCH */
    struct err error;          /* SKIPPED, VOID, FAILED */
};

struct engine_config {
    uint32_t domid;
    char name[64];          /* for the log */
    char suspend_flag[256]; /* path of the flag file, on a tmpfs */
    /* pace.h: */
    unsigned interval_ms;          /* the longest; 0: 200 */
    unsigned shortest_ms;          /* 0: 20 */
    unsigned stop_percent;         /* 0: 10 */
    unsigned xenstore_deadline_ms; /* 0: 30000 */
    unsigned evtchn_deadline_ms;   /* 0: 1000 */
    uint64_t staging_pages; /* 0: an eighth of the guest, 16 to 512 MiB */
    bool no_compression;
    /* Set up, called and torn down by the engine thread; freed by the
     * caller after engine_close. */
    struct checkpoint_device *devices[ENGINE_MAX_DEVICES];
    size_t device_count;
    struct engine_sink sink;
    /* Called on the engine thread, without locks held; must not block and
     * must not call engine_close. */
    void (*event)(void *arg, const struct engine_event *ev);
    void *event_arg;
};

struct engine;

/* When a predecessor ended with the flag set, withdraw its suspend or resume
 * the guest, and clear the flag. Before an engine is opened, on the caller's
 * thread, for up to 30 s; ERR_TIMEOUT when the guest may answer still, as one
 * that somebody has paused. Fine when nothing was left, or the domain is gone.
 */
int engine_settle(struct hv *hv, uint32_t domid, const char *suspend_flag,
                  struct err *e);

/* After a start of the agent and before anything else: engine_settle(), and
 * turn log-dirty mode off. */
int engine_recover(struct hv *hv, uint32_t domid, const char *suspend_flag,
                   struct err *e);

/* Start the thread, which stays idle. Takes over `hv` on success: from now on
 * only the engine thread uses it, and engine_close closes it. */
int engine_open(struct engine **eng, struct hv *hv,
                const struct engine_config *config, struct err *e);

/* All of the following: loop thread, return at once. */

/* The shell is built and session `session` is up: set up the devices, copy all
 * memory, then protect. Once. */
void engine_start_sync(struct engine *eng, uint64_t session);
/* ACK n came; `disks` as in it. -1 when no COMMIT n was sent: the peer breaks
 * the protocol, drop the session. A repeated ACK is fine. */
int engine_acked(struct engine *eng, uint64_t epoch, uint64_t disks,
                 struct err *e);
/* What the backup's side of a device answered (DISK_WANT) in the current
 * session. -1: more than was asked for, drop the session. */
int engine_answered(struct engine *eng, const void *payload, size_t len,
                    struct err *e);
/* The session broke. Nothing is sent until engine_session_resumed. */
void engine_session_lost(struct engine *eng);
/* A new session of the same incarnation and generation is up, and the backup
 * says that `committed` is its last committed epoch (0: none yet). !replica_ok:
 * it has no replica of this incarnation: VOID. */
void engine_session_resumed(struct engine *eng, uint64_t session,
                            uint64_t committed, bool replica_ok);
/* An epoch as soon as the spacing allows. */
void engine_kick(struct engine *eng);

enum engine_stop_how {
    ENGINE_RELEASE, /* let held output go: we have the right to (I1, I3) */
    ENGINE_DROP     /* drop it: another host runs the VM */
};
/* End: resume the guest if it is stopped by us, log-dirty off, devices aborted
 * and torn down, unmap; then the event STOPPED. The first call counts. A
 * suspend that is under way is given up; a guest that is late with it is waited
 * for and resumed, after the devices have let go. */
void engine_stop(struct engine *eng, enum engine_stop_how how);
/* Waits for the thread (engine_stop must have been called), frees all. */
void engine_close(struct engine *eng);

/* --- Status (any thread) ------------------------------------------------ */

struct engine_stat {
    uint64_t median, p99, max, last;
};

struct engine_status {
    bool syncing;          /* the initial copy runs */
    uint64_t committed;    /* last acknowledged epoch, 0: none */
    uint64_t committed_ns; /* monotonic time of that, 0: never */
    unsigned interval_ms;
    unsigned interval_now_ms; /* while output waits */
    enum hv_suspend_path suspend_path;
    uint64_t epochs, skipped, bytes_sent;
    uint64_t sync_done, sync_total; /* bytes */
    uint64_t sync_rate_bps;         /* of sync_done, in bits a second */
    uint64_t ram_pages;
    struct device_load load; /* summed over devices */
    /* Over the last 1024 epochs. */
    struct engine_stat pause_us, suspend_us, copy_us, state_us, mark_us,
        resume_us, send_us, ack_us, dirty_pages, bytes;
};
void engine_status(struct engine *eng, struct engine_status *st);

#endif
