// SPDX-License-Identifier: Apache-2.0
/* /etc/understudy/understudyd.conf: KEY=VALUE in the syntax of xl.conf, read by
 * the daemon and by every agent at its start. A missing file means defaults;
 * an unknown key or a value out of range is an error that names the line, and
 * the process does not start. Plain data afterwards, any thread may read. */
#ifndef AGENT_CONFIG_H
#define AGENT_CONFIG_H

#include <stdint.h>

#include "common/err.h"
#include "common/log.h"

struct config {
    /* port=7788, listen="::" (any address, IPv4 too) */
    uint16_t port;
    char listen[64];
    /* timeout_ms=1000 (100..600000): T, of VMs protected from now on */
    unsigned timeout_ms;
    /* Not a key: timeout_ms / 5, at least 10 */
    unsigned beat_ms;
    /* interval_ms=200 (1..60000): from the end of an epoch to the next */
    unsigned interval_ms;
    /* interval_min_ms=20 (1..60000): the same while output waits, at least */
    unsigned interval_min_ms;
    /* stop_percent=10 (1..50): share of time that a guest may be stopped
     * before the interval shrinks no more */
    unsigned stop_percent;
    /* suspend_ms=1000 (10..60000): how long an epoch waits for a guest that is
     * asked through its event channel to suspend, a quarter of the VM's timeout
     * at most; then it is skipped */
    unsigned suspend_ms;
    /* suspend_xenstore_ms=30000 (10..60000): the same for a guest that is
     * asked through xenstore, which is slow and may load code */
    unsigned suspend_xenstore_ms;
    /* buffer_mb=64 (1..4096): output held back for one interface */
    unsigned buffer_mb;
    /* staging_mb=0 (0..65536): memory for one epoch; 0: a quarter of the
     * guest, at least 64 */
    unsigned staging_mb;
    /* max_vms=64 (1..1024), max_clients=64 (4..1024): of the daemon */
    unsigned max_vms, max_clients;
    /* arbiter="": a line of heartbeat/arbiter.h; "none" is none, and "" leaves
     * it to `understudy arbiter set` */
    char arbiter[512];
    /* auto_reprotect=0 (0, 1): reprotect.h */
    unsigned auto_reprotect;
    /* fence="": a program (an absolute path) that fences a host before its VMs
     * are taken over, heartbeat/fence.h; fence_ms=30000 (100..600000): how
     * long it may take */
    char fence[256];
    unsigned fence_ms;
    /* watchdog_s=0 (0: off; 5..600): watchdog.h */
    unsigned watchdog_s;
    /* disk_log_mb=64 (1..64): what a disk's epoch may write */
    unsigned disk_log_mb;
    /* disk_copy_mb_s=0 (0: no limit; to 2^20): how fast disks are copied and
     * compared */
    unsigned disk_copy_mb_s;
    /* durable_ack=0 (0..1): as a backup, an epoch's disk writes are on this
     * host's disk before it is acknowledged */
    unsigned durable_ack;
    /* kernel_dirs="": folders that VMs are started from, with colons between;
     * "": hypervisor/xl/files.c has them */
    char kernel_dirs[512];
    /* disk_dirs="": the same for images of replicated disks */
    char disk_dirs[512];
    /* log="info": error, warn, info, debug */
    enum log_level log;
};

void config_defaults(struct config *c);
/* What understudy-xl has to know, into the environment. */
void config_export(const struct config *c);
/* Read `path`, or path_config() when NULL. A missing path_config() is fine, a
 * missing `path` is not. */
int config_load(struct config *c, const char *path, struct err *e);

#endif
