// SPDX-License-Identifier: GPL-2.0-only
/*
 * Everything that depends on the kernel's version, for Linux 6.1: how hidden
 * symbols are found, which there are, what they take, and what order they want.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/clocksource.h>
#include <linux/cpumask.h>
#include <linux/kprobes.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/clock.h>
#include <linux/smp.h>
#include <linux/utsname.h>
#include <linux/version.h>
#include <generated/utsrelease.h>

#include <xen/xenbus.h>
#include <xen/interface/io/xs_wire.h>

#include <asm/cpufeature.h>
#include <asm/x86_init.h>

#include "compat.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0) || \
	LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
#error "fast_suspend knows Linux 6.1 only; without it the guest suspends as ever"
#endif
#if !defined(CONFIG_KPROBES) || !defined(CONFIG_KALLSYMS_ALL) || \
	!defined(CONFIG_HIBERNATE_CALLBACKS) || !defined(CONFIG_XEN_PVHVM)
#error "fast_suspend wants KPROBES, KALLSYMS_ALL, HIBERNATE_CALLBACKS, XEN_PVHVM"
#endif

/* Exported, but declared beside their sources only (xenbus/xenbus.h). */
int xenbus_dev_resume(struct device *dev);
int xenbus_dev_request_and_reply(struct xsd_sockmsg *msg, void *par);

struct fs_kernel fs_kernel;

#define SYMBOL(name) { #name, offsetof(struct fs_kernel, name) }
static const struct {
	const char *name;
	size_t offset;
} symbols[] = {
	SYMBOL(xs_resume),
	SYMBOL(xen_arch_post_suspend),
	SYMBOL(xen_arch_resume),
	SYMBOL(xen_manage_runstate_time),
	SYMBOL(gnttab_resume),
	SYMBOL(xen_irq_resume),
	SYMBOL(irq_pm_syscore_resume),
	SYMBOL(xen_timer_resume),
	SYMBOL(xen_console_resume),
	SYMBOL(timekeeping_suspend),
	SYMBOL(timekeeping_resume),
	SYMBOL(xenwatch_mutex),
	SYMBOL(xenwatch_pid),
	SYMBOL(xs_watch_rwsem),
	SYMBOL(xs_response_mutex),
	SYMBOL(xs_state_lock),
	SYMBOL(xs_state_users),
	SYMBOL(xs_suspend_active),
	SYMBOL(xs_state_enter_wq),
	SYMBOL(xs_state_exit_wq),
	SYMBOL(xen_resume_notifier),
	SYMBOL(curr_clocksource),
	SYMBOL(timekeeping_suspend_time),
	SYMBOL(xen_clock_value_saved),
	SYMBOL(xenbus_task),
};

typedef unsigned long (*lookup_fn)(const char *name);

/* The way to a symbol that is not exported: where would a probe go? */
static lookup_fn lookup_find(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	int err = register_kprobe(&probe);

	if (err) {
		pr_err("can't find symbols, kprobes say %d (is the kernel locked down?)\n",
		       err);
		return NULL;
	}
	unregister_kprobe(&probe);
	return (lookup_fn)probe.addr;
}

/*
 * Only a call to a function that is meant to be called through a pointer is
 * let through by these, and the hidden ones are not.
 */
static bool calls_are_guarded(void)
{
	if (IS_ENABLED(CONFIG_CFI_CLANG))
		return true;
	return IS_ENABLED(CONFIG_X86_KERNEL_IBT) &&
	       boot_cpu_has(X86_FEATURE_IBT);
}

int fs_compat_open(void)
{
	lookup_fn lookup;
	size_t i;

	/* Modversions let a module into kernels that differ inside. */
	if (strcmp(init_utsname()->release, UTS_RELEASE)) {
		pr_err("built for %s, this is %s\n", UTS_RELEASE,
		       init_utsname()->release);
		return -EOPNOTSUPP;
	}
	if (calls_are_guarded()) {
		pr_err("this kernel guards indirect calls (IBT or CFI)\n");
		return -EOPNOTSUPP;
	}
	lookup = lookup_find();
	if (!lookup)
		return -EOPNOTSUPP;
	for (i = 0; i < ARRAY_SIZE(symbols); i++) {
		unsigned long at = lookup(symbols[i].name);

		if (!at) {
			pr_err("this kernel has no symbol %s\n",
			       symbols[i].name);
			return -EOPNOTSUPP;
		}
		*(unsigned long *)((char *)&fs_kernel + symbols[i].offset) = at;
	}
	return 0;
}

/* --- The gate --- */

static bool gate_closed;
static atomic_t at_gate;
static DECLARE_WAIT_QUEUE_HEAD(gate_wq);

/* Stands in for the function while the gate is closed. */
static int gate_wait(struct xsd_sockmsg *msg, void *par)
{
	int err;

	wait_event(gate_wq, !READ_ONCE(gate_closed));
	err = xenbus_dev_request_and_reply(msg, par);
	atomic_dec(&at_gate);
	return err;
}

static int gate_enter(struct kprobe *probe, struct pt_regs *regs)
{
	if (!READ_ONCE(gate_closed))
		return 0;
	atomic_inc(&at_gate);
	regs->ip = (unsigned long)gate_wait;
	return 1;
}

/* Having one keeps the probe from being made a jump, which can't be led away. */
static void gate_entered(struct kprobe *probe, struct pt_regs *regs,
			 unsigned long flags)
{
}

/* What user space asks comes through here, what the kernel asks does not. */
static struct kprobe gate = {
	.symbol_name = "xenbus_dev_request_and_reply",
	.pre_handler = gate_enter,
	.post_handler = gate_entered,
};

/*
 * The thread that takes xenstore's answers is one among all tasks, and a suspend
 * waits for it: while we are there it goes first, as ours does.
 */
int fs_gate_begin(void)
{
	int err = register_kprobe(&gate);

	if (err)
		pr_err("can't probe %s: %d\n", gate.symbol_name, err);
	else
		sched_set_fifo_low(*fs_kernel.xenbus_task);
	return err;
}

void fs_gate_close(void)
{
	WRITE_ONCE(gate_closed, true);
}

void fs_gate_open(void)
{
	WRITE_ONCE(gate_closed, false);
	wake_up_all(&gate_wq);
}

void fs_gate_end(void)
{
	fs_gate_open();
	sched_set_normal(*fs_kernel.xenbus_task, 0);
	unregister_kprobe(&gate);
	while (atomic_read(&at_gate))
		schedule_timeout_uninterruptible(1);
	synchronize_rcu_tasks(); /* for its last instructions */
}

/* --- Clocks, interrupts, devices --- */

void fs_clock_read(struct fs_clock *c)
{
	struct clocksource *cs = *fs_kernel.curr_clocksource;

	c->cycles = cs->read(cs);
	c->sched_ns = sched_clock();
	x86_platform.get_wallclock(&c->wall);
}

void fs_clock_saved(const struct fs_clock *c)
{
	*fs_kernel.xen_clock_value_saved = c->sched_ns;
}

static u64 cycles_before;

static u64 read_before(struct clocksource *cs)
{
	return cycles_before;
}

/*
 * Timekeeping suspends in hindsight: it reads what the clocksource said before
 * the hypercall. It also corrects the time of its suspend so that the system's
 * time keeps its distance to the persistent clock, which would undo what NTP
 * did since; so that time is set to the one that we noted.
 */
void fs_clock_rebase(const struct fs_clock *c)
{
	struct clocksource *cs = *fs_kernel.curr_clocksource;
	u64 (*read)(struct clocksource *cs) = cs->read;

	cycles_before = c->cycles;
	cs->read = read_before;
	fs_kernel.timekeeping_suspend();
	cs->read = read;
	*fs_kernel.timekeeping_suspend_time = c->wall;
	fs_kernel.timekeeping_resume();
}

void fs_ipis_resend(void)
{
	int cpu;

	for_each_online_cpu(cpu) {
		smp_ops.smp_send_reschedule(cpu);
		smp_ops.send_call_func_single_ipi(cpu);
	}
	smp_ops.send_call_func_ipi(cpu_online_mask);
}

struct request_queue *fs_disk_queue(struct device *dev)
{
	if (!dev->class || strcmp(dev->class->name, "block"))
		return NULL;
	if (bdev_is_partition(dev_to_bdev(dev)))
		return NULL;
	return dev_to_disk(dev)->queue;
}

void fs_queue_wait_quiesced(struct request_queue *q)
{
	blk_mq_wait_quiesce_done(q);
}

int fs_xenbus_resume(struct device *dev)
{
	return xenbus_dev_resume(dev);
}
