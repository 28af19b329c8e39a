// SPDX-License-Identifier: Apache-2.0
/* Which devices a domain has, as xenstore says. Called by the agent's loop and
 * by the engine's thread a few times a second. */
#include "hypervisor/xen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* The name of one vif's interface in dom0. */
static int vif_name(struct xen *x, uint32_t domid, int devid, char name[16],
                    struct err *e)
{
    char backend[16];

    if (!xen_read(x, backend, sizeof backend,
                  "/libxl/%u/device/vif/%d/backend-id", domid, devid) &&
        !xen_read(x, backend, sizeof backend,
                  "/local/domain/%u/device/vif/%d/backend-id", domid, devid))
        return err_set(e, "vif %d of domain %u has no backend in xenstore",
                       devid, domid);
    if (strcmp(backend, "0") != 0) {
        err_kind(e, ERR_REFUSED, "vif %d lives in driver domain %s", devid,
                 backend);
        return err_hint(e, "only interfaces served by dom0 can be protected");
    }
    if (!xen_read(x, name, 16, "/local/domain/0/backend/vif/%u/%d/vifname",
                  domid, devid))
        snprintf(name, 16, "vif%u.%d", domid, devid);
    return 0;
}

int xen_vifs(struct hv *hv, uint32_t domid, char names[][16], int *n,
             struct err *e)
{
    struct xen *x = xen_of(hv);
    char path[64];
    unsigned count = 0;
    int devids[HV_MAX_VIFS];

    *n = 0;
    snprintf(path, sizeof path, "/libxl/%u/device/vif", domid);
    CLEANUP_FREE char **dir = xs_directory(x->xs, XBT_NULL, path, &count);
    if (!dir)
        return errno == ENOENT ? 0 : err_sys(e, "read xenstore's %s", path);
    if (count > HV_MAX_VIFS) {
        err_kind(e, ERR_REFUSED,
                 "the VM has %u network interfaces, at most %u can be "
                 "protected",
                 count, HV_MAX_VIFS);
        return err_hint(e, "take some out with `xl network-detach`");
    }
    for (unsigned i = 0; i < count; i++)
        devids[i] = atoi(dir[i]);
    qsort(devids, count, sizeof devids[0], by_number);
    for (unsigned i = 0; i < count; i++)
        if (vif_name(x, domid, devids[i], names[i], e))
            return -1;
    *n = (int)count;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;

    return strcmp(*x, *y);
}

/* Append " KIND/ID" for each device of a kind. */
static int kind_put(struct xen *x, uint32_t domid, const char *kind,
                    char out[HV_DEVICES_MAX], struct err *e)
{
    char path[128];
    unsigned count = 0;
    size_t at = strlen(out);

    snprintf(path, sizeof path, "/libxl/%u/device/%s", domid, kind);
    CLEANUP_FREE char **ids = xs_directory(x->xs, XBT_NULL, path, &count);
    if (!ids)
        return errno == ENOENT ? 0 : err_sys(e, "read xenstore's %s", path);
    qsort(ids, count, sizeof *ids, by_name);
    for (unsigned i = 0; i < count; i++) {
        int n = snprintf(out + at, HV_DEVICES_MAX - at, "%s%s/%s",
                         at ? " " : "", kind, ids[i]);
        if (n < 0 || (size_t)n >= HV_DEVICES_MAX - at)
            return err_kind(e, ERR_REFUSED, "domain %u has too many devices",
                            domid);
        at += (size_t)n;
    }
    return 0;
}

int xen_devices(struct hv *hv, uint32_t domid, char out[HV_DEVICES_MAX],
                struct err *e)
{
    struct xen *x = xen_of(hv);
    char path[64];
    unsigned count = 0;

    out[0] = '\0';
    snprintf(path, sizeof path, "/libxl/%u/device", domid);
    CLEANUP_FREE char **kinds = xs_directory(x->xs, XBT_NULL, path, &count);
    if (!kinds)
        return errno == ENOENT ? 0 : err_sys(e, "read xenstore's %s", path);
    qsort(kinds, count, sizeof *kinds, by_name);
    for (unsigned i = 0; i < count; i++)
        if (kind_put(x, domid, kinds[i], out, e))
            return -1;
    return 0;
}
