// SPDX-License-Identifier: Apache-2.0
/* The node control/shutdown of a domain, by which a guest is asked to suspend,
 * and who else asks through it. Called by xen_suspend.c, engine thread. */
#include "hypervisor/xen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

#define TRIES 20

/* The watch on control/shutdown tells of each write of it. Ours and the
 * guest's answer make two; events that are left over are somebody's who asks,
 * too, and whose request the guest may be following already. */
static int events_left(struct xen *x)
{
    char **event;

    while ((event = xs_check_watch(x->xs))) {
        free(event);
        x->suspend.events++;
    }
    return x->suspend.events;
}

static bool asked_by_others(struct xen *x)
{
    if (events_left(x) > 0 && xen_is_saved(x->suspend.domid))
        return true;
    x->suspend.events = 0;
    return false;
}

/* `xl save` and `xl migrate` write their request without looking, also over
 * ours. A guest that had not taken ours then suspends once for both, and it is
 * theirs, who would wait in vain when we resumed it. Events: our write, theirs,
 * and the answer that leaves the node empty. When the answer came between the
 * writes, theirs is there still. */
bool xen_control_taken(struct xen *x)
{
    unsigned len = 0;

    if (!x->suspend.asked || events_left(x) <= 0)
        return false;
    CLEANUP_FREE char *value =
        xs_read(x->xs, XBT_NULL, x->suspend.control, &len);
    return value && !len && xen_is_saved(x->suspend.domid);
}

/* One try, in a transaction: somebody's `xl reboot` may be written at the same
 * time, and must not be overwritten. Returns 0, or -1 with errno EAGAIN (try
 * again), EBUSY (a request is there already) or another one. */
static int ask_once(struct xen *x)
{
    xs_transaction_t t = xs_transaction_start(x->xs);

    if (!t)
        return -1;
    CLEANUP_FREE char *value = xs_read(x->xs, t, x->suspend.control, NULL);
    if (value && *value) {
        /* Linux ignores what comes while it suspends for us, and would never
         * look again: say it once more in the asker's place. */
        bool again = strcmp(value, "suspend") &&
                     xs_write(x->xs, t, x->suspend.control, value,
                              (unsigned)strlen(value));
        xs_transaction_end(x->xs, t, !again);
        errno = EBUSY;
        return -1;
    }
    /* What was written before is known now, an event comes before the answer
     * to a later request; what is written from now on ends the transaction. */
    bool free_for_us = !asked_by_others(x);
    bool wrote =
        free_for_us && xs_write(x->xs, t, x->suspend.control, "suspend", 7);
    int saved = free_for_us ? errno : EBUSY;
    bool done = xs_transaction_end(x->xs, t, !wrote);
    if (!wrote)
        errno = saved;
    if (!wrote || !done)
        return -1;
    x->suspend.events = -2;
    x->suspend.asked = true;
    return 0;
}

int xen_control_ask(struct xen *x, struct err *e)
{
    for (int tries = 0; tries < TRIES; tries++) {
        if (!ask_once(x))
            return 0;
        if (errno == EBUSY)
            return err_kind(e, ERR_TIMEOUT,
                            "somebody else asks domain %u to "
                            "shut down or suspend",
                            x->suspend.domid);
        if (errno != EAGAIN)
            break;
    }
    return err_sys(e, "write %s", x->suspend.control);
}

/* Take the request back, in a transaction because the guest takes it in one.
 * True: it never saw it. */
bool xen_control_withdraw(struct xen *x, const char *control)
{
    for (int tries = 0; tries < TRIES; tries++) {
        xs_transaction_t t = xs_transaction_start(x->xs);
        if (!t)
            return false;
        CLEANUP_FREE char *value = xs_read(x->xs, t, control, NULL);
        if (!value || strcmp(value, "suspend") != 0) {
            xs_transaction_end(x->xs, t, true);
            return false;
        }
        bool wrote = xs_write(x->xs, t, control, "", 0);
        if (xs_transaction_end(x->xs, t, !wrote) && wrote)
            return true;
        if (errno != EAGAIN)
            return false;
    }
    return false;
}
