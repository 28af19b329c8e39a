// SPDX-License-Identifier: Apache-2.0
/* Holding back a VM's network output until the epoch that caused it is the
 * backup's (invariant I1). A checkpoint device, see checkpoint/device.h; all
 * calls of one device from one thread, the engine's.
 *
 * How. What the guest sends arrives in dom0 as ingress of its vif. There a
 * matchall filter, which knows no protocols, redirects every packet to one of
 * two ifb interfaces, the banks; each has a plug qdisc as its root. An ifb
 * gives what leaves its plug back to the vif's receive path, behind the
 * filter, where it goes on into the bridge as if nothing had happened.
 *
 *     vif3.0 ingress -> matchall -> mirred -+-> u3-0a: plug -+-> bridge
 *                                           +-> u3-0b: plug -+
 *
 * - Before the first mark the redirect points to bank a and its plug is open.
 * - mark(n) points the redirect to the other bank, which is empty and closed:
 *   one netlink message for all vifs, built beforehand, answered by the kernel
 *   when it is done. Bank x is then complete and holds epoch n.
 * - commit(n) opens bank x, waits until it is empty and closes it again.
 *
 * Why two banks, where sch_plug has its own two-epoch counters
 * (TCQ_PLUG_BUFFER, _RELEASE_ONE; net/sched/sch_plug.c): plug_change() changes
 * these counters without the queue's lock, while plug_enqueue() and
 * plug_dequeue() change them under it. A packet that arrives on another CPU
 * during BUFFER can bring a whole epoch's count back, and the release after
 * next then lets out packets of an uncommitted epoch; one that is still in the
 * pass-through queue at the first BUFFER is never counted, and delays others
 * for ever after. Nothing here depends on the counters: a bank is open or
 * closed.
 *
 * Why no packet of an uncommitted state gets out:
 * 1. The bank that the redirect points to is closed, from the first mark on:
 *    mark() switches only to a bank whose plug was closed before, and a bank
 *    is opened by commit() only after the redirect has left it.
 * 2. What is in bank x when epoch n is marked was sent before the guest was
 *    stopped for n: it follows from the state that n captures.
 * 3. A packet that the guest queued before the stop, and that netback delivers
 *    after the mark, goes to the other bank and leaves with n+1: late, safe.
 * 4. A packet sent after the resume can't reach bank x: mark() returns, and
 *    only then the guest is resumed, when the kernel has stored the new
 *    target; each packet reads the target once (RCU) when it passes the
 *    filter. A CPU that read the old target and was delayed carries a packet
 *    from before the stop: it arrives in bank x late, and leaves with n, or,
 *    when x is closed again, with a later epoch.
 * 5. A bank that is not there (someone deleted the ifb) makes the redirect
 *    drop: nothing falls through to the bridge. Someone who deletes the filter
 *    itself opens the vif; poll() and mark() find that, and netbuf_set_vifs()
 *    takes hold of it again.
 * What is not held: output of a vif between its hotplug and netbuf_set_vifs(),
 * also of one that is made again: it is another interface. Its guest sends when
 * the hotplug script is done, which is long after the kernel's news of it.
 *
 * Order. A vif's packets come out in the order they went in, with exceptions
 * that lose and leak nothing: a bank that has not run empty 50 ms after its
 * commit, when the next epoch is marked already; stragglers as in 4; packets
 * around teardown.
 *
 * What mark() may wait for. All of traffic control is under the kernel's rtnl
 * lock: another program's long operation on the network's configuration makes
 * the guest's pause longer by its rest.
 *
 * Zero copy. Netback hands over packets whose data lie in the guest's pages,
 * and answers the guest when such a packet is freed. Held as it is, 256 of
 * them fill the guest's transmit ring and stop its output until the commit.
 * So the filter has two actions, redirect with continue and then drop: a
 * redirect that is not the last word makes the kernel hold a copy
 * (act_mirred.c, skb_clone(), skb_orphan_frags()) and free the original.
 *
 * State that outlives us. The redirect carries a cookie (TCA_ACT_COOKIE, 16
 * bytes): who we are, whether output is being held, the last marked epoch,
 * written with the same message that switches banks. Who cleans up reads it.
 *
 * Kernel: ifb, sch_plug, sch_ingress, cls_matchall, act_mirred, act_gact. */
#ifndef NET_BUFFER_NETBUF_H
#define NET_BUFFER_NETBUF_H

#include <stdbool.h>
#include <stdint.h>

#include "checkpoint/device.h"
#include "common/err.h"

#define NETBUF_TAG_MAX  7  /* bytes of a tag, without the NUL */
#define NETBUF_NAME_MAX 16 /* an interface's name with its NUL (IFNAMSIZ) */
#define NETBUF_VIFS_MAX 32 /* interfaces of one VM */

/* Zero in a field means its default. The bytes are those of whole packets as
 * the guest sent them (up to 64 KiB with segmentation offload). */
struct netbuf_limits {
    uint64_t hold_bytes_max; /* one vif and epoch; 64 MiB; below 4 GiB. What
                              * comes beyond it is dropped and counted */
    uint64_t early_bytes;    /* poll() asks for an epoch: 1 MiB */
    uint64_t early_packets;  /* the same: 1000 */
};

/* A new device for one VM. Nothing on the host is changed yet. `tag` is part
 * of the names of what we create ("u3" gives u3-0a) and says what belongs to
 * this VM after a crash: 1 to 7 of [a-z0-9], unique on this host, the same for
 * every agent of this VM; derive it from the domain's number.
 *
 * Of its operations: setup takes hold of the interfaces. A mark that fails has
 * changed nothing. commit of the same epoch again is fine; it returns when the
 * output is out, after 50 ms at most. abort(release = false) drops what is
 * held and goes on holding: nobody gave the right to more. teardown waits up
 * to 2 s for what it releases. poll fails when an interface is not held any
 * more, ERR_GONE: because it is gone; the load is still filled in. free leaves
 * the host as it is, a plug stays closed: see teardown. */
int netbuf_open(const char *tag, const struct netbuf_limits *limits,
                struct checkpoint_device **out, struct err *e);

/* These interfaces are the VM's output, from now on: vifs, and for an HVM
 * guest with emulated cards their taps as well. Call before setup, and again
 * at every look, though the names are the same: with nothing to do it costs a
 * few messages to the kernel. Before setup it notes the names only. Afterwards
 * an interface that is new, or was made again under the same name, or has lost
 * its redirect, is taken hold of at once, and its output is held if the others'
 * is; one that is no longer named, or gone, is let go of, and what it held is
 * dropped: nobody has acknowledged it. On an error the other interfaces are
 * held all the same; ERR_GONE: no such interface, ERR_REFUSED: it has tc rules
 * of somebody else, or of another agent of ours, living or dead. */
int netbuf_set_vifs(struct checkpoint_device *d,
                    const char names[][NETBUF_NAME_MAX], int n, struct err *e);

/* Remove all that a dead agent with this tag left; what is held is let go if
 * `release` (the caller has the right to, I3), else dropped. */
int netbuf_cleanup_leftovers(const char *tag, bool release, struct err *e);

/* Whether something is there with this tag: 1 or 0, or -1. Any thread. */
int netbuf_left(const char *tag, struct err *e);

/* Whether this host can do it at all: builds and removes everything once on
 * interfaces of its own. The error names the kernel module that is missing. */
int netbuf_check(struct err *e);
/* Take away what checks left whose processes were killed. Their tags are made
 * of the process's number; a number that is used again is left to another time.
 */
int netbuf_check_sweep(struct err *e);

#endif
