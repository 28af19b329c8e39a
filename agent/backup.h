// SPDX-License-Identifier: Apache-2.0
/* The backup's agent: what its files share. Loop thread, except where the
 * replica's apply thread is named. */
#ifndef AGENT_BACKUP_H
#define AGENT_BACKUP_H

#include "agent/agent_core.h"
#include "checkpoint/replica.h"

enum work { WORK_NONE, WORK_BUILD, WORK_DISCARD, WORK_TAKEOVER, WORK_RENAME };

/* What the primary is told when a discard is done. */
enum reply { REPLY_NOTHING, REPLY_DISCARDED, REPLY_STOPPED };

struct backup {
    struct agent *a;
    struct replica *rep; /* owned by the job while one is under way */
    enum work work;
    enum reply reply;
    struct wire_stop stop;
    uint64_t session_no; /* counts sessions: a job's result is for one */
    uint64_t job_session;
    struct buf collect;   /* the blueprint as it arrives */
    struct buf blueprint; /* the job's */
    uint64_t build_due;   /* session whose blueprint waits for a discard */
    uint32_t shell;       /* domid; 0: none */
    bool was_protected;
    bool told_silent;
    uint64_t idle_ns; /* since when nobody has been here */

    /* Takeover. */
    uint64_t heard_ns, claimed_ns, running_ns;
    struct ipc_conn *taker;
    json_t *take_request;

    /* Apply thread -> loop. */
    ev_async acked;
    uint64_t ack_epoch, ack_applied; /* atomic */
    uint64_t ack_sent;
};

/* The generation is won: become the VM. */
void backup_takeover_start(struct backup *b);
/* The operator's `takeover`. */
void backup_on_takeover(struct backup *b, struct ipc_conn *c, json_t *msg);

#endif
