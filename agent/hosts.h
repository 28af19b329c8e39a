// SPDX-License-Identifier: Apache-2.0
/* The other hosts: a session to every peer of the peers file, and what daemons
 * ask each other. Each daemon connects to every address of every peer (a
 * path), so that two sessions a path exist between two hosts; requests go over
 * the one that was ready last. A host lives when anything was heard on any of
 * them: which path it was means nothing. Loop thread only. */
#ifndef AGENT_HOSTS_H
#define AGENT_HOSTS_H

#include <stdint.h>

#include "agent/daemon.h"
#include "agent/supervise.h"

struct host_session;
struct host_call;
struct host_path;

struct host {
    struct host *next;
    struct daemon *d;
    struct link_peer peer;
    struct host_session *sessions; /* newest first; outgoing and incoming */
    struct host_path *paths; /* host_paths.c; the replication link first */
    uint64_t heard_ns;       /* on sessions that ended; 0: never */
    struct host_call *calls;
};

/* Listen, and open sessions to all peers. */
int hosts_start(struct daemon *d, struct err *e);
void hosts_stop(struct daemon *d);
/* Follow d->peers after it changed. */
void hosts_update(struct daemon *d);

struct host *host_find(struct daemon *d, const char *name);
bool host_up(const struct host *h);
/* How long ago anything was heard, -1: never since start. */
long long host_heard_ms(const struct host *h);
/* [{"path":"heartbeat",address,up,heard_ms,reason}], one a path. Up: its
 * session is, and was heard within the daemon's timeout. */
json_t *host_paths_json(const struct host *h);
/* Connect now instead of after the pause, on each path. */
void host_hurry(struct host *h);
/* The reason why it is not up, with what to do. Returns -1. */
int host_error(const struct host *h, struct err *e);

/* Ask the peer's daemon. Exactly one `done` follows, from the loop; `msg` is
 * stolen. When no session is up the call waits for the attempt to connect that
 * is started or under way, and fails with its reason. */
typedef void host_done(void *arg, json_t *reply, const struct err *why);
void host_ask(struct host *h, json_t *msg, double timeout_s, host_done *done,
              void *arg);

/* {"op":"peer"} for one agent, as it is told every beat. */
void hosts_tell_agent(struct vm *vm);
/* An agent's {"ask":ID,"op":...}: prepare, query and forget go to the daemon
 * of the VM's peer; the answer also has the peer's address, port and pin. */
void hosts_agent_asks(struct vm *vm, struct ipc_conn *c, const json_t *msg);

/* --- Between host_calls.c and host_requests.c --------------------------------
 */

/* A request of a peer: answer it once with host_reply(), now or later. */
struct host_request;
void host_request_handle(struct daemon *d, struct host_request *r,
                         const struct link_peer *from, const json_t *msg);
/* disk-size: of the image that is served here under that path (control_disk.c).
 */
void host_request_disk_size(struct daemon *d, struct host_request *r,
                            const json_t *msg);
/* `reply` is stolen. Gone sessions are fine. Frees r. */
void host_reply(struct host_request *r, json_t *reply);
void host_reply_error(struct host_request *r, const struct err *why);

#endif
