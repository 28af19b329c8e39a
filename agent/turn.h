// SPDX-License-Identifier: Apache-2.0
/* Protecting a VM the other way round after a takeover: the backup that took
 * it over becomes its primary, the old primary's record gives way to a
 * backup's. A record has one role for as long as its agent lives: to change it
 * the agent writes the record and ends, and the daemon starts the next one.
 * The VM's watcher is a process of its own and stays. Loop thread. */
#ifndef AGENT_TURN_H
#define AGENT_TURN_H

#include "agent/agent_core.h"

/* {"op":"turn","interval_ms":,"timeout_ms":} to a backup that took over: the
 * record becomes a primary's, with the same generation and a new incarnation.
 * The answer is the last that this agent says; on an error nothing changed. */
void turn_request(struct agent *a, struct ipc_conn *c, json_t *msg);
/* A primary of STAGE_TAKEN_OVER that can't get its VM Protected: back to the
 * record of the takeover. The agent ends. */
void turn_back(struct agent *a);
/* {"op":"give-way"} to either role: the peer runs the VM and wants this host as
 * its backup. The record goes, and the agent with it, unless a domain of the
 * VM is here, whether it runs or not, or is about to be. */
void turn_give_way(struct agent *a, struct ipc_conn *c, json_t *msg);

#endif
