// SPDX-License-Identifier: Apache-2.0
/* Asking a guest to suspend, and letting it run on. Called by the engine's
 * thread.
 *
 * Two ways to ask: the guest publishes a suspend event channel
 * (device/suspend/event-channel, a matter of a few milliseconds), or the node
 * control/shutdown in xenstore, which Linux answers by freezing its tasks.
 *
 * One way to learn that it happened: Xen notifies a port of the guest
 * (xc_domain_subscribe_for_suspend) that we are bound to. A guest without a
 * suspend event channel gets a port that we allocate in it and that it never
 * looks at. Then Xen raises no VIRQ_DOM_EXC, so xenstored does not wake every
 * toolstack on the host (xen/common/domain.c). Such a port can't be closed by
 * us, only bound again, so its number is kept in xenstore for the next one. */
#include "hypervisor/xen.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <xen/hvm/params.h>
#include <xenguest.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"

/* How long after it was asked a guest may suspend: it needs that to freeze its
 * tasks, or to give up on that (Linux: 20 s). */
#define LATE_NS (25 * NS_PER_SEC)
/* The same for one that is asked by event channel: guest/fast-suspend gives up
 * after 3 s (patience_ms). */
#define LATE_EVTCHN_NS (5 * NS_PER_SEC)
/* Between looks for an event channel that a guest without one may offer. */
#define OFFER_NS NS_PER_SEC
/* Between looks at the domain while an event is expected: it may also crash,
 * reboot or vanish, which raises no event of ours. */
#define LOOK_MS 20
/* The same without an event channel. */
#define POLL_NS 300000
/* Between looks whether somebody has paused the domain. */
#define PAUSED_LOOK_MS 500

#define VCPU_PAGES ((sizeof(vcpu_guest_context_t) + HV_PAGE - 1) / HV_PAGE)

static uint64_t late_ns(enum hv_suspend_path path)
{
    return path == HV_SUSPEND_EVTCHN ? LATE_EVTCHN_NS : LATE_NS;
}

/* A guest that somebody has paused can neither answer nor give up: its time
 * begins anew when it runs again. */
static void late_extend(struct xen *x, uint32_t domid, uint64_t *since_ns)
{
    xc_domaininfo_t info;

    if (!xen_dominfo(x, domid, &info, NULL) && info.flags & XEN_DOMINF_paused)
        *since_ns = clock_ns();
}

/* --- What the domain is doing -------------------------------------------- */

enum seen { SEEN_RUNNING, SEEN_SUSPENDED, SEEN_SHUT_DOWN };

static enum seen look(struct xen *x, uint32_t domid)
{
    xc_domaininfo_t info;

    if (xen_dominfo(x, domid, &info, NULL))
        return SEEN_SHUT_DOWN;
    if (!(info.flags & XEN_DOMINF_shutdown))
        return SEEN_RUNNING;
    unsigned reason =
        info.flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask;
    return reason == SHUTDOWN_suspend ? SEEN_SUSPENDED : SEEN_SHUT_DOWN;
}

/* Wait at most this long for Xen's event, and take it. */
static void event_take(struct xen *x, uint64_t ns)
{
    struct timespec ts = clock_timespec(ns);
    struct pollfd p = {.fd = xenevtchn_fd(x->xce), .events = POLLIN};

    if (ppoll(&p, 1, &ts, NULL) != 1)
        return;
    int port = xenevtchn_pending(x->xce);
    if (port < 0)
        return;
    xenevtchn_unmask(x->xce, (evtchn_port_t)port);
}

static void wait_a_little(struct xen *x, uint64_t left_ns)
{
    uint64_t most = x->suspend.port >= 0 ? LOOK_MS * NS_PER_MS : POLL_NS;
    uint64_t ns = left_ns < most ? left_ns : most;
    struct timespec ts = {.tv_nsec = (long)ns};

    if (x->suspend.port < 0)
        nanosleep(&ts, NULL);
    else
        event_take(x, ns);
}

/* Is our end of the guest's channel still bound to it? */
static bool still_bound(struct xen *x)
{
    xc_evtchn_status_t st = {.dom = DOMID_SELF,
                             .port = (evtchn_port_t)x->suspend.port};

    return xc_evtchn_status(x->xch, &st) || st.status == EVTCHNSTAT_interdomain;
}

/* Asked by event channel, the guest has closed it: it unloaded its module,
 * which first ends the suspend that is under way. */
static bool channel_gone(struct xen *x)
{
    return x->suspend.open && x->suspend.path == HV_SUSPEND_EVTCHN &&
           !still_bound(x);
}

/* Ends early when the guest turns out to suspend for somebody else, or never.
 */
static enum seen wait_until(struct xen *x, uint32_t domid, uint64_t deadline,
                            const bool *over)
{
    for (;;) {
        bool gone = channel_gone(x); /* looked at first: what it did counts */
        enum seen seen = look(x, domid);
        uint64_t now = clock_ns();
        if (seen != SEEN_RUNNING || now >= deadline || gone ||
            (over && __atomic_load_n(over, __ATOMIC_RELAXED)) ||
            xen_control_taken(x))
            return seen;
        wait_a_little(x, deadline - now);
    }
}

/* --- Opening ------------------------------------------------------------- */

static bool published_port(struct xen *x, uint32_t domid, uint32_t *port)
{
    char value[16];

    if (!xen_read(x, value, sizeof value,
                  "/local/domain/%u/device/suspend/event-channel", domid))
        return false;
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    if (!*value || *end || !n || n > UINT32_MAX)
        return false;
    *port = (uint32_t)n;
    return true;
}

static void port_path(char out[64], uint32_t domid)
{
    snprintf(out, 64, "/libxl/%u/understudy-suspend-port", domid);
}

/* A port that we allocated in this domain before, if it is free again. The
 * node goes with libxl's directory of the domain when that is destroyed. */
static bool kept_port(struct xen *x, uint32_t domid, uint32_t *port)
{
    char path[64], value[16];

    port_path(path, domid);
    if (!xen_read(x, value, sizeof value, "%s", path))
        return false;
    xc_evtchn_status_t st = {.dom = (domid_t)domid,
                             .port = (evtchn_port_t)strtoul(value, NULL, 10)};
    if (!st.port || xc_evtchn_status(x->xch, &st) ||
        st.status != EVTCHNSTAT_unbound || st.u.unbound.dom != 0)
        return false;
    *port = st.port;
    return true;
}

static bool own_port(struct xen *x, uint32_t domid, uint32_t *port)
{
    char path[64], value[16];

    if (kept_port(x, domid, port))
        return true;
    int n = xc_evtchn_alloc_unbound(x->xch, domid, 0);
    if (n < 0)
        return false;
    *port = (uint32_t)n;
    port_path(path, domid);
    snprintf(value, sizeof value, "%u", *port);
    if (!xs_write(x->xs, XBT_NULL, path, value, (unsigned)strlen(value)))
        log_warn("domain %u: can't note port %u in xenstore", domid, *port);
    return true;
}

/* Only while we wait for our own suspend does Xen tell us instead of everybody:
 * a `xl save` by somebody else hears of the guest's suspend as always. */
static void hear(struct xen *x, uint32_t domid, bool on)
{
    const struct xen_suspend *s = &x->suspend;

    if (s->port >= 0)
        xc_domain_subscribe_for_suspend(x->xch, domid, on ? s->guest_port : 0);
}

/* Bind and subscribe; takes libxc's lock, so that `xl save` can't do the same
 * at the same time. */
static bool subscribe(struct xen *x, uint32_t domid, uint32_t port)
{
    struct xen_suspend *s = &x->suspend;

    s->port = xc_suspend_evtchn_init_exclusive(x->xch, x->xce, domid, (int)port,
                                               &s->lock_fd);
    s->guest_port = port;
    hear(x, domid, false);
    if (s->port >= 0)
        return true;
    log_info("domain %u: no suspend event on port %u: %s", domid, port,
             x->said);
    s->port = s->lock_fd = -1;
    return false;
}

int xen_suspend_open(struct hv *hv, uint32_t domid, struct err *e)
{
    struct xen *x = xen_of(hv);
    struct xen_suspend *s = &x->suspend;
    uint32_t port;

    if (s->open)
        xen_suspend_close(hv, s->domid);
    s->vcpu = xencall_alloc_buffer_pages(x->xcall, VCPU_PAGES);
    if (!s->vcpu)
        return err_sys(e, "allocate hypercall memory");
    s->open = true;
    s->domid = domid;
    s->offer_ns = clock_ns() + OFFER_NS;
    if (!x->xce && !(x->xce = xenevtchn_open(&x->log, 0))) {
        err_sys(e, "open Xen's event channels");
        xen_suspend_close(hv, domid);
        return -1;
    }
    s->late = false;
    s->path = HV_SUSPEND_XENSTORE;
    snprintf(s->control, sizeof s->control, "/local/domain/%u/control/shutdown",
             domid);
    if (!xs_watch(x->xs, s->control, "s"))
        log_warn("can't watch %s: %s", s->control, strerror(errno));
    if (published_port(x, domid, &port) && subscribe(x, domid, port))
        s->path = HV_SUSPEND_EVTCHN;
    else if (!own_port(x, domid, &port) || !subscribe(x, domid, port))
        log_info("domain %u: polling for its suspend", domid);
    return 0;
}

static bool newly_offered(struct xen *x)
{
    struct xen_suspend *s = &x->suspend;
    uint32_t port;

    if (clock_ns() < s->offer_ns)
        return false;
    s->offer_ns = clock_ns() + OFFER_NS;
    return published_port(x, s->domid, &port);
}

/* The guest may load its module, or unload it, at any time. Without a way at
 * all, the next suspend() says so, and this looks again. */
enum hv_suspend_path xen_suspend_path(struct hv *hv, uint32_t domid)
{
    struct xen *x = xen_of(hv);
    struct xen_suspend *s = &x->suspend;
    enum hv_suspend_path path = s->path;
    struct err e = ERR_INIT;

    if (s->open && (path == HV_SUSPEND_EVTCHN ? still_bound(x)
                                              : s->late || !newly_offered(x)))
        return path;
    if (xen_suspend_open(hv, domid, &e))
        log_warn("domain %u: %s", domid, e.text);
    else if (s->path != path)
        log_info("domain %u is asked to suspend %s from now on", domid,
                 path == HV_SUSPEND_EVTCHN ? "through xenstore"
                                           : "by event channel");
    return s->path;
}

/* --- Suspending ---------------------------------------------------------- */

static int ask(struct xen *x, struct err *e)
{
    struct xen_suspend *s = &x->suspend;

    s->asked = false;
    s->asked_ns = clock_ns();
    if (s->port >= 0)
        event_take(x, 0); /* of a suspend that came late */
    /* Xenstore first: were the guest about to suspend for somebody else, they
     * would not be told. */
    if (s->path == HV_SUSPEND_XENSTORE && xen_control_ask(x, e))
        return -1;
    hear(x, s->domid, true);
    if (s->path == HV_SUSPEND_XENSTORE)
        return 0;
    if (xenevtchn_notify(x->xce, (evtchn_port_t)s->port))
        return err_sys(e, "notify the suspend event channel of domain %u",
                       s->domid);
    return 0;
}

/* What xc_domain_resume(fast) does, without its allocations: the guest's
 * hypercall returns 1, "cancelled", which means that it goes on with its event
 * channels and grants as they are. */
static int resume_quick(struct xen *x, uint32_t domid)
{
    vcpu_guest_context_t *vcpu = x->suspend.vcpu;
    struct xen_domctl *op;

    if (look(x, domid) != SEEN_SUSPENDED) {
        errno = EINVAL;
        return -1;
    }
    op = xen_domctl(x, XEN_DOMCTL_getvcpucontext, domid);
    set_xen_guest_handle_raw(op->u.vcpucontext.ctxt, vcpu);
    if (xen_domctl_do(x))
        return -1;
    vcpu->user_regs.rax = 1;
    op = xen_domctl(x, XEN_DOMCTL_setvcpucontext, domid);
    set_xen_guest_handle_raw(op->u.vcpucontext.ctxt, vcpu);
    if (xen_domctl_do(x))
        return -1;
    xen_domctl(x, XEN_DOMCTL_resumedomain, domid);
    return xen_domctl_do(x);
}

static int resume(struct xen *x, uint32_t domid, struct err *e)
{
    int rc = x->suspend.vcpu ? resume_quick(x, domid)
                             : xc_domain_resume(x->xch, domid, 1);

    return rc ? err_sys(e, "resume domain %u", domid) : 0;
}

static enum hv_suspend_result not_ours(uint32_t domid, struct err *e)
{
    err_kind(e, ERR_TIMEOUT, "domain %u is suspended by somebody else", domid);
    return HV_NOT_IN_TIME;
}

/* Have everybody told that the domain is shut down, who may have missed it
 * while we were told alone: xenstored looks at all domains when one ends. */
static void tell_everybody(struct xen *x)
{
    struct xen_domctl_createdomain config = {.max_vcpus = 1,
                                             .max_evtchn_port = 1,
                                             .max_grant_frames = 1,
                                             .max_maptrack_frames = 1,
                                             .grant_opts = 1};
    uint32_t domid = 0;

    if (xc_domain_create(x->xch, &domid, &config) ||
        xc_domain_destroy(x->xch, domid))
        log_warn("can't announce that a domain is suspended: %s", x->said);
}

/* The guest suspends for somebody else. */
static enum hv_suspend_result leave_to_them(struct xen *x, struct err *e)
{
    uint32_t domid = x->suspend.domid;

    x->suspend.late = false;
    hear(x, domid, false);
    if (look(x, domid) == SEEN_SUSPENDED)
        tell_everybody(x);
    return not_ours(domid, e);
}

/* The deadline is over, the guest runs. A request in xenstore can be taken back
 * unless the guest has it already; then, and on the event channel, the guest
 * will suspend or give up, and nobody else would resume it. */
static enum hv_suspend_result too_late(struct xen *x, uint32_t domid,
                                       unsigned deadline_ms, struct err *e)
{
    struct xen_suspend *s = &x->suspend;

    s->late = false;
    if (channel_gone(x)) {
        err_kind(e, ERR_TIMEOUT,
                 "domain %u closed its suspend event channel when asked to "
                 "suspend",
                 domid);
        return HV_NOT_IN_TIME;
    }
    err_kind(e, ERR_TIMEOUT, "domain %u did not suspend within %u ms", domid,
             deadline_ms);
    if (s->path == HV_SUSPEND_XENSTORE && xen_control_withdraw(x, s->control))
        return HV_NOT_IN_TIME;
    late_extend(x, domid, &s->asked_ns);
    s->late = clock_ns() < s->asked_ns + late_ns(s->path);
    return s->late ? HV_LATE : HV_NOT_IN_TIME;
}

/* Before asking: a guest that is stopped by somebody else is not ours to
 * resume. */
static bool may_ask(struct xen *x, uint32_t domid, struct err *e)
{
    xc_domaininfo_t info;

    if (xen_dominfo(x, domid, &info, NULL))
        return true; /* gone: found below */
    if (info.flags & XEN_DOMINF_paused)
        err_kind(e, ERR_TIMEOUT, "domain %u is paused", domid);
    else if (look(x, domid) == SEEN_SUSPENDED)
        not_ours(domid, e);
    else
        return true;
    return false;
}

static enum hv_suspend_result suspend(struct hv *hv, uint32_t domid,
                                      unsigned deadline_ms, const bool *over,
                                      struct err *e)
{
    struct xen *x = xen_of(hv);
    struct xen_suspend *s = &x->suspend;
    uint64_t deadline = clock_ns() + deadline_ms * NS_PER_MS;
    struct err why = ERR_INIT;

    if (!s->open || s->domid != domid) {
        err_set(e, "suspend of domain %u was not prepared", domid);
        return HV_SUSPEND_ERROR;
    }
    /* An answer to an earlier request is as good as one to a new one, and a
     * second request might be answered by a second suspend. */
    if (!s->late) {
        if (!may_ask(x, domid, e))
            return HV_NOT_IN_TIME;
        fault_point("suspend.asking");
        if (ask(x, &why)) {
            err_kind(e, why.kind, "%s", why.text);
            return why.kind == ERR_TIMEOUT ? HV_NOT_IN_TIME : HV_SUSPEND_ERROR;
        }
    }
    enum seen seen = wait_until(x, domid, deadline, over);
    if (xen_control_taken(x))
        return leave_to_them(x, e);
    switch (seen) {
    case SEEN_SUSPENDED:
        s->late = false;
        return HV_SUSPENDED;
    case SEEN_SHUT_DOWN:
        s->late = false;
        err_kind(e, ERR_GONE, "domain %u has shut down", domid);
        return HV_SHUT_DOWN;
    case SEEN_RUNNING:
        break;
    }
    return too_late(x, domid, deadline_ms, e);
}

enum hv_suspend_result xen_suspend(struct hv *hv, uint32_t domid,
                                   unsigned deadline_ms, const bool *over,
                                   struct err *e)
{
    struct xen *x = xen_of(hv);
    enum hv_suspend_result result = suspend(hv, domid, deadline_ms, over, e);

    if (result != HV_SUSPENDED && result != HV_LATE)
        hear(x, domid, false);
    return result;
}

int xen_resume(struct hv *hv, uint32_t domid, struct err *e)
{
    struct xen *x = xen_of(hv);

    /* First, or a next suspend, for `xl save`, might be told to us alone. */
    hear(x, domid, false);
    return resume(x, domid, e);
}

/* A guest that answered after we had given up waiting. */
static void late_settle(struct xen *x, uint32_t domid)
{
    struct err e = ERR_INIT;

    if (x->suspend.late && look(x, domid) == SEEN_SUSPENDED &&
        resume(x, domid, &e))
        log_error("%s", e.text);
}

void xen_suspend_close(struct hv *hv, uint32_t domid)
{
    struct xen *x = xen_of(hv);
    struct xen_suspend *s = &x->suspend;

    if (!s->open || s->domid != domid)
        return;
    late_settle(x, domid);
    xs_unwatch(x->xs, s->control, "s");
    if (s->port >= 0) {
        /* Without this `xl save` would wait for an event for ever. */
        xc_domain_subscribe_for_suspend(x->xch, domid, 0);
        xc_suspend_evtchn_release(x->xch, x->xce, domid, s->port, &s->lock_fd);
    }
    xencall_free_buffer_pages(x->xcall, s->vcpu, VCPU_PAGES);
    memset(s, 0, sizeof *s);
    s->port = s->lock_fd = -1;
}

/* Until when a guest may answer a request that was not withdrawn. Of one by a
 * predecessor it is only known that it was made before we first looked. */
static uint64_t answer_until(struct xen *x, uint32_t domid)
{
    struct xen_suspend *s = &x->suspend;
    uint32_t port;

    if (s->open && s->domid == domid) {
        late_extend(x, domid, &s->asked_ns);
        return s->late ? s->asked_ns + late_ns(s->path) : 0;
    }
    if (!s->recover_ns)
        s->recover_ns = clock_ns();
    late_extend(x, domid, &s->recover_ns);
    return s->recover_ns + late_ns(published_port(x, domid, &port)
                                       ? HV_SUSPEND_EVTCHN
                                       : HV_SUSPEND_XENSTORE);
}

int xen_suspend_recover(struct hv *hv, uint32_t domid, unsigned deadline_ms,
                        struct err *e)
{
    struct xen *x = xen_of(hv);
    uint64_t until = answer_until(x, domid);
    uint64_t deadline = clock_ns() + deadline_ms * NS_PER_MS;
    char control[64];

    snprintf(control, sizeof control, "/local/domain/%u/control/shutdown",
             domid);
    /* A predecessor's subscription points to a port that is closed. */
    xc_domain_subscribe_for_suspend(x->xch, domid, 0);
    if (xen_control_withdraw(x, control))
        return 0;
    enum seen seen;
    do {
        uint64_t stop = clock_ns() + PAUSED_LOOK_MS * NS_PER_MS;
        stop = until < stop ? until : stop;
        seen = wait_until(x, domid, stop < deadline ? stop : deadline, NULL);
        until = answer_until(x, domid);
    } while (seen == SEEN_RUNNING && clock_ns() < until &&
             clock_ns() < deadline && !channel_gone(x) &&
             !xen_control_taken(x));
    if (seen == SEEN_RUNNING && clock_ns() < until && !channel_gone(x))
        return err_kind(e, ERR_TIMEOUT, "domain %u may suspend still", domid);
    if (x->suspend.domid == domid)
        x->suspend.late = false;
    if (seen != SEEN_SUSPENDED)
        return 0;
    log_warn("domain %u: resuming it, nobody else would", domid);
    return resume(x, domid, e);
}
