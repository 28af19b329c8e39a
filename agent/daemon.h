// SPDX-License-Identifier: Apache-2.0
/* What the daemon's parts share: one structure, one loop, one thread. Slow
 * work (the hypervisor, fsync) is done by jobs (job.h), so that beats to the
 * peers are never late because of a disk. */
#ifndef AGENT_DAEMON_H
#define AGENT_DAEMON_H

#include <ev.h>
#include <jansson.h>
#include <stdbool.h>

#include "agent/config.h"
#include "agent/events.h"
#include "agent/ipc.h"
#include "agent/store.h"
#include "heartbeat/arbiter.h"
#include "hypervisor/hv.h"
#include "link/key.h"
#include "link/peers.h"
#include "link/session.h"

struct vm;
struct host;
struct host_session;

struct daemon {
    struct ev_loop *loop;
    struct config cfg;
    char name[WIRE_NAME_MAX]; /* this host's, in HELLO */
    struct events events;

    struct link_key *key;
    struct link_tls *tls;
    struct link_listener *listener;
    struct link_peers peers; /* the file; hosts follow it */
    bool peers_busy;         /* a job is writing the file */

    char arbiter[ARBITER_LINE_MAX]; /* daemon_arbiter.c; "": none is set */
    struct arbiter *arb;            /* NULL: likewise */

    struct host *hosts;            /* hosts.c */
    struct host_session *arriving; /* no key shown yet */
    ev_timer beat;
    uint64_t tick_ns; /* last supervise_tick() */
    struct vm *vms;   /* supervise.c */
    unsigned vm_count;
    struct vm_claim *claims;    /* records that are being made */
    struct ipc_server *control; /* control.c */
};

/* Log it and keep it for `understudy events`; vm may be "". */
void daemon_event(struct daemon *d, const char *name, const char *vm,
                  const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* A connection to the hypervisor, as UNDERSTUDY_HV says; for a job. */
int daemon_hv_open(struct hv **hv, struct err *e);

#endif
