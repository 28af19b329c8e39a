// SPDX-License-Identifier: Apache-2.0
/* The per-VM agent: a process of its own for one protected VM on one host, so
 * that a crash of one VM's agent touches no other VM. Started by the daemon as
 * `understudyd agent primary|backup UUID`; talks to it over a unix socket and
 * outlives it. */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

/* Exit statuses that the daemon acts on. Anything else is a crash. */
enum agent_exit {
    AGENT_EXIT_DONE = 0,  /* its record is deleted, do not start it again */
    AGENT_EXIT_AGAIN = 3, /* start it again after a pause */
};

/* Run the agent until its job is done; returns an exit status. The record
 * /var/lib/understudy/vms/UUID.json must exist. */
int agent_main(const char *role, const char *uuid);

#endif
