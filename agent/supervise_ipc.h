// SPDX-License-Identifier: Apache-2.0
/* What supervise.c (processes) and supervise_ipc.c (talk) share; nobody else
 * includes this. */
#ifndef AGENT_SUPERVISE_IPC_H
#define AGENT_SUPERVISE_IPC_H

#include "agent/supervise.h"

/* Connect to the VM's agent and ask for its status. */
int supervise_connect(struct vm *vm, struct err *e);
/* The agent's process died: read what it said last, then let go. */
void supervise_drain(struct vm *vm);
/* The connection's process is not the one that is watched. */
bool supervise_other_pid(const struct vm *vm);
/* All open calls end: those who wait hear ERR_GONE, or nothing. */
void supervise_calls_fail(struct vm *vm);
void supervise_calls_drop(struct vm *vm);
void supervise_tell(struct vm *vm, enum vm_news news, const json_t *msg);

/* In supervise.c: the connection is lost. */
void supervise_lost(struct vm *vm);
void supervise_watch_pid(struct vm *vm, pid_t pid);

#endif
