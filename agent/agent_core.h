// SPDX-License-Identifier: Apache-2.0
/* What both roles of the per-VM agent share: the loop, the record, the state,
 * the lease, the socket to the daemon and the session to the other agent.
 * Everything here is the loop thread's. */
#ifndef AGENT_AGENT_CORE_H
#define AGENT_AGENT_CORE_H

#include <ev.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/agent.h"
#include "agent/config.h"
#include "agent/ipc.h"
#include "agent/state.h"
#include "agent/store.h"
#include "heartbeat/arbiter.h"
#include "heartbeat/lease.h"
#include "hypervisor/hv.h"
#include "link/session.h"

struct agent;

/* What a role adds. All are called on the loop thread. */
struct agent_role {
    enum vm_role role;
    /* Begin. An error ends the agent with AGENT_EXIT_AGAIN. */
    int (*start)(struct agent *a, struct err *e);
    /* Many times a timeout; after lease_tick(). */
    void (*tick)(struct agent *a, uint64_t now);
    /* The lease decided; the record is already written. */
    void (*decided)(struct agent *a, enum lease_action action);
    /* The arbiter's answer has changed the lease's generation: the session
     * with the peer is over. Before decided(). */
    void (*generation)(struct agent *a);
    void (*session_ready)(struct agent *a);
    void (*record)(struct agent *a, uint32_t type, const uint8_t *payload,
                   size_t len);
    void (*session_closed)(struct agent *a, const struct err *why);
    /* Fill the HELLO's role-specific fields. */
    void (*hello)(struct agent *a, struct wire_hello *h);
    /* {"op":"stop"}, {"op":"takeover"}, {"op":"session"} with fd. */
    void (*request)(struct agent *a, struct ipc_conn *c, json_t *msg, int fd);
    void (*status)(struct agent *a, json_t *out);
    /* Nothing is left to be put in order; NULL: never is. */
    bool (*at_rest)(struct agent *a);
    /* `c` is about to be freed: a->daemon is still it, if it was. */
    void (*client_gone)(struct agent *a, struct ipc_conn *c);
};
extern const struct agent_role agent_primary_role, agent_backup_role;

struct agent {
    struct ev_loop *loop;
    const struct agent_role *role;
    void *priv; /* the role's own */
    struct config cfg;
    struct vm_record rec;
    uint8_t uuid[16];
    struct state state;
    char reason[512]; /* why the state is what it is; for status */

    struct hv *hv; /* the loop thread's connection */
    struct ipc_server *ipc;
    struct ipc_conn *daemon; /* the client that asked last as the daemon */
    struct lease lease;
    uint64_t daemon_heard_ns; /* peer's daemon, as our daemon tells */
    struct arbiter *arb;      /* NULL: none */
    bool arb_lost;            /* as was said last */
    char arb_refusal[256];    /* why it has no record for us; "": it has */
    uint64_t arb_check_ns;    /* when it was looked at last */
    uint64_t told_claim;      /* nonce of the claim that was told of */
    uint64_t told_unwritten;  /* likewise, that it can't be written */
    uint64_t claim_heard_ns;  /* when the peer was heard last before it */
    bool stood_by; /* a backup's replica is lost, and its primary was not told:
                    * as far as it knows, it has to win a generation first */

    struct link_key *key;
    struct link_tls *tls;
    struct link_session *session; /* NULL: none */
    bool hello_seen;              /* the peer's HELLO was good */
    uint64_t beat_seq, peer_beat_ns, peer_beat_sent;

    ev_timer tick, beat;
    int exit_status;
    bool over;    /* agent_exit() was called */
    bool unsaved; /* the record could not be written; see agent_save() */
    char unsaved_why[768];
    bool saves_again; /* a retry is under way */
    unsigned save_failures;
    uint64_t save_ns; /* of the last one */
    bool forgotten;   /* the record is deleted: nothing may write it again */
};

/* Change the state: log, record, tell the daemon, in this order. `why` is kept.
 * Syncing, Protected and Degraded are written by a job and told when that is
 * done or has failed; all others are on the disk when this returns. */
void agent_state(struct agent *a, enum vm_state to, const char *why, ...)
    __attribute__((format(printf, 3, 4)));
/* Something worth a line in `understudy events`. */
void agent_event(struct agent *a, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Write the record; what was decided must be on disk before it is done, so a
 * failure here ends the agent (AGENT_EXIT_AGAIN) and false comes back. Only a
 * backup that has won the VM goes on without: the VM would be lost with its
 * agent. It is tried again every second. */
bool agent_save(struct agent *a);
/* By a job, when no step waits for it. A failure is told, and it is tried again
 * every second. */
void agent_save_later(struct agent *a);
/* By a job; `why` NULL: it is on the disk. Not called once the agent ends. */
typedef void agent_saved(struct agent *a, const struct err *why);
void agent_save_then(struct agent *a, agent_saved *done);
/* Leave the loop. DONE deletes the record first. */
void agent_exit(struct agent *a, enum agent_exit status);
/* A mistake of ours or a host that can't go on: say it, exit AGAIN. */
void agent_give_up(struct agent *a, const struct err *why);

/* --- agent_lease.c --- */
/* Feed the lease and carry out what comes of it. */
void agent_lease_event(struct agent *a, enum lease_event ev);
void agent_lease_action(struct agent *a, enum lease_action action);
/* The arbiter of a->rec, connected or not. */
int agent_lease_open(struct agent *a, struct err *e);
void agent_lease_close(struct agent *a);
/* The lease in this state, at the record's generation. */
void agent_lease_begin(struct agent *a, enum lease_state state);
/* The record's part that is the lease's, for agent_save(). */
void agent_lease_record(struct agent *a);
/* Protection ended while the VM was ours: leave the arbiter's record to
 * nobody, if it answers within a second. Everything else is over. */
void agent_lease_leave(struct agent *a);
/* From the tick: what nobody asks for is looked at now and then. */
void agent_lease_check(struct agent *a, uint64_t now);
void agent_lease_status(struct agent *a, json_t *out);

/* Ask the daemon something: {"ask":ID,...}; the answer comes by role->request
 * as a message with "answer". */
void agent_ask(struct agent *a, json_t *msg);

/* The callbacks of all VM sessions. */
extern const struct link_callbacks agent_link_callbacks;
/* Make `s` the agent's session; an older one is dropped without a word. */
void agent_session_set(struct agent *a, struct link_session *s);
/* End the session; session_closed is not called. */
void agent_session_drop(struct agent *a);
void agent_send_hello(struct agent *a);

/* A connection to the hypervisor for another thread. */
int agent_hv_open(struct hv **hv, struct err *e);

#endif
