// SPDX-License-Identifier: Apache-2.0
/* The control socket: what the CLI asks the daemon. One JSON object a line:
 * {"op":VERB,"id":N,...}; the answer is {"id":N,"ok":true,...} or
 * {"id":N,"error","hint","kind"}. Before it there may be any number of
 * {"id":N,"progress":STATUS} (protect) and, after `events` with follow, of
 * {"id":N,"follow":EVENT}. Verbs and their members:
 *
 *   version                          version, name, protocol
 *   key                              name, pin, port
 *   names                            vms [..], peers [..]: for completion
 *   status [vm]                      status [one object a VM]
 *   events [vm] [count] [follow]     events [..]
 *   wait vm state timeout_ms         state
 *   protect vm peer [arbiter] [interval_ms] [timeout_ms] [wait]
 *   unprotect vm
 *   takeover vm [force]
 *   peer-add name address pin        peer-remove name
 *   peer-path-add name address       peer-path-remove name address
 *   arbiter-set arbiter              arbiter, others: VMs that have another
 *   arbiter-show                     arbiter, from, up, heard_ms, reason, hint
 *   peer-list                        peers [{name,address,port,pin,up,
 *                                    heard_ms,reason,paths}]
 *   disk-list [vm]                   disks [{id,image,bytes,role,state,pid,
 *                                    vm,domid,disk,copied_bytes,
 *                                    backlog_bytes}]
 *   disk-size peer image             bytes, of that host's image
 *   disk-verify vm [begin]           verify {state,total_bytes,done_bytes,
 *                                    differing_bytes,unknown_bytes,error,
 *                                    ranges [{disk,offset,bytes}]}, peer
 *
 * A client that goes away does not stop what it asked for. Loop thread. */
#ifndef AGENT_CONTROL_H
#define AGENT_CONTROL_H

#include "agent/daemon.h"
#include "agent/supervise.h"

int control_start(struct daemon *d, struct err *e);
void control_stop(struct daemon *d);

/* --- Between control*.c ------------------------------------------------- */

struct client {
    struct client *next;
    struct daemon *d;
    struct ipc_conn *conn;
    struct op *ops;
    json_t *follow; /* the request to follow events, or NULL */
};

/* One request that is being worked on. Freed by op_reply() or op_fail(). */
struct op {
    struct op *next;
    struct daemon *d;
    struct client *client; /* NULL: it went away */
    json_t *request;
    /* The client went away: end early. NULL: go on to the end. */
    void (*cancel)(struct op *op);
    void *priv;
};

/* `extra` is stolen, may be NULL. */
void op_reply(struct op *op, json_t *extra);
void op_fail(struct op *op, const struct err *why);
/* `status` is borrowed. */
void op_progress(struct op *op, json_t *status);

void control_protect(struct op *op);
void control_unprotect(struct op *op);
void control_takeover(struct op *op);
void control_wait(struct op *op);
void control_peer_add(struct op *op);
void control_peer_remove(struct op *op);
void control_peer_path_add(struct op *op);
void control_peer_path_remove(struct op *op);
void control_peer_list(struct op *op);
void control_disk_list(struct op *op);
void control_disk_size(struct op *op);
void control_disk_verify(struct op *op);

#endif
