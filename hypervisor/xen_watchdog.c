// SPDX-License-Identifier: Apache-2.0
/* Xen's watchdog of a domain, ours: for dom0, "shutdown for reason watchdog" is
 * a reset of the host (xen/common/sched/core.c, domain_watchdog();
 * xen/common/shutdown.c, hwdom_shutdown()). See hv.h. */
#include "hypervisor/xen.h"

#include <errno.h>

int xen_watchdog(struct hv *hv, unsigned *id, unsigned seconds, struct err *e)
{
    struct xen *x = xen_of(hv);
    int r = xc_watchdog(x->xch, *id, seconds);

    /* Before Xen 4.3 both were EEXIST. */
    if (r < 0 && *id && (errno == EINVAL || errno == EEXIST))
        return err_kind(e, ERR_GONE, "watchdog timer %u is not in use", *id);
    if (r < 0 && (errno == ENOSPC || errno == EEXIST))
        return err_set(e, "both of Xen's watchdog timers are in use");
    if (r < 0)
        return err_sys(e, "Xen's watchdog");
    if (!*id)
        *id = (unsigned)r;
    return 0;
}
