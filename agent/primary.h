// SPDX-License-Identifier: Apache-2.0
/* The primary's agent: what its files share. Loop thread, except where the
 * engine's thread is named. */
#ifndef AGENT_PRIMARY_H
#define AGENT_PRIMARY_H

#include <pthread.h>

#include "agent/agent_core.h"
#include "agent/guest_down.h"
#include "agent/leftovers.h"
#include "checkpoint/engine.h"

/* Where we are with the peer. One cycle goes from RECOVER or WAIT down to RUN;
 * whatever breaks it ends in WAIT, and the cycle starts again. */
enum phase {
    PH_RECOVER,  /* cleaning up after a predecessor */
    PH_WAIT,     /* before the next try */
    PH_PREPARE,  /* our daemon asks the peer's daemon for a backup agent */
    PH_CONNECT,  /* connecting to the backup agent, HELLO awaited */
    PH_DISCARD,  /* the backup must give its old replica up first */
    PH_DESCRIBE, /* reading the VM's configuration (a job) */
    PH_SHELL,    /* the backup builds the shell */
    PH_SYNC,     /* the engine copies */
    PH_RUN,      /* epochs */
    PH_REJOIN,   /* the session broke under a living engine: reconnecting,
                  * in turns with PREPARE and CONNECT */
    PH_STOP,     /* STOP sent, STOPPED awaited */
    PH_ENDING,   /* the engine stops */
    PH_FENCED,   /* the other host runs the VM */
    PH_NO_GUEST, /* the VM is not on this host */
    PH_YIELDED,  /* paused by us until the arbiter says who runs the VM */
};

/* What follows when the engine has stopped. */
enum afterwards { THEN_RETRY, THEN_DONE, THEN_FENCED, THEN_GUEST_DOWN };

struct posted; /* an engine event on its way to the loop */

struct primary {
    struct agent *a;
    enum phase phase;
    enum afterwards then;
    bool established; /* as rec.stage on the disk: failures are retried */
    enum vm_stage stage_before; /* the record's, at the start */
    uint64_t epoch;             /* the newest that was committed */
    unsigned tries;             /* cycles since it was last Protected */
    unsigned asked;             /* number of the last question to our daemon */
    struct err skipped; /* why no epoch was taken of late; empty: it was */
    struct err failure; /* what ended the cycle; empty: nothing known */

    struct buf blueprint;
    char address[256];
    uint16_t port;
    uint8_t pin[PIN_BYTES];

    struct engine *eng;
    struct link_pipe *pipe;
    uint64_t ticket; /* of the session, for the pipe and the engine */
    struct checkpoint_device *net;
    struct checkpoint_device *disks; /* NULL: it has none */
    uint64_t dropped;                /* packets, as last reported */
    enum hv_shutdown down;
    struct guest_down guest;
    char devices[HV_DEVICES_MAX]; /* when the VM was described */
    struct leftovers left;        /* at the VM's domain */
    struct leftovers old;         /* at the one it was before */
    void (*after_leftovers)(struct primary *p);
    bool voided; /* the engine takes no more epochs: its replica must go */
    bool outrun; /* the peer names a newer generation; told */
    struct wire_discard discard; /* the last one sent */
    struct wire_stop stop;       /* likewise */

    bool unpaused;            /* fenced, but it may be running */
    uint64_t pause_ns;        /* when that was tried last */
    uint64_t asking_ns;       /* since when the lease asks; 0: it does not */
    struct ipc_conn *stopper; /* who typed unprotect */
    json_t *stop_request;

    /* Engine thread -> loop. */
    pthread_mutex_t lock;
    struct posted *head, **tail;
    ev_async posted;
    ev_timer retry;
};

/* primary.c */
void primary_phase(struct primary *p, enum phase to);
/* This cycle is over: a protect that never worked ends here, an established
 * one tries again. */
void primary_failed(struct primary *p, const struct err *why);
void primary_retry(struct primary *p, double seconds);
/* Ask for a backup agent; one that is there is left as it is. */
void primary_prepare(struct primary *p);
/* Stop the engine, then `then`. Without an engine: at once. */
void primary_end(struct primary *p, enum engine_stop_how how,
                 enum afterwards then);
void primary_ended(struct primary *p);
/* The job of PH_RECOVER is over; `why`: it failed. */
void primary_recovered(struct primary *p, const struct err *why);
/* unprotect was decided and there is nobody to tell. */
void primary_leave(struct primary *p);

/* primary_keep.c */
void primary_decided(struct agent *a, enum lease_action action);
/* The other host runs the VM: pause the guest, then end. One that can't be
 * paused keeps what holds its output, and is tried again from the tick. */
void primary_fence(struct primary *p);
void primary_fence_tick(struct primary *p);
/* With an arbiter, whether the guest here may run: */
/* Stop or let go the guest; idempotent, also over a death in between. The
 * record says beforehand that we mean to. */
void primary_pause(struct primary *p);
void primary_unpause(struct primary *p);
/* The lease of this agent's start: what a predecessor wrote down. True: the
 * guest keeps still (PH_YIELDED) until it is known who runs the VM. */
void primary_lease_begin(struct primary *p, bool there);
bool primary_keeps_still(struct primary *p);
/* The VM runs elsewhere: with an arbiter, see now and then that it does not run
 * here, whoever starts it. */
void primary_fenced(struct primary *p);
/* From now on a replica may be made: path_here(). */
void primary_here(struct primary *p);
/* Has a guest of this record appeared on a host that had none? True: it is
 * paused, and the arbiter is asked. Before each look for the guest. */
bool primary_returned(struct primary *p);
/* The two HELLOs name different generations. True: nothing goes on. */
bool primary_other_generation(struct primary *p, const struct wire_hello *h);
void primary_generation(struct agent *a);
/* From the tick: say when output is held and nobody answers. */
void primary_keep_tick(struct primary *p);

/* primary_engine.c */
enum wire_stop_reason primary_stop_reason(enum hv_shutdown down);
int primary_engine_open(struct primary *p, struct err *e);
/* Engine events that have arrived, in order. */
void primary_drain(struct primary *p);
void primary_engine_init(struct primary *p);
void primary_status(struct agent *a, json_t *out);

/* primary_verify.c: the request `verify`, with `begin` or without. */
void primary_verify(struct primary *p, struct ipc_conn *c, const json_t *msg);

/* primary_session.c */
void primary_connect(struct primary *p);
void primary_session_ready(struct agent *a);
void primary_record(struct agent *a, uint32_t type, const uint8_t *payload,
                    size_t len);
void primary_session_closed(struct agent *a, const struct err *why);
void primary_hello(struct agent *a, struct wire_hello *h);
void primary_send_discard(struct primary *p, const char *why);
void primary_send_stop(struct primary *p, enum wire_stop_reason reason);
/* The way is free: describe the VM and have the shell built. */
void primary_describe(struct primary *p);

#endif
