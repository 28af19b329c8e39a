// SPDX-License-Identifier: Apache-2.0
/* The Xen implementation of hv.h: the connection, finding domains, and what
 * can be asked about them. Memory, suspend, state, checks and the shell have
 * files of their own. */
#include "hypervisor/xen.h"
#include "hypervisor/records.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"

#define DOMAINS_MAX 1024

/* Xen's libraries would print to standard error; their words become debug
 * lines, and the last complaint is kept for an error's text. */
static __attribute__((format(printf, 5, 0))) void
log_vmessage(xentoollog_logger *logger, xentoollog_level level, int errnoval,
             const char *context, const char *format, va_list ap)
{
    struct xen *x = (struct xen *)((char *)logger - offsetof(struct xen, log));

    (void)errnoval;
    if (level < XTL_WARN)
        return;
    vsnprintf(x->said, sizeof x->said, format, ap);
    log_debug("%s: %s", context ? context : "xen", x->said);
}

static void log_progress(xentoollog_logger *logger, const char *context,
                         const char *what, int percent, unsigned long done,
                         unsigned long total)
{
    (void)logger, (void)context, (void)what;
    (void)percent, (void)done, (void)total;
}

static void log_destroy(xentoollog_logger *logger)
{
    (void)logger;
}

static void xen_close(struct hv *hv)
{
    struct xen *x = xen_of(hv);

    if (x->suspend.open)
        xen_suspend_close(hv, x->suspend.domid);
    if (x->dirty.on)
        xen_logdirty_stop(hv, x->dirty.domid);
    xen_state_free(x);
    if (x->xs)
        xs_close(x->xs);
    if (x->xce)
        xenevtchn_close(x->xce);
    if (x->dmod)
        xendevicemodel_close(x->dmod);
    if (x->fmem)
        xenforeignmemory_close(x->fmem);
    if (x->op)
        xencall_free_buffer_pages(x->xcall, x->op, 1);
    if (x->xcall)
        xencall_close(x->xcall);
    if (x->xch)
        xc_interface_close(x->xch);
    free(x);
}

bool xen_read(struct xen *x, char *out, size_t size, const char *fmt, ...)
{
    char path[256];
    unsigned len;
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof path)
        return false;
    CLEANUP_FREE char *value = xs_read(x->xs, XBT_NULL, path, &len);
    if (!value || len >= size)
        return false;
    memcpy(out, value, len);
    out[len] = '\0';
    return true;
}

struct xen_domctl *xen_domctl(struct xen *x, uint32_t cmd, uint32_t domid)
{
    memset(x->op, 0, sizeof *x->op);
    x->op->interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    x->op->cmd = cmd;
    x->op->domain = (domid_t)domid;
    return x->op;
}

int xen_domctl_do(struct xen *x)
{
    return xencall1(x->xcall, __HYPERVISOR_domctl, (uint64_t)(uintptr_t)x->op) <
                   0
               ? -1
               : 0;
}

int xen_dominfo(struct xen *x, uint32_t domid, xc_domaininfo_t *info,
                struct err *e)
{
    struct xen_domctl *op = xen_domctl(x, XEN_DOMCTL_getdomaininfo, domid);

    /* For an id that is not there Xen tells of the next domain. */
    if (xen_domctl_do(x)) {
        if (errno != ESRCH)
            return err_sys(e, "ask Xen about domain %u", domid);
    } else if (op->u.getdomaininfo.domain == domid &&
               !(op->u.getdomaininfo.flags & XEN_DOMINF_dying)) {
        *info = op->u.getdomaininfo;
        return 0;
    }
    return err_kind(e, ERR_GONE, "domain %u is gone", domid);
}

static enum hv_type domain_type(struct xen *x, const xc_domaininfo_t *info)
{
    char type[16];

    if (!(info->flags & XEN_DOMINF_hvm_guest))
        return HV_PV;
    if (xen_read(x, type, sizeof type, "/libxl/%u/type", info->domain))
        return strcmp(type, "pvh") == 0 ? HV_PVH : HV_HVM;
    /* Not libxl's: a PVH guest has no emulated devices but a local APIC. */
    return info->arch_config.emulation_flags & ~XEN_X86_EMU_LAPIC ? HV_HVM
                                                                  : HV_PVH;
}

static enum hv_shutdown shutdown_of(const xc_domaininfo_t *info)
{
    unsigned reason =
        info->flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask;

    if (!(info->flags & XEN_DOMINF_shutdown))
        return HV_RUNNING;
    return reason < HV_OTHER ? (enum hv_shutdown)reason : HV_OTHER;
}

static int domain_fill(struct xen *x, const xc_domaininfo_t *info,
                       struct hv_domain *d, struct err *e)
{
    xen_pfn_t end_gfn;

    memset(d, 0, sizeof *d);
    d->domid = info->domain;
    memcpy(d->uuid, info->handle, sizeof d->uuid);
    if (!xen_read(x, d->name, sizeof d->name, "/local/domain/%u/name",
                  d->domid))
        d->name[0] = '\0';
    d->type = domain_type(x, info);
    d->paused = info->flags & XEN_DOMINF_paused;
    d->ran = info->cpu_time > 0;
    d->dying = info->flags & XEN_DOMINF_dying;
    d->shutdown = shutdown_of(info);
    d->vcpus = info->max_vcpu_id + 1;
    d->pages = info->tot_pages;
    d->max_pages = info->max_pages;
    if (xc_domain_nr_gpfns(x->xch, d->domid, &end_gfn) < 0)
        return err_sys(e, "ask for the memory size of domain %u", d->domid);
    d->end_gfn = end_gfn;
    return 0;
}

int xen_info(struct hv *hv, uint32_t domid, struct hv_domain *d, struct err *e)
{
    struct xen *x = xen_of(hv);
    xc_domaininfo_t info;

    if (xen_dominfo(x, domid, &info, e))
        return -1;
    return domain_fill(x, &info, d, e);
}

/* All domains but this one. Allocated; *n is how many. */
static xc_domaininfo_t *domain_list(struct xen *x, int *n, struct err *e)
{
    xc_domaininfo_t *list = calloc(DOMAINS_MAX, sizeof *list);

    if (!list)
        abort();
    *n = xc_domain_getinfolist(x->xch, 1, DOMAINS_MAX, list);
    if (*n >= 0)
        return list;
    err_sys(e, "list domains");
    free(list);
    return NULL;
}

static bool is_number(const char *s)
{
    if (!*s || strlen(s) > 5)
        return false;
    for (; *s; s++)
        if (!isdigit((unsigned char)*s))
            return false;
    return true;
}

int xen_find(struct hv *hv, const char *name, struct hv_domain *d,
             struct err *e)
{
    struct xen *x = xen_of(hv);
    char has[sizeof d->name];
    int n;
    CLEANUP_FREE xc_domaininfo_t *list = domain_list(x, &n, e);

    if (!list)
        return -1;
    for (int i = 0; i < n; i++) {
        if (list[i].flags & XEN_DOMINF_dying ||
            !xen_read(x, has, sizeof has, "/local/domain/%u/name",
                      list[i].domain) ||
            strcmp(has, name) != 0)
            continue;
        return domain_fill(x, &list[i], d, e);
    }
    if (is_number(name) && atoi(name) > 0) {
        if (!xen_info(hv, (uint32_t)atoi(name), d, e))
            return 0;
        if (e && e->kind != ERR_GONE)
            return -1;
        err_clear(e);
    }
    err_kind(e, ERR_GONE, "there is no domain \"%s\" on this host", name);
    return err_hint(e, "`xl list` shows the domains");
}

static bool is_replica(const char *name)
{
    size_t n = strlen(name), tag = strlen(HV_REPLICA_TAG);

    return n > tag && strcmp(name + n - tag, HV_REPLICA_TAG) == 0;
}

int xen_find_uuid(struct hv *hv, const uint8_t uuid[16], bool replica,
                  struct hv_domain *d, struct err *e)
{
    struct xen *x = xen_of(hv);
    int n;
    CLEANUP_FREE xc_domaininfo_t *list = domain_list(x, &n, e);

    if (!list)
        return -1;
    for (int i = 0; i < n; i++) {
        if (list[i].flags & XEN_DOMINF_dying ||
            memcmp(list[i].handle, uuid, sizeof d->uuid) != 0)
            continue;
        if (domain_fill(x, &list[i], d, e))
            return -1;
        if (is_replica(d->name) == replica)
            return 0;
    }
    return err_kind(e, ERR_GONE, "no %s with this uuid is on this host",
                    replica ? "replica" : "domain");
}

static int xen_pause(struct hv *hv, uint32_t domid, struct err *e)
{
    if (xc_domain_pause(xen_of(hv)->xch, domid))
        return err_sys(e, "pause domain %u", domid);
    return 0;
}

static int xen_unpause(struct hv *hv, uint32_t domid, struct err *e)
{
    if (xc_domain_unpause(xen_of(hv)->xch, domid))
        return err_sys(e, "unpause domain %u", domid);
    return 0;
}

static const struct hv_ops xen_ops = {
    .name = "xen",
    .close = xen_close,
    .find = xen_find,
    .find_uuid = xen_find_uuid,
    .info = xen_info,
    .pause = xen_pause,
    .unpause = xen_unpause,
    .vifs = xen_vifs,
    .devices = xen_devices,
    .watcher_start = xen_watcher_start,
    .watcher_end = xen_watcher_end,
    .watcher = xen_watcher,
    .check_protect = xen_check_protect,
    .describe = xen_describe,
    .map = xen_map,
    .unmap = xen_unmap,
    .map_stale = xen_map_stale,
    .logdirty_start = xen_logdirty_start,
    .logdirty_clean = xen_logdirty_clean,
    .logdirty_stop = xen_logdirty_stop,
    .suspend_open = xen_suspend_open,
    .suspend_path = xen_suspend_path,
    .suspend = xen_suspend,
    .resume = xen_resume,
    .suspend_close = xen_suspend_close,
    .suspend_recover = xen_suspend_recover,
    .get_state = xen_get_state,
    .shell_check = xen_shell_check,
    .shell_build = xen_shell_build,
    .boot = xen_boot,
    .state_check = record_state_check,
    .set_state = xen_set_state,
    .rename = xen_rename,
    .destroy = xen_destroy,
    .watchdog = xen_watchdog,
};

static int not_dom0(struct hv *hv, struct err *e, const char *what)
{
    err_sys(e, "%s", what);
    err_hint(e, "run this as root in dom0 of a Xen host with xenstored "
                "running");
    xen_close(hv);
    return -1;
}

int hv_xen_open(struct hv **hv, struct err *e)
{
    struct xen *x = calloc(1, sizeof *x);

    if (!x)
        abort();
    x->hv.ops = &xen_ops;
    x->suspend.port = x->suspend.lock_fd = -1;
    x->log.vmessage = log_vmessage;
    x->log.progress = log_progress;
    x->log.destroy = log_destroy;
    x->xch = xc_interface_open(&x->log, &x->log, 0);
    if (!x->xch)
        return not_dom0(&x->hv, e, "no Xen on this host: open its interface");
    x->xcall = xencall_open(&x->log, 0);
    if (!x->xcall)
        return not_dom0(&x->hv, e, "open Xen's hypercall device");
    x->op = xencall_alloc_buffer_pages(x->xcall, 1);
    if (!x->op)
        return not_dom0(&x->hv, e, "allocate hypercall memory");
    x->fmem = xenforeignmemory_open(&x->log, 0);
    if (!x->fmem)
        return not_dom0(&x->hv, e, "open Xen's foreign memory");
    x->dmod = xendevicemodel_open(&x->log, 0);
    if (!x->dmod)
        return not_dom0(&x->hv, e, "open Xen's device model interface");
    x->xs = xs_open(0);
    if (!x->xs)
        return not_dom0(&x->hv, e, "connect to xenstore");
    *hv = &x->hv;
    return 0;
}
