// SPDX-License-Identifier: Apache-2.0
/* Self-fencing: a timer of Xen's that resets this host when the daemon does
 * not run any more (watchdog_s in understudyd.conf). Set again every second
 * by the loop; armed exactly while a VM of this host is Protected: only then
 * would another host take it over, and only then is a reset better than a host
 * that half lives.
 *
 * A daemon that ends (a signal, a start that fails) takes it back first. Of one
 * that is killed the next one takes the timer over: its number is in
 * path_watchdog() before the timer may fire. Loop thread only. */
#ifndef AGENT_WATCHDOG_H
#define AGENT_WATCHDOG_H

struct daemon;

/* Right after the daemon's lock was taken: is there a predecessor's timer? */
void watchdog_adopt(void);
/* The configuration is there. */
void watchdog_start(struct daemon *d);
/* Take it back; first of all when the daemon ends, however far it came. */
void watchdog_stop(struct daemon *d);

#endif
