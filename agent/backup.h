// SPDX-License-Identifier: Apache-2.0
/* The backup's agent: what its files share. Loop thread, except where the
 * replica's apply thread is named. */
#ifndef AGENT_BACKUP_H
#define AGENT_BACKUP_H

#include <pthread.h>

#include "agent/agent_core.h"
#include "checkpoint/replica.h"
#include "disk-replicate/cold.h"

enum work {
    WORK_NONE,
    WORK_BUILD,
    WORK_DISCARD,
    WORK_FENCE,
    WORK_TAKEOVER,
    WORK_RENAME
};

/* What the primary is told when a discard is done. */
enum reply {
    REPLY_NOTHING,
    REPLY_DISCARDED,
    REPLY_STOPPED,
    REPLY_LEFT, /* nobody: this agent ends */
};

struct backup {
    struct agent *a;
    struct replica *rep; /* owned by the job while one is under way */
    enum work work;
    enum reply reply;
    struct wire_stop stop;       /* what the primary asked for last */
    struct wire_discard discard; /* likewise */
    uint64_t session_no; /* counts sessions: a job's result is for one */
    uint64_t job_session;
    uint64_t left_session; /* STOP or DISCARD came on it: what was on its way
                            * already is of no use any more */
    struct buf collect;    /* the blueprint as it arrives */
    struct buf blueprint;  /* the job's */
    uint64_t build_due;    /* session whose blueprint waits for a discard */
    uint32_t shell;        /* domid, until it may run; 0: none */
    /* Why nobody may be backed up here: a replica runs, and no record tells of
     * a takeover. Kind 0: nothing of the kind. */
    struct err stray;
    uint64_t shell_ns; /* when to look at the shell again */
    bool was_protected;
    bool told_silent;
    uint64_t waits_ns; /* since when the arbiter is asked, or has refused */
    uint64_t idle_ns;  /* since when nobody has been here */
    uint64_t ask_ns;   /* when to ask next whether the primary still exists */
    unsigned asked;    /* number of that question */

    /* The guest that runs here since a takeover: guest_down.c. */
    bool handing;
    uint64_t guest_ns;
    unsigned guest_looks;

    /* Takeover. */
    uint64_t heard_ns, claimed_ns, running_ns;
    uint64_t epoch; /* that runs here; not always the last acknowledged one */
    struct ipc_conn *taker;
    json_t *take_request;
    bool marked;           /* until the record says that it runs here: mark.h */
    struct cold *cold;     /* an operator's --from-disk under way, or NULL */
    uint64_t from_disk_ms; /* age of the disks that it was started from */

    struct cold_disks disks; /* of the shell */
    bool kept; /* on this host's disk, with the blueprint: backup_cold.c */

    /* Apply thread -> loop. */
    ev_async acked;
    uint64_t ack_epoch, ack_applied, ack_disks; /* atomic */
    uint64_t ack_sent;
    /* What its disks have to say to the primary, u32 length and bytes each. */
    pthread_mutex_t answers_lock;
    struct buf answers;
    /* Its disks can't follow: written there, then the flag, atomic. */
    bool disks_failed;
    struct err disks_why;
};

/* backup.c. Apply thread: epoch n is committed. */
void backup_committed(void *arg, uint64_t epoch, uint64_t applied,
                      uint64_t disks);

/* Apply thread: the disks have something to say to the primary; they can't
 * follow, the replica is void. */
void backup_disks_answer(void *arg, const void *payload, size_t len);
void backup_disks_failed(void *arg, const struct err *why);

/* backup_keep.c. From the tick: the primary is silent, and there is nothing to
 * take over with. */
void backup_silence_say(struct backup *b, uint64_t now);
/* A session is there. False: it has to go, as the VM is being started from its
 * disks. Else HELLO may be sent, whatever it says. */
bool backup_greets(struct backup *b);
/* With an arbiter: */
/* The lease of this agent's start, when nothing runs here. */
void backup_lease_begin(struct backup *b);
void backup_generation(struct agent *a);
/* The primary's HELLO. False: the session goes no further. */
bool backup_generation_fits(struct backup *b, const struct wire_hello *h);
/* May epochs be taken, and acknowledged? */
bool backup_follows(const struct backup *b);
/* From the tick: say when nobody answers, or the operator's takeover came to
 * nothing. */
void backup_keep_tick(struct backup *b, uint64_t now);

/* backup_shell.c */
void backup_on_blueprint(struct backup *b, const uint8_t *payload, size_t len);
/* Is there a domain that may be the VM, taken over by a predecessor that could
 * not write that down? Then nobody is backed up here: b->stray, Failed. */
bool backup_stray(struct backup *b);
/* Void the replica, have it and its shell removed. No job may be under way. */
void backup_clear(struct backup *b);
/* The same, now or after the job that is under way; then say `reply`. */
void backup_give_up(struct backup *b, enum reply reply);
/* No job is under way: say, or do, what was promised. */
void backup_settle(struct backup *b);

/* Now and then, see that the shell is there and has not run: else the replica
 * is void. */
void backup_shell_tick(struct backup *b, uint64_t now);

/* A replica whose disks can't follow is given up, as soon as it is not needed
 * to take over with. */
void backup_disks_tick(struct backup *b);

/* backup_fence.c */
/* The generation is won, and the primary's host has to be fenced before the
 * takeover, which follows. False: it has not. */
bool backup_fence(struct backup *b);

/* backup_cold.c: starting the VM from its disks. */
/* The first epoch is committed: keep what it takes. Once a shell. */
void backup_cold_keep(struct backup *b);
/* The operator's `takeover --from-disk`. */
void backup_cold_request(struct backup *b, struct ipc_conn *c, json_t *msg);
void backup_cold_tick(struct backup *b, uint64_t now);
/* It has asked for a generation: nobody may be told that nothing is here. */
bool backup_cold_claims(const struct backup *b);
/* It is under way, and has not. */
bool backup_cold_waits(const struct backup *b);
/* The generation is won; the VM runs; the primary's host can't be fenced. */
void backup_cold_run(struct backup *b);
void backup_cold_done(struct backup *b);
void backup_cold_fenced(struct backup *b, const struct err *why);
/* Forget it. */
void backup_cold_end(struct backup *b);

/* backup_takeover.c */
/* The generation is won: become the VM. */
void backup_takeover_start(struct backup *b);
/* It does not run here, or the record says that it does. */
void backup_mark_remove(struct backup *b);
/* Say to who typed `takeover` how it ended; `why` NULL: well. */
void backup_taker_answer(struct backup *b, const struct err *why);
/* `shell` is the VM, paused, as of `epoch`, and its generation is won: record
 * that, and let it run. */
void backup_takeover_finish(struct backup *b, uint32_t shell, uint64_t epoch);
/* The operator's `takeover`. */
void backup_on_takeover(struct backup *b, struct ipc_conn *c, json_t *msg);
/* At the start: we run the VM since an earlier takeover, or a predecessor died
 * when it was about to. */
int backup_resume(struct backup *b, struct err *e);
/* At the start: a predecessor died in a takeover that the record does not know
 * of. *mine: it did, and the takeover is finished now. */
int backup_finish(struct backup *b, bool *mine, struct err *e);

#endif
