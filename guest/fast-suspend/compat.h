/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What this module needs of the kernel beyond its exported interface, and what
 * differs between versions of it. Nothing outside of compat.c knows a version.
 */
#ifndef FAST_SUSPEND_COMPAT_H
#define FAST_SUSPEND_COMPAT_H

#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/time64.h>
#include <linux/types.h>
#include <linux/wait.h>

struct blocking_notifier_head;
struct bus_type;
struct device;
struct raw_notifier_head;
struct request_queue;
struct task_struct;

/*
 * Symbols that are not exported. Functions first, then data; compat.c has the
 * table by which they are found. A member is named as its symbol.
 */
struct fs_kernel {
	void (*xs_resume)(void);
	void (*xen_arch_post_suspend)(int cancelled);
	void (*xen_arch_resume)(void);
	void (*xen_manage_runstate_time)(int action);
	int (*gnttab_resume)(void);
	void (*xen_irq_resume)(void);
	void (*irq_pm_syscore_resume)(void);
	void (*xen_timer_resume)(void);
	void (*xen_console_resume)(void);
	int (*timekeeping_suspend)(void);
	void (*timekeeping_resume)(void);

	struct mutex *xenwatch_mutex;
	pid_t *xenwatch_pid;
	struct rw_semaphore *xs_watch_rwsem;
	struct mutex *xs_response_mutex;
	spinlock_t *xs_state_lock;
	unsigned int *xs_state_users;
	int *xs_suspend_active;
	wait_queue_head_t *xs_state_enter_wq;
	wait_queue_head_t *xs_state_exit_wq;
	struct raw_notifier_head *xen_resume_notifier;
	struct clocksource **curr_clocksource;
	struct timespec64 *timekeeping_suspend_time;
	u64 *xen_clock_value_saved;
	struct task_struct **xenbus_task;
};

extern struct fs_kernel fs_kernel;

/*
 * Find all of fs_kernel. Returns 0, or an error after a message that says what
 * is not as it has to be.
 */
int fs_compat_open(void);

/*
 * The gate of user space's requests to xenstore. The kernel lets requests in as
 * long as others are under way, so a few busy processes would keep a suspend
 * waiting for ever; with tasks frozen that can't happen. Closed, the gate keeps
 * new ones back (they sleep, and hold nothing that a suspend needs); those that
 * are under way are answered. fs_gate_end() lets all go on first; after it nobody
 * is inside of us any more.
 */
int fs_gate_begin(void);
void fs_gate_close(void);
void fs_gate_open(void);
void fs_gate_end(void);

/* The clocks at the last moment before the hypercall. */
struct fs_clock {
	u64 cycles;		/* of the current clocksource */
	u64 sched_ns;
	struct timespec64 wall;
};

void fs_clock_read(struct fs_clock *c);

/*
 * Go on in another domain, whose clocks have nothing to do with the former
 * ones: CLOCK_MONOTONIC continues at @c, CLOCK_REALTIME and CLOCK_BOOTTIME gain
 * what passed on the wall clock. fs_clock_saved() before the architecture is
 * resumed, fs_clock_rebase() when timers can be set again. CPUs are stopped.
 */
void fs_clock_saved(const struct fs_clock *c);
void fs_clock_rebase(const struct fs_clock *c);

/* Other CPUs may wait for an interrupt that the former domain had pending. */
void fs_ipis_resend(void);

/* The queue of a device that is a whole disk, otherwise NULL. */
struct request_queue *fs_disk_queue(struct device *dev);
void fs_queue_wait_quiesced(struct request_queue *q);

/* What resume does for a device of the xenbus. */
int fs_xenbus_resume(struct device *dev);

#endif
