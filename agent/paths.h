// SPDX-License-Identifier: Apache-2.0
/* Where everything lies. The environment variable UNDERSTUDY_ROOT (default "")
 * is put in front of every path, so that tests run two hosts on one machine.
 *
 * The functions return a small structure by value: `path_peers().s` is valid
 * until the end of the full expression; keep the structure to keep the text.
 * A path that would not fit is cut, and then does not exist; unix sockets have
 * a limit of their own (107 bytes), which ipc.h reports. Any thread. */
#ifndef AGENT_PATHS_H
#define AGENT_PATHS_H

#include "common/err.h"

struct path {
    char s[256];
};

/* Directories. */
struct path path_etc(void); /* /etc/understudy, 0755 */
struct path path_vms(void); /* /var/lib/understudy/vms, 0700 */
struct path path_run(void); /* /run/understudy, 0700: fault_setup() takes it */

/* /etc/understudy */
/* understudyd.conf, or what UNDERSTUDY_CONFIG says (`understudyd -c`) */
struct path path_config(void);
struct path path_peers(void);   /* peers: NAME ADDRESS[:PORT] PIN */
struct path path_arbiter(void); /* arbiter: a line of heartbeat/arbiter.h */

/* /var/lib/understudy; `uuid` is the 36-character text form, lower case. */
struct path path_record(const char *uuid); /* vms/UUID.json */
struct path path_cold(const char *uuid);   /* cold/UUID: cold.h */

/* /run/understudy */
struct path path_lock(void);              /* understudyd.lock */
struct path path_control(void);           /* control.sock */
struct path path_watchdog(void);          /* watchdog: watchdog.h */
struct path path_vm(const char *uuid);    /* vm/UUID.sock, the agent's */
struct path path_agent(const char *uuid); /* UUID.agent, the agent's lock */
struct path path_flag(const char *uuid);  /* UUID.suspend: a suspend is asked */
struct path path_watch(const char *uuid); /* UUID.watch: a watcher's lock */
/* UUID.here: the VM was protected from here since the host booted. */
struct path path_here(const char *uuid);
struct path path_takeover(const char *uuid); /* UUID.takeover: mark.h */

/* Create the directories that are missing, with the modes above (an existing
 * run or vms directory is tightened to 0700). Called by the daemon and by
 * agents before anything else. */
int paths_setup(struct err *e);

#endif
