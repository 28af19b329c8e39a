// SPDX-License-Identifier: Apache-2.0
/* When the guest shuts down, reboots or vanishes, and who acts on it. While we
 * protect, nobody else does: xl's watcher is ended when the engine starts. When
 * the guest is down and the backup knows it (or we run alone by the lease), a
 * watcher of ours (hv.h) is started: it acts as the VM's configuration says,
 * lives on its own, and is ended again when the next incarnation's engine
 * starts. So there is one who acts at any time, also if we die. Loop thread. */
#ifndef AGENT_GUEST_DOWN_H
#define AGENT_GUEST_DOWN_H

#include <stdbool.h>
#include <stdint.h>

struct agent;
struct primary;
struct backup;

struct guest_down {
    bool seen;    /* the VM was on this host since this agent's start */
    bool taken;   /* we took a watcher's place */
    bool told;    /* the peer knows that it is down */
    bool handing; /* a watcher is being started (a job) */
    bool missed;  /* that it is not here was said */
    unsigned looks;
    uint64_t pages, max_pages; /* at the last look */
};

enum guest_is {
    GUEST_RUNS,  /* rec.domid is it */
    GUEST_LATER, /* ask again in half a second */
    GUEST_TELL,  /* it is down: the peer has to hear that (p->down) */
    GUEST_ENDED, /* it is down for good; the agent is on its way out */
};

/* --- The primary's --- */
/* Where is the guest? Before each cycle. */
enum guest_is guest_look(struct primary *p);
/* From now on we act. */
void guest_take(struct primary *p);
/* Protection ends: somebody else has to act again. Waits for its start. */
void guest_give_back(struct primary *p);
/* The guest is down, the engine is closed, output flows. */
void guest_down_begin(struct primary *p);

/* --- A backup's that took over --- */
/* Look after the guest; from the tick. */
void backup_guest_tick(struct backup *b, uint64_t now);

#endif
