// SPDX-License-Identifier: GPL-2.0-only
/*
 * One suspend, on our thread. Unlike the kernel's own it freezes no task, calls
 * no device and stops no clock: none of that is needed by a guest that goes on
 * in the same domain, and that is what nearly every suspend is. All that has to
 * be quiet is what could not be put right afterwards in another domain: watch
 * callbacks, because resuming devices must not meet them, and requests and
 * transactions under way at xenstore, which their senders would wait for.
 */
#include <linux/delay.h>
#include <linux/nmi.h>
#include <linux/sched.h>
#include <linux/stop_machine.h>

#include <xen/events.h>
#include <xen/xen.h>
#include <asm/xen/hypercall.h>

#include "fast_suspend.h"

static bool expired(ktime_t deadline)
{
	return ktime_after(ktime_get(), deadline);
}

void fs_nap(unsigned int *us)
{
	usleep_range(*us, 2 * *us);
	*us = min(2 * *us, 4000U);
}

bool fs_mutex_lock(struct mutex *lock, ktime_t deadline)
{
	unsigned int us = FS_NAP_US;

	while (!mutex_trylock(lock)) {
		if (expired(deadline))
			return false;
		fs_nap(&us);
	}
	return true;
}

static bool watches_lock(ktime_t deadline)
{
	unsigned int us = FS_NAP_US;

	while (!down_write_trylock(fs_kernel.xs_watch_rwsem)) {
		if (expired(deadline))
			return false;
		fs_nap(&us);
	}
	return true;
}

static void requests_allow(void)
{
	spin_lock(fs_kernel.xs_state_lock);
	--*fs_kernel.xs_suspend_active;
	spin_unlock(fs_kernel.xs_state_lock);
	wake_up_all(fs_kernel.xs_state_enter_wq);
}

/* New requests wait, and those under way end. */
static bool requests_hold(ktime_t deadline)
{
	s64 left = ktime_ms_delta(deadline, ktime_get());

	spin_lock(fs_kernel.xs_state_lock);
	++*fs_kernel.xs_suspend_active;
	spin_unlock(fs_kernel.xs_state_lock);
	if (wait_event_timeout(*fs_kernel.xs_state_exit_wq,
			       !READ_ONCE(*fs_kernel.xs_state_users),
			       left > 0 ? msecs_to_jiffies(left) : 0))
		return true;
	requests_allow();
	return false;
}

/*
 * The kernel's own xs_suspend() closes the door to requests first. With tasks
 * that run, one could hold xs_watch_rwsem and wait before that door.
 */
static bool quiet(ktime_t deadline)
{
	fs_gate_close();
	if (!fs_mutex_lock(fs_kernel.xenwatch_mutex, deadline))
		goto out_gate;
	if (!watches_lock(deadline))
		goto out_xenwatch;
	if (!requests_hold(deadline))
		goto out_watches;
	if (fs_mutex_lock(fs_kernel.xs_response_mutex, deadline))
		return true;
	requests_allow();
out_watches:
	up_write(fs_kernel.xs_watch_rwsem);
out_xenwatch:
	mutex_unlock(fs_kernel.xenwatch_mutex);
out_gate:
	fs_gate_open();
	return false;
}

/*
 * The kernel's own xs_suspend_cancel() also tells user space that its
 * transactions are void, without ending them in xenstored, until that grants
 * the guest no more of them. They are not void in the same domain.
 */
static void unquiet(void)
{
	mutex_unlock(fs_kernel.xs_response_mutex);
	requests_allow();
	up_write(fs_kernel.xs_watch_rwsem);
	mutex_unlock(fs_kernel.xenwatch_mutex);
	fs_gate_open();
}

/* All CPUs are stopped, this is CPU 0, and interrupts are off. */
static int stopped(void *data)
{
	struct fs_suspend *s = data;
	int cancelled;

	/* Whoever asked has stopped waiting. */
	if (expired(s->deadline))
		return 0;
	/* Asked again meanwhile is asked for this one. */
	s->request->asked = false;
	xen_clear_irq_pending(s->request->irq);
	fs_clock_read(&s->clock);
	fs_kernel.xen_manage_runstate_time(-1);
	s->step[FS_AWAY] = ktime_get();

	cancelled = HYPERVISOR_suspend(0);

	/* The clock ran on, and domain 0 may have taken its time. */
	touch_nmi_watchdog();
	if (cancelled) {
		fs_kernel.xen_manage_runstate_time(1);
		s->outcome = cancelled > 0 ? FS_RESUMED : FS_SKIPPED;
	} else {
		fs_restore_stopped(s);
		s->outcome = FS_RESTORED;
	}
	s->step[FS_AWAY + 1] = ktime_get();
	return 0;
}

enum fs_outcome fs_suspend_once(struct fs_suspend *s)
{
	s->outcome = FS_SKIPPED;
	s->step[FS_QUIET] = ktime_get();
	if (!quiet(s->deadline))
		return FS_SKIPPED;
	s->step[FS_STOP] = ktime_get();
	stop_machine(stopped, s, cpumask_of(0));
	if (s->outcome == FS_RESTORED)
		fs_restore_devices(s);
	else
		unquiet();
	s->step[FS_STEPS] = ktime_get();
	return s->outcome;
}
