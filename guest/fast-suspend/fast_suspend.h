/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fast suspend for Xen PVH and PVHVM guests: what the parts share.
 *
 * main.c	the event channel, the thread, loading and unloading, sysfs
 * suspend.c	one suspend, from the event until the guest goes on
 * restore.c	what has to be done when it goes on in another domain
 * compat.c	all that depends on the kernel's version
 */
#ifndef FAST_SUSPEND_H
#define FAST_SUSPEND_H

#include <linux/device.h>
#include <linux/ktime.h>
#include <linux/types.h>

#include <xen/xenbus.h>

#include "compat.h"

/* More disks than these are resumed with their queues running. */
#define FS_DISKS 256

/* The steps of a suspend, in their order; main.c has their names. */
enum fs_step {
	FS_WAKE,	/* from the event until the thread runs */
	FS_QUIET,	/* until watches and xenstore are quiet */
	FS_STOP,	/* until all CPUs are stopped */
	FS_AWAY,	/* stopped, as far as the guest's clock goes */
	FS_LEAVE,	/* from there until all is let go, and devices resumed */
	FS_STEPS
};

enum fs_outcome {
	FS_SKIPPED,	/* not suspended: not in time, or told to hang */
	FS_RESUMED,	/* went on where it was: a checkpoint */
	FS_RESTORED,	/* went on in another domain */
};

/* The request for a suspend; written by the interrupt and by the thread. */
struct fs_request {
	bool asked;
	ktime_t asked_at;
	int irq;
};

/* One suspend. Too large for a stack; there is never more than one. */
struct fs_suspend {
	struct fs_request *request;
	ktime_t deadline;
	enum fs_outcome outcome;
	struct fs_clock clock;		/* as it was before the hypercall */
	ktime_t step[FS_STEPS + 1];	/* when each step began, and the end */
	struct device *disks[FS_DISKS];	/* their queues are quiesced */
	unsigned int disk_count, disks_left_out;
};

/*
 * Suspend once; the thread's. The caller has taken the request and filled in
 * s->request, s->deadline and s->step[FS_WAKE]. Returns the outcome; unless it
 * is FS_SKIPPED all of s->step is filled in.
 */
enum fs_outcome fs_suspend_once(struct fs_suspend *s);

/*
 * Take a mutex, until a deadline at most. Everything that a suspend waits for
 * is waited for like this: without a thread that is stuck somewhere, nobody may
 * be stuck.
 */
bool fs_mutex_lock(struct mutex *lock, ktime_t deadline);

/*
 * Sleep between two tries of such a wait, for longer each time: our thread goes
 * before all others, and a slow CPU that it keeps busy with trying has no time
 * left for whoever is waited for. @us is FS_NAP_US before the first.
 */
#define FS_NAP_US 50U
void fs_nap(unsigned int *us);

/* Right after the hypercall, all CPUs stopped, interrupts off. */
void fs_restore_stopped(struct fs_suspend *s);
/* The rest, with CPUs and interrupts running; and lets go of xenstore. */
void fs_restore_devices(struct fs_suspend *s);

/* Drives nothing: by it we know the bus on which devices have to be resumed. */
extern struct xenbus_driver fs_xenbus_driver;

#endif
