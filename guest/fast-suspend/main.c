// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fast suspend for Xen PVH and PVHVM guests.
 *
 * Tools in domain 0 look for device/suspend/event-channel of a guest. Where it
 * is there they ask for a suspend by an event, and not by control/shutdown,
 * which the kernel answers by freezing all tasks and suspending all devices.
 * This module offers that channel. Not loaded, all is as without it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/freezer.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/sched.h>
#include <linux/sysfs.h>

#include <xen/events.h>
#include <xen/interface/event_channel.h>
#include <xen/xen-ops.h>
#include <xen/xen.h>
#include <xen/xenbus.h>
#include <asm/xen/hypercall.h>
#include <asm/xen/hypervisor.h>

#include "fast_suspend.h"

static bool hang;
module_param(hang, bool, 0644);
MODULE_PARM_DESC(hang, "take requests and don't suspend: for tests");

/* Tools may ask anew after 5 s, and must not get an answer to each request. */
#define PATIENCE_MAX_MS 4000U
static unsigned int patience_ms = 3000;
module_param(patience_ms, uint, 0644);
MODULE_PARM_DESC(patience_ms,
		 "how old a request may be that is still answered (max 4000)");

static struct task_struct *thread;
static DECLARE_WAIT_QUEUE_HEAD(thread_wq);
static struct fs_request request;
static struct fs_suspend the_suspend;

/* Our end of the channel; the thread's while that runs. */
static evtchn_port_t port;
static bool port_is_open;
/* Looked at by the thread: the domain may be another one now. */
static bool moved = true;
/* The node in xenstore, against the thread that publishes it again. */
static DEFINE_MUTEX(publish_lock);
/* The thread has to end; it has let go of everything. */
static bool leaving, left;
static DECLARE_WAIT_QUEUE_HEAD(left_wq);

/* Beside the steps of a checkpoint: the last one of a restore. */
#define FS_RESTORE FS_STEPS

/* Written by the thread alone. */
static struct {
	u64 count, restored, skipped;
	u64 last_us[FS_STEPS + 1], worst_us[FS_STEPS + 1];
} stats;

/* --- The event channel --- */

static irqreturn_t on_event(int irq, void *dev_id)
{
	if (!READ_ONCE(request.asked)) {
		request.asked_at = ktime_get();
		/* pairs with the thread's smp_load_acquire() */
		smp_store_release(&request.asked, true);
	}
	wake_up(&thread_wq);
	return IRQ_HANDLED;
}

static int channel_open(void)
{
	struct evtchn_alloc_unbound alloc = {
		.dom = DOMID_SELF,
		.remote_dom = 0,
	};
	struct evtchn_close close;
	int irq, err;

	err = HYPERVISOR_event_channel_op(EVTCHNOP_alloc_unbound, &alloc);
	if (err)
		return err;
	irq = bind_evtchn_to_irqhandler(alloc.port, on_event, 0, "fast-suspend",
					&request);
	if (irq < 0) {
		close.port = alloc.port;
		HYPERVISOR_event_channel_op(EVTCHNOP_close, &close);
		return irq;
	}
	port = alloc.port;
	request.irq = irq;
	port_is_open = true;
	return 0;
}

/* Closes the port as well, unless a restore has taken it from the interrupt. */
static void channel_close(void)
{
	if (port_is_open)
		unbind_from_irqhandler(request.irq, &request);
	port_is_open = false;
}

static int publish(void)
{
	int err = 0;

	mutex_lock(&publish_lock);
	if (!leaving)
		err = xenbus_printf(XBT_NIL, "device/suspend", "event-channel",
				    "%u", port);
	mutex_unlock(&publish_lock);
	return err;
}

/* Not removed: the tools made it for us to write, we could not make it anew. */
static void withdraw(void)
{
	int err;

	mutex_lock(&publish_lock);
	leaving = true;
	err = xenbus_write(XBT_NIL, "device/suspend", "event-channel", "");
	mutex_unlock(&publish_lock);
	if (err)
		pr_warn("device/suspend/event-channel can't be withdrawn: %d\n",
			err);
}

/*
 * The kernel's own suspend has this mutex until it is over. It freezes tasks, and
 * one that slept here would keep it from that; our thread is none that it freezes.
 */
static void xenwatch_lock(void)
{
	while (!fs_mutex_lock(fs_kernel.xenwatch_mutex,
			      ktime_add_ms(ktime_get(), 100)))
		;
}

/*
 * After a restore, ours or the kernel's own: the channel of the former domain
 * has no number any more.
 */
static void channel_renew(void)
{
	int err;

	xenwatch_lock();
	mutex_unlock(fs_kernel.xenwatch_mutex);
	if (port_is_open && irq_from_evtchn(port) == request.irq)
		return;
	channel_close();
	request.asked = false;
	err = channel_open();
	if (!err)
		err = publish();
	if (err)
		pr_err("no event channel in the new domain (%d): suspends are slow from now on\n",
		       err);
}

/* --- The thread --- */

static int on_resume(struct notifier_block *nb, unsigned long event, void *data)
{
	WRITE_ONCE(moved, true);
	wake_up(&thread_wq);
	return NOTIFY_OK;
}

static struct notifier_block resume_nb = { .notifier_call = on_resume };

/* The chain has no lock, but whoever calls it holds this mutex. */
static void resume_notifier_put(bool on)
{
	xenwatch_lock();
	if (on)
		xen_resume_notifier_register(&resume_nb);
	else
		xen_resume_notifier_unregister(&resume_nb);
	mutex_unlock(fs_kernel.xenwatch_mutex);
}

static void step_count(int step, int slot)
{
	s64 us = ktime_us_delta(the_suspend.step[step + 1],
				the_suspend.step[step]);

	WRITE_ONCE(stats.last_us[slot], us);
	if (us > stats.worst_us[slot])
		WRITE_ONCE(stats.worst_us[slot], us);
}

static void suspend_count(enum fs_outcome outcome)
{
	int step;

	if (outcome == FS_SKIPPED) {
		WRITE_ONCE(stats.skipped, stats.skipped + 1);
		return;
	}
	for (step = 0; step < FS_AWAY; step++)
		step_count(step, step);
	if (outcome == FS_RESTORED) {
		/* No clock of ours has the time that it was away. */
		WRITE_ONCE(stats.restored, stats.restored + 1);
		step_count(FS_LEAVE, FS_RESTORE);
		return;
	}
	WRITE_ONCE(stats.count, stats.count + 1);
	step_count(FS_AWAY, FS_AWAY);
	step_count(FS_LEAVE, FS_LEAVE);
}

static void suspend_now(void)
{
	enum fs_outcome outcome = FS_SKIPPED;

	the_suspend.request = &request;
	the_suspend.step[FS_WAKE] = request.asked_at;
	the_suspend.deadline =
		ktime_add_ms(request.asked_at,
			     min(READ_ONCE(patience_ms), PATIENCE_MAX_MS));
	/* From here on the interrupt may write it again. */
	smp_store_release(&request.asked, false);
	if (!READ_ONCE(hang))
		outcome = fs_suspend_once(&the_suspend);
	suspend_count(outcome);
	if (outcome == FS_RESTORED)
		pr_info("restored in another domain\n");
}

static bool asked(void)
{
	/* pairs with smp_store_release() of the interrupt */
	return smp_load_acquire(&request.asked);
}

static int thread_run(void *data)
{
	resume_notifier_put(true);
	while (!READ_ONCE(leaving)) {
		wait_event_interruptible(thread_wq, asked() ||
					 READ_ONCE(moved) ||
					 READ_ONCE(leaving));
		if (READ_ONCE(moved)) {
			WRITE_ONCE(moved, false);
			channel_renew();
		}
		if (asked())
			suspend_now();
	}
	resume_notifier_put(false);
	WRITE_ONCE(left, true);
	wake_up(&left_wq);
	wait_event_interruptible(thread_wq, kthread_should_stop());
	return 0;
}

static int thread_start(void)
{
	thread = kthread_create(thread_run, NULL, "fast-suspend");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	sched_set_fifo(thread);
	wake_up_process(thread);
	return 0;
}

/* Waits for a suspend that is under way. The caller's task may be frozen here. */
static void thread_end(void)
{
	WRITE_ONCE(leaving, true);
	wake_up(&thread_wq);
	while (wait_event_freezable(left_wq, READ_ONCE(left)))
		schedule_timeout_uninterruptible(1);
	kthread_stop(thread);
}

/* --- /sys/module/fast_suspend/stats --- */

struct stat_attribute {
	struct module_attribute attr;
	const u64 *value;
};

static ssize_t stat_show(struct module_attribute *attr,
			 struct module_kobject *mk, char *buf)
{
	const struct stat_attribute *stat =
		container_of(attr, struct stat_attribute, attr);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(*stat->value));
}

#define STAT(_name, _value)						\
	static struct stat_attribute stat_##_name = {			\
		.attr = __ATTR(_name, 0444, stat_show, NULL),		\
		.value = &(_value),					\
	}

STAT(count, stats.count);
STAT(restored, stats.restored);
STAT(skipped, stats.skipped);
STAT(wake_last_us, stats.last_us[FS_WAKE]);
STAT(wake_worst_us, stats.worst_us[FS_WAKE]);
STAT(quiet_last_us, stats.last_us[FS_QUIET]);
STAT(quiet_worst_us, stats.worst_us[FS_QUIET]);
STAT(stop_last_us, stats.last_us[FS_STOP]);
STAT(stop_worst_us, stats.worst_us[FS_STOP]);
STAT(away_last_us, stats.last_us[FS_AWAY]);
STAT(away_worst_us, stats.worst_us[FS_AWAY]);
STAT(leave_last_us, stats.last_us[FS_LEAVE]);
STAT(leave_worst_us, stats.worst_us[FS_LEAVE]);
STAT(restore_last_us, stats.last_us[FS_RESTORE]);
STAT(restore_worst_us, stats.worst_us[FS_RESTORE]);

#define ATTR(_name) (&stat_##_name.attr.attr)
static struct attribute *stat_attrs[] = {
	ATTR(count), ATTR(restored), ATTR(skipped),
	ATTR(wake_last_us), ATTR(wake_worst_us),
	ATTR(quiet_last_us), ATTR(quiet_worst_us),
	ATTR(stop_last_us), ATTR(stop_worst_us),
	ATTR(away_last_us), ATTR(away_worst_us),
	ATTR(leave_last_us), ATTR(leave_worst_us),
	ATTR(restore_last_us), ATTR(restore_worst_us),
	NULL
};

static const struct attribute_group stat_group = {
	.name = "stats",
	.attrs = stat_attrs,
};

/* --- Loading and unloading --- */

static const struct xenbus_device_id no_ids[] = { { "" } };
struct xenbus_driver fs_xenbus_driver = {
	.name = "fast-suspend",
	.ids = no_ids,
};

static int guest_check(void)
{
	if (!xen_hvm_domain() || xen_initial_domain()) {
		pr_err("this is no Xen PVH or PVHVM guest\n");
		return -ENODEV;
	}
	if (!xen_have_vector_callback) {
		pr_err("this guest gets Xen's events without a vector\n");
		return -ENODEV;
	}
	return fs_compat_open();
}

static int __init fast_suspend_init(void)
{
	int err = guest_check();

	if (err)
		return err;
	err = xenbus_register_frontend(&fs_xenbus_driver);
	if (err)
		return err;
	err = sysfs_create_group(&THIS_MODULE->mkobj.kobj, &stat_group);
	if (err)
		goto out_driver;
	err = fs_gate_begin();
	if (err)
		goto out_sysfs;
	err = channel_open();
	if (err)
		goto out_gate;
	err = thread_start();
	if (err)
		goto out_channel;
	err = publish();
	if (!err)
		return 0;
	pr_err("device/suspend/event-channel can't be written: %d\n", err);
	thread_end();
out_channel:
	channel_close();
out_gate:
	fs_gate_end();
out_sysfs:
	sysfs_remove_group(&THIS_MODULE->mkobj.kobj, &stat_group);
out_driver:
	xenbus_unregister_driver(&fs_xenbus_driver);
	return err;
}

static void __exit fast_suspend_exit(void)
{
	withdraw();
	thread_end();
	channel_close();
	fs_gate_end();
	sysfs_remove_group(&THIS_MODULE->mkobj.kobj, &stat_group);
	xenbus_unregister_driver(&fs_xenbus_driver);
}

module_init(fast_suspend_init);
module_exit(fast_suspend_exit);

MODULE_DESCRIPTION("Fast suspend of Xen PVH and PVHVM guests by event channel");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1");
