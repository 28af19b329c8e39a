// SPDX-License-Identifier: Apache-2.0
/* What cannot be protected, and what a host cannot hold, said by name before
 * anything is touched. What only libxl knows (the configuration, memory needs,
 * bridges) is checked by understudy-xl: hypervisor/xl/check.c. */
#include "hypervisor/xen.h"

#include <stdio.h>
#include <string.h>

#define CHECK_TIMEOUT_S 30

static int type_check(enum hv_type type, struct err *e)
{
    if (type == HV_PVH)
        return 0;
    err_kind(e, ERR_REFUSED,
             "this is %s guest; only PVH guests can be "
             "protected",
             type == HV_PV ? "a PV" : "an HVM");
    return err_hint(e, "set type=\"pvh\" in the VM's configuration (Linux 4.11 "
                       "or newer) and start it again");
}

static int pod_check(struct xen *x, uint32_t domid, struct err *e)
{
    uint64_t total, cache, entries;

    if (xc_domain_get_pod_target(x->xch, domid, &total, &cache, &entries))
        return 0; /* no populate-on-demand for this type of guest */
    if (!entries)
        return 0;
    err_kind(e, ERR_REFUSED,
             "%lu pages of the VM are still populated on "
             "demand",
             entries);
    return err_hint(e, "start it with maxmem equal to memory");
}

/* Linux says which requests it knows (drivers/xen/manage.c); a guest that says
 * nothing at all may know this one. */
static int suspend_check(struct xen *x, uint32_t domid, struct err *e)
{
    char off[8], suspend[8];

    if (!xen_read(x, off, sizeof off,
                  "/local/domain/%u/control/feature-poweroff", domid) ||
        strcmp(off, "1") != 0)
        return 0;
    if (xen_read(x, suspend, sizeof suspend,
                 "/local/domain/%u/control/feature-suspend", domid) &&
        strcmp(suspend, "1") == 0)
        return 0;
    err_kind(e, ERR_REFUSED, "the guest's kernel can't suspend");
    return err_hint(e, "use a kernel with CONFIG_HIBERNATE_CALLBACKS, as "
                       "distributions have it");
}

static int name_check(const char *name, struct err *e)
{
    size_t max = sizeof((struct hv_domain *)0)->name - sizeof HV_REPLICA_TAG;

    if (strstr(name, HV_REPLICA_TAG)) {
        err_kind(e, ERR_REFUSED, "%s is a replica, not a VM", name);
        return err_hint(e, "protect the VM itself, on the host that runs it");
    }
    if (!*name)
        err_kind(e, ERR_REFUSED,
                 "the domain has no name, or one of more than %zu characters",
                 max);
    else if (strlen(name) > max)
        err_kind(e, ERR_REFUSED, "the name %s is longer than %zu characters",
                 name, max);
    else
        return 0;
    return err_hint(e, "`xl rename` gives a VM another name");
}

static int state_check(const struct hv_domain *d, struct err *e)
{
    if (d->shutdown != HV_RUNNING) {
        err_kind(e, ERR_REFUSED, "the VM is shut down");
        return err_hint(e, "`xl destroy %s`, start it again, then protect it",
                        d->name);
    }
    if (xen_is_saved(d->domid)) {
        err_kind(e, ERR_REFUSED, "the VM is being saved or migrated");
        return err_hint(e, "wait until that ends, then try again");
    }
    if (!d->paused)
        return 0;
    err_kind(e, ERR_REFUSED, "the VM is paused");
    return err_hint(e, "`xl unpause %s`, then try again", d->name);
}

int xen_check_protect(struct hv *hv, uint32_t domid, struct err *e)
{
    struct xen *x = xen_of(hv);
    struct hv_domain d;
    char names[HV_MAX_VIFS][16], id[16];
    int n;

    if (domid == 0)
        return err_kind(e, ERR_REFUSED, "domain 0 can't be protected");
    if (xen_info(hv, domid, &d, e) || name_check(d.name, e) ||
        type_check(d.type, e) || state_check(&d, e) || pod_check(x, domid, e) ||
        suspend_check(x, domid, e) || hv->ops->vifs(hv, domid, names, &n, e))
        return -1;
    snprintf(id, sizeof id, "%u", domid);
    const char *argv[] = {"check", id, NULL};
    return xen_xl(argv, NULL, 0, CHECK_TIMEOUT_S, NULL, NULL, e);
}

void xen_version(struct xen *x, char *out, size_t size)
{
    int v = xc_version(x->xch, XENVER_version, NULL);

    snprintf(out, size, "%d.%d", v >> 16, v & 0xffff);
}

int xen_shell_check(struct hv *hv, const struct hv_vm *vm,
                    const void *blueprint, size_t len, struct err *e)
{
    struct xen *x = xen_of(hv);
    struct blueprint bp;
    char version[32];

    if (blueprint_parse(blueprint, len, &bp, e))
        return -1;
    if (blueprint_is_of(vm, bp.name, bp.uuid, e) || name_check(bp.name, e) ||
        type_check(bp.type, e))
        return -1;
    xen_version(x, version, sizeof version);
    if (strcmp(version, bp.xen) != 0) {
        err_kind(e, ERR_REFUSED, "the VM runs on Xen %s, this host has %s",
                 bp.xen, version);
        return err_hint(e, "bring both hosts to the same version of Xen");
    }
    if (xen_policy_check(x, &bp, e))
        return -1;
    const char *argv[] = {"fits", NULL};
    return xen_xl(argv, blueprint, len, CHECK_TIMEOUT_S, NULL, NULL, e);
}
