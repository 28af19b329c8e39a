// SPDX-License-Identifier: GPL-2.0-only
/*
 * After the hypercall said that this is another domain: event channels, grants
 * and the shared info page are gone, the clocks are others, and the backends
 * know nothing of us. What the kernel's own path does about it, in an order
 * that works while no task is frozen.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blk-mq.h>
#include <linux/notifier.h>
#include <linux/sched.h>

#include "fast_suspend.h"

/* How long a device that somebody else is at work on is waited for. */
#define DEVICE_MS 2000

static int disk_quiesce(struct device *dev, void *data)
{
	struct fs_suspend *s = data;
	struct request_queue *q = fs_disk_queue(dev);

	if (!q)
		return 0;
	if (s->disk_count == FS_DISKS) {
		s->disks_left_out++;
		return 0;
	}
	s->disks[s->disk_count++] = get_device(dev);
	blk_mq_quiesce_queue_nowait(q);
	return 0;
}

static int vbd_quiesce(struct device *dev, void *data)
{
	if (strcmp(to_xenbus_device(dev)->devicetype, "vbd"))
		return 0;
	return device_for_each_child(dev, data, disk_quiesce);
}

/*
 * blkfront frees its rings when it resumes, and counts on nobody sending it
 * requests then. So before any task runs again, the queues are closed.
 */
static void disks_quiesce(struct fs_suspend *s)
{
	s->disk_count = 0;
	s->disks_left_out = 0;
	bus_for_each_dev(fs_xenbus_driver.driver.bus, NULL, s, vbd_quiesce);
}

/* Those who were sending when the CPUs stopped have to be done with it. */
static void disks_wait(struct fs_suspend *s)
{
	unsigned int i;

	for (i = 0; i < s->disk_count; i++)
		fs_queue_wait_quiesced(fs_disk_queue(s->disks[i]));
}

static void disks_unquiesce(struct fs_suspend *s)
{
	while (s->disk_count > 0) {
		struct device *dev = s->disks[--s->disk_count];

		blk_mq_unquiesce_queue(fs_disk_queue(dev));
		put_device(dev);
	}
	if (s->disks_left_out)
		pr_warn("%u disks were resumed with their queues open\n",
			s->disks_left_out);
}

void fs_restore_stopped(struct fs_suspend *s)
{
	disks_quiesce(s);
	fs_clock_saved(&s->clock);
	fs_kernel.xen_arch_post_suspend(0);
	fs_kernel.xen_manage_runstate_time(0);
	fs_kernel.gnttab_resume();
	fs_kernel.xen_irq_resume();
	/* The new channels of timers and IPIs are masked until this. */
	fs_kernel.irq_pm_syscore_resume();
	fs_kernel.xen_timer_resume();
	fs_clock_rebase(&s->clock);
	fs_ipis_resend();
}

static int device_resume(struct device *dev, void *data)
{
	ktime_t deadline = ktime_add_ms(ktime_get(), DEVICE_MS);
	unsigned int us = FS_NAP_US;
	int err;

	/*
	 * A driver that is being bound may hold it and wait for the watches,
	 * which we hold.
	 */
	while (!device_trylock(dev)) {
		if (ktime_after(ktime_get(), deadline)) {
			dev_warn(dev, "not resumed, it is in use: bind it again\n");
			return 0;
		}
		fs_nap(&us);
	}
	err = fs_xenbus_resume(dev);
	device_unlock(dev);
	if (err)
		dev_warn(dev, "resume failed: %d\n", err);
	return 0;
}

void fs_restore_devices(struct fs_suspend *s)
{
	pid_t xenwatch = *fs_kernel.xenwatch_pid;

	fs_kernel.xen_console_resume();
	raw_notifier_call_chain(fs_kernel.xen_resume_notifier, 0, NULL);
	fs_kernel.xen_arch_resume();
	disks_wait(s);
	fs_kernel.xs_resume(); /* lets go of all but xenwatch_mutex */
	/* Else a device that drops a watch would wait for that mutex. */
	*fs_kernel.xenwatch_pid = current->pid;
	bus_for_each_dev(fs_xenbus_driver.driver.bus, NULL, NULL,
			 device_resume);
	*fs_kernel.xenwatch_pid = xenwatch;
	disks_unquiesce(s);
	mutex_unlock(fs_kernel.xenwatch_mutex);
	fs_gate_open();
}
